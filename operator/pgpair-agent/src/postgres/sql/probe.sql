-- A record of ours and its commit: no table that could be missing, locked or altered, and no DDL that a trigger could refuse.
BEGIN;
SELECT pg_logical_emit_message(true, 'pgpair', 'probe');
COMMIT
