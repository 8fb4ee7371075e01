//! The files that decide how postgres runs: written before each start, and anew when the configuration changes.

use std::fs;
use std::time::Duration;

use pgpair_core::ids::InstanceId;
use pgpair_wire::config::PairConfig;
use sha2::{Digest, Sha256};

use crate::instance::env::InstanceEnv;
use crate::instance::fsx::{self, Context, FileError};
use crate::instance::layout::Layout;
use crate::net::tls::source::Source;
use crate::postgres::control_file;
use crate::postgres::objection::{Objection, TryError};
use crate::postgres::pgdata::{self, DataDir};
use crate::postgres::postmaster::{ClientAccess, Postmaster, PostmasterError, StartAs, StartOptions};
use crate::postgres::render::decoding::{SlotCopies, WalLevel};
use crate::postgres::render::{self, Floors, Upstream, hba};
use crate::postgres::slots;
use crate::postgres::sql::{Sql, SqlError, within};
use crate::postgres::tool::{self, PgBin};
use crate::postgres::trust::{self, ServerTrust};

/// Certificates and the key that are copied for streaming, which is all that a base backup does.
const STREAMING_FILES: [&str; 3] = ["ca.crt", "replication.crt", "replication.key"];
/// What a postgres and the `wal-restore` that it starts need besides, each for one purpose. An operator of before made the agent's own for
/// the second name only.
const SERVER_FILES: [(&str, &str); 4] = [
    ("server.crt", "tls.crt"),
    ("server.key", "tls.key"),
    ("restore.crt", "tls.crt"),
    ("restore.key", "tls.key"),
];
/// The standby's slot may hold this share of the data volume.
const SLOT_SHARE: u64 = 4;
/// `postgres -C` reads its configuration and ends.
const TRY: Duration = Duration::from_secs(10);
/// A question to a running postgres.
const ASK: Duration = Duration::from_secs(3);

/// Writes every file that decides how postgres starts.
pub(crate) fn configure(
    settings: &InstanceEnv,
    config: &PairConfig,
    options: &StartOptions,
    floors: Floors,
) -> Result<(), PostmasterError> {
    let layout = &settings.layout;
    install_tls(layout, TlsFor::Postgres)?;
    for dir in [layout.socket_dir(), layout.told(), layout.restore(), layout.tablespaces()] {
        fsx::create_dir(&dir, 0o700)?;
    }
    fsx::remove(&layout.alone())?;
    let put = |name: &str, text: &str| fsx::write(&layout.in_pgdata(name), text.as_bytes(), 0o600);
    let copies = slot_copies(layout, config, floors);
    let was_primary = !layout.in_pgdata("standby.signal").exists();
    write_main(settings, config, floors)?;
    put("pg_ident.conf", "")?;
    put(render::SYNC_CONF, &render::sync_conf(options.sync_with, copies)?)?;
    write_hba(settings, config, options.clients)?;
    clean_auto_conf(settings)?;
    // The volume's lock is ours, so the postmaster of a left lock file is dead; in a new container its number may belong
    // to somebody else by now, and postgres would refuse to start.
    for stale in [format!(".s.PGSQL.{}.lock", settings.pg_port), format!(".s.PGSQL.{}", settings.pg_port)] {
        fsx::remove(&layout.socket_dir().join(stale))?;
    }
    for stale in ["recovery.signal", "promote", "standby.signal", "postmaster.pid"] {
        fsx::remove(&layout.in_pgdata(stale))?;
    }
    match &options.role {
        StartAs::Primary => put(render::UPSTREAM_CONF, render::no_upstream_conf())?,
        StartAs::Standby(upstream) => {
            put(
                render::UPSTREAM_CONF,
                &render::upstream_conf(settings, upstream, &ServerTrust::of(layout), copies)?,
            )?;
            put("standby.signal", "")?;
            remove_own_slots(layout)?;
            if was_primary {
                slots::remove_logical(layout)?;
            }
        }
    }
    fsx::sync_dir(&layout.pgdata())?;
    Ok(())
}

