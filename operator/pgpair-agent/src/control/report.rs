//! The instance report: built from the state machine, the worker's facts and the journal of the last take-over.

use pgpair_core::authority::timing::Ms;
use pgpair_core::authority::{Authority, Note, PgFacts, SyncState};
use pgpair_core::ids::Term;
use pgpair_core::instance::{PostgresState, Role};
use pgpair_core::lag::Lag;
use pgpair_core::lag::LagClock;
use pgpair_core::lsn::Lsn;
use pgpair_wire::report::{
    AuthorityReport, FailoverReport, FailoverStep, InstanceReport, Need, PostgresReport, StandbyLag,
};

use crate::control::observed::Observed;
use crate::fence::clock;
use crate::postgres::sql::{PeerRow, StreamState};

/// What a person has ordered, and only the operator can do.
fn ordered(authority: &Authority) -> Option<Need> {
    authority.rebuild_is_ordered().then(|| Need::Rebuild { reason: "a person ordered it".into() })
}

/// Collects what a report is made of.
#[derive(Debug, Default)]
pub struct Reporter {
    observed: Option<Observed>,
    lag: LagClock,
    takeover: Option<FailoverReport>,
}

impl Reporter {
    /// What the worker saw.
    pub fn observed(&mut self, now: Ms, observed: Observed) {
        if observed.facts.state == PostgresState::Primary
            && let Some(flush) = observed.facts.flush
        {
            self.lag.sample(now, flush);
        }
        if let Some((term, promotion)) = observed.promotion {
            self.step(term, FailoverStep::TriggerFile, promotion.trigger_file_at_ms);
            self.step(term, FailoverStep::Promoted, promotion.promoted_at_ms);
        }
        if let Some((term, at)) = observed.endpoint {
            self.step(term, FailoverStep::Endpoint, at);
        }
        self.observed = Some(observed);
    }

    /// A decision of the state machine.
    pub fn note(&mut self, now: Ms, note: &Note) {
        match *note {
            Note::TakingOver { term, cause, evidence, signals, last_heartbeat } => {
                let steps = last_heartbeat.map(|at| (FailoverStep::LastHeartbeat, clock::unix_ms_at(at)));
                let (signals, steps) = (signals.into_iter().flatten().collect(), steps.into_iter().collect());
                self.takeover = Some(FailoverReport { term, cause, evidence, signals, steps });
                self.step(term, FailoverStep::Noticed, clock::unix_ms_at(now));
                self.step(term, FailoverStep::CasSent, clock::unix_ms());
            }
            Note::Won(term) => self.step(term, FailoverStep::CasWon, clock::unix_ms_at(now)),
            Note::GoingSolo(_) | Note::Pairing | Note::Resigned(_) | Note::TakingBack(_) => {}
        }
    }

    fn step(&mut self, term: Term, step: FailoverStep, at: i64) {
        if let Some(t) = self.takeover.as_mut().filter(|t| t.term == term)
            && !t.steps.iter().any(|(s, _)| *s == step)
        {
            t.steps.push((step, at));
        }
    }

    /// The report at `now`.
    #[must_use]
    pub fn report(&self, now: Ms, authority: &Authority) -> InstanceReport {
        // Not what the worker saw: some of it may be too old to count.
        let facts = *authority.postgres();
        let sql = self.observed.as_ref().and_then(|o| o.sql.as_ref());
        let gate = authority.gate(now);
        let desired = authority.desired(now);
        InstanceReport {
            instance: authority.me().instance,
            incarnation: authority.me().incarnation,
            volume: facts.volume,
            system_identifier: facts.system_identifier,
            authority: AuthorityReport {
                term: authority.term(),
                mode: authority.record().map(|r| r.mode),
                role: authority.role(),
                gate_open: gate.is_open(),
                refusal: desired.refusal.map(|r| r.as_str().to_owned()),
            },
            postgres: PostgresReport {
                state: facts.state,
                version_num: sql.map(|s| s.version_num),
                timeline: facts.timeline,
                flush_lsn: facts.position(),
                replay_lsn: facts.replay,
                streaming: (facts.state == PostgresState::Standby).then_some(facts.streaming),
            },
            standby: self.standby(now, authority, &facts),
            archive: self.observed.as_ref().map(|o| o.archive.clone()).unwrap_or_default(),
            need: self.observed.as_ref().and_then(|o| o.need.clone()).or_else(|| ordered(authority)),
            last_failover: self.takeover.clone(),
            // The driver adds these.
            node: None,
            order: None,
            refused_order: None,
            preparing: Vec::new(),
            version: None,
            config_generation: self.observed.as_ref().map_or(0, |o| o.config_generation),
            pending_restart: self.observed.as_ref().map(|o| o.pending_restart.clone()).unwrap_or_default(),
            raised: self.observed.as_ref().map(|o| o.raised.clone()).unwrap_or_default(),
            logical_slots: self.observed.as_ref().map(|o| o.logical_slots.clone()).unwrap_or_default(),
            rejoin: self.observed.as_ref().and_then(|o| o.rejoin.clone()),
            trouble: self.observed.as_ref().and_then(|o| o.trouble.clone()),
            login_refused: self.observed.as_ref().and_then(|o| o.login_refused.clone()),
            certificates: self.observed.as_ref().map(|o| o.certificates.clone()),
            definitions: self.observed.as_ref().and_then(|o| o.definitions.clone()),
            passwords: self.observed.as_ref().map(|o| o.passwords.clone()).unwrap_or_default(),
            space: self.observed.as_ref().map(|o| o.space).unwrap_or_default(),
        }
    }

    fn standby(&self, now: Ms, authority: &Authority, facts: &PgFacts) -> Option<StandbyLag> {
        if authority.role() != Role::Primary || facts.state != PostgresState::Primary {
            return None;
        }
        let flush = facts.flush?;
        let row = self.observed.as_ref()?.sql.as_ref()?.peer.as_ref();
        let told = authority.peer().map(|(_, info)| info);
        // The walsender's row while it is there; what the standby last said itself when it is not.
        let received = row.and_then(PeerRow::position).or(told.and_then(|i| i.position()));
        let replayed = row.and_then(|r| r.replay).or(told.and_then(|i| i.replay));
        let at = |reached: Lsn| self.lag.lag(now, flush, reached);
        let total = replayed.map(at);
        let receive = received.map(at);
        let replay = match (total, receive) {
            (Some(t), Some(r)) => Some(Lag {
                bytes: t.bytes.saturating_sub(r.bytes),
                millis: if t.bytes > r.bytes { t.millis } else { 0 },
            }),
            _ => None,
        };
        let synchronous = matches!(facts.sync, SyncState::On { from, .. } if received >= Some(from));
        Some(StandbyLag {
            streaming: row.is_some_and(|r| r.stream == StreamState::Streaming),
            synchronous,
            receive,
            replay,
            total,
        })
    }
}
