//! Event streams whose callers' credentials end.

use std::time::{Duration, Instant};

use tempfile::TempDir;
use test_harness::{EventStream, Issuer, KeysFile, unix_seconds};

use super::start;

/// The heartbeat of a stream, the second within which the file is read again, and the noise of a machine that runs other tests.
const END: Duration = Duration::from_secs(15 + 1 + 5);

/// Reads until the stream ends, and returns how long that took.
fn time_to_end(mut stream: EventStream) -> Duration {
    let started = Instant::now();
    while stream.block().is_some() {}
    started.elapsed()
}

#[test]
fn a_stream_ends_when_its_key_is_revoked_or_its_token_expires() {
    let (of_keys, of_tokens) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let (file, issuer) = (KeysFile::new(of_keys.path()), Issuer::start());
    let ((revoked, entry), (kept, _)) = (file.add("shop", "events:read"), file.add("bank", "events:read"));
    let (_with_keys, _, cards) = start(&of_keys, &file.settings());
    let settings = issuer.settings();
    let settings: Vec<_> = settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let (_with_tokens, _, cards_of_tokens) = start(&of_tokens, &settings);

    let mut claims = Issuer::claims("events:read");
    // Valid for three more seconds: the leeway is 60.
    claims["exp"] = (unix_seconds() - 57).into();
    let of_token = EventStream::open_as(&cards_of_tokens, "/events", &issuer.key.sign(&claims));
    let mut of_kept = EventStream::open_as(&cards, "/events", &kept);
    let of_revoked = EventStream::open_as(&cards, "/events", &revoked);
    of_kept.comment();
    file.revoke(&entry.id);
    let ends = std::thread::scope(|scope| {
        let ends = [of_revoked, of_token].map(|stream| scope.spawn(|| time_to_end(stream)));
        ends.map(|end| end.join().expect("an end"))
    });
    println!("a stream ended {:.1?} after its key was revoked, and one {:.1?} after its start", ends[0], ends[1]);
    assert!(ends.iter().all(|end| *end < END), "{ends:?}");
    // The other stream has had its next heartbeat by then, or gets it.
    of_kept.comment();
}
