//! Passwords of roles: the operator gives what it has read in the Secrets, and the primary gives it to the roles.
//!
//! Guarantees: a role keeps its password until the new one was taken and has let it in; otherwise it gets the old one back. A password that
//! somebody changed in the database stays, and is told: what the operator gave last is noted in the database, as a setting
//! of the role, in the transaction that changed the password, so every instance knows it.

use std::collections::BTreeMap;
use std::time::Duration;

use pgpair_wire::report::{PasswordReport, PasswordState};
use pgpair_wire::scram::{GivenPassword, GivenPasswords};
use postgres_protocol::escape::{escape_identifier, escape_literal};
use tokio_postgres::Row;

use crate::postgres::sql::proof::{Gate, Proof};
use crate::postgres::sql::{Sql, SqlError, within};

/// Statements about one role.
const LIMIT: Duration = Duration::from_secs(2);
const LOOK: &str = include_str!("../sql/passwords.sql");
/// The setting of a role that says which verifier it was given last.
const MARK: &str = "pgpair.password";

/// What became of the passwords, by role.
pub type Reports = BTreeMap<String, PasswordReport>;

/// Whether roles can be changed here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Roles {
    /// On a primary.
    Writable,
    /// On a standby: they come from its primary.
    Replicated,
}

/// What the database knows of a role.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Known {
    verifier: Option<String>,
    /// Why it cannot log in, whatever its password.
    locked: Option<String>,
    /// The verifier that it was given last, by its mark.
    mark: Option<String>,
}

/// What is done about the password of one role.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// The role has it.
    Confirm,
    /// It had it, and has another one since.
    Leave,
    /// It has not had it.
    Change,
}

fn decide(given: &GivenPassword, known: &Known) -> Step {
    if known.verifier.as_deref() == Some(given.verifier.as_str()) {
        Step::Confirm
    } else if known.mark.as_ref() == Some(&given.verifier.mark()) {
        Step::Leave
    } else {
        Step::Change
    }
}

/// Gives the roles the passwords that they have not had, where that is possible; what became of each. `before`: what became of them at the last
/// time.
///
/// # Errors
/// Postgres does not say what it knows of the roles.
pub async fn follow(
    sql: &Sql,
    gate: &Gate,
    given: &GivenPasswords,
    roles: Roles,
    before: &Reports,
) -> Result<Reports, SqlError> {
    let known = look(sql, given).await?;
    let mut after = Reports::new();
    for (role, password) in given {
        let before = before.get(role).filter(|before| before.mark == password.verifier.mark());
        let one = One { sql, gate, role, password };
        let (state, why) = match known.get(role) {
            None if roles == Roles::Replicated => (PasswordState::Awaited, None),
            None => (PasswordState::Refused, Some("there is no role of this name".to_owned())),
            Some(known) => one.settle(known, roles, before).await,
        };
        after.insert(role.clone(), PasswordReport { mark: password.verifier.mark(), state, why });
    }
    Ok(after)
}

async fn look(sql: &Sql, given: &GivenPasswords) -> Result<BTreeMap<String, Known>, SqlError> {
    const ACTION: &str = "look at the passwords of roles";
    let roles: Vec<&str> = given.keys().map(String::as_str).collect();
    let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 1] = [&roles];
    let client = sql.session(None).await?;
    let rows = within(ACTION, LIMIT, client.query(LOOK, &parameters)).await?;
    let read = |row: &Row| -> Result<(String, Known), tokio_postgres::Error> {
        let known = Known {
            verifier: row.try_get("verifier")?,
            locked: row.try_get("locked")?,
            mark: row.try_get("mark")?,
        };
        Ok((row.try_get("role")?, known))
    };
    let read: Result<_, _> = rows.iter().map(read).collect();
    read.map_err(|source| SqlError::Postgres { action: ACTION, source })
}

/// A role and the password that it was given.
struct One<'a> {
    sql: &'a Sql,
    gate: &'a Gate,
    role: &'a str,
    password: &'a GivenPassword,
}

type Told = (PasswordState, Option<String>);

