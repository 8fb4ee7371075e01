//! The loop around the state machine: every fact in, every command out, and postgres fenced the moment the gate closes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use pgpair_core::authority::timing::{Ms, Timing};
use pgpair_core::authority::{
    Authority, Command, Desired, Durable, Event, Note, PgFacts, ReplyId, Settings as Rules, Want,
};
use pgpair_core::instance::Role;
use pgpair_core::order::{OrderKind, OrderRefusal, OrderReply};
use pgpair_wire::config::PairConfig;
use pgpair_wire::order::{JUDGED, Order, OrderReport};
use pgpair_wire::report::InstanceReport;
use tokio::sync::{mpsc, oneshot, watch};

use crate::control::inbox::{Ask, Input, Reply};
use crate::control::journal::Journal;
use crate::control::observed::Sight;
use crate::control::prepare;
use crate::control::report::Reporter;
use crate::control::wish::Wish;
use crate::fence::clock;
use crate::fence::init::Tree;
use crate::fence::writable::Writable;
use crate::instance::env::InstanceEnv;
use crate::instance::state;
use crate::net::lease::RecordStore;
use crate::net::peer::Peer;
use crate::postgres::sql::Sql;
use crate::wal::archive::LogEnd;

/// A SIGKILL of everything takes milliseconds; the state machine's kill budget is 250 ms at most.
const KILL: Duration = Duration::from_millis(200);

/// What is told of a standby of which too long nothing was seen.
const UNSEEN: &str = "nothing has been seen of its postgres for more than 3 s: the data volume does not answer, or what the agent does there does not \
                      come to its end; until then it does not take over";

/// The part of the configuration that the protocol follows. A `ttl` out of range has been refused before; the present one stays.
#[must_use]
pub fn rules(config: &PairConfig, present: Timing) -> Rules {
    Rules {
        timing: Timing::new(config.ttl_ms).unwrap_or(present),
        durability: config.durability,
        max_lag: config.max_lag_bytes,
        automatic: config.automatic,
        on_crash: config.on_postgres_crash,
    }
}

/// An order that is being prepared.
struct Unjudged {
    id: String,
    /// It waits for a checkpoint, because it stops the primary.
    stops: bool,
}

/// What the loop talks to.
#[derive(Debug)]
pub struct DriverIo {
    /// Who and where this instance is.
    pub settings: Arc<InstanceEnv>,
    /// The record.
    pub store: RecordStore,
    /// The peer.
    pub peer: Peer,
    /// For what comes of tasks that the loop starts.
    pub inbox: mpsc::Sender<Input>,
    /// To the worker.
    pub wish: watch::Sender<Wish>,
    /// To the servers.
    pub report: watch::Sender<InstanceReport>,
    /// To the server: whether the log of the dead postgres may be handed out.
    pub hand_over: watch::Sender<Option<LogEnd>>,
    /// Whether a writable postgres runs or is about to.
    pub writable: Writable,
    /// Everything that is to be killed.
    pub tree: Tree,
    /// What a person has set, for everybody who follows it.
    pub config: watch::Sender<Arc<PairConfig>>,
    /// The local postgres.
    pub sql: Sql,
}

/// The loop.
pub struct Driver {
    authority: Authority,
    journal: Journal,
    io: DriverIo,
    waiting: BTreeMap<ReplyId, Reply>,
    reporter: Reporter,
    refusal: Option<&'static str>,
    order: Option<OrderReport>,
    /// The last order that was refused because `order` was under way.
    refused_order: Option<OrderReport>,
    /// Orders that have come in and are not judged yet.
    unjudged: Vec<Unjudged>,
    hung: bool,
    sight: Sight,
}

impl std::fmt::Debug for Driver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Driver").field("me", &self.authority.me()).finish_non_exhaustive()
    }
}

impl Driver {
    /// A loop around `authority`, which `journal` has begun with.
    #[must_use]
    pub fn new(authority: Authority, journal: Journal, io: DriverIo, reporter: Reporter) -> Driver {
        Driver {
            authority,
            journal,
            io,
            waiting: BTreeMap::new(),
            reporter,
            refusal: None,
            order: None,
            refused_order: None,
            unjudged: Vec::new(),
            hung: false,
            sight: Sight::Seen(clock::now()),
        }
    }

