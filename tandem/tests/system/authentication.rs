//! Every route of both services, with every kind of credentials: only what should succeed does.
//!
//! The routes and their scopes are those of the OpenAPI documents, which the routers make.

mod browser;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

use access::Scope;
use jsonwebtoken::Algorithm;
use serde_json::{Value, json};
use tempfile::TempDir;
use test_harness::{
    DEADLINE, Http, Issuer, KeysFile, Process, SigningKey, binary, hmac_token, unix_seconds, unsigned_token,
};

/// The all-in-one, with the addresses of its two services.
struct Tandem {
    _process: Process,
    services: [SocketAddr; 2],
    _folder: TempDir,
}

impl Tandem {
    fn start(settings: &[(&str, &str)]) -> Self {
        let folder = TempDir::new().expect("a folder");
        let mut process = Process::start(&binary("tandem"), folder.path(), settings);
        let services = ["account-service", "card-service"].map(|name| process.ready_service(name).address());
        Tandem { _process: process, services, _folder: folder }
    }
}

/// The status of an answer, what it says about credentials, and the error in its body.
#[derive(Debug)]
struct Head {
    status: u16,
    challenge: String,
    error: Value,
}

/// Sends a request, with an empty object as its body if it is a write, and reads no further than the head of a success: an event
/// stream does not end.
fn head(service: SocketAddr, method: &str, path: &str, authorization: Option<&str>) -> Head {
    let connection = TcpStream::connect(service).expect("a connection");
    connection.set_read_timeout(Some(DEADLINE)).expect("a timeout");
    let authorization = authorization.map(|value| format!("Authorization: {value}\r\n")).unwrap_or_default();
    let body = match method {
        "GET" | "HEAD" => "",
        _ => "Content-Type: application/json\r\nContent-Length: 2\r\n",
    };
    let sent = if body.is_empty() { "" } else { "{}" };
    write!(
        &connection,
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{authorization}{body}\r\n{sent}"
    )
    .expect("a request that is sent");
    let mut reader = BufReader::new(connection);
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).expect("a line");
        match line.trim_end() {
            "" => break,
            line => lines.push(line.to_owned()),
        }
    }
    let status = lines[0].split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    let header = |name: &str| {
        let found = lines.iter().find_map(|line| line.to_lowercase().starts_with(name).then(|| &line[name.len()..]));
        found.unwrap_or_default().to_owned()
    };
    let mut error = Value::Null;
    if status >= 400 && method != "HEAD" {
        let mut text = String::new();
        reader.read_to_string(&mut text).expect("a body");
        error = serde_json::from_str(&text).expect("an error in JSON");
    }
    Head { status, challenge: header("www-authenticate: "), error }
}

/// A route, and the scope that it needs; `None` if anyone may call it.
#[derive(Debug, Clone)]
struct Route {
    service: SocketAddr,
    method: String,
    path: String,
    scope: Option<Scope>,
}

/// All routes of both services, `HEAD` with each `GET`.
fn routes(tandem: &Tandem) -> Vec<Route> {
    let mut routes = Vec::new();
    for service in tandem.services {
        let document = Http::new(service).openapi().0;
        for (path, item) in document["paths"].as_object().expect("paths") {
            for (method, operation) in item.as_object().expect("operations") {
                let scope = operation
                    .pointer("/security/0/bearer/0")
                    .map(|scope| scope.as_str().expect("a name").parse().expect("a scope of the contract"));
                let path = path.replace("{file}", "start.js");
                let method = method.to_uppercase();
                if method == "GET" {
                    routes.push(Route { service, method: "HEAD".to_owned(), path: path.clone(), scope });
                }
                routes.push(Route { service, method, path, scope });
            }
        }
    }
    let scopes: Vec<_> = routes.iter().filter_map(|route| route.scope).collect();
    assert!(routes.len() > 60 && Scope::ALL.iter().filter(|scope| !scopes.contains(scope)).count() <= 1, "{routes:?}");
    routes
}

/// Checks a request with credentials that name no caller: only open routes answer it.
fn check_refused(route: &Route, credentials: Option<&str>, what: &str) {
    let answer = head(route.service, &route.method, &route.path, credentials);
    let place = format!("{what}: {route:?} is answered {answer:?}");
    if route.scope.is_none() {
        return assert!(answer.status < 400, "{place}");
    }
    let challenge = if credentials.is_some() { "Bearer error=\"invalid_token\"" } else { "Bearer" };
    assert_eq!((answer.status, &*answer.challenge), (401, challenge), "{place}");
    assert!(route.method == "HEAD" || answer.error["code"] == "unauthenticated", "{place}");
}

