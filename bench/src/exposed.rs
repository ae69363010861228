//! What it costs to expose the services: accounts a second with API keys, with tokens and with TLS, and the latency of an honest caller
//! beside others: silent connections, readers that do not read, and a caller above its rate.

use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, RootCertStore};
use test_harness::{Issuer, KeysFile, Process};
use tokio_rustls::TlsConnector;

use crate::load::{self, Connection, Schedule, Target, Until};
use crate::results::{Of, Results, Unit};
use crate::system::{ACCOUNT, ACCOUNT_SERVICE, Build};

/// Rounds, of which the medians are given.
const ROUNDS: usize = 5;
/// How long a turn at saturation takes.
const TURN: Duration = Duration::from_secs(3);
const CONNECTIONS: usize = 64;

/// The honest caller's requests. They are below every limit.
const HONEST: Schedule = Schedule { rate: 500, seconds: 4, connections: 16 };
/// The rate that a caller may have, and which another caller exceeds.
const CALLER_RATE: &str = "1000";
const SILENT: usize = 2_000;
const SLOW_READERS: usize = 500;
/// Connections of the caller above its rate.
const GREEDY: usize = 16;

/// An all-in-one with settings of its own, and how it is called.
struct Exposed {
    what: &'static str,
    _process: Process,
    target: Target,
    request: Rc<[u8]>,
}

impl Exposed {
    fn start(
        what: &'static str,
        build: &Build,
        folder: &Path,
        settings: &[(&str, &str)],
        token: Option<&str>,
        tls: Option<TlsConnector>,
    ) -> anyhow::Result<Self> {
        let folder = folder.join(what.replace(' ', "-"));
        std::fs::create_dir(&folder)?;
        let mut process = build.start_all_in_one(&folder, settings);
        let target = Target { address: process.service(ACCOUNT_SERVICE).address(), tls };
        Ok(Exposed { what, _process: process, target, request: request(token).into() })
    }

    /// Accounts a second.
    fn rate(&self) -> anyhow::Result<f64> {
        let request = Rc::clone(&self.request);
        let make = move |_| Rc::clone(&request);
        Ok(load::closed_loop(&self.target, CONNECTIONS, Until::Elapsed(TURN), make, |_| ())?.rate())
    }
}

/// `POST /account` with a token.
fn request(token: Option<&str>) -> Vec<u8> {
    let authorization = token.map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
    load::post_with("/account", &authorization, ACCOUNT)
}

/// Measures `build`.
pub(crate) fn measure(build: &Build, quick: bool) -> anyhow::Result<Results> {
    process::raise_descriptor_limit();
    let folder = tempfile::tempdir()?;
    let mut results = Results::default();
    let rounds = if quick { 1 } else { ROUNDS };
    rates(&mut results, build, folder.path(), rounds)?;
    latencies(&mut results, build, folder.path(), rounds)?;
    Ok(results)
}

/// Accounts a second of each kind of caller, by turns with callers that are not authenticated and speak plain HTTP.
fn rates(results: &mut Results, build: &Build, folder: &Path, rounds: usize) -> anyhow::Result<()> {
    let keys = KeysFile::new(folder);
    let key = keys.add("bench", "accounts:write").0;
    let issuer = Issuer::start();
    let token = issuer.token("accounts:write");
    let of_issuer = issuer.settings();
    let of_issuer: Vec<_> = of_issuer.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let (of_tls, connector) = tls(folder)?;
    let of_tls: Vec<_> = of_tls.iter().map(|(name, value)| (*name, value.as_str())).collect();
    // Where callers are authenticated, each write is a line of the log. Without these lines, the rows show authentication alone.
    let silent = [("LOG_LEVEL", "info,audit=off")];
    let start = |what, settings: &[(&str, &str)], token, tls| Exposed::start(what, build, folder, settings, token, tls);
    let plain = start("off", &[], None, None)?;
    let exposed = [
        start("AUTH=keys", &[&keys.settings(), &silent[..]].concat(), Some(&*key), None)?,
        start("AUTH=keys with the audit", &keys.settings(), Some(&*key), None)?,
        start("AUTH=jwt", &[&of_issuer, &silent[..]].concat(), Some(&*token), None)?,
        start("TLS", &of_tls, None, Some(connector))?,
    ];
    for round in 1..=rounds {
        for exposed in &exposed {
            let what = format!("POST /account, {CONNECTIONS} connections, {}", exposed.what);
            println!("{what}: round {round} of {rounds}");
            results.add(&what, Unit::PerSecond, Of::Ours, exposed.rate()?);
            results.add(&what, Unit::PerSecond, Of::Other(plain.what), plain.rate()?);
        }
    }
    Ok(())
}

