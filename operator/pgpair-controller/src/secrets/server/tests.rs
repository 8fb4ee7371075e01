use std::sync::Arc;

use jiff::SignedDuration;
use serde_json::{Value, json};

use super::*;
use crate::certificates::offered::OfferSummary;
use crate::certificates::server::{Holder, Told, decide_server};
use crate::certificates::{Pem, certificates, new_authority};
use crate::fixtures::{CA, OPERATOR_TLS, now, secret_path, valid};
use crate::metrics::Metrics;
use crate::mock_api::{Store, store_api};
use crate::secrets::{Extent, apply_secrets};

const DAY: SignedDuration = SignedDuration::from_hours(24);

/// The operator, the Secrets of one namespace, and two agents that take what they are given.
struct Shop {
    requests: Requests,
    store: Store,
    pair: ValidatedPair,
    company: Pem,
}

fn roles() -> Value {
    json!([{"name": "report", "certificate": true}])
}

impl Shop {
    async fn made() -> Shop {
        let (client, store) = store_api();
        let requests = Requests::new(client, "shop", Arc::new(Metrics::default()));
        let pair = valid(json!({"tls": {"serverSecret": "db-cert"}, "roles": roles()}));
        let shop =
            Shop { requests, store, pair, company: new_authority("company", now(), DAY * 400).unwrap() };
        shop.renew(now()).await;
        shop
    }

    async fn renew(&self, now: Timestamp) {
        let known = |place: &Place| self.secret(place.name()).map(|s| s.annotations().clone());
        apply_secrets(&self.requests, &self.pair, Extent::Spec, known, now).await.unwrap();
    }

    fn path(name: &str) -> String {
        secret_path(name)
    }

    fn secret(&self, name: &str) -> Option<Secret> {
        let stored = self.store.objects().get(&Self::path(name)).cloned();
        stored.map(|value| serde_json::from_value(value).unwrap())
    }

    fn text(&self, name: &str, key: &'static str) -> Option<String> {
        text(&self.secret(name).unwrap(), name, key).ok()
    }

    /// A certificate of the company's for these names.
    fn offer(&self, names: Vec<String>) -> Pem {
        let leaf = new_leaf(&self.company, "db", names, Purpose::Server, now(), DAY * 90).unwrap();
        let bytes = |text: &str| json!(ByteString(text.as_bytes().to_vec()));
        let data = json!({
            "tls.crt": bytes(&leaf.certificate),
            "tls.key": bytes(&leaf.key),
            "ca.crt": bytes(&self.company.certificate),
        });
        let secret: Value =
            json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "db-cert"}, "data": data});
        self.store.objects().insert(Self::path("db-cert"), secret);
        leaf
    }

    fn view(&self, i: InstanceId) -> PartyView {
        PartyView::read(self.secret(&self.pair.name.tls_secret(i)).unwrap().annotations()).unwrap()
    }

    /// The next step, with agents that have taken everything.
    async fn next(&self) -> ServerStep {
        let offer = match self.pair.server_secret() {
            Some(secret) => fetch_offer(&self.requests, &self.pair, &secret, now()).await.unwrap().ok(),
            None => None,
        };
        let offer: Option<OfferSummary> = offer.map(|offer| offer.summary);
        let holder = |i: InstanceId| {
            let view = self.view(i);
            let shown = self.text(&self.pair.name.tls_secret(i), "server.crt");
            let shown = certificates(&shown.unwrap())[0].0.clone();
            let told = Told::Uses(view.version, Some(shown));
            Holder { view: view.server, version: view.version, told }
        };
        decide_server(offer.as_ref(), [&holder(InstanceId::A), &holder(InstanceId::B)])
    }

    /// Takes steps until there is none; how many.
    async fn settle(&self) -> u32 {
        for n in 0.. {
            let step = self.next().await;
            if step == ServerStep::None {
                return n;
            }
            assert!(step.acts() && n < 5, "{step:?}");
            apply_server(&self.requests, &self.pair, &step, now()).await.unwrap();
        }
        unreachable!("it ends")
    }
}

const CLIENTS: [&str; 2] = ["orders-app", "orders.role-report-tls"];
const INSTANCES: [&str; 2] = ["orders-a-tls", "orders-b-tls"];

