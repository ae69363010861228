//! The system tests: the three binaries as a person, an operator and a power cut meet them, and one test for each hole in
//! the seed's design.
//!
//! One test binary, so that everything is linked once. `place` says which databases and which event log the tests run on.
//! What is to happen is waited for, with a deadline, not slept through. A fixed time passes only where that time is what a
//! test is about, in `chaos`, `soak` and `outages`: how long a load lasts and at what pace, how long somebody is away or hangs.

mod cluster;
mod events;
mod kafka;
mod keep_alive;
mod operator;
mod place;
mod proxy;
mod random;
mod requests;
mod servers;
mod tables;

mod authentication;
mod banner;
mod chaos;
mod checkpoint;
mod commands;
mod compose;
mod connections;
mod erase;
mod event_stream;
mod holes;
mod kafka_tools;
mod keys;
mod kill;
mod lifecycle;
mod log_lines;
mod outages;
mod privacy;
mod read_your_writes;
mod readme_flow;
mod recover;
mod restart;
mod resync;
mod secured_kafka;
mod settings;
mod soak;
mod storage;
mod stuck_stderr;
mod tls;
mod upgrade;
mod verify;
