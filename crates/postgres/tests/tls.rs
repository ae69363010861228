//! TLS to PostgreSQL. What refuses a server is tested with one that speaks only the handshake; the rest needs a real server:
//! without `TANDEM_TEST_POSTGRES_TLS_URL` (`dev/servers up postgres-tls`) there is nothing to test.

use std::env;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use postgres::{Postgres, PostgresSchema};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::PrivateKeyDer;
use test_harness::POSTGRES_URL;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio_rustls::TlsAcceptor;

/// The variables that name the real server, and the folder of its certificates.
const TLS_URL: &str = "TANDEM_TEST_POSTGRES_TLS_URL";
const CERTIFICATES: &str = "TANDEM_TEST_POSTGRES_TLS_CERTIFICATES";

/// A refusal takes less: a start waits 30 seconds for a server that may come.
const AT_ONCE: Duration = Duration::from_secs(5);

const SCHEMA: PostgresSchema = PostgresSchema { name: "tls", migrations: &[] };

/// The real server.
struct Server {
    /// The URL without parameters.
    url: String,
    certificates: PathBuf,
}

impl Server {
    fn get() -> Option<Self> {
        let url = env::var(TLS_URL).ok()?;
        let certificates = env::var(CERTIFICATES).expect("the certificates of the server").into();
        Some(Server { url, certificates })
    }

    /// The path of one of its certificates, for a URL.
    fn file(&self, name: &str) -> String {
        self.certificates.join(name).display().to_string()
    }

    /// The URL of the user with a certificate, under the host `name`.
    fn of(&self, user: &str, name: &str) -> String {
        let (_, address) = self.url.rsplit_once('@').expect("a user");
        let (_, port) = address.rsplit_once(':').expect("a port");
        format!("postgres://{user}@{name}:{port}?hostaddr=127.0.0.1")
    }
}

/// Opens the database at `url`. Returns whether its connection is encrypted.
async fn open(url: &str) -> Result<bool, String> {
    let database = Postgres::open(url, &SCHEMA).await.map_err(|error| error.to_string())?;
    let sql = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    let pooled: bool =
        database.read(async |client| Ok(client.query_one(sql, &[]).await?.get(0))).await.expect("a read");
    let own = database.connect().await.expect("a connection").query_one(sql, &[]).await.expect("a row");
    assert_eq!(own.get::<_, bool>(0), pooled);
    Ok(pooled)
}

/// Checks that a start on `url` stops at once, with `cause` in its only line and without its password.
#[track_caller]
fn is_refused(url: &str, cause: &str) {
    let started = Instant::now();
    let error = Runtime::new().expect("a runtime").block_on(open(url)).expect_err(url);
    assert!(error.contains(cause) && error.lines().count() == 1, "{url}: {error}");
    assert!(started.elapsed() < AT_ONCE, "{url}: {:?}", started.elapsed());
    let password = url.split_once('@').and_then(|(user, _)| user.rsplit_once(':')).map(|(_, password)| password);
    assert!(!password.is_some_and(|password| !password.starts_with("//") && error.contains(password)), "{error}");
}

/// Checks that a start on `url` works with TLS.
#[track_caller]
fn is_encrypted(url: &str) {
    assert_eq!(Runtime::new().expect("a runtime").block_on(open(url)), Ok(true), "{url}");
}

#[test]
fn a_server_with_the_right_certificate_works_in_every_mode() {
    let Some(server) = Server::get() else { return };
    let ca = server.file("ca.pem");
    for parameters in [
        String::new(),
        "?sslmode=require".to_owned(),
        format!("?sslmode=require&sslrootcert={ca}"),
        format!("?sslmode=verify-ca&sslrootcert={ca}"),
        format!("?sslmode=verify-full&sslrootcert={ca}"),
        format!("?sslmode=verify-full&sslrootcert={ca}&channel_binding=require"),
    ] {
        is_encrypted(&format!("{}{parameters}", server.url));
    }
    is_refused(&format!("{}?sslmode=disable", server.url), "no encryption");
}

