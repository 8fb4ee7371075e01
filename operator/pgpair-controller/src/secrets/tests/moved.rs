//! The keys of the operator leave the pair's namespace, and come back by an older version of it; another installation takes the pair.

use super::*;

const FORMER: [(&str, &str); 2] = [(CA, "orders-ca"), (OPERATOR_TLS, "orders-operator-tls")];

/// Puts what the operator keeps for itself where earlier versions had it.
fn put_back(shop: &Shop) {
    let pair = &shop.pair;
    for (name, former) in FORMER {
        let path = Shop::path(name).replace("pgpair-system", &pair.operator_namespace);
        let mut objects = shop.store.objects();
        let mut secret = objects.remove(&path).unwrap();
        let annotations = secret["metadata"]["annotations"].clone();
        secret["metadata"] = json!({
            "name": former, "namespace": "shop", "uid": format!("uid-{former}"), "resourceVersion": "7",
            "labels": pair.name.labels(), "ownerReferences": [pair.owner], "annotations": annotations,
        });
        objects.insert(Shop::path(former), secret);
    }
}

/// What an earlier version of the operator has made.
async fn earlier() -> Shop {
    let shop = Shop::new(json!({}));
    shop.ensure(now()).await.unwrap();
    put_back(&shop);
    shop
}

/// The same Secrets, as another process sees them whose connection breaks after so many answers.
fn seen_by(shop: &Shop, answers: usize) -> Shop {
    let requests = Requests::new(shop.store.client(answers), "shop", Arc::new(Metrics::default()));
    Shop { requests, store: shop.store.clone(), pair: shop.pair.clone(), extent: shop.extent }
}

/// The same Secrets as the operator of another namespace sees them.
fn of_installation(shop: &Shop, namespace: &str) -> Shop {
    let mut other = seen_by(shop, usize::MAX);
    other.pair.operator_namespace = namespace.to_owned();
    other
}

/// What an instance's pod has: its bundle and its certificate.
fn pods(shop: &Shop) -> Vec<(String, String)> {
    ["orders-a-tls", "orders-b-tls"].map(|n| (shop.text(n, "ca.crt"), shop.text(n, "tls.crt"))).into()
}

/// Takes a step. Each pod may have its Secret of before or the new one, and the instances accept each other all the same.
async fn step(shop: &Shop, now: Timestamp) {
    let mut there = pods(shop);
    shop.ensure(now).await.unwrap();
    there.extend(pods(shop));
    for (bundle, _) in &there {
        for (_, certificate) in &there {
            judge_by(bundle, certificate, now).unwrap();
        }
    }
    shop.check_that_all_trust_each_other(now);
}

fn authorities(shop: &Shop) -> usize {
    certificates(&shop.text("orders-a-tls", "ca.crt")).len()
}

fn is_there(shop: &Shop) -> bool {
    FORMER.iter().any(|(_, former)| shop.secret(former).is_some())
}

#[tokio::test]
async fn a_crash_after_any_request_of_the_move_leads_to_the_same_secrets_and_the_key_is_never_nowhere() {
    let straight = earlier().await;
    let (operators, before) = (straight.text("orders-operator-tls", "tls.key"), straight.store.requests());
    straight.ensure(now()).await.unwrap();
    assert_ne!(straight.text(OPERATOR_TLS, "tls.key"), operators, "others could read that");
    let requests = straight.store.requests() - before;
    assert!(requests >= 10, "{requests}");
    for answers in 0..=requests {
        let shop = earlier().await;
        let (key, instances) = (shop.text("orders-ca", "ca.key"), pods(&shop));
        let _ = seen_by(&shop, answers).ensure(now()).await;
        let has_key =
            |name: &str| shop.secret(name).is_some_and(|s| text(&s, name, "ca.key").unwrap() == key);
        assert!(has_key("orders-ca") || has_key(CA), "after {answers}");
        shop.ensure(now()).await.unwrap();
        assert!(has_key(CA) && !is_there(&shop), "after {answers}");
        assert_eq!(pods(&shop), instances, "after {answers}: nothing changes for the instances");
        shop.check_that_all_trust_each_other(now());
        let asked = shop.store.requests();
        shop.ensure(now()).await.unwrap();
        assert_eq!(shop.store.requests(), asked, "after {answers}: at rest nothing is asked");
    }
}

