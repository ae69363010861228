//! Calls to a service, repeated while it is away.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde::Serialize;
use serde::de::DeserializeOwned;
use ureq::http::Request;
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use ureq::{Agent, Body, BodyReader};

/// How long connecting may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a service may send nothing: it scans all accounts before it answers.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(120);

/// The pause between attempts.
const PAUSE: Duration = Duration::from_millis(100);

/// The size of the buffer for lines.
const BUFFER_BYTES: usize = 64 * 1024;

/// The lines of a response that is still arriving.
pub(crate) type Lines = BufReader<BodyReader<'static>>;

/// Why a call failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Another attempt may succeed.
    Transient(String),
    /// Another attempt fails too.
    Final(String),
}

/// Repeats `work` until it succeeds. Fails when it has failed for `patience`, or if a repetition cannot help.
pub(crate) fn patiently<T>(patience: Duration, mut work: impl FnMut() -> Result<T, Failure>) -> anyhow::Result<T> {
    let started = Instant::now();
    loop {
        match work() {
            Ok(value) => return Ok(value),
            Err(Failure::Transient(_)) if started.elapsed() < patience => std::thread::sleep(PAUSE),
            Err(Failure::Transient(text) | Failure::Final(text)) => bail!(text),
        }
    }
}

/// The certificates of the CAs in `file`, or of the system's.
fn trusted(file: Option<&Path>) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let Some(file) = file else {
        let found = rustls_native_certs::load_native_certs().certs;
        anyhow::ensure!(!found.is_empty(), "this system has no store of certificates: name a file with --ca-file");
        return Ok(found);
    };
    let read = || CertificateDer::pem_file_iter(file)?.collect::<Result<Vec<_>, _>>();
    let found = read().with_context(|| format!("--ca-file {}", file.display()))?;
    anyhow::ensure!(!found.is_empty(), "--ca-file {}: it has no certificate in PEM form", file.display());
    Ok(found)
}

/// A client for services at `urls`. Where one is https, it trusts the CAs in `ca_file`, or those of the system.
pub(crate) fn agent<'a>(mut urls: impl Iterator<Item = &'a str>, ca_file: Option<&Path>) -> anyhow::Result<Agent> {
    let roots = if urls.any(|url| url.starts_with("https:")) { trusted(ca_file)? } else { Vec::new() };
    let roots = roots.iter().map(|root| Certificate::from_der(root).to_owned()).collect();
    let tls = TlsConfig::builder()
        .root_certs(RootCerts::Specific(Arc::new(roots)))
        .unversioned_rustls_crypto_provider(Arc::new(aws_lc_rs::default_provider()));
    let config = Agent::config_builder()
        .http_status_as_error(false)
        .proxy(None)
        .tls_config(tls.build())
        .timeout_connect(Some(CONNECT_TIMEOUT))
        .timeout_recv_response(Some(SILENCE_TIMEOUT))
        .timeout_per_read(Some(SILENCE_TIMEOUT));
    Ok(config.build().into())
}

/// Whether `error` is about TLS, such as a certificate that is not trusted.
fn is_about_tls(error: &ureq::Error) -> bool {
    match error {
        ureq::Error::Tls(_) | ureq::Error::Rustls(_) => true,
        ureq::Error::Io(error) => error.get_ref().is_some_and(|cause| cause.is::<rustls::Error>()),
        _ => false,
    }
}

/// An instance of a service.
#[derive(Debug, Clone)]
pub(crate) struct Service {
    agent: Agent,
    pub(crate) url: String,
    token: Option<String>,
    patience: Duration,
}

impl Service {
    pub(crate) fn new(agent: Agent, url: &str, token: Option<String>, patience: Duration) -> Self {
        Service { agent, url: url.trim_end_matches('/').to_owned(), token, patience }
    }

    /// Repeats `work` while the service is away.
    pub(crate) fn patiently<T>(&self, work: impl FnMut() -> Result<T, Failure>) -> anyhow::Result<T> {
        patiently(self.patience, work)
    }

