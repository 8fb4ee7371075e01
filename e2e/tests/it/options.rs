//! What the spec offers beyond its defaults, on pairs of their own: the copy's speed, Services, TLS, a pause; and a volume
//! that is not to be touched.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Secret, Service};
use k8s_openapi::api::events::v1::Event;
use kube::api::{DeleteParams, ListParams};
use kube::{Api, ResourceExt as _};
use pgpair_core::ids::InstanceId;
use pgpair_e2e::harness::pair::{Pair, apply, manifest};
use pgpair_e2e::harness::wait::await_condition;
use serde_json::json;

use crate::Outcome;
use crate::context::Context;

/// For a pair from nothing to `Paired`.
const BRING_UP: Duration = Duration::from_secs(240);
/// For what the operator does at once.
const SOON: Duration = Duration::from_secs(60);
/// The kubelet brings a changed Secret within its sync period, the agent looks every 10 s.
const MOUNTED: Duration = Duration::from_secs(180);
/// How long a paused operator is watched: several times what it takes to put a thing right.
const WATCHED: Duration = Duration::from_secs(15);
/// An empty cluster of PostgreSQL is a little larger than this, and copied at so much in a second.
const RATE_MIB: u32 = 1;
const AT_LEAST_MIB: u32 = 20;

const OPTIONS: &str = "  service:\n    labels: {team: shop}\n    \
    annotations: {example.com/owner: shop}\n  tls:\n    clients: Required\n    validityDays: 2\n    renewBeforeDays: 1\n    \
    dnsNames: [shop.example.com]\n";

/// The copy keeps to its rate and tells how far it is; Services carry what they are given; clients without TLS are refused;
/// a certificate is renewed when its time has come, and served.
pub async fn seeding_services_and_tls_are_as_the_spec_says(c: &mut Context) -> anyhow::Result<Outcome> {
    let (cluster, namespace) = (c.cluster()?, c.namespace().await?);
    let pair = Pair::new(&cluster, &namespace, "shop");
    let seeding = format!("  seeding:\n    maxRateMiB: {RATE_MIB}\n");
    apply(&cluster, &namespace, &(manifest("shop", 17) + OPTIONS + &seeding)).await?;
    let seeded = seeding_is_told(&pair).await;
    pair.explain(seeded).await?;
    let status = pair.await_paired(1, BRING_UP).await?;
    let primary = pair.primary_of(&status)?;
    services_carry_their_metadata(&pair).await?;
    clients_need_tls(&pair, primary).await?;
    the_certificate_is_renewed(&pair, primary).await?;
    Ok(Outcome::Passed)
}

