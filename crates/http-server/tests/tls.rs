//! HTTPS: the bounds of plain HTTP hold, and certificates are swapped while connections are open.

#![expect(clippy::unwrap_used, reason = "clippy sees no test in a helper")]

mod harness;

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use axum::routing::get;
use axum::{Extension, Router};
use harness::{Client, Server, start_with};
use http_server::{
    Api, HEADER_READ_TIMEOUT, HttpConfig, IDLE_TIMEOUT, Peer, Readiness, ReadyReport, ServeSettings, Tls, TlsFiles,
    health_endpoints,
};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::ServerName;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

const REQUEST: &str = "GET / HTTP/1.1\r\nhost: localhost\r\n\r\n";

/// A certificate for `localhost` in files, which a client trusts alone.
struct Certificate {
    folder: TempDir,
    current: CertifiedKey<rcgen::KeyPair>,
}

impl Certificate {
    fn new() -> Self {
        let certificate = Certificate { folder: tempfile::tempdir().unwrap(), current: generate() };
        certificate.write();
        certificate
    }

    fn files(&self) -> TlsFiles {
        TlsFiles { cert: self.folder.path().join("cert.pem"), key: self.folder.path().join("key.pem") }
    }

    fn write(&self) {
        fs::write(self.files().cert, self.current.cert.pem()).unwrap();
        fs::write(self.files().key, self.current.signing_key.serialize_pem()).unwrap();
    }

    fn connector(&self, version: &'static SupportedProtocolVersion) -> TlsConnector {
        let mut roots = RootCertStore::empty();
        roots.add(self.current.cert.der().clone()).unwrap();
        let mut config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Arc::new(config).into()
    }

    /// A connection to `server`, whose certificate must be the current one.
    async fn connect(&self, server: &Server) -> Client<TlsStream<TcpStream>> {
        self.connect_by(&self.connector(&TLS13), server).await.unwrap()
    }

    async fn connect_by(
        &self,
        connector: &TlsConnector,
        server: &Server,
    ) -> std::io::Result<Client<TlsStream<TcpStream>>> {
        let stream = TcpStream::connect(server.address).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        Ok(Client(BufReader::new(connector.connect(name, stream).await?)))
    }
}

fn generate() -> CertifiedKey<rcgen::KeyPair> {
    generate_simple_self_signed(["localhost".to_owned()]).unwrap()
}

async fn start(router: Router, limits: ServeSettings) -> (Certificate, Arc<Tls>, Server) {
    let certificate = Certificate::new();
    let tls = Tls::open(certificate.files()).unwrap();
    let config = HttpConfig { tls: Some(tls.clone()), limits, ..HttpConfig::default() };
    (certificate, tls, start_with(router, config).await)
}

fn hello() -> Router {
    Router::new().route("/", get(async || "hello"))
}