/// What the directory demands, whatever is configured: of a standby its primary's values, of both a `wal_level` for the logical slots
/// in it. Not known counts as nothing: if a file cannot be read, postgres will say so.
pub async fn floors(settings: &InstanceEnv, bin: &PgBin, role: &StartAs) -> Floors {
    let layout = &settings.layout;
    let of_role = match role {
        StartAs::Primary => Floors::default(),
        StartAs::Standby(_) => {
            let control = control_file::control_data(bin, &layout.pgdata()).await;
            control.map(|c| c.floors).unwrap_or_default()
        }
    };
    let has_logical_slots = slots::list_logical(layout).is_ok_and(|found| !found.is_empty());
    Floors { has_logical_slots, major: control_file::major(&layout.pgdata()), ..of_role }
}

/// Whether a standby copies slots, with the `wal_level` that postgres is started with.
pub(super) fn slot_copies(layout: &Layout, config: &PairConfig, floors: Floors) -> SlotCopies {
    SlotCopies::of(WalLevel::at_start(config, floors), control_file::major(&layout.pgdata()))
}

/// A changed configuration into a running postgres: rewrites `postgresql.conf` and `pg_hba.conf` and has them read again.
/// What needs a restart is then in `pg_settings.pending_restart` ([`crate::postgres::sql::Sql::pending_restart`]).
///
/// # Errors
/// The configuration is refused, a file cannot be written, or postgres has ended.
pub fn reload_config(
    settings: &InstanceEnv,
    config: &PairConfig,
    floors: Floors,
    clients: ClientAccess,
    postmaster: &Postmaster,
) -> Result<(), PostmasterError> {
    write_main(settings, config, floors)?;
    write_hba(settings, config, clients)?;
    postmaster.reload()
}

/// Has a running standby stream from this address from now on.
///
/// # Errors
/// The file cannot be written, or postgres has ended.
pub fn set_upstream(
    settings: &InstanceEnv,
    upstream: &Upstream,
    postmaster: &Postmaster,
) -> Result<(), PostmasterError> {
    let trust = ServerTrust::of(&settings.layout);
    let text = render::upstream_conf(settings, upstream, &trust, postmaster.slot_copies())?;
    fsx::write(&settings.layout.in_pgdata(render::UPSTREAM_CONF), text.as_bytes(), 0o600)?;
    postmaster.reload()
}

/// Has postgres read the parameters without starting it: a value that it refuses would keep it from its next start. Without a
/// data directory there is nothing to try it with.
///
/// # Errors
/// Postgres does not accept it, or it cannot be tried.
pub async fn try_parameters(
    settings: &InstanceEnv,
    bin: &PgBin,
    config: &PairConfig,
) -> Result<(), TryError> {
    let layout = &settings.layout;
    if !matches!(pgdata::inspect(layout), Ok(DataDir::Ready(_))) {
        return Ok(());
    }
    let text = render::main_conf(settings, config, Floors::default(), 64)?;
    let candidate = layout.told().join("candidate.conf");
    fsx::write(&candidate, text.as_bytes(), 0o600)?;
    let mut command = bin.command("postgres");
    command.arg("-D").arg(layout.pgdata()).arg(format!("--config-file={}", candidate.display()));
    let tried = tool::run(command.args(["-C", "data_directory"]), TRY).await;
    // Read already; a left one is overwritten by the next.
    let _ = fsx::remove(&candidate);
    match tried {
        Ok(_) => Ok(()),
        Err(e) => {
            Err(objections(e.text()).map_or_else(|| TryError::Tool(e), |o| Objection::Parameters(o).into()))
        }
    }
}

/// Has a running postgres read the access rules of `config` as it would at a reload, which is not made: it shows what it makes of the
/// file that is there at that moment (PostgreSQL, `pg_hba_file_rules`). The file is then as it was. `None` also if it cannot be asked.
pub async fn try_hba(settings: &InstanceEnv, sql: &Sql, config: &PairConfig) -> Option<Objection> {
    let path = settings.layout.in_pgdata("pg_hba.conf");
    let candidate = hba::hba_conf(config, ClientAccess::Open).ok()?;
    let before = fs::read(&path).ok()?;
    fsx::write(&path, candidate.as_bytes(), 0o600).ok()?;
    let said = first_bad_rule(sql).await;
    if let Err(e) = fsx::write(&path, &before, 0o600) {
        // Not in force: each start writes it anew, from what was accepted.
        tracing::error!(error = %e, "pg_hba.conf is not as it was before a trial");
    }
    let (line, error) = said.ok()??;
    let rule = candidate.lines().nth(line.checked_sub(1)?).unwrap_or_default();
    Some(Objection::Rule { error, rule: rule.to_owned() })
}