    /// Runs until this instance may leave (SIGTERM and everything handed over), or the inputs end.
    pub async fn run(mut self, mut inputs: mpsc::Receiver<Input>) {
        loop {
            let now = clock::now();
            let sight_ends = self.sight.ends_at(self.authority.role(), self.authority.postgres());
            let wake = self.authority.wake_at(now);
            let event = if sight_ends.is_some_and(|end| end <= now) {
                // Before anything else: after a pause of this process nothing is judged by what was seen before it.
                self.lose_sight()
            } else {
                tokio::select! {
                    input = inputs.recv() => match input {
                        Some(input) => self.event_of(input),
                        None => return,
                    },
                    () = clock::sleep_until(sight_ends.unwrap_or(wake)), if sight_ends.is_some() => continue,
                    () = clock::sleep_until(wake) => Event::Tick,
                }
            };
            say_event(&event);
            self.step(event);
            if self.authority.may_leave(clock::now()) {
                return;
            }
        }
    }

    fn step(&mut self, event: Event) {
        let now = clock::now();
        for command in self.journal.handle(&mut self.authority, now, event) {
            self.carry_out(now, command);
        }
        let desired = self.authority.desired(now);
        self.say_refusal(&desired);
        self.fence(now, &desired);
        // What rests on no knowledge of postgres changes nothing of it; the fence does not ask for that.
        let postgres = if self.sight == Sight::Lost { Want::Unchanged } else { desired.postgres };
        let wish = Wish {
            desired: Desired { postgres, ..desired },
            term: self.authority.term(),
            role: self.authority.role(),
            urgent: self.authority.is_urgent(now),
            awaits_log: self.authority.awaits_log(now),
            seen: self.authority.postgres().state,
            last: false,
        };
        self.io.wish.send_if_modified(|last| std::mem::replace(last, wish) != wish);
        let hand_over = self.authority.hands_over_log().then(|| LogEnd(self.authority.postgres().end));
        self.io.hand_over.send_if_modified(|h| std::mem::replace(h, hand_over) != hand_over);
        let mut report = self.reporter.report(now, &self.authority);
        report.node = Some(self.io.settings.node.clone()).filter(|node| !node.is_empty());
        if self.sight == Sight::Lost {
            report.trouble.get_or_insert_with(|| UNSEEN.to_owned());
        }
        report.order = self.order.clone();
        report.refused_order = self.refused_order.clone();
        report.preparing = self.unjudged.iter().map(|u| u.id.clone()).collect();
        self.io.report.send_if_modified(|last| {
            let changed = report.follow(last);
            *last = report;
            changed
        });
    }

    /// Rule 0 in force: what is writable and may not be is killed, here and now; and the deadman knows until when it may.
    fn fence(&mut self, now: Ms, desired: &Desired) {
        let closed = !self.authority.gate(now).is_open() || desired.postgres == Want::Down;
        // Armed before the kill: should this process be stopped in the midst of it, the deadman goes on.
        let at = if closed { Some(now) } else { desired.fence_at };
        let killed = self.io.writable.guard(at, || closed.then(|| self.io.tree.kill(KILL))).flatten();
        let Some(killed) = killed.filter(|k| k.signalled > 0 || k.left != Some(0)) else { return };
        let reason = if self.hung { "Hung" } else { desired.refusal.map_or("NotAllowed", |r| r.as_str()) };
        tracing::warn!(
            reason,
            processes = killed.signalled,
            left = killed.left,
            took_ms = clock::now() - now,
            "postgres was killed: it may not write any more"
        );
    }

    fn say_refusal(&mut self, desired: &Desired) {
        let refusal = desired.refusal.map(|r| r.as_str());
        if refusal != self.refusal {
            self.refusal = refusal;
            if let (Some(reason), Role::Primary) = (refusal, self.authority.role()) {
                tracing::warn!(reason, "postgres may not be writable here");
            }
        }
    }

    /// What the state machine is told of an input.
    fn event_of(&mut self, input: Input) -> Event {
        match input {
            Input::Event(event) => event,
            Input::Ask(Ask { id, event, reply }) => {
                self.waiting.insert(id, reply);
                event
            }
            Input::Observed(observed) => {
                let (now, facts) = (clock::now(), PgFacts { hung: self.hung, ..observed.facts });
                let (sight, facts) = Sight::of(observed.at, now, self.authority.role(), facts);
                self.set_sight(sight);
                self.reporter.observed(now, *observed);
                Event::Postgres(facts)
            }
            Input::Order(order, reply) => {
                self.take_order(order, reply);
                Event::Tick
            }
            Input::Refuse(order, why, tx) => {
                self.order_judged(order, OrderReply::Refused(why));
                let _ = tx.send(OrderReply::Refused(why)); // whoever asked may have gone
                Event::Tick
            }
            Input::Configure(config, taken) => {
                let rules = rules(&config, self.authority.timing());
                tracing::info!(generation = config.generation, "a new configuration");
                self.io.config.send_replace(config);
                let _ = taken.send(()); // whoever gave it may have gone
                Event::Configure(rules)
            }
            Input::TriggerFile => {
                self.obey_trigger_file();
                Event::Tick
            }
            Input::Hung(hung) => {
                self.hung = hung;
                Event::Postgres(PgFacts { hung, ..*self.authority.postgres() })
            }
        }
    }