/// Checks a request of a caller with the scope `held` alone.
fn check_scope(route: &Route, credentials: &str, held: Scope) {
    let answer = head(route.service, &route.method, &route.path, Some(credentials));
    let place = format!("{held:?}: {route:?} is answered {answer:?}");
    match route.scope {
        Some(needed) if needed != held && held != Scope::Admin => {
            let challenge = format!("Bearer error=\"insufficient_scope\", scope=\"{}\"", needed.name());
            assert_eq!((answer.status, answer.challenge), (403, challenge), "{place}");
            assert!(route.method == "HEAD" || answer.error["code"] == "insufficient_scope", "{place}");
        }
        // The requests lack parameters, so 400 is the answer of most.
        _ => assert!(![401, 403, 404, 405, 500].contains(&answer.status), "{place}"),
    }
}

#[test]
fn every_route_with_every_kind_of_key() {
    let folder = TempDir::new().unwrap();
    let file = KeysFile::new(folder.path());
    let (revoked, entry) = file.add("shop", "admin");
    file.revoke(&entry.id);
    let expired = file.add_expired("shop", "admin");
    let keys = Scope::ALL.map(|scope| (scope, format!("Bearer {}", file.add("shop", scope.name()).0)));
    let tandem = Tandem::start(&file.settings());
    let another_secret = format!("{}x", &keys[6].1[..keys[6].1.len() - 1]);
    let token = Issuer::start().token("admin");
    for route in routes(&tandem) {
        check_refused(&route, None, "no credentials");
        for (what, credentials) in [
            ("garbage", "Bearer \u{e9}\u{e9}".to_owned()),
            ("nothing", "Bearer".to_owned()),
            ("another scheme", keys[6].1.replace("Bearer", "Basic")),
            ("another secret", another_secret.clone()),
            ("revoked", format!("Bearer {revoked}")),
            ("expired", format!("Bearer {expired}")),
            ("a token", format!("Bearer {token}")),
        ] {
            check_refused(&route, Some(&credentials), what);
        }
        for (scope, key) in &keys {
            check_scope(&route, key, *scope);
        }
    }
}

#[test]
fn every_route_with_every_kind_of_token() {
    let issuer = Issuer::start();
    let (rsa, stranger) =
        (SigningKey::generate(Algorithm::RS256, "key-2"), SigningKey::generate(Algorithm::ES256, "key-1"));
    issuer.publish(&[issuer.key.jwk(), rsa.jwk()]);
    let settings = issuer.settings();
    let settings: Vec<_> = settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let tandem = Tandem::start(&settings);
    let folder = TempDir::new().unwrap();
    let key = KeysFile::new(folder.path()).add("shop", "admin").0;

    let valid = Issuer::claims("admin");
    let with = |name: &str, value: Value| {
        let mut claims = valid.clone();
        claims[name] = value;
        issuer.key.sign(&claims)
    };
    let without = |name: &str| {
        let mut claims = valid.clone();
        claims.as_object_mut().expect("claims").remove(name);
        issuer.key.sign(&claims)
    };
    let id = |id: &str| Some(id.to_owned());
    let tampered = {
        let (token, more) = (issuer.token("cards:read"), issuer.token("admin"));
        let [head, _, signature] = token.split('.').collect::<Vec<_>>()[..] else { panic!("{token}") };
        [head, more.split('.').nth(1).expect("claims"), signature].join(".")
    };
    let refused = [
        ("garbage", "\u{e9}.\u{e9}.\u{e9}".to_owned()),
        ("a key", key),
        ("expired", with("exp", json!(unix_seconds() - 3_600))),
        ("not yet valid", with("nbf", json!(unix_seconds() + 3_600))),
        ("without an end", without("exp")),
        ("without a subject", without("sub")),
        ("another issuer", with("iss", json!("https://other.example"))),
        ("without an issuer", without("iss")),
        ("another audience", with("aud", json!("shop"))),
        ("without an audience", without("aud")),
        ("alg none", unsigned_token(&valid)),
        ("HMAC with the public key", hmac_token(issuer.key.public_pem().as_bytes(), id("key-1"), &valid)),
        ("HMAC with the RSA key", hmac_token(rsa.public_pem().as_bytes(), id("key-2"), &valid)),
        ("an unknown kid", SigningKey::generate(Algorithm::ES256, "key-9").sign(&valid)),
        ("the kid of another key", stranger.sign(&valid)),
        ("a key of another type", {
            let mut header = issuer.key.header();
            header.kid = id("key-2");
            issuer.key.sign_with(&header, &valid)
        }),
        ("tampered", tampered),
    ];
    let tokens = Scope::ALL.map(|scope| (scope, format!("Bearer {}", issuer.token(scope.name()))));
    for route in routes(&tandem) {
        check_refused(&route, None, "no credentials");
        for (what, token) in &refused {
            check_refused(&route, Some(&format!("Bearer {token}")), what);
        }
        for (scope, token) in &tokens {
            check_scope(&route, token, *scope);
        }
    }
    let of_rsa = format!("Bearer {}", rsa.sign(&valid));
    assert_eq!(head(tandem.services[0], "GET", "/accounts", Some(&of_rsa)).status, 200);
    assert!(issuer.fetches() <= 3, "{} fetches of the key set: at the start, and for unknown kids", issuer.fetches());
}
