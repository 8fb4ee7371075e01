//! What is kept as it has to be in the catalogs of postgres: the roles of the agent, the passwords that the operator gives, and no
//! tablespace in a place that the standby cannot have.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pgpair_wire::report::{DefinitionsReport, PasswordState};
use pgpair_wire::scram::GivenPasswords;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::upkeep::due;
use super::{StartedAs, Worker};
use crate::instance::env::InstanceEnv;
use crate::postgres::postmaster::definitions;
use crate::postgres::postmaster::passwords::{self, Reports, Roles};
use crate::postgres::postmaster::{PostmasterError, finish_bootstrap, keep_own_roles};
use crate::postgres::sql::proof::Gate;
use crate::postgres::tablespaces;

/// How often a standby looks whether a password has come from its primary.
const AWAITED: Duration = Duration::from_secs(1);
/// How often the roles, their passwords, and the tablespaces, are looked at.
const ROLES: Duration = Duration::from_secs(60);

/// State of it.
pub(super) struct RolesKept {
    gate: Gate,
    given: watch::Receiver<Arc<GivenPasswords>>,
    /// What became of the passwords, and in which role.
    passwords: (Reports, Option<StartedAs>),
    /// Why the passwords cannot be looked at.
    passwords_trouble: Option<String>,
    /// What cannot be put right in the agent's own roles.
    roles_trouble: Option<String>,
    /// A tablespace that the standby cannot have.
    tablespaces_trouble: Option<String>,
    /// What became of the roles and databases of the configuration; `None`: not on a primary, or not yet.
    definitions: Option<DefinitionsReport>,
    /// Why they cannot be looked at.
    definitions_trouble: Option<String>,
    defining: Option<JoinHandle<Result<DefinitionsReport, PostmasterError>>>,
    /// Generation of the configuration that they were last looked at for.
    defined: Option<i64>,
    passwords_due: Instant,
    roles_due: Instant,
    definitions_due: Instant,
}

impl RolesKept {
    pub(super) fn new(settings: &InstanceEnv, given: watch::Receiver<Arc<GivenPasswords>>) -> RolesKept {
        let now = Instant::now();
        RolesKept {
            gate: Gate::of(settings),
            given,
            passwords: (Reports::new(), None),
            passwords_trouble: None,
            roles_trouble: None,
            tablespaces_trouble: None,
            definitions: None,
            definitions_trouble: None,
            defining: None,
            defined: None,
            passwords_due: now,
            roles_due: now,
            definitions_due: now,
        }
    }

    /// What became of the passwords.
    pub(super) fn passwords(&self) -> Reports {
        self.passwords.0.clone()
    }

    /// What became of the roles and databases of the configuration.
    pub(super) fn definitions(&self) -> Option<DefinitionsReport> {
        self.definitions.clone()
    }

    fn take_definitions(&mut self, report: DefinitionsReport) {
        if self.definitions.as_ref() != Some(&report) {
            // A role that is there now may have been given a password before.
            self.passwords_due = Instant::now();
        }
        (self.definitions, self.definitions_trouble) = (Some(report), None);
    }

    /// What a person has to put right, the worst first.
    pub(super) fn trouble(&self) -> Option<&String> {
        let all = [
            &self.roles_trouble,
            &self.passwords_trouble,
            &self.definitions_trouble,
            &self.tablespaces_trouble,
        ];
        all.into_iter().flatten().next()
    }
}

impl Worker {
    /// The passwords that the operator gives become those of their roles; not before the roles are made.
    pub(super) async fn follow_passwords(&mut self) {
        let Some(role) = self.server.role() else { return };
        if role == StartedAs::Primary && self.prepared.is_none() {
            return;
        }
        let kept = &mut self.roles;
        let is_new = kept.given.has_changed().unwrap_or(false) || kept.passwords.1 != Some(role);
        if is_new {
            kept.passwords_due = Instant::now();
        }
        let awaits = kept.passwords.0.values().any(|p| p.state == PasswordState::Awaited);
        if !due(&mut kept.passwords_due, if awaits { AWAITED } else { ROLES }) {
            return;
        }
        kept.passwords.1 = Some(role);
        let given = kept.given.borrow_and_update().clone();
        let roles = match role {
            StartedAs::Primary => Roles::Writable,
            StartedAs::Standby => Roles::Replicated,
        };
        let before = kept.passwords.0.clone();
        match passwords::follow(&self.sql, &self.roles.gate, &given, roles, &before).await {
            Ok(after) => (self.roles.passwords.0, self.roles.passwords_trouble) = (after, None),
            Err(e) => {
                tracing::warn!(error = %e, "the passwords of roles cannot be looked at; trying again");
                self.roles.passwords_trouble = Some(e.to_string());
                self.roles.passwords_due = Instant::now() + AWAITED;
            }
        }
    }

    /// Roles and databases of the configuration come into being on the primary, beside the worker: a database takes seconds to make. So does what
    /// the first primary has not finished.
    pub(super) async fn follow_definitions(&mut self) {
        if self.server.role() != Some(StartedAs::Primary) || self.prepared.is_none() {
            let kept = &mut self.roles;
            (kept.definitions, kept.defining, kept.defined) = (None, None, None);
            return;
        }
        let config = self.config();
        let kept = &mut self.roles;
        if let Some(done) = kept.defining.take_if(|defining| defining.is_finished()) {
            match done.await {
                Ok(Ok(report)) => kept.take_definitions(report),
                Ok(Err(e)) => {
                    kept.definitions_trouble = Some(e.to_string());
                    kept.definitions_due = Instant::now() + AWAITED;
                }
                Err(_) => {} // it was cancelled
            }
        }
        if kept.defined != Some(config.generation) {
            (kept.defined, kept.definitions_due) = (Some(config.generation), Instant::now());
        }
        if kept.defining.is_none() && due(&mut kept.definitions_due, ROLES) {
            let (sql, settings) = (self.sql.beside(), self.settings.clone());
            kept.defining = Some(tokio::spawn(async move {
                finish_bootstrap(&settings, &config, &sql).await?;
                Ok(definitions::apply(&sql, &config).await?)
            }));
        }
    }

    /// What a person has changed in our roles is put right before it is needed; on the standby that comes from the primary.
    pub(super) async fn keep_roles(&mut self) {
        let Some(role) = self.server.role() else { return };
        if (role == StartedAs::Primary && self.prepared.is_none()) || !due(&mut self.roles.roles_due, ROLES) {
            return;
        }
        if role != StartedAs::Primary {
            self.sql.login().prefer_own();
            (self.roles.roles_trouble, self.roles.tablespaces_trouble) = (None, None);
            return;
        }
        self.roles.roles_trouble = match keep_own_roles(&self.sql).await {
            Ok(false) => None,
            Ok(true) => {
                tracing::warn!("the agent's own roles were not as they have to be: they are again");
                None
            }
            Err(e) => {
                tracing::error!(error = %e, "the agent's own roles cannot be put right");
                Some(e.to_string())
            }
        };
        self.look_at_tablespaces().await;
    }

    async fn look_at_tablespaces(&mut self) {
        match tablespaces::find_misplaced(&self.sql, &self.settings.layout).await {
            Ok(misplaced) => {
                let trouble = misplaced.map(|m| m.to_string());
                if trouble.is_some() && trouble != self.roles.tablespaces_trouble {
                    tracing::error!(trouble, "a tablespace is in the wrong place");
                }
                self.roles.tablespaces_trouble = trouble;
            }
            Err(e) => tracing::warn!(error = %e, "the tablespaces cannot be looked at; trying again"),
        }
    }
}