    /// The worker does not come back, or its looks at the volume do not: the state machine goes by nothing that it saw before.
    fn lose_sight(&mut self) -> Event {
        self.set_sight(Sight::Lost);
        Event::Postgres(Sight::lose(self.authority.postgres()))
    }

    fn set_sight(&mut self, sight: Sight) {
        match (std::mem::replace(&mut self.sight, sight), sight) {
            (Sight::Seen(_), Sight::Lost) => tracing::error!("{UNSEEN}"),
            (Sight::Lost, Sight::Seen(_)) => tracing::warn!("postgres is seen again"),
            (Sight::Seen(_), Sight::Seen(_)) | (Sight::Lost, Sight::Lost) => {}
        }
    }

    /// The same order again is answered, not carried out again. What can be done before is: a checkpoint makes the stop short. Until
    /// the order is judged the report names it as one that is being prepared.
    fn take_order(&mut self, order: Order, tx: oneshot::Sender<OrderReply>) {
        let is = |o: &&OrderReport| o.id == order.id;
        let judged = self.order.as_ref().filter(is).or(self.refused_order.as_ref().filter(is));
        let unjudged = self.unjudged.iter().any(|u| u.id == order.id).then_some(OrderReply::Accepted);
        if let Some(reply) = judged.map(|o| o.reply).or(unjudged) {
            let _ = tx.send(reply); // whoever asked may have gone
            return;
        }
        tracing::warn!(id = order.id, kind = order.kind.as_str(), term = order.term.0, "order");
        let stops = matches!(order.kind, OrderKind::Switchover | OrderKind::Restart)
            && self.authority.role() == Role::Primary;
        // Of two checkpoints that are waited for, the later one could end first, and its order would come first.
        if stops && self.unjudged.iter().any(|u| u.stops) {
            let reply = OrderReply::Refused(OrderRefusal::Busy);
            self.refused_order = Some(OrderReport { id: order.id, kind: order.kind, reply });
            let _ = tx.send(reply);
            return;
        }
        self.unjudged.push(Unjudged { id: order.id.clone(), stops });
        let (inputs, sql) = (self.io.inbox.clone(), self.io.sql.clone());
        spawn_input(inputs, async move {
            if stops && let Err(why) = prepare::prepare_stop(order.kind, &sql).await {
                return Some(Input::Refuse(order, why, tx));
            }
            let (term, kind) = (order.term, order.kind);
            Some(Input::Ask(Ask::new(|id| Event::Order(id, term, kind), Reply::Order(order, tx))))
        });
    }

    /// An order that is refused because of another one does not take the place of that in the report.
    fn order_judged(&mut self, order: Order, reply: OrderReply) {
        tracing::warn!(id = order.id, kind = order.kind.as_str(), ?reply, "order");
        self.unjudged.retain(|u| u.id != order.id);
        let under_way = self.order.as_ref().is_some_and(|o| o.reply == OrderReply::Accepted);
        let judged = Some(OrderReport { id: order.id, kind: order.kind, reply });
        if under_way && matches!(reply, OrderReply::Refused(_)) {
            self.refused_order = judged;
        } else {
            self.order = judged;
        }
    }

    fn order_came_to(&mut self, reply: OrderReply) {
        if let Some(order) = &mut self.order {
            order.reply = reply;
            tracing::warn!(id = order.id, kind = order.kind.as_str(), ?reply, "order");
        }
    }

    /// A person's trigger file is an order to fail over, and no way past the rules: a primary that lives is asked to hand over;
    /// from one that does not answer this standby takes over as soon as its promise has lapsed.
    fn obey_trigger_file(&mut self) {
        let (term, id) = (self.authority.term(), format!("trigger-file-{}", clock::unix_ms()));
        tracing::warn!(term = term.0, "a person has created the trigger file");
        let switchover = Order { id: id.clone(), term, kind: OrderKind::Switchover };
        let (peer, limit, tx) = (self.io.peer.clone(), self.limit(), self.io.inbox.clone());
        spawn_input(tx, async move {
            match peer.order(&switchover, JUDGED + limit).await {
                Ok(OrderReply::Accepted | OrderReply::Done) => None,
                other => {
                    tracing::warn!(
                        ?other,
                        "the primary does not hand over; taking over when the rules allow it"
                    );
                    let (reply, _) = oneshot::channel();
                    Some(Input::Order(Order { id, term, kind: OrderKind::TakeOver }, reply))
                }
            }
        });
    }

    /// Of one request, by the `ttl` in force.
    fn limit(&self) -> Duration {
        Duration::from_millis(self.authority.timing().request_limit())
    }

