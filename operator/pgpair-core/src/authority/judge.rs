//! Rule 10: orders are judged by the record, and followed to their end.

use crate::authority::common::Common;
use crate::authority::event::{Command, ReplyId};
use crate::authority::facts::Directory;
use crate::authority::orders::{Job, JobKind, ORDER_BUDGET_MS};
use crate::authority::role::Part;
use crate::authority::timing::Ms;
use crate::ids::{Incarnation, Term};
use crate::instance::{PostgresState, Role};
use crate::order::{OrderKind, OrderRefusal, OrderReply};
use crate::record::{Mode, Record};

impl Common {
    /// Whether a person has ordered that the data directory of this standby is copied anew.
    pub(super) fn rebuild_is_ordered(&self) -> bool {
        self.role() == Role::Standby && self.orders.rebuilds()
    }

    pub(super) fn on_order(&mut self, now: Ms, reply: ReplyId, term: Term, kind: OrderKind) {
        self.orders.waiting.push((reply, term, kind, now));
    }

    /// Judges what came in, and follows what is under way.
    pub(super) fn react_orders(&mut self, part: &mut Part, now: Ms) {
        let resigns = part.primary().is_some_and(|p| p.resign.is_under_way());
        for (reply, term, kind, at) in std::mem::take(&mut self.orders.waiting) {
            let answer = match (self.view.settled_since(at).copied(), kind) {
                // To stop, and the end of it, must be possible without the API server.
                (_, OrderKind::Fence | OrderKind::Unfence | OrderKind::Restart) => {
                    self.judge(resigns, now, term, kind, None)
                }
                (Some(v), _) => self.judge(resigns, now, term, kind, Some(&v.record)),
                (None, _) if now - at >= self.timing.ttl() => {
                    OrderReply::Refused(OrderRefusal::RecordUnknown)
                }
                (None, _) => {
                    self.read(now);
                    self.orders.waiting.push((reply, term, kind, at));
                    continue;
                }
            };
            self.out.push(Command::AnswerOrder(reply, answer));
        }
        self.follow_job(part, now);
    }

    fn judge(
        &mut self,
        resigns: bool,
        now: Ms,
        term: Term,
        kind: OrderKind,
        record: Option<&Record>,
    ) -> OrderReply {
        let refused = if term < self.term() {
            Some(OrderRefusal::TermIsOver)
        } else if term > self.term() {
            self.read(now);
            Some(OrderRefusal::RecordUnknown)
        } else {
            None
        };
        if let Some(refusal) = refused {
            return OrderReply::Refused(refusal);
        }
        let job = match kind {
            OrderKind::Unfence => {
                self.durable.fenced = false;
                if self.orders.is(|k| k == JobKind::Fence) {
                    self.end_job(OrderReply::Refused(OrderRefusal::TimedOut));
                }
                return OrderReply::Done;
            }
            // The named incarnation ran on another node: with a person's word for its death, the lock here counts again.
            OrderKind::Promote { dead } if self.is_elsewhere() && self.predecessor_is(dead) => {
                self.durable.node = Some(self.node);
                return OrderReply::Done;
            }
            OrderKind::Fence => Ok(JobKind::Fence),
            _ if resigns || self.is_busy() => Err(OrderRefusal::Busy),
            OrderKind::Restart => self.judge_restart(),
            OrderKind::Switchover => self.judge_switchover(record),
            OrderKind::Promote { dead } => self.judge_promote(now, dead, record),
            OrderKind::TakeOver => self.judge_standby().map(|()| JobKind::TakeOver),
            OrderKind::Rebuild if self.role() == Role::Standby => Ok(JobKind::Rebuild),
            OrderKind::Rebuild => Err(OrderRefusal::NotStandby),
        };
        match job {
            Ok(kind) => {
                if kind == JobKind::Fence {
                    self.durable.fenced = true;
                }
                self.orders.job = Some(Job { kind, since: now, term: self.term() });
                OrderReply::Accepted
            }
            Err(refusal) => OrderReply::Refused(refusal),
        }
    }

    fn is_busy(&self) -> bool {
        self.orders.job.is_some() || self.view.has_open() || self.leaving.is_some() || self.durable.fenced
    }

