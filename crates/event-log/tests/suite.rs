//! One suite for both event logs: each case runs on the embedded log, on librdkafka's mock cluster, and on a real Kafka
//! where `TANDEM_TEST_KAFKA_BROKERS` names one, or `TANDEM_TEST_KAFKA_TLS_BROKERS` one that is reached by TLS with a
//! password (`dev/servers env` prints what else that takes; this must be built with the feature `kafka-tls` then).
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "suite/cases.rs"]
mod cases;
#[path = "suite/embedded_compaction.rs"]
mod embedded_compaction;
#[path = "suite/embedded_damage.rs"]
mod embedded_damage;
#[path = "suite/embedded_file.rs"]
mod embedded_file;
#[path = "suite/embedded_only.rs"]
mod embedded_only;
#[path = "suite/kafka_left_open.rs"]
mod kafka_left_open;
#[path = "suite/kafka_only.rs"]
mod kafka_only;
#[path = "suite/kafka_properties.rs"]
mod kafka_properties;
#[path = "suite/kafka_topic.rs"]
mod kafka_topic;
#[path = "suite/kafka_unreadable.rs"]
mod kafka_unreadable;
#[path = "suite/places.rs"]
mod places;

/// A test for each place a case runs in. The mock cluster answers the requests of a transaction and does nothing: it
/// stores no offset of a transaction, ends none, and does not fence. Cases that need this are marked `transactions`. Those
/// marked `group` run on it side by side: it lets three seconds pass before a group's first member may read.
macro_rules! suite {
    ($($case:ident $($needs:ident)?,)*) => {
        mod embedded {
            $(#[test] fn $case() { super::cases::$case(&super::places::Embedded::new()); })*
        }
        mod mock_kafka {
            $(suite!(@mock $case $($needs)?);)*
        }
        mod real_kafka {
            $(#[test] fn $case() {
                if let Some(place) = super::places::RealKafka::new() {
                    super::cases::$case(&place);
                }
            })*
        }
        mod secured_kafka {
            $(#[test] fn $case() {
                if let Some(place) = super::places::RealKafka::secured() {
                    super::cases::$case(&place);
                }
            })*
        }
    };
    (@mock $case:ident transactions) => {};
    (@mock $case:ident group) => {};
    (@mock $case:ident) => {
        #[test] fn $case() { super::cases::$case(&super::places::MockKafka::new()); }
    };
}

suite! {
    a_key_keeps_its_partition_and_its_order,
    records_come_back_as_they_were_published,
    a_reader_goes_on_from_its_positions,
    a_reader_begins_in_the_middle_of_a_batch,
    positions_the_log_does_not_have_mean_the_start,
    a_waiting_reader_sees_new_records,
    every_reader_sees_everything,
    positions_reach_the_end,
    durable_positions_reach_the_end_too,
    the_end_of_an_empty_log_is_reached_at_once,
    a_publishers_position_is_kept transactions,
    a_publishers_note_is_kept_with_its_position transactions,
    a_new_publisher_fences_the_earlier_one transactions,
    publishers_of_other_names_go_on transactions,
    many_records_arrive_whole,
    the_members_of_a_group_share_the_work group,
    what_a_group_has_not_committed_is_handed_out_again group,
    groups_do_not_share_positions group,
    committing_nothing_is_no_error group,
}

#[test]
fn groups_on_the_mock_cluster() {
    let cases: [fn(&dyn places::Place); 4] = [
        cases::the_members_of_a_group_share_the_work,
        cases::what_a_group_has_not_committed_is_handed_out_again,
        cases::groups_do_not_share_positions,
        cases::committing_nothing_is_no_error,
    ];
    std::thread::scope(|scope| {
        for case in cases {
            scope.spawn(move || case(&places::MockKafka::new()));
        }
    });
}
