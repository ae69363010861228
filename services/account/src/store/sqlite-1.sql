-- The account database, version 1. Times are microseconds since 1970-01-01 UTC.

CREATE TABLE accounts (
    sequence      INTEGER PRIMARY KEY, -- in the order of creation; account_number is a keyed permutation of it
    id            BLOB    NOT NULL UNIQUE,
    beholder_name TEXT    NOT NULL,
    country_code  TEXT    NOT NULL,
    status        TEXT    NOT NULL,
    version       INTEGER NOT NULL,
    created_at    INTEGER NOT NULL,
    updated_at    INTEGER NOT NULL
) STRICT;

-- A page of one status costs the same wherever it is: the rowid (sequence) stands behind the status in the index.
CREATE INDEX accounts_by_status ON accounts (status);

-- Events committed with the row they tell of, until the event log has acknowledged them.
CREATE TABLE outbox (
    sequence    INTEGER PRIMARY KEY, -- in the order of commit, never used twice
    account_id  BLOB    NOT NULL,
    event_type  TEXT    NOT NULL,
    status      TEXT    NOT NULL,
    version     INTEGER NOT NULL,
    occurred_at INTEGER NOT NULL,
    traceparent TEXT    NOT NULL
) STRICT;

-- One row: what is true of the database as a whole.
CREATE TABLE ledger (
    database_id          TEXT    NOT NULL, -- names this database's relay in the event log
    number_key           BLOB    NOT NULL, -- of the permutation; the numbers mean nothing without it
    active               INTEGER NOT NULL, -- accounts by status, so that a total needs no scan
    blocked              INTEGER NOT NULL,
    deleted              INTEGER NOT NULL,
    last_outbox_sequence INTEGER NOT NULL,
    removed_outbox_sequence INTEGER NOT NULL -- how far events have been removed, because the event log had them
) STRICT;

INSERT INTO ledger VALUES (lower(hex(randomblob(8))), randomblob(16), 0, 0, 0, 0, 0);
