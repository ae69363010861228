--
-- PostgreSQL database dump
--

\restrict fly1wvJATH6FNc7motnflN7dHLCDIkd5AwE7CXZnaln9jiDeJosCTQCN6Aj0JiI

-- Dumped from database version 15.18 (Debian 15.18-0+deb12u1)
-- Dumped by pg_dump version 15.18 (Debian 15.18-0+deb12u1)

SET statement_timeout = 0;
SET lock_timeout = 0;
SET idle_in_transaction_session_timeout = 0;
SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
SELECT pg_catalog.set_config('search_path', '', false);
SET check_function_bodies = false;
SET xmloption = content;
SET client_min_messages = warning;
SET row_security = off;

--
-- Name: account; Type: SCHEMA; Schema: -; Owner: -
--

CREATE SCHEMA account;


--
-- Name: card; Type: SCHEMA; Schema: -; Owner: -
--

CREATE SCHEMA card;


SET default_tablespace = '';

SET default_table_access_method = heap;

--
-- Name: account_history; Type: TABLE; Schema: account; Owner: -
--

CREATE TABLE account.account_history (
    account_sequence bigint NOT NULL,
    version bigint NOT NULL,
    changed_at bigint NOT NULL,
    type text NOT NULL,
    status text NOT NULL,
    fields text NOT NULL,
    caller text
);


--
-- Name: account_sequence; Type: SEQUENCE; Schema: account; Owner: -
--

CREATE SEQUENCE account.account_sequence
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;


--
-- Name: accounts; Type: TABLE; Schema: account; Owner: -
--

CREATE TABLE account.accounts (
    sequence bigint NOT NULL,
    id uuid NOT NULL,
    beholder_name text NOT NULL,
    country_code text NOT NULL,
    status text NOT NULL,
    version bigint NOT NULL,
    event_version bigint NOT NULL,
    created_at bigint NOT NULL,
    updated_at bigint NOT NULL,
    caller text
);


--
-- Name: idempotency_keys; Type: TABLE; Schema: account; Owner: -
--

CREATE TABLE account.idempotency_keys (
    caller text NOT NULL,
    key text NOT NULL COLLATE pg_catalog."C",
    stored_at bigint NOT NULL,
    fingerprint bytea,
    account_sequence bigint,
    account_id uuid,
    beholder_name text,
    country_code text,
    status text,
    version bigint,
    event_version bigint,
    created_at bigint,
    updated_at bigint
)
WITH (fillfactor='60');


--
-- Name: ledger; Type: TABLE; Schema: account; Owner: -
--

CREATE TABLE account.ledger (
    database_id text NOT NULL,
    number_key bytea NOT NULL,
    active bigint NOT NULL,
    blocked bigint NOT NULL,
    deleted bigint NOT NULL,
    last_outbox_sequence bigint NOT NULL,
    previous_outbox_sequence bigint NOT NULL
)
WITH (fillfactor='10');


--
-- Name: outbox; Type: TABLE; Schema: account; Owner: -
--

CREATE TABLE account.outbox (
    sequence bigint NOT NULL,
    account_id uuid NOT NULL,
    event_type text NOT NULL,
    status text NOT NULL,
    version bigint NOT NULL,
    occurred_at bigint NOT NULL,
    traceparent text NOT NULL
);


--
-- Name: publisher_sessions; Type: TABLE; Schema: account; Owner: -
--

CREATE TABLE account.publisher_sessions (
    number bigint NOT NULL,
    session text NOT NULL
);


--
-- Name: publisher_sessions_number_seq; Type: SEQUENCE; Schema: account; Owner: -
--

ALTER TABLE account.publisher_sessions ALTER COLUMN number ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME account.publisher_sessions_number_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);


--
-- Name: relay_lease; Type: TABLE; Schema: account; Owner: -
--

CREATE TABLE account.relay_lease (
    holder uuid NOT NULL,
    expires_at timestamp with time zone NOT NULL,
    removed_outbox_sequence bigint NOT NULL,
    resync_requested bigint NOT NULL,
    resync_done bigint NOT NULL,
    outbox_anchor bigint,
    superseded text,
    set_back text
)
WITH (fillfactor='10');


--
-- Name: schema_version; Type: TABLE; Schema: account; Owner: -
--