impl One<'_> {
    async fn settle(&self, known: &Known, roles: Roles, before: Option<&PasswordReport>) -> Told {
        match (decide(self.password, known), roles) {
            (Step::Confirm, _) if before.is_some_and(|b| b.state == PasswordState::InEffect) => {
                match &known.locked {
                    None => (PasswordState::InEffect, None),
                    Some(why) => (PasswordState::Refused, Some(why.clone())),
                }
            }
            (Step::Confirm, _) => self.confirm(known, roles).await,
            (Step::Leave, _) => (PasswordState::Differs, None),
            (Step::Change, Roles::Replicated) => (PasswordState::Awaited, None),
            (Step::Change, Roles::Writable) => match self.change(known).await {
                Ok(()) => {
                    tracing::info!(role = self.role, "the role has a new password, which lets it in");
                    (PasswordState::InEffect, None)
                }
                Err(why) => {
                    tracing::warn!(role = self.role, why, "the role keeps its password");
                    (PasswordState::Refused, Some(why))
                }
            },
        }
    }

    /// It is in the database; whether it lets the role in is another question.
    async fn confirm(&self, known: &Known, roles: Roles) -> Told {
        let (mark, verifier) = (self.password.verifier.mark(), known.verifier.as_deref());
        if roles == Roles::Writable
            && known.mark.as_ref() != Some(&mark)
            && let Err(e) = self.store(verifier, Some(&mark)).await
        {
            return (PasswordState::Refused, Some(e.to_string()));
        }
        match self.prove().await {
            Ok(()) => (PasswordState::InEffect, None),
            Err(why) => (PasswordState::Refused, Some(why)),
        }
    }

    /// Changes it and logs in with it; if that fails the role has its old password again.
    async fn change(&self, known: &Known) -> Result<(), String> {
        if !self.password.verifier.accepts(&self.password.client_key) {
            return Err("what the operator gave for the login is not of that password".into());
        }
        if let Some(why) = &known.locked {
            return Err(why.clone());
        }
        let verifier = &self.password.verifier;
        self.store(Some(verifier.as_str()), Some(&verifier.mark())).await.map_err(|e| e.to_string())?;
        let Err(why) = self.prove().await else { return Ok(()) };
        let back = self.store(known.verifier.as_deref(), known.mark.as_deref()).await;
        Err(match back {
            Ok(()) => why,
            Err(e) => format!("{why}; the old password could not be put back: {e}"),
        })
    }

    async fn prove(&self) -> Result<(), String> {
        match self.gate.prove(self.role, self.password).await {
            Ok(Proof::LetIn) => Ok(()),
            Ok(Proof::TurnedAway(words)) => Err(format!("a login with it is refused: {words}")),
            Err(e) => Err(format!("it is not known whether it lets the role in: {e}")),
        }
    }

    /// The server and its log get the verifier, never the password.
    async fn store(&self, verifier: Option<&str>, mark: Option<&str>) -> Result<(), SqlError> {
        let role = escape_identifier(self.role);
        let verifier = verifier.map_or_else(|| "NULL".to_owned(), escape_literal);
        let mark = match mark {
            Some(mark) => format!("SET {MARK} = {}", escape_literal(mark)),
            None => format!("RESET {MARK}"),
        };
        let text = format!("BEGIN; ALTER ROLE {role} PASSWORD {verifier}; ALTER ROLE {role} {mark}; COMMIT");
        self.sql.batch_alone("change the password of a role", &text, LIMIT).await
    }
}

#[cfg(test)]
mod tests {
    use pgpair_wire::scram::Verifier;

    use super::*;

    #[test]
    fn only_a_password_that_the_role_has_not_had_is_given_to_it() {
        let given = |password: &str| GivenPassword::new(Verifier::make(password).unwrap(), password);
        let (old, new, by_hand) = (given("old"), given("new"), given("by hand"));
        let decide = |db: Option<&GivenPassword>, mark: Option<&GivenPassword>| {
            let known = Known {
                verifier: db.map(|db| db.verifier.as_str().to_owned()),
                locked: None,
                mark: mark.map(|mark| mark.verifier.mark()),
            };
            decide(&new, &known)
        };
        assert_eq!(decide(Some(&new), Some(&old)), Step::Confirm);
        assert_eq!(decide(Some(&new), None), Step::Confirm);
        assert_eq!(decide(Some(&old), Some(&old)), Step::Change, "the Secret was changed");
        assert_eq!(decide(Some(&by_hand), Some(&old)), Step::Change, "the Secret was changed later");
        assert_eq!(decide(Some(&by_hand), Some(&new)), Step::Leave, "changed by ALTER ROLE only");
        assert_eq!(decide(None, Some(&new)), Step::Leave, "taken away by ALTER ROLE");
        assert_eq!(decide(None, None), Step::Change, "the first password of the role");
    }
}
