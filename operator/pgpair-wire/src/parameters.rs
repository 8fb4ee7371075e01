//! Parameters of PostgreSQL that are not for a person to set, and why. The API server refuses them in a spec, the operator and the
//! agent after it, and the agent takes most of them out of what `ALTER SYSTEM` has written.

/// Why a parameter is not to be set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The operator sets it, or its other settings leave it without use: replication, archiving and fencing rest on it.
    Operator,
    /// Postgres would go on with data that is damaged, was never written, or lacks what its catalogs rest on.
    Durability,
    /// It keeps every session waiting, the agent's own too, or changes who a name in a session is.
    Sessions,
    /// As a setting of the server it would be everybody's; as one of a role or a database it is welcome.
    Narrower,
    /// It has no use in a container: the log goes to its standard error stream, and nothing beside postgres reads the rest.
    Container,
}

/// Parameters by name. Source: PostgreSQL, Server Configuration, of 14 to 19.
const NAMED: &[(&str, Reason)] = &[
    ("allow_alter_system", Reason::Operator),
    ("cluster_name", Reason::Operator),
    ("config_file", Reason::Operator),
    ("data_directory", Reason::Operator),
    ("external_pid_file", Reason::Operator),
    ("fsync", Reason::Operator),
    ("full_page_writes", Reason::Operator),
    ("hba_file", Reason::Operator),
    // 19: with `ssl_sni`, whose certificates postgres shows, and by which authorities it judges those of clients.
    ("hosts_file", Reason::Operator),
    ("hot_standby", Reason::Operator),
    ("hot_standby_feedback", Reason::Operator),
    ("ident_file", Reason::Operator),
    // 18: an absent standby's slot would be invalidated, as by `max_slot_wal_keep_size`.
    ("idle_replication_slot_timeout", Reason::Operator),
    ("krb_server_keyfile", Reason::Operator),
    ("listen_addresses", Reason::Operator),
    ("log_destination", Reason::Operator),
    ("logging_collector", Reason::Operator),
    ("max_replication_slots", Reason::Operator),
    ("max_slot_wal_keep_size", Reason::Operator),
    ("max_standby_archive_delay", Reason::Operator),
    ("max_standby_streaming_delay", Reason::Operator),
    ("max_wal_senders", Reason::Operator),
    ("password_encryption", Reason::Operator),
    ("port", Reason::Operator),
    ("promote_trigger_file", Reason::Operator),
    ("restart_after_crash", Reason::Operator),
    ("restore_command", Reason::Operator),
    ("superuser_reserved_connections", Reason::Operator),
    ("synchronous_commit", Reason::Operator),
    ("synchronous_standby_names", Reason::Operator),
    ("sync_replication_slots", Reason::Operator),
    ("synchronized_standby_slots", Reason::Operator),
    ("tcp_user_timeout", Reason::Operator),
    ("wal_log_hints", Reason::Operator),
    ("wal_receiver_create_temp_slot", Reason::Operator),
    ("wal_receiver_status_interval", Reason::Operator),
    ("wal_receiver_timeout", Reason::Operator),
    ("wal_retrieve_retry_interval", Reason::Operator),
    // 19: a primary that is stopped would not wait until its standby has all it wrote.
    ("wal_sender_shutdown_timeout", Reason::Operator),
    ("wal_sender_timeout", Reason::Operator),
    ("allow_in_place_tablespaces", Reason::Durability),
    ("allow_system_table_mods", Reason::Durability),
    ("data_sync_retry", Reason::Durability),
    ("zero_damaged_pages", Reason::Durability),
    ("db_user_namespace", Reason::Sessions),
    ("exit_on_error", Reason::Sessions),
    ("jit_provider", Reason::Sessions),
    ("post_auth_delay", Reason::Sessions),
    ("pre_auth_delay", Reason::Sessions),
    ("default_transaction_read_only", Reason::Narrower),
    ("transaction_timeout", Reason::Narrower),
    ("bonjour", Reason::Container),
    ("bonjour_name", Reason::Container),
    ("event_source", Reason::Container),
    ("log_directory", Reason::Container),
    ("log_file_mode", Reason::Container),
    ("log_filename", Reason::Container),
    ("log_rotation_age", Reason::Container),
    ("log_rotation_size", Reason::Container),
    ("log_truncate_on_rotation", Reason::Container),
    ("stats_temp_directory", Reason::Container),
];

/// Parameters by the beginning of their name.
const PREFIXES: &[(&str, Reason)] = &[
    ("archive_", Reason::Operator),
    ("include", Reason::Operator),
    ("primary_", Reason::Operator),
    ("recovery_", Reason::Operator),
    ("ssl", Reason::Operator),
    ("tcp_keepalives_", Reason::Operator),
    ("unix_socket_", Reason::Operator),
    ("ignore_", Reason::Durability),
    ("syslog_", Reason::Container),
];

/// The one parameter of the operator whose value a person may choose, and the values: the lower one is enough for a standby.
pub const WAL_LEVELS: &[&str] = &["replica", "logical"];

/// Why `name` is not to be set; `None`: it may be. Names do not depend on case in PostgreSQL.
#[must_use]
pub fn refusal(name: &str) -> Option<Reason> {
    let name = name.to_ascii_lowercase();
    let named = NAMED.iter().find(|(refused, _)| *refused == name);
    named.or_else(|| PREFIXES.iter().find(|(prefix, _)| name.starts_with(prefix))).map(|(_, reason)| *reason)
}

/// The names that are refused.
pub fn names() -> impl Iterator<Item = &'static str> {
    NAMED.iter().map(|(name, _)| *name)
}

/// What names that are refused begin with.
pub fn prefixes() -> impl Iterator<Item = &'static str> {
    PREFIXES.iter().map(|(prefix, _)| *prefix)
}

impl Reason {
    /// What is wrong with it, after the name of a parameter.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Reason::Operator => "belongs to the operator",
            Reason::Durability => "would let postgres go on with data that is damaged or was never written",
            Reason::Sessions => "would get in the way of the agent's own sessions",
            Reason::Narrower => {
                "would be everybody's: set it for a role or a database, with ALTER ROLE ... SET or ALTER DATABASE ... SET"
            }
            Reason::Container => "has no use in a container",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_break_the_pair_is_refused_in_any_case_and_says_why() {
        for (name, reason) in [
            ("fsync", Reason::Operator),
            ("Port", Reason::Operator),
            ("PRIMARY_CONNINFO", Reason::Operator),
            ("ssl_key_file", Reason::Operator),
            ("ssl_sni", Reason::Operator),
            ("hosts_file", Reason::Operator),
            ("wal_sender_shutdown_timeout", Reason::Operator),
            ("include_dir", Reason::Operator),
            ("recovery_target_lsn", Reason::Operator),
            ("data_sync_retry", Reason::Durability),
            ("ignore_checksum_failure", Reason::Durability),
            ("ignore_system_indexes", Reason::Durability),
            ("Pre_Auth_Delay", Reason::Sessions),
            ("transaction_timeout", Reason::Narrower),
            ("syslog_ident", Reason::Container),
        ] {
            assert_eq!(refusal(name), Some(reason), "{name}");
        }
        for name in
            ["wal_level", "work_mem", "shared_buffers", "log_min_duration_statement", "max_connections"]
        {
            assert_eq!(refusal(name), None, "{name}");
        }
    }

    #[test]
    fn no_name_stands_twice() {
        for (at, name) in names().enumerate() {
            assert!(names().skip(at + 1).all(|other| other != name), "{name} stands twice");
            assert!(prefixes().all(|prefix| !name.starts_with(prefix)), "a prefix has {name} already");
        }
    }
}