CREATE TABLE account.schema_version (
    version integer NOT NULL
);


--
-- Name: card_accounts; Type: TABLE; Schema: card; Owner: -
--

CREATE TABLE card.card_accounts (
    account_id uuid NOT NULL,
    cards bigint NOT NULL,
    closed boolean NOT NULL
);


--
-- Name: card_deletions; Type: TABLE; Schema: card; Owner: -
--

CREATE TABLE card.card_deletions (
    card_sequence bigint NOT NULL,
    deleted_at bigint NOT NULL,
    reason text NOT NULL,
    caller text
);


--
-- Name: card_sequence; Type: SEQUENCE; Schema: card; Owner: -
--

CREATE SEQUENCE card.card_sequence
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;


--
-- Name: cards; Type: TABLE; Schema: card; Owner: -
--

CREATE TABLE card.cards (
    sequence bigint NOT NULL,
    id uuid NOT NULL,
    country text NOT NULL,
    account_id uuid NOT NULL,
    deleted boolean NOT NULL,
    created_at bigint NOT NULL,
    caller text
);


--
-- Name: idempotency_keys; Type: TABLE; Schema: card; Owner: -
--

CREATE TABLE card.idempotency_keys (
    caller text NOT NULL,
    key text NOT NULL COLLATE pg_catalog."C",
    stored_at bigint NOT NULL,
    fingerprint bytea,
    card_id uuid
)
WITH (fillfactor='60');


--
-- Name: ledger; Type: TABLE; Schema: card; Owner: -
--

CREATE TABLE card.ledger (
    number_key bytea NOT NULL,
    cards bigint NOT NULL
)
WITH (fillfactor='10');


--
-- Name: quarantine; Type: TABLE; Schema: card; Owner: -
--

CREATE TABLE card.quarantine (
    partition bigint NOT NULL,
    record_offset bigint NOT NULL,
    reason text NOT NULL,
    detail text NOT NULL,
    key bytea,
    value bytea,
    headers text NOT NULL,
    seen_at bigint NOT NULL
);


--
-- Name: schema_version; Type: TABLE; Schema: card; Owner: -
--

CREATE TABLE card.schema_version (
    version integer NOT NULL
);


--
-- Data for Name: account_history; Type: TABLE DATA; Schema: account; Owner: -
--

INSERT INTO account.account_history VALUES (1, 2, 1796086663910092, 'updated', 'ACTIVE', 'beholder_name,country_code', NULL);
INSERT INTO account.account_history VALUES (2, 2, 1796086663929168, 'status_changed', 'BLOCKED', '', NULL);
INSERT INTO account.account_history VALUES (3, 2, 1796086663931094, 'deleted', 'DELETED', '', NULL);


--
-- Data for Name: accounts; Type: TABLE DATA; Schema: account; Owner: -
--

INSERT INTO account.accounts VALUES (4, '01a22f1b-8ae2-7883-b0e5-4a5b25c628a1', 'John Doe', 'US', 'ACTIVE', 1, 1, 1796086663906532, 1796086663906532, NULL);
INSERT INTO account.accounts VALUES (1, '01a22f1b-8ad4-78bc-abef-6cd647582321', 'Jane Müller', 'DE', 'ACTIVE', 2, 1, 1796086663892546, 1796086663910092, NULL);
INSERT INTO account.accounts VALUES (2, '01a22f1b-8adf-7a20-a64f-fe58ba99f531', 'John Doe', 'US', 'BLOCKED', 2, 2, 1796086663903633, 1796086663929168, NULL);
INSERT INTO account.accounts VALUES (3, '01a22f1b-8ae1-71d2-97d5-660031756ce9', 'John Doe', 'US', 'DELETED', 2, 2, 1796086663905114, 1796086663931094, NULL);


--
-- Data for Name: idempotency_keys; Type: TABLE DATA; Schema: account; Owner: -
--

INSERT INTO account.idempotency_keys VALUES ('', 'release', 1796086663906532, '\x5ceed245792adc53d34a435c9f3c303502d955f09aa76a0cc3780616c248c685', 4, '01a22f1b-8ae2-7883-b0e5-4a5b25c628a1', 'John Doe', 'US', 'ACTIVE', 1, 1, 1796086663906532, 1796086663906532);


