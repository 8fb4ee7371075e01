//! PostgreSQL settings that belong to the operator: a user who set them could stop replication, archiving or fencing.

/// Settings that are refused by name in `spec.postgres.parameters`.
pub const OWNED: &[&str] = &[
    "allow_alter_system",
    "cluster_name",
    "config_file",
    "data_directory",
    "event_source",
    "external_pid_file",
    "fsync",
    "full_page_writes",
    "hba_file",
    "hot_standby",
    "hot_standby_feedback",
    "ident_file",
    "krb_server_keyfile",
    "listen_addresses",
    "log_destination",
    "logging_collector",
    "max_replication_slots",
    "max_slot_wal_keep_size",
    "max_standby_archive_delay",
    "max_standby_streaming_delay",
    "max_wal_senders",
    "password_encryption",
    "port",
    "promote_trigger_file",
    "restart_after_crash",
    "restore_command",
    "superuser_reserved_connections",
    "synchronous_commit",
    "synchronous_standby_names",
    "sync_replication_slots",
    "synchronized_standby_slots",
    "tcp_user_timeout",
    "wal_log_hints",
    "wal_receiver_status_interval",
    "wal_receiver_timeout",
    "wal_retrieve_retry_interval",
    "wal_sender_timeout",
    "zero_damaged_pages",
];

/// Settings whose name begins like this are refused too.
pub const OWNED_PREFIXES: &[&str] =
    &["archive_", "include", "primary_", "recovery_", "ssl", "tcp_keepalives_", "unix_socket_"];

/// Whether the operator alone sets `name`. Names of settings do not depend on case in PostgreSQL.
#[must_use]
pub fn is_owned(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    OWNED.contains(&name.as_str()) || OWNED_PREFIXES.iter().any(|p| name.starts_with(p))
}

/// The one setting of the operator whose value a user may choose, and the values: the lower one is enough for a standby.
pub const WAL_LEVELS: &[&str] = &["replica", "logical"];

/// Whether `name` has the form of a setting, in lower case, with at most one dot for an extension's setting.
#[must_use]
pub fn is_well_formed(name: &str) -> bool {
    let part = |p: &str| {
        p.bytes().next().is_some_and(|b| b.is_ascii_lowercase() || b == b'_')
            && p.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
    };
    name.len() <= 63 && name.split('.').count() <= 2 && name.split('.').all(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_would_break_the_pair_are_owned_in_any_case() {
        for name in [
            "fsync",
            "Port",
            "archive_command",
            "PRIMARY_CONNINFO",
            "ssl_key_file",
            "include_dir",
            "recovery_target_lsn",
        ] {
            assert!(is_owned(name), "{name}");
        }
        for name in
            ["wal_level", "work_mem", "shared_buffers", "log_min_duration_statement", "max_connections"]
        {
            assert!(!is_owned(name), "{name}");
        }
    }

    #[test]
    fn only_names_that_postgres_could_have_are_well_formed() {
        for name in ["work_mem", "pg_stat_statements.max"] {
            assert!(is_well_formed(name), "{name}");
        }
        for name in ["", "a b", "a'b", "a.b.c", "Work_mem", "1a", "a\nport"] {
            assert!(!is_well_formed(name), "{name:?}");
        }
    }
}
