//! Parameters that only the operator sets, and what `ALTER SYSTEM` has written of them.

use pgpair_wire::config::PairConfig;

use super::operator_parameters;
use crate::instance::env::InstanceEnv;

/// Parameters that only the operator sets, beside those that [`super::main_conf`] writes itself.
const OWNED: &[&str] = &[
    "data_directory",
    "config_file",
    "hba_file",
    "ident_file",
    "external_pid_file",
    "include",
    "include_dir",
    "include_if_exists",
    "primary_conninfo",
    "primary_slot_name",
    "synchronous_standby_names",
    "promote_trigger_file",
    "recovery_target",
    "recovery_target_name",
    "recovery_target_time",
    "recovery_target_xid",
    "recovery_target_lsn",
    "recovery_target_inclusive",
    "recovery_target_action",
    "recovery_end_command",
    "archive_cleanup_command",
    "archive_library",
    "sync_replication_slots",
    "synchronized_standby_slots",
    "allow_alter_system",
    "ssl_passphrase_command",
    "ssl_crl_file",
    "log_destination",
];

/// Owned, and no promise rests on them: how long something is waited for, and how much is kept.
const ONLY_TUNES: &[&str] = &[
    "archive_timeout",
    "max_slot_wal_keep_size",
    "tcp_keepalives_count",
    "tcp_keepalives_idle",
    "tcp_keepalives_interval",
    "tcp_user_timeout",
    "wal_receiver_status_interval",
    "wal_retrieve_retry_interval",
];

/// Whether only the operator may set this parameter, by `ALTER SYSTEM` included.
#[must_use]
pub fn is_owned(name: &str) -> bool {
    OWNED.contains(&name)
}

/// `postgresql.auto.conf` without the parameters that the operator owns.
#[must_use]
pub fn cleaned_auto_conf(settings: &InstanceEnv, current: &str) -> String {
    let owned = operator_parameters(settings, &PairConfig::default(), 0);
    let (kept, _) = split_auto_conf(current, |name| is_owned(name) || owned.contains_key(name));
    kept
}

/// The same without those on which a promise rests, and their names: these are taken out of a running postgres too.
#[must_use]
pub fn without_broken_promises(settings: &InstanceEnv, current: &str) -> (String, Vec<String>) {
    let owned = operator_parameters(settings, &PairConfig::default(), 0);
    split_auto_conf(current, |name| {
        !ONLY_TUNES.contains(&name) && (is_owned(name) || owned.contains_key(name))
    })
}

/// The parameters that it sets.
#[must_use]
pub fn names_in_auto_conf(current: &str) -> Vec<String> {
    split_auto_conf(current, |name| !name.is_empty() && !name.starts_with('#')).1
}

fn split_auto_conf(current: &str, is_taken_out: impl Fn(&str) -> bool) -> (String, Vec<String>) {
    let (mut kept, mut names) = (String::new(), Vec::new());
    for line in current.lines() {
        let name = line.trim_start().split(['=', ' ', '\t']).next().unwrap_or_default().to_ascii_lowercase();
        if is_taken_out(&name) {
            names.push(name);
        } else {
            kept += line;
            kept.push('\n');
        }
    }
    (kept, names)
}

#[cfg(test)]
mod tests {
    use super::super::tests::settings;
    use super::*;

    #[test]
    fn alter_system_cannot_override_the_operator() {
        let auto = "# comment\nwork_mem = '8MB'\nsynchronous_standby_names = ''\nFSYNC = off\n";
        assert_eq!(cleaned_auto_conf(&settings(), auto), "# comment\nwork_mem = '8MB'\n");
    }

    #[test]
    fn what_a_promise_rests_on_is_found_in_a_running_one_and_what_only_tunes_is_left() {
        let auto =
            "work_mem = '8MB'\n FSYNC = off\narchive_command = 'true'\nmax_slot_wal_keep_size = '1MB'\n";
        let (kept, names) = without_broken_promises(&settings(), auto);
        assert_eq!(kept, "work_mem = '8MB'\nmax_slot_wal_keep_size = '1MB'\n");
        assert_eq!(names, ["fsync", "archive_command"]);
    }
}
