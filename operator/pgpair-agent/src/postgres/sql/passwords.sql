-- Each of these roles, its verifier, why it cannot log in whatever its password, and which verifier it was given last. $1: names.
SELECT r.rolname::text AS role, r.rolpassword AS verifier,
       CASE WHEN NOT r.rolcanlogin THEN 'the role is not permitted to log in'
            WHEN r.rolvaliduntil <= now() THEN 'the role was valid until ' || r.rolvaliduntil::text
       END AS locked,
       (SELECT split_part(c, '=', 2) FROM pg_db_role_setting s, unnest(s.setconfig) c
        WHERE s.setdatabase = 0 AND s.setrole = r.oid AND starts_with(c, 'pgpair.password=')) AS mark
FROM pg_authid r
WHERE r.rolname::text = ANY ($1)
