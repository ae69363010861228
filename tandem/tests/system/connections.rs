//! Many connections at once: descriptors, the listen backlog, and what is answered when there are no places.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;

use tempfile::TempDir;
use test_harness::{DEADLINE, Process, binary, wait_until};

/// A shell that starts the all-in-one with `limits`, arguments of `ulimit`, in force.
fn shell_with_limits(folder: &Path, limits: &str) -> std::path::PathBuf {
    use std::os::unix::fs::PermissionsExt as _;

    let path = folder.join("limited");
    let tandem = binary("tandem");
    std::fs::write(&path, format!("#!/bin/sh\nulimit {limits} && exec {}\n", tandem.display())).expect("a folder");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("a file of its own");
    path
}

fn limits_of(process: &Process) -> (u64, u64) {
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", process.id())).expect("a running process");
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files")).expect("a limit");
    let mut columns = line.split_whitespace().map(|column| column.parse().expect("a number"));
    let mut next = || columns.next().expect("two numbers");
    (next(), next())
}

fn silent(address: SocketAddr, count: usize) -> Vec<TcpStream> {
    (0..count).map(|_| TcpStream::connect(address).expect("a place in the backlog")).collect()
}

#[test]
fn the_soft_limit_on_descriptors_is_raised() {
    let folder = TempDir::new().unwrap();
    let mut tandem = Process::start(&shell_with_limits(folder.path(), "-S -n 256"), folder.path(), &[]);
    tandem.ready_service(account_service::NAME);
    let (soft, hard) = limits_of(&tandem);
    assert_eq!(soft, hard);
}

#[test]
fn silent_connections_to_one_port_take_nothing_from_the_other_nor_from_files_nor_from_health() {
    let folder = TempDir::new().unwrap();
    let mut tandem = Process::start(&shell_with_limits(folder.path(), "-n 400"), folder.path(), &[]);
    let accounts = tandem.ready_service(account_service::NAME);
    let cards = tandem.ready_service(card_service::NAME);
    let _silent = silent(accounts.address(), 600);
    for _ in 0..3 {
        cards.get("/cards?limit=1").expect(200);
        accounts.get("/readyz").expect(200);
        // The idle connections make room.
        accounts.get("/accounts?limit=1").expect(200);
    }
    let lines = tandem.lines();
    assert!(!lines.iter().any(|line| line.contains("cannot accept")), "{lines:#?}");
}

#[test]
fn a_burst_of_clients_finds_a_place_in_the_backlog() {
    /// More than the 128 of a customary backlog, and below what the system allows.
    const BURST: usize = 600;

    let allowed: usize = std::fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap().trim().parse().unwrap();
    assert!(allowed > BURST, "net.core.somaxconn is {allowed}: the test needs more");
    let folder = TempDir::new().unwrap();
    let mut tandem = Process::start(&binary("tandem"), folder.path(), &[]);
    let accounts = tandem.ready_service(account_service::NAME);
    // Stopped, it accepts nothing, so that the backlog alone takes the burst.
    tandem.signal(libc::SIGSTOP);
    let (sender, receiver) = std::sync::mpsc::channel();
    let address = accounts.address();
    std::thread::spawn(move || sender.send(silent(address, BURST)));
    let connections = wait_until("all have connected", || receiver.try_recv().ok());
    tandem.signal(libc::SIGCONT);
    for mut connection in connections {
        connection.set_read_timeout(Some(DEADLINE)).unwrap();
        connection.write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        connection.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
}
