use std::sync::Arc;

use jiff::SignedDuration;
use pgpair_api::order::CertificateKind;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::{CertificateError, RootCertStore};
use serde_json::{Value, json};

use super::*;
use crate::certificates::certificates;
use crate::certificates::rotation::SPREAD;
use crate::fixtures::{CA, OPERATOR_TLS, now, secret_path, valid};
use crate::metrics::Metrics;
use crate::mock_api::{Store, store_api};
use crate::plan::Reissuing;
use pgpair_core::ids::InstanceId;

mod moved;

const CERTIFIED: [&str; 4] = ["orders-a-tls", "orders-b-tls", OPERATOR_TLS, ROLE_TLS];
const BUNDLED: [&str; 6] =
    ["orders-a-tls", "orders-b-tls", OPERATOR_TLS, ROLE_TLS, "orders-app", "orders-superuser"];
/// Of role `daily_report`.
const ROLE_TLS: &str = "orders.role-daily-report-tls";

/// The operator and the Secrets of one namespace.
struct Shop {
    requests: Requests,
    store: Store,
    pair: ValidatedPair,
    extent: Extent,
}

impl Shop {
    /// One whose superuser may log in, and a role by a certificate, unless `spec` says otherwise.
    fn new(mut spec: Value) -> Shop {
        let access = &mut spec["bootstrap"]["superuserAccess"];
        if access.is_null() {
            *access = true.into();
        }
        if spec["roles"].is_null() {
            spec["roles"] = json!([{"name": "daily_report", "certificate": true}, {"name": "audit"}]);
        }
        let (client, store) = store_api();
        let requests = Requests::new(client, "shop", Arc::new(Metrics::default()));
        Shop { requests, store, pair: valid(spec), extent: Extent::Spec }
    }

    fn path(name: &str) -> String {
        secret_path(name)
    }

    fn secret(&self, name: &str) -> Option<Secret> {
        let path = Self::path(name).replace("pgpair-system", &self.pair.operator_namespace);
        let stored = self.store.objects().get(&path).cloned();
        stored.map(|value| serde_json::from_value(value).unwrap())
    }

    fn put(&self, name: &str, data: &Value) {
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "data": data});
        self.store.objects().insert(Self::path(name), secret);
    }

    fn label(&self, name: &str, labels: &Value) {
        self.store.objects().get_mut(&Self::path(name)).unwrap()["metadata"]["labels"] = labels.clone();
    }

    fn delete(&self, name: &str) {
        self.store.objects().remove(&Self::path(name));
    }

    fn text(&self, name: &str, key: &'static str) -> String {
        text(&self.secret(name).unwrap(), name, key).unwrap()
    }

    async fn ensure(&self, now: Timestamp) -> Result<(), Error> {
        let known = |place: &Place| self.secret(place.name()).map(|s| s.annotations().clone());
        apply_secrets(&self.requests, &self.pair, self.extent, known, now).await
    }

    /// Every party accepts the certificate of every other one, as the agents' TLS judges it.
    fn check_that_all_trust_each_other(&self, now: Timestamp) {
        for judge in BUNDLED {
            for user in CERTIFIED {
                let judged = judge_by(&self.text(judge, "ca.crt"), &self.text(user, "tls.crt"), now);
                judged.unwrap_or_else(|e| panic!("{judge} does not accept {user}: {e}"));
            }
        }
    }
}

