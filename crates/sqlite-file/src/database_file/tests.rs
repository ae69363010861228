use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::sync::Mutex;

use super::*;

/// The log lines of `work`.
fn logged(work: impl FnOnce()) -> String {
    let lines = Arc::<Mutex<Vec<u8>>>::default();
    let writer = Arc::clone(&lines);
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || Sink(Arc::clone(&writer))).finish();
    tracing::subscriber::with_default(subscriber, work);
    let lines = lines.lock().unwrap().clone();
    String::from_utf8(lines).unwrap()
}

struct Sink(Arc<Mutex<Vec<u8>>>);

impl io::Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Opens the file at `path` in WAL mode, with a table.
fn open(path: &Path) -> (DatabaseFile, Connection) {
    let file = DatabaseFile::open(path).unwrap();
    let connection = file.connect(OpenFlags::SQLITE_OPEN_READ_WRITE).unwrap();
    file.start_wal(&connection).unwrap();
    connection.execute_batch("CREATE TABLE IF NOT EXISTS numbers (n INTEGER)").unwrap();
    (file, connection)
}

fn insert(connection: &Connection) {
    connection.execute("INSERT INTO numbers VALUES (1)", []).unwrap();
}

fn count(path: &Path) -> i64 {
    let connection = Connection::open(path).unwrap();
    connection.query_row("SELECT count(*) FROM numbers", [], |row| row.get(0)).unwrap()
}

fn names(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.collect();
    names.sort();
    names
}

#[test]
fn a_clean_stop_leaves_one_file_whoever_has_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    for rows in 1..=2 {
        let (file, connection) = open(&path);
        insert(&connection);
        let reader = file.connect(OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
        assert_eq!(reader.query_row("SELECT count(*) FROM numbers", [], |row| row.get(0)), Ok(rows));
        drop((reader, connection));
        file.close().unwrap();
        assert_eq!(names(folder.path()), ["a.db"]);
    }
    let copy = folder.path().join("copy.db");
    fs::copy(&path, &copy).unwrap();
    assert_eq!(count(&copy), 2);
    assert_eq!(logged(|| drop(open(&path))), "", "the file is whole");
}

#[test]
fn a_file_without_its_write_ahead_log_is_reported_and_one_that_was_killed_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let (path, copy) = (folder.path().join("a.db"), folder.path().join("copy.db"));
    let (file, connection) = open(&path);
    insert(&connection);
    // The copy is the database file of a running service without its write-ahead log.
    fs::copy(&path, &copy).unwrap();
    drop((connection, file));
    assert!(beside(&path, "-wal").exists(), "no close but the clean one removes it");
    assert_eq!(logged(|| drop(open(&path))), "", "it is as kill -9 leaves it");
    assert_eq!(count(&path), 1);
    let warning = logged(|| drop(open(&copy)));
    assert!(warning.contains("copy.db-wal is missing") && warning.contains("WARN"), "{warning}");
}

#[test]
fn another_process_that_has_the_file_open_keeps_its_log_and_costs_no_row() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let (file, connection) = open(&path);
    insert(&connection);
    let other = Connection::open(&path).unwrap();
    assert_eq!(other.query_row("SELECT count(*) FROM numbers", [], |row| row.get(0)), Ok(1));
    drop(connection);
    let warning = logged(|| file.close().unwrap());
    assert!(warning.contains("another process has the file open"), "{warning}");
    let copy = folder.path().join("copy.db");
    fs::copy(&path, &copy).unwrap();
    assert_eq!(count(&copy), 1);
}

#[test]
fn every_name_of_a_file_is_the_same_lock() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let [hard, soft, dotted] = ["hard.db", "soft.db", "./a.db"].map(|name| folder.path().join(name));
    let (file, connection) = open(&path);
    fs::hard_link(&path, &hard).unwrap();
    symlink("a.db", &soft).unwrap();
    for name in [&path, &hard, &soft, &dotted] {
        let refused = DatabaseFile::open(name).expect_err("in use").to_string();
        assert!(refused.starts_with(&format!("{} is in use by another process", name.display())), "{refused}");
        assert!(UseProbe::open(name).unwrap().is_in_use());
    }
    drop((connection, file));
    let probe = UseProbe::open(&path).unwrap();
    assert!(!probe.is_in_use());
    let (file, connection) = open(&soft);
    assert!(probe.is_in_use());
    insert(&connection);
    assert_eq!(file.beside("-wal"), fs::canonicalize(folder.path()).unwrap().join("a.db-wal"));
    drop(connection);
    file.close().unwrap();
    assert_eq!(count(&path), 1);
}