#[test]
fn a_server_of_another_name_or_ca_is_refused() {
    let Some(server) = Server::get() else { return };
    let (ca, other) = (server.file("ca.pem"), server.file("other-ca.pem"));
    let (_, password) = server.url.split_once("postgres://").expect("a URL");
    let user = password.split_once('@').expect("a user").0;
    let wrong = server.of(user, "wrong.example");
    is_refused(&format!("{wrong}&sslmode=verify-full&sslrootcert={ca}"), "not valid for name \"wrong.example\"");
    is_encrypted(&format!("{}&dbname=postgres&sslmode=verify-ca&sslrootcert={ca}", wrong));
    for mode in ["require", "verify-ca", "verify-full"] {
        let url = format!("{}?sslmode={mode}&sslrootcert={other}", server.url);
        is_refused(&url, "not signed by a CA that sslrootcert trusts");
    }
    is_refused(&format!("{}?sslmode=verify-full", server.url), "not signed by a CA that sslrootcert trusts");
}

#[test]
fn a_user_may_need_a_certificate() {
    let Some(server) = Server::get() else { return };
    let tls = format!("&dbname=postgres&sslmode=verify-full&sslrootcert={}", server.file("ca.pem"));
    let url = format!("{}{tls}", server.of("certified", "localhost"));
    is_refused(&url, "certificate");
    is_encrypted(&format!("{url}&sslcert={}&sslkey={}", server.file("client.pem"), server.file("client.key")));
}

#[tokio::test]
async fn a_file_that_changes_counts_for_the_next_connection() {
    let Some(server) = Server::get() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path().join("root.pem");
    let put = |name: &str| fs::copy(server.file(name), &root).expect("a copy");
    put("ca.pem");
    let url = format!("{}?sslmode=verify-full&sslrootcert={}", server.url, root.display());
    let database = Postgres::open(&url, &SCHEMA).await.expect("a database");
    put("other-ca.pem");
    database.connect().await.expect_err("the CA is another one");
    put("ca.pem");
    database.connect().await.expect("the CA is the first one again");
}

#[test]
fn a_server_without_tls_is_refused_at_once_unless_plain_text_will_do() {
    let Ok(server) = env::var(POSTGRES_URL) else { return };
    for parameters in ["sslmode=require", "sslmode=verify-ca", "sslmode=verify-full", "sslrootcert=system"] {
        is_refused(&format!("{server}?{parameters}"), "server does not support TLS");
    }
    is_refused(&format!("{server}?channel_binding=require"), "did not use channel binding");
    for parameters in ["", "?sslmode=prefer", "?sslmode=disable"] {
        let url = format!("{server}{parameters}");
        assert_eq!(Runtime::new().expect("a runtime").block_on(open(&url)), Ok(false), "{url}");
    }
}

/// The port of a server that goes no further than the TLS handshake, in which it shows a certificate from `ca` for localhost, valid
/// until the year `until`.
async fn handshake_server(ca: &CertifiedIssuer<'_, KeyPair>, until: i32) -> u16 {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
    params.not_after = rcgen::date_time_ymd(until, 1, 1);
    let certificate = params.signed_by(&key, ca).expect("a certificate");
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], PrivateKeyDer::Pkcs8(key.serialize_der().into()))
        .expect("a configuration");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    tokio::spawn(async move {
        let acceptor = TlsAcceptor::from(Arc::new(config));
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0; 8];
            stream.read_exact(&mut request).await.expect("a request for TLS");
            stream.write_all(b"S").await.expect("an answer");
            // The client closes; that is what the test is about.
            let _ = acceptor.accept(stream).await;
        }
    });
    port
}

#[test]
fn a_certificate_that_has_expired_is_refused() {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("a CA");
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path().join("root.pem");
    fs::write(&root, ca.pem()).expect("a file");
    let runtime = Runtime::new().expect("a runtime");
    let port = runtime.block_on(handshake_server(&ca, 2001));
    let url = format!("postgres://bob:s3cret@localhost:{port}/db?sslmode=verify-full&sslrootcert={}", root.display());
    is_refused(&url, "certificate expired");
}
