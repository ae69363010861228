//! API keys in a file, and an issuer of tokens, with the settings that make a service accept them.

use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use access::Key;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519, PKCS_RSA_SHA256};
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};

/// A file of API keys.
#[derive(Debug)]
pub struct KeysFile {
    path: PathBuf,
}

impl KeysFile {
    /// A file without keys in `folder`.
    pub fn new(folder: &Path) -> Self {
        let path = folder.join("keys.json");
        std::fs::write(&path, "{\"keys\": []}").expect("a writable folder");
        KeysFile { path }
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// `AUTH` and `API_KEYS_FILE`.
    pub fn settings(&self) -> [(&'static str, &str); 2] {
        [("AUTH", "keys"), ("API_KEYS_FILE", self.path.to_str().expect("UTF-8"))]
    }

    /// Adds a key of the caller `name` with `scopes`, separated by commas. Returns its text and its entry.
    pub fn add(&self, name: &str, scopes: &str) -> (String, Key) {
        access::create_key(&self.path, name, scopes.parse().expect("scopes"), None).expect("a keys file")
    }

    /// Adds a key that has expired. Returns its text.
    pub fn add_expired(&self, name: &str, scopes: &str) -> String {
        let past = "2026-01-01T00:00:00Z".parse().expect("a time");
        access::create_key(&self.path, name, scopes.parse().expect("scopes"), Some(past)).expect("a keys file").0
    }

    /// Removes a key.
    pub fn revoke(&self, id: &str) {
        access::revoke_key(&self.path, id).expect("a key of the file");
    }
}

/// A private key that signs tokens.
pub struct SigningKey {
    algorithm: Algorithm,
    id: Option<String>,
    pair: KeyPair,
}

impl SigningKey {
    /// A new key of the algorithm's kind. Tokens have `id` as their `kid`.
    pub fn generate(algorithm: Algorithm, id: &str) -> Self {
        let kind = match algorithm {
            Algorithm::RS256 | Algorithm::PS256 => &PKCS_RSA_SHA256,
            Algorithm::ES256 => &PKCS_ECDSA_P256_SHA256,
            Algorithm::EdDSA => &PKCS_ED25519,
            other => panic!("no key for {other:?}"),
        };
        SigningKey { algorithm, id: Some(id.to_owned()), pair: KeyPair::generate_for(kind).expect("a key pair") }
    }

    /// The public key in PEM.
    pub fn public_pem(&self) -> String {
        self.pair.public_key_pem()
    }

    /// The public key as an entry of a key set.
    pub fn jwk(&self) -> Value {
        let read = match self.algorithm {
            Algorithm::ES256 => DecodingKey::from_ec_pem,
            Algorithm::EdDSA => DecodingKey::from_ed_pem,
            _ => DecodingKey::from_rsa_pem,
        };
        let key = read(self.public_pem().as_bytes()).expect("a public key");
        let mut jwk = Jwk::from_decoding_key(&key, Some(self.algorithm)).expect("a key");
        jwk.common.key_id = self.id.clone();
        serde_json::to_value(jwk).expect("JSON")
    }

    /// A header for tokens that this key signs.
    pub fn header(&self) -> Header {
        Header { kid: self.id.clone(), ..Header::new(self.algorithm) }
    }

    /// A token with these claims.
    pub fn sign(&self, claims: &Value) -> String {
        self.sign_with(&self.header(), claims)
    }

    /// A token with this header and these claims.
    pub fn sign_with(&self, header: &Header, claims: &Value) -> String {
        jsonwebtoken::encode(header, claims, &self.encoding_key()).expect("a token")
    }

    fn encoding_key(&self) -> EncodingKey {
        let pem = self.pair.serialize_pem();
        let read = match self.algorithm {
            Algorithm::ES256 => EncodingKey::from_ec_pem,
            Algorithm::EdDSA => EncodingKey::from_ed_pem,
            _ => EncodingKey::from_rsa_pem,
        };
        read(pem.as_bytes()).expect("a private key")
    }
}

/// A token with `alg: none` and these claims: nobody signed it.
pub fn unsigned_token(claims: &Value) -> String {
    with_parts(&json!({ "alg": "none", "typ": "JWT" }), claims, "")
}

/// A token signed by HMAC with `secret`, which may be a public key.
pub fn hmac_token(secret: &[u8], id: Option<String>, claims: &Value) -> String {
    let header = Header { kid: id, ..Header::new(Algorithm::HS256) };
    jsonwebtoken::encode(&header, claims, &EncodingKey::from_secret(secret).expect("a secret")).expect("a token")
}

fn with_parts(header: &Value, claims: &Value, signature: &str) -> String {
    use base64::Engine as _;
    let encode = |part: &Value| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(part.to_string());
    format!("{}.{}.{signature}", encode(header), encode(claims))
}

/// The seconds since 1970.
pub fn unix_seconds() -> i64 {
    i64::try_from(jsonwebtoken::get_current_timestamp()).expect("a time")
}

/// An issuer of tokens that publishes its key set on loopback. It signs with an ES256 key called `key-1`.
pub struct Issuer {
    /// The key that signs.
    pub key: SigningKey,
    published: Arc<Published>,
    url: String,
}

struct Published {
    /// The answer; `None` closes connections without one.
    set: Mutex<Option<String>>,
    fetches: AtomicUsize,
}

impl Issuer {
    /// The `iss` of its tokens.
    pub const NAME: &str = "https://login.example";
    /// The `aud` of its tokens.
    pub const AUDIENCE: &str = "tandem";

    /// Starts an issuer. Its server runs until the test's process ends.
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let url = format!("http://{}/keys", listener.local_addr().expect("a bound listener"));
        Self::serve(url, move |published| listener.incoming().flatten().for_each(|client| published.answer(client)))
    }

    /// As [`Issuer::start`], with HTTPS. Also returns the certificate in PEM, which is its own authority.
    pub fn start_https() -> (Self, String) {
        let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
        let key = PrivateKeyDer::Pkcs8(certified.signing_key.serialize_der().into());
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = config.expect("TLS versions").with_no_client_auth();
        let config =
            config.with_single_cert(vec![certified.cert.der().clone()], key).expect("a certificate and its key");
        let config = Arc::new(config);
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let url = format!("https://localhost:{}/keys", listener.local_addr().expect("a bound listener").port());
        let issuer = Self::serve(url, move |published| {
            for client in listener.incoming().flatten() {
                let connection = ServerConnection::new(Arc::clone(&config)).expect("a connection");
                published.answer(StreamOwned::new(connection, client));
            }
        });
        (issuer, certified.cert.pem())
    }

    fn serve(url: String, run: impl FnOnce(&Published) + Send + 'static) -> Self {
        let published = Arc::new(Published { set: Mutex::new(None), fetches: AtomicUsize::new(0) });
        let issuer = Issuer { key: SigningKey::generate(Algorithm::ES256, "key-1"), published, url };
        issuer.publish(&[issuer.key.jwk()]);
        let published = Arc::clone(&issuer.published);
        std::thread::spawn(move || run(&published));
        issuer
    }

    /// Where the key set is.
    pub fn url(&self) -> String {
        self.url.clone()
    }

    /// `AUTH` and the `JWT_` settings.
    pub fn settings(&self) -> [(&'static str, String); 4] {
        [
            ("AUTH", "jwt".to_owned()),
            ("JWT_JWKS_URL", self.url()),
            ("JWT_ISSUER", Self::NAME.to_owned()),
            ("JWT_AUDIENCE", Self::AUDIENCE.to_owned()),
        ]
    }

    /// Publishes these keys and no others.
    pub fn publish(&self, keys: &[Value]) {
        *self.published.set() = Some(json!({ "keys": keys }).to_string());
    }

    /// Publishes `text`, which need not be a key set.
    pub fn publish_text(&self, text: &str) {
        *self.published.set() = Some(text.to_owned());
    }

    /// Answers no more requests.
    pub fn go_away(&self) {
        *self.published.set() = None;
    }

    /// How often the key set was requested.
    pub fn fetches(&self) -> usize {
        self.published.fetches.load(Ordering::Relaxed)
    }

    /// The claims of a valid token with `scope`, separated by spaces, for an hour.
    pub fn claims(scope: &str) -> Value {
        json!({
            "iss": Self::NAME,
            "aud": Self::AUDIENCE,
            "sub": "shop",
            "exp": unix_seconds() + 3_600,
            "scope": scope,
        })
    }

    /// A valid token with `scope`, separated by spaces, for an hour.
    pub fn token(&self, scope: &str) -> String {
        self.key.sign(&Self::claims(scope))
    }
}

impl Published {
    fn set(&self) -> MutexGuard<'_, Option<String>> {
        self.set.lock().expect("no panic while it is held")
    }

    fn answer(&self, mut client: impl Read + Write) {
        let head = BufReader::new(&mut client).lines().map_while(Result::ok).take_while(|line| !line.is_empty());
        if head.count() == 0 {
            return;
        }
        self.fetches.fetch_add(1, Ordering::Relaxed);
        let Some(set) = self.set().clone() else { return };
        let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close";
        // The client may be gone.
        let _ = write!(client, "{head}\r\nContent-Length: {}\r\n\r\n{set}", set.len()).and_then(|()| client.flush());
    }
}