/// A new certificate for `localhost` with the settings that use it, and a client that trusts it.
fn tls(folder: &Path) -> anyhow::Result<([(&'static str, String); 2], TlsConnector)> {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
    let path = |name: &str| folder.join(name).to_str().map(str::to_owned).context("a path that is UTF-8");
    let settings = [("TLS_CERT_FILE", path("tls.crt")?), ("TLS_KEY_FILE", path("tls.key")?)];
    std::fs::write(&settings[0].1, made.cert.pem())?;
    std::fs::write(&settings[1].1, made.signing_key.serialize_pem())?;
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(made.cert.der().to_vec()))?;
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
    let config = config.with_safe_default_protocol_versions()?.with_root_certificates(roots).with_no_client_auth();
    Ok((settings, TlsConnector::from(Arc::new(config))))
}

/// The latency of the honest caller, alone and beside each of the others.
fn latencies(results: &mut Results, build: &Build, folder: &Path, rounds: usize) -> anyhow::Result<()> {
    let keys = KeysFile::new(folder);
    let [honest, greedy] =
        ["honest", "greedy"].map(|name| request(Some(&keys.add(name, "accounts:write,accounts:read").0)));
    let settings =
        [&keys.settings()[..], &[("LOG_LEVEL", "info,audit=off"), ("RATE_LIMIT_PER_CALLER", CALLER_RATE)]].concat();
    let exposed = Exposed::start("limits", build, folder, &settings, None, None)?;
    let address = exposed.target.address;
    let p99 = || {
        let latencies = load::open_loop(address, HONEST, |_| honest.as_slice(), |_, _| Ok(()))?;
        anyhow::Ok(load::milliseconds(&latencies, 0.99))
    };
    let list = String::from_utf8(honest.clone())?.replacen("POST /account ", "GET /accounts?limit=200 ", 1);
    let list = list.split("Content-Type").next().map(|head| format!("{head}\r\n").into_bytes()).unwrap_or_default();
    for round in 1..=rounds {
        println!("honest caller: round {round} of {rounds}");
        let alone = p99()?;
        let mut add = |others: &str, beside: f64| {
            let what = format!("POST /account at {}/s, p99, beside {others}", HONEST.rate);
            results.add(&what, Unit::Milliseconds, Of::Ours, beside);
            results.add(&what, Unit::Milliseconds, Of::Other("alone"), alone);
        };
        let silent = connect(address, SILENT)?;
        add("2,000 silent connections", p99()?);
        drop(silent);

        let slow = connect(address, SLOW_READERS)?;
        for mut reader in &slow {
            // More answers than the buffers hold.
            (0..20).try_for_each(|_| reader.write_all(&list))?;
        }
        add("500 readers that do not read", p99()?);
        drop(slow);

        let is_over = AtomicBool::new(false);
        let beside = std::thread::scope(|scope| {
            for _ in 0..GREEDY {
                scope.spawn(|| keep_asking(address, &greedy, &is_over));
            }
            let beside = p99();
            is_over.store(true, Ordering::Relaxed);
            beside
        })?;
        add("a caller above its rate", beside);
    }
    Ok(())
}

fn connect(address: SocketAddr, count: usize) -> std::io::Result<Vec<TcpStream>> {
    (0..count).map(|_| TcpStream::connect(address)).collect()
}

/// Sends requests whatever the answers are.
fn keep_asking(address: SocketAddr, request: &[u8], is_over: &AtomicBool) {
    let Ok(mut connection) = Connection::open(address) else { return };
    while !is_over.load(Ordering::Relaxed) && connection.exchange(request).is_ok() {}
}