/// The first line of `pg_hba.conf`, as it is on disk now, that postgres objects to, and why.
async fn first_bad_rule(sql: &Sql) -> Result<Option<(usize, String)>, SqlError> {
    const TEXT: &str = "SELECT line_number, error FROM pg_hba_file_rules WHERE error IS NOT NULL ORDER BY line_number LIMIT 1";
    let client = sql.session(None).await?;
    let row = within("have the access rules tried", ASK, client.query_opt(TEXT, &[])).await?;
    Ok(row.and_then(|row| Some((usize::try_from(row.get::<_, i32>(0)).ok()?, row.get(1)))))
}

/// What postgres objects to in a configuration, without times, process numbers, the files that may be missing, and the sum that it
/// draws at the end: the status has room for a sentence. `None` if nothing of that kind was said.
#[must_use]
pub fn objections(said: &str) -> Option<String> {
    const LEVELS: [&str; 4] = ["LOG:", "FATAL:", "DETAIL:", "HINT:"];
    const NO_OBJECTION: [&str; 2] = ["skipping missing configuration file", "contains errors"];
    let text = |line: &str| LEVELS.iter().find_map(|level| Some(line.split_once(level)?.1.trim().to_owned()));
    let objects = |text: &String| !text.is_empty() && !NO_OBJECTION.iter().any(|other| text.contains(other));
    let mut all: Vec<String> = said.lines().filter_map(text).filter(objects).collect();
    all.dedup();
    (!all.is_empty()).then(|| all.join(" | "))
}

fn write_main(settings: &InstanceEnv, config: &PairConfig, floors: Floors) -> Result<(), PostmasterError> {
    let mut text = render::main_conf(settings, config, floors, slot_keep_mib(&settings.layout)?)?;
    text += &render::revoked_conf(trust::clients_revoked(&settings.layout).as_deref())?;
    Ok(fsx::write(&settings.layout.in_pgdata("postgresql.conf"), text.as_bytes(), 0o600)?)
}

fn write_hba(
    settings: &InstanceEnv,
    config: &PairConfig,
    access: ClientAccess,
) -> Result<(), PostmasterError> {
    let text = hba::hba_conf(config, access)?;
    Ok(fsx::write(&settings.layout.in_pgdata("pg_hba.conf"), text.as_bytes(), 0o600)?)
}

/// Takes out of a running postgres what `ALTER SYSTEM` has changed of that on which a promise rests. The names of the parameters.
///
/// # Errors
/// The file cannot be written, or postgres has ended.
pub fn put_back_promises(
    settings: &InstanceEnv,
    postmaster: &Postmaster,
) -> Result<Vec<String>, PostmasterError> {
    let path = settings.layout.in_pgdata("postgresql.auto.conf");
    let current = fs::read(&path).unwrap_or_default();
    let (kept, names) = render::without_broken_promises(settings, &current);
    if !names.is_empty() {
        fsx::write(&path, &kept, 0o600)?;
        postmaster.reload()?;
    }
    Ok(names)
}

fn clean_auto_conf(settings: &InstanceEnv) -> Result<(), FileError> {
    let path = settings.layout.in_pgdata("postgresql.auto.conf");
    let current = fs::read(&path).unwrap_or_default();
    let cleaned = render::cleaned_auto_conf(settings, &current);
    if cleaned != current { fsx::write(&path, &cleaned, 0o600) } else { Ok(()) }
}

/// A standby that was primary has slots of the other instance: nobody advances them, so they would keep WAL for ever.
fn remove_own_slots(layout: &Layout) -> Result<(), FileError> {
    for instance in InstanceId::ALL {
        let dir = layout.in_pgdata("pg_replslot").join(InstanceEnv::standby_name(instance));
        if dir.is_dir() {
            fs::remove_dir_all(&dir).at("remove the stale slot", &dir)?;
        }
    }
    Ok(())
}

fn slot_keep_mib(layout: &Layout) -> Result<u64, FileError> {
    let stat = rustix::fs::statvfs(&layout.data).at("ask for the size of", &layout.data)?;
    Ok((stat.f_blocks.saturating_mul(stat.f_frsize) / SLOT_SHARE / (1024 * 1024)).max(64))
}

