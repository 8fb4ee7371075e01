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

/// `postgresql.auto.conf` without the parameters that the operator owns. Bytes, because a value is in the encoding of the database in
/// which somebody set it.
#[must_use]
pub fn cleaned_auto_conf(settings: &InstanceEnv, current: &[u8]) -> Vec<u8> {
    let owned = operator_parameters(settings, &PairConfig::default(), 0);
    let (kept, _) = split_auto_conf(current, |name| {
        refusal(name, &owned).is_some_and(|reason| reason != Reason::Narrower)
    });
    kept
}

/// The same without those on which a promise rests, and their names: these are taken out of a running postgres too.
#[must_use]
pub fn without_broken_promises(settings: &InstanceEnv, current: &[u8]) -> (Vec<u8>, Vec<String>) {
    let owned = operator_parameters(settings, &PairConfig::default(), 0);
    split_auto_conf(current, |name| {
        let reason = refusal(name, &owned);
        let breaks = reason.is_some_and(|reason| !matches!(reason, Reason::Container | Reason::Narrower));
        breaks && !ONLY_TUNES.contains(&name)
    })
}

/// The parameters that it sets.
#[must_use]
pub fn names_in_auto_conf(current: &[u8]) -> Vec<String> {
    split_auto_conf(current, |name| !name.is_empty()).1
}

fn split_auto_conf(current: &[u8], is_taken_out: impl Fn(&str) -> bool) -> (Vec<u8>, Vec<String>) {
    let (mut kept, mut names) = (Vec::new(), Vec::new());
    for line in current.split_inclusive(|byte| *byte == b'\n') {
        let name = name_in_line(line);
        if is_taken_out(&name) {
            names.push(name);
        } else {
            kept.extend_from_slice(line);
        }
    }
    (kept, names)
}

/// The parameter that a line sets, in small letters, as PostgreSQL reads it (`guc-file.l`): neither a blank nor an equals sign has to
/// follow it. Empty for a comment, and for what is no name.
fn name_in_line(line: &[u8]) -> String {
    let is_blank = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\r');
    let is_of_name = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | 0x80..);
    let name: Vec<u8> =
        line.iter().skip_while(|b| is_blank(b)).take_while(|b| is_of_name(b)).copied().collect();
    String::from_utf8_lossy(&name).to_ascii_lowercase()
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
        assert_eq!(cleaned_auto_conf(&settings(), auto.as_bytes()), kept.as_bytes());
    }

    #[test]
    fn a_parameter_is_found_wherever_postgres_finds_its_name() {
        for line in [
            "fsync'off'\n",
            "fsync\r= off\n",
            "\r\t fsync=off\n",
            "FSYNC\toff",
            "fsync#off\n",
            "fsync$= off\n",
            "fsync='off' # \u{e9}\n",
        ] {
            assert_eq!(cleaned_auto_conf(&settings(), line.as_bytes()), b"", "{line:?}");
            assert_eq!(names_in_auto_conf(line.as_bytes()), ["fsync"], "{line:?}");
        }
        for line in ["fsyncs = 1\n", "my.fsync = 1\n", "# fsync = off\n", "\n", "'fsync' = off\n"] {
            assert_eq!(cleaned_auto_conf(&settings(), line.as_bytes()), line.as_bytes(), "{line:?}");
        }
    }

    #[test]
    fn a_value_in_another_encoding_hides_nothing() {
        let auto = b"work_mem = '8MB'\nsearch_path = '\xe9t\xe9'\nfsync = off\n";
        let kept = b"work_mem = '8MB'\nsearch_path = '\xe9t\xe9'\n";
        assert_eq!(cleaned_auto_conf(&settings(), auto), kept);
        assert_eq!(without_broken_promises(&settings(), auto), (kept.to_vec(), vec!["fsync".to_owned()]));
        assert_eq!(names_in_auto_conf(auto), ["work_mem", "search_path", "fsync"]);
    }

    #[test]
    fn what_a_promise_rests_on_is_found_in_a_running_one_and_what_only_tunes_is_left() {
        let auto = "work_mem = '8MB'\n FSYNC = off\narchive_command = 'true'\nmax_slot_wal_keep_size = '1MB'\nignore_checksum_failure = on\nlog_filename = 'x'\n";
        let (kept, names) = without_broken_promises(&settings(), auto.as_bytes());
        assert_eq!(kept, b"work_mem = '8MB'\nmax_slot_wal_keep_size = '1MB'\nlog_filename = 'x'\n");
        assert_eq!(names, ["fsync", "archive_command", "ignore_checksum_failure"]);
    }
}
