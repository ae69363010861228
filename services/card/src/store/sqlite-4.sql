-- Version 4: a transaction that makes cards writes nothing but them and what stands among them. There are as many cards as the last
-- one's sequence says.

ALTER TABLE ledger DROP COLUMN cards;

-- Counts up where a transaction is only there to tell whether anything can be written: what changes nothing would not be.
ALTER TABLE ledger ADD COLUMN probes INTEGER NOT NULL DEFAULT 0;
