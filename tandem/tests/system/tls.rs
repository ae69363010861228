//! HTTPS, as an operator sets it up and renews its certificate.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rcgen::{CertifiedKey, KeyPair, generate_simple_self_signed};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::Value;
use tempfile::TempDir;
use test_harness::{DEADLINE, Process, binary, output_of, wait_until};

use crate::keep_alive::KeepAlive;

/// How soon a renewed certificate is in use.
const RENEWAL: Duration = Duration::from_secs(10);

/// The threads that keep their connection, and as many that open one for each request.
const CLIENTS: usize = 3;

/// The requests of each kind before the certificate is renewed, and after that.
const REQUESTS: u64 = 100;

const ACCOUNT: &str = r#"{"beholder_name":"Ada","country_code":"GB"}"#;

/// Certificates in folders of their own, of which one is current by a link, as Kubernetes does with a secret.
struct Certificates(TempDir);

impl Certificates {
    fn new() -> Self {
        Certificates(TempDir::new().expect("a folder"))
    }

    fn current(&self, name: &str) -> PathBuf {
        self.0.path().join("current").join(name)
    }

    /// Makes `certificate` the current one.
    fn put(&self, name: &str, certificate: &CertifiedKey<KeyPair>) {
        let folder = self.0.path().join(name);
        fs::create_dir(&folder).expect("a folder");
        fs::write(folder.join("tls.crt"), certificate.cert.pem()).expect("a file");
        fs::write(folder.join("tls.key"), certificate.signing_key.serialize_pem()).expect("a file");
        let link = self.0.path().join("next");
        symlink(&folder, &link).expect("a link");
        fs::rename(link, self.0.path().join("current")).expect("a link");
    }

    fn start(&self, folder: &TempDir) -> Process {
        let [cert, key] = ["tls.crt", "tls.key"].map(|name| self.current(name).display().to_string());
        Process::start(&binary("tandem"), folder.path(), &[("TLS_CERT_FILE", &cert), ("TLS_KEY_FILE", &key)])
    }
}

fn generate() -> CertifiedKey<KeyPair> {
    generate_simple_self_signed(["localhost".to_owned(), "127.0.0.1".to_owned()]).expect("a certificate")
}

/// A client that trusts these certificates.
fn client(trusted: &[&CertifiedKey<KeyPair>]) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for certificate in trusted {
        roots.add(certificate.cert.der().clone()).expect("a certificate");
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()));
    let builder = builder.with_safe_default_protocol_versions().expect("versions");
    Arc::new(builder.with_root_certificates(roots).with_no_client_auth())
}

type TlsClient = KeepAlive<StreamOwned<ClientConnection, TcpStream>>;

/// A connection, and the certificate that the server showed on it.
fn connect(client: &Arc<ClientConfig>, address: SocketAddr) -> (TlsClient, CertificateDer<'static>) {
    let mut stream = TcpStream::connect(address).expect("a connection");
    stream.set_nodelay(true).expect("an option");
    stream.set_read_timeout(Some(DEADLINE)).expect("an option");
    let name = ServerName::try_from("localhost").expect("a name");
    let mut tls = ClientConnection::new(Arc::clone(client), name).expect("a client");
    while tls.is_handshaking() {
        tls.complete_io(&mut stream).expect("a handshake");
    }
    let certificate = tls.peer_certificates().expect("a certificate")[0].clone().into_owned();
    (KeepAlive::over(StreamOwned::new(tls, stream)), certificate)
}

