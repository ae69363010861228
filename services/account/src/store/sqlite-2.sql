-- Version 2: requests that the event log be told the state of every account.

ALTER TABLE ledger ADD COLUMN resync_requested INTEGER NOT NULL DEFAULT 0; -- how many there have been
ALTER TABLE ledger ADD COLUMN resync_done      INTEGER NOT NULL DEFAULT 0; -- how many of them have been met
