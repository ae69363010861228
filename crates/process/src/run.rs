//! From `main` to the services and back.

use std::net::{IpAddr, SocketAddr};

use anyhow::Context;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::shutdown::exit_at_once;
use crate::{init_logs, shutdown_on_signals};

/// Starts logging and the runtime, and runs `services` until it returns, which it should soon after the token that it is
/// given is cancelled by a signal. Ends the process: a failure is printed as one line and makes the exit status 1.
pub fn run<F: Future<Output = anyhow::Result<()>>>(
    log_level: &str,
    services: impl FnOnce(CancellationToken) -> F,
) -> ! {
    let outcome = init_logs(log_level).map_err(anyhow::Error::from).and_then(|()| {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let outcome = runtime.block_on(async { services(shutdown_on_signals()?).await });
        // What still blocks a thread by now (a broker that does not answer) is not waited for.
        runtime.shutdown_background();
        outcome
    });
    if let Err(error) = &outcome {
        eprintln!("error: {error:#}");
    }
    exit_at_once(i32::from(outcome.is_err()))
}

/// Listens on `address` and `port`; 0 for a port that the system picks. `setting` names the port's setting in the error.
pub async fn listen(address: IpAddr, port: u16, setting: &str) -> anyhow::Result<TcpListener> {
    let address = SocketAddr::new(address, port);
    let listener = TcpListener::bind(address).await;
    listener.with_context(|| format!("cannot listen on {address}, which {setting} and BIND_ADDR name"))
}
