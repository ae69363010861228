//! Bad days on real servers: each of the servers away, slow or replaced, and instances paused, many at once, or of
//! different versions.
//!
//! All need `TANDEM_TEST_KAFKA_BROKERS` and `TANDEM_TEST_POSTGRES_URL`, and those that take a server away
//! `TANDEM_TEST_SERVERS`, with which they start one of their own (`dev/servers env` prints all three).

mod broker_down;
mod brokers_far_away;
mod brokers_in_turn;
mod closed_once;
mod database_away;
mod failover;
mod many_at_once;
mod pooler;
mod published_again;
mod publisher_cut_off;
mod publisher_fenced;
mod publisher_paused;
mod same_account;
mod topic_recreated;
mod upgrade;
