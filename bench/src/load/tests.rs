use std::net::{Ipv4Addr, TcpListener};
use std::sync::Arc;

use super::*;

/// A server that asks `status` what to answer, in a thread for each connection. It stays until the process ends.
fn serve(status: impl Fn() -> u16 + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let status = Arc::new(status);
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let status = Arc::clone(&status);
            std::thread::spawn(move || {
                let mut bytes = [0; 4_096];
                // The requests here are small enough to come in one piece.
                while stream.read(&mut bytes).is_ok_and(|count| count > 0) {
                    let answer = format!("HTTP/1.1 {} X\r\nContent-Length: 2\r\n\r\n{{}}", status());
                    if stream.write_all(answer.as_bytes()).is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

fn busy(connections: usize, milliseconds: u64) -> Busy {
    Busy { connections, threads: 2, lasting: Duration::from_millis(milliseconds) }
}

#[test]
fn a_stall_of_200_ms_every_2_s_shows_in_the_open_loop() {
    let started = Instant::now();
    let address = serve(move || {
        let (elapsed, period) = (started.elapsed(), Duration::from_secs(2));
        let into = Duration::from_nanos((elapsed.as_nanos() % period.as_nanos()) as u64);
        std::thread::sleep(Duration::from_millis(200).saturating_sub(into));
        201
    });
    let request = Request::post("/", "{}");
    let schedule = Schedule { rate: 200, seconds: 4, connections: 8 };
    let open = open_loop(address, &request, schedule, |_| ()).unwrap();
    assert_eq!((open.latencies.len(), open.errors), (800, 0));
    let p99 = open.latencies.value_at_quantile(0.99);
    assert!(p99 >= 150_000, "a tenth of the requests were due during a stall, and p99 is {p99} µs");
}

#[test]
fn answers_of_another_status_count_apart() {
    let asked = AtomicU32::new(0);
    let address = serve(move || if asked.fetch_add(1, Ordering::Relaxed).is_multiple_of(2) { 201 } else { 503 });
    let schedule = Schedule { rate: 1_000, seconds: 1, connections: 4 };
    let open = open_loop(address, &Request::post("/", "{}"), schedule, |_| ()).unwrap();
    assert_eq!((open.latencies.len(), open.errors), (500, 500));
    let closed = closed_loop(address, &Request::post("/", "{}"), busy(4, 200)).unwrap();
    assert!(closed.latencies.len().abs_diff(closed.errors) <= 1, "{} and {}", closed.latencies.len(), closed.errors);
}

#[test]
fn nobody_there_is_an_error_and_no_end() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let schedule = Schedule { rate: 10, seconds: 1, connections: 1 };
    let open = open_loop(address, &Request::post("/", "{}"), schedule, |_| ()).unwrap();
    assert_eq!((open.latencies.len(), open.errors), (0, 10));
    let closed = closed_loop(address, &Request::post("/", "{}"), busy(2, 50)).unwrap();
    assert!(closed.latencies.is_empty() && closed.errors > 0);
}

#[test]
fn an_answer_is_whole_or_waited_for() {
    let whole = b"HTTP/1.1 201 Created\r\nContent-Type: x\r\ncontent-LENGTH: 2\r\n\r\n{}";
    for length in 0..whole.len() {
        assert_eq!(answer_in(&whole[..length]).unwrap(), None);
    }
    let (status, body) = answer_in(whole).unwrap().unwrap();
    assert_eq!((status, &whole[body]), (201, b"{}".as_slice()));
    assert!(answer_in(b"what\r\n\r\n").is_err());
}