#[tokio::test]
async fn nothing_is_deleted_beside_the_pair_before_it_is_in_its_new_place_or_when_it_was_changed() {
    let shop = earlier().await;
    shop.store.forbid("/api/v1/namespaces/pgpair-system/secrets");
    shop.ensure(now()).await.unwrap_err();
    assert!(shop.secret("orders-ca").is_some() && shop.secret("orders-operator-tls").is_some());
    shop.store.forbid(&Shop::path("orders-ca"));
    let error = shop.ensure(now()).await.unwrap_err().to_string();
    assert!(error.contains("orders-ca"), "{error}");
    assert!(shop.secret("orders-ca").is_some() && shop.secret(CA).is_some());
    shop.store.forbid("nothing");
    shop.ensure(now()).await.unwrap();
    assert!(!is_there(&shop));
}

#[tokio::test]
async fn what_was_changed_since_it_was_read_is_not_deleted() {
    let shop = earlier().await;
    let read = shop.secret("orders-ca").unwrap().metadata;
    shop.store.objects().get_mut(&Shop::path("orders-ca")).unwrap()["metadata"]["resourceVersion"] =
        json!("8");
    assert!(shop.requests.delete_as_read::<Secret>(&read).await.is_err());
    assert!(shop.secret("orders-ca").is_some());
    shop.ensure(now()).await.unwrap();
    assert!(!is_there(&shop));
}

/// Whoever may create Secrets beside the pair can set a label.
#[tokio::test]
async fn an_authority_beside_the_pair_that_the_pair_does_not_own_never_signs() {
    let shop = earlier().await;
    let key = shop.text("orders-ca", "ca.key");
    shop.store.objects().get_mut(&Shop::path("orders-ca")).unwrap()["metadata"]["ownerReferences"] =
        json!([]);
    step(&shop, now() + SignedDuration::from_secs(1)).await;
    assert_ne!(shop.text(CA, "next.key"), key);
    assert_eq!((shop.text(CA, "ca.key").as_str(), authorities(&shop)), ("", 2), "the three steps have begun");
    assert!(!is_there(&shop));
}

#[tokio::test]
async fn an_installation_without_the_keys_takes_a_pair_over_in_three_steps_without_an_interruption() {
    let shop = Shop::new(json!({}));
    shop.ensure(now()).await.unwrap();
    let operators = shop.text(OPERATOR_TLS, "tls.crt");
    let second = of_installation(&shop, "elsewhere");
    let mut seen = Vec::new();
    for n in 0..4 {
        step(&second, now() + SignedDuration::from_secs(1) + SPREAD * n).await;
        seen.push(authorities(&second));
    }
    assert_eq!(seen, [2, 2, 1, 1]);
    assert!(judge_by(&second.text("orders-a-tls", "ca.crt"), &operators, now()).is_err());
    assert_eq!(shop.text(OPERATOR_TLS, "tls.crt"), operators, "what the first one keeps is left alone");
}

#[tokio::test]
async fn a_pair_that_is_handed_back_at_any_step_has_no_interruption_either() {
    for steps in 1..5 {
        let shop = Shop::new(json!({}));
        shop.ensure(now()).await.unwrap();
        let second = of_installation(&shop, "elsewhere");
        let mut at = now();
        for installation in [&second, &shop, &second] {
            for _ in 0..steps {
                at += SPREAD + SignedDuration::from_secs(1);
                step(installation, at).await;
            }
        }
        for _ in 0..4 {
            at += SPREAD;
            step(&second, at).await;
        }
        assert_eq!(authorities(&second), 1, "after {steps} steps each");
    }
}

#[tokio::test]
async fn after_an_older_version_had_the_pair_its_authority_is_taken_up() {
    let shop = Shop::new(json!({}));
    shop.ensure(now()).await.unwrap();
    let stale = shop.text(CA, "ca.key");
    // The older version finds none beside the pair, and takes the three steps.
    let older = of_installation(&shop, "older");
    let mut at = now() + SignedDuration::from_secs(1);
    for _ in 0..4 {
        step(&older, at).await;
        at += SPREAD;
    }
    let (key, instances) = (older.text(CA, "ca.key"), pods(&older));
    put_back(&older);
    step(&shop, at).await;
    assert_eq!(shop.text(CA, "ca.key"), key);
    assert_ne!(key, stale);
    assert_eq!((pods(&shop), is_there(&shop)), (instances, false), "nothing changes for the instances");
}
