-- Version 2: requests that the event log be told the state of every account. Instances of version 1 go on beside it, and
-- leave requests to the others.

ALTER TABLE account.relay_lease
    ADD COLUMN resync_requested bigint NOT NULL DEFAULT 0, -- how many there have been
    ADD COLUMN resync_done      bigint NOT NULL DEFAULT 0; -- how many of them have been met
