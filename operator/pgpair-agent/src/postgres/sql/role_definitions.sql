-- Each of these roles, whose member it is, and which definition it was given last. $1: names.
SELECT r.rolname::text AS name, r.rolcanlogin AS login, r.rolconnlimit AS connections,
       ARRAY(SELECT g.rolname::text FROM pg_auth_members m JOIN pg_authid g ON g.oid = m.roleid
             WHERE m.member = r.oid) AS member_of,
       (SELECT split_part(c, '=', 2) FROM pg_db_role_setting s, unnest(s.setconfig) c
        WHERE s.setdatabase = 0 AND s.setrole = r.oid AND starts_with(c, 'pgpair.role=')) AS mark
FROM pg_authid r
WHERE r.rolname::text = ANY ($1)
