//! Passwords of the mounted Secrets, after the first start.
//!
//! A Secret that its owner changed, or that was deleted and made again, has a password that the database does not know: the
//! primary gives it to the role. A password that was changed in the database only stays, because the file is as it was. What was in
//! effect last is remembered on the volume of each instance, as the verifier that postgres stores; also by a standby, for the time
//! when it is primary.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use pgpair_wire::names::SUPERUSER;
use postgres_protocol::escape::{escape_identifier, escape_literal};
use postgres_protocol::password::scram_sha_256;
use ring::{digest, hmac, pbkdf2};

use super::PostmasterError;
use super::roles::App;
use crate::instance::env::InstanceEnv;
use crate::instance::fsx;
use crate::postgres::sql::{Sql, within};

/// Statements about one role.
const LIMIT: Duration = Duration::from_secs(2);

/// The passwords that are mounted, by role. Never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Mounted(BTreeMap<String, String>);

impl std::fmt::Debug for Mounted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Mounted {
    /// Reads the mounted Secrets.
    ///
    /// # Errors
    /// A file is missing or cannot be read.
    pub fn read(settings: &InstanceEnv) -> Result<Mounted, PostmasterError> {
        let app = App::read(settings)?;
        let mut all = BTreeMap::from([(app.user, app.password)]);
        all.extend(app.superuser.map(|password| (SUPERUSER.to_owned(), password)));
        Ok(Mounted(all))
    }

    /// Roles whose file is empty: their password is left as it is.
    #[must_use]
    pub fn empty(&self) -> Vec<&str> {
        self.0.iter().filter(|(_, password)| password.is_empty()).map(|(role, _)| role.as_str()).collect()
    }
}

/// What is done about the password of one role.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// The mounted one is in effect.
    Remember,
    /// The file is as it was, or nothing is known of an earlier one; the database has another password.
    Leave,
    /// The file was changed, or is the first one, and the database does not know it.
    Change,
}

/// Decides about one role, by the verifier that the database has and the one that was in effect last.
fn decide(mounted: &str, in_database: Option<&str>, remembered: Option<&str>) -> Step {
    if in_database.is_some_and(|verifier| is_verifier_of(verifier, mounted)) {
        Step::Remember
    } else if remembered.map_or(in_database.is_some(), |verifier| is_verifier_of(verifier, mounted)) {
        Step::Leave
    } else {
        Step::Change
    }
}

/// Whether roles can be changed here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Roles {
    /// On a primary.
    Writable,
    /// On a standby: they come from its primary.
    Replicated,
}

/// Gives the roles the passwords of a changed Secret, where that is possible. `true`: nothing is left to do while the files stay
/// as they are.
///
/// # Errors
/// Postgres refused, or the volume did.
pub async fn follow(
    settings: &InstanceEnv,
    sql: &Sql,
    mounted: &Mounted,
    roles: Roles,
) -> Result<bool, PostmasterError> {
    let path = settings.layout.passwords_json();
    let before: BTreeMap<String, String> = fsx::read_json(&path)?.unwrap_or_default();
    let in_database = read_verifiers(sql, mounted).await?;
    let (mut after, mut settled) = (before.clone(), true);
    for (role, password) in mounted.0.iter().filter(|(_, password)| !password.is_empty()) {
        let known = in_database.get(role).map(String::as_str);
        match decide(password, known, before.get(role).map(String::as_str)) {
            Step::Remember => after.extend(known.map(|verifier| (role.clone(), verifier.to_owned()))),
            Step::Leave => {
                after.entry(role.clone()).or_insert_with(|| scram_sha_256(password.as_bytes()));
            }
            Step::Change if roles == Roles::Writable => {
                let verifier = scram_sha_256(password.as_bytes());
                change(sql, role, &verifier).await?;
                tracing::info!(role, "the password of a role was changed to that of its Secret");
                after.insert(role.clone(), verifier);
            }
            Step::Change => settled = false,
        }
    }
    if after != before {
        fsx::write_json(&path, &after)?;
    }
    Ok(settled)
}

async fn read_verifiers(sql: &Sql, mounted: &Mounted) -> Result<BTreeMap<String, String>, PostmasterError> {
    const ASK: &str = "SELECT rolname::text, rolpassword FROM pg_catalog.pg_authid \
                       WHERE rolpassword IS NOT NULL AND rolname::text = ANY ($1)";
    let client = sql.session(None).await?;
    let roles: Vec<&str> = mounted.0.keys().map(String::as_str).collect();
    let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 1] = [&roles];
    let rows = within("read the verifiers of the passwords", LIMIT, client.query(ASK, &parameters)).await?;
    Ok(rows.iter().filter_map(|row| Some((row.try_get(0).ok()?, row.try_get(1).ok()?))).collect())
}

