//! From `main` to the services and back.

use std::net::{IpAddr, SocketAddr};

use anyhow::Context;
use tokio::net::{TcpListener, TcpSocket};
use tokio_util::sync::CancellationToken;

use crate::{exit, init_logs, log_writer, shutdown_on_signals};

/// Starts logging and the runtime, and runs `services` until it returns, which it should soon after the token that it is
/// given is cancelled by a signal. Ends the process: a failure is printed as one line and makes the exit status 1.
pub fn run<F: Future<Output = anyhow::Result<()>>>(
    log_level: &str,
    services: impl FnOnce(CancellationToken) -> F,
) -> ! {
    if let Err(error) = init_logs(log_level) {
        eprintln!("error: {error}");
        exit(1)
    }
    let outcome = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(anyhow::Error::from);
    let outcome = outcome.and_then(|runtime| {
        let outcome = runtime.block_on(async { services(shutdown_on_signals()?).await });
        // What still blocks a thread by now (a broker that does not answer) is not waited for.
        runtime.shutdown_background();
        outcome
    });
    if let Err(error) = &outcome {
        log_writer::write_last(&format!("error: {error:#}\n"));
    }
    exit(i32::from(outcome.is_err()))
}

/// How many connections wait to be accepted: as many as the system allows, which lowers the number to its own limit
/// (`net.core.somaxconn`). A connection beyond it waits a second for the client's next attempt.
const BACKLOG: u32 = i32::MAX.unsigned_abs();

/// Listens on `address` and `port`; 0 for a port that the system picks. `setting` names the port's setting in the error.
pub async fn listen(address: IpAddr, port: u16, setting: &str) -> anyhow::Result<TcpListener> {
    let address = SocketAddr::new(address, port);
    let listen = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.set_reuseaddr(true)?; // a restart does not wait for the connections of the process before
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    listen().with_context(|| format!("cannot listen on {address}, which {setting} and BIND_ADDR name"))
}

/// Logs a warning if `address` can be reached from other machines.
pub fn warn_if_exposed(address: IpAddr) {
    if !address.to_canonical().is_loopback() {
        tracing::warn!(%address, "BIND_ADDR is not a loopback address, and callers are not authenticated: limit who can connect");
    }
}