/// Whether this process has a POSIX lock on `file`, as SQLite uses them.
#[expect(unsafe_code, reason = "the standard library has no call for it")]
fn is_locked(file: &File) -> bool {
    let [kind, whence] = [libc::F_WRLCK, libc::SEEK_SET].map(|value| value as libc::c_short);
    let mut lock = libc::flock { l_type: kind, l_whence: whence, l_start: 0, l_len: 0, l_pid: 0 };
    // SAFETY: the call fills the structure, and the file is open.
    let result = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_GETLK, &raw mut lock) };
    assert_eq!(result, 0, "{}", io::Error::last_os_error());
    lock.l_type != libc::F_UNLCK as libc::c_short
}

#[test]
fn opening_a_file_in_vain_leaves_the_locks_of_sqlite() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let (file, connection) = open(&path);
    insert(&connection);
    assert!(is_locked(&file.file()));
    DatabaseFile::open(&path).unwrap_err();
    let probe = UseProbe::open(&path).unwrap();
    assert!(probe.is_in_use());
    assert!(is_locked(&file.file()));
    drop(File::open(&path).unwrap());
    assert!(!is_locked(&file.file()), "closing any descriptor releases them");
}

#[test]
fn files_are_for_the_owner_alone_and_wider_ones_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("new/data/a.db");
    let (file, connection) = open(&path);
    insert(&connection);
    let [wal, shm] = ["-wal", "-shm"].map(|suffix| beside(&path, suffix));
    let folder = path.parent().unwrap();
    for (path, mode) in [(folder, 0o700), (&path, 0o600), (&wal, 0o600), (&shm, 0o600)] {
        assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, mode, "{}", path.display());
    }
    drop((connection, file));
    for (path, mode) in [(folder, 0o755), (&path, 0o644), (&wal, 0o640)] {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }
    let warning = logged(|| drop(open(&path)));
    for command in [
        format!("chmod 700 {}", folder.display()),
        format!("chmod 600 {}", path.display()),
        format!("chmod 600 {}", wal.display()),
    ] {
        assert!(warning.contains(&command), "{warning}");
    }
    assert_eq!(warning.lines().count(), 1, "{warning}");
    assert_eq!(logged(|| drop(open(&path))), "", "it is said once");
}

#[test]
fn what_cannot_be_opened_is_named_with_the_cause() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |path: &Path| DatabaseFile::open(path).unwrap_err().to_string();
    assert!(refused(folder.path()).contains("Is a directory"));
    let path = folder.path().join("a.db");
    fs::create_dir(beside(&path, "-wal")).unwrap();
    let refused = refused(&path);
    assert!(refused.contains("a.db-wal: Is a directory"), "{refused}");
}

#[test]
fn only_a_storage_that_failed_stops_the_process_and_its_log_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let (file, connection) = open(&path);
    insert(&connection);
    let fail = |code| {
        let failure = rusqlite::Error::SqliteFailure(ffi::Error::new(code), None);
        file.check::<()>(Err(failure)).unwrap_err();
        file.fail_stop().has_failed()
    };
    for code in [ffi::SQLITE_FULL, ffi::SQLITE_BUSY, ffi::SQLITE_CORRUPT, ffi::SQLITE_IOERR_READ] {
        assert!(!fail(code), "{code}");
    }
    assert!(fail(ffi::SQLITE_IOERR_FSYNC));
    drop(connection);
    file.close().unwrap();
    assert!(beside(&path, "-wal").exists());
    drop(file);
    assert_eq!(logged(|| drop(open(&path))), "");
    assert_eq!(count(&path), 1);
}
