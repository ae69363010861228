-- Version 3: less to write beside an account's row. Its id tells its sequence, and so needs no index; while it is active it is
-- counted, which is a row for 64 accounts; and the events of a transaction are one row of the outbox.

-- Ids from before this version, which tell nothing.
CREATE TABLE older_ids (
    id       BLOB    PRIMARY KEY,
    sequence INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

INSERT INTO older_ids SELECT id, sequence FROM accounts ORDER BY id;

DROP INDEX accounts_by_status;
ALTER TABLE accounts RENAME TO older_accounts;

CREATE TABLE accounts (
    sequence      INTEGER PRIMARY KEY, -- in the order of creation; id and account_number are keyed permutations of it
    id            BLOB    NOT NULL,
    beholder_name TEXT    NOT NULL,
    country_code  TEXT    NOT NULL,
    status        TEXT    NOT NULL,
    version       INTEGER NOT NULL,
    created_at    INTEGER NOT NULL,
    updated_at    INTEGER NOT NULL
) STRICT;

INSERT INTO accounts SELECT * FROM older_accounts ORDER BY sequence;
DROP TABLE older_accounts;

-- A page of one status costs the same wherever it is. Of accounts that are not active, by this index, in which the rowid
-- (sequence) stands behind the status; of active ones, by the blocks that have any.
CREATE INDEX accounts_not_active ON accounts (status) WHERE status <> 'ACTIVE';

CREATE TABLE active_blocks (
    block  INTEGER PRIMARY KEY, -- accounts with sequences from 64 * block on
    active INTEGER NOT NULL     -- how many of them are active; a block that has none has no row
) STRICT;

INSERT INTO active_blocks
SELECT sequence / 64, count(*) FROM accounts WHERE status = 'ACTIVE' GROUP BY sequence / 64;

ALTER TABLE outbox RENAME TO outbox_by_event;

CREATE TABLE outbox (
    last_sequence INTEGER PRIMARY KEY, -- of the last event in it; those before it have the numbers before
    event_count   INTEGER NOT NULL,
    occurred_at   INTEGER NOT NULL,
    events        BLOB    NOT NULL -- 46 bytes each, the numbers in big endian: account id (16), version (4; with 1 it was created),
                                   -- status (1; active, blocked, deleted), and of its trace: id (16), parent (8), flags (1)
) STRICT;

INSERT INTO outbox
SELECT sequence, 1, occurred_at, unhex(
    hex(account_id) || printf('%08x', version)
    || CASE status WHEN 'ACTIVE' THEN '00' WHEN 'BLOCKED' THEN '01' WHEN 'DELETED' THEN '02' END
    || replace(substr(traceparent, 4), '-', ''))
FROM outbox_by_event;

DROP TABLE outbox_by_event;
