//! The certificates of a running postgres: the copies follow what is mounted or given, postgres reads them without a restart, a handshake with
//! it proves that it shows them, and sessions whose certificate is revoked are ended. A postgres that hangs keeps the worker from nothing: what
//! asks it anything does so in a task of its own.

use std::time::{Duration, Instant};
use std::{fs, io};

use pgpair_wire::certificates::{CertificatesReport, SERVER_CERTIFICATE, mark};
use tokio::task::JoinHandle;

use super::{StartedAs, Worker, upkeep::due};
use crate::instance::env::InstanceEnv;
use crate::instance::fsx::FileError;
use crate::net::tls;
use crate::postgres::handshake::shown_by;
use crate::postgres::postmaster::{self, Installed, PostmasterError, TlsFor};
use crate::postgres::sql::SqlError;

/// How often postgres is asked for its certificate while it shows another than it should, and else.
const PROVE: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(30));
/// How often sessions are looked for whose certificate is revoked.
const REVOKED: Duration = Duration::from_secs(5);
/// How soon certificates that could not be installed are tried again.
const AGAIN: Duration = Duration::from_secs(10);

/// State of it.
pub(super) struct Certificates {
    /// Up to which renewal they were installed; `None`: they could not be.
    renewals: Option<u64>,
    /// The version that postgres was told to read last.
    read: u64,
    /// What postgres was not told to read yet.
    unread: Installed,
    /// Those of this version.
    installing: Option<(u64, JoinHandle<Result<Installed, FileError>>)>,
    install: Instant,
    /// Why those in use could not be installed.
    trouble: Option<String>,
    /// What postgres has shown, and whether it is what it should show.
    shown: Option<String>,
    is_installed_shown: bool,
    proving: Option<JoinHandle<io::Result<(String, bool)>>>,
    prove: Instant,
    ending: Option<JoinHandle<Result<String, SqlError>>>,
    end_revoked: Instant,
}

impl Certificates {
    pub(super) fn new(identity: &tls::Identity) -> Certificates {
        let now = Instant::now();
        Certificates {
            renewals: Some(identity.renewals()),
            read: identity.version().0,
            unread: Installed::Unchanged,
            installing: None,
            install: now,
            trouble: None,
            shown: None,
            is_installed_shown: false,
            proving: None,
            prove: now,
            ending: None,
            end_revoked: now,
        }
    }
}

/// What a task has come to, if it has ended.
async fn ended<T>(task: &mut Option<JoinHandle<T>>) -> Option<T> {
    task.take_if(|task| task.is_finished())?.await.ok()
}

impl Worker {
    /// What is told of them. A postgres that does not run begins with what the agent uses.
    pub(super) fn certificates(&self) -> CertificatesReport {
        let (version, trouble) = self.upkeep.identity.version();
        let read = if self.server.is_down() { version } else { self.certificates.read };
        let trouble = trouble.or_else(|| self.certificates.trouble.clone());
        CertificatesReport { version: version.min(read), shown: self.certificates.shown.clone(), trouble }
    }

    /// The next start begins with the newest.
    pub(super) fn forget_certificates(&mut self) {
        self.certificates.read = self.upkeep.identity.version().0;
        self.certificates.unread = Installed::Unchanged;
    }

    pub(super) async fn follow_certificates(&mut self) {
        self.take_certificates().await;
        self.prove_certificate().await;
        self.end_revoked().await;
    }

