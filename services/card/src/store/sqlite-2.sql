-- Version 2: a card's id tells its sequence, and so needs no index, which is one tree less to write for each card.

-- Ids from before this version, which tell nothing.
CREATE TABLE older_ids (
    id       BLOB    PRIMARY KEY,
    sequence INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

INSERT INTO older_ids SELECT id, sequence FROM cards ORDER BY id;

DROP INDEX cards_by_account;
ALTER TABLE cards RENAME TO older_cards;

CREATE TABLE cards (
    sequence   INTEGER PRIMARY KEY, -- in the order of creation; id and card_number are keyed permutations of it
    id         BLOB    NOT NULL,
    country    TEXT    NOT NULL,
    account_id BLOB    NOT NULL,
    deleted    INTEGER NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;

INSERT INTO cards SELECT * FROM older_cards ORDER BY sequence;
DROP TABLE older_cards;

-- The rowid (sequence) stands behind the account in the index, so a page of one account's cards costs the same anywhere.
CREATE INDEX cards_by_account ON cards (account_id);
