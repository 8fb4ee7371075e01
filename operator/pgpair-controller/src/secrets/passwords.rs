//! Passwords of roles: read in the Secrets that hold them, and kept as verifiers in Secret `NAME-verifiers`, which is all that the pods of the
//! instances get. Which Secrets were read, and what of each, stands in an annotation of that Secret, so that nothing is read again
//! while nothing is new.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::core::ObjectMeta;
use kube::{Resource, ResourceExt};
use pgpair_api::names::{ANNOTATION_PASSWORDS, ANNOTATION_ROTATED_BY, GROUP};
use pgpair_api::spec::RoleSpec;
use pgpair_api::validate::ValidatedPair;
use pgpair_wire::scram::{GivenPassword, GivenPasswords, VERIFIERS_KEY, Verifier, Verifiers};
use serde::{Deserialize, Serialize};

use super::clients::{build_strings, generate_password};
use super::party::{Annotations, ClientRole, build_secret, text};
use crate::api::Requests;
use crate::certificates::digest;
use crate::error::Error;
use crate::ownership::{self, is_own};
use crate::plan::Rotation;

/// The key of a Secret with the password.
const PASSWORD: &str = "password";

/// Where the password of a role is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The role.
    pub role: String,
    /// The Secret.
    pub secret: String,
    /// Whose it is.
    pub keeper: Keeper,
}

/// Whose a Secret with a password is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keeper {
    /// The operator's, for clients with this role.
    Operator(ClientRole),
    /// A person's: it is read, and never written. No watch brings it.
    Person,
}

impl Source {
    /// Of each role of the pair with a password; that of the owner of the application's database first.
    #[must_use]
    pub fn of(pair: &ValidatedPair) -> Vec<Source> {
        let app = Source {
            role: pair.database_owner.clone(),
            secret: pair.name.app_secret(),
            keeper: Keeper::Operator(ClientRole::Application),
        };
        let superuser = pair.config().superuser_access.then(|| Source {
            role: "postgres".into(),
            secret: pair.name.superuser_secret(),
            keeper: Keeper::Operator(ClientRole::Superuser),
        });
        let of_person = |role: &RoleSpec| {
            let secret = role.password_secret.clone()?;
            Some(Source { role: role.name.clone(), secret, keeper: Keeper::Person })
        };
        [Some(app), superuser].into_iter().flatten().chain(pair.roles.iter().filter_map(of_person)).collect()
    }

    async fn read(&self, requests: &Requests, pair: &ValidatedPair) -> Result<Option<Secret>, Error> {
        let found = requests.get::<Secret>(&self.secret).await?;
        Ok(found.filter(|secret| self.keeper == Keeper::Person || is_own(pair, &secret.metadata)))
    }
}

/// What was found in the Secret of a role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Found {
    /// A password.
    Password,
    /// The Secret is not there.
    NoSecret,
    /// It has no password of one line.
    NoPassword,
}

/// What is known of the password of a role.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Which version of which Secret was read.
    from: String,
    /// What was found there.
    pub found: Found,
    /// Of the verifier of the last password that was found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mark: Option<String>,
    /// When that password was found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
}

impl Entry {
    /// Whether the Secret is as it was when it was read; `None`: there is none.
    #[must_use]
    pub fn is_of(&self, secret: &str, meta: Option<&ObjectMeta>) -> bool {
        self.from == version(secret, meta)
    }
}

/// What is known of all passwords, by role.
pub type Ledger = BTreeMap<String, Entry>;

/// What the annotations of Secret `NAME-verifiers` say; empty: nothing that can be read.
#[must_use]
pub fn read_ledger(meta: &ObjectMeta) -> Ledger {
    let text = meta.annotations.as_ref().and_then(|all| all.get(ANNOTATION_PASSWORDS));
    text.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
}

