//! Text of `postgresql.conf` and `primary_conninfo`; [`hba`] has that of `pg_hba.conf`, [`owned`] the parameters of the operator,
//! [`decoding`] what logical replication needs. Pure.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::Path;

use pgpair_core::ids::InstanceId;
use pgpair_wire::config::{PairConfig, StandbyProfile};
use pgpair_wire::names::REPLICATION_ROLE;
use pgpair_wire::parameters::Reason;

use crate::instance::env::InstanceEnv;
use crate::postgres::trust::ServerTrust;

pub mod decoding;
pub mod hba;
mod owned;

use decoding::{SlotCopies, WAL_LEVEL, WalLevel};
pub use owned::{cleaned_auto_conf, names_in_auto_conf, without_broken_promises};

/// A database that does not exist: who logs in there only proves a password.
pub const PROOF_DATABASE: &str = "pgpair_proof";
/// The database in which a standby asks its primary for slots: `pg_hba.conf` lets the role into this one.
const DATABASE: &str = "postgres";
/// File in PGDATA with `synchronous_standby_names` and what goes with it; it changes while postgres runs.
pub const SYNC_CONF: &str = "pgpair.sync.conf";
/// File in PGDATA with `primary_conninfo` and `primary_slot_name`; it changes while postgres runs.
pub const UPSTREAM_CONF: &str = "pgpair.upstream.conf";

/// A configuration that must not be written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RenderError {
    /// The value would end the line.
    #[error("parameter {0}: the value holds a line break or NUL, which postgresql.conf cannot express")]
    LineBreak(String),
    /// Not the name of a parameter.
    #[error("{0:?} is not the name of a parameter")]
    Name(String),
    /// It is not for a person to set.
    #[error("parameter {name} {}: remove it from spec.postgres.parameters", reason.words())]
    Refused {
        /// The parameter.
        name: String,
        /// Why.
        reason: Reason,
    },
    /// The one parameter of the operator whose value a user may choose.
    #[error(
        "parameter wal_level is {0:?}: it can be replica, or logical for logical replication; write one of the two, or remove it"
    )]
    WalLevel(String),
    /// A line of `pg_hba.conf` that would keep postgres from starting.
    #[error("pg_hba line {line:?}: {reason}")]
    HbaLine {
        /// The line.
        line: String,
        /// What is wrong with it.
        reason: &'static str,
    },
}

/// One line of `postgresql.conf`.
///
/// # Errors
/// The name is none, or the value cannot be written.
pub fn setting(name: &str, value: &str) -> Result<String, RenderError> {
    let word = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'$');
    let starts = name.bytes().next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
    if !starts || !name.bytes().all(word) {
        return Err(RenderError::Name(name.to_owned()));
    }
    if value.contains(['\n', '\r', '\0']) {
        return Err(RenderError::LineBreak(name.to_owned()));
    }
    Ok(format!("{name} = '{}'\n", value.replace('\\', "\\\\").replace('\'', "''")))
}

/// What a directory must be started with at least. A standby: its primary's values, as the control file tells them, or it does not
/// start or stops replay (PostgreSQL, Hot Standby, Administrator's Overview). 0: no lower limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Floors {
    /// `max_connections`.
    pub connections: u32,
    /// `max_worker_processes`.
    pub worker_processes: u32,
    /// `max_wal_senders`.
    pub wal_senders: u32,
    /// `max_prepared_transactions`.
    pub prepared_transactions: u32,
    /// `max_locks_per_transaction`.
    pub locks_per_transaction: u32,
    /// Major version of the directory: what postgres takes when nobody sets a parameter depends on it. `None`: not known.
    pub major: Option<u32>,
    /// Logical replication slots lie in the directory: postgres does not start with a `wal_level` below `logical`.
    pub has_logical_slots: bool,
}

