-- Ends who streams under the standby's name ($1) without its slot, and names the roles. One that has not begun to stream has not taken
-- the slot yet.
WITH impostors AS MATERIALIZED (
    SELECT r.pid, r.usename::text AS role FROM pg_stat_replication r
    WHERE r.application_name = $1 AND r.state IN ('catchup', 'streaming')
      AND NOT EXISTS (SELECT FROM pg_replication_slots s WHERE s.slot_name::text = $1 AND s.active_pid = r.pid)
)
SELECT COALESCE(string_agg(DISTINCT role, ', ') FILTER (WHERE pg_terminate_backend(pid)), '') FROM impostors
