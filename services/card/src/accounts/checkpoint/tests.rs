//! When a checkpoint is written, and which files remain.

use std::os::unix::fs::PermissionsExt as _;

use account_events::{AccountEvent, AccountId, AccountStatus, EventType};
use test_harness::wait_until;
use uuid::Uuid;

use super::*;
use crate::accounts::view::account_view;

/// The feed's side after two records, the writer's side, and a view of one account.
fn setup(path: &Path) -> (Checkpoints, CheckpointWriter, Arc<AtomicBool>) {
    let (mut view_writer, view) = account_view();
    let account_id = AccountId(Uuid::from_u128(1));
    let (event_type, status) = (EventType::Created, AccountStatus::Active);
    view_writer.apply(&AccountEvent { event_type, account_id, status, version: Some(1) });
    let stopping = Arc::new(AtomicBool::new(false));
    let (mut feed, writer) = checkpoints(path.to_owned(), view, database(), Arc::clone(&stopping));
    feed.add_samples(&[(0, Sample { offset: 0, hash: 7 })]);
    (feed, writer, stopping)
}

fn database() -> Database {
    Database { id: 5, last_card: Arc::default() }
}

fn positions(position: u64) -> Positions {
    Positions::from([(0, position)])
}

fn names(folder: &Path) -> Vec<String> {
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn it_is_written_when_it_is_due_and_something_was_read_and_at_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("deep/er/view");
    let (mut feed, writer, _) = setup(&path);
    let writing = std::thread::spawn(|| writer.run());
    feed.write_if_due(|| panic!("it is not asked before it is due"));
    let there = || read(&path, database().id).ok().map(|checkpoint| checkpoint.mark.positions());
    feed.due = Instant::now();
    feed.write_if_due(|| (positions(1), positions(1)));
    wait_until("it is written", || (*feed.written.lock() == positions(1)).then_some(()));
    assert_eq!(there(), Some(positions(1)));
    assert!(feed.due > Instant::now() + INTERVAL / 2, "the next one is not due yet");

    let order = feed.order((positions(2), positions(1)), None).expect("more was read, if it is not durable");
    assert_eq!((order.mark.positions(), order.read), (positions(1), positions(2)));

    fs::remove_file(&path).unwrap();
    feed.write_last((positions(1), positions(1)));
    feed.due = Instant::now();
    feed.write_if_due(|| (positions(1), positions(1)));
    feed.write_last((positions(2), positions(2)));
    drop(feed);
    writing.join().unwrap();
    assert_eq!(there(), Some(positions(2)));
    assert_eq!(names(path.parent().unwrap()), ["view"]);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));

    let (mut view_writer, view) = account_view();
    let (mut feed, ..) = setup(&path);
    assert_eq!(feed.load(&mut view_writer), positions(0));
    assert_eq!(view.len(), 1);
    assert!(feed.order((positions(2), positions(1)), None).is_none(), "nothing new to write");
}

#[test]
fn one_that_would_outlast_the_end_is_given_up_and_leaves_the_one_before() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("view");
    fs::write(&path, "before").unwrap();
    let (feed, writer, stopping) = setup(&path);
    stopping.store(true, Ordering::Release);
    let mark = feed.order((positions(2), positions(2)), None).unwrap().mark;
    feed.orders.send(Order { mark: mark.clone(), read: positions(2), last_card: 0, until: None }).unwrap();
    let writing = std::thread::spawn(|| writer.run());
    feed.orders.send(Order { mark, read: positions(2), last_card: 0, until: Some(Instant::now()) }).unwrap();
    drop(feed);
    writing.join().unwrap();
    assert_eq!((fs::read(&path).unwrap(), names(folder.path())), (b"before".to_vec(), vec!["view".to_owned()]));
}

#[test]
fn leftovers_are_removed_and_what_another_instance_writes_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("view");
    for name in ["view.1.unfinished", "view.2.unfinished", "view", "view.1", "other.1.unfinished"] {
        fs::write(folder.path().join(name), "").unwrap();
    }
    let held = File::options().write(true).open(folder.path().join("view.2.unfinished")).unwrap();
    held.try_lock().unwrap();
    remove_leftovers(&path);
    let mut left = names(folder.path());
    left.sort();
    assert_eq!(left, ["other.1.unfinished", "view", "view.1", "view.2.unfinished"]);
}

#[test]
fn where_it_cannot_be_written_nothing_is_left_and_nothing_panics() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("view");
    // A file cannot replace a folder.
    fs::create_dir(&path).unwrap();
    let (feed, writer, _) = setup(&path);
    let mark = feed.order((positions(2), positions(2)), None).unwrap().mark;
    let head = (&mark, CardDatabase { id: 5, last_card: 0 });
    write(&path, &writer.view, head, &|| true).unwrap_err();
    assert_eq!(names(folder.path()), ["view"]);
    write(&folder.path().join("view/\0/view"), &writer.view, head, &|| true).unwrap_err();
    assert!(matches!(read(&path, database().id), Err(Unusable::Unreadable(_))));
}

#[test]
fn one_of_another_log_is_removed_and_the_view_empty() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("view");
    let (mut feed, writer, stopping) = setup(&path);
    feed.write_last((positions(1), positions(1)));
    drop(feed);
    writer.run();
    let (mut view_writer, view) = account_view();
    let (mut again, _writer) = checkpoints(path.clone(), view.clone(), database(), stopping);
    assert_eq!(again.load(&mut view_writer), positions(0), "where the first sample is");
    assert_eq!((view.len(), again.known()), (1, positions(1)));
    assert!(!again.clear_if_contradicted(&mut view_writer, &positions(1)) && path.exists());
    assert!(again.clear_if_contradicted(&mut view_writer, &positions(0)), "the log ends earlier");
    assert!(view.is_empty() && again.known().is_empty() && !path.exists());
}
