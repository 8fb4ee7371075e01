//! Postgres of the simulated world: starts, stops, promotes, streams and commits as the agents wish.

use std::collections::BTreeSet;

use super::{Node, World, index};
use crate::authority::timing::Ms;
use crate::authority::{Authority, Directory, Durability, PgFacts, SyncState, Want};
use crate::ids::{InstanceId, SystemIdentifier, VolumeId};
use crate::instance::PostgresState;
use crate::lsn::Lsn;
use crate::timeline::TimelineId;

/// How a walreceiver does.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Receiver {
    Runs,
    Slow,
    Stopped,
}

/// Postgres of one instance, with its directory.
pub(super) struct Server {
    pub(super) directory: Directory,
    pub(super) volume: Option<VolumeId>,
    pub(super) state: PostgresState,
    pub(super) writable: bool,
    pub(super) log: Vec<u64>,
    pub(super) timeline: u32,
    pub(super) sync_from: Option<Lsn>,
    /// Proof of `sync_from` as the worker reports it, and the switch that is under way with its end.
    pub(super) proof: SyncState,
    pub(super) switching: Option<(u64, bool, u32)>,
    pub(super) ready_at: u64,
    pub(super) followed: u32,
    pub(super) hung: bool,
    pub(super) disk_hangs: bool,
    pub(super) receiver: Receiver,
    /// A walreceiver that has received nothing yet tells an earlier position than the replayed one.
    pub(super) received: bool,
}

impl Node {
    pub(super) fn kill(&mut self) {
        self.server.writable = false;
        if self.server.disk_hangs {
            return;
        }
        self.server.state = PostgresState::Down;
        self.server.hung = false;
        self.server.receiver = Receiver::Runs;
        self.server.sync_from = None;
        self.server.proof = SyncState::Off;
        self.server.switching = None;
    }
}

impl World {
    pub(super) fn facts(&self, i: InstanceId) -> PgFacts {
        let (s, peer) = (&self.nodes[index(i)].server, &self.nodes[index(i.peer())].server);
        let up = s.state != PostgresState::Down;
        let end = Lsn(s.log.len() as u64);
        PgFacts {
            state: s.state,
            directory: s.directory,
            volume: s.volume,
            system_identifier: s.volume.map(|_| SystemIdentifier(1)),
            timeline: up.then_some(TimelineId(s.timeline)),
            flush: up.then_some(if s.received { end } else { Lsn(0) }),
            standby_write: self.streams(i.peer()).then_some(Lsn(peer.log.len() as u64)),
            replay: (s.state == PostgresState::Standby).then_some(end),
            streaming: self.streams(i),
            end: (!up).then_some((TimelineId(s.timeline), end)),
            sync: s.proof,
            failed_starts: 0,
            hung: s.hung,
        }
    }

    /// A standby streams from a running primary whose past contains its own.
    pub(super) fn streams(&self, i: InstanceId) -> bool {
        let (s, p) = (&self.nodes[index(i)].server, &self.nodes[index(i.peer())].server);
        let linked = !self.cut.contains(&i) && !self.cut.contains(&i.peer());
        linked && s.state == PostgresState::Standby && p.writable && !p.hung && p.log.starts_with(&s.log)
    }

    pub(super) fn obey(&mut self, i: InstanceId, clock: Ms) {
        let now = self.now;
        let Some(agent) = &self.nodes[index(i)].agent else { return };
        let desired = agent.desired(clock);
        let may_promote = agent.may_promote(clock);
        let term = agent.term().0;
        let peer = &self.nodes[index(i.peer())].server;
        let (peer_log, peer_timeline, peer_writable) = (peer.log.clone(), peer.timeline, peer.writable);
        let linked = !self.cut.contains(&i) && !self.cut.contains(&i.peer());
        let slow =
            self.checkpoint_ms + if self.slow && self.rng.chance(10) { self.rng.below(3_000) } else { 0 };
        let volume = VolumeId(self.next_id << 8 | 1 | index(i) as u64);
        let n = &mut self.nodes[index(i)];
        n.fence_at = desired.fence_at;
        let s = &mut n.server;
        match (desired.postgres, s.state) {
            (Want::Down, PostgresState::Starting | PostgresState::Promoting | PostgresState::Primary) => {
                n.kill()
            }
            (Want::Stopped, s) if s != PostgresState::Down => n.kill(),
            (Want::Initialise, _) => (s.directory, s.volume) = (Directory::Primary, Some(volume)),
            (Want::Primary, PostgresState::Down) => {
                (s.state, s.ready_at, s.received) = (PostgresState::Starting, now + 300, true)
            }
            (Want::Primary, PostgresState::Starting) if now >= s.ready_at => {
                (s.state, s.writable) = (PostgresState::Primary, true);
                let from = Lsn(s.log.len() as u64);
                s.sync_from = desired.synchronous.then_some(from);
                s.proof = match s.sync_from {
                    Some(from) => SyncState::On { from, epoch: desired.sync_epoch },
                    None => SyncState::Off,
                };
            }
            (Want::Promoted, PostgresState::Down | PostgresState::Standby) => {
                assert!(may_promote, "promotion through a closed gate");
                (s.state, s.ready_at, s.received) = (PostgresState::Promoting, now + 100, true);
            }
            (Want::Promoted, PostgresState::Promoting) if now >= s.ready_at => {
                (s.state, s.writable, s.directory) = (PostgresState::Primary, true, Directory::Primary);
                s.timeline = term;
                (s.sync_from, s.proof) = (None, SyncState::Off);
                let log = s.log.clone();
                self.check_promoted(i, &log);
                return;
            }
            (Want::Following(_), PostgresState::Down) if s.directory == Directory::Standby => {
                (s.state, s.received) = (PostgresState::Standby, false);
            }
            // Rejoin: only a confirmed primary of that term is compared with; what goes beyond its past is cut off.
            (Want::Following(t), PostgresState::Down) if linked && peer_writable && peer_timeline <= t.0 => {
                let common = s.log.iter().zip(&peer_log).take_while(|(a, b)| a == b).count();
                s.log.truncate(common);
                (s.directory, s.state, s.followed) = (Directory::Standby, PostgresState::Standby, t.0);
                s.received = false;
            }
            (Want::Primary | Want::Promoted, PostgresState::Primary) => {
                let proven = match s.proof {
                    SyncState::On { epoch, .. } => desired.synchronous && epoch == desired.sync_epoch,
                    SyncState::Off => !desired.synchronous,
                    SyncState::Unknown => false,
                };
                if s.switching.is_none() && !proven {
                    // Switching off takes effect at once, its end is noticed later; facts stay as they were meanwhile.
                    s.switching = Some((now + slow, desired.synchronous, desired.sync_epoch));
                    if !desired.synchronous {
                        s.sync_from = None;
                    }
                }
                if let Some((at, on, epoch)) = s.switching
                    && now >= at
                {
                    s.switching = None;
                    let from = Lsn(s.log.len() as u64);
                    s.sync_from = on.then_some(from);
                    s.proof = if on { SyncState::On { from, epoch } } else { SyncState::Off };
                }
            }
            _ => {}
        }
        self.seed(i, term);
    }

