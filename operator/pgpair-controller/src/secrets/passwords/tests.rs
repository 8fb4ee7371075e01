use std::sync::Arc;

use serde_json::{Value, json};

use super::*;
use crate::fixtures::{now, secret_path, valid};
use crate::metrics::Metrics;
use crate::mock_api::{Store, store_api};
use crate::secrets::place::Place;
use crate::secrets::{Extent, apply_secrets};

/// The operator and the Secrets of one namespace.
struct Shop {
    requests: Requests,
    store: Store,
    pair: ValidatedPair,
}

impl Shop {
    fn new(spec: Value) -> Shop {
        let (client, store) = store_api();
        let requests = Requests::new(client, "shop", Arc::new(Metrics::default()));
        Shop { requests, store, pair: valid(spec) }
    }

    /// With all that the operator makes.
    async fn made(spec: Value) -> Shop {
        let shop = Shop::new(spec);
        shop.apply_at(now()).await;
        shop
    }

    fn path(name: &str) -> String {
        secret_path(name)
    }

    fn secret(&self, name: &str) -> Option<Secret> {
        let stored = self.store.objects().get(&Self::path(name)).cloned();
        stored.map(|value| serde_json::from_value(value).unwrap())
    }

    /// As somebody else than the operator does it: the version goes on.
    fn edit(&self, name: &str, change: impl FnOnce(&mut Value)) {
        let mut objects = self.store.objects();
        let secret = objects.get_mut(&Self::path(name)).unwrap();
        change(secret);
        let version = secret["metadata"]["resourceVersion"].as_str().unwrap_or("0").parse::<u64>().unwrap();
        secret["metadata"]["resourceVersion"] = (version + 1000).to_string().into();
    }

    fn set_password(&self, name: &str, password: &str) {
        let encoded = json!(k8s_openapi::ByteString(password.as_bytes().to_vec()));
        self.edit(name, |secret| secret["data"]["password"] = encoded);
    }

    fn delete(&self, name: &str) {
        self.store.objects().remove(&Self::path(name));
    }

    async fn apply_at(&self, now: Timestamp) {
        let annotations = |place: &Place| self.secret(place.name()).map(|s| s.annotations().clone());
        apply_secrets(&self.requests, &self.pair, Extent::Spec, annotations, now).await.unwrap();
        self.follow_at(now).await;
    }

    async fn follow_at(&self, now: Timestamp) {
        let known = |name: &str| self.secret(name).map(|s| s.metadata);
        apply_passwords(&self.requests, &self.pair, known, now).await.unwrap();
    }

    fn text(&self, name: &str, key: &'static str) -> String {
        text(&self.secret(name).unwrap(), name, key).unwrap()
    }

    fn verifier(&self, role: &str) -> Verifier {
        read_verifiers(&self.secret("orders-verifiers").unwrap()).remove(role).unwrap()
    }

    fn entry(&self, role: &str) -> Entry {
        read_ledger(&self.secret("orders-verifiers").unwrap().metadata).remove(role).unwrap()
    }

    async fn given(&self) -> Vec<String> {
        fetch_passwords(&self.requests, &self.pair).await.unwrap().into_keys().collect()
    }
}

#[tokio::test]
async fn a_pod_gets_verifiers_of_the_passwords_and_nothing_is_read_again_while_nothing_is_new() {
    let shop = Shop::made(json!({"bootstrap": {"superuserAccess": true, "owner": "clerk"}})).await;
    let password = shop.text("orders-app", "password");
    assert!(shop.verifier("clerk").is_of(&password));
    assert!(shop.verifier("postgres").is_of(&shop.text("orders-superuser", "password")));
    let kept = shop.secret("orders-verifiers").unwrap();
    let data = kept.data.unwrap();
    assert!(data.values().all(|value| !String::from_utf8_lossy(&value.0).contains(&password)));
    assert_eq!(shop.text("orders-verifiers", "username"), "clerk");
    assert!(kept.metadata.owner_references.is_some(), "it goes with the pair");
    let before = shop.store.requests();
    shop.follow_at(now()).await;
    assert_eq!(shop.store.requests(), before);
    assert_eq!(shop.given().await, ["clerk", "postgres"]);
}

#[tokio::test]
async fn a_changed_password_gets_a_verifier_and_its_strings_and_all_else_stays() {
    let shop = Shop::made(json!({})).await;
    let (old, ca) = (shop.verifier("app"), shop.text("orders-app", "ca.crt"));
    let later = now() + jiff::SignedDuration::from_hours(1);
    shop.set_password("orders-app", "p@ss\n");
    shop.follow_at(later).await;
    let new = shop.verifier("app");
    assert!(new.is_of("p@ss") && new != old);
    assert_eq!((shop.entry("app").mark, shop.entry("app").since), (Some(new.mark()), Some(later)));
    assert!(shop.text("orders-app", "uri").starts_with("postgresql://app:p%40ss@orders-rw"));
    assert_eq!(shop.text("orders-app", "password"), "p@ss\n", "it is the user's");
    assert_eq!(shop.text("orders-app", "ca.crt"), ca);
    assert!(shop.secret("orders-app").unwrap().annotations().contains_key("pgpair.dev/trusts"));
    // Another change of the Secret that is none of the password.
    shop.edit("orders-app", |secret| secret["data"]["note"] = json!("eA=="));
    shop.follow_at(later + jiff::SignedDuration::from_hours(1)).await;
    assert_eq!((shop.verifier("app"), shop.entry("app").since), (new, Some(later)));
}

