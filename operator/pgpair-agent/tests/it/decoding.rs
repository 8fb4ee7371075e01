//! `wal_level = logical`, and what becomes of logical slots.

use std::fs;
use std::time::Duration;

use pgpair_agent::instance::layout::Layout;
use pgpair_agent::postgres::postmaster::{Postmaster, StartAs};
use pgpair_agent::postgres::promote::promote;
use pgpair_agent::postgres::slots::list_logical;
use rustix::process::{Pid, Signal, kill_process};

use crate::fixture::{Instance, LIMIT, World, eventually, run};

const MAKE: &str = "SELECT pg_create_logical_replication_slot('mine', 'pgoutput')";

fn set(instance: &mut Instance, level: &str) {
    instance.config.parameters.insert("wal_level".into(), level.into());
}

async fn show(i: &Instance, name: &str) -> String {
    i.person("postgres").await.unwrap().query_one(&format!("SHOW {name}"), &[]).await.unwrap().get(0)
}

fn logical(layout: &Layout) -> usize {
    list_logical(layout).unwrap().len()
}

/// PostgreSQL refuses to start: "logical replication slot exists, but wal_level < logical".
#[test]
fn a_directory_with_a_logical_slot_starts_also_when_a_lower_level_is_configured() {
    run(async |mut w| {
        set(&mut w.a, "logical");
        let first = w.primary().await;
        assert_eq!(logical(&w.a.settings.layout), 0, "the standby's slot is a physical one");
        w.a.exec(MAKE).await;
        assert_eq!(logical(&w.a.settings.layout), 1);
        w.a.stop(&first).await;
        set(&mut w.a, "replica");
        let second = w.a.start(StartAs::Primary).await;
        assert_eq!(show(&w.a, "wal_level").await, "logical");
        w.a.exec("SELECT pg_drop_replication_slot('mine')").await;
        w.a.stop(&second).await;
        w.a.start(StartAs::Primary).await;
        assert_eq!(show(&w.a, "wal_level").await, "replica");
    });
}

/// It would keep WAL that nobody asks for, and keep the slot of that name of the new primary from being copied.
#[test]
fn a_former_primary_drops_its_logical_slots_and_a_standby_that_restarts_keeps_its_own() {
    run(async |mut w| {
        set(&mut w.a, "logical");
        set(&mut w.b, "logical");
        let (a, b) = w.pair().await;
        w.a.exec(MAKE).await;
        w.a.stop(&a).await;
        promote(&w.b.settings, &b, &w.b.sql, LIMIT).await.unwrap();
        w.b.sql.ensure_slot("pgpair_a").await.unwrap();
        let a = w.a.start(w.a.standby_of(&w.b)).await;
        assert_eq!(logical(&w.a.settings.layout), 0);
        w.streaming(&w.b).await;
        let version = w.a.facts().await.version_num;
        if version < 160_000 {
            return; // no logical slots on a standby
        }
        // A standby's slot begins where its primary tells what runs.
        let tell = async {
            loop {
                w.b.exec("SELECT pg_log_standby_snapshot()").await;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::select! {
            () = w.a.exec(MAKE) => {}
            () = tell => {}
        }
        w.a.stop(&a).await;
        w.a.start(w.a.standby_of(&w.b)).await;
        assert_eq!(logical(&w.a.settings.layout), 1);
    });
}

/// A pair with a slot on a, of which b has a copy. `None`: this PostgreSQL makes no copies.
async fn copied(w: &mut World) -> Option<(Postmaster, Pid)> {
    set(&mut w.a, "logical");
    set(&mut w.b, "logical");
    let (a, b) = w.pair().await;
    if w.a.facts().await.version_num < 170_000 {
        return None;
    }
    w.a.exec("SELECT pg_create_logical_replication_slot('mine', 'pgoutput', failover => true)").await;
    eventually("b has a copy", async || {
        w.a.exec("SELECT pg_log_standby_snapshot()").await;
        let get = "SELECT pg_replication_slot_advance('mine', pg_current_wal_lsn())";
        w.a.exec(get).await;
        let copy = "SELECT FROM pg_replication_slots WHERE slot_name = 'mine' AND synced AND NOT temporary";
        w.b.person("postgres").await.ok()?.query_opt(copy, &[]).await.ok()?
    })
    .await;
    Some((b, a.pid()))
}

fn signal_tree(postmaster: Pid, signal: Signal) {
    let pid = postmaster.as_raw_nonzero();
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    let children = children.split_whitespace().map(|child| Pid::from_raw(child.parse().unwrap()).unwrap());
    for pid in children.chain([postmaster]) {
        let _ = kill_process(pid, signal);
    }
}

/// The process that copies slots asks a primary that does not answer, and the end of recovery waits for that process.
#[test]
fn a_promotion_does_not_wait_for_the_copying_of_slots_from_a_primary_that_hangs() {
    run(async |mut w| {
        let Some((b, a)) = copied(&mut w).await else { return };
        signal_tree(a, Signal::STOP);
        let asks = "SELECT FROM pg_stat_activity WHERE backend_type = 'slotsync worker' AND wait_event ILIKE 'libpqwalreceiver%'";
        eventually("the copying waits for an answer", async || {
            w.b.person("postgres").await.ok()?.query_opt(asks, &[]).await.ok()?
        })
        .await;
        let p = promote(&w.b.settings, &b, &w.b.sql, LIMIT).await;
        signal_tree(a, Signal::CONT);
        let p = p.unwrap();
        println!("{p:?}");
        assert!(p.confirmed < Duration::from_millis(2500), "{p:?}");
        assert_eq!(logical(&w.b.settings.layout), 1, "the copy stays");
        w.b.exec("SELECT pg_replication_slot_advance('mine', pg_current_wal_lsn())").await;
    });
}