    /// The base-backup Job: fills an empty standby from a running primary.
    fn seed(&mut self, i: InstanceId, term: u32) {
        let (peer_log, peer_writable) = {
            let p = &self.nodes[index(i.peer())].server;
            (p.log.clone(), p.writable)
        };
        let volume = VolumeId(self.id() << 8);
        let s = &mut self.nodes[index(i)].server;
        if i == InstanceId::B && s.directory == Directory::Empty && term > 0 && peer_writable {
            (s.directory, s.volume, s.log) = (Directory::Standby, Some(volume), peer_log);
        }
    }

    fn check_promoted(&mut self, i: InstanceId, log: &[u64]) {
        self.say(format!("{i} promoted with {} commits", log.len()));
        if self.durability() == Durability::Sync && !self.forgiven {
            let have: BTreeSet<u64> = log.iter().copied().collect();
            let missing: Vec<_> =
                self.acked[self.acked_async..].iter().filter(|(c, _)| !have.contains(c)).collect();
            assert!(missing.is_empty(), "S2: {missing:?} are lost\n{}", self.tail());
        }
    }

    pub(super) fn replicate(&mut self) {
        for i in InstanceId::ALL {
            let linked = !self.cut.contains(&i) && !self.cut.contains(&i.peer());
            let peer = &self.nodes[index(i.peer())];
            let handed_over = linked && peer.agent.as_ref().is_some_and(Authority::hands_over_log);
            let fetches = handed_over
                && self.nodes[index(i)].server.state == PostgresState::Standby
                && peer.server.log.starts_with(&self.nodes[index(i)].server.log);
            let receiver = self.nodes[index(i)].server.receiver;
            if ((self.streams(i) && receiver != Receiver::Stopped) || fetches) && self.rng.chance(80) {
                let (log, timeline) = {
                    let p = &self.nodes[index(i.peer())].server;
                    (p.log.clone(), p.timeline)
                };
                let one = receiver == Receiver::Slow && !fetches;
                let more = if one { usize::from(self.rng.chance(60)) } else { log.len() };
                let s = &mut self.nodes[index(i)].server;
                let end = log.len().min(s.log.len() + more);
                s.received |= end > s.log.len();
                (s.log, s.timeline) = (log[..end].to_vec(), timeline);
            }
        }
    }

    /// One commit a step on whoever writes; acknowledged at once, or when the standby has it.
    pub(super) fn write(&mut self) {
        for i in InstanceId::ALL {
            let other = self.nodes[index(i.peer())].server.log.len();
            let attached = self.streams(i.peer());
            let s = &mut self.nodes[index(i)].server;
            if !s.writable || s.hung || self.idle {
                continue;
            }
            self.next_commit += 1;
            s.log.push(self.next_commit);
            let len = s.log.len();
            let sync = s.sync_from.is_some();
            let safe = if sync { if attached { other } else { 0 } } else { len };
            let last = self.acked.last().map_or(0, |(c, _)| *c);
            let newly: Vec<u64> =
                s.log[..safe.min(len)].iter().rev().take_while(|c| **c > last).copied().collect();
            let now = self.now;
            self.acked.extend(newly.into_iter().rev().map(|c| (c, now)));
        }
        if self.durability() == Durability::Async {
            self.acked_async = self.acked.len();
        }
    }
}
