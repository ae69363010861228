//! The system tests: the three binaries as a person, an operator and a power cut meet them, and one test for each hole in
//! the seed's design.
//!
//! One test binary, so that everything is linked once. Kafka is librdkafka's mock cluster inside the test process; its
//! limits are named in `mock_kafka`. Nothing here waits for a fixed time: a condition is waited for, with a deadline.

mod events;
mod in_process;
mod keep_alive;
mod mock_kafka;
mod random;
mod requests;

mod banner;
mod chaos;
mod holes;
mod kill;
mod lifecycle;
mod log_lines;
mod readme_flow;
mod restart;
mod secured_kafka;
mod settings;
