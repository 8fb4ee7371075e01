-- Each of these databases, its owner, and which definition it was given last. $1: names.
SELECT d.datname::text AS name, o.rolname::text AS owner,
       (SELECT split_part(c, '=', 2) FROM pg_db_role_setting s, unnest(s.setconfig) c
        WHERE s.setdatabase = d.oid AND s.setrole = 0 AND starts_with(c, 'pgpair.database=')) AS mark
FROM pg_database d JOIN pg_authid o ON o.oid = d.datdba
WHERE d.datname::text = ANY ($1)
