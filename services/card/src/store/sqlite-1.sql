-- The card database, version 1. Times are microseconds since 1970-01-01 UTC.

CREATE TABLE cards (
    sequence   INTEGER PRIMARY KEY, -- in the order of creation; card_number is a keyed permutation of it
    id         BLOB    NOT NULL UNIQUE,
    country    TEXT    NOT NULL,
    account_id BLOB    NOT NULL,
    deleted    INTEGER NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;

-- The rowid (sequence) stands behind the account in the index, so a page of one account's cards costs the same anywhere.
CREATE INDEX cards_by_account ON cards (account_id);

-- What this service knows of an account that it has cards for, or that it knows to be deleted. A closed account gets no
-- more cards, whatever any instance's view says (ARCHITECTURE.md C4).
CREATE TABLE card_accounts (
    account_id BLOB    PRIMARY KEY,
    cards      INTEGER NOT NULL, -- all it ever had, so that a total needs no scan
    closed     INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Records of the event log that tell of nothing, for a person to look at.
CREATE TABLE quarantine (
    partition     INTEGER NOT NULL,
    record_offset INTEGER NOT NULL,
    reason        TEXT    NOT NULL,
    detail        TEXT    NOT NULL,
    key           BLOB,
    value         BLOB,    -- its first 4 KiB
    headers       TEXT    NOT NULL, -- JSON: [["name", "value"], ...]
    seen_at       INTEGER NOT NULL,
    PRIMARY KEY (partition, record_offset)
) STRICT, WITHOUT ROWID;

-- One row: what is true of the database as a whole.
CREATE TABLE ledger (
    number_key BLOB    NOT NULL, -- of the permutation; the numbers mean nothing without it
    cards      INTEGER NOT NULL
) STRICT;

INSERT INTO ledger VALUES (randomblob(16), 0);
