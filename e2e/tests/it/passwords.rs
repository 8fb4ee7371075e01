//! Passwords: the Secret is the truth, for the application's role.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use pgpair_api::order::UserOrderKind;
use pgpair_api::status::{ConditionType, OrderState, PasswordStage, Reason};
use pgpair_core::ids::InstanceId;
use pgpair_e2e::harness::pair::{Pair, apply, manifest};
use pgpair_e2e::harness::status::await_told;
use pgpair_e2e::harness::wait::await_condition;
use serde_json::json;

use crate::Outcome;
use crate::context::Context;

/// For a pair from nothing to `Paired`.
const BRING_UP: Duration = Duration::from_secs(240);
/// Within seconds: the kubelet, which takes a minute or more, has no part in it.
const SECONDS: Duration = Duration::from_secs(20);
/// The operator looks once a minute at the Secrets of people.
const MINUTE: Duration = Duration::from_secs(90);

/// A changed Secret is in effect within seconds, a missing or empty password changes nothing, a deleted Secret comes back with a password that
/// works, another password can be ordered, and no password is in a pod.
pub async fn a_secret_is_the_truth_for_its_password(c: &mut Context) -> anyhow::Result<Outcome> {
    let (cluster, namespace) = (c.cluster()?, c.namespace().await?);
    let pair = Pair::new(&cluster, &namespace, "keys");
    apply(&cluster, &namespace, &manifest("keys", 17)).await?;
    let status = pair.await_paired(1, BRING_UP).await?;
    let primary = pair.primary_of(&status)?;
    let walked = walk(&pair, primary).await;
    pair.explain(walked).await?;
    let defined = define(&pair, primary).await;
    pair.explain(defined).await?;
    Ok(Outcome::Passed)
}

async fn walk(pair: &Pair, primary: InstanceId) -> anyhow::Result<()> {
    let first = pair.app_secret("password").await?;
    await_login(pair, primary, &first).await?;
    let mounted = pair.shell(primary, "cat /pgpair/app/*").await?;
    ensure!(mounted.contains("SCRAM-SHA-256$") && !mounted.contains(&first), "mounted: {mounted}");

    set_password(pair, "n3w w0rd").await?;
    await_login(pair, primary, "n3w w0rd").await?;
    ensure!(!logs_in(pair, primary, &first).await, "the old password still works");
    ensure!(pair.app_secret("uri").await?.contains(":n3w%20w0rd@"), "the connection string is the old one");

    set_password(pair, "").await?;
    let (type_, words) = (ConditionType::RolesHealthy, ["keys-app"]);
    await_told(pair, type_, Reason::PasswordMissing, &words, SECONDS).await?;
    ensure!(logs_in(pair, primary, "n3w w0rd").await, "an empty password has changed something");

    let secrets = secrets(pair);
    secrets.delete("keys-app", &DeleteParams::default()).await.context("deleting the Secret")?;
    let made =
        await_condition("the Secret is there again", SECONDS, || async { pair.app_secret("password").await })
            .await?;
    await_login(pair, primary, &made).await?;
    await_told(pair, type_, Reason::RolesAsExpected, &[], SECONDS).await?;

    pair.psql(primary, "ALTER ROLE app PASSWORD 'by hand'").await?;
    // The agent looks at what it has given once a minute.
    await_told(pair, type_, Reason::PasswordDiffers, &words, Duration::from_secs(90)).await?;
    ensure!(logs_in(pair, primary, "by hand").await, "what a person has changed was put back");

    pair.order(&json!({"kind": "RotatePassword"})).await?;
    await_condition("the order is done", SECONDS, || async {
        let order = pair.status().await?.order.context("no order")?;
        ensure!(
            order.kind.is(UserOrderKind::RotatePassword) && order.state.is(OrderState::Done),
            "{order:?}"
        );
        Ok(())
    })
    .await?;
    let ordered = pair.app_secret("password").await?;
    ensure!(ordered != made, "it is the same password");
    await_login(pair, primary, &ordered).await?;
    let told = pair.status().await?.passwords;
    ensure!(told.iter().all(|one| one.state.is(PasswordStage::InEffect)), "{told:?}");
    Ok(())
}

/// Roles and databases of the spec come into being, with a password in a Secret of a person; what is refused is told, and nothing is dropped.
async fn define(pair: &Pair, primary: InstanceId) -> anyhow::Result<()> {
    let metadata = json!({"name": "keys-report", "namespace": pair.names.namespace});
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": {"password": "r3port"}});
    let secret: Secret = serde_json::from_value(secret)?;
    secrets(pair).create(&PostParams::default(), &secret).await.context("creating a Secret")?;
    let report = json!({"name": "report", "memberOf": ["pg_read_all_data"], "passwordSecret": "keys-report"});
    let wrong = json!({"name": "wrong", "login": false, "memberOf": ["nobody"]});
    let database = json!({"name": "reporting", "owner": "report", "extensions": ["pg_trgm"]});
    pair.set(&json!({"roles": [report, wrong], "databases": [database]})).await?;
    let words = ["role wrong", "role \"nobody\" does not exist"];
    await_told(pair, ConditionType::RolesHealthy, Reason::DefinitionRefused, &words, SECONDS).await?;
    await_condition("the role gets in with the password of its Secret", MINUTE, || async {
        ensure!(log_in(pair, primary, "report", "reporting", "r3port").await, "it does not");
        Ok(())
    })
    .await?;
    pair.set(&json!({"roles": null, "databases": null})).await?;
    await_told(pair, ConditionType::RolesHealthy, Reason::RolesAsExpected, &[], SECONDS).await?;
    let there = "SELECT count(*) FROM pg_database d JOIN pg_roles r ON r.oid = d.datdba WHERE datname = 'reporting' AND rolname = 'report'";
    ensure!(pair.psql(primary, there).await? == "1", "something was dropped");
    Ok(())
}

fn secrets(pair: &Pair) -> Api<Secret> {
    Api::namespaced(pair.cluster.client.clone(), &pair.names.namespace)
}

async fn set_password(pair: &Pair, password: &str) -> anyhow::Result<()> {
    let patch = Patch::Merge(json!({"stringData": {"password": password}}));
    let patched = secrets(pair).patch("keys-app", &PatchParams::default(), &patch).await;
    patched.map(|_| ()).context("changing the Secret")
}

async fn logs_in(pair: &Pair, from: InstanceId, password: &str) -> bool {
    log_in(pair, from, "app", "app", password).await
}

/// Over the network, with TLS.
async fn log_in(pair: &Pair, from: InstanceId, role: &str, database: &str, password: &str) -> bool {
    let attempt = async {
        let host = pair.rw_address().await?;
        let to = format!("host={host} user={role} dbname={database} sslmode=require connect_timeout=5");
        pair.shell(from, &format!("PGPASSWORD='{password}' psql -X -w -Atc 'SELECT 1' '{to}'")).await
    };
    attempt.await.is_ok_and(|said: String| said == "1")
}

async fn await_login(pair: &Pair, from: InstanceId, password: &str) -> anyhow::Result<()> {
    await_condition("the password of the Secret lets the application in", SECONDS, || async {
        ensure!(logs_in(pair, from, password).await, "it does not");
        Ok(())
    })
    .await
}