#[tokio::test]
async fn a_missing_or_empty_password_changes_nothing_and_is_told() {
    let shop = Shop::made(json!({})).await;
    let old = shop.verifier("app");
    for (change, found) in [
        (json!({"password": ""}), Found::NoPassword),
        (json!({"password": "Cg=="}), Found::NoPassword),
        (json!({"password": "YQpi"}), Found::NoPassword),
        (json!({}), Found::NoPassword),
    ] {
        shop.edit("orders-app", |secret| secret["data"] = change.clone());
        shop.follow_at(now()).await;
        assert_eq!((shop.entry("app").found, shop.verifier("app")), (found, old.clone()), "{change}");
        assert_eq!(shop.entry("app").mark, Some(old.mark()));
        assert!(shop.given().await.is_empty(), "{change}");
    }
    shop.delete("orders-app");
    shop.follow_at(now()).await;
    assert_eq!((shop.entry("app").found, shop.verifier("app")), (Found::NoSecret, old.clone()));
    shop.apply_at(now()).await;
    assert_eq!(shop.entry("app").found, Found::Password);
    assert!(shop.verifier("app").is_of(&shop.text("orders-app", "password")), "a new one that works");
    assert_ne!(shop.verifier("app"), old);
}

#[tokio::test]
async fn for_one_order_a_secret_gets_one_password_with_its_strings() {
    let shop = Shop::made(json!({})).await;
    let old = shop.text("orders-app", "password");
    let rotate = async |role: &str, word: &str| {
        let rotation = Rotation { role: role.into(), word: word.into() };
        super::rotate(&shop.requests, &shop.pair, &rotation).await.unwrap();
        shop.text("orders-app", "password")
    };
    let new = rotate("app", "x-1").await;
    assert!(new != old && new.len() == old.len());
    assert!(shop.text("orders-app", "uri").contains(&new) && !shop.text("orders-app", "uri").contains(&old));
    assert!(shop.secret("orders-app").unwrap().annotations().contains_key("pgpair.dev/trusts"));
    assert_eq!(rotate("app", "x-1").await, new, "the answer to the first try was lost");
    assert_eq!(rotate("nobody", "x-2").await, new);
    // The verifier is of the Secret as it was read: in the store of this test a version does not move by itself.
    shop.edit("orders-app", |_| ());
    shop.follow_at(now()).await;
    assert!(shop.verifier("app").is_of(&new));
    assert_ne!(rotate("app", "x-3").await, new);
}

#[tokio::test]
async fn a_password_in_a_secret_of_a_person_is_read_and_the_secret_stays_as_it_is() {
    let shop = Shop::new(json!({"roles": [{"name": "report", "passwordSecret": "mine"}]}));
    shop.apply_at(now()).await;
    assert_eq!(shop.entry("report").found, Found::NoSecret);
    assert_eq!(shop.given().await, ["app"]);
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "mine", "resourceVersion": "7"}, "data": {"password": "cGFzcw=="}});
    shop.store.objects().insert(Shop::path("mine"), secret.clone());
    shop.follow_at(now()).await;
    assert!(shop.verifier("report").is_of("pass"));
    assert_eq!(shop.given().await, ["app", "report"]);
    let rotation = Rotation { role: "report".into(), word: "x-1".into() };
    rotate(&shop.requests, &shop.pair, &rotation).await.unwrap();
    assert_eq!(shop.store.objects()[&Shop::path("mine")], secret);
    shop.edit("mine", |secret| secret["data"] = json!({}));
    shop.follow_at(now()).await;
    assert_eq!(shop.entry("report").found, Found::NoPassword);
    assert!(shop.verifier("report").is_of("pass"), "the role keeps it");
}

#[tokio::test]
async fn verifiers_that_somebody_deleted_are_made_anew_and_those_of_another_owner_are_left_alone() {
    let shop = Shop::made(json!({})).await;
    shop.delete("orders-verifiers");
    shop.follow_at(now()).await;
    assert!(shop.verifier("app").is_of(&shop.text("orders-app", "password")));
    shop.edit("orders-verifiers", |secret| {
        secret["metadata"]["ownerReferences"] = json!(null);
        secret["metadata"]["labels"] = json!({});
    });
    let theirs = shop.secret("orders-verifiers");
    assert!(shop.given().await.is_empty());
    let unknown = |_: &str| None;
    let error = apply_passwords(&shop.requests, &shop.pair, unknown, now()).await.unwrap_err();
    assert!(error.to_string().contains("Secret orders-verifiers exist"), "{error}");
    assert_eq!(shop.secret("orders-verifiers"), theirs);
}

#[tokio::test]
async fn a_password_whose_verifier_is_not_made_yet_is_not_given() {
    let shop = Shop::made(json!({})).await;
    shop.set_password("orders-app", "new");
    assert!(shop.given().await.is_empty());
    shop.follow_at(now()).await;
    assert_eq!(shop.given().await, ["app"]);
}

/// Annotations above 4 KiB are not kept in a cache.
#[test]
fn what_is_known_of_many_roles_fits_into_the_annotation() {
    let entry = |n: usize| Entry {
        from: digest(n.to_string().as_bytes()),
        found: Found::NoPassword,
        mark: Some(digest(b"x")),
        since: Some(now()),
    };
    let ledger: Ledger = (0..18).map(|n| (format!("{n:063}"), entry(n))).collect();
    let text = serde_json::to_string(&ledger).unwrap();
    assert!(text.len() < 3_900, "{}", text.len());
}