/// Whether one who trusts this bundle accepts a certificate.
fn judge_by(bundle: &str, certificate: &str, now: Timestamp) -> Result<(), rustls::Error> {
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(bundle.as_bytes()) {
        roots.add(root.unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider).build().unwrap();
    let leaf = CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap();
    let since = std::time::Duration::from_secs(now.as_second().try_into().unwrap());
    verifier.verify_client_cert(&leaf, &[], UnixTime::since_unix_epoch(since)).map(|_| ())
}

#[tokio::test]
async fn a_new_pair_gets_its_secrets_at_once_and_then_nothing_is_asked_or_written() {
    let shop = Shop::new(json!({"tls": {"dnsNames": ["db.example.com"]}}));
    shop.ensure(now()).await.unwrap();
    shop.check_that_all_trust_each_other(now());
    let before = shop.store.requests();
    let later = now() + SignedDuration::from_hours(59 * 24);
    shop.ensure(later).await.unwrap();
    assert_eq!(shop.store.requests(), before);
    let known = |place: &Place| shop.secret(place.name()).map(|s| s.annotations().clone());
    let ends = read_ends(&shop.pair, known);
    assert_eq!(ends.len(), 5);
    assert_eq!(ends[0], ("orders-a-tls".into(), now() + SignedDuration::from_hours(90 * 24)));
}

#[tokio::test]
async fn only_the_operators_secret_holds_the_key_of_the_authority() {
    let shop = Shop::new(json!({}));
    shop.ensure(now()).await.unwrap();
    let key = shop.text(CA, "ca.key");
    assert!(key.contains("PRIVATE KEY"));
    for name in BUNDLED {
        let data = shop.secret(name).unwrap().data.unwrap();
        assert!(data.values().all(|v| v.0 != key.as_bytes()), "{name}");
    }
}

#[tokio::test]
async fn a_certificate_is_renewed_thirty_days_before_its_end_and_the_passwords_stay() {
    let shop = Shop::new(json!({}));
    shop.ensure(now()).await.unwrap();
    let (old, password) = (shop.text("orders-a-tls", "tls.crt"), shop.text("orders-app", "password"));
    let later = now() + SignedDuration::from_hours(60 * 24 + 1);
    shop.ensure(later).await.unwrap();
    assert_ne!(shop.text("orders-a-tls", "tls.crt"), old);
    assert_eq!(shop.text("orders-app", "password"), password);
    shop.check_that_all_trust_each_other(later);
}

#[tokio::test]
async fn upkeep_renews_certificates_for_the_names_that_they_have_and_makes_no_password() {
    let mut shop = Shop::new(json!({"tls": {"dnsNames": ["db.example.com", "10.0.0.7"]}}));
    shop.ensure(now()).await.unwrap();
    let names = |shop: &Shop| crate::certificates::names_of(&shop.text("orders-a-tls", "tls.crt")).unwrap();
    let (old, before) = (shop.text("orders-a-tls", "tls.crt"), names(&shop));
    assert!(before.contains(&"10.0.0.7".to_owned()));
    (shop.pair, shop.extent) = (valid(json!({"tls": {"dnsNames": ["other.example.com"]}})), Extent::Upkeep);
    shop.delete("orders-app");
    let asked = shop.store.requests();
    shop.ensure(now()).await.unwrap();
    assert_eq!(shop.store.requests(), asked, "nothing is due");
    let later = now() + SignedDuration::from_hours(60 * 24 + 1);
    shop.ensure(later).await.unwrap();
    assert_ne!(shop.text("orders-a-tls", "tls.crt"), old);
    assert_eq!(names(&shop), before);
    assert!(shop.secret("orders-app").is_none());
    shop.extent = Extent::Spec;
    shop.ensure(later).await.unwrap();
    assert!(names(&shop).contains(&"other.example.com".to_owned()));
    assert!(shop.secret("orders-app").is_some());
    shop.check_that_all_trust_each_other(later);
}

#[tokio::test]
async fn a_new_name_in_the_spec_needs_a_new_certificate_of_the_instances_only() {
    let mut shop = Shop::new(json!({}));
    shop.ensure(now()).await.unwrap();
    let old = CERTIFIED.map(|name| shop.text(name, "tls.crt"));
    shop.pair = valid(json!({"tls": {"dnsNames": ["db.example.com"]}}));
    shop.ensure(now()).await.unwrap();
    let new = CERTIFIED.map(|name| shop.text(name, "tls.crt"));
    assert!(old[0] != new[0] && old[1] != new[1] && old[2] == new[2]);
}

#[tokio::test]
async fn a_lost_authority_is_followed_by_another_and_all_trust_each_other_at_every_step() {
    let shop = Shop::new(json!({}));
    shop.ensure(now()).await.unwrap();
    let password = shop.text("orders-superuser", "password");
    let first = certificates(&shop.text("orders-app", "ca.crt"))[0].0.clone();
    shop.delete(CA);
    let mut bundles = Vec::new();
    for step in 0..4 {
        let at = now() + SPREAD * step;
        shop.ensure(at).await.unwrap();
        shop.check_that_all_trust_each_other(at);
        let bundle = certificates(&shop.text("orders-app", "ca.crt"));
        let signer = shop.secret("orders-a-tls").unwrap().annotations()["pgpair.dev/signed-by"].clone();
        bundles.push((bundle.len(), signer == first));
    }
    // Introduced, switched, retired, at rest.
    assert_eq!(bundles, [(2, true), (2, false), (1, false), (1, false)]);
    assert_eq!(shop.text("orders-superuser", "password"), password);
    assert!(!shop.text("orders-app", "uri").is_empty());
}

#[tokio::test]
async fn an_authority_near_its_end_is_followed_by_another_without_an_old_key_left() {
    let shop = Shop::new(json!({}));
    shop.ensure(now()).await.unwrap();
    let key = shop.text(CA, "ca.key");
    let near = now() + SignedDuration::from_hours((3650 - 89) * 24);
    for step in 0..4 {
        shop.ensure(near + SPREAD * step).await.unwrap();
        shop.check_that_all_trust_each_other(near + SPREAD * step);
    }
    let data = shop.secret(CA).unwrap().data.unwrap();
    assert!(data.values().all(|v| v.0 != key.as_bytes()));
    assert_eq!(shop.text(CA, "old.crt"), "");
}

#[tokio::test]
async fn a_password_of_the_user_is_taken_and_a_missing_one_is_asked_for_by_name() {
    let shop = Shop::new(json!({"bootstrap": {"ownerSecret": "mine"}}));
    let error = shop.ensure(now()).await.unwrap_err().to_string();
    assert!(error.contains("secret mine of spec.bootstrap.ownerSecret"), "{error}");
    shop.put("mine", &json!({"password": "cGFzcw=="})); // pass
    shop.ensure(now()).await.unwrap();
    assert_eq!(shop.text("orders-app", "password"), "pass");
    assert_ne!(shop.text("orders-superuser", "password"), "pass");
}

#[tokio::test]
async fn a_superuser_that_may_not_log_in_has_no_secret_and_keeps_no_authority_from_following_another() {
    let mut shop = Shop::new(json!({"bootstrap": {"superuserAccess": false}}));
    shop.ensure(now()).await.unwrap();
    assert_eq!(shop.secret("orders-superuser"), None);
    shop.delete(CA);
    for step in 0..3 {
        shop.ensure(now() + SPREAD * step).await.unwrap();
    }
    assert_eq!(certificates(&shop.text("orders-app", "ca.crt")).len(), 1, "the old one is not retired");
    shop.pair = valid(json!({"bootstrap": {"superuserAccess": true}}));
    shop.ensure(now()).await.unwrap();
    assert_eq!(shop.text("orders-superuser", "username"), "postgres");
    shop.pair = valid(json!({"bootstrap": {"superuserAccess": false}}));
    let later = now() + SignedDuration::from_hours(1);
    shop.ensure(later).await.unwrap();
    assert!(shop.secret("orders-superuser").is_some(), "what is there is left to whoever asked for it");
}

#[tokio::test]
async fn a_secret_of_the_pair_without_annotations_keeps_its_password() {
    let shop = Shop::new(json!({}));
    shop.put("orders-app", &json!({"password": "cGFzcw=="}));
    shop.label("orders-app", &json!({"pgpair.dev/pair": "orders"}));
    shop.ensure(now()).await.unwrap();
    assert_eq!(shop.text("orders-app", "password"), "pass");
    assert!(!shop.text("orders-app", "ca.crt").is_empty());
}

#[tokio::test]
async fn a_secret_of_another_owner_is_left_alone_and_the_others_are_made() {
    let shop = Shop::new(json!({}));
    for theirs in ["orders-app", "orders-superuser", "orders-b-tls"] {
        shop.put(theirs, &json!({"token": "dGhlaXJz"}));
    }
    let error = shop.ensure(now()).await.unwrap_err().to_string();
    assert!(
        error.contains("Secret orders-b-tls, Secret orders-app, Secret orders-superuser exist"),
        "{error}"
    );
    for theirs in ["orders-app", "orders-superuser", "orders-b-tls"] {
        assert_eq!(shop.secret(theirs).unwrap().data.unwrap().len(), 1, "{theirs}");
    }
    assert!(!shop.text("orders-a-tls", "tls.crt").is_empty());
    assert!(!shop.text(OPERATOR_TLS, "tls.crt").is_empty());
}

/// Who made it knows its key.
#[tokio::test]
async fn an_authority_of_another_owner_signs_nothing() {
    let shop = Shop::new(json!({}));
    let theirs = Shop::new(json!({}));
    theirs.ensure(now()).await.unwrap();
    let data = theirs.store.objects()[&Shop::path(CA)]["data"].clone();
    shop.put(CA, &data);
    let error = shop.ensure(now()).await.unwrap_err().to_string();
    assert!(error.contains(&format!("Secret pgpair-system/{CA} exist")), "{error}");
    assert!(shop.secret("orders-a-tls").is_none());
}

/// Orders that a certificate is revoked, in the two steps of it.
async fn order_revocation(shop: &Shop, what: CertificateKind, word: &str, now: Timestamp) {
    let role = (what == CertificateKind::Role).then(|| "daily_report".to_owned());
    let order = Reissuing { instance: InstanceId::A, what, role, word: word.into() };
    for _ in 0..2 {
        reissue(&shop.requests, &shop.pair, &order, now).await.unwrap();
    }
    let secret = shop.secret(Place::of(order.party(), &shop.pair).name()).unwrap();
    let replaced = PartyView::read(secret.annotations()).unwrap().reissue.unwrap().replaced;
    for _ in 0..2 {
        revoke(&shop.requests, &shop.pair, &replaced, word, now).await.unwrap();
        shop.ensure(now).await.unwrap();
    }
}

/// Whether whoever goes by the Secret of `judge` refuses a certificate as revoked.
fn is_revoked(shop: &Shop, judge: &str, certificate: &str, now: Timestamp) -> bool {
    let (bundle, mut roots) = (shop.text(judge, "ca.crt"), RootCertStore::empty());
    let ders = CertificateDer::pem_slice_iter(bundle.as_bytes()).map(Result::unwrap);
    ders.for_each(|root| roots.add(root).unwrap());
    let lists = shop.text(judge, "crl.pem");
    let lists = CertificateRevocationListDer::pem_slice_iter(lists.as_bytes()).map(Result::unwrap);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    // As PostgreSQL: without a list of its authority no certificate is accepted.
    let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider);
    let verifier = verifier.with_crls(lists).build().unwrap();
    let since = std::time::Duration::from_secs(now.as_second().try_into().unwrap());
    let leaf = CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap();
    match verifier.verify_client_cert(&leaf, &[], UnixTime::since_unix_epoch(since)) {
        Ok(_) => false,
        Err(rustls::Error::InvalidCertificate(CertificateError::Revoked)) => true,
        Err(e) => panic!("{judge}: {e}"),
    }
}