    /// The JSON of `GET path`.
    pub(crate) fn get<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        self.patiently(|| self.try_get(path))
    }

    /// As [`get`](Service::get), once.
    pub(crate) fn try_get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        self.parsed(self.send::<()>("GET", path, &[], None)?)
    }

    /// The JSON of `DELETE path`.
    pub(crate) fn delete<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        self.patiently(|| self.parsed(self.send::<()>("DELETE", path, &[], None)?))
    }

    /// The lines of `GET path`, a stream of server-sent events. `last` is the `Last-Event-ID`.
    pub(crate) fn stream(&self, path: &str, last: Option<&str>) -> Result<Lines, Failure> {
        let headers: Vec<_> = last.map(|id| ("Last-Event-ID", id)).into_iter().collect();
        Ok(BufReader::new(self.send::<()>("GET", path, &headers, None)?.into_reader()))
    }

    /// The JSON of `POST path`.
    pub(crate) fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> anyhow::Result<T> {
        self.patiently(|| self.parsed(self.send("POST", path, &[], Some(body))?))
    }

    /// Reads the lines of a response: calls `each` with every line that is an array, and returns the last line, an object. The request is
    /// a POST if there is a `body`.
    pub(crate) fn lines<L: DeserializeOwned, E: DeserializeOwned>(
        &self,
        path: &str,
        body: Option<&impl Serialize>,
        mut each: impl FnMut(L),
    ) -> Result<E, Failure> {
        let method = if body.is_some() { "POST" } else { "GET" };
        let mut reader = BufReader::with_capacity(BUFFER_BYTES, self.send(method, path, &[], body)?.into_reader());
        let mut line = Vec::new();
        loop {
            line.clear();
            let length = reader.read_until(b'\n', &mut line);
            let length = length.map_err(|error| self.transient(format!("the answer broke off: {error}")))?;
            let invalid = |error| self.failed(format!("{path} has a line that this release does not know: {error}"));
            match line.first() {
                Some(b'[') => each(serde_json::from_slice(&line).map_err(invalid)?),
                Some(_) => return serde_json::from_slice(&line).map_err(invalid),
                None => debug_assert_eq!(length, 0),
            }
            if length == 0 {
                return Err(self.transient("the answer broke off".to_owned()));
            }
        }
    }

    fn send<B: Serialize>(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&B>,
    ) -> Result<Body, Failure> {
        let invalid = |error: ureq::http::Error| self.failed(error.to_string());
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.url));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(token) = &self.token {
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        let response = match body {
            Some(body) => {
                let body = serde_json::to_vec(body).map_err(|error| self.failed(error.to_string()))?;
                let request = request.header("Content-Type", "application/json");
                self.agent.run(request.body(body).map_err(invalid)?)
            }
            None => self.agent.run(request.body(()).map_err(invalid)?),
        };
        let response = response.map_err(|error| match is_about_tls(&error) {
            true => self.failed(error.to_string()),
            false => self.transient(error.to_string()),
        })?;
        let (status, mut body) = (response.status().as_u16(), response.into_body());
        if status == 200 {
            return Ok(body);
        }
        let text = format!("{status} for {path}: {}", body.read_to_string().unwrap_or_default().trim());
        Err(if status == 503 { self.transient(text) } else { self.failed(text) })
    }

    fn parsed<T: DeserializeOwned>(&self, body: Body) -> Result<T, Failure> {
        let reader = BufReader::with_capacity(BUFFER_BYTES, body.into_reader());
        serde_json::from_reader(reader).map_err(|error| match error.is_data() {
            true => self.failed(format!("an answer that this release does not know: {error}")),
            false => self.transient(format!("the answer broke off: {error}")),
        })
    }

    fn transient(&self, text: String) -> Failure {
        Failure::Transient(format!("{}: {text}", self.url))
    }

    fn failed(&self, text: String) -> Failure {
        Failure::Final(format!("{}: {text}", self.url))
    }
}

/// The exit status of a command with this outcome. Prints its error.
pub(crate) fn status(outcome: anyhow::Result<()>) -> i32 {
    match outcome {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("error: {error:#}");
            1
        }
    }
}
