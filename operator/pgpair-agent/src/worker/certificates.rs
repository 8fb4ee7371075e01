//! The certificates of a running postgres: the copies follow what is mounted or given, postgres reads them without a restart, a handshake with
//! it proves that it shows them, and sessions whose certificate is revoked are ended.

use std::fs;
use std::time::{Duration, Instant};

use pgpair_wire::certificates::{CertificatesReport, SERVER_CERTIFICATE, mark};
use tokio::task::JoinHandle;

use super::{StartedAs, Worker, upkeep::due};
use crate::instance::fsx::FileError;
use crate::net::tls;
use crate::postgres::handshake::shown_by;
use crate::postgres::postmaster::{self, Installed, TlsFor};

/// How often postgres is asked for its certificate while it shows another than it should, and else.
const PROVE: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(30));
/// How often sessions are looked for whose certificate is revoked.
const REVOKED: Duration = Duration::from_secs(5);

/// State of it.
pub(super) struct Certificates {
    /// Up to which renewal they were installed.
    renewals: u64,
    installing: Option<JoinHandle<Result<Installed, FileError>>>,
    /// What postgres has shown.
    shown: Option<String>,
    prove: Instant,
    end_revoked: Instant,
}

impl Certificates {
    pub(super) fn new(renewals: u64) -> Certificates {
        let now = Instant::now();
        Certificates { renewals, installing: None, shown: None, prove: now, end_revoked: now }
    }
}

impl Worker {
    /// What is told of them.
    pub(super) fn certificates(&self) -> CertificatesReport {
        let (version, trouble) = self.upkeep.identity.version();
        CertificatesReport { version, shown: self.certificates.shown.clone(), trouble }
    }

    pub(super) async fn follow_certificates(&mut self) {
        self.take_certificates().await;
        self.prove_certificate().await;
        self.end_revoked().await;
    }

    /// The copies for postgres, and for libpq, follow the newest certificates.
    async fn take_certificates(&mut self) {
        if let Some(done) = self.certificates.installing.take_if(|task| task.is_finished())
            && let Ok(installed) = done.await
        {
            self.have_read(installed);
        }
        let renewals = self.upkeep.identity.renewals();
        if renewals == self.certificates.renewals || self.certificates.installing.is_some() {
            return;
        }
        self.certificates.renewals = renewals;
        let layout = self.settings.layout.clone();
        let install = move || postmaster::install_tls(&layout, TlsFor::Postgres);
        self.certificates.installing = Some(tokio::task::spawn_blocking(install));
    }

    fn have_read(&mut self, installed: Result<Installed, FileError>) {
        let Some(running) = self.server.running() else { return };
        let postmaster = running.postmaster.clone();
        let read = match installed {
            Ok(Installed::Unchanged) => return,
            Ok(Installed::Renewed) => postmaster.reload(),
            Ok(Installed::Rearranged) => {
                let floors = self.upkeep.floors.unwrap_or(postmaster.floors());
                let config = self.upkeep.written.clone();
                let read =
                    postmaster::reload_config(&self.settings, &config, floors, self.access, &postmaster);
                let upstream = self.following.upstream.as_ref();
                match upstream.filter(|_| self.server.role() == Some(StartedAs::Standby)) {
                    Some(upstream) => {
                        read.and_then(|()| postmaster::set_upstream(&self.settings, upstream, &postmaster))
                    }
                    None => read,
                }
            }
            Err(e) => {
                tracing::error!(error = %e, "postgres keeps its old certificates");
                return;
            }
        };
        self.certificates.prove = Instant::now();
        match read {
            Ok(()) => tracing::info!("postgres takes the renewed certificates"),
            Err(e) => tracing::warn!(error = %e, "postgres has not read the renewed certificates"),
        }
    }

    /// Asks postgres for its certificate. Certificates without a number are of a pair that has nothing to prove.
    async fn prove_certificate(&mut self) {
        let (version, _) = self.upkeep.identity.version();
        if version == 0 {
            return;
        }
        let file = self.settings.layout.run_tls().join(SERVER_CERTIFICATE);
        let installed = fs::read(file).ok().and_then(|pem| Some(mark(tls::authorities_in(&pem).first()?)));
        let (soon, late) = PROVE;
        let is_shown = installed.is_some() && installed == self.certificates.shown;
        if !due(&mut self.certificates.prove, if is_shown { late } else { soon }) {
            return;
        }
        match shown_by(&self.settings).await {
            Ok(certificate) => self.certificates.shown = Some(mark(&certificate)),
            Err(e) => tracing::warn!(error = %e, "postgres does not show its certificate"),
        }
    }

    /// A session that was open when its certificate was revoked would go on for ever.
    async fn end_revoked(&mut self) {
        let revoked = self.upkeep.identity.revoked().serials();
        if revoked.is_empty() || !due(&mut self.certificates.end_revoked, REVOKED) {
            return;
        }
        match self.sql.end_revoked(&revoked).await {
            Ok(roles) if roles.is_empty() => {}
            Ok(roles) => tracing::warn!(roles, "sessions whose certificate is revoked were ended"),
            Err(e) => tracing::error!(error = %e, "sessions whose certificate is revoked cannot be ended"),
        }
    }
}
