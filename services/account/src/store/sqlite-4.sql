-- Version 4: a page of accounts that are not active is read from the index alone. Their rows lie scattered among those of all
-- others, so among ten million each was a page of the file to fetch.

DROP INDEX accounts_not_active;

CREATE INDEX accounts_not_active
ON accounts (status, sequence, id, beholder_name, country_code, version, created_at, updated_at) WHERE status <> 'ACTIVE';
