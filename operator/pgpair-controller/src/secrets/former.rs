//! What earlier versions of the operator kept beside the pair, and is in the operator's own namespace now. It is moved in this order, and every
//! part may run twice: the authority is written to its new place; it is read back; only then the old Secret is deleted, and only if it
//! still is what was read. The operator's certificate is not moved but made anew, because others could read its key.

use k8s_openapi::api::core::v1::Secret;
use kube::Resource;
use pgpair_api::validate::ValidatedPair;

use super::authority::{self, CertificateAuthority, fetch_instances};
use super::party::{Annotations, Party, text};
use super::place::Place;
use crate::api::Requests;
use crate::certificates::rotation::is_estranged;
use crate::error::Error;
use crate::ownership::is_own;

/// The authority beside the pair, if there is one that the pair owns and whose certificates the instances use. A label alone is not
/// enough: whoever may create Secrets there can set it, and would know the key.
///
/// # Errors
/// A request failed.
pub(super) async fn find_authority(
    requests: &Requests,
    pair: &ValidatedPair,
) -> Result<Option<CertificateAuthority>, Error> {
    let name = pair.name.former_authority_secret();
    let Some(secret) = requests.get::<Secret>(&name).await?.filter(|secret| is_controlled(pair, secret))
    else {
        return Ok(None);
    };
    let Ok(authority) = CertificateAuthority::from_secret(&secret, &name) else {
        tracing::warn!(
            secret = name,
            "the authority of an earlier version cannot be read: another one follows it"
        );
        return Ok(None);
    };
    let is_in_use = !is_estranged(&authority.view, &fetch_instances(requests, pair).await?);
    Ok(Some(authority).filter(|_| is_in_use))
}

fn is_controlled(pair: &ValidatedPair, secret: &Secret) -> bool {
    let mut owners = secret.metadata.owner_references.iter().flatten();
    owners.any(|owner| owner.controller == Some(true) && owner.uid == pair.owner.uid)
}

/// Deletes what is beside the pair and has its place elsewhere by now. `known` as in [`super::apply_secrets`].
///
/// # Errors
/// A request failed, there is nothing yet in the new place, or the old one was changed meanwhile.
pub(super) async fn delete(
    requests: &Requests,
    pair: &ValidatedPair,
    known: impl Fn(&Place) -> Option<Annotations>,
) -> Result<(), Error> {
    let [authority, operator] = Place::former(pair);
    if known(&authority).is_some()
        && let Some(old) = find_own(requests, pair, &authority).await?
    {
        let new = authority::fetch(requests, pair).await?;
        if !is_estranged(&new.view, &fetch_instances(requests, pair).await?) {
            delete_old(requests, pair, &old).await?;
        }
    }
    if known(&operator).is_some()
        && let Some(old) = find_own(requests, pair, &operator).await?
    {
        let place = Place::of(Party::Operator, pair);
        let new = place.requests(requests, pair).get::<Secret>(place.name()).await?.unwrap_or_default();
        text(&new, &place.told(pair), "tls.key")?;
        delete_old(requests, pair, &old).await?;
    }
    Ok(())
}

async fn find_own(requests: &Requests, pair: &ValidatedPair, place: &Place) -> Result<Option<Secret>, Error> {
    Ok(requests.get::<Secret>(place.name()).await?.filter(|secret| is_own(pair, secret.meta())))
}

async fn delete_old(requests: &Requests, pair: &ValidatedPair, old: &Secret) -> Result<(), Error> {
    requests.delete_as_read::<Secret>(old.meta()).await?;
    tracing::info!(
        secret = old.metadata.name,
        to = pair.operator_namespace,
        "what this Secret held is in the operator's namespace, and it is deleted here"
    );
    Ok(())
}
