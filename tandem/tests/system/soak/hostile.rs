//! A client that sends what no service should take: each request is refused by a 4xx or by the end of its connection.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::cluster::{Cluster, Instance};
use crate::keep_alive::KeepAlive;
use crate::random::Random;

/// The pause between two requests.
const PACE: Duration = Duration::from_millis(50);

/// Twice as long as a request's head may be.
const LONG_HEADER_BYTES: usize = 64 * 1024;

const JSON: &str = "Host: localhost\r\nContent-Type: application/json\r\n";

struct Attack {
    request: Vec<u8>,
    /// The statuses it may be answered with.
    refusals: &'static [u16],
    /// How often it was.
    refused: usize,
}

/// Sends them to any instance that is there, until it is to stop.
pub(super) fn attack(cluster: &Cluster, random: &mut Random, stop: &AtomicBool) {
    let (mut on_accounts, mut on_cards) = (attacks("/account"), attacks("/card"));
    while !stop.load(Ordering::Acquire) {
        for (instances, attacks) in [(&cluster.accounts, &mut on_accounts), (&cluster.cards, &mut on_cards)] {
            let there: Vec<_> = instances.iter().filter_map(Instance::http).collect();
            let place = random.below(attacks.len());
            if let Some(http) = random.pick(&there) {
                let attack = &mut attacks[place];
                // No answer is a refusal, too; it may also be that the instance was just taken away.
                let Some(status) = KeepAlive::connect(http.address()).ok().and_then(|with| attack.answer(with)) else {
                    continue;
                };
                let sent = String::from_utf8_lossy(&attack.request);
                let sent = sent.get(..300).unwrap_or(&sent);
                assert!(attack.refusals.contains(&status), "{status} at {}: {sent}", http.address());
                attack.refused += 1;
            }
        }
        std::thread::park_timeout(PACE);
    }
    let all = on_accounts.iter().chain(&on_cards);
    let (refused, sorts) = all.fold((0, 0), |(sum, sorts), attack| (sum + attack.refused, sorts + 1));
    eprintln!("{refused} hostile requests of {sorts} sorts were refused");
    assert!(refused > 0, "the hostile client was never answered");
}

impl Attack {
    fn answer(&self, mut connection: KeepAlive) -> Option<u16> {
        connection.send(&self.request).ok()?;
        Some(connection.answer().ok()?.0)
    }
}

/// What is sent to a service whose rows are made by `POST path`.
fn attacks(path: &str) -> Vec<Attack> {
    let body = r#"{"beholder_name":"Eve","country_code":"US","country":"US","account_id":"00000000-0000-0000-0000-000000000000"}"#;
    let post = |headers: &str, body: &[u8]| {
        let head = format!("POST {path} HTTP/1.1\r\n{headers}Content-Length: {}\r\n\r\n", body.len());
        [head.as_bytes(), body].concat()
    };
    let raw = |text: &str| text.as_bytes().to_vec();
    let cross_site = "Origin: https://evil.example\r\nSec-Fetch-Site: cross-site\r\n";
    let name = |name: &str| body.replace("Eve", name).replace("\"country\":", "\"no\":");
    let attacks: [(Vec<u8>, &'static [u16]); _] = [
        (raw("GET /health HTTP/1.1\r\n\r\n"), &[400]),
        (raw("GET /health HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n"), &[400]),
        (raw("GET /health HTTP/1.1\r\nHost: local host\r\n\r\n"), &[400]),
        (raw("\x16\x03\x01\x02\r\n\r\n"), &[400]),
        (raw("GET /health\r\n\r\n"), &[400]),
        (raw(&format!("GET / HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n\r\n", "x".repeat(LONG_HEADER_BYTES))), &[431]),
        (raw("GET /nowhere HTTP/1.1\r\nHost: localhost\r\n\r\n"), &[404]),
        (raw("BREW /health HTTP/1.1\r\nHost: localhost\r\n\r\n"), &[405]),
        // A name of somebody else's that leads to loopback.
        (raw(&format!("GET {path} HTTP/1.1\r\nHost: evil.example\r\n\r\n")), &[403]),
        (post(&JSON.replace("localhost", "evil.example"), body.as_bytes()), &[403]),
        (post(&format!("Host: localhost\r\n{cross_site}"), body.as_bytes()), &[403, 415]),
        (post(&format!("{JSON}{cross_site}"), body.as_bytes()), &[403]),
        (post("Host: localhost\r\nContent-Type: text/plain\r\n", body.as_bytes()), &[415]),
        (post(&format!("{JSON}Content-Length: 7\r\n"), body.as_bytes()), &[400]),
        (raw(&format!("POST {path} HTTP/1.1\r\n{JSON}Transfer-Encoding: chunked\r\n\r\nnumber\r\n{{}}\r\n")), &[400]),
        (raw(&format!("POST {path} HTTP/1.1\r\n{JSON}Content-Length: 1000000000\r\n\r\n{{")), &[413]),
        (post(JSON, b"{"), &[400]),
        (post(JSON, b"{\"beholder_name\":\"\xFF\xFE\",\"country_code\":\"US\"}"), &[400]),
        (post(JSON, name(r"E\u0000ve").as_bytes()), &[400]),
        (post(JSON, name(r"E\nve").as_bytes()), &[400]),
        (post(JSON, name("   ").as_bytes()), &[400]),
        (post(JSON, name(&"x".repeat(201)).as_bytes()), &[400]),
    ];
    attacks.into_iter().map(|(request, refusals)| Attack { request, refusals, refused: 0 }).collect()
}
