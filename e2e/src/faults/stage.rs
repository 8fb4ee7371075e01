//! Does to a pair what a script says, and remembers what it has broken.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use pgpair_core::ids::InstanceId;
use tokio::time::sleep;

use crate::faults::act::{Act, Blow, Cut, Side, Thing, Volume};
use crate::faults::clock::{self, Wrong};
use crate::faults::common::Common;
use crate::faults::stand::{Stand, local, with_set};
use crate::harness::cluster::LocalCluster;
use crate::harness::faults::{Fault, LOST_DIRECTORY, inject};
use crate::harness::operator::{self, Absent};
use crate::harness::oracle_pod::Placed;
use crate::harness::pair::{CONTAINER, Pair};

/// A backend that waits for its commit is found by looking often; when none is, any that writes will do. Says which.
const KILL_BACKEND: &str = "ask() { psql -X -h /pgpair/run/pg -U postgres -Atc \"SELECT pid FROM pg_stat_activity WHERE \
    application_name LIKE 'oracle%' $1 LIMIT 1\"; }; \
    for i in $(seq 100); do pid=$(ask \"AND wait_event IN ('SyncRep', 'WALSync', 'WalSync', 'WALWrite', 'WalWrite')\"); \
    [ -z \"$pid\" ] || break; done; kill -9 ${pid:-$(ask)} && echo ${pid:+waiting}";
/// 320 messages of a million bytes into the log, each for itself: no commit waits for them.
const FLOOD: &str = "DO $$ BEGIN FOR i IN 1..320 LOOP PERFORM pg_logical_emit_message(false, 'flood', repeat('x', 1000000)); \
    COMMIT; END LOOP; END $$";

/// Its name among what all pairs share.
const OPERATOR: &str = "operator";

/// A pair with its roles as they were before the fault.
#[derive(Debug)]
pub struct Stage {
    /// The pair.
    pub pair: Pair,
    local: LocalCluster,
    primary: InstanceId,
    /// Nodes of primary and standby. Asked for beforehand: the API server may be what is broken.
    nodes: [String; 2],
    /// Its volumes are named so; empty: they have no more name than their kind.
    set: String,
    /// The pods of the clients.
    pub writers: Vec<Placed>,
    /// What other pairs suffer from as well.
    common: Arc<Common<Token>>,
    /// With what is needed to mend them.
    broken: Vec<(Thing, Token)>,
    /// What was done otherwise than the catalog says.
    pub note: Option<String>,
}

/// What one must keep to mend a thing.
#[derive(Debug)]
pub enum Token {
    /// Nothing.
    Nothing,
    /// Somebody else may have broken it too.
    Common,
    /// As the container sees it.
    Pid(String),
    /// What was taken away.
    Operator(Absent),
    /// The process with the wrong clock.
    Clock(Wrong),
}

impl Stage {
    /// Looks where everybody is.
    ///
    /// # Errors
    /// When the cluster is not the local one, or the pods are on no node.
    pub async fn set(stand: &Stand, primary: InstanceId) -> anyhow::Result<Stage> {
        let pair = &stand.pair;
        let local = local(&pair.cluster)?.clone();
        let nodes = [pair.node(primary).await?, pair.node(primary.peer()).await?];
        let (set, common) = (stand.set.clone(), Arc::clone(&stand.common));
        Ok(Stage {
            pair: pair.clone(),
            local,
            primary,
            nodes,
            set,
            writers: Vec::new(),
            common,
            broken: Vec::new(),
            note: None,
        })
    }

    /// Does one act; waits for events are the caller's.
    ///
    /// # Errors
    /// When it cannot be done.
    pub async fn act(&mut self, act: Act) -> anyhow::Result<()> {
        match act {
            Act::Break(thing) => self.break_it(thing).await,
            Act::Mend(thing) => self.mend(thing).await,
            Act::Strike(blow) => self.strike(blow).await,
            // The length of a fault, not a wait for something.
            Act::Wait(seconds) => {
                sleep(Duration::from_secs(seconds)).await;
                Ok(())
            }
            Act::Bursts { thing, times, off_ms, on_ms } => {
                for _ in 0..times {
                    self.break_it(thing).await?;
                    sleep(Duration::from_millis(off_ms)).await;
                    self.mend(thing).await?;
                    sleep(Duration::from_millis(on_ms)).await;
                }
                Ok(())
            }
            Act::Served(_) | Act::Solo(_) => bail!("{act:?} is waited for elsewhere"),
        }
    }

