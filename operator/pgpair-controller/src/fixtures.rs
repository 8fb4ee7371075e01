//! Test objects that read like the sentence being tested.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use pgpair_api::PgReplicaPair;
use pgpair_api::loss::KnownWal;
use pgpair_api::names::PairName;
use pgpair_api::validate::{Defaults, ValidatedPair, validate};
use pgpair_core::authority::Durability;
use pgpair_core::ids::{Incarnation, InstanceId, SystemIdentifier, Term, VolumeId};
use pgpair_core::instance::{PostgresState, Role};
use pgpair_core::lag::Lag;
use pgpair_core::lsn::Lsn;
use pgpair_core::record::{Holder, Mode, Record};
use pgpair_core::timeline::{TimelineHistory, TimelineId};
use pgpair_wire::adopt::KeptVolume;
use pgpair_wire::config::PairConfig;
use pgpair_wire::report::{
    ArchiveReport, AuthorityReport, DefinitionsReport, InstanceReport, Need, PasswordReport, PasswordState,
    PostgresReport, SpaceReport, StandbyLag,
};
use serde_json::json;

use crate::certificates::rotation::PartyView;
use crate::observed::{
    AgentProcess, InstanceObserved, LeaseView, Mismatch, Observed, PasswordView, PodView, ReportView,
    SeedJob, SeedState, SetView, SliceView,
};
use crate::rollout::Turn;
use crate::secrets::ClientRole;
use crate::secrets::passwords::Keeper;

pub fn now() -> Timestamp {
    "2026-05-01T12:00:00Z".parse().unwrap()
}

/// A pair whose name differs from everything else, so that swapped arguments show.
pub fn pair(spec: serde_json::Value) -> PgReplicaPair {
    serde_json::from_value(json!({
        "apiVersion": "pgpair.dev/v1alpha1", "kind": "PgReplicaPair",
        "metadata": {"name": "orders", "namespace": "shop", "uid": "11111111-2222", "generation": 3, "resourceVersion": "41"},
        "spec": spec,
    }))
    .unwrap()
}

/// The Secret of the authority of that pair.
pub const CA: &str = "pgpair-shop-orders-11111111-2222-ca";
/// The Secret by which the operator talks to its agents.
pub const OPERATOR_TLS: &str = "pgpair-shop-orders-11111111-2222-operator-tls";

/// Where the API server has a Secret of that pair.
pub fn secret_path(name: &str) -> String {
    let namespace = if [CA, OPERATOR_TLS].contains(&name) { "pgpair-system" } else { "shop" };
    format!("/api/v1/namespaces/{namespace}/secrets/{name}")
}

pub fn defaults() -> Defaults {
    Defaults {
        postgres_image_template: "registry.test/pg:{version}".into(),
        agent_image: "registry.test/pgpair:1".into(),
        image_pull_policy: "IfNotPresent".into(),
        operator_namespace: "pgpair-system".into(),
    }
}

pub fn valid(spec: serde_json::Value) -> ValidatedPair {
    validate(&pair(spec), &defaults()).unwrap()
}

pub fn name() -> PairName {
    PairName { namespace: "shop".into(), name: "orders".into() }
}

pub fn record(primary: InstanceId, mode: Mode) -> Record {
    Record {
        term: Term(3),
        primary: Holder { instance: primary, incarnation: Incarnation(7) },
        mode,
        primary_volume: Some(VolumeId(1)),
        standby_volume: (mode == Mode::Paired).then_some(VolumeId(2)),
        system_identifier: Some(SystemIdentifier(99)),
        durability: Durability::Sync,
    }
}

pub fn report(i: InstanceId, state: PostgresState) -> InstanceReport {
    let primary = state == PostgresState::Primary;
    InstanceReport {
        node: Some(format!("node-{i}")),
        volume: Some(VolumeId(if primary { 1 } else { 2 })),
        system_identifier: Some(SystemIdentifier(99)),
        authority: AuthorityReport {
            term: Term(3),
            mode: Some(Mode::Paired),
            role: if primary { Role::Primary } else { Role::Standby },
            gate_open: primary,
            refusal: None,
        },
        postgres: PostgresReport {
            state,
            version_num: Some(170_002),
            timeline: Some(TimelineId(2)),
            flush_lsn: Some(Lsn(0x0500_0000)),
            replay_lsn: (!primary).then_some(Lsn(0x0500_0000)),
            streaming: (!primary).then_some(true),
        },
        standby: primary.then(|| lag(0)),
        archive: ArchiveReport {
            last_segment: Some("000000020000000000000004".into()),
            last_archived_at_ms: Some(now().as_millisecond() - 30_500),
            backlog_segments: Some(0),
            failures: Some(0),
            last_failure: None,
            unknown: None,
            stalled: None,
            two_pasts: None,
        },
        config_generation: 3,
        passwords: BTreeMap::from([("app".to_owned(), password_told(PasswordState::InEffect))]),
        definitions: primary.then(|| DefinitionsReport { generation: 3, wrong: Vec::new() }),
        space: SpaceReport {
            data_bytes: Some(10 << 30),
            data_free: Some(6 << 30),
            archive_bytes: Some(10 << 30),
            archive_free: Some(9 << 30),
            full_in_seconds: None,
        },
        ..InstanceReport::empty(i, Incarnation(if primary { 7 } else { 8 }))
    }
}