#[tokio::test]
async fn for_one_order_a_certificate_is_made_anew_once_and_the_one_before_is_refused_by_all() {
    let shop = Shop::new(json!({}));
    shop.ensure(now()).await.unwrap();
    let old = shop.text("orders-a-tls", "tls.crt");
    let clients = shop.text("orders-app", "ca.crt");
    order_revocation(&shop, CertificateKind::Agent, "x-1", now()).await;
    let new = shop.text("orders-a-tls", "tls.crt");
    assert_ne!(new, old);
    for judge in CERTIFIED {
        assert!(is_revoked(&shop, judge, &old, now()), "{judge}");
        for user in CERTIFIED {
            assert!(!is_revoked(&shop, judge, &shop.text(user, "tls.crt"), now()), "{judge} and {user}");
        }
    }
    assert!(!shop.secret("orders-app").unwrap().data.unwrap().contains_key("crl.pem"));
    assert_eq!(shop.text("orders-app", "ca.crt"), clients);
    for name in ["orders-a-tls", "orders-b-tls"] {
        let view = PartyView::read(shop.secret(name).unwrap().annotations()).unwrap();
        assert_eq!(shop.text(name, "version"), view.version.to_string(), "its agent is given it");
    }
    // Nothing is left to do, and another order takes the same way.
    let before = shop.store.requests();
    shop.ensure(now()).await.unwrap();
    assert_eq!(shop.store.requests(), before);
    let operators = shop.text(OPERATOR_TLS, "tls.crt");
    order_revocation(&shop, CertificateKind::Operator, "x-2", now()).await;
    let reports = shop.text(ROLE_TLS, "tls.crt");
    order_revocation(&shop, CertificateKind::Role, "x-3", now()).await;
    for certificate in [&old, &operators, &reports] {
        assert!(is_revoked(&shop, "orders-b-tls", certificate, now()));
    }
    assert!(!is_revoked(&shop, "orders-b-tls", &shop.text(ROLE_TLS, "tls.crt"), now()));
}