#[test]
fn a_certificate_that_is_renewed_under_load_loses_no_request() {
    let (folder, certificates) = (TempDir::new().expect("a folder"), Certificates::new());
    let (old, new) = (generate(), generate());
    certificates.put("old", &old);
    let mut tandem = certificates.start(&folder);
    let address = tandem.service(account_service::NAME).address();
    let client = client(&[&old, &new]);
    let (stop, renewed) = (AtomicBool::new(false), AtomicBool::new(false));
    let (kept, fresh) = (AtomicU64::new(0), AtomicU64::new(0));
    let post = |connection: &mut TlsClient, count: &AtomicU64| {
        let (status, body) = connection.post("/account", ACCOUNT).expect("no request is lost");
        assert_eq!(status, 201, "{body}");
        count.fetch_add(1, Ordering::Relaxed);
    };
    let more = |what: &str| {
        let before = [&kept, &fresh].map(|count| count.load(Ordering::Relaxed));
        wait_until(what, || {
            let after = [&kept, &fresh].map(|count| count.load(Ordering::Relaxed));
            after.iter().zip(before).all(|(after, before)| *after >= before + REQUESTS).then_some(())
        });
    };
    thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                let (mut connection, _) = connect(&client, address);
                while !stop.load(Ordering::Relaxed) {
                    post(&mut connection, &kept);
                }
            });
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let (mut connection, certificate) = connect(&client, address);
                    renewed.fetch_or(certificate == *new.cert.der(), Ordering::Relaxed);
                    post(&mut connection, &fresh);
                }
            });
        }
        more("requests with the old certificate");
        assert!(!renewed.load(Ordering::Relaxed));
        let started = Instant::now();
        certificates.put("new", &new);
        wait_until("the new certificate is in use", || renewed.load(Ordering::Relaxed).then_some(()));
        assert!(started.elapsed() < RENEWAL, "{:?}", started.elapsed());
        more("requests with the new certificate");
        stop.store(true, Ordering::Relaxed);
    });
    let (mut connection, certificate) = connect(&client, address);
    assert_eq!(certificate, *new.cert.der());
    let (_, accounts) = connection.get("/accounts?limit=1").expect("an answer");
    let accounts: Value = serde_json::from_str(&accounts).expect("JSON");
    assert_eq!(accounts["total"], kept.into_inner() + fresh.into_inner());
    assert!(tandem.terminate().success());
}

#[test]
fn verify_takes_https_urls_and_trusts_the_ca_file_only() {
    let (folder, certificates) = (TempDir::new().expect("a folder"), Certificates::new());
    let certificate = generate();
    certificates.put("old", &certificate);
    let mut tandem = certificates.start(&folder);
    let [accounts, cards] =
        [account_service::NAME, card_service::NAME].map(|name| format!("https://{}", tandem.service(name).address()));
    let other = folder.path().join("other.pem");
    fs::write(&other, generate().cert.pem()).expect("a file");
    let verify = |ca: PathBuf| -> Output {
        let mut command = Command::new(binary("tandem"));
        command.current_dir(folder.path()).env_clear().args(["verify", "--account-url", &accounts]);
        output_of(command.args(["--card-url", &cards, "--ca-file"]).arg(ca))
    };
    let output = verify(certificates.current("tls.crt"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let started = Instant::now();
    let output = verify(other);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!((output.status.code(), text.lines().count()), (Some(2), 1), "{text}");
    assert!(text.contains("certificate") && started.elapsed() < DEADLINE, "{text}");
    assert!(tandem.terminate().success());
}

#[test]
fn a_pair_that_cannot_be_used_stops_the_start_with_one_line() {
    let (folder, certificates) = (TempDir::new().expect("a folder"), Certificates::new());
    certificates.put("one", &generate());
    let other = folder.path().join("other.key");
    fs::write(&other, generate().signing_key.serialize_pem()).expect("a file");
    let [cert, key, other] = [certificates.current("tls.crt"), certificates.current("tls.key"), other]
        .map(|file| file.display().to_string());
    for name in ["tandem", account_service::NAME, card_service::NAME] {
        for (settings, cause) in [
            (vec![("TLS_CERT_FILE", &*cert)], "TLS_CERT_FILE is set, but TLS_KEY_FILE is not"),
            (vec![("TLS_KEY_FILE", &*key)], "TLS_KEY_FILE is set, but TLS_CERT_FILE is not"),
            (
                vec![("TLS_CERT_FILE", "/nowhere"), ("TLS_KEY_FILE", &key)],
                "TLS_CERT_FILE: the file cannot be read: No such file",
            ),
            (vec![("TLS_CERT_FILE", &cert), ("TLS_KEY_FILE", &cert)], "TLS_KEY_FILE: the file has no private key"),
            (vec![("TLS_CERT_FILE", &cert), ("TLS_KEY_FILE", &other)], "TLS_KEY_FILE: the key is not that of"),
        ] {
            let mut command = Command::new(binary(name));
            command.current_dir(folder.path()).env_clear().envs(settings).env("KAFKA_BROKERS", "127.0.0.1:1");
            let output = output_of(&mut command);
            let text = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(!output.status.success() && text.lines().count() == 1, "{name}: {text}");
            assert!(text.contains(cause), "{name}: {text}");
        }
    }
}