/// Who needs certificates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsFor {
    /// A postgres and what it starts.
    Postgres,
    /// `pg_basebackup`, which streams only.
    BaseBackup,
}

/// What a look at the certificates has changed of the copies; the more, the greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Installed {
    /// Nothing.
    Unchanged,
    /// Files that postgres takes at a reload.
    Renewed,
    /// Which files there are, so the configuration names others: see [`reload_config`] and [`set_upstream`].
    Rearranged,
}

/// Copies the newest certificates and keys to where postgres reads them, with the permissions that it demands; all of them in
/// one step, for a certificate with the key of another is none.
///
/// # Errors
/// A certificate is missing in the mount.
pub fn install_tls(layout: &Layout, purpose: TlsFor) -> Result<Installed, FileError> {
    let (newest, _) = Source::of(layout).newest();
    let link = layout.run_tls();
    let streaming = STREAMING_FILES.map(|name| (name, None));
    let serving = SERVER_FILES.map(|(name, before)| (name, Some(before)));
    let beside: &[_] = match purpose {
        TlsFor::Postgres => &serving,
        TlsFor::BaseBackup => &[],
    };
    let mut files = trust::derived(layout, &newest)?;
    for &(name, before) in streaming.iter().chain(beside) {
        let mut from = newest.join(name);
        if let Some(before) = before.filter(|_| !from.exists()) {
            from = newest.join(before);
        }
        files.insert(name.to_owned(), fs::read(&from).at("read the certificate", &from)?);
    }
    let arrangement = (ServerTrust::of(layout), trust::clients_revoked(layout));
    let is_there =
        |(name, bytes): (&String, &Vec<u8>)| fs::read(link.join(name)).ok().as_ref() == Some(bytes);
    let there = fs::read_dir(&link).map_or(0, Iterator::count);
    if there == files.len() && files.iter().all(is_there) {
        return Ok(Installed::Unchanged);
    }
    let mut sum = Sha256::new();
    for (name, bytes) in &files {
        sum.update(name);
        sum.update(bytes);
    }
    let digest: String = sum.finalize().iter().take(6).map(|b| format!("{b:02x}")).collect();
    let dir = fsx::sibling(&link, &format!(".{digest}"));
    fsx::write_dir(&dir, files.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())))?;
    fsx::turn_link(&link, &dir)?;
    let is_same = arrangement == (ServerTrust::of(layout), trust::clients_revoked(layout));
    Ok(if is_same { Installed::Renewed } else { Installed::Rearranged })
}

/// Lets clients in, or lets no new ones in.
///
/// # Errors
/// The file cannot be written or postgres is gone.
pub fn set_clients(
    settings: &InstanceEnv,
    config: &PairConfig,
    postmaster: &Postmaster,
    access: ClientAccess,
) -> Result<(), PostmasterError> {
    write_hba(settings, config, access)?;
    postmaster.reload()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_objection_is_told_without_what_postgres_says_around_it() {
        let said = "2026-05-01 12:00:00.307 GMT [151] LOG:  skipping missing configuration file \"/pgpair/run/pgpair.sync.conf\"\n\
                    2026-05-01 12:00:00.308 GMT [151] LOG:  skipping missing configuration file \"/pgpair/run/pgpair.sync.conf\"\n\
                    2026-05-01 12:00:00.308 UTC [151] LOG:  invalid value for parameter \"work_mem\": \"lots\"\n\
                    2026-05-01 12:00:00.308 UTC [151] HINT:  Valid units for this parameter are \"B\", \"kB\", \"MB\", \"GB\", and \"TB\".\n\
                    2026-05-01 12:00:00.309 UTC [151] FATAL:  configuration file \"/pgpair/run/candidate.conf\" contains errors\n";
        let expected = "invalid value for parameter \"work_mem\": \"lots\" | \
                        Valid units for this parameter are \"B\", \"kB\", \"MB\", \"GB\", and \"TB\".";
        assert_eq!(objections(said).as_deref(), Some(expected));
        assert_eq!(objections("postgres: could not access the server configuration file"), None);
        assert_eq!(objections("LOG:\nHINT: \n"), None, "a level without a word");
    }
}