    fn carry_out(&mut self, now: Ms, command: Command) {
        let limit = self.limit();
        let (store, peer) = (self.io.store.clone(), self.io.peer.clone());
        match command {
            Command::Persist(durable) => self.persist(durable),
            Command::Read { asked } => {
                self.spawn_event(async move { Some(Event::Read { asked, outcome: store.read(limit).await }) })
            }
            Command::Cas { id, uid, expected, record } => {
                tracing::info!(id = id.0, term = record.term.0, mode = %record.mode, "record: write");
                self.spawn_event(async move {
                    let outcome = store.write(id, uid, expected, &record, limit).await;
                    Some(Event::Cas { id, outcome })
                });
            }
            Command::Heartbeat(hb) => {
                self.spawn_event(async move { peer.heartbeat(&hb, limit).await.ok().map(Event::Answer) })
            }
            Command::AskCanTake(q) => self
                .spawn_event(async move { Some(Event::CanTakeReply(peer.can_take(&q, limit).await.ok())) }),
            Command::Resign(r) => {
                self.spawn_event(async move { Some(Event::ResignReply(peer.resign(&r, limit).await.ok())) })
            }
            Command::AnswerHeartbeat(id, answer) => {
                if let Some(Reply::Heartbeat(tx)) = self.waiting.remove(&id) {
                    let _ = tx.send(answer); // whoever asked may have gone
                }
            }
            Command::AnswerCanTake(id, answer) => {
                if let Some(Reply::CanTake(tx)) = self.waiting.remove(&id) {
                    tracing::info!(?answer, "asked whether this standby can take over");
                    let _ = tx.send(answer);
                }
            }
            Command::AnswerResignation(id, answer) => {
                if let Some(Reply::Resignation(tx)) = self.waiting.remove(&id) {
                    let _ = tx.send(answer);
                }
            }
            Command::AnswerOrder(id, reply) => {
                if let Some(Reply::Order(order, tx)) = self.waiting.remove(&id) {
                    self.order_judged(order, reply);
                    let _ = tx.send(reply);
                }
            }
            Command::OrderEnded(reply) => self.order_came_to(reply),
            Command::Note(note) => {
                say(&note);
                self.reporter.note(now, &note);
            }
        }
    }

    /// What comes of `work` is the next event, if anything comes of it. The loop goes on meanwhile.
    fn spawn_event(&self, work: impl Future<Output = Option<Event>> + Send + 'static) {
        spawn_input(self.io.inbox.clone(), async move { work.await.map(Input::Event) });
    }

    fn persist(&self, durable: Durable) {
        let (settings, tx) = (self.io.settings.clone(), self.io.inbox.clone());
        tokio::spawn(async move {
            loop {
                let layout = settings.layout.clone();
                match tokio::task::spawn_blocking(move || state::store(&layout, &durable)).await {
                    Ok(Ok(())) => break,
                    Ok(Err(e)) => {
                        tracing::error!(error = %e, "cannot store the state of the protocol; trying again")
                    }
                    Err(_) => return, // the process ends
                }
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
            let _ = tx.send(Input::Event(Event::Persisted(durable))).await;
        });
    }
}

fn spawn_input(tx: mpsc::Sender<Input>, work: impl Future<Output = Option<Input>> + Send + 'static) {
    tokio::spawn(async move {
        if let Some(input) = work.await {
            let _ = tx.send(input).await; // the loop has ended
        }
    });
}

/// What is worth a line of what comes in.
fn say_event(event: &Event) {
    match event {
        Event::Cas { id, outcome } => tracing::info!(id = id.0, ?outcome, "record: answer to a write"),
        Event::CanTakeReply(reply) => {
            tracing::info!(?reply, "the standby was asked whether it can take over");
        }
        Event::Resignation(_, r) => tracing::info!(term = r.term.0, end = %r.end, "the primary resigns"),
        Event::Evidence(e) => {
            tracing::warn!(incarnation = %e.incarnation, kind = ?e.kind, "evidence of death");
        }
        _ => {}
    }
}

fn say(note: &Note) {
    match note {
        Note::GoingSolo(reason) => tracing::warn!(?reason, "going on alone: the record is to say Solo"),
        Note::Pairing => tracing::info!("the standby is caught up: the record is to say Paired"),
        Note::Resigned(term) => tracing::warn!(term = term.0, "resigned"),
        Note::TakingBack(term) => {
            tracing::warn!(term = term.0, "the standby did not take over: taking the next term")
        }
        Note::TakingOver { term, cause, evidence, signals, .. } => {
            let signals: Vec<_> = signals.iter().flatten().collect();
            tracing::warn!(term = term.0, ?cause, ?evidence, ?signals, "taking over");
        }
        Note::Won(term) => tracing::warn!(term = term.0, "primary by the record"),
    }
}