--
-- Data for Name: ledger; Type: TABLE DATA; Schema: account; Owner: -
--

INSERT INTO account.ledger VALUES ('4bfbc1727bdb301f', '\xfb0e70d499394315a5ad36b896fbbebc', 2, 1, 1, 6, 5);


--
-- Data for Name: outbox; Type: TABLE DATA; Schema: account; Owner: -
--



--
-- Data for Name: publisher_sessions; Type: TABLE DATA; Schema: account; Owner: -
--

INSERT INTO account.publisher_sessions OVERRIDING SYSTEM VALUE VALUES (1, '13df82efb0fe4c488e6c58208a4196cd');


--
-- Data for Name: relay_lease; Type: TABLE DATA; Schema: account; Owner: -
--

INSERT INTO account.relay_lease VALUES ('4a0abfcb-bfd1-4b84-9358-5c2e8aabdde6', '2026-12-01 00:57:44.200789+00', 6, 0, 0, NULL, NULL, NULL);


--
-- Data for Name: schema_version; Type: TABLE DATA; Schema: account; Owner: -
--

INSERT INTO account.schema_version VALUES (1);


--
-- Data for Name: card_accounts; Type: TABLE DATA; Schema: card; Owner: -
--

INSERT INTO card.card_accounts VALUES ('01a22f1b-8ad4-78bc-abef-6cd647582321', 2, false);
INSERT INTO card.card_accounts VALUES ('01a22f1b-8adf-7a20-a64f-fe58ba99f531', 1, false);
INSERT INTO card.card_accounts VALUES ('01a22f1b-8ae1-71d2-97d5-660031756ce9', 1, true);


--
-- Data for Name: card_deletions; Type: TABLE DATA; Schema: card; Owner: -
--

INSERT INTO card.card_deletions VALUES (2, 1796086663927787, 'requested', NULL);
INSERT INTO card.card_deletions VALUES (4, 1796086663932514, 'account_deleted', NULL);


--
-- Data for Name: cards; Type: TABLE DATA; Schema: card; Owner: -
--

INSERT INTO card.cards VALUES (1, '01a22f1b-8ae7-7dce-9b74-d8e1970f6330', 'US', '01a22f1b-8ad4-78bc-abef-6cd647582321', false, 1796086663911863, NULL);
INSERT INTO card.cards VALUES (3, '01a22f1b-8af5-7191-8bf4-958d97049486', 'US', '01a22f1b-8adf-7a20-a64f-fe58ba99f531', false, 1796086663925098, NULL);
INSERT INTO card.cards VALUES (2, '01a22f1b-8af3-774f-a15d-dc347d02fb40', 'US', '01a22f1b-8ad4-78bc-abef-6cd647582321', true, 1796086663923457, NULL);
INSERT INTO card.cards VALUES (4, '01a22f1b-8af6-7aac-90e6-5197d0cbec39', 'US', '01a22f1b-8ae1-71d2-97d5-660031756ce9', true, 1796086663926667, NULL);


--
-- Data for Name: idempotency_keys; Type: TABLE DATA; Schema: card; Owner: -
--



--
-- Data for Name: ledger; Type: TABLE DATA; Schema: card; Owner: -
--

INSERT INTO card.ledger VALUES ('\x7fd4a01756ae4fb993e9749c7027cee0', 4);


--
-- Data for Name: quarantine; Type: TABLE DATA; Schema: card; Owner: -
--



--
-- Data for Name: schema_version; Type: TABLE DATA; Schema: card; Owner: -
--

INSERT INTO card.schema_version VALUES (1);


--
-- Name: account_sequence; Type: SEQUENCE SET; Schema: account; Owner: -
--

SELECT pg_catalog.setval('account.account_sequence', 4, true);


--
-- Name: publisher_sessions_number_seq; Type: SEQUENCE SET; Schema: account; Owner: -
--

SELECT pg_catalog.setval('account.publisher_sessions_number_seq', 1, true);


--
-- Name: card_sequence; Type: SEQUENCE SET; Schema: card; Owner: -
--

SELECT pg_catalog.setval('card.card_sequence', 4, true);


--
-- Name: account_history account_history_pkey; Type: CONSTRAINT; Schema: account; Owner: -
--