/// Keeps the verifiers as the Secrets of the passwords are. A password that is missing changes nothing. `known` gives the metadata of a Secret
/// by its name, `None` if there is no such Secret; contents are read only when one of them has changed.
///
/// # Errors
/// A request failed, or Secret `NAME-verifiers` is not the pair's.
pub async fn apply_passwords(
    requests: &Requests,
    pair: &ValidatedPair,
    known: impl Fn(&str) -> Option<ObjectMeta>,
    now: Timestamp,
) -> Result<(), Error> {
    let sources = Source::of(pair);
    let ledger = known(&pair.name.verifiers_secret()).map(|meta| read_ledger(&meta)).unwrap_or_default();
    let is_read = |source: &Source| {
        let meta = known(&source.secret);
        ledger.get(&source.role).is_some_and(|entry| entry.is_of(&source.secret, meta.as_ref()))
    };
    if sources.len() == ledger.len() && sources.iter().all(is_read) {
        return Ok(());
    }
    let current = requests.get::<Secret>(&pair.name.verifiers_secret()).await?;
    let ours = current.as_ref().filter(|secret| is_own(pair, &secret.metadata));
    let before = Before {
        verifiers: ours.map(read_verifiers).unwrap_or_default(),
        ledger: ours.map(|secret| read_ledger(&secret.metadata)).unwrap_or_default(),
    };
    let (mut verifiers, mut ledger) = (Verifiers::new(), Ledger::new());
    for source in sources {
        let secret = source.read(requests, pair).await?;
        let secret = match secret {
            Some(secret) => Some(follow_password(requests, pair, &source, secret).await?),
            None => None,
        };
        let (entry, verifier) = before.follow(&source, secret.as_ref(), now);
        ledger.insert(source.role.clone(), entry);
        verifiers.extend(verifier.map(|verifier| (source.role, verifier)));
    }
    if ours.is_some() && (&before.verifiers, &before.ledger) == (&verifiers, &ledger) {
        return Ok(()); // the cache was behind
    }
    let secret = build_verifiers(pair, &verifiers, &ledger)?;
    ownership::apply(requests, pair, &secret, ours.map(Resource::meta)).await.map(|_| ())
}

/// What stood in Secret `NAME-verifiers`.
struct Before {
    verifiers: Verifiers,
    ledger: Ledger,
}

impl Before {
    /// The verifier stays while it is of the password, and while there is no password.
    fn follow(&self, source: &Source, secret: Option<&Secret>, now: Timestamp) -> (Entry, Option<Verifier>) {
        let from = version(&source.secret, secret.map(Resource::meta));
        let old = self.verifiers.get(&source.role).cloned();
        let since = self.ledger.get(&source.role).and_then(|entry| entry.since);
        let (found, verifier) = match secret.map(|secret| password_of(secret, &source.secret)) {
            None => (Found::NoSecret, old.clone()),
            Some(None) => (Found::NoPassword, old.clone()),
            Some(Some(password)) => {
                let kept = old.clone().filter(|old| old.is_of(&password));
                (Found::Password, kept.or_else(|| Verifier::make(&password).ok()))
            }
        };
        let is_same = verifier.is_some() && verifier == old;
        let since = since.filter(|_| is_same).or_else(|| verifier.is_some().then_some(now));
        let mark = verifier.as_ref().map(Verifier::mark);
        (Entry { from, found, mark, since }, verifier)
    }
}

/// A Secret for clients whose password was changed: the strings that contain it follow.
async fn follow_password(
    requests: &Requests,
    pair: &ValidatedPair,
    source: &Source,
    secret: Secret,
) -> Result<Secret, Error> {
    let Keeper::Operator(client) = source.keeper else { return Ok(secret) };
    let Some(password) = password_of(&secret, &source.secret) else { return Ok(secret) };
    let data = with_strings(pair, client, &secret, &password);
    if Some(&data) == secret.data.as_ref() {
        return Ok(secret);
    }
    apply_clients(requests, pair, &secret, data, own_annotations(&secret)).await
}

/// Makes another password, unless that was done for this word already.
///
/// # Errors
/// A request failed, or the Secret has changed meanwhile.
pub async fn rotate(requests: &Requests, pair: &ValidatedPair, rotation: &Rotation) -> Result<(), Error> {
    let source = Source::of(pair).into_iter().find(|source| source.role == rotation.role);
    let Some(source) = source else { return Ok(()) };
    let Keeper::Operator(client) = source.keeper else { return Ok(()) };
    // One that is missing is made, with another password, by another step.
    let Some(secret) = source.read(requests, pair).await? else { return Ok(()) };
    let mut annotations = own_annotations(&secret);
    let before = annotations.insert(ANNOTATION_ROTATED_BY.to_owned(), rotation.word.clone());
    if before.as_ref() == Some(&rotation.word) {
        return Ok(());
    }
    let password = generate_password();
    let mut data = with_strings(pair, client, &secret, &password);
    data.insert(PASSWORD.to_owned(), ByteString(password.into_bytes()));
    apply_clients(requests, pair, &secret, data, annotations).await?;
    tracing::info!(
        role = source.role,
        secret = source.secret,
        word = rotation.word,
        "a password was made anew"
    );
    Ok(())
}

