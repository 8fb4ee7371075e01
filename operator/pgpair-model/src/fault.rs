//! Faults, and what people do.

use pgpair_core::authority::messages::{Evidence, EvidenceKind};
use pgpair_core::authority::{Authority, Durable, Event, NodeId};
use pgpair_core::ids::{Incarnation, InstanceId, Term, VolumeId};
use pgpair_core::order::OrderKind;
use pgpair_core::record::{Holder, Mode, Record, RecordUid, Version};

use crate::action::{Action, Anew};
use crate::bounds::Bounds;
use crate::world::{Agent, Jam, KeptVolume, Kind, Node, REPLY, Server, Worker, World, index};

impl World {
    pub(crate) fn fault(&mut self, action: Action, bounds: &Bounds) {
        match action {
            Action::Crash(i) => {
                self.spent.crashes += 1;
                self.crash(i);
            }
            Action::Start(i) => self.start(i, bounds),
            Action::PostgresCrash(i) => {
                self.spent.postgres_crashes += 1;
                self.node_mut(i).server.kill();
                self.changed(i, bounds);
            }
            Action::Proof(i) => {
                self.spent.proofs += 1;
                if let Some(incarnation) = self.node(i.peer()).dead {
                    let evidence = Evidence { incarnation, kind: EvidenceKind::VolumeLock };
                    self.tell(i, Event::Evidence(evidence), bounds);
                }
            }
            Action::Wipe(i) => {
                self.spent.wipes += 1;
                let node = self.node_mut(i);
                (node.server, node.disk) = (Server::empty(), Durable::default());
            }
            Action::Replace(i) => {
                self.spent.wipes += 1;
                let volume = self.new_volume(i);
                let server = &mut self.node_mut(i).server;
                *server = Server { directory: server.directory, volume: Some(volume), ..Server::empty() };
            }
            Action::Leave(i) => {
                self.spent.leaves += 1;
                self.tell(i, Event::Leave, bounds);
            }
            Action::Switchover(i) => {
                self.spent.switchovers += 1;
                self.order(i, OrderKind::Switchover, bounds);
            }
            Action::Order(i, ordered) => {
                self.spent.orders += 1;
                let dead = self.record.primary.incarnation;
                self.order(i, ordered.kind(dead), bounds);
            }
            Action::Unfence(i) => self.order(i, OrderKind::Unfence, bounds),
            Action::Copied(i) => {
                self.node_mut(i).rebuild = true;
                self.tell(i, Event::Leave, bounds);
            }
            Action::Kept(i) => {
                self.spent.copies += 1;
                let Node { disk, server, .. } = self.node(i);
                let mut server = server.clone();
                server.kill();
                self.copy = Some(KeptVolume { of: i, disk: *disk, server });
            }
            Action::Restored => self.restore(),
            Action::Deleted => {
                self.spent.foreign += 1;
                self.uid = None;
            }
            Action::MadeAnew(anew) => self.make_anew(anew),
            Action::Breaks(i) => {
                self.spent.unstartable += 1;
                self.node_mut(i).server.broken = true;
            }
            Action::Mended(i) => {
                self.node_mut(i).server.broken = false;
                self.changed(i, bounds);
            }
            Action::Sticks(i) => {
                self.spent.stuck += 1;
                self.set_worker(i, Worker::Stuck);
            }
            Action::Unsticks(i) => {
                self.set_worker(i, Worker::Works);
                self.changed(i, bounds);
            }
            Action::Hangs(i) if self.server(i).writes() => {
                self.spent.hangs += 1;
                self.node_mut(i).server.hung = true;
                self.changed(i, bounds);
            }
            Action::Jams(i) if self.server(i).writes() => {
                let server = &mut self.node_mut(i).server;
                (server.hung, server.jammed) = (true, Jam::Hangs);
                self.changed(i, bounds);
            }
            Action::Lingers(i) => self.node_mut(i).server.jammed = Jam::Hangs,
            _ => {}
        }
    }

