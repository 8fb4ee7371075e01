//! What each simulated agent knows and has been told. All are agents of pairs at rest: their reports change only with settings and orders.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use pgpair_core::ids::InstanceId;
use pgpair_core::instance::{PostgresState, Role};
use pgpair_core::lag::Lag;
use pgpair_core::lsn::Lsn;
use pgpair_core::order::OrderReply;
use pgpair_core::record::Mode;
use pgpair_core::timeline::TimelineId;
use pgpair_wire::config::PairConfig;
use pgpair_wire::order::{Order, OrderReport};
use pgpair_wire::report::{
    ArchiveReport, AuthorityReport, InstanceReport, PasswordReport, PasswordState, PostgresReport,
    ReportVersion, SpaceReport, StandbyLag,
};
use pgpair_wire::scram::{GivenPassword, GivenPasswords};
use tokio::sync::{Notify, watch};

use crate::scale::pairs::{AgentId, TERM};

/// An order is carried out in this time.
const CARRIED_OUT: Duration = Duration::from_millis(200);

/// One agent.
#[derive(Debug)]
pub struct Agent {
    /// Who it is.
    pub id: AgentId,
    /// Its report.
    pub report: watch::Sender<InstanceReport>,
    /// Tells its connections to end.
    pub cut: Notify,
    seen: Mutex<Seen>,
}

impl Agent {
    /// Changes the report and numbers it, as a real agent does.
    fn publish(&self, change: impl FnOnce(&mut InstanceReport)) {
        self.report.send_if_modified(|last| {
            let mut next = last.clone();
            change(&mut next);
            let changed = next.follow(last);
            *last = next;
            changed
        });
    }
}

#[derive(Debug, Default)]
struct Seen {
    /// The newest operator process that has had a report, and when it had its first one.
    reader: Option<(u64, Instant)>,
    /// Generations of settings, and when each came first.
    settings: Vec<(i64, Instant)>,
}

/// All agents.
#[derive(Debug)]
pub struct Agents {
    all: Vec<Agent>,
    orders: Mutex<HashMap<String, Instant>>,
    /// Number of the operator process that asks now: connections of a former one are gone with it.
    reader: AtomicU64,
    /// Reports that were given.
    reports: AtomicU64,
}

impl Agents {
    /// Of so many pairs.
    #[must_use]
    pub fn of(pairs: usize) -> Agents {
        let agent = |place| {
            let id = AgentId::at(place);
            let report = watch::Sender::new(build_report(id));
            Agent { id, report, cut: Notify::new(), seen: Mutex::default() }
        };
        Agents {
            all: (0..2 * pairs).map(agent).collect(),
            orders: Mutex::default(),
            reader: AtomicU64::new(1),
            reports: AtomicU64::new(0),
        }
    }

    /// Every one.
    #[must_use]
    pub fn all(&self) -> &[Agent] {
        &self.all
    }

    /// One of them.
    #[must_use]
    pub fn get(&self, id: AgentId) -> Option<&Agent> {
        self.all.get(id.place())
    }

    /// Number of the operator process that asks now.
    #[must_use]
    pub fn reader(&self) -> u64 {
        self.reader.load(Ordering::SeqCst)
    }

    /// From now on another operator process asks.
    pub fn begin_reader(&self) {
        self.reader.fetch_add(1, Ordering::SeqCst);
    }

    /// An agent has answered that process with its report.
    pub fn note_report(&self, agent: &Agent, reader: u64) {
        self.reports.fetch_add(1, Ordering::Relaxed);
        let mut seen = lock(&agent.seen);
        if seen.reader.is_none_or(|(known, _)| known < reader) {
            seen.reader = Some((reader, Instant::now()));
        }
    }

    /// Reports that were given so far.
    #[must_use]
    pub fn reports(&self) -> u64 {
        self.reports.load(Ordering::Relaxed)
    }

    /// How many have given their report to the process that asks now, and when the last of them did so first.
    #[must_use]
    pub fn heard(&self) -> (usize, Option<Instant>) {
        let reader = self.reader();
        let first =
            |agent: &Agent| lock(&agent.seen).reader.filter(|(known, _)| *known == reader).map(|(_, at)| at);
        let times: Vec<Instant> = self.all.iter().filter_map(first).collect();
        (times.len(), times.into_iter().max())
    }

    /// When both agents of a pair had settings of that generation.
    #[must_use]
    pub fn configured(&self, pair: usize, generation: i64) -> Option<Instant> {
        let at = |instance| {
            let agent = self.get(AgentId { pair, instance })?;
            let seen = lock(&agent.seen);
            seen.settings.iter().find(|(known, _)| *known >= generation).map(|(_, at)| *at)
        };
        Some(at(InstanceId::A)?.max(at(InstanceId::B)?))
    }

    /// When an order came.
    #[must_use]
    pub fn ordered(&self, id: &str) -> Option<Instant> {
        lock(&self.orders).get(id).copied()
    }

    /// An agent is given settings: it follows them at once.
    pub fn configure(&self, agent: &Agent, config: &PairConfig) {
        lock(&agent.seen).settings.push((config.generation, Instant::now()));
        agent.publish(|report| report.config_generation = report.config_generation.max(config.generation));
    }