type Data = BTreeMap<String, ByteString>;

fn with_strings(pair: &ValidatedPair, client: ClientRole, secret: &Secret, password: &str) -> Data {
    let strings = build_strings(pair, client, password).into_iter();
    let strings = strings.map(|(key, text)| (key.to_owned(), ByteString(text.into_bytes())));
    secret.data.clone().unwrap_or_default().into_iter().chain(strings).collect()
}

fn own_annotations(secret: &Secret) -> Annotations {
    let ours = |key: &str| key.split_once('/').is_some_and(|(group, _)| group == GROUP);
    let all = secret.annotations().iter().filter(|(key, _)| ours(key));
    all.map(|(key, value)| (key.clone(), value.clone())).collect()
}

/// All of it is applied, over the version that was read: what is left out of an apply would be taken away.
async fn apply_clients(
    requests: &Requests,
    pair: &ValidatedPair,
    secret: &Secret,
    data: Data,
    annotations: Annotations,
) -> Result<Secret, Error> {
    let mut changed = build_secret(pair, &secret.name_any(), [], annotations);
    changed.data = Some(data);
    changed.metadata.resource_version = secret.resource_version();
    ownership::apply(requests, pair, &changed, Some(secret.meta())).await
}

fn build_verifiers(pair: &ValidatedPair, verifiers: &Verifiers, ledger: &Ledger) -> Result<Secret, Error> {
    let json = |text: Result<String, serde_json::Error>| text.map_err(|source| Error::Config { source });
    let data = [
        ("username", pair.database_owner.clone()),
        ("dbname", pair.database.clone()),
        (VERIFIERS_KEY, json(serde_json::to_string(verifiers))?),
    ];
    let annotations =
        BTreeMap::from([(ANNOTATION_PASSWORDS.to_owned(), json(serde_json::to_string(ledger))?)]);
    Ok(build_secret(pair, &pair.name.verifiers_secret(), data, annotations))
}

/// The passwords for an agent: those whose Secrets are as they were when their verifiers were made.
///
/// # Errors
/// A request failed.
pub async fn fetch_passwords(requests: &Requests, pair: &ValidatedPair) -> Result<GivenPasswords, Error> {
    let Some(kept) = requests.get::<Secret>(&pair.name.verifiers_secret()).await? else {
        return Ok(GivenPasswords::new());
    };
    let mut verifiers = if is_own(pair, &kept.metadata) { read_verifiers(&kept) } else { Verifiers::new() };
    let mut given = GivenPasswords::new();
    for source in Source::of(pair) {
        let Some(verifier) = verifiers.remove(&source.role) else { continue };
        let secret = source.read(requests, pair).await?;
        let password = secret.and_then(|secret| password_of(&secret, &source.secret));
        if let Some(password) = password.filter(|password| verifier.is_of(password)) {
            given.insert(source.role, GivenPassword::new(verifier, &password));
        }
    }
    Ok(given)
}

fn read_verifiers(secret: &Secret) -> Verifiers {
    let text = secret.data.as_ref().and_then(|data| data.get(VERIFIERS_KEY));
    text.and_then(|text| serde_json::from_slice(&text.0).ok()).unwrap_or_default()
}

/// One line: files often end with a line break, a password never does.
pub(super) fn password_of(secret: &Secret, name: &str) -> Option<String> {
    let text = text(secret, name, PASSWORD).ok()?;
    let password = text.trim_end_matches(['\n', '\r']);
    (!password.is_empty() && !password.contains(['\n', '\r', '\0'])).then(|| password.to_owned())
}

/// Which version of a Secret it is, or that there is none.
fn version(secret: &str, meta: Option<&ObjectMeta>) -> String {
    let version = meta.map(|meta| meta.resource_version.as_deref().unwrap_or_default());
    digest(format!("{secret}/{version:?}").as_bytes())
}

#[cfg(test)]
mod tests;
