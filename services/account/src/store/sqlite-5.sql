-- Version 5: a transaction that only creates accounts writes nothing but them and their events. What was counted beside them each
-- time follows from what is there, or is counted where an account ceases or begins again to be active, which is rare.

-- There are as many accounts as the last one's sequence says, and those that are not blocked or deleted are active. The last event
-- is in the outbox, or was the last one to be removed from it.
ALTER TABLE ledger DROP COLUMN active;
ALTER TABLE ledger DROP COLUMN last_outbox_sequence;

-- Counts up where a transaction is only there to tell whether anything can be written: what changes nothing would not be.
ALTER TABLE ledger ADD COLUMN probes INTEGER NOT NULL DEFAULT 0;

ALTER TABLE active_blocks RENAME TO older_blocks;

CREATE TABLE active_blocks (
    block    INTEGER PRIMARY KEY, -- accounts with sequences from 64 * block on; the missing one with 0 counts as inactive
    inactive INTEGER NOT NULL     -- how many of them are not active; a block of which all 64 are has no row
) STRICT;

INSERT INTO active_blocks SELECT block, 64 - active FROM older_blocks;

-- The last block has room for more.
INSERT OR REPLACE INTO active_blocks
SELECT block, inactive FROM (
    SELECT last / 64 AS block,
           last % 64 + 1 - coalesce((SELECT active FROM older_blocks WHERE block = last / 64), 0) AS inactive
    FROM (SELECT max(sequence) AS last FROM accounts)
    WHERE last IS NOT NULL
)
WHERE inactive < 64;

DROP TABLE older_blocks;