    /// An agent is given passwords by the marks of their verifiers: they are in effect at once.
    pub fn take_passwords(&self, agent: &Agent, given: &GivenPasswords) {
        let told = |password: &GivenPassword| PasswordReport {
            mark: password.verifier.mark(),
            state: PasswordState::InEffect,
            why: None,
        };
        let told = given.iter().map(|(role, password)| (role.clone(), told(password))).collect();
        agent.publish(|report| report.passwords = told);
    }

    /// An agent is given an order: it takes it, and reports soon that it is carried out.
    pub fn order(self: &Arc<Self>, place: AgentId, order: Order) {
        lock(&self.orders).entry(order.id.clone()).or_insert_with(Instant::now);
        let report = |reply| Some(OrderReport { id: order.id.clone(), kind: order.kind, reply });
        let done = report(OrderReply::Done);
        let Some(agent) = self.get(place) else { return };
        let known = agent.report.borrow().order.as_ref().is_some_and(|o| o.id == order.id);
        if known {
            return;
        }
        agent.publish(|r| r.order = report(OrderReply::Accepted));
        let agents = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(CARRIED_OUT).await;
            if let Some(agent) = agents.get(place) {
                agent.publish(|r| r.order = done);
            }
        });
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The report of an agent of a pair at rest: a is the primary, b streams and lacks nothing.
fn build_report(id: AgentId) -> InstanceReport {
    let primary = id.instance == InstanceId::A;
    let end = Lsn(0x0500_0060);
    let none = Some(Lag { bytes: 0, millis: 0 });
    let lag = StandbyLag { streaming: true, synchronous: true, receive: none, replay: none, total: none };
    InstanceReport {
        node: Some(id.node()),
        volume: Some(id.volume()),
        system_identifier: Some(id.system_identifier()),
        authority: AuthorityReport {
            term: TERM,
            mode: Some(Mode::Paired),
            role: if primary { Role::Primary } else { Role::Standby },
            gate_open: primary,
            refusal: None,
        },
        postgres: PostgresReport {
            state: if primary { PostgresState::Primary } else { PostgresState::Standby },
            version_num: Some(170_002),
            timeline: Some(TimelineId(1)),
            flush_lsn: Some(end),
            replay_lsn: (!primary).then_some(end),
            streaming: (!primary).then_some(true),
        },
        standby: primary.then_some(lag),
        archive: ArchiveReport {
            last_segment: Some("000000010000000000000004".into()),
            last_archived_at_ms: Some(1_777_636_800_000),
            backlog_segments: Some(0),
            failures: Some(0),
            last_failure: None,
            unknown: None,
            stalled: None,
            two_pasts: None,
        },
        config_generation: 1,
        space: SpaceReport {
            data_bytes: Some(10 << 30),
            data_free: Some(9 << 30),
            archive_bytes: Some(20 << 30),
            archive_free: Some(19 << 30),
            full_in_seconds: None,
        },
        version: Some(ReportVersion::default()),
        ..InstanceReport::empty(id.instance, id.incarnation())
    }
}

#[cfg(test)]
mod tests {
    use pgpair_core::order::OrderKind;

    use super::*;

    #[test]
    fn settings_count_when_both_agents_of_the_pair_have_them() {
        let agents = Agents::of(2);
        let config = PairConfig { generation: 4, ..PairConfig::default() };
        let [a, b] = InstanceId::ALL.map(|instance| AgentId { pair: 1, instance });
        agents.configure(agents.get(a).unwrap(), &config);
        assert!(agents.configured(1, 4).is_none());
        agents.configure(agents.get(b).unwrap(), &config);
        assert!(agents.configured(1, 4).is_some() && agents.configured(1, 5).is_none());
        assert_eq!(agents.get(b).unwrap().report.borrow().config_generation, 4);
    }

    #[test]
    fn only_what_the_present_process_has_heard_counts() {
        let agents = Agents::of(1);
        agents.note_report(&agents.all()[0], agents.reader());
        assert_eq!(agents.heard().0, 1);
        agents.begin_reader();
        assert_eq!(agents.heard(), (0, None));
        agents.note_report(&agents.all()[0], 1);
        assert_eq!(agents.heard().0, 0, "an answer to the former process");
        agents.note_report(&agents.all()[1], 2);
        agents.note_report(&agents.all()[0], 2);
        assert_eq!((agents.heard().0, agents.reports()), (2, 4));
    }

    #[tokio::test(start_paused = true)]
    async fn an_order_is_accepted_and_then_done() {
        let agents = Arc::new(Agents::of(1));
        let to = AgentId { pair: 0, instance: InstanceId::B };
        let mut report = agents.get(to).unwrap().report.subscribe();
        agents.order(to, Order { id: "s1-1777636800".into(), term: TERM, kind: OrderKind::Restart });
        let is = |r: &InstanceReport, reply| r.order.as_ref().is_some_and(|o| o.reply == reply);
        assert!(is(&report.borrow(), OrderReply::Accepted));
        report.wait_for(|r| is(r, OrderReply::Done)).await.unwrap();
        assert!(agents.ordered("s1-1777636800").is_some() && agents.ordered("s2-1777636800").is_none());
    }
}