/// PostgreSQL compares the name with that of the role, and an agent with those of its callers, which have a hyphen each.
#[tokio::test]
async fn the_certificate_of_a_role_is_for_that_role_and_to_call_only() {
    let shop = Shop::new(json!({}));
    shop.ensure(now()).await.unwrap();
    let (_, pem) = x509_parser::pem::parse_x509_pem(shop.text(ROLE_TLS, "tls.crt").as_bytes()).unwrap();
    let leaf = pem.parse_x509().unwrap();
    assert_eq!(leaf.subject().iter_common_name().next().unwrap().as_str(), Ok("daily_report"));
    let usage = leaf.extended_key_usage().unwrap().unwrap().value;
    assert!(usage.client_auth && !usage.server_auth && leaf.subject_alternative_name().unwrap().is_none());
    assert_eq!(shop.text(ROLE_TLS, "ca.crt"), shop.text("orders-app", "ca.crt"));
    assert!(shop.secret("orders.role-audit-tls").is_none(), "nobody has asked for one");
}

#[tokio::test]
async fn what_an_order_has_not_had_revoked_is_revoked_by_the_next_one() {
    let shop = Shop::new(json!({}));
    shop.ensure(now()).await.unwrap();
    let stolen = shop.text("orders-a-tls", "tls.crt");
    // The agent does not answer, so the order comes to an end before anything is revoked.
    let order =
        Reissuing { instance: InstanceId::A, what: CertificateKind::Agent, role: None, word: "x-1".into() };
    reissue(&shop.requests, &shop.pair, &order, now()).await.unwrap();
    let between = shop.text("orders-a-tls", "tls.crt");
    order_revocation(&shop, CertificateKind::Agent, "x-2", now()).await;
    for certificate in [&stolen, &between] {
        assert!(is_revoked(&shop, "orders-b-tls", certificate, now()));
    }
    order_revocation(&shop, CertificateKind::Agent, "x-3", now()).await;
    let view = PartyView::read(shop.secret("orders-a-tls").unwrap().annotations()).unwrap();
    assert_eq!(view.reissue.unwrap().replaced.len(), 1, "nothing is owed any more");
}

