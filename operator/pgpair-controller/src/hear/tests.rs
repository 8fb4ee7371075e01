use std::sync::atomic::AtomicU32;

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use futures::StreamExt;
use futures::channel::mpsc;
use kube::runtime::reflector::ObjectRef;
use pgpair_core::ids::InstanceId::A;
use pgpair_core::instance::PostgresState;
use pgpair_core::lsn::Lsn;
use pgpair_wire::hold::hold;
use pgpair_wire::paths;
use tokio::net::TcpListener;

use super::*;
use crate::agent_client::tests::serve;
use crate::fixtures::report;
use crate::watched::Watched;

const LIMIT: Duration = Duration::from_secs(10);

/// An agent that holds its answers back, unless it is an older one; and how often it was asked.
#[derive(Clone)]
struct Agent {
    reports: watch::Receiver<InstanceReport>,
    is_older: bool,
    asked: Arc<AtomicU32>,
}

async fn answer(State(mut agent): State<Agent>, Query(query): Query<Vec<(String, String)>>) -> Response {
    agent.asked.fetch_add(1, Ordering::SeqCst);
    let value = |key: &str| query.iter().find(|(k, _)| k == key).map(|(_, v)| v.clone());
    let (Some(after), Some(millis), false) = (value("after"), value("hold"), agent.is_older) else {
        return Json(agent.reports.borrow().clone()).into_response();
    };
    let millis = Duration::from_millis(millis.parse().unwrap());
    match hold(&mut agent.reports, after.parse().unwrap(), millis).await {
        Some(report) => Json(report).into_response(),
        None => StatusCode::NO_CONTENT.into_response(),
    }
}

/// An ear that listens to an agent.
struct Scene {
    ear: Ear,
    sender: watch::Sender<InstanceReport>,
    asked: Arc<AtomicU32>,
    triggered: mpsc::UnboundedReceiver<ObjectRef<Watched>>,
}

fn name() -> PairName {
    PairName { namespace: "shop".into(), name: "orders".into() }
}

impl Scene {
    async fn of(is_older: bool) -> Scene {
        let mut first = report(A, PostgresState::Primary);
        if !is_older {
            first.follow(&report(A, PostgresState::Primary));
        }
        let (sender, reports) = watch::channel(first);
        let agent = Agent { reports, is_older, asked: Arc::default() };
        let asked = agent.asked.clone();
        let (to, _) = serve(Router::new().route(paths::REPORT, get(answer)).with_state(agent)).await;
        let (triggers, triggered) = Triggers::new();
        let mut ear = Ear::default();
        ear.listen(&Hearing::new(triggers), &name(), A, Some(to));
        let mut scene = Scene { ear, sender, asked, triggered };
        scene.is_triggered().await;
        scene
    }

    async fn is_triggered(&mut self) {
        let next = timeout(LIMIT, self.triggered.next()).await.expect("nothing new");
        assert_eq!(next.unwrap().name, "orders");
    }

    fn publish(&self, change: impl FnOnce(&mut InstanceReport)) {
        self.sender.send_modify(|report| {
            let mut next = report.clone();
            change(&mut next);
            next.follow(report);
            *report = next;
        });
    }

    fn heard(&self) -> Arc<InstanceReport> {
        self.ear.heard().report.expect("a report").0
    }

    fn asked(&self) -> u32 {
        self.asked.load(Ordering::SeqCst)
    }
}

#[tokio::test]
async fn what_an_agent_has_to_tell_is_heard_when_it_comes_over_one_held_request() {
    let mut scene = Scene::of(false).await;
    scene.ear.set_pace(Pace::Calm);
    assert_eq!(scene.heard().config_generation, 3);
    scene.publish(|r| r.config_generation = 4);
    scene.is_triggered().await;
    assert_eq!(scene.heard().config_generation, 4);
    scene.publish(|r| r.postgres.flush_lsn = Some(Lsn(0x0600_0000)));
    scene.is_triggered().await;
    assert_eq!(scene.heard().postgres.flush_lsn, Some(Lsn(0x0600_0000)));
    // The first report; those that brought the two others, before the first of which the pace was brisk once; and the one held now.
    assert!(scene.asked() <= 5, "{}", scene.asked());
    assert!(scene.triggered.try_recv().is_err(), "nothing else is new");
}

#[tokio::test]
async fn words_of_an_agent_are_cut_where_they_are_heard() {
    let mut scene = Scene::of(false).await;
    scene.publish(|r| {
        r.authority.refusal = Some("\u{1b}[2J".repeat(10_000));
        r.pending_restart = vec!["x".into(); 10_000];
    });
    scene.is_triggered().await;
    let heard = scene.heard();
    let refusal = heard.authority.refusal.as_ref().unwrap();
    assert_eq!((refusal.chars().count(), heard.pending_restart.len()), (256, 32));
    assert!(!refusal.contains('\u{1b}'));
}

#[tokio::test]
async fn a_report_that_is_too_old_to_act_upon_is_asked_for_anew() {
    let mut scene = Scene::of(false).await;
    let at = |scene: &Scene| scene.ear.heard().report.unwrap().1;
    let first = at(&scene);
    let limit = Duration::from_secs(60);
    scene.ear.refresh(limit).await;
    assert_eq!(at(&scene), first, "it is new enough");
    tokio::time::sleep(2 * Duration::from_millis(100)).await; // until the next request is held back
    let begun = Instant::now();
    scene.ear.refresh(Duration::from_millis(50)).await;
    assert!(at(&scene) > first && begun.elapsed() < Duration::from_millis(900), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn an_older_agent_that_answers_at_once_is_asked_each_second() {
    let scene = Scene::of(true).await;
    tokio::time::sleep(Duration::from_millis(2_300)).await;
    assert!((2..=4).contains(&scene.asked()), "{}", scene.asked());
}

#[tokio::test]
async fn an_agent_that_is_gone_is_told_once_and_heard_again_when_it_is_back() {
    let (to, _) = serve(Router::new()).await; // 404
    let (triggers, mut triggered) = Triggers::new();
    let mut ear = Ear::default();
    ear.listen(&Hearing::new(triggers), &name(), A, Some(to));
    timeout(LIMIT, triggered.next()).await.unwrap();
    assert!(ear.heard().is_silent && ear.heard().report.is_none());
    let begun = Instant::now();
    ear.refresh(Duration::ZERO).await;
    assert!(begun.elapsed() < Duration::from_millis(500), "a silent agent is not waited for");
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(triggered.try_recv().is_err(), "that it is still silent is no news");
}

#[tokio::test]
async fn agents_that_accept_connections_and_say_nothing_take_nobodys_turn() {
    let stuck = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut scene = Scene::of(false).await;
    let (triggers, mut triggered) = Triggers::new();
    let hearing = Hearing::new(triggers);
    let to = scene.ear.0.as_ref().unwrap().to.clone();
    let dead =
        AgentAddress { ip: "127.0.0.1".into(), port: stuck.local_addr().unwrap().port(), ..to.clone() };
    let mut ears: Vec<Ear> = (0..3 * GREETING).map(|_| Ear::default()).collect();
    for ear in &mut ears {
        ear.listen(&hearing, &name(), A, Some(dead.clone()));
    }
    for _ in &ears {
        timeout(3 * LIMIT, triggered.next()).await.expect("all are found silent");
    }
    let begun = Instant::now();
    scene.ear.0 = None;
    scene.ear.listen(&hearing, &name(), A, Some(to));
    timeout(LIMIT, triggered.next()).await.unwrap();
    assert!(!scene.ear.heard().is_silent);
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    assert!(ears.iter().all(|ear| ear.heard().is_silent));
}
