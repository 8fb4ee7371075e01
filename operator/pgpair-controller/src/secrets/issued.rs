//! The certificate that cert-manager is asked for, while the spec names an issuer.

use std::time::{Duration, Instant};

use pgpair_api::validate::ValidatedPair;

use crate::api::Requests;
use crate::apply::apply_over;
use crate::build::issued::{IssuedCertificate, build_issued};
use crate::error::{Error, MayBeRefusal};
use crate::managed;
use crate::memory::Memory;
use crate::ownership::is_own;

/// How often it is looked at, because no watch brings it; also how soon it is seen that the kind was installed.
const AGAIN: Duration = Duration::from_secs(60);

/// What is known of the object that is asked with.
#[derive(Debug, Clone, Default)]
pub struct Issued {
    /// What was asked for, and when that was looked at last.
    looked: Option<(IssuedCertificate, Instant)>,
    /// The API server does not know the kind.
    pub is_kind_missing: bool,
}

/// Asks for the certificate of the spec, or takes the question back. A kind that is not installed is no failure: the pair has a certificate of its own.
///
/// # Errors
/// A request failed, or the object is another owner's.
pub async fn apply_issued(
    requests: &Requests,
    pair: &ValidatedPair,
    memory: &mut Memory,
    has_shown: bool,
) -> Result<(), Error> {
    let Some(issuer) = &pair.tls.issuer_ref else {
        if memory.issued.looked.is_some() || has_shown {
            withdraw(requests, pair).await?;
        }
        memory.issued = Issued::default();
        return Ok(());
    };
    let wanted = build_issued(pair, issuer);
    if memory.issued.looked.as_ref().is_some_and(|(before, at)| *before == wanted && at.elapsed() < AGAIN) {
        return Ok(());
    }
    let mut found = requests.get_metadata::<IssuedCertificate>(&pair.name.server_certificate()).await?;
    found.iter_mut().for_each(managed::condense);
    match apply_over(requests, memory, pair, found.as_ref(), &wanted).await {
        Ok(()) => memory.issued.is_kind_missing = false,
        Err(error) if error.is_refused_with(404) => {
            if !memory.issued.is_kind_missing {
                tracing::warn!(
                    "the API server does not know cert-manager.io/v1 Certificate: is cert-manager installed?"
                );
            }
            memory.issued.is_kind_missing = true;
        }
        Err(error) => return Err(error),
    }
    memory.issued.looked = Some((wanted, Instant::now()));
    Ok(())
}

async fn withdraw(requests: &Requests, pair: &ValidatedPair) -> Result<(), Error> {
    let name = pair.name.server_certificate();
    let found = requests.get_metadata::<IssuedCertificate>(&name).await?;
    match found.filter(|meta| is_own(pair, meta)) {
        Some(_) => requests.delete::<IssuedCertificate>(&name).await,
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::fixtures::valid;
    use crate::metrics::Metrics;
    use crate::mock_api::{Answers, Seen, mock_api, store_api};

    const PATH: &str = "/apis/cert-manager.io/v1/namespaces/shop/certificates/orders-server";

    #[tokio::test]
    async fn cert_manager_is_asked_once_and_the_question_is_taken_back_with_the_field() {
        let (client, store) = store_api();
        let requests = Requests::new(client, "shop", Arc::new(Metrics::default()));
        let pair = valid(json!({"tls": {"issuerRef": {"name": "company"}}}));
        assert_eq!(pair.server_secret().as_deref(), Some("orders-server-tls"));
        let mut memory = Memory::default();
        apply_issued(&requests, &pair, &mut memory, false).await.unwrap();
        let asked = store.objects().get(PATH).cloned().unwrap();
        assert_eq!(asked["spec"]["secretName"], "orders-server-tls");
        assert_eq!(asked["metadata"]["ownerReferences"][0]["kind"], "PgReplicaPair");
        let requests_before = store.requests();
        apply_issued(&requests, &pair, &mut memory, false).await.unwrap();
        assert_eq!(store.requests(), requests_before);
        let without = valid(json!({}));
        apply_issued(&requests, &without, &mut memory, false).await.unwrap();
        assert!(store.objects().get(PATH).is_none());
        let requests_before = store.requests();
        apply_issued(&requests, &without, &mut memory, false).await.unwrap();
        assert_eq!(store.requests(), requests_before, "there is nothing to take back any more");
        // Another process asked, and postgres shows what came of it.
        store.objects().insert(PATH.into(), asked);
        apply_issued(&requests, &without, &mut Memory::default(), true).await.unwrap();
        assert!(store.objects().get(PATH).is_none());
    }

    #[tokio::test]
    async fn a_question_that_stands_is_looked_at_and_not_written_again_until_somebody_changes_it() {
        let (client, store) = store_api();
        let requests = Requests::new(client, "shop", Arc::new(Metrics::default()));
        let pair = valid(json!({"tls": {"issuerRef": {"name": "company"}}}));
        let mut memory = Memory::default();
        apply_issued(&requests, &pair, &mut memory, false).await.unwrap();
        let asked = store.objects().get(PATH).cloned().unwrap();
        for (version, written) in [(None, 0), (Some("9"), 1)] {
            memory.issued.looked = None; // a minute later
            if let Some(version) = version {
                store.objects().get_mut(PATH).unwrap()["metadata"]["resourceVersion"] = json!(version);
            }
            let before = store.requests();
            apply_issued(&requests, &pair, &mut memory, false).await.unwrap();
            assert_eq!(store.requests() - before, 1 + written);
            assert_eq!(store.objects().get(PATH), Some(&asked));
        }
    }

    #[tokio::test]
    async fn a_question_of_another_owner_is_left_alone() {
        let (client, store) = store_api();
        let requests = Requests::new(client, "shop", Arc::new(Metrics::default()));
        let foreign = json!({
            "apiVersion": "cert-manager.io/v1", "kind": "Certificate", "metadata": {"name": "orders-server"}, "spec": {},
        });
        store.objects().insert(PATH.into(), foreign.clone());
        let pair = valid(json!({"tls": {"issuerRef": {"name": "company"}}}));
        let error = apply_issued(&requests, &pair, &mut Memory::default(), false).await.unwrap_err();
        assert!(error.to_string().contains("orders-server"), "{error}");
        apply_issued(&requests, &valid(json!({})), &mut Memory::default(), true).await.unwrap();
        assert_eq!(store.objects().get(PATH), Some(&foreign));
    }

    #[tokio::test]
    async fn a_kind_that_is_not_installed_is_noted_and_no_failure() {
        let (client, server) = mock_api(Answers::Refuses("certificates", 404));
        let requests = Requests::new(client, "shop", Arc::new(Metrics::default()));
        let pair = valid(json!({"tls": {"issuerRef": {"name": "company"}}}));
        let mut memory = Memory::default();
        for _ in 0..2 {
            apply_issued(&requests, &pair, &mut memory, false).await.unwrap();
            assert!(memory.issued.is_kind_missing);
        }
        apply_issued(&requests, &valid(json!({})), &mut memory, false).await.unwrap();
        assert!(!memory.issued.is_kind_missing);
        drop(requests);
        let writes = server.await.unwrap().into_iter().filter(Seen::is_write);
        assert_eq!(writes.count(), 1, "it is not tried again at once");
    }
}
