-- Version 3: what is known of an account stands among its cards, so that a card writes to one place of one tree, where it wrote to
-- two. Among ten million accounts each was a page of the file to fetch.

DROP INDEX cards_by_account;

-- The cards of an account, one row each behind that of the account itself. A page of them costs the same anywhere.
CREATE TABLE cards_by_account (
    account_id BLOB    NOT NULL,
    sequence   INTEGER NOT NULL, -- of the card; 0 is the account's own row
    cards      INTEGER,          -- of the account: all it ever had, so that a total needs no scan
    closed     INTEGER,          -- of the account: a closed one gets no more cards (ARCHITECTURE.md C4)
    PRIMARY KEY (account_id, sequence)
) STRICT, WITHOUT ROWID;

INSERT INTO cards_by_account
SELECT account_id, 0, cards, closed FROM card_accounts
UNION ALL
SELECT account_id, sequence, NULL, NULL FROM cards
ORDER BY account_id, 2;

DROP TABLE card_accounts;