impl Floors {
    /// With the value that postgres takes when nobody sets the parameter.
    #[must_use]
    pub fn named(self) -> [(&'static str, u32, u32); 5] {
        let default_locks = if self.major.is_some_and(|major| major >= 19) { 128 } else { 64 };
        [
            ("max_connections", self.connections, 100),
            ("max_worker_processes", self.worker_processes, 8),
            ("max_wal_senders", self.wal_senders, 10),
            ("max_prepared_transactions", self.prepared_transactions, 0),
            ("max_locks_per_transaction", self.locks_per_transaction, default_locks),
        ]
    }

    /// Raises what is below, and names it. A value that is no number is left: postgres will say so.
    fn raise(self, all: &mut BTreeMap<String, String>) -> Vec<String> {
        let mut raised = Vec::new();
        let is_low = all.get(WAL_LEVEL).is_some_and(|level| level == WalLevel::Replica.as_str());
        if self.has_logical_slots && is_low {
            all.insert(WAL_LEVEL.to_owned(), WalLevel::Logical.as_str().to_owned());
            raised.push(WAL_LEVEL.to_owned());
        }
        for (name, floor, default) in self.named() {
            let configured = all.get(name).map_or(Some(default), |v| v.trim().parse().ok());
            if configured.is_some_and(|c| c < floor) {
                all.insert(name.to_owned(), floor.to_string());
                raised.push(name.to_owned());
            }
        }
        raised
    }
}

/// `postgresql.conf`: the user's parameters, then the operator's. The part that changes at runtime is in included files.
/// `floors`: what the directory demands.
///
/// # Errors
/// A parameter of the user is owned by the operator or cannot be written.
pub fn main_conf(
    settings: &InstanceEnv,
    config: &PairConfig,
    floors: Floors,
    slot_keep_mib: u64,
) -> Result<String, RenderError> {
    let mut all = parameters(settings, config, slot_keep_mib)?;
    floors.raise(&mut all);
    let mut out = String::from(
        "# Written by pgpair at every start and change: edits are lost. Use spec.postgres.parameters.\n",
    );
    for (name, value) in &all {
        out.push_str(&setting(name, value)?);
    }
    for file in [SYNC_CONF, UPSTREAM_CONF] {
        let _ = writeln!(out, "include_if_exists = '{file}'");
    }
    Ok(out)
}

/// Parameters for which `floors` demands more than is configured. None of a configuration that cannot be written.
#[must_use]
pub fn raised(settings: &InstanceEnv, config: &PairConfig, floors: Floors) -> Vec<String> {
    parameters(settings, config, 1).map(|mut all| floors.raise(&mut all)).unwrap_or_default()
}

fn parameters(
    settings: &InstanceEnv,
    config: &PairConfig,
    slot_keep_mib: u64,
) -> Result<BTreeMap<String, String>, RenderError> {
    let owned = operator_parameters(settings, config, slot_keep_mib);
    let mut all: BTreeMap<String, String> = defaults();
    for (name, value) in &config.parameters {
        let name = name.to_ascii_lowercase();
        if name == WAL_LEVEL {
            // Among the operator's already, with this value.
            WalLevel::parse(value)?;
            continue;
        }
        if let Some(reason) = owned::refusal(&name, &owned) {
            return Err(RenderError::Refused { name, reason });
        }
        all.insert(name, value.clone());
    }
    all.extend(owned);
    Ok(all)
}

/// What postgres would not choose, and a user may.
fn defaults() -> BTreeMap<String, String> {
    [
        ("shared_buffers", "128MB"),
        ("wal_compression", "on"),
        ("wal_keep_size", "256MB"),
        ("log_line_prefix", "%m [%p] %q%u@%d "),
        ("log_checkpoints", "on"),
        ("max_connections", "100"),
    ]
    .map(|(n, v)| (n.to_owned(), v.to_owned()))
    .into()
}

fn operator_parameters(s: &InstanceEnv, config: &PairConfig, slot_keep_mib: u64) -> BTreeMap<String, String> {
    let fixed = [
        ("unix_socket_permissions", "0700"),
        ("hot_standby", "on"),
        ("max_wal_senders", "10"),
        ("max_replication_slots", "10"),
        ("archive_mode", "always"),
        ("wal_log_hints", "on"),
        ("full_page_writes", "on"),
        ("fsync", "on"),
        ("restart_after_crash", "off"),
        ("recovery_target_timeline", "latest"),
        ("synchronous_commit", "on"),
        ("wal_retrieve_retry_interval", "200ms"),
        ("wal_receiver_timeout", "5s"),
        ("wal_sender_timeout", "5s"),
        ("wal_receiver_status_interval", "1s"),
        ("superuser_reserved_connections", "5"),
        ("ssl", "on"),
        ("password_encryption", "scram-sha-256"),
        ("logging_collector", "off"),
        ("tcp_keepalives_idle", "5"),
        ("tcp_keepalives_interval", "2"),
        ("tcp_keepalives_count", "3"),
        ("tcp_user_timeout", "10s"),
    ];
    let conflict_delay = match config.standby_profile {
        StandbyProfile::Failover => "5s",
        StandbyProfile::Reporting => "1h",
    };
    let feedback = match config.standby_profile {
        StandbyProfile::Failover => "on",
        // A long report must not make the primary bloat: replay waits instead.
        StandbyProfile::Reporting => "off",
    };
    let program = shell_quoted(&s.program);
    let tls = s.layout.run_tls();
    let computed = [
        (WAL_LEVEL, WalLevel::configured(config).as_str().to_owned()),
        ("listen_addresses", s.listen.to_string()),
        ("port", s.pg_port.to_string()),
        ("unix_socket_directories", quoted_path(&s.layout.socket_dir())),
        ("archive_command", format!("{program} wal-archive \"%p\" \"%f\"")),
        ("restore_command", format!("{program} wal-restore \"%f\" \"%p\"")),
        ("archive_timeout", format!("{}s", config.archive_timeout_s)),
        ("max_standby_streaming_delay", conflict_delay.to_owned()),
        ("max_standby_archive_delay", conflict_delay.to_owned()),
        ("hot_standby_feedback", feedback.to_owned()),
        ("ssl_ca_file", text(&tls.join("ca.crt"))),
        ("ssl_cert_file", text(&tls.join("server.crt"))),
        ("ssl_key_file", text(&tls.join("server.key"))),
        ("max_slot_wal_keep_size", format!("{slot_keep_mib}MB")),
    ];
    let fixed = fixed.into_iter().map(|(n, v)| (n.to_owned(), v.to_owned()));
    fixed.chain(computed.map(|(n, v)| (n.to_owned(), v))).collect()
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// A path in double quotes for `/bin/sh` and for postgres, which replaces `%` in commands.
fn shell_quoted(path: &Path) -> String {
    let mut out = String::from("\"");
    for c in text(path).chars() {
        match c {
            '"' | '\\' | '$' | '`' => out.extend(['\\', c]),
            '%' => out.push_str("%%"),
            _ => out.push(c),
        }
    }
    out.push('"');
    out
}

/// An element of a list of paths.
fn quoted_path(path: &Path) -> String {
    format!("\"{}\"", text(path).replace('"', "\"\""))
}

/// The line for the certificates of clients that a server refuses; without lists there is none, because postgres refuses to start with a
/// file that is missing.
///
/// # Errors
/// The path holds a line break.
pub fn revoked_conf(lists: Option<&Path>) -> Result<String, RenderError> {
    lists.map_or_else(|| Ok(String::new()), |lists| setting("ssl_crl_file", &text(lists)))
}

/// [`SYNC_CONF`]: commits wait for `standby`, or for nobody. The same for what consumers of logical slots get: a standby that was
/// promoted must not lack what they have.
///
/// # Errors
/// None in practice; the type is shared.
pub fn sync_conf(standby: Option<InstanceId>, copies: SlotCopies) -> Result<String, RenderError> {
    let mut out = setting("synchronous_standby_names", &sync_names(standby))?;
    if copies == SlotCopies::Kept {
        let slot = standby.map(InstanceEnv::standby_name).unwrap_or_default();
        out += &setting("synchronized_standby_slots", slot)?;
    }
    Ok(out)
}

/// Value of `synchronous_standby_names`. The exact name: `*` would accept any receiver.
#[must_use]
pub fn sync_names(standby: Option<InstanceId>) -> String {
    standby.map(|s| format!("FIRST 1 ({})", InstanceEnv::standby_name(s))).unwrap_or_default()
}

/// A postgres to connect to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upstream {
    /// Its host name.
    pub host: String,
    /// Its address as last known: looking the name up may take seconds just when the node with the name server is gone.
    /// `None`: the name is looked up at each connection.
    pub address: Option<IpAddr>,
    /// Its port.
    pub port: u16,
}

/// [`UPSTREAM_CONF`] of a standby that streams from `upstream`, with what PostgreSQL demands of one that copies slots. That is
/// written here and not in `postgresql.conf` because it must not come before `wal_level` is in effect: a postmaster that finds the
/// one without the other ends (17.0 and later minor versions).
///
/// # Errors
/// The host name holds a line break.
pub fn upstream_conf(
    settings: &InstanceEnv,
    upstream: &Upstream,
    trust: &ServerTrust,
    copies: SlotCopies,
) -> Result<String, RenderError> {
    let name = InstanceEnv::standby_name(settings.instance);
    let database = (copies == SlotCopies::Kept).then_some(DATABASE);
    let mut out = setting("primary_conninfo", &conninfo(settings, upstream, trust, name, database))?
        + &setting("primary_slot_name", name)?;
    if copies == SlotCopies::Kept {
        out += &setting("sync_replication_slots", "on")?;
        out += &setting("hot_standby_feedback", "on")?;
    }
    Ok(out)
}

/// [`UPSTREAM_CONF`] of a server that streams from nobody.
#[must_use]
pub fn no_upstream_conf() -> &'static str {
    "primary_conninfo = ''\n"
}

