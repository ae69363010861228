//! Samples identify the log that was read, even if records were compacted, and no other log.

use event_log::{HeaderList, Record};

use super::*;

fn record(number: u64) -> Record {
    let headers = HeaderList::from_iter([(IDENTIFYING_HEADERS[1], number.to_string())]);
    Record { key: Some(b"key".to_vec()), value: Some(b"value".to_vec()), headers }
}

/// Samples a record at each of `offsets` of partition 0, with other content for another value of `other`.
fn take(samples: &mut Samples, offsets: impl IntoIterator<Item = u64>, other: u64) {
    let mut sampler = Sampler::default();
    for offset in offsets {
        let record = record(offset + other);
        let (key, value, headers) = (record.key.as_deref(), record.value.as_deref(), record.headers.as_headers());
        if let Some(sample) = sampler.sample(RecordRef { partition: 0, offset, key, value, headers }) {
            samples.add(0, sample);
        }
    }
}

fn positions(position: u64) -> Positions {
    Positions::from([(0, position), (1, 0)])
}

/// The mark of a log with records at `offsets` that was read up to `position`.
fn mark(offsets: impl IntoIterator<Item = u64>, position: u64) -> Mark {
    let mut samples = Samples::default();
    take(&mut samples, offsets, 0);
    samples.mark(&positions(position)).expect("it can be proven")
}

#[test]
fn the_last_samples_are_kept_and_reading_on_begins_at_the_first_of_them() {
    let small = mark(0..100, 100);
    assert_eq!(small.start(), positions(0));
    let large = mark(0..100_000, 100_000);
    let offsets: Vec<_> = large.0[&0].samples.iter().map(|sample| sample.offset).collect();
    assert_eq!(offsets, (383..=390).map(|stretch| stretch * 256).collect::<Vec<_>>());
    assert_eq!((large.start(), large.positions()), (positions(383 * 256), positions(100_000)));
    // Only samples before the durable position.
    assert_eq!(mark(0..100_000, 99_000).0[&0].samples.last().map(|sample| sample.offset), Some(386 * 256));
    // Markers at each second offset, which include the first offset of each range.
    assert_eq!(mark((1..100_000).step_by(2), 100_000).0[&0].samples.len(), SAMPLES);
}

#[test]
fn a_log_is_proven_by_any_sample_that_is_left() {
    let mark = mark(0..5_000, 5_000);
    let start = mark.start()[&0];
    let left = mark.0[&0].samples[5].offset;
    let compacted: Vec<_> = (start..6_000).filter(|offset| *offset == left || offset % 256 > 200).collect();
    for offsets in [(start..6_000).collect(), compacted] {
        let mut samples = Samples::expecting(mark.clone());
        assert_eq!(samples.verdict(&positions(start), false, &Positions::new()), Verdict::Open);
        take(&mut samples, offsets, 0);
        assert_eq!(samples.verdict(&positions(6_000), true, &Positions::new()), Verdict::Proven);
        let again = samples.mark(&positions(6_000)).expect("it can be proven again");
        assert!(again.0[&0].samples.contains(&mark.0[&0].samples[5]));
    }
}

#[test]
fn another_log_is_disproved_by_another_record_and_at_last_by_none() {
    let mark = mark(0..5_000, 5_000);
    let start = mark.start()[&0];
    let mut samples = Samples::expecting(mark.clone());
    take(&mut samples, [start], 1);
    assert!(
        matches!(samples.verdict(&positions(start + 1), false, &Positions::new()), Verdict::Disproved(_)),
        "at once"
    );
    // A match in another partition does not make up for a mismatch.
    take(&mut samples, start + 1..5_000, 0);
    assert!(matches!(samples.verdict(&positions(5_000), false, &Positions::new()), Verdict::Disproved(_)));

    let mut samples = Samples::expecting(mark);
    take(&mut samples, (start..5_000).filter(|offset| offset % 256 > 0), 0);
    assert_eq!(samples.verdict(&positions(4_999), false, &Positions::new()), Verdict::Open);
    assert!(
        matches!(samples.verdict(&positions(5_000), false, &Positions::new()), Verdict::Disproved(_)),
        "at the position"
    );
    assert!(
        matches!(samples.verdict(&positions(10), true, &Positions::new()), Verdict::Disproved(_)),
        "or at the end of the log"
    );
}

#[test]
fn a_log_that_is_too_short_or_has_other_partitions_contradicts() {
    let mark = mark(0..5_000, 5_000);
    assert_eq!(mark.contradiction(&positions(5_000)), None);
    assert!(mark.contradiction(&positions(4_999)).is_some());
    assert!(mark.contradiction(&Positions::from([(0, 5_000)])).is_some());
    assert_eq!(
        mark.contradiction(&Positions::from([(0, 5_000), (1, 0), (2, 0)])),
        None,
        "a topic may get more partitions"
    );
}

#[test]
fn a_log_whose_start_was_deleted_is_no_other_one() {
    let mark = mark(0..5_000, 5_000);
    let last = mark.0[&0].samples[SAMPLES - 1].offset;
    let mut samples = Samples::expecting(mark);
    assert_eq!(
        samples.verdict(&positions(5_000), true, &positions(last + 1)),
        Verdict::Proven,
        "nothing is left to show it"
    );
    assert!(
        matches!(samples.verdict(&positions(5_000), true, &positions(last)), Verdict::Disproved(_)),
        "its place is there"
    );
    take(&mut samples, [last], 1);
    assert!(matches!(samples.verdict(&positions(5_000), true, &positions(last + 1)), Verdict::Disproved(_)));
}

#[test]
fn nothing_is_kept_that_could_not_be_proven() {
    let mut samples = Samples::default();
    assert_eq!(samples.mark(&positions(0)), None, "nothing was read");
    take(&mut samples, 100..200, 0);
    assert_eq!(samples.mark(&Positions::from([(0, 200), (1, 7)])), None, "no sample of one partition");
    assert_eq!(samples.mark(&positions(100)), None, "none that is durable");
    assert!(samples.mark(&positions(200)).is_some());
}

#[test]
fn nothing_is_kept_of_a_log_that_was_made_anew_under_the_reader() {
    let mut samples = Samples::default();
    take(&mut samples, 0..5_000, 0);
    take(&mut samples, 0..7_000, 1);
    assert_eq!(samples.mark(&positions(7_000)), None);
}

#[test]
fn what_stands_in_a_record_and_where_makes_its_hash() {
    let hash = |key: Option<&[u8]>, value: Option<&[u8]>, id: Option<&str>| {
        let headers: HeaderList = id.map(|id| (IDENTIFYING_HEADERS[0], id)).into_iter().collect();
        super::hash(RecordRef { partition: 0, offset: 0, key, value, headers: headers.as_headers() })
    };
    let hashes = [
        hash(None, None, None),
        hash(Some(b""), None, None),
        hash(None, Some(b""), None),
        hash(Some(b"ab"), Some(b"c"), None),
        hash(Some(b"a"), Some(b"bc"), None),
        hash(Some(b"a"), Some(b"b"), Some("c")),
        hash(Some(b"a"), Some(b"b"), Some("d")),
    ];
    assert!((1..hashes.len()).all(|n| !hashes[..n].contains(&hashes[n])));
}
