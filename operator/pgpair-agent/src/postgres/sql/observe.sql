-- Everything that an agent wants to know, in one statement: functions of the other role raise errors, hence CASE.
WITH me AS MATERIALIZED (SELECT pg_is_in_recovery() AS standby)
SELECT me.standby AS in_recovery,
       current_setting('server_version_num')::int AS version_num,
       CASE WHEN me.standby
            THEN COALESCE(r.received_tli, NULLIF(rec.min_recovery_end_timeline, 0), cp.timeline_id)
            ELSE ('x' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))::bit(32)::int
       END AS timeline,
       CASE WHEN NOT me.standby THEN pg_current_wal_insert_lsn()::text END AS insert_lsn,
       CASE WHEN NOT me.standby THEN pg_current_wal_flush_lsn()::text END AS flush_lsn,
       CASE WHEN me.standby THEN pg_last_wal_receive_lsn()::text END AS receive_lsn,
       CASE WHEN me.standby THEN pg_last_wal_replay_lsn()::text END AS replay_lsn,
       r.pid AS receiver_pid, COALESCE(r.status, 'unknown') AS receiver_status,
       r.flushed_lsn::text AS receiver_flushed, r.received_tli AS receiver_timeline,
       p.pid AS peer_pid, p.state AS peer_state, p.sync_state AS peer_sync_state,
       p.write_lsn::text AS peer_write, p.flush_lsn::text AS peer_flush, p.replay_lsn::text AS peer_replay,
       a.failed_count AS archive_failed,
       a.last_archived_wal AS archive_last,
       CASE WHEN a.last_failed_time > COALESCE(a.last_archived_time, '-infinity') THEN a.last_failed_wal END
           AS archive_failing,
       current_setting('synchronous_standby_names') AS sync_names,
       cp.redo_lsn::text AS redo_lsn,
       pg_size_bytes(current_setting('wal_segment_size')) AS segment_size,
       (SELECT count(*) FROM pg_stat_replication i WHERE i.application_name = $1
           AND i.state IN ('catchup', 'streaming') AND i.pid IS DISTINCT FROM s.active_pid) AS impostors,
       s.wal_status AS slot_status, s.restart_lsn::text AS slot_restart
FROM me
CROSS JOIN pg_stat_archiver a
CROSS JOIN pg_control_checkpoint() cp
CROSS JOIN pg_control_recovery() rec
LEFT JOIN pg_stat_wal_receiver r ON true
LEFT JOIN LATERAL (SELECT * FROM pg_replication_slots WHERE slot_name::text = $1) s ON true
LEFT JOIN LATERAL (
    -- Anybody who may stream can take that name; the slot has one holder.
    SELECT * FROM pg_stat_replication WHERE application_name = $1 AND pid = s.active_pid
) p ON true