#[tokio::test]
async fn what_was_revoked_is_not_forgotten_when_it_cannot_be_read() {
    let shop = Shop::new(json!({}));
    shop.ensure(now()).await.unwrap();
    let old = shop.text("orders-a-tls", "tls.crt");
    order_revocation(&shop, CertificateKind::Agent, "x-1", now()).await;
    let ca = Shop::path(CA);
    shop.store.objects().get_mut(&ca).unwrap()["data"]["revoked.json"] = json!("e30K"); // {}
    shop.delete("orders-b-tls");
    let error = shop.ensure(now()).await.unwrap_err().to_string();
    assert!(error.contains(&format!("{CA} has no usable revoked.json: delete the secret")), "{error}");
    assert!(is_revoked(&shop, "orders-a-tls", &old, now()));
    shop.delete(CA);
    shop.ensure(now() + SignedDuration::from_secs(1)).await.unwrap();
    assert!(is_revoked(&shop, "orders-b-tls", &old, now() + SignedDuration::from_secs(1)));
}

#[tokio::test]
async fn while_one_authority_follows_another_each_has_a_list_and_what_was_revoked_stays_so() {
    let shop = Shop::new(json!({}));
    shop.ensure(now()).await.unwrap();
    let old = shop.text("orders-a-tls", "replication.crt");
    order_revocation(&shop, CertificateKind::Replication, "x-1", now()).await;
    // The key is lost with its Secret: the list that it has signed is not.
    shop.delete(CA);
    let mut at = now() + SignedDuration::from_secs(1); // an authority has the second of its birth in its name
    for _ in 0..4 {
        shop.ensure(at).await.unwrap();
        for judge in CERTIFIED {
            for user in CERTIFIED {
                assert!(!is_revoked(&shop, judge, &shop.text(user, "tls.crt"), at), "{judge} and {user}");
            }
        }
        let trusts = certificates(&shop.text("orders-b-tls", "ca.crt")).len();
        assert!(trusts == 1 || is_revoked(&shop, "orders-b-tls", &old, at), "{trusts}");
        at += SPREAD;
    }
    assert_eq!(certificates(&shop.text("orders-b-tls", "ca.crt")).len(), 1, "the old authority is gone");
    // Renewals go on around it.
    let later = at + SignedDuration::from_hours(61 * 24);
    shop.ensure(later).await.unwrap();
    shop.check_that_all_trust_each_other(later);
    assert!(!is_revoked(&shop, "orders-a-tls", &shop.text("orders-b-tls", "tls.crt"), later));
}
