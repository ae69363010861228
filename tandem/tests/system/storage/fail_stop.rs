//! An fsync that fails stops the process; its restart recovers. A library that is loaded before the system's makes it fail.

use std::fs;
use std::process::Command;

use test_harness::wait_until;

use super::{Storage, names};
use crate::requests::{create_account, john_doe};

/// Fails each fsync of a file whose path contains `FAILING_SYNC`, as soon as the file `FAILING_NOW` exists.
const LIBRARY: &str = r#"
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static int fails(int fd) {
    const char *of = getenv("FAILING_SYNC"), *now = getenv("FAILING_NOW");
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (!of || !now || length < 0 || access(now, F_OK) != 0) return 0;
    path[length] = 0;
    return strstr(path, of) != NULL;
}

int fsync(int fd) {
    if (fails(fd)) { errno = EIO; return -1; }
    return syscall(SYS_fsync, fd);
}

int fdatasync(int fd) {
    if (fails(fd)) { errno = EIO; return -1; }
    return syscall(SYS_fdatasync, fd);
}
"#;

/// Has the sync of the files of `database` fail under load. What was acknowledged is there after the restart.
fn check(database: &str) {
    let storage = Storage::new();
    let [source, library, now] = ["sync.c", "sync.so", "failing"].map(|name| storage.0.path().join(name));
    fs::write(&source, LIBRARY).expect("a file");
    let compiled = Command::new("cc").args(["-shared", "-fPIC", "-o"]).args([&library, &source]).status();
    assert!(compiled.expect("a C compiler").success());
    let path = |path: &std::path::Path| path.to_str().expect("text").to_owned();
    let settings =
        [("LD_PRELOAD", path(&library)), ("FAILING_SYNC", format!("/{database}")), ("FAILING_NOW", path(&now))];
    let mut running = storage.start_with(&settings.each_ref().map(|(name, value)| (*name, value.as_str())));
    let mut acknowledged = vec![create_account(&running.accounts).to_string()];
    fs::write(&now, "").expect("a file");
    // Until nothing is answered any more.
    let post = || {
        let body = john_doe().to_string().into_bytes();
        running.accounts.try_send("POST", "/account", &[("Content-Type", "application/json")], body)
    };
    wait_until("it stops", || match post() {
        Ok(answer) if answer.status == 201 => {
            acknowledged.push(answer.body["id"].as_str().expect("an id").to_owned());
            None
        }
        _ => Some(()),
    });
    let status = running.process.wait();
    assert_eq!(status.code(), Some(1), "{:#?}", running.process.lines());
    wait_until("its last lines are read", || {
        let is_told = |line: &String| line.contains("the storage failed, stopping") && line.contains(database);
        running.process.lines().iter().any(is_told).then_some(())
    });
    assert!(names(&storage.file("")).contains(&format!("{database}-wal")), "the write-ahead log is kept");

    fs::remove_file(&now).expect("a file");
    let running = storage.start();
    for id in acknowledged {
        running.accounts.get(&format!("/account?id={id}")).expect(200);
        wait_until("the view knows it", || {
            let body = serde_json::json!({ "country": "US", "account_id": id });
            (running.cards.post("/card", &body).status == 201).then_some(())
        });
    }
    running.stop();
}

#[test]
fn a_failed_sync_of_the_accounts_stops_the_process() {
    check("account.db");
}

#[test]
fn a_failed_sync_of_the_event_log_stops_the_process() {
    check("event-log.db");
}
