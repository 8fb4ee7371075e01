-- Names of the wait events as PostgreSQL 14 to 18 write them, in lower case.
SELECT CASE WHEN NOT pg_is_in_recovery() THEN pg_current_wal_flush_lsn()::text END,
       CASE WHEN NOT pg_is_in_recovery() AND EXISTS (
           SELECT FROM pg_stat_activity
           WHERE wait_event_type IN ('IO', 'LWLock')
             AND lower(wait_event) IN ('walsync', 'walwrite', 'walinitsync', 'walinitwrite', 'waldatasync'))
       THEN pg_current_wal_insert_lsn()::text END
