//! Certificates that the operator gives while the pair runs.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use pgpair_core::ids::InstanceId;
use pgpair_core::record::Mode;
use pgpair_wire::paths;

use crate::pair::{Ca, Files, LIMIT, Pair, eventually};

const A: InstanceId = InstanceId::A;
const B: InstanceId = InstanceId::B;

/// Gives the certificates that are mounted with these in their place.
async fn put(pair: &Pair, to: InstanceId, version: u64, changed: &Files) {
    let mut files = pair.mounted_certificates(to);
    files.extend(changed.clone());
    files.insert("version".into(), version.to_string());
    let (status, said) =
        pair.ask(to, "PUT", paths::CERTIFICATES, &serde_json::to_string(&files).unwrap()).await.unwrap();
    assert_eq!(status, 200, "{said}");
}

/// The same, and waits until the agent uses them.
async fn give(pair: &Pair, to: InstanceId, version: u64, changed: &Files) {
    put(pair, to, version, changed).await;
    eventually("the agent uses them", LIMIT, async || {
        pair.report(to).await?.certificates.filter(|told| told.version == version)
    })
    .await;
}

async fn await_shown(pair: &Pair, i: InstanceId, before: Option<&str>) -> String {
    eventually("the agent has seen another certificate of its postgres", LIMIT, async || {
        pair.report(i).await?.certificates?.shown.filter(|shown| Some(shown.as_str()) != before)
    })
    .await
}

async fn started(pair: &Pair, i: InstanceId) -> String {
    pair.sql(i, "SELECT pg_postmaster_start_time()").await.unwrap()
}

/// Waits until the standby has what the primary writes now.
async fn follows(pair: &Pair, primary: InstanceId) {
    pair.sql(primary, "CREATE TABLE IF NOT EXISTS t (n int)").await.unwrap();
    pair.sql(primary, "INSERT INTO t VALUES (1)").await.unwrap();
    let count = pair.sql(primary, "SELECT count(*) FROM t").await.unwrap();
    eventually("the standby has it", LIMIT, async || {
        let has = pair.sql(primary.peer(), "SELECT count(*) FROM t").await.ok()?;
        (has == count).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_of_another_authority_is_shown_without_a_restart_and_a_failover_goes_on_with_it() {
    let mut pair = Pair::up().await;
    let company = Ca::new("company");
    let before = [started(&pair, A).await, started(&pair, B).await];
    let trusted = Files::from([("server-ca.crt".to_owned(), company.pem.clone())]);
    let mut own = Vec::new();
    for i in InstanceId::ALL {
        give(&pair, i, 10, &trusted).await;
        own.push(await_shown(&pair, i, None).await);
    }
    let mut shown = trusted;
    shown.extend(company.leaf("server", "db", 1));
    for (i, own) in InstanceId::ALL.into_iter().zip(&own) {
        give(&pair, i, 11, &shown).await;
        await_shown(&pair, i, Some(own)).await;
    }
    assert_eq!([started(&pair, A).await, started(&pair, B).await], before);
    pair.sql(A, "SELECT pg_terminate_backend(pid) FROM pg_stat_replication").await.unwrap();
    follows(&pair, A).await;
    pair.paired().await;
    pair.kill_container(A);
    eventually("b is the primary", LIMIT, async || pair.is_writable(B).await.then_some(())).await;
    // Its pod comes back with what it was given, and follows by the company's authority.
    pair.start(A);
    eventually("a streams from b", LIMIT, async || {
        let streams = pair.sql(B, "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'").await;
        streams.ok().filter(|count| count == "1")
    })
    .await;
    follows(&pair, B).await;
    let told = pair.report(A).await.unwrap().certificates.unwrap();
    assert_eq!(told.version, 11);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_revoked_loses_its_connections_while_the_pair_stays_paired_and_fails_over_as_before() {
    let mut pair = Pair::up().await;
    let (before, term) = (started(&pair, A).await, pair.api.record().term);
    let mut new = pair.ca.leaf("tls", "shop-b", 101);
    new.extend(pair.ca.leaf("replication", "pgpair_replication", 104));
    give(&pair, B, 10, &new).await;
    let stolen = pair.tls(B); // the mounted one is that of before
    pair.ask_as(&stolen, A, "GET", paths::NEEDS, "").await.expect("it is good so far");
    let [agent, replication] = [pair.serial(B, "tls"), pair.serial(B, "replication")];
    let used = format!("SELECT count(*) FROM pg_stat_ssl WHERE client_serial = {replication}");
    let list = Files::from([("crl.pem".to_owned(), pair.ca.revoke(&[agent, replication]))]);
    assert_eq!(pair.sql(A, &used).await.unwrap(), "1", "b streams on with the certificate of before");
    give(&pair, A, 11, &list).await;
    eventually("nobody uses the revoked one in a session", LIMIT, async || {
        pair.sql(A, &used).await.ok().filter(|count| count == "0")
    })
    .await;
    new.extend(list);
    give(&pair, B, 11, &new).await;
    pair.ask_as(&stolen, A, "GET", paths::NEEDS, "").await.expect_err("it is refused");
    follows(&pair, A).await;
    assert_eq!((pair.api.mode(), pair.api.record().term), (Mode::Paired, term));
    assert_eq!(started(&pair, A).await, before);
    pair.kill_container(A);
    eventually("b is the primary", LIMIT, async || pair.is_writable(B).await.then_some(())).await;
    assert_eq!(pair.api.record().primary.instance, B);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_says_that_it_uses_certificates_only_when_its_postgres_has_them_too() {
    let pair = Pair::up().await;
    let copies = pair.copied_certificates(A);
    let told = async || pair.report(A).await?.certificates;
    fs::set_permissions(&copies, Permissions::from_mode(0o500)).unwrap();
    put(&pair, A, 10, &pair.ca.leaf("server", "db", 101)).await;
    let told_first = eventually("the agent says why its postgres has not got them", LIMIT, async || {
        told().await.filter(|told| told.trouble.is_some())
    })
    .await;
    assert_eq!(told_first.version, 0, "{told_first:?}");
    fs::set_permissions(&copies, Permissions::from_mode(0o700)).unwrap();
    eventually("it has them", LIMIT, async || {
        told().await.filter(|told| told.version == 10 && told.trouble.is_none())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_that_cannot_be_used_are_refused_in_words_and_without_a_key() {
    let pair = Pair::up().await;
    let mut files = pair.mounted_certificates(A);
    files.insert("version".into(), "10".into());
    let with = |name: &str, text: &str| {
        let mut files = files.clone();
        files.insert(name.into(), text.into());
        serde_json::to_string(&files).unwrap()
    };
    let key = Ca::new("other").leaf("tls", "shop-a", 1)["tls.key"].clone();
    for (body, code) in [
        (with("tls.key", &key), 422),
        (with("ca.crt", "no certificate"), 422),
        (with("version", "0"), 409),
        (r#"{"tls.key": 5}"#.to_owned(), 422),
    ] {
        let (status, said) = pair.ask(A, "PUT", paths::CERTIFICATES, &body).await.unwrap();
        assert_eq!(status, code, "{said}");
        assert!(!said.is_empty() && !said.contains("PRIVATE"), "{said}");
    }
    assert_eq!(pair.report(A).await.unwrap().certificates.unwrap().version, 0);
}