/// Connection string of the replication role, by its client certificate.
#[must_use]
pub fn conninfo(
    settings: &InstanceEnv,
    upstream: &Upstream,
    trust: &ServerTrust,
    name: &str,
    database: Option<&str>,
) -> String {
    let tls = settings.layout.run_tls();
    let port = upstream.port.to_string();
    let address = upstream.address.map(|a| a.to_string()).unwrap_or_default();
    let ca = trust.authorities.as_deref().map_or_else(|| text(&tls.join("ca.crt")), text);
    let revoked = trust.revoked.as_deref().map(text).unwrap_or_default();
    let (cert, key) = (text(&tls.join("replication.crt")), text(&tls.join("replication.key")));
    let pairs = [
        ("host", upstream.host.as_str()),
        ("hostaddr", &address),
        ("port", &port),
        ("user", REPLICATION_ROLE),
        ("dbname", database.unwrap_or_default()),
        // Any other certificate of the pair, a client's too, is not the primary's.
        ("sslmode", "verify-full"),
        ("ssl_min_protocol_version", "TLSv1.3"),
        ("sslrootcert", &ca),
        ("sslcrl", &revoked),
        ("sslcert", &cert),
        ("sslkey", &key),
        ("connect_timeout", "2"),
        ("keepalives", "1"),
        ("keepalives_idle", "2"),
        ("keepalives_interval", "1"),
        ("keepalives_count", "3"),
        ("tcp_user_timeout", "3000"),
        ("application_name", name),
    ];
    let quote = |v: &str| format!("'{}'", v.replace('\\', "\\\\").replace('\'', "\\'"));
    let words = pairs.iter().filter(|(_, v)| !v.is_empty()).map(|(k, v)| format!("{k}={}", quote(v)));
    words.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(super) fn settings() -> InstanceEnv {
        InstanceEnv::from_lookup(|name| match name {
            "PGPAIR_PAIR" | "PGPAIR_NAMESPACE" | "PGPAIR_PEER_HOST" => Some("x".into()),
            "PGPAIR_INSTANCE" => Some("b".into()),
            _ => None,
        })
        .unwrap()
    }

    pub(super) fn conf(params: &[(&str, &str)], floors: Floors) -> Result<String, RenderError> {
        let parameters = params.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        main_conf(&settings(), &PairConfig { parameters, ..PairConfig::default() }, floors, 512)
    }

    /// Reads a quoted value as `guc-file.l` does.
    fn unquote(line: &str) -> Option<String> {
        let inner = line.trim_end().split_once(" = ")?.1.strip_prefix('\'')?.strip_suffix('\'')?;
        let mut out = String::new();
        let mut chars = inner.chars();
        while let Some(c) = chars.next() {
            match c {
                '\\' => out.push(chars.next()?),
                '\'' if chars.next()? == '\'' => out.push('\''),
                '\'' => return None,
                c => out.push(c),
            }
        }
        Some(out)
    }

    proptest! {
        #[test]
        fn a_value_is_read_back_as_it_was(value in "[^\n\r\0]*") {
            let line = setting("a_b.c", &value).unwrap();
            prop_assert_eq!(line.matches('\n').count(), 1);
            prop_assert_eq!(unquote(&line), Some(value));
        }

        #[test]
        fn nothing_of_a_value_becomes_a_second_line(value in ".*[\n\r\0].*") {
            prop_assert!(setting("a", &value).is_err());
        }
    }

    #[test]
    fn what_the_operator_owns_is_refused_in_any_case() {
        for name in
            ["fsync", "Archive_Command", "synchronous_standby_names", "primary_conninfo", "ssl_key_file"]
        {
            let got = conf(&[(name, "off")], Floors::default());
            let name = name.to_ascii_lowercase();
            assert_eq!(got, Err(RenderError::Refused { name, reason: Reason::Operator }));
        }
        for name in ["", "a b", "1a", "a=b", "x'"] {
            assert!(matches!(conf(&[(name, "1")], Floors::default()), Err(RenderError::Name(_))), "{name}");
        }
    }

    #[test]
    fn the_user_overrides_defaults_only() {
        let conf = conf(&[("shared_buffers", "1GB")], Floors::default()).unwrap();
        assert!(conf.contains("shared_buffers = '1GB'\n") && !conf.contains("128MB"));
        assert!(conf.contains("max_slot_wal_keep_size = '512MB'\n"));
        assert!(conf.contains("restart_after_crash = 'off'\n"));
    }

    #[test]
    fn the_connection_string_survives_both_quotings() {
        let mut s = settings();
        s.layout.run = "/it's".into();
        let mut upstream = Upstream { host: "db-a".into(), address: None, port: 5433 };
        let conf = upstream_conf(&s, &upstream, &ServerTrust::default(), SlotCopies::None).unwrap();
        assert!(conf.contains("host=''db-a''") && !conf.contains("hostaddr"));
        assert!(conf.contains(r"sslkey=''/it\\''s/tls/current/replication.key''"), "{conf}");
        assert!(conf.contains("application_name=''pgpair_b''"));
        assert!(conf.contains("primary_slot_name = 'pgpair_b'"));
        upstream.address = Some(IpAddr::from([10, 0, 0, 7]));
        assert!(
            upstream_conf(&s, &upstream, &ServerTrust::default(), SlotCopies::None)
                .unwrap()
                .contains("hostaddr=''10.0.0.7''")
        );
    }

    #[test]
    fn a_standby_never_gets_less_than_its_primary_has() {
        let floors = Floors { connections: 150, prepared_transactions: 3, ..Floors::default() };
        let raised = conf(&[("max_connections", "40")], floors).unwrap();
        assert!(raised.contains("max_connections = '150'\n"));
        assert!(raised.contains("max_prepared_transactions = '3'\n") && !raised.contains("max_locks"));
        let own = conf(&[("max_connections", "200")], floors).unwrap();
        assert!(own.contains("max_connections = '200'\n"));
        // A primary of 19 has 128 of its own accord, and so has its standby.
        let of_19 = Floors { locks_per_transaction: 128, major: Some(19), ..Floors::default() };
        assert_eq!(super::raised(&settings(), &PairConfig::default(), of_19), Vec::<String>::new());
        let of_18 = Floors { major: Some(18), ..of_19 };
        assert_eq!(super::raised(&settings(), &PairConfig::default(), of_18), ["max_locks_per_transaction"]);
    }
}
