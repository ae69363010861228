-- Version 3: a transaction also hears which event the one before it told last, so that its instance's relay knows whether
-- anything of another instance's stands between two of them. Instances of earlier versions leave it as it is, and nobody
-- reads it but in the statement that sets it.

ALTER TABLE account.ledger ADD COLUMN previous_outbox_sequence bigint NOT NULL DEFAULT 0;
