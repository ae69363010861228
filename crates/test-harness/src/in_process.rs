//! A service of this workspace inside the process of the test.

use std::future::Future;

use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::{Http, wait_until};

/// Threads of a service's runtime: two find races that one hides, and more would only take turns.
const WORKER_THREADS: usize = 2;

/// A running service on a port of its own. It is stopped when dropped, and has let go of its files then.
pub struct InProcess {
    http: Http,
    shutdown: CancellationToken,
    /// `None` once it has ended.
    serving: Option<JoinHandle<anyhow::Result<()>>>,
    runtime: Runtime,
}

impl InProcess {
    /// Starts what `run` makes of a listener and the token that ends it.
    pub fn start<F>(run: impl FnOnce(TcpListener, CancellationToken) -> F) -> Self
    where
        F: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(WORKER_THREADS)
            .enable_all()
            .build()
            .expect("a runtime");
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a free port");
        let http = Http::new(listener.local_addr().expect("a bound listener")).checked();
        let shutdown = CancellationToken::new();
        let serving = Some(runtime.spawn(run(listener, shutdown.clone())));
        InProcess { http, shutdown, serving, runtime }
    }

    /// Has the client of it send the key of the caller `name` with each request.
    #[must_use]
    pub fn with_caller(mut self, name: &str) -> Self {
        self.http = self.http.of_caller(name);
        self
    }

    /// A client of it.
    pub fn http(&self) -> &Http {
        &self.http
    }

    /// Asks it to end, and waits until it has; gives what it ended with.
    pub fn stop(&mut self) -> anyhow::Result<()> {
        self.shutdown.cancel();
        self.wait()
    }

    /// Waits until it ends by itself; gives what it ended with.
    pub fn wait(&mut self) -> anyhow::Result<()> {
        match self.serving.take() {
            Some(serving) => {
                wait_until("the service ends", || serving.is_finished().then_some(()));
                self.runtime.block_on(serving).expect("a service does not panic")
            }
            None => Ok(()),
        }
    }
}

impl Drop for InProcess {
    fn drop(&mut self) {
        let ended = self.stop();
        // The panic of a failed test is the one to show.
        if !std::thread::panicking() {
            ended.expect("a service that served ends without an error");
        }
    }
}
