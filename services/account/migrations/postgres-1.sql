-- The account database on PostgreSQL, version 1.

-- In the order of creation, nearly: instances draw from it at once. account_number is a keyed permutation of it.
CREATE SEQUENCE account.account_sequence;

CREATE TABLE account.accounts (
    sequence      bigint      PRIMARY KEY,
    id            uuid        NOT NULL UNIQUE,
    beholder_name text        NOT NULL,
    country_code  text        NOT NULL,
    status        text        NOT NULL,
    version       bigint      NOT NULL,
    event_version bigint      NOT NULL, -- of the latest event; a change of name or country makes none
    created_at    bigint      NOT NULL, -- microseconds since 1970-01-01 UTC
    updated_at    bigint      NOT NULL,
    caller        text                  -- who created the account; NULL while callers are not authenticated
);

-- A page of one status costs the same wherever it is.
CREATE INDEX accounts_by_status ON account.accounts (status, sequence);

-- The changes of accounts, a row each, kept for ever. The row of an account describes its creation.
CREATE TABLE account.account_history (
    account_sequence bigint NOT NULL,
    version          bigint NOT NULL, -- of the account after the change
    changed_at       bigint NOT NULL,
    type             text   NOT NULL, -- updated, status_changed, deleted or recovered
    status           text   NOT NULL, -- of the account after the change
    fields           text   NOT NULL, -- names of the other fields that changed, separated by commas
    caller           text,            -- NULL while callers are not authenticated
    PRIMARY KEY (account_sequence, version)
);

-- Events committed with the row they tell of, until the event log has acknowledged them.
CREATE TABLE account.outbox (
    sequence    bigint PRIMARY KEY, -- in the order of commit, never used twice
    account_id  uuid   NOT NULL,
    event_type  text   NOT NULL,
    status      text   NOT NULL,
    version     bigint NOT NULL,
    occurred_at bigint NOT NULL,
    traceparent text   NOT NULL
);

-- The keys of requests, each with the account as the request's answer showed it. A transaction claims its keys with rows that have no
-- answer yet; none is committed. The room in the pages is for the updates that fill in the answers.
CREATE TABLE account.idempotency_keys (
    caller           text   NOT NULL, -- '' while callers are not authenticated
    key              text   COLLATE "C" NOT NULL,
    stored_at        bigint NOT NULL,
    fingerprint      bytea,           -- the SHA-256 of the request
    account_sequence bigint,
    account_id       uuid,
    beholder_name    text,
    country_code     text,
    status           text,
    version          bigint,
    event_version    bigint,
    created_at       bigint,
    updated_at       bigint,
    PRIMARY KEY (caller, key)
) WITH (fillfactor = 60);

-- Finds expired keys without a scan. The keys of a transaction have one time, which the index has once.
CREATE INDEX idempotency_keys_by_time ON account.idempotency_keys (stored_at);

-- The sessions in which this database has published, in order. The event log names the last one, so a log that names another session
-- was published to by another copy of this database (docs/decisions/0017).
CREATE TABLE account.publisher_sessions (
    number  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    session text   NOT NULL UNIQUE
);

-- One row: what is true of the database as a whole. Every transaction that writes events updates it last, so it is also
-- what makes the order of the outbox the order of commit: whoever has it commits before the next one numbers its events.
CREATE TABLE account.ledger (
    database_id          text   NOT NULL, -- names this database in the event log
    number_key           bytea  NOT NULL, -- of the permutation; the numbers mean nothing without it
    active               bigint NOT NULL, -- accounts by status, so that a total needs no scan
    blocked              bigint NOT NULL,
    deleted              bigint NOT NULL,
    last_outbox_sequence bigint NOT NULL,
    -- Of the transaction before: the relay of the instance that commits sees whether another instance committed in between.
    previous_outbox_sequence bigint NOT NULL
) WITH (fillfactor = 10);

INSERT INTO account.ledger
SELECT substr(md5(gen_random_uuid()::text), 1, 16), uuid_send(gen_random_uuid()), 0, 0, 0, 0, 0;

-- One row: which instance publishes, and until when it may; and how far events have been removed, because the event log had
-- them.
CREATE TABLE account.relay_lease (
    holder     uuid        NOT NULL,
    expires_at timestamptz NOT NULL,
    removed_outbox_sequence bigint NOT NULL,
    resync_requested bigint NOT NULL, -- requests that the state of every account be published again
    resync_done      bigint NOT NULL, -- how many of them are done
    outbox_anchor    bigint, -- the last event when an instance started and no publisher was opened since; else NULL
    superseded       text,   -- why the database takes no writes
    set_back         text    -- how instances noticed that the database was replaced by an older copy; tandem recover removes it
) WITH (fillfactor = 10);

INSERT INTO account.relay_lease VALUES (gen_random_uuid(), now(), 0, 0, 0, NULL, NULL, NULL);
