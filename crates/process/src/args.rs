//! The settings that every binary has.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::Args;

use crate::{bind_address, log_level};

/// The bind address, the data folder and the log level.
#[derive(Debug, Clone, Args)]
pub struct CommonArgs {
    /// The address to listen on; 0.0.0.0 for all
    #[arg(long, env = "BIND_ADDR", default_value = "127.0.0.1", value_parser = bind_address)]
    pub bind_addr: IpAddr,

    /// The folder for everything durable; made if it is missing
    #[arg(long, global = true, env = "DATA_DIR", default_value = "./data")]
    pub data_dir: PathBuf,

    /// error, warn, info, debug or trace, or several such as info,card_service=debug
    #[arg(long, env = "LOG_LEVEL", default_value = "info", value_parser = log_level)]
    pub log_level: String,
}