    pub(crate) fn set_worker(&mut self, i: InstanceId, worker: Worker) {
        if let Some(agent) = &mut self.node_mut(i).agent {
            agent.worker = worker;
        }
    }

    /// A person orders it, knowing the term that the instance knows.
    fn order(&mut self, i: InstanceId, kind: OrderKind, bounds: &Bounds) {
        if let Some(term) = self.authority(i).map(Authority::term) {
            self.tell(i, Event::Order(REPLY, term, kind), bounds);
        }
    }

    /// What a client was told since is not in the record that agents find, and counts no more for what they do.
    fn restore(&mut self) {
        self.spent.restores += 1;
        self.excused = self.commits;
        self.version = Version(self.version.0 + 1);
        let [a, b] = InstanceId::ALL.map(|i| VolumeId(1 + index(i) as u64));
        self.record = Record {
            term: Term(1),
            primary: Holder { instance: InstanceId::A, incarnation: first_incarnation(InstanceId::A) },
            mode: Mode::Paired,
            primary_volume: Some(a),
            standby_volume: Some(b),
            ..self.record
        };
    }

    /// Somebody makes a Lease of the same name: a copy of the old one, or one that suits the other instance.
    fn make_anew(&mut self, anew: Anew) {
        self.uid = Some(RecordUid(1 + u128::from(self.spent.foreign)));
        self.version = Version(self.version.0 + 1);
        let other = self.record.primary.instance.peer();
        if anew == Anew::OfTheOther {
            self.record = Record {
                term: Term(self.record.term.0 + 1),
                primary: Holder {
                    instance: other,
                    incarnation: self.authority(other).map_or(Incarnation(0), |a| a.me().incarnation),
                },
                mode: Mode::Solo,
                primary_volume: self.server(other).volume,
                standby_volume: None,
                ..self.record
            };
        }
    }

    /// The container is gone: agent and postgres. What it was waiting for has nowhere to go.
    pub(crate) fn crash(&mut self, i: InstanceId) {
        let node = self.node_mut(i);
        node.dead = node.agent.take().map(|a| a.authority.me().incarnation);
        node.server.kill();
        if std::mem::take(&mut node.rebuild) {
            node.server = Server::empty();
        }
        for write in &mut node.writes {
            write.awaited = false;
        }
        node.writes.retain(|w| w.outcome.is_none());
        let replies = [Kind::Answer, Kind::CanTakeReply, Kind::ResignReply];
        self.node_mut(i.peer()).sent.retain(|m| !replies.contains(&m.kind()));
    }

    pub(crate) fn start(&mut self, i: InstanceId, bounds: &Bounds) {
        let incarnation = self.new_incarnation(i);
        let me = Holder { instance: i, incarnation };
        let (settings, now) = (self.settings, self.now(i));
        let node = self.node_mut(i);
        let here = NodeId(index(i) as u64);
        let authority = Authority::new(me, here, settings, node.disk, now);
        node.agent = Some(Agent { authority, read: None, storing: None, fence: None, worker: Worker::Works });
        self.look(i, bounds);
    }

    /// A volume that never was before.
    pub(crate) fn new_volume(&self, i: InstanceId) -> VolumeId {
        VolumeId(10 + 2 * u64::from(self.spent.wipes + self.spent.orders) + index(i) as u64)
    }

    fn new_incarnation(&self, i: InstanceId) -> Incarnation {
        let first = first_incarnation(i).0;
        let used = self.incarnations();
        let next = used.iter().map(|n| n.0).filter(|n| *n >= first && *n < first + 100).max();
        Incarnation(next.map_or(first, |n| n + 1))
    }
}

/// The first process of an instance; the next ones follow.
#[must_use]
pub fn first_incarnation(i: InstanceId) -> Incarnation {
    Incarnation(100 * (1 + index(i) as u64))
}
