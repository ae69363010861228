//! What every binary needs around its service: settings, logs, a banner, signals, descriptors, and the start of a service in
//! a process of its own.
//!
//! The only global state is what a process has once: its logger and its signal handlers.

mod args;
mod banner;
mod descriptors;
mod dot_env;
mod kafka_args;
mod log_writer;
mod public_cause;
mod run;
mod settings;
mod shutdown;
mod standalone;
mod telemetry;
mod variables;

pub use args::CommonArgs;
pub use banner::print_banner;
pub use descriptors::raise_descriptor_limit;
pub use kafka_args::{KafkaArgs, Secret};
pub use public_cause::public_cause;
pub use run::{http_config, listen, run};
pub use settings::{NoSettings, bind_address, parse, try_parse_from};
pub use shutdown::{exit, shutdown_on_signals};
pub use standalone::Standalone;
pub use telemetry::{init_logs, log_level};
pub use variables::{ENV_FILE, Variables};
