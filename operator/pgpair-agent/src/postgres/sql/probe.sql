BEGIN;
SET LOCAL synchronous_commit = local;
CREATE SCHEMA IF NOT EXISTS pgpair;
CREATE TABLE IF NOT EXISTS pgpair.probe (id int PRIMARY KEY, at timestamptz NOT NULL);
INSERT INTO pgpair.probe VALUES (1, clock_timestamp()) ON CONFLICT (id) DO UPDATE SET at = excluded.at;
COMMIT
