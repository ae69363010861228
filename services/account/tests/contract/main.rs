//! The HTTP contract of the account service (docs/api.md), row by row, over real connections: on SQLite and the embedded
//! event log, or on PostgreSQL and Apache Kafka where the environment names them (CONTRIBUTING.md). One binary, one module a
//! theme.

mod account_version;
mod bodies;
mod by_number;
mod callers;
mod concurrency;
mod conditional;
mod create;
mod damaged_row;
mod delete;
mod digest;
mod documents;
mod erase;
mod events;
mod get;
mod history;
mod idempotency;
mod late_commit;
mod lineage;
mod list;
mod log_away;
mod lost_log;
mod postgres;
mod protocol;
mod recover;
mod restart;
mod resync;
mod row_locks;
mod service;
mod storage;
mod update;