#[tokio::test]
async fn both_versions_are_spoken_and_plain_http_is_closed() {
    let (certificate, _, server) = start(hello(), ServeSettings::default()).await;
    for version in [&TLS12, &TLS13] {
        let mut plain = server.connect().await;
        plain.send(REQUEST).await;
        let mut received = Vec::new();
        // The connection ends, with an alert or a reset.
        let _ = plain.0.read_to_end(&mut received).await;
        assert!(!received.starts_with(b"HTTP/1.1 2"));

        let mut client = certificate.connect_by(&certificate.connector(version), &server).await.unwrap();
        assert_eq!(client.0.get_ref().get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
        for _ in 0..2 {
            client.send(REQUEST).await;
            assert_eq!(client.answer().await.unwrap().body, b"hello");
        }
    }
}

#[tokio::test]
async fn a_head_that_cannot_be_parsed_is_400_and_the_end_is_authentic() {
    let (certificate, _, server) = start(hello(), ServeSettings::default()).await;
    let mut client = certificate.connect(&server).await;
    client.send("nonsense\r\n\r\n").await;
    client.answer().await.unwrap().is_error(400, "bad_request");
    // Without close_notify this is an error.
    assert_eq!(client.0.read(&mut [0]).await.unwrap(), 0);
}

// A paused clock advances to the next timer as soon as all tasks wait.
#[tokio::test(start_paused = true)]
async fn a_handshake_has_the_time_of_a_head_and_silence_that_of_an_idle_connection() {
    let (_certificate, _, server) = start(hello(), ServeSettings::default()).await;
    for (sent, time) in [(&b""[..], IDLE_TIMEOUT), (b"\x16\x03", HEADER_READ_TIMEOUT)] {
        let mut client = server.connect().await;
        client.send(sent).await;
        let begun = Instant::now();
        assert!(client.answer().await.is_none());
        assert!((time..time + Duration::from_secs(1)).contains(&begun.elapsed()), "{:?}", begun.elapsed());
    }
}

#[tokio::test]
async fn a_silent_or_idle_connection_makes_room_for_a_new_one() {
    let limits = ServeSettings { max_connections: 1, ..ServeSettings::default() };
    let (certificate, _, server) = start(hello(), limits).await;
    let mut silent = server.connect().await;
    let mut idle = loop {
        // The silent connection has its place until the server has seen that it is silent.
        let mut client = certificate.connect(&server).await;
        client.send(REQUEST).await;
        if client.answer().await.unwrap().status == 200 {
            break client;
        }
    };
    assert!(silent.answer().await.is_none());
    let mut client = certificate.connect(&server).await;
    client.send(REQUEST).await;
    assert_eq!(client.answer().await.unwrap().body, b"hello");
    assert_eq!(idle.0.read(&mut [0]).await.unwrap(), 0, "the end is authentic");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_read_is_cut_off() {
    let router = hello().route("/much", get(async || vec![b'x'; 64 * 1024 * 1024]));
    let (certificate, _, server) =
        start(router, ServeSettings { max_connections: 1, ..ServeSettings::default() }).await;
    let mut deaf = certificate.connect(&server).await;
    deaf.send("GET /much HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    deaf.0.read_u8().await.unwrap();
    let cut_off = async {
        loop {
            let mut client = certificate.connect(&server).await;
            client.send(REQUEST).await;
            if client.answer().await.is_some_and(|answer| answer.status == 200) {
                return;
            }
            sleep(Duration::from_secs(1)).await;
        }
    };
    timeout(Duration::from_secs(60), cut_off).await.unwrap();
}

#[tokio::test]
async fn a_peer_that_closes_is_gone_and_still_gets_its_answer() {
    let begun = Arc::new(Notify::new());
    let handler_begun = begun.clone();
    let handler = async move |Extension(peer): Extension<Peer>| {
        handler_begun.notify_one();
        peer.closed().await;
        "gone"
    };
    let (certificate, _, server) = start(Router::new().route("/", get(handler)), ServeSettings::default()).await;
    let mut client = certificate.connect(&server).await;
    client.send("GET / HTTP/1.1\r\nhost: localhost\r\nprefer: wait=1\r\n\r\n").await;
    begun.notified().await;
    assert!(timeout(Duration::from_millis(50), client.answer()).await.is_err(), "it waits");
    client.0.shutdown().await.unwrap();
    assert_eq!(client.answer().await.unwrap().body, b"gone");
}

#[tokio::test]
async fn a_request_in_flight_is_answered_before_the_server_ends() {
    let (begun, end) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (handler_begun, handler_end) = (begun.clone(), end.clone());
    let handler = async move || {
        handler_begun.notify_one();
        handler_end.notified().await;
        "done"
    };
    let (certificate, _, server) = start(Router::new().route("/", get(handler)), ServeSettings::default()).await;
    let mut client = certificate.connect(&server).await;
    client.send(REQUEST).await;
    begun.notified().await;
    let mut silent = server.connect().await;
    server.shutdown.cancel();
    assert!(silent.answer().await.is_none());
    end.notify_one();
    let answer = client.answer().await.unwrap();
    assert_eq!((answer.body.as_slice(), answer.header("connection")), (&b"done"[..], Some("close")));
    assert_eq!(client.0.read(&mut [0]).await.unwrap(), 0);
    server.serving.await.unwrap();
}

#[tokio::test]
async fn a_new_certificate_counts_for_new_connections_and_resumes_no_old_session() {
    let (mut certificate, tls, server) = start(hello(), ServeSettings::default()).await;
    let old = certificate.connector(&TLS13);
    let mut open = certificate.connect_by(&old, &server).await.unwrap();
    open.send(REQUEST).await;
    open.answer().await.unwrap();
    certificate.current = generate();
    certificate.write();
    tls.reload();
    open.send(REQUEST).await;
    assert_eq!(open.answer().await.unwrap().body, b"hello");
    assert!(certificate.connect_by(&old, &server).await.is_err(), "the old certificate is shown to nobody");
    certificate.connect(&server).await;
    assert_eq!(tls.warning(), None);
}

#[tokio::test]
async fn a_pair_that_cannot_be_used_keeps_the_old_one() {
    let (certificate, tls, server) = start(hello(), ServeSettings::default()).await;
    let CertifiedKey { cert, signing_key } = generate();
    let files = certificate.files();
    for (file, text, cause) in [
        (&files.cert, cert.pem(), "the key is not that of the certificate"),
        (&files.cert, String::new(), "TLS_CERT_FILE: the file has no certificate"),
        (&files.key, signing_key.serialize_pem(), "the key is not that of the certificate"),
        (&files.key, "garbage".to_owned(), "TLS_KEY_FILE: the file has no private key"),
    ] {
        fs::write(file, text).unwrap();
        tls.reload();
        let warning = tls.warning().unwrap();
        assert!(warning.contains(cause), "{warning}");
        assert!(Tls::open(files.clone()).is_err());
        certificate.connect(&server).await;
        certificate.write();
        tls.reload();
        assert_eq!(tls.warning(), None);
    }
    fs::remove_file(&files.key).unwrap();
    tls.reload();
    assert!(tls.warning().unwrap().contains("TLS_KEY_FILE: the file cannot be read"));
}

/// A service that is ready.
struct Ready;

impl Readiness for Ready {
    fn report(&self) -> ReadyReport {
        ReadyReport::default()
    }
}

#[tokio::test]
async fn readyz_warns_of_files_that_cannot_be_used() {
    let certificate = Certificate::new();
    let tls = Tls::open(certificate.files()).unwrap();
    let api = Api {
        service: "test-service",
        version: "1.2.3",
        title: "A test service",
        description: "",
        errors: Vec::new,
        links: &[],
    };
    let config = HttpConfig { tls: Some(tls.clone()), ..HttpConfig::default() };
    let routes = health_endpoints("test-service", Arc::new(Ready), &config).into_routes(api);
    let server = start_with(routes, config).await;
    fs::write(certificate.files().cert, "").unwrap();
    tls.reload();
    let mut client = certificate.connect(&server).await;
    client.send("GET /readyz HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    let answer = client.answer().await.unwrap();
    assert_eq!(answer.status, 200);
    assert!(answer.json()["warnings"][0].as_str().unwrap().starts_with("an older TLS certificate is in use"));
}