#[tokio::test]
async fn a_certificate_of_a_person_reaches_the_instances_and_its_authority_the_clients() {
    let shop = Shop::made().await;
    let pair_ca = shop.text("orders-app", "ca.crt").unwrap();
    let leaf = shop.offer(shop.pair.server_names());
    assert_eq!(shop.settle().await, 2, "trusted, then shown");
    let mut versions = Vec::new();
    for (i, name) in InstanceId::ALL.into_iter().zip(INSTANCES) {
        assert_eq!(shop.text(name, "server.crt").unwrap(), leaf.certificate);
        assert_eq!(shop.text(name, "server.key").unwrap(), leaf.key);
        assert_eq!(shop.text(name, "server-ca.crt").unwrap(), shop.company.certificate);
        assert_eq!(
            shop.text(name, "ca.crt").unwrap(),
            pair_ca,
            "between agents only the pair's authority counts"
        );
        assert_eq!(shop.text(name, "version").unwrap(), shop.view(i).version.to_string());
        versions.push(shop.view(i).version);
    }
    let both = joined(&pair_ca, &shop.company.certificate);
    assert!(shop.text("orders-app", "password").is_some());
    for client in CLIENTS {
        assert_eq!(shop.text(client, "ca.crt").unwrap(), both);
        shop.store.objects().remove(&Shop::path(client));
        shop.renew(now()).await;
        assert_eq!(shop.text(client, "ca.crt").unwrap(), both, "one that is made anew as well");
    }
    // The pair's own certificates are renewed around it.
    let agent = shop.text("orders-a-tls", "tls.crt");
    shop.renew(now() + DAY * 61).await;
    assert_ne!(shop.text("orders-a-tls", "tls.crt"), agent);
    assert_eq!(shop.text("orders-a-tls", "server.crt").unwrap(), leaf.certificate);
    CLIENTS.iter().for_each(|client| assert_eq!(shop.text(client, "ca.crt").unwrap(), both));
    assert_eq!(shop.text("orders-a-tls", "server-ca.crt").unwrap(), shop.company.certificate);
    assert!(shop.view(InstanceId::A).version > versions[0], "the agent is given it at once");
    assert_eq!(shop.next().await, ServerStep::None);
}

#[tokio::test]
async fn a_renewed_certificate_is_one_step_and_one_that_cannot_be_taken_is_none() {
    let shop = Shop::made().await;
    shop.offer(shop.pair.server_names());
    shop.settle().await;
    let renewed = shop.offer(shop.pair.server_names());
    assert_eq!(shop.settle().await, 1);
    assert_eq!(shop.text("orders-b-tls", "server.crt").unwrap(), renewed.certificate);
    let mark = certificates(&renewed.certificate)[0].0.clone();
    // A step that was decided before is not taken with what is there now: neither what cannot be taken, nor what can.
    for names in [vec!["db.example.com".into()], shop.pair.server_names()] {
        shop.offer(names);
        for step in [ServerStep::Show(Some(mark.clone())), ServerStep::Show(Some("other".into()))] {
            apply_server(&shop.requests, &shop.pair, &step, now()).await.unwrap();
            assert_eq!(shop.text("orders-b-tls", "server.crt").unwrap(), renewed.certificate);
        }
    }
}

#[tokio::test]
async fn a_spec_that_names_no_secret_any_more_leads_back_to_the_pairs_own_certificate() {
    let mut shop = Shop::made().await;
    let pair_ca = shop.text("orders-app", "ca.crt").unwrap();
    shop.offer(shop.pair.server_names());
    shop.settle().await;
    shop.pair = valid(json!({"roles": roles()}));
    assert_eq!(shop.settle().await, 2, "shown, then forgotten");
    for name in INSTANCES {
        assert_eq!(shop.text(name, "server-ca.crt"), None);
        let own = crate::certificates::names_of(&shop.text(name, "server.crt").unwrap()).unwrap();
        assert!(own.contains(&"orders-rw.shop.svc".to_owned()));
    }
    CLIENTS.iter().for_each(|client| assert_eq!(shop.text(client, "ca.crt").unwrap(), pair_ca));
    assert_eq!(shop.view(InstanceId::A).server, crate::certificates::server::ServerView::default());
}

#[tokio::test]
async fn agents_do_not_trust_the_authority_of_a_person_though_only_a_secret_of_clients_is_left() {
    let shop = Shop::made().await;
    let pair_ca = shop.text("orders-app", "ca.crt").unwrap();
    shop.offer(shop.pair.server_names());
    shop.settle().await;
    for lost in [CA, "orders-a-tls", "orders-b-tls", OPERATOR_TLS, "orders.role-report-tls"] {
        shop.store.objects().remove(&Shop::path(lost));
    }
    shop.renew(now() + DAY).await;
    let bundle = shop.text("orders-a-tls", "ca.crt").unwrap();
    assert!(bundle.contains(pair_ca.trim_end()), "the one before is trusted on");
    assert_eq!(certificates(&bundle).len(), 2);
    assert!(!bundle.contains(shop.company.certificate.trim_end()));
}

#[tokio::test]
async fn a_secret_that_is_made_anew_does_not_seem_to_be_older_than_the_one_that_is_lost() {
    let mut shop = Shop::made().await;
    shop.offer(shop.pair.server_names());
    shop.settle().await;
    shop.pair = valid(json!({"roles": roles()}));
    shop.settle().await;
    let before = shop.view(InstanceId::A).version;
    shop.store.objects().remove(&Shop::path("orders-a-tls"));
    shop.renew(now() + DAY).await;
    assert!(shop.view(InstanceId::A).version > before);
}

#[tokio::test]
async fn a_pair_that_names_no_secret_has_neither_a_version_nor_a_word_of_one() {
    let shop = Shop { pair: valid(json!({})), ..Shop::made().await };
    shop.renew(now()).await;
    for name in ["orders-a-tls", "orders-b-tls", "orders-app", OPERATOR_TLS] {
        let secret = shop.secret(name).unwrap();
        let keys: Vec<_> = secret.data.iter().flatten().map(|(key, _)| key.as_str()).collect();
        assert!(!keys.contains(&"version") && !keys.contains(&"server-ca.crt"), "{name}: {keys:?}");
        let of_server = |key: &String| key.contains("server") || key.contains("version");
        assert!(!secret.annotations().keys().any(of_server), "{name}");
    }
}