    /// The copies for postgres, and for libpq, follow the newest certificates.
    async fn take_certificates(&mut self) {
        if let Some((version, task)) = self.certificates.installing.take_if(|(_, task)| task.is_finished()) {
            let installed = task.await.unwrap_or(Ok(Installed::Unchanged)); // the agent ends
            match installed.map_err(PostmasterError::from).and_then(|installed| self.have_read(installed)) {
                Ok(()) => (self.certificates.read, self.certificates.trouble) = (version, None),
                Err(e) => {
                    tracing::error!(error = %e, "postgres keeps its old certificates; trying again");
                    self.certificates.renewals = None;
                    self.certificates.trouble = Some(format!("postgres keeps its old certificates: {e}"));
                }
            }
        }
        let renewals = self.upkeep.identity.renewals();
        let is_new = self.certificates.renewals.is_none_or(|before| before != renewals);
        if !is_new || self.certificates.installing.is_some() {
            return;
        }
        if self.certificates.renewals.is_none() && !due(&mut self.certificates.install, AGAIN) {
            return;
        }
        self.certificates.renewals = Some(renewals);
        let (layout, (version, _)) = (self.settings.layout.clone(), self.upkeep.identity.version());
        let install = move || postmaster::install_tls(&layout, TlsFor::Postgres);
        self.certificates.installing = Some((version, tokio::task::spawn_blocking(install)));
    }

    fn have_read(&mut self, installed: Installed) -> Result<(), PostmasterError> {
        let unread = self.certificates.unread.max(installed);
        self.certificates.unread = unread;
        let Some(running) = self.server.running() else { return Ok(()) };
        let postmaster = running.postmaster.clone();
        match unread {
            Installed::Unchanged => return Ok(()),
            Installed::Renewed => postmaster.reload()?,
            Installed::Rearranged => {
                let floors = self.upkeep.floors.unwrap_or(postmaster.floors());
                let config = self.upkeep.written.clone();
                postmaster::reload_config(&self.settings, &config, floors, self.access, &postmaster)?;
                let upstream = self.following.upstream.as_ref();
                if let Some(upstream) = upstream.filter(|_| self.server.role() == Some(StartedAs::Standby)) {
                    postmaster::set_upstream(&self.settings, upstream, &postmaster)?;
                }
            }
        }
        tracing::info!("postgres takes the renewed certificates");
        self.certificates.unread = Installed::Unchanged;
        (self.certificates.prove, self.certificates.is_installed_shown) = (Instant::now(), false);
        Ok(())
    }

    /// Asks postgres for its certificate. Certificates without a number are of a pair that has nothing to prove.
    async fn prove_certificate(&mut self) {
        match ended(&mut self.certificates.proving).await {
            Some(Ok((shown, is_installed))) => {
                (self.certificates.shown, self.certificates.is_installed_shown) = (Some(shown), is_installed);
            }
            Some(Err(e)) => tracing::warn!(error = %e, "postgres does not show its certificate"),
            None => {}
        }
        let (version, _) = self.upkeep.identity.version();
        let (soon, late) = PROVE;
        let pause = if self.certificates.is_installed_shown { late } else { soon };
        if version > 0 && self.certificates.proving.is_none() && due(&mut self.certificates.prove, pause) {
            let settings = self.settings.clone();
            self.certificates.proving = Some(tokio::spawn(async move { prove(&settings).await }));
        }
    }

    /// A session that was open when its certificate was revoked would go on for ever.
    async fn end_revoked(&mut self) {
        match ended(&mut self.certificates.ending).await {
            Some(Ok(roles)) if !roles.is_empty() => {
                tracing::warn!(roles, "sessions whose certificate is revoked were ended");
            }
            Some(Err(e)) => {
                tracing::error!(error = %e, "sessions whose certificate is revoked cannot be ended");
            }
            Some(Ok(_)) | None => {}
        }
        let revoked = self.upkeep.identity.revoked().serials();
        let is_free = !revoked.is_empty() && self.certificates.ending.is_none();
        if is_free && due(&mut self.certificates.end_revoked, REVOKED) {
            let sql = self.sql.beside();
            self.certificates.ending = Some(tokio::spawn(async move { sql.end_revoked(&revoked).await }));
        }
    }
}

/// The certificate that postgres shows, and whether that is the one that is installed.
async fn prove(settings: &InstanceEnv) -> io::Result<(String, bool)> {
    let shown = mark(&shown_by(settings).await?);
    let pem = fs::read(settings.layout.run_tls().join(SERVER_CERTIFICATE))?;
    let is_installed = tls::authorities_in(&pem).first().is_some_and(|first| mark(first) == shown);
    Ok((shown, is_installed))
}