/// A paused operator brings nothing of the spec into effect; what was left undone is done afterwards.
pub async fn a_paused_pair_is_left_alone(c: &mut Context) -> anyhow::Result<Outcome> {
    let pair = c.pair().await?;
    pair.await_paired(1, BRING_UP).await?;
    pair.set(&json!({"paused": true})).await?;
    let services: Api<Service> = Api::namespaced(pair.cluster.client.clone(), &pair.names.namespace);
    let name = pair.names.any();
    let watched = async {
        await_condition("the operator has seen the pause", SOON, || async { pair.is_observed().await })
            .await?;
        services.delete(&name, &DeleteParams::default()).await.context("deleting a Service")?;
        let end = Instant::now() + WATCHED;
        while Instant::now() < end {
            ensure!(
                services.get_opt(&name).await?.is_none(),
                "{name} is there again, though the pair is paused"
            );
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        anyhow::Ok(())
    }
    .await;
    pair.set(&json!({"paused": false})).await?;
    watched?;
    await_condition("the Service is there again", SOON, || async {
        services.get_opt(&name).await?.context("it is not")
    })
    .await?;
    pair.await_paired(1, BRING_UP).await?;
    Ok(Outcome::Passed)
}

/// A volume with the data of another cluster is never seeded: it is told, and nothing on it changes.
pub async fn data_of_another_cluster_is_never_overwritten(c: &mut Context) -> anyhow::Result<Outcome> {
    let pair = c.bring_up("twice", 17).await?;
    let (cluster, namespace) = (pair.cluster.clone(), pair.names.namespace.clone());
    let node = pair.node(InstanceId::B).await?;
    let first = pair.status().await?.system_identifier.context("no system identifier")?;
    cluster.kubectl(&["-n", &namespace, "delete", "pgreplicapair", "twice", "--timeout=60s"]).await?;
    let pods = "-l=pgpair.dev/pair=twice";
    cluster.kubectl(&["-n", &namespace, "wait", "--for=delete", "pod", pods, "--timeout=60s"]).await?;
    // Instance a begins anew, b still has what it had; a keeps away from the node that the volumes of b are on.
    forget(&pair, InstanceId::A).await?;
    cluster.kubectl(&["cordon", &node]).await?;
    apply(&cluster, &namespace, &manifest("twice", 17)).await?;
    let begun = await_condition("instance a", BRING_UP, || async {
        ensure!(pair.status().await?.term == Some(1), "no term yet");
        Ok(())
    })
    .await;
    cluster.kubectl(&["uncordon", &node]).await?;
    pair.explain(begun).await?;
    let told = await_condition("the refusal of the copy", BRING_UP, || async {
        let status = pair.status().await?;
        let found = status.conditions.iter().find(|c| c.reason == "SeedFailed" && c.type_ == "Degraded");
        found.map(|c| c.message.clone()).with_context(|| format!("conditions are {:?}", status.conditions))
    });
    let told = pair.explain(told.await).await?;
    println!("  {told}");
    ensure!(told.contains(&format!("belongs to the cluster {first}")), "{told}");
    let reasons = reasons(&pair).await?;
    ensure!(reasons.iter().any(|r| r == "SeedFailed"), "Events are {reasons:?}");
    // A person has decided that it is not needed: the next copy succeeds.
    forget(&pair, InstanceId::B).await?;
    let second = pair.await_paired(1, BRING_UP).await?.system_identifier;
    ensure!(second.is_some_and(|s| s != first), "the second pair has the identifier of the first, {first}");
    cluster.kubectl(&["-n", &namespace, "delete", "pgreplicapair", "twice", "--timeout=60s"]).await?;
    Ok(Outcome::Passed)
}

async fn seeding_is_told(pair: &Pair) -> anyhow::Result<()> {
    let told = await_condition("progress of the copy in the status", BRING_UP, || async {
        let seeding = pair.status().await?.seeding.context("the status tells of no copy")?;
        let (done, total) = (seeding.done_bytes.unwrap_or(0), seeding.total_bytes.unwrap_or(0));
        ensure!(done > 0 && done < total, "{seeding:?}");
        Ok((seeding, Instant::now()))
    });
    let (seeding, seen) = told.await?;
    println!("  {seeding:?}");
    await_condition("the end of the copy", BRING_UP, || async {
        ensure!(pair.last_seed(InstanceId::B).await? > 0, "{:?}", pair.status().await?.seeding);
        Ok(())
    })
    .await?;
    let left = seeding.total_bytes.unwrap_or(0) - seeding.done_bytes.unwrap_or(0);
    ensure!(seeding.total_bytes > Some(i64::from(AT_LEAST_MIB) << 20), "{seeding:?}");
    // Half as fast again is still no copy without a limit, which takes less than a second.
    let fastest = left as f64 / f64::from(RATE_MIB << 20) / 1.5;
    let took = seen.elapsed().as_secs_f64();
    ensure!(took >= fastest, "{left} bytes were copied in {took:.1} s, at more than {RATE_MIB} MiB/s");
    let reasons = reasons(pair).await?;
    for reason in ["SeedingStarted", "SeedingProgress", "SeedingFinished"] {
        ensure!(reasons.iter().any(|r| r == reason), "no Event {reason} among {reasons:?}");
    }
    Ok(())
}

async fn services_carry_their_metadata(pair: &Pair) -> anyhow::Result<()> {
    let services: Api<Service> = Api::namespaced(pair.cluster.client.clone(), &pair.names.namespace);
    for name in [pair.names.rw(), pair.names.ro(), pair.names.any()] {
        let service = services.get(&name).await.with_context(|| format!("Service {name}"))?;
        ensure!(service.labels().get("team").is_some_and(|t| t == "shop"), "{name}: {:?}", service.labels());
        let owner = service.annotations().get("example.com/owner");
        ensure!(owner.is_some_and(|o| o == "shop"), "{name}: {:?}", service.annotations());
    }
    Ok(())
}

async fn clients_need_tls(pair: &Pair, primary: InstanceId) -> anyhow::Result<()> {
    let (password, user) = (pair.app_secret("password").await?, pair.app_secret("user").await?);
    let (database, host) = (pair.app_secret("dbname").await?, pair.rw_address().await?);
    let connect = async |mode: &str| {
        let to = format!("host={host} user={user} dbname={database} sslmode={mode} connect_timeout=10");
        pair.shell(primary, &format!("PGPASSWORD='{password}' psql -X -Atc 'SELECT 1' '{to}'")).await
    };
    ensure!(connect("require").await? == "1", "no answer with TLS");
    match connect("disable").await {
        Ok(answer) => bail!("a client without TLS was answered {answer:?}"),
        Err(error) => ensure!(format!("{error:#}").contains("no encryption"), "{error:#}"),
    }
    Ok(())
}

/// It was made for two days; a pair whose certificates are to be renewed a month before their end renews it now.
async fn the_certificate_is_renewed(pair: &Pair, primary: InstanceId) -> anyhow::Result<()> {
    let before = certificate(pair, primary).await?;
    pair.set(&json!({"tls": {"validityDays": 90, "renewBeforeDays": 30}})).await?;
    let renewed = await_condition("a new certificate", SOON, || async {
        let now = certificate(pair, primary).await?;
        ensure!(now != before, "it is the old one");
        Ok(now)
    })
    .await?;
    let served = await_condition("the new certificate in use", MOUNTED, || async {
        let file = pair.psql(primary, "SELECT pg_read_file(current_setting('ssl_cert_file'))").await?;
        ensure!(file.trim() == renewed.trim(), "postgres has another file");
        let loaded =
            "SELECT pg_conf_load_time() > modification FROM pg_stat_file(current_setting('ssl_cert_file'))";
        ensure!(pair.psql(primary, loaded).await? == "t", "the file is newer than what postgres has read");
        Ok(())
    });
    pair.explain(served.await).await
}

/// The one that postgres shows.
async fn certificate(pair: &Pair, instance: InstanceId) -> anyhow::Result<String> {
    let secrets: Api<Secret> = Api::namespaced(pair.cluster.client.clone(), &pair.names.namespace);
    let name = pair.names.tls_secret(instance);
    let secret = secrets.get(&name).await.with_context(|| format!("Secret {name}"))?;
    let ByteString(pem) = secret.data.unwrap_or_default().remove("server.crt").context("no server.crt")?;
    String::from_utf8(pem).context("server.crt is no text")
}

/// As a person does who has decided that the data is not needed: the claims go, and their pod with them.
async fn forget(pair: &Pair, instance: InstanceId) -> anyhow::Result<()> {
    let claims: Api<PersistentVolumeClaim> =
        Api::namespaced(pair.cluster.client.clone(), &pair.names.namespace);
    let labels = format!("pgpair.dev/pair={},pgpair.dev/instance={}", pair.names.name, instance.as_str());
    let found = claims.list(&ListParams::default().labels(&labels)).await.context("listing claims")?;
    ensure!(!found.items.is_empty(), "no claims with {labels}");
    for claim in found {
        claims.delete(&claim.name_any(), &DeleteParams::default()).await.context("deleting a claim")?;
    }
    Ok(())
}

/// Reasons of the pair's Events.
async fn reasons(pair: &Pair) -> anyhow::Result<Vec<String>> {
    let events: Api<Event> = Api::namespaced(pair.cluster.client.clone(), &pair.names.namespace);
    let of_pair = |e: &Event| {
        e.regarding.as_ref().is_some_and(|r| {
            r.kind.as_deref() == Some("PgReplicaPair") && r.name.as_deref() == Some(&pair.names.name)
        })
    };
    let all = events.list(&ListParams::default()).await.context("listing Events")?;
    Ok(all.into_iter().filter(of_pair).filter_map(|e| e.reason).collect())
}
