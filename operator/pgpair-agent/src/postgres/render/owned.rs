//! Parameters that only the operator sets, and what `ALTER SYSTEM` has written of them.

use std::collections::BTreeMap;

use pgpair_wire::config::PairConfig;
use pgpair_wire::parameters::{self, Reason};

use super::operator_parameters;
use crate::instance::env::InstanceEnv;

/// Refused, and no promise rests on them: how long something is waited for, how much is kept, and what has no use.
const ONLY_TUNES: &[&str] = &[
    "archive_timeout",
    "idle_replication_slot_timeout",
    "max_slot_wal_keep_size",
    "tcp_keepalives_count",
    "tcp_keepalives_idle",
    "tcp_keepalives_interval",
    "tcp_user_timeout",
    "wal_receiver_status_interval",
    "wal_retrieve_retry_interval",
];

/// Why nobody but the operator may set this parameter; `owned`: those that it writes.
pub(super) fn refusal(name: &str, owned: &BTreeMap<String, String>) -> Option<Reason> {
    parameters::refusal(name).or_else(|| owned.contains_key(name).then_some(Reason::Operator))
}

/// `postgresql.auto.conf` without the parameters that the operator owns.
#[must_use]
pub fn cleaned_auto_conf(settings: &InstanceEnv, current: &str) -> String {
    let owned = operator_parameters(settings, &PairConfig::default(), 0);
    let (kept, _) = split_auto_conf(current, |name| {
        refusal(name, &owned).is_some_and(|reason| reason != Reason::Narrower)
    });
    kept
}

/// The same without those on which a promise rests, and their names: these are taken out of a running postgres too.
#[must_use]
pub fn without_broken_promises(settings: &InstanceEnv, current: &str) -> (String, Vec<String>) {
    let owned = operator_parameters(settings, &PairConfig::default(), 0);
    split_auto_conf(current, |name| {
        let reason = refusal(name, &owned);
        let breaks = reason.is_some_and(|reason| !matches!(reason, Reason::Container | Reason::Narrower));
        breaks && !ONLY_TUNES.contains(&name)
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
        let auto = "# comment\nwork_mem = '8MB'\nsynchronous_standby_names = ''\nFSYNC = off\nssl_ciphers = 'NULL'\nlog_filename = 'x'\n\
                    transaction_timeout = '1h'\n";
        let kept = "# comment\nwork_mem = '8MB'\ntransaction_timeout = '1h'\n";
        assert_eq!(cleaned_auto_conf(&settings(), auto), kept);
    }

    #[test]
    fn what_a_promise_rests_on_is_found_in_a_running_one_and_what_only_tunes_is_left() {
        let auto = "work_mem = '8MB'\n FSYNC = off\narchive_command = 'true'\nmax_slot_wal_keep_size = '1MB'\nignore_checksum_failure = on\nlog_filename = 'x'\n";
        let (kept, names) = without_broken_promises(&settings(), auto);
        assert_eq!(kept, "work_mem = '8MB'\nmax_slot_wal_keep_size = '1MB'\nlog_filename = 'x'\n");
        assert_eq!(names, ["fsync", "archive_command", "ignore_checksum_failure"]);
    }
}
