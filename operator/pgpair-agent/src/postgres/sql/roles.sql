-- Whether the agent's role and the standby's are as they were made, and the first superuser has a search path of its own. $1: functions
-- that pg_rewind calls.
SELECT EXISTS (SELECT FROM pg_authid WHERE rolname = 'pgpair_agent' AND rolsuper AND rolcanlogin)
   AND EXISTS (
       SELECT FROM pg_authid r
       WHERE r.rolname = 'pgpair_replication' AND r.rolcanlogin AND r.rolreplication AND r.rolconnlimit < 0
         AND has_schema_privilege(r.oid, 'pg_catalog', 'USAGE')
         AND NOT EXISTS (SELECT FROM pg_database d
                         WHERE d.datname = 'postgres' AND NOT has_database_privilege(r.oid, d.oid, 'CONNECT'))
         AND NOT EXISTS (SELECT FROM unnest($1::text[]) f WHERE NOT has_function_privilege(r.oid, f, 'EXECUTE')))
   -- 10: the oid of the role that initdb makes, whatever its name is.
   AND EXISTS (SELECT FROM pg_db_role_setting s, unnest(s.setconfig) c
               WHERE s.setrole = 10 AND s.setdatabase = 0 AND c LIKE 'search_path=%')
