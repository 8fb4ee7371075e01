-- Whether the agent's role and the standby's are as they were made. $1: functions that pg_rewind calls.
SELECT EXISTS (SELECT FROM pg_authid WHERE rolname = 'pgpair_agent' AND rolsuper AND rolcanlogin)
   AND EXISTS (
       SELECT FROM pg_authid r
       WHERE r.rolname = 'pgpair_replication' AND r.rolcanlogin AND r.rolreplication AND r.rolconnlimit < 0
         AND has_schema_privilege(r.oid, 'pg_catalog', 'USAGE')
         AND NOT EXISTS (SELECT FROM pg_database d
                         WHERE d.datname = 'postgres' AND NOT has_database_privilege(r.oid, d.oid, 'CONNECT'))
         AND NOT EXISTS (SELECT FROM unnest($1::text[]) f WHERE NOT has_function_privilege(r.oid, f, 'EXECUTE')))