/// The server and its log get the verifier, never the password.
async fn change(sql: &Sql, role: &str, verifier: &str) -> Result<(), PostmasterError> {
    let text = format!("ALTER ROLE {} PASSWORD {}", escape_identifier(role), escape_literal(verifier));
    Ok(sql.batch_alone("change the password of a role", &text, LIMIT).await?)
}

/// A verifier with more rounds is taken for one of no password that we know: each costs, and the largest number would take an hour of
/// the agent's time. PostgreSQL makes 4096 unless told otherwise.
const MOST_ITERATIONS: u32 = 1_000_000;

/// Whether `verifier` (`SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>`, RFC 5803) is of this password. One of another
/// kind, md5 for instance, is of no password that we know.
fn is_verifier_of(verifier: &str, password: &str) -> bool {
    let stored_key = || {
        let rest = verifier.strip_prefix("SCRAM-SHA-256$")?;
        let (parameters, keys) = rest.split_once('$')?;
        let (iterations, salt) = parameters.split_once(':')?;
        let expected = BASE64_STANDARD.decode(keys.split_once(':')?.0).ok()?;
        let salt = BASE64_STANDARD.decode(salt).ok()?;
        let iterations: NonZeroU32 = iterations.parse().ok().filter(|n| u32::from(*n) <= MOST_ITERATIONS)?;
        let mut salted = [0; digest::SHA256_OUTPUT_LEN];
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, iterations, &salt, password.as_bytes(), &mut salted);
        let client_key = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &salted), b"Client Key");
        Some(digest::digest(&digest::SHA256, client_key.as_ref()).as_ref() == expected)
    };
    stored_key().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verifier_is_of_its_password_and_of_no_other() {
        let verifier = scram_sha_256(b"s3cret");
        assert!(is_verifier_of(&verifier, "s3cret"));
        for other in ["", "s3cre", "S3cret", &verifier] {
            assert!(!is_verifier_of(&verifier, other), "{other}");
        }
        for malformed in ["", "md5abc", "SCRAM-SHA-256$0:c2FsdA==$a:b", "SCRAM-SHA-256$4096:?$a:b"] {
            assert!(!is_verifier_of(malformed, "s3cret"), "{malformed}");
        }
    }

    #[test]
    fn a_verifier_that_costs_too_much_is_of_no_password() {
        let of_rounds = |rounds: u32| {
            let mut salted = [0; digest::SHA256_OUTPUT_LEN];
            let iterations = NonZeroU32::new(rounds).unwrap();
            pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, iterations, b"salt", b"s3cret", &mut salted);
            let client_key = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &salted), b"Client Key");
            let stored = BASE64_STANDARD.encode(digest::digest(&digest::SHA256, client_key.as_ref()));
            format!("SCRAM-SHA-256${rounds}:{}${stored}:x", BASE64_STANDARD.encode(b"salt"))
        };
        assert!(is_verifier_of(&of_rounds(4096), "s3cret"));
        assert!(!is_verifier_of(&of_rounds(MOST_ITERATIONS + 1), "s3cret"));
    }

    #[test]
    fn only_a_file_that_was_changed_changes_a_password() {
        let (old, new, by_hand) = (scram_sha_256(b"old"), scram_sha_256(b"new"), scram_sha_256(b"by hand"));
        let decide = |db: &str, remembered: Option<&str>| decide("new", Some(db), remembered);
        assert_eq!(decide(&new, Some(&old)), Step::Remember);
        assert_eq!(decide(&old, Some(&old)), Step::Change, "the Secret was changed");
        assert_eq!(decide(&by_hand, Some(&new)), Step::Leave, "changed by ALTER ROLE only");
        assert_eq!(decide(&by_hand, None), Step::Leave, "nothing is known of an earlier file");
        assert_eq!(super::decide("new", None, Some(&old)), Step::Change);
        assert_eq!(super::decide("new", None, Some(&new)), Step::Leave, "taken away by ALTER ROLE");
        assert_eq!(super::decide("new", None, None), Step::Change, "the first password of the role");
    }
}
