//! The life of a process from `main` to its exit, and its listeners.

use std::net::{IpAddr, SocketAddr};

use anyhow::Context;
use http_server::{HttpArgs, HttpConfig};
use tokio::net::{TcpListener, TcpSocket};
use tokio_util::sync::CancellationToken;

use crate::{exit, init_logs, log_writer, raise_descriptor_limit, shutdown_on_signals};

/// Starts logging and the runtime, runs `services`, and exits. `services` should return soon after a signal cancels its
/// token. An error is printed as one line and makes the exit status 1.
pub fn run<F: Future<Output = anyhow::Result<()>>>(
    log_level: &str,
    services: impl FnOnce(CancellationToken) -> F,
) -> ! {
    if let Err(error) = init_logs(log_level) {
        eprintln!("error: {error:#}");
        exit(1)
    }
    let outcome = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(anyhow::Error::from);
    let outcome = outcome.and_then(|runtime| {
        let outcome = runtime.block_on(async { services(shutdown_on_signals()?).await });
        // A thread may still be blocked, for example by a broker that does not answer.
        runtime.shutdown_background();
        outcome
    });
    if let Err(error) = &outcome {
        log_writer::write_last(&format!("error: {error:#}\n"));
    }
    exit(i32::from(outcome.is_err()))
}

/// The number of connections that wait to be accepted. The system lowers it to its own limit (`net.core.somaxconn`). A client
/// beyond the limit retries after a second.
const BACKLOG: u32 = i32::MAX.unsigned_abs();

/// Listens on `address` and `port`; 0 for a port that the system picks. `setting` names the port's setting in the error.
pub async fn listen(address: IpAddr, port: u16, setting: &str) -> anyhow::Result<TcpListener> {
    let address = SocketAddr::new(address, port);
    let listen = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.set_reuseaddr(true)?; // connections of the previous process do not delay a restart
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    listen().with_context(|| format!("cannot listen on {address}, which {setting} and BIND_ADDR name"))
}

/// Returns the configuration of each of `listeners` on `address`, with one authenticator for all. Logs a warning if anyone may call and
/// `address` can be reached from other machines.
pub fn http_config(http: &HttpArgs, address: IpAddr, listeners: usize) -> anyhow::Result<HttpConfig> {
    let authenticator = http.auth.authenticator(address)?;
    if authenticator.is_none() && !address.to_canonical().is_loopback() {
        tracing::warn!(%address, "BIND_ADDR is not a loopback address, and AUTH is off: limit who can connect");
    }
    let audit_file = http.audit_file()?;
    Ok(HttpConfig { authenticator, audit_file, ..http.config(raise_descriptor_limit(), listeners, address)? })
}
