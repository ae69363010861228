//! The HTTP contract of the card service (docs/api.md), row by row, over real connections: on SQLite and the embedded
//! event log, or on PostgreSQL and Apache Kafka where the environment names them (CONTRIBUTING.md). The tests publish the
//! account events. One binary, one module for each topic.

mod account_view;
mod bodies;
mod by_account;
mod by_number;
mod callers;
mod catching_up;
mod checkpoint;
mod closing;
mod concurrency;
mod create;
mod delete;
mod digest;
mod documents;
mod event_stream;
mod event_stream_bounds;
mod events;
mod get;
mod history;
mod idempotency;
mod lineage;
mod list;
mod log_away;
mod postgres;
mod protocol;
mod quarantine;
mod rebuild;
mod restart;
mod row_locks;
mod service;
mod switched_log;
mod unreadable;
mod waits;