    /// Whether nothing is broken.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.broken.is_empty()
    }

    /// Mends what is still broken, the last first. To be called whatever happened.
    ///
    /// # Errors
    /// When something cannot be mended; the rest is mended all the same.
    pub async fn mend_all(&mut self) -> anyhow::Result<()> {
        let mut first = Ok(());
        while let Some((thing, _)) = self.broken.last() {
            let mended = self.mend(*thing).await;
            first = first.and(mended);
        }
        first
    }

    fn instance(&self, side: Side) -> InstanceId {
        match side {
            Side::Primary => self.primary,
            Side::Standby => self.primary.peer(),
        }
    }

    fn node(&self, side: Side) -> &str {
        match side {
            Side::Primary => &self.nodes[0],
            Side::Standby => &self.nodes[1],
        }
    }

    /// Node, namespace and pod, as the cluster's command wants them.
    fn place(&self, side: Side) -> [String; 3] {
        let pod = self.pair.names.pod(self.instance(side));
        [self.node(side).to_owned(), self.pair.names.namespace.clone(), pod]
    }

    async fn run(&self, args: &[&str]) -> anyhow::Result<()> {
        self.local.run(args).await.map(|_| ())
    }

    async fn process(&self, verb: &str, side: Side, which: &str) -> anyhow::Result<()> {
        let [node, namespace, pod] = self.place(side);
        self.run(&["process", verb, &node, &namespace, &pod, CONTAINER, which]).await
    }

    async fn pod(&self, verb: &str, side: Side) -> anyhow::Result<()> {
        let [node, namespace, pod] = self.place(side);
        self.run(&["pod", verb, &node, &namespace, &pod]).await
    }

    async fn writers(&self, verb: &str) -> anyhow::Result<()> {
        ensure!(!self.writers.is_empty(), "there is nobody who writes");
        for Placed { node, name } in &self.writers {
            self.run(&["pod", verb, node, &self.pair.names.namespace, name, "oracle"]).await?;
        }
        Ok(())
    }

    async fn disk(&self, verb: &str, side: Side, volume: Volume) -> anyhow::Result<()> {
        let volume = match volume {
            Volume::Data => "data",
            Volume::Archive => "archive",
        };
        self.run(&["disk", verb, self.node(side), &with_set(volume, &self.set)]).await
    }

    fn link(&self, cut: Cut) -> String {
        let peer = |side| match side {
            Side::Primary => self.node(Side::Standby),
            Side::Standby => self.node(Side::Primary),
        };
        match cut {
            Cut::Node(side) => self.node(side).to_owned(),
            Cut::Api(side) => format!("{}-api", self.node(side)),
            Cut::Peers => format!("{}-{}", self.nodes[0], self.nodes[1]),
            Cut::FromToPeer(side) => format!("{}-to-{}", self.node(side), peer(side)),
            Cut::ToApi(side) => format!("{}-to-api", self.node(side)),
            Cut::FromApi(side) => format!("api-to-{}", self.node(side)),
        }
    }

    /// How a thing that all pairs share is broken and mended; `None`: it is the pair's own.
    fn shared(&self, thing: Thing) -> Option<[Vec<String>; 2]> {
        let by = |how: &[&str], back: &[&str]| {
            Some([how, back].map(|args| args.iter().map(|&arg| arg.to_owned()).collect()))
        };
        match thing {
            Thing::Power(side) => by(&["node", "stop", self.node(side)], &["node", "start", self.node(side)]),
            Thing::Link(cut) => {
                let link = self.link(cut);
                by(&["link", &link, "down"], &["link", &link, "up"])
            }
            Thing::ApiServer => by(&["api", "stop"], &["api", "start"]),
            Thing::ApiAnswers => by(&["api", "pause"], &["api", "resume"]),
            Thing::Etcd => by(&["etcd", "stop"], &["etcd", "start"]),
            _ => None,
        }
    }

    async fn run_all(&self, args: &[String]) -> anyhow::Result<()> {
        self.run(&args.iter().map(String::as_str).collect::<Vec<_>>()).await
    }

    async fn break_it(&mut self, thing: Thing) -> anyhow::Result<()> {
        let token = match (thing, self.shared(thing)) {
            (_, Some([how, _])) => {
                let broken = async { self.run_all(&how).await.map(|()| Token::Nothing) };
                self.common.break_it(&how.join(" "), broken).await?;
                Token::Common
            }
            (Thing::Operator, None) => {
                let away = async { operator::take_away(&self.pair.cluster).await.map(Token::Operator) };
                self.common.break_it(OPERATOR, away).await?;
                Token::Common
            }
            (thing, None) => self.break_own(thing).await?,
        };
        self.broken.push((thing, token));
        Ok(())
    }

    async fn break_own(&self, thing: Thing) -> anyhow::Result<Token> {
        match thing {
            Thing::Agent(side) => self.process("stop", side, "agent").await?,
            Thing::Postmaster(side) => self.process("stop", side, "postmaster").await?,
            Thing::Walreceiver => {
                let standby = self.primary.peer();
                let pid = self.pair.psql(standby, "SELECT pid FROM pg_stat_wal_receiver").await?;
                self.pair.shell(standby, &format!("kill -STOP {pid}")).await?;
                return Ok(Token::Pid(pid));
            }
            Thing::Pod(side) => self.pod("freeze", side).await?,
            Thing::Room(side, volume) => self.disk("fill", side, volume).await?,
            Thing::Disk(side, volume) => self.disk("freeze", side, volume).await?,
            Thing::Writers => self.writers("freeze").await?,
            Thing::Clock(side, seconds) => {
                let [node, namespace, pod] = self.place(side);
                let target = [node.as_str(), &namespace, &pod, CONTAINER, "agent"];
                return clock::set(&self.local, &target, seconds).await.map(Token::Clock);
            }
            shared => bail!("{shared:?} belongs to all pairs"),
        }
        Ok(Token::Nothing)
    }

    async fn mend(&mut self, thing: Thing) -> anyhow::Result<()> {
        let at = self.broken.iter().rposition(|(broken, _)| *broken == thing);
        let (_, token) = self.broken.remove(at.with_context(|| format!("{thing:?} is not broken"))?);
        match (thing, self.shared(thing)) {
            (_, Some([broken, how])) => {
                self.common.mend(&broken.join(" "), async |_| self.run_all(&how).await).await
            }
            (Thing::Operator, None) => {
                let back = async |token| match token {
                    Token::Operator(absent) => absent.bring_back(&self.pair.cluster).await,
                    token => bail!("the operator cannot be brought back by {token:?}"),
                };
                self.common.mend(OPERATOR, back).await
            }
            (thing, None) => self.mend_own(thing, token).await,
        }
    }

    async fn mend_own(&self, thing: Thing, token: Token) -> anyhow::Result<()> {
        match (thing, token) {
            (Thing::Clock(..), Token::Clock(wrong)) => {
                wrong.right();
                Ok(())
            }
            (Thing::Walreceiver, Token::Pid(pid)) => {
                // Postgres may have been started again meanwhile.
                let script = format!("kill -CONT {pid} || true");
                self.pair.shell(self.primary.peer(), &script).await.map(|_| ())
            }
            // One that was killed meanwhile needs nothing.
            (Thing::Agent(side), _) => self.process("continue", side, "agent").await.or(Ok(())),
            (Thing::Postmaster(side), _) => self.process("continue", side, "postmaster").await.or(Ok(())),
            (Thing::Pod(side), _) => self.pod("thaw", side).await,
            (Thing::Room(side, volume), _) => self.disk("empty", side, volume).await,
            (Thing::Disk(side, volume), _) => self.disk("thaw", side, volume).await,
            (Thing::Writers, _) => self.writers("thaw").await,
            (thing, token) => bail!("{thing:?} cannot be mended by {token:?}"),
        }
    }

    async fn strike(&mut self, blow: Blow) -> anyhow::Result<()> {
        match blow {
            Blow::Postmaster(side) => self.process("kill", side, "postmaster").await,
            Blow::Agent(side) => self.process("kill", side, "agent").await,
            Blow::Backend => {
                let found = self.pair.shell(self.primary, KILL_BACKEND).await?;
                self.note = found
                    .is_empty()
                    .then(|| "no backend was seen to wait for its commit: the killed one only writes".into());
                Ok(())
            }
            Blow::Container(side) => self.container(side).await,
            Blow::Containers => {
                tokio::try_join!(self.container(Side::Primary), self.container(Side::Standby)).map(|_| ())
            }
            Blow::Delete(side) => self.known(side, Fault::PodDelete).await,
            Blow::DeleteForce(side) => self.known(side, Fault::PodDeleteForce).await,
            Blow::DeleteBoth => {
                let (a, b) = (Side::Primary, Side::Standby);
                let both = (self.known(a, Fault::PodDeleteForce), self.known(b, Fault::PodDeleteForce));
                tokio::try_join!(both.0, both.1).map(|_| ())
            }
            Blow::Flood => {
                // As far as it comes: what it meets is the fault.
                let _ = self.pair.psql(self.primary, FLOOD).await;
                Ok(())
            }
            Blow::Switchover => self.known(Side::Primary, Fault::Switchover).await,
            Blow::LoseData => self.known(Side::Primary, Fault::DataLoss).await,
        }
    }

    async fn container(&self, side: Side) -> anyhow::Result<()> {
        let [node, namespace, pod] = self.place(side);
        self.run(&["container", "kill", &node, &namespace, &pod, CONTAINER]).await
    }

    /// Those of the harness; none of them has to be healed.
    async fn known(&self, side: Side, fault: Fault) -> anyhow::Result<()> {
        inject(&self.pair, self.instance(side), fault).await.map(|_| ())
    }

    /// Removes what the fault left on the volumes for people to look at.
    ///
    /// # Errors
    /// When the container cannot be asked.
    pub async fn sweep(&self) -> anyhow::Result<()> {
        self.pair.shell(self.primary, &format!("rm -rf {LOST_DIRECTORY}")).await.map(|_| ())
    }
}