ALTER TABLE ONLY account.account_history
    ADD CONSTRAINT account_history_pkey PRIMARY KEY (account_sequence, version);


--
-- Name: accounts accounts_id_key; Type: CONSTRAINT; Schema: account; Owner: -
--

ALTER TABLE ONLY account.accounts
    ADD CONSTRAINT accounts_id_key UNIQUE (id);


--
-- Name: accounts accounts_pkey; Type: CONSTRAINT; Schema: account; Owner: -
--

ALTER TABLE ONLY account.accounts
    ADD CONSTRAINT accounts_pkey PRIMARY KEY (sequence);


--
-- Name: idempotency_keys idempotency_keys_pkey; Type: CONSTRAINT; Schema: account; Owner: -
--

ALTER TABLE ONLY account.idempotency_keys
    ADD CONSTRAINT idempotency_keys_pkey PRIMARY KEY (caller, key);


--
-- Name: outbox outbox_pkey; Type: CONSTRAINT; Schema: account; Owner: -
--

ALTER TABLE ONLY account.outbox
    ADD CONSTRAINT outbox_pkey PRIMARY KEY (sequence);


--
-- Name: publisher_sessions publisher_sessions_pkey; Type: CONSTRAINT; Schema: account; Owner: -
--

ALTER TABLE ONLY account.publisher_sessions
    ADD CONSTRAINT publisher_sessions_pkey PRIMARY KEY (number);


--
-- Name: publisher_sessions publisher_sessions_session_key; Type: CONSTRAINT; Schema: account; Owner: -
--

ALTER TABLE ONLY account.publisher_sessions
    ADD CONSTRAINT publisher_sessions_session_key UNIQUE (session);


--
-- Name: card_accounts card_accounts_pkey; Type: CONSTRAINT; Schema: card; Owner: -
--

ALTER TABLE ONLY card.card_accounts
    ADD CONSTRAINT card_accounts_pkey PRIMARY KEY (account_id);


--
-- Name: card_deletions card_deletions_pkey; Type: CONSTRAINT; Schema: card; Owner: -
--

ALTER TABLE ONLY card.card_deletions
    ADD CONSTRAINT card_deletions_pkey PRIMARY KEY (card_sequence);


--
-- Name: cards cards_id_key; Type: CONSTRAINT; Schema: card; Owner: -
--

ALTER TABLE ONLY card.cards
    ADD CONSTRAINT cards_id_key UNIQUE (id);


--
-- Name: cards cards_pkey; Type: CONSTRAINT; Schema: card; Owner: -
--

ALTER TABLE ONLY card.cards
    ADD CONSTRAINT cards_pkey PRIMARY KEY (sequence);


--
-- Name: idempotency_keys idempotency_keys_pkey; Type: CONSTRAINT; Schema: card; Owner: -
--

ALTER TABLE ONLY card.idempotency_keys
    ADD CONSTRAINT idempotency_keys_pkey PRIMARY KEY (caller, key);


--
-- Name: quarantine quarantine_pkey; Type: CONSTRAINT; Schema: card; Owner: -
--

ALTER TABLE ONLY card.quarantine
    ADD CONSTRAINT quarantine_pkey PRIMARY KEY (partition, record_offset);


--
-- Name: accounts_by_status; Type: INDEX; Schema: account; Owner: -
--

CREATE INDEX accounts_by_status ON account.accounts USING btree (status, sequence);


--
-- Name: idempotency_keys_by_time; Type: INDEX; Schema: account; Owner: -
--

CREATE INDEX idempotency_keys_by_time ON account.idempotency_keys USING btree (stored_at);


--
-- Name: cards_by_account; Type: INDEX; Schema: card; Owner: -
--

CREATE INDEX cards_by_account ON card.cards USING btree (account_id, sequence);


--
-- Name: idempotency_keys_by_time; Type: INDEX; Schema: card; Owner: -
--

CREATE INDEX idempotency_keys_by_time ON card.idempotency_keys USING btree (stored_at);


--
-- PostgreSQL database dump complete
--

\unrestrict fly1wvJATH6FNc7motnflN7dHLCDIkd5AwE7CXZnaln9jiDeJosCTQCN6Aj0JiI

