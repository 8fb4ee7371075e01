//! What is pushed to running agents, and what an agent asks of the operator.

use std::fs;

use pgpair_core::ids::InstanceId;
use pgpair_core::order::OrderKind;
use pgpair_core::record::Mode;
use pgpair_wire::config::{PairConfig, StandbyProfile};
use pgpair_wire::paths;
use pgpair_wire::report::{Need, RejoinKind};

use crate::orders::order;
use crate::pair::{LIMIT, Pair, eventually};

const A: InstanceId = InstanceId::A;
const B: InstanceId = InstanceId::B;

fn config(generation: i64) -> PairConfig {
    PairConfig { generation, ttl_ms: 2_000, ..PairConfig::default() }
}

async fn push(pair: &Pair, to: InstanceId, config: &PairConfig) -> (u16, String) {
    pair.ask(to, "PUT", paths::CONFIG, &serde_json::to_string(config).unwrap()).await.unwrap()
}

async fn followed(pair: &Pair, who: InstanceId, generation: i64) -> Vec<String> {
    eventually("the agent follows the configuration", LIMIT, async || {
        let report = pair.report(who).await?;
        (report.config_generation == generation).then_some(report.pending_restart)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pushed_configuration_changes_both_instances_while_they_run_and_a_bad_one_changes_nothing() {
    let mut pair = Pair::up().await;
    let postmasters = [pair.postmaster_pid(A), pair.postmaster_pid(B)];
    let mut second = PairConfig { ttl_ms: 3_000, standby_profile: StandbyProfile::Reporting, ..config(2) };
    second.parameters.insert("work_mem".into(), "7MB".into());
    second.parameters.insert("max_connections".into(), "120".into());
    for i in InstanceId::ALL {
        assert_eq!(push(&pair, i, &second).await, (200, "null".into()));
        assert_eq!(followed(&pair, i, 2).await, ["max_connections"]);
        assert_eq!(pair.sql(i, "SHOW work_mem").await.as_deref(), Ok("7MB"));
        assert_eq!(pair.sql(i, "SHOW max_standby_streaming_delay").await.as_deref(), Ok("1h"));
    }
    assert_eq!(postmasters, [pair.postmaster_pid(A), pair.postmaster_pid(B)]);
    let mut bad = config(3);
    for (name, value, says) in [
        ("fsync", "off", "belongs to the operator"),
        ("work_mem", "lots", "work_mem"),
        ("a b", "1", "not the name"),
    ] {
        bad.parameters = [(name.to_owned(), value.to_owned())].into();
        let (status, reason) = push(&pair, A, &bad).await;
        assert!(status == 422 && reason.contains(says), "{status} {reason}");
    }
    // PostgreSQL alone knows: at a reload it would keep its old rules, and with these it would not start.
    let rule = "host all all 0.0.0.0/0 scram-sha-256 clientcert=banana".to_owned();
    for i in InstanceId::ALL {
        let (status, reason) = push(&pair, i, &PairConfig { hba: vec![rule.clone()], ..config(3) }).await;
        assert!(status == 422 && reason.contains("clientcert"), "{status} {reason}");
        let on_disk = std::fs::read_to_string(pair.pgdata(i).join("pg_hba.conf")).unwrap();
        assert!(!on_disk.contains("banana"));
    }
    assert_eq!(push(&pair, A, &PairConfig { ttl_ms: 10, ..config(3) }).await.0, 422);
    assert_eq!(push(&pair, A, &config(1)).await.0, 409, "an older one");
    assert_eq!(followed(&pair, A, 2).await, ["max_connections"]);
    // What was pushed is newer than what is mounted, also after a restart of the container.
    pair.kill_container(B);
    pair.start(B);
    eventually("with the new limit", LIMIT, async || {
        (pair.sql(B, "SHOW max_connections").await.as_deref() == Ok("120")).then_some(())
    })
    .await;
    assert_eq!(followed(&pair, B, 2).await, Vec::<String>::new());
}

async fn shows(pair: &Pair, at: InstanceId, connections: &str) {
    eventually("the limit is in effect", LIMIT, async || {
        (pair.sql(at, "SHOW max_connections").await.as_deref() == Ok(connections)).then_some(())
    })
    .await;
}

/// What waits for a restart there, and what is raised to the primary's value.
async fn waits(pair: &Pair, at: InstanceId, pending: &[&str], raised: &[&str]) {
    eventually(&format!("{at}: {pending:?} and {raised:?}"), LIMIT, async || {
        let report = pair.report(at).await?;
        (report.pending_restart == pending && report.raised == raised).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lowered_limit_comes_into_effect_by_a_restart_of_the_primary_and_then_of_the_standby() {
    const NAME: &[&str] = &["max_connections"];
    let connections = |generation, n: &str| PairConfig {
        parameters: [("max_connections".into(), n.into())].into(),
        ..config(generation)
    };
    let pair = Pair::up_with(connections(1, "120")).await;
    for i in InstanceId::ALL {
        assert_eq!(push(&pair, i, &connections(2, "60")).await.0, 200);
    }
    waits(&pair, A, NAME, &[]).await;
    waits(&pair, B, &[], NAME).await;
    // A hand-over moves the old value, and the need, to the other one.
    order(&pair, A, "over", OrderKind::Switchover).await;
    waits(&pair, B, NAME, &[]).await;
    pair.paired().await;
    waits(&pair, A, &[], NAME).await;
    order(&pair, B, "lower", OrderKind::Restart).await;
    shows(&pair, B, "60").await;
    waits(&pair, B, &[], &[]).await;
    waits(&pair, A, NAME, &[]).await;
    pair.paired().await;
    order(&pair, A, "standby", OrderKind::Restart).await;
    shows(&pair, A, "60").await;
    waits(&pair, A, &[], &[]).await;
}

/// As the kubelet mounts a ConfigMap, which has what the agents refuse just as well.
#[tokio::test(flavor = "multi_thread")]
async fn a_restart_with_settings_that_postgres_refuses_runs_on_with_those_that_it_accepted() {
    let mut first = config(1);
    first.parameters.insert("work_mem".into(), "7MB".into());
    let mut pair = Pair::up_with(first).await;
    let mut bad = config(2);
    bad.parameters.insert("work_mem".into(), "lots".into());
    pair.mount(B, &bad);
    assert_eq!(push(&pair, B, &bad).await.0, 422);
    pair.kill_container(B);
    pair.forget_run(B);
    pair.start(B);
    eventually("it runs", LIMIT, async || {
        (pair.sql(B, "SHOW work_mem").await.as_deref() == Ok("7MB")).then_some(())
    })
    .await;
    assert_eq!(pair.report(B).await.unwrap().config_generation, 1);
    let corrected = PairConfig { parameters: [("work_mem".into(), "8MB".into())].into(), ..config(3) };
    assert_eq!(push(&pair, B, &corrected).await.0, 200);
    followed(&pair, B, 3).await;
    assert_eq!(pair.sql(B, "SHOW work_mem").await.as_deref(), Ok("8MB"));
}

/// With the standby away: the primary writes until the log that the standby's slot keeps is too much, and gone.
async fn lose_log(pair: &Pair) {
    eventually("the record says Solo", LIMIT, async || (pair.api.mode() == Mode::Solo).then_some(())).await;
    let kept = "SELECT restart_lsn FROM pg_replication_slots WHERE slot_name = 'pgpair_b'";
    let before = pair.sql(A, kept).await.unwrap();
    eventually("the slot keeps it no more", LIMIT, async || {
        for step in ["INSERT INTO t VALUES (1)", "SELECT pg_switch_wal()", "CHECKPOINT"] {
            pair.sql(A, step).await.ok()?;
        }
        // Lost, or made anew already.
        (pair.sql(A, kept).await.ok()? != before).then_some(())
    })
    .await;
    // Only what is archived is removed, by the checkpoint after that.
    let waiting = "SELECT count(*) FROM pg_ls_archive_statusdir() WHERE name LIKE '%.ready'";
    eventually("all is archived", LIMIT, async || {
        (pair.sql(A, waiting).await.as_deref() == Ok("0")).then_some(())
    })
    .await;
    pair.sql(A, "CHECKPOINT").await.unwrap();
}

async fn asks_for_rebuild(pair: &Pair, who: InstanceId) -> String {
    eventually("it asks for a rebuild", 2 * LIMIT, async || match pair.report(who).await?.need {
        Some(Need::Rebuild { reason }) => Some(reason),
        _ => None,
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_asks_for_a_rebuild_when_its_log_is_gone_from_everywhere_and_not_before() {
    let mut first = config(1);
    first.parameters.insert("wal_keep_size".into(), "0".into());
    let mut pair = Pair::up_with(first).await;
    pair.sql(A, "CREATE TABLE t (n int)").await.unwrap();
    // The agent's own limit is too large for a test.
    pair.sql(A, "ALTER SYSTEM SET max_slot_wal_keep_size = '1MB'").await.unwrap();
    pair.sql(A, "SELECT pg_reload_conf()").await.unwrap();
    pair.kill_container(B);
    lose_log(&pair).await;
    pair.start(B);
    // From the primary's archive, and then by a slot that was made anew.
    pair.paired().await;
    assert_eq!(pair.report(B).await.unwrap().need, None);
    pair.kill_container(B);
    lose_log(&pair).await;
    for i in InstanceId::ALL {
        for entry in fs::read_dir(pair.archive(i)).unwrap() {
            fs::remove_file(entry.unwrap().path()).unwrap();
        }
    }
    pair.start(B);
    let reason = asks_for_rebuild(&pair, B).await;
    assert!(reason.contains("needs the log from"), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_that_never_starts_asks_for_a_rebuild_with_its_last_words() {
    let mut pair = Pair::up().await;
    pair.kill_container(B);
    fs::remove_file(pair.pgdata(B).join("PG_VERSION")).unwrap();
    pair.start(B);
    let reason = asks_for_rebuild(&pair, B).await;
    assert!(reason.contains("in a row") && reason.contains("not a valid data directory"), "{reason}");
    assert!(pair.is_writable(A).await);
}

/// The next one would be the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_fresh_copy_that_does_not_start_is_told_and_not_followed_by_another() {
    let mut pair = Pair::up().await;
    pair.kill_container(B);
    fs::remove_file(pair.pgdata(B).join("PG_VERSION")).unwrap();
    let note = pair.pgdata(B).with_file_name("fresh-copy");
    fs::write(&note, "").unwrap();
    pair.start(B);
    eventually("it is told", LIMIT, async || {
        let report = pair.report(B).await?;
        assert_eq!(report.need, None);
        report.trouble?.contains("on a fresh copy").then_some(())
    })
    .await;
    fs::remove_file(&note).unwrap();
    asks_for_rebuild(&pair, B).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_primary_tells_how_it_came_back() {
    let mut pair = Pair::up().await;
    pair.sql(A, "CREATE TABLE t (n int)").await.unwrap();
    pair.kill_container(A);
    eventually("b takes writes", LIMIT, async || pair.is_writable(B).await.then_some(())).await;
    pair.start(A);
    pair.paired().await;
    let rejoin = pair.report(A).await.unwrap().rejoin.unwrap();
    assert_eq!(rejoin.term, pair.api.record().term);
    match rejoin.how {
        RejoinKind::Followed => assert_eq!((rejoin.branch_bytes, rejoin.branch), (0, None)),
        RejoinKind::Rewound => {
            assert_eq!(rejoin.branch.map(|(a, b)| b.bytes_since(a)), Some(rejoin.branch_bytes))
        }
    }
    assert_eq!(pair.report(B).await.unwrap().rejoin, None);
    let space = pair.report(A).await.unwrap().space;
    assert!(space.data_bytes > space.data_free && space.archive_free.is_some());
}
