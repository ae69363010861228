-- The card database, version 1. Times are microseconds since 1970-01-01 UTC.

CREATE TABLE cards (
    sequence   INTEGER PRIMARY KEY, -- in the order of creation; id and card_number are keyed permutations of it
    id         BLOB    NOT NULL,    -- a UUIDv7 of 16 bytes: hex(id). It contains the sequence, so it needs no index
    country    TEXT    NOT NULL,
    account_id BLOB    NOT NULL,
    deleted    INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    caller     TEXT                 -- who created the card; NULL while callers are not authenticated
) STRICT;

-- The deletions of cards, a row each, kept for ever. The row of a card describes its creation. Columns in cards would lengthen the rows
-- of a closed account, each in a full page, and so split these pages.
CREATE TABLE card_deletions (
    card_sequence INTEGER PRIMARY KEY,
    deleted_at    INTEGER NOT NULL,
    reason        TEXT    NOT NULL, -- requested or account_deleted
    caller        TEXT              -- who requested the deletion; NULL while callers are not authenticated
) STRICT;

-- The cards of an account, a row each, behind the row of the account itself. A page of them costs the same anywhere. One table
-- instead of an index and a table of accounts: among ten million accounts, each would be a page of the file to read for a card.
CREATE TABLE cards_by_account (
    account_id BLOB    NOT NULL,
    sequence   INTEGER NOT NULL, -- of the card; 0 is the account's own row
    cards      INTEGER,          -- of the account: all it ever had, so that a total needs no scan
    closed     INTEGER,          -- of the account: a closed account gets no more cards (ARCHITECTURE.md C4)
    PRIMARY KEY (account_id, sequence)
) STRICT, WITHOUT ROWID;

-- The keys of requests. Expired keys are removed from the front of the table.
CREATE TABLE idempotency_keys (
    number        INTEGER PRIMARY KEY, -- in the order of commit
    caller        TEXT    NOT NULL,    -- '' while callers are not authenticated
    key           TEXT    NOT NULL,
    fingerprint   BLOB    NOT NULL,    -- the SHA-256 of the request
    stored_at     INTEGER NOT NULL,
    card_sequence INTEGER,             -- the card that the request created, if it created one
    UNIQUE (caller, key)
) STRICT;

-- Records of the event log that could not be decoded, for a person to look at.
CREATE TABLE quarantine (
    partition     INTEGER NOT NULL,
    record_offset INTEGER NOT NULL,
    reason        TEXT    NOT NULL,
    detail        TEXT    NOT NULL,
    key           BLOB,    -- as the value: its first 4 KiB
    value         BLOB,    -- its first 4 KiB
    headers       TEXT    NOT NULL, -- JSON: [["name", "value"], ...]
    seen_at       INTEGER NOT NULL,
    PRIMARY KEY (partition, record_offset)
) STRICT, WITHOUT ROWID;

-- One row: what is true of the database as a whole.
CREATE TABLE ledger (
    number_key          BLOB    NOT NULL, -- of the permutations
    card_sequence_floor INTEGER NOT NULL, -- new cards get greater sequences
    unused_sequences    INTEGER NOT NULL, -- sequences up to the last one that no card has
    probes              INTEGER NOT NULL  -- counts transactions that only test whether the database can be written to
) STRICT;

INSERT INTO ledger VALUES (randomblob(16), 0, 0, 0);
