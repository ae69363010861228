-- The account database, version 1. Times are microseconds since 1970-01-01 UTC.

CREATE TABLE accounts (
    sequence      INTEGER PRIMARY KEY, -- in the order of creation; id and account_number are keyed permutations of it
    id            BLOB    NOT NULL,    -- a UUIDv7 of 16 bytes: hex(id). It contains the sequence, so it needs no index
    beholder_name TEXT    NOT NULL,
    country_code  TEXT    NOT NULL,
    status        TEXT    NOT NULL,
    version       INTEGER NOT NULL,
    event_version INTEGER NOT NULL,    -- of the latest event; a change of name or country makes none
    created_at    INTEGER NOT NULL,
    updated_at    INTEGER NOT NULL,
    caller        TEXT                 -- who created the account; NULL while callers are not authenticated
) STRICT;

-- The rowid (sequence) follows the status in the index, so a page of one status costs the same anywhere.
CREATE INDEX accounts_by_status ON accounts (status);

-- The changes of accounts, a row each, kept for ever. The row of an account describes its creation. The entries of an account are
-- adjacent, so a page of them costs the same anywhere.
CREATE TABLE account_history (
    account_sequence INTEGER NOT NULL,
    version          INTEGER NOT NULL, -- of the account after the change
    changed_at       INTEGER NOT NULL,
    type             TEXT    NOT NULL, -- updated, status_changed, deleted or recovered
    status           TEXT    NOT NULL, -- of the account after the change
    fields           TEXT    NOT NULL, -- names of the other fields that changed, separated by commas
    caller           TEXT,             -- NULL while callers are not authenticated
    PRIMARY KEY (account_sequence, version)
) STRICT, WITHOUT ROWID;

-- Events committed with the rows they describe, until the event log has acknowledged them: a row for each transaction.
CREATE TABLE outbox (
    last_sequence INTEGER PRIMARY KEY, -- of the last event in the row; earlier events have the numbers before it
    event_count   INTEGER NOT NULL,
    occurred_at   INTEGER NOT NULL,
    events        TEXT    NOT NULL     -- JSON: [{"account_id", "version", "status", "traceparent"}, ...]; version 1 is a creation
) STRICT;

-- The keys of requests, each with the account as the request's answer showed it. Expired keys are removed from the front of the table.
CREATE TABLE idempotency_keys (
    number           INTEGER PRIMARY KEY, -- in the order of commit
    caller           TEXT    NOT NULL,    -- '' while callers are not authenticated
    key              TEXT    NOT NULL,
    fingerprint      BLOB    NOT NULL,    -- the SHA-256 of the request
    stored_at        INTEGER NOT NULL,
    account_sequence INTEGER NOT NULL,
    account_id       BLOB    NOT NULL,
    beholder_name    TEXT    NOT NULL,
    country_code     TEXT    NOT NULL,
    status           TEXT    NOT NULL,
    version          INTEGER NOT NULL,
    event_version    INTEGER NOT NULL,
    created_at       INTEGER NOT NULL,
    updated_at       INTEGER NOT NULL,
    UNIQUE (caller, key)
) STRICT;

-- The sessions in which this database has published, in order. The event log names the last one, so a log that names another session
-- was published to by another copy of this database (docs/decisions/0017).
CREATE TABLE publisher_sessions (
    number  INTEGER PRIMARY KEY,
    session TEXT    NOT NULL UNIQUE
) STRICT;

-- One row: what is true of the database as a whole.
CREATE TABLE ledger (
    database_id             TEXT    NOT NULL, -- names this database in the event log
    number_key              BLOB    NOT NULL, -- of the permutations
    account_sequence_floor  INTEGER NOT NULL, -- new accounts get greater sequences
    unused_sequences        INTEGER NOT NULL, -- sequences up to the last one that no account has
    outbox_anchor           INTEGER,          -- the last event when a process started and no publisher was opened since; else NULL
    superseded              TEXT,             -- why the database takes no writes
    blocked                 INTEGER NOT NULL, -- accounts by status, so that a total needs no scan; all others are active
    deleted                 INTEGER NOT NULL,
    removed_outbox_sequence INTEGER NOT NULL, -- up to here events were removed, because the event log had acknowledged them
    resync_requested        INTEGER NOT NULL, -- requests that the state of every account be published again
    resync_done             INTEGER NOT NULL, -- how many of them are done
    probes                  INTEGER NOT NULL  -- counts transactions that only test whether the database can be written to
) STRICT;

INSERT INTO ledger VALUES (lower(hex(randomblob(8))), randomblob(16), 0, 0, NULL, NULL, 0, 0, 0, 0, 0, 0);
