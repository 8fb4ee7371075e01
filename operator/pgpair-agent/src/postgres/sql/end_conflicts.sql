-- Ends what the startup process waits for, if it waits for queries (PostgreSQL, Handling Query Conflicts): the holders of a lock that it
-- needs, else every session that has a snapshot or is in a transaction. pg_blocking_pids() knows nothing of the startup process.
WITH replay AS MATERIALIZED (
    SELECT pid, wait_event_type = 'Lock' AS for_lock FROM pg_stat_activity
    WHERE backend_type = 'startup'
      AND (wait_event_type = 'Lock'
           OR lower(wait_event) IN ('recoveryconflictsnapshot', 'recoveryconflicttablespace', 'bufferpin', 'buffercleanup'))
), holders AS MATERIALIZED (
    SELECT held.pid FROM replay
    JOIN pg_locks wanted ON wanted.pid = replay.pid AND NOT wanted.granted
    JOIN pg_locks held ON held.granted AND held.locktype = wanted.locktype
         AND held.database IS NOT DISTINCT FROM wanted.database AND held.relation IS NOT DISTINCT FROM wanted.relation
)
SELECT count(*) FILTER (WHERE pg_terminate_backend(a.pid))
FROM replay JOIN pg_stat_activity a
  ON CASE WHEN replay.for_lock THEN a.pid IN (SELECT pid FROM holders)
          ELSE a.backend_xmin IS NOT NULL OR a.state IN ('active', 'idle in transaction', 'idle in transaction (aborted)') END
WHERE a.backend_type = 'client backend' AND a.pid <> pg_backend_pid()
