-- The card database on PostgreSQL, version 1.

-- In the order of creation, nearly: instances draw from it at once. card_number is a keyed permutation of it.
CREATE SEQUENCE card.card_sequence;

CREATE TABLE card.cards (
    sequence   bigint  PRIMARY KEY,
    id         uuid    NOT NULL UNIQUE,
    country    text    NOT NULL,
    account_id uuid    NOT NULL,
    deleted    boolean NOT NULL,
    created_at bigint  NOT NULL, -- microseconds since 1970-01-01 UTC
    caller     text              -- who created the card; NULL while callers are not authenticated
);

-- The deletions of cards, a row each, kept for ever. The row of a card describes its creation.
CREATE TABLE card.card_deletions (
    card_sequence bigint PRIMARY KEY,
    deleted_at    bigint NOT NULL,
    reason        text   NOT NULL, -- requested or account_deleted
    caller        text             -- who requested the deletion; NULL while callers are not authenticated
);

-- A page of one account's cards costs the same wherever it is.
CREATE INDEX cards_by_account ON card.cards (account_id, sequence);

-- What this service knows of an account that it has cards for, or that it knows to be deleted. A closed account gets no
-- more cards, whatever any instance's view says (ARCHITECTURE.md C4). Whoever makes a card or closes an account locks
-- its row.
CREATE TABLE card.card_accounts (
    account_id uuid    PRIMARY KEY,
    cards      bigint  NOT NULL, -- all it ever had, so that a total needs no scan
    closed     boolean NOT NULL
);

-- The keys of requests. A transaction claims its keys with rows that have no fingerprint yet; none is committed. The room in the pages
-- is for the updates that fill in the rows.
CREATE TABLE card.idempotency_keys (
    caller      text   NOT NULL, -- '' while callers are not authenticated
    key         text   COLLATE "C" NOT NULL,
    stored_at   bigint NOT NULL,
    fingerprint bytea,           -- the SHA-256 of the request
    card_id     uuid,            -- the card that the request created, if it created one
    PRIMARY KEY (caller, key)
) WITH (fillfactor = 60);

-- Finds expired keys without a scan. The keys of a transaction have one time, which the index has once.
CREATE INDEX idempotency_keys_by_time ON card.idempotency_keys (stored_at);

-- Records of the event log that tell of nothing, for a person to look at.
CREATE TABLE card.quarantine (
    partition     bigint NOT NULL,
    record_offset bigint NOT NULL,
    reason        text   NOT NULL,
    detail        text   NOT NULL,
    key           bytea, -- as the value: its first 4 KiB
    value         bytea, -- its first 4 KiB
    headers       text   NOT NULL, -- JSON: [["name", "value"], ...]
    seen_at       bigint NOT NULL,
    PRIMARY KEY (partition, record_offset)
);

-- One row: what is true of the database as a whole. A transaction that makes cards updates it last.
CREATE TABLE card.ledger (
    number_key bytea  NOT NULL, -- of the permutation; the numbers mean nothing without it
    cards      bigint NOT NULL
) WITH (fillfactor = 10);

INSERT INTO card.ledger SELECT uuid_send(gen_random_uuid()), 0;
