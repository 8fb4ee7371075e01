//! What is kept as it has to be in the catalogs of postgres: the roles of the agent, the passwords of the mounted Secrets, and no
//! tablespace in a place that the standby cannot have.

use std::time::{Duration, Instant};

use super::upkeep::due;
use super::{StartedAs, Worker};
use crate::postgres::postmaster::passwords::{self, Mounted, Roles};
use crate::postgres::postmaster::{PostmasterError, keep_own_roles};
use crate::postgres::tablespaces;

/// How often the mounted passwords are looked at. The kubelet brings a changed Secret within about a minute.
const PASSWORDS: Duration = Duration::from_secs(2);
/// How often the agent's own roles, and the tablespaces, are looked at.
const ROLES: Duration = Duration::from_secs(60);

/// State of it.
pub(super) struct RolesKept {
    /// The mounted passwords of which nothing is left to do, and in which role that was found.
    passwords: Option<(Mounted, StartedAs)>,
    /// What is wrong with the mounted passwords, for people.
    passwords_trouble: Option<String>,
    /// What cannot be put right in the agent's own roles.
    roles_trouble: Option<String>,
    /// A tablespace that the standby cannot have.
    tablespaces_trouble: Option<String>,
    passwords_due: Instant,
    roles_due: Instant,
}

/// A mounted password that is not that of its role.
#[derive(Debug, thiserror::Error)]
enum PasswordError {
    #[error("the Secret of role {role} has an empty password: the role keeps its password; set key password")]
    Empty { role: String },
    #[error(transparent)]
    Postmaster(#[from] PostmasterError),
}

impl Default for RolesKept {
    fn default() -> RolesKept {
        let now = Instant::now();
        RolesKept {
            passwords: None,
            passwords_trouble: None,
            roles_trouble: None,
            tablespaces_trouble: None,
            passwords_due: now,
            roles_due: now,
        }
    }
}

impl RolesKept {
    /// What a person has to put right, the worst first.
    pub(super) fn trouble(&self) -> Option<&String> {
        [&self.roles_trouble, &self.passwords_trouble, &self.tablespaces_trouble].into_iter().flatten().next()
    }
}

impl Worker {
    /// A changed password of a mounted Secret becomes that of its role; not before the roles are made.
    pub(super) async fn follow_passwords(&mut self) {
        let Some(role) = self.server.role() else { return };
        if (role == StartedAs::Primary && self.prepared.is_none())
            || !due(&mut self.roles.passwords_due, PASSWORDS)
        {
            return;
        }
        let done = match Mounted::read(&self.settings) {
            Ok(mounted) => self.settle_passwords(mounted, role).await,
            Err(e) => Err(e.into()),
        };
        let trouble = done.err().map(|e| e.to_string());
        if self.roles.passwords_trouble != trouble {
            if let Some(trouble) = &trouble {
                tracing::warn!(trouble, "passwords");
            }
            self.roles.passwords_trouble = trouble;
        }
    }

    async fn settle_passwords(&mut self, mounted: Mounted, role: StartedAs) -> Result<(), PasswordError> {
        let empty = match mounted.empty()[..] {
            [] => Ok(()),
            [role, ..] => Err(PasswordError::Empty { role: role.to_owned() }),
        };
        let found = Some((mounted, role));
        if self.roles.passwords != found
            && let Some((mounted, _)) = &found
        {
            let roles = match role {
                StartedAs::Primary => Roles::Writable,
                StartedAs::Standby => Roles::Replicated,
            };
            if passwords::follow(&self.settings, &self.sql, mounted, roles).await? {
                self.roles.passwords = found;
            }
        }
        empty
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
