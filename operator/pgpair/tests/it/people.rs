//! What people do to a database that its agents take care of.

use std::time::Duration;

use pgpair_core::ids::InstanceId;
use pgpair_core::instance::PostgresState;
use pgpair_core::record::Mode;
use pgpair_wire::config::PairConfig;
use pgpair_wire::paths;
use rustix::process::{Signal, kill_process};

use crate::pair::{LIMIT, Pair, eventually};

const A: InstanceId = InstanceId::A;
const B: InstanceId = InstanceId::B;

fn with(generation: i64, parameters: &[(&str, &str)]) -> PairConfig {
    let parameters =
        parameters.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    PairConfig { generation, ttl_ms: 2_000, parameters, ..PairConfig::default() }
}

async fn push(pair: &Pair, to: InstanceId, config: &PairConfig) -> (u16, String) {
    pair.ask(to, "PUT", paths::CONFIG, &serde_json::to_string(config).unwrap()).await.unwrap()
}

async fn follows(pair: &Pair, who: InstanceId, generation: i64) {
    eventually("the agent follows the configuration", LIMIT, async || {
        (pair.report(who).await?.config_generation == generation).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_alter_system_takes_from_a_promise_is_put_back_and_told() {
    let pair = Pair::up().await;
    pair.sql(A, "ALTER SYSTEM SET synchronous_standby_names = ''").await.unwrap();
    pair.sql(A, "ALTER SYSTEM SET work_mem = '5MB'").await.unwrap();
    pair.sql(A, "SELECT pg_reload_conf()").await.unwrap();
    eventually("it is put back, and told", Duration::from_secs(10), async || {
        let told = pair.report(A).await?.trouble?;
        let names = pair.sql(A, "SHOW synchronous_standby_names").await.ok()?;
        (told.contains("synchronous_standby_names") && names.contains("pgpair_b")).then_some(())
    })
    .await;
    assert!(pair.sql(A, "SHOW work_mem").await.unwrap().contains("5MB"), "that is the person's");
    assert_eq!(pair.report(A).await.unwrap().authority.mode, Some(Mode::Paired));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_does_not_start_with_what_alter_system_has_set_comes_back_without_and_says_so() {
    let mut pair = Pair::up().await;
    pair.sql(A, "ALTER SYSTEM SET shared_preload_libraries = 'pgaudti'").await.unwrap();
    pair.sql(A, "ALTER SYSTEM SET work_mem = '5MB'").await.unwrap();
    pair.kill_container(A);
    pair.start(A);
    pair.paired().await;
    eventually("it is told", LIMIT, async || {
        let told = pair.report(A).await?.trouble?;
        (told.contains("shared_preload_libraries") && told.contains("work_mem")).then_some(())
    })
    .await;
    let kept = pair.pgdata(A).join("postgresql.auto.conf.set-aside");
    assert!(std::fs::read_to_string(kept).unwrap().contains("pgaudti"));
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_of_sessions_keep_no_standby_from_taking_over_and_none_from_coming_back() {
    let mut pair = Pair::up().await;
    // Not for the server: of every role, as a person may set it.
    pair.sql(A, "ALTER ROLE ALL SET default_transaction_read_only = on").await.unwrap();
    let second = with(2, &[("default_transaction_isolation", "serializable"), ("statement_timeout", "1")]);
    for i in [A, B] {
        assert_eq!(push(&pair, i, &second).await.0, 200);
    }
    follows(&pair, A, 2).await;
    follows(&pair, B, 2).await;
    pair.kill_container(A);
    eventually("b is confirmed as the primary", LIMIT, async || {
        let report = pair.report(B).await?;
        (report.postgres.state == PostgresState::Primary && report.authority.gate_open).then_some(())
    })
    .await;
    pair.start(A);
    pair.paired().await;
    assert_eq!(pair.report(A).await.unwrap().postgres.state, PostgresState::Standby);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_library_that_the_image_lacks_is_refused_and_a_correction_arrives_where_nobody_can_log_in() {
    let pair = Pair::up().await;
    for parameter in ["shared_preload_libraries", "session_preload_libraries", "local_preload_libraries"] {
        let (status, said) = push(&pair, A, &with(2, &[(parameter, "pgaudti")])).await;
        assert!(status == 422 && said.contains("no library \"pgaudti\""), "{parameter}: {status} {said}");
    }
    // By a way that nobody checks; as root of the pod may do.
    let everybody = "ALTER ROLE ALL SET session_preload_libraries = 'pgaudti'";
    pair.sql(A, everybody).await.unwrap();
    assert!(pair.sql(A, "SELECT 1").await.is_err(), "nobody can log in");
    assert_eq!(push(&pair, A, &with(3, &[("work_mem", "7MB")])).await.0, 200);
    follows(&pair, A, 3).await;
    assert_eq!(pair.report(A).await.unwrap().login_refused, None);
}

/// A "smart" shutdown waits for sessions, and a fast one for its last checkpoint. Nobody is let in meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn a_primary_that_somebody_else_shuts_down_and_that_does_not_come_to_its_end_is_handed_over() {
    let pair = Pair::up().await;
    let session = pair.connect(A).await.unwrap();
    kill_process(pair.postmaster_pid(A), Signal::TERM).unwrap();
    eventually("b takes writes", LIMIT, async || pair.is_writable(B).await.then_some(())).await;
    drop(session);
    eventually("both are paired again", LIMIT, async || {
        (pair.api.mode() == Mode::Paired && pair.api.record().primary.instance == B).then_some(())
    })
    .await;
}