/// A volume of an earlier pair, of which nothing is remembered, whose log ends there on its first timeline.
pub fn kept_volume(id: u64, end: u64) -> KeptVolume {
    KeptVolume {
        volume_id: VolumeId(id),
        system_identifier: SystemIdentifier(99),
        version: 17,
        history: TimelineHistory { timeline: TimelineId(1), ancestors: Vec::new() },
        end: Some(Lsn(end)),
        end_unknown: None,
        written_ms: None,
        state: None,
    }
}

/// A password that was read in its Secret.
pub fn password(role: &str) -> PasswordView {
    let entry = json!({"from": "v1", "found": "Password", "mark": "m1", "since": now()});
    PasswordView {
        role: role.into(),
        secret: format!("orders-{role}"),
        entry: serde_json::from_value(entry).unwrap(),
        is_read: true,
        keeper: Keeper::Operator(ClientRole::Application),
        rotated_by: None,
    }
}

/// What an agent tells of it.
pub fn password_told(state: PasswordState) -> PasswordReport {
    PasswordReport { mark: "m1".into(), state, why: None }
}

pub fn lag(bytes: u64) -> StandbyLag {
    let lag = Some(Lag { bytes, millis: 0 });
    StandbyLag { streaming: true, synchronous: true, receive: lag, replay: lag, total: lag }
}

pub fn pod(i: InstanceId) -> PodView {
    PodView {
        name: name().pod(i),
        uid: format!("pod-{i}"),
        ip: Some(ip(i)),
        node: Some(format!("node-{i}")),
        created: None,
        ready: true,
        deleting: false,
        running: true,
        started: true,
        revision: Some("r1".into()),
        ended: Vec::new(),
    }
}

pub fn ip(i: InstanceId) -> String {
    match i {
        InstanceId::A => "10.0.0.1".into(),
        InstanceId::B => "10.0.0.2".into(),
    }
}

fn running(i: InstanceId, state: PostgresState) -> InstanceObserved {
    InstanceObserved {
        set: Some(SetView { replicas: 1, running: 1, seed: u32::from(i == InstanceId::B), seed_failures: 0 }),
        pod: Some(pod(i)),
        report: ReportView::Fresh(Box::new(report(i, state))),
        jobs: Vec::new(),
        update_revision: Some("r1".into()),
        is_given_up: false,
        trouble: None,
        silent_for: None,
        last_report: Some((Box::new(report(i, state)), Duration::ZERO)),
        known: Some(AgentProcess { incarnation: report(i, state).incarnation, node: format!("node-{i}") }),
    }
}

/// A pair as it should be, with a as primary.
pub fn steady() -> Observed {
    Observed {
        now: now(),
        config: PairConfig { generation: 3, ..PairConfig::default() },
        paused: false,
        apart_by: Some("kubernetes.io/hostname".into()),
        invalid: None,
        known_wal: KnownWal::default(),
        order: None,
        last_order: None,
        is_glance: false,
        certificates: vec![("orders-a-tls".into(), "2026-07-01T00:00:00Z".parse().unwrap())],
        taken: BTreeSet::new(),
        out_of_service: None,
        turn: Turn::default(),
        refused_settings: BTreeMap::new(),
        passwords: vec![password("app")],
        password_max_age_days: None,
        refused_passwords: BTreeMap::new(),
        server: None,
        certified: BTreeMap::new(),
        operator_certified: Some(PartyView::default()),
        roles_certified: BTreeMap::new(),
        authority: None,
        refused_certificates: BTreeMap::new(),
        given_certificates: BTreeMap::new(),
        rolled_ago: None,
        adoption: None,
        any: SliceView::Present(vec![ip(InstanceId::A), ip(InstanceId::B)]),
        system_identifier: Some("99".into()),
        lease: LeaseView::Present(record(InstanceId::A, Mode::Paired)),
        a: running(InstanceId::A, PostgresState::Primary),
        b: running(InstanceId::B, PostgresState::Standby),
        rw: SliceView::Present(vec![ip(InstanceId::A)]),
        ro: SliceView::Present(vec![ip(InstanceId::B)]),
        rw_mismatch: Mismatch::default(),
    }
}

/// A pair of which nothing exists yet.
pub fn empty() -> Observed {
    Observed {
        system_identifier: None,
        lease: LeaseView::Missing,
        a: InstanceObserved::default(),
        b: InstanceObserved::default(),
        rw: SliceView::Missing,
        ro: SliceView::Missing,
        any: SliceView::Missing,
        certificates: Vec::new(),
        passwords: Vec::new(),
        ..steady()
    }
}

impl Observed {
    pub fn solo(mut self) -> Self {
        self.lease = LeaseView::Present(record(InstanceId::A, Mode::Solo));
        self
    }
    pub fn b_needs(mut self, need: Need) -> Self {
        let mut report = report(InstanceId::B, PostgresState::Down);
        report.need = Some(need);
        self.b.report = ReportView::Fresh(Box::new(report));
        self
    }
    pub fn a_silent(mut self) -> Self {
        self.a.report = ReportView::Unreachable;
        self.a.last_report = self.a.last_report.map(|(report, _)| (report, Duration::from_secs(60)));
        self
    }
    /// b is at 0 replicas and waits for Job `seed`.
    pub fn b_waits_for(mut self, seed: u32, jobs: &[(u32, SeedState)]) -> Self {
        let jobs = jobs.iter().map(|(number, state)| SeedJob {
            number: *number,
            state: state.clone(),
            progress: None,
            failure: None,
        });
        self.b = InstanceObserved {
            set: Some(SetView { replicas: 0, running: 0, seed, seed_failures: 0 }),
            jobs: jobs.collect(),
            ..InstanceObserved::default()
        };
        self
    }
}