    fn judge_restart(&self) -> Result<JobKind, OrderRefusal> {
        match (self.role(), self.pg.state) {
            (Role::Standby, PostgresState::Standby) => Ok(JobKind::RestartStandby),
            (Role::Primary, PostgresState::Primary) => Ok(JobKind::RestartPrimary { stopped: false }),
            (Role::Standby | Role::Primary, _) if self.pg.volume.is_none() => Err(OrderRefusal::NoData),
            _ => Err(OrderRefusal::Busy),
        }
    }

    fn judge_standby(&self) -> Result<(), OrderRefusal> {
        let standby = self.pg.directory == Directory::Standby && self.pg.state == PostgresState::Standby;
        if self.role() == Role::Standby && standby { Ok(()) } else { Err(OrderRefusal::NotStandby) }
    }

    fn judge_switchover(&self, record: Option<&Record>) -> Result<JobKind, OrderRefusal> {
        let record = record.ok_or(OrderRefusal::RecordUnknown)?;
        if record.primary != self.me || self.pg.state != PostgresState::Primary {
            return Err(OrderRefusal::NotPrimary);
        }
        if record.mode != Mode::Paired {
            return Err(OrderRefusal::NotPaired);
        }
        Ok(JobKind::Switchover)
    }

    fn judge_promote(
        &self,
        now: Ms,
        dead: Incarnation,
        record: Option<&Record>,
    ) -> Result<JobKind, OrderRefusal> {
        let record = record.ok_or(OrderRefusal::RecordUnknown)?;
        self.judge_standby()?;
        if record.primary.incarnation != dead {
            return Err(OrderRefusal::OtherIncarnation);
        }
        if self.promises.given.heard_since(Ms(now.0.saturating_sub(self.timing.ttl()))) {
            return Err(OrderRefusal::PrimaryIsAlive);
        }
        Ok(JobKind::Promote { dead })
    }

    fn follow_job(&mut self, part: &mut Part, now: Ms) {
        let Some(job) = self.orders.job else { return };
        let late = now - job.since >= ORDER_BUDGET_MS;
        let (role, down) = (part.role(), !self.postgres_is_up());
        let asks = part.primary().is_some_and(|p| p.resign.is_asking());
        let refused = |why| Some(OrderReply::Refused(why));
        let end = match job.kind {
            JobKind::Switchover if role == Role::Standby => Some(OrderReply::Done),
            JobKind::Switchover if self.term() > job.term => refused(OrderRefusal::StandbyCannot),
            JobKind::Promote { .. } | JobKind::TakeOver if self.term() > job.term => match role {
                Role::Primary => Some(OrderReply::Done),
                Role::Standby | Role::Unknown => refused(OrderRefusal::TermIsOver),
            },
            JobKind::RestartStandby | JobKind::Rebuild if role != Role::Standby => {
                refused(OrderRefusal::NotStandby)
            }
            JobKind::RestartStandby if down => Some(OrderReply::Done),
            JobKind::RestartPrimary { .. } if role != Role::Primary => refused(OrderRefusal::NotPrimary),
            JobKind::RestartPrimary { stopped: false } if down => {
                self.orders.job = Some(Job { kind: JobKind::RestartPrimary { stopped: true }, ..job });
                if let Part::Primary(primary) = part {
                    primary.restart_budget(now);
                }
                None
            }
            JobKind::RestartPrimary { stopped: true } if self.pg.state == PostgresState::Primary => {
                Some(OrderReply::Done)
            }
            // From here on it is a postgres that does not start, for which there are other rules.
            JobKind::RestartPrimary { .. } if self.pg.failed_starts > 0 => refused(OrderRefusal::TimedOut),
            JobKind::Fence if down => Some(OrderReply::Done),
            // The operator copies the directory, and this process ends with it.
            JobKind::Rebuild | JobKind::Fence => None,
            _ if late && !asks => refused(OrderRefusal::TimedOut),
            _ => None,
        };
        match end {
            Some(reply) => self.end_job(reply),
            None if self.stops_as_standby() && !self.may_stop_as_standby(now) => self.read(now),
            None => {}
        }
    }
}
