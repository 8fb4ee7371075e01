//! The Secrets of a pair: made when they are missing, renewed when they near their end, else never touched.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use pgpair_api::names::{ANNOTATION_RENEW_AFTER, OPERATOR_CN, POSTGRES_PORT, REPLICATION_ROLE};
use pgpair_api::validate::ValidatedPair;
use pgpair_core::ids::InstanceId;
use rand::distr::{Alphanumeric, SampleString};

use crate::api::{Created, Requests};
use crate::build::owned;
use crate::certificates::{Pem, RENEW_AFTER, new_authority, new_leaf};
use crate::error::Error;

/// Length of generated passwords: 32 of 62 characters are 190 bits.
const PASSWORD_LENGTH: usize = 32;

/// What is known about a Secret without reading its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SecretView {
    /// There is none.
    Missing,
    /// There is one, with nothing to do about it.
    Good,
    /// Its certificate nears its end.
    Expiring,
}

/// Whether a Secret with these annotations needs a new certificate.
#[must_use]
pub fn view(annotations: &BTreeMap<String, String>, now: Timestamp) -> SecretView {
    match annotations.get(ANNOTATION_RENEW_AFTER).map(|text| text.parse::<Timestamp>()) {
        Some(Ok(at)) if at <= now => SecretView::Expiring,
        _ => SecretView::Good,
    }
}

/// Makes what is missing or expiring; `known` tells by name. Reads the authority only when it signs.
///
/// # Errors
/// A request failed, or the authority cannot sign.
pub async fn ensure(
    requests: &Requests,
    pair: &ValidatedPair,
    known: impl Fn(&str) -> SecretView,
    now: Timestamp,
) -> Result<(), Error> {
    let certified = [
        (pair.name.tls_secret(InstanceId::A), Some(InstanceId::A)),
        (pair.name.tls_secret(InstanceId::B), Some(InstanceId::B)),
        (pair.name.operator_tls_secret(), None),
    ];
    let wanting: Vec<_> = certified.into_iter().filter(|(name, _)| known(name) != SecretView::Good).collect();
    let app_missing = known(&pair.name.app_secret()) == SecretView::Missing;
    if wanting.is_empty() && !app_missing && known(&pair.name.ca_secret()) == SecretView::Good {
        return Ok(());
    }
    let ca = ensure_authority(requests, pair, now).await?;
    for (name, instance) in wanting {
        let secret = build_tls(pair, &name, instance, &ca, now).map_err(|e| certificates(pair, e))?;
        match known(&name) {
            SecretView::Missing => {
                requests.create(&secret).await?;
            }
            SecretView::Good | SecretView::Expiring => {
                requests.apply(&secret).await?;
            }
        }
    }
    if app_missing {
        let password = Alphanumeric.sample_string(&mut rand::rng(), PASSWORD_LENGTH);
        requests.create(&build_app(pair, &password, &ca.certificate)).await?;
    }
    Ok(())
}

async fn ensure_authority(requests: &Requests, pair: &ValidatedPair, now: Timestamp) -> Result<Pem, Error> {
    let name = pair.name.ca_secret();
    if let Some(secret) = requests.get::<Secret>(&name).await? {
        return read_authority(&secret, &name);
    }
    let ca = new_authority(&format!("pgpair {}", pair.name.name), now).map_err(|e| certificates(pair, e))?;
    let secret = build_secret(pair, &name, [("ca.crt", ca.certificate.clone()), ("ca.key", ca.key.clone())]);
    match requests.create(&secret).await? {
        Created::Yes => Ok(ca),
        Created::AlreadyExists => {
            let secret = requests.get::<Secret>(&name).await?.unwrap_or_default();
            read_authority(&secret, &name)
        }
    }
}

fn read_authority(secret: &Secret, name: &str) -> Result<Pem, Error> {
    Ok(Pem { certificate: text(secret, name, "ca.crt")?, key: text(secret, name, "ca.key")? })
}

/// The text below `key` of a Secret.
///
/// # Errors
/// There is none, or it is no UTF-8.
pub fn text(secret: &Secret, name: &str, key: &'static str) -> Result<String, Error> {
    let bytes = secret.data.as_ref().and_then(|data| data.get(key)).map(|b| b.0.clone());
    bytes.and_then(|b| String::from_utf8(b).ok()).ok_or_else(|| Error::Secret { name: name.to_owned(), key })
}

fn certificates(pair: &ValidatedPair, source: rcgen::Error) -> Error {
    Error::Certificates { pair: pair.name.name.clone(), source }
}

fn build_tls(
    pair: &ValidatedPair,
    name: &str,
    instance: Option<InstanceId>,
    ca: &Pem,
    now: Timestamp,
) -> Result<Secret, rcgen::Error> {
    let mut data = vec![("ca.crt", ca.certificate.clone())];
    let leaf = match instance {
        Some(i) => new_leaf(ca, &pair.name.instance(i), pair.name.certificate_names(i), now)?,
        None => new_leaf(ca, OPERATOR_CN, Vec::new(), now)?,
    };
    data.extend([("tls.crt", leaf.certificate), ("tls.key", leaf.key)]);
    if instance.is_some() {
        let replication = new_leaf(ca, REPLICATION_ROLE, Vec::new(), now)?;
        data.extend([("replication.crt", replication.certificate), ("replication.key", replication.key)]);
    }
    let mut secret = build_secret(pair, name, data);
    let renew = now.checked_add(RENEW_AFTER).unwrap_or(now);
    secret.metadata.annotations =
        Some(BTreeMap::from([(ANNOTATION_RENEW_AFTER.to_owned(), renew.to_string())]));
    Ok(secret)
}

/// User, password and address for applications.
fn build_app(pair: &ValidatedPair, password: &str, ca: &str) -> Secret {
    let host = format!("{}.{}.svc", pair.name.rw(), pair.name.namespace);
    let (user, database) = (&pair.database_owner, &pair.database);
    let data = [
        ("username", user.clone()),
        ("password", password.to_owned()),
        ("dbname", database.clone()),
        ("host", host.clone()),
        ("port", POSTGRES_PORT.to_string()),
        ("uri", format!("postgresql://{user}:{password}@{host}:{POSTGRES_PORT}/{database}?sslmode=require")),
        ("ca.crt", ca.to_owned()),
    ];
    build_secret(pair, &pair.name.app_secret(), data)
}

fn build_secret(
    pair: &ValidatedPair,
    name: &str,
    data: impl IntoIterator<Item = (&'static str, String)>,
) -> Secret {
    let data = data.into_iter().map(|(k, v)| (k.to_owned(), ByteString(v.into_bytes()))).collect();
    Secret {
        metadata: owned(pair, name, pair.name.labels()),
        type_: Some("Opaque".into()),
        data: Some(data),
        ..Secret::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_certificate_past_its_time_is_renewed() {
        let now: Timestamp = "2026-03-01T00:00:00Z".parse().unwrap();
        let with =
            |text: &str| view(&BTreeMap::from([(ANNOTATION_RENEW_AFTER.to_owned(), text.to_owned())]), now);
        assert_eq!(with("2026-02-28T23:59:59Z"), SecretView::Expiring);
        assert_eq!(with("2026-03-01T00:00:01Z"), SecretView::Good);
        assert_eq!(with("soon"), SecretView::Good);
        assert_eq!(view(&BTreeMap::new(), now), SecretView::Good);
    }
}
