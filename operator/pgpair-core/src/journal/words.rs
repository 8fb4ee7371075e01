//! Events, commands and changes in the words of `docs/authority.md`.

use crate::authority::FailoverCause;
use crate::authority::messages::{Answer, CanTakeReply, ResignReply, Resignation, Verdict};
use crate::authority::timing::Ms;
use crate::authority::view::{CasOutcome, ReadOutcome};
use crate::authority::{
    Authority, Command, Durable, Event, Gate, Note, PgFacts, Refusal, SoloReason, SyncState, Want,
};
use crate::instance::Role;
use crate::journal::replay::{Look, Part, Told};
use crate::order::OrderReply;
use crate::record::{Holder, Mode, Record};

/// What came in. What is said over and over matters only when it differs from the last time.
pub(super) fn came_in(
    before: &Authority,
    after: &Authority,
    event: &Event,
    commands: &[Command],
    told: &Told,
) -> Part {
    match event {
        Event::Tick => Part::minor("time has passed"),
        Event::Postgres(facts) => postgres(before.postgres(), facts),
        Event::Persisted(durable) => Part::minor(format!("on disk: {}", on_disk(durable))),
        Event::Read { outcome, .. } => read(before, outcome, told),
        Event::Cas { id, outcome } => Part::telling(cas_outcome(after, id.0, *outcome)),
        Event::Heartbeat(_, hb) => {
            Part::minor(format!("heartbeat {} of {} in term {}", hb.seq, holder(hb.from), hb.term))
        }
        Event::Answer(answer) => answered(answer, told.answer.as_ref()),
        Event::CanTake(_, q) => Part::telling(format!(
            "{} asks whether this standby can take over in term {}{}{}",
            holder(q.from),
            q.term,
            if q.down { "; its postgres is down" } else { "" },
            if q.ordered { "; a person ordered it" } else { "" },
        )),
        Event::CanTakeReply(reply) => Part::telling(match reply {
            Some(CanTakeReply::Yes(_)) => "the standby says that it can take over".to_owned(),
            Some(CanTakeReply::No(why)) => format!("the standby says that it cannot take over: {why:?}"),
            None => "the standby did not say whether it can take over".to_owned(),
        }),
        Event::Resignation(_, r) => {
            let again = commands
                .iter()
                .any(|c| matches!(c, Command::AnswerResignation(_, reply) if told.accepted == Some(*reply)));
            Part { text: resignation(r), matters: !again }
        }
        Event::ResignReply(reply) => Part {
            text: resign_reply(*reply),
            matters: told.resign_reply != Some(*reply) && (reply.is_some() || told.resign_reply.is_none()),
        },
        Event::Evidence(e) => {
            Part::telling(format!("evidence: incarnation {} is dead ({:?})", e.incarnation, e.kind))
        }
        Event::Leave => Part::telling("told to end (SIGTERM)"),
        Event::Order(_, term, kind) => Part::telling(format!("order {} for term {term}", kind.as_str())),
        Event::Configure(s) => Part::telling(format!(
            "settings: ttl {} ms, {}, maxLag {} bytes, automatic {}, on a crash {:?}",
            s.timing.ttl(),
            s.durability.as_str(),
            s.max_lag,
            s.automatic,
            s.on_crash,
        )),
    }
}

fn holder(h: Holder) -> String {
    format!("{}/{}", h.instance, h.incarnation)
}

fn record(r: &Record) -> String {
    format!("term {}, {}, primary {}, {}", r.term, r.mode, holder(r.primary), r.durability.as_str())
}

fn on_disk(d: &Durable) -> String {
    let role = if d.primary { "primary" } else { "standby" };
    let fenced = if d.fenced { ", fenced" } else { "" };
    let mode = d.mode.map_or("mode not known", Mode::as_str);
    format!("term {}, {role}, {mode}, longest promise {} ms{fenced}", d.term, d.longest_ttl_ms)
}

/// Positions move all the time; what else is new matters.
fn postgres(old: &PgFacts, new: &PgFacts) -> Part {
    let mut parts = Vec::new();
    if old.state != new.state {
        parts.push(format!("{:?} (was {:?})", new.state, old.state));
    }
    if old.directory != new.directory {
        parts.push(format!("directory {:?}", new.directory));
    }
    if let Some(volume) = new.volume.filter(|_| old.volume != new.volume) {
        parts.push(format!("volume {volume}"));
    }
    if let Some(timeline) = new.timeline.filter(|_| old.timeline != new.timeline) {
        parts.push(format!("timeline {timeline}"));
    }
    if old.streaming != new.streaming {
        parts.push(if new.streaming { "streams".into() } else { "does not stream".into() });
    }
    if let Some((timeline, end)) = new.end.filter(|_| old.end != new.end) {
        parts.push(format!("its log ends at {end} of timeline {timeline}"));
    }
    if old.sync != new.sync {
        parts.push(match new.sync {
            SyncState::Unknown => "whether commits wait is not known".into(),
            SyncState::Off => "no commit waits".into(),
            SyncState::On { from, .. } => format!("commits wait for the standby, proven from {from} on"),
        });
    }
    if new.failed_starts > old.failed_starts {
        parts.push(format!("failed starts in a row: {}", new.failed_starts));
    }
    if old.hung != new.hung {
        parts.push(if new.hung { "hangs".into() } else { "hangs no more".into() });
    }
    if parts.is_empty() {
        let at = |l: Option<crate::lsn::Lsn>| l.map_or("unknown".to_owned(), |l| l.to_string());
        let (what, where_) = match (new.replay, new.standby_write) {
            (None, Some(has)) => ("its standby has received", Some(has)),
            (replayed, _) => ("replayed", replayed),
        };
        return Part::minor(format!("postgres: flushed {}, {what} {}", at(new.flush), at(where_)));
    }
    Part::telling(format!("postgres: {}", parts.join(", ")))
}

fn read(before: &Authority, outcome: &ReadOutcome, told: &Told) -> Part {
    let text = match outcome {
        ReadOutcome::Got(v) => {
            return Part {
                text: format!("the record says: {} (version {})", record(&v.record), v.version.0),
                matters: before.record() != Some(&v.record),
            };
        }
        ReadOutcome::Missing => "the record is read: it does not exist",
        ReadOutcome::Malformed => "the record is read: it contradicts itself",
        ReadOutcome::Failed => "the record is read: no answer of the API server",
    };
    Part { text: text.into(), matters: told.read != Some(*outcome) }
}

fn cas_outcome(after: &Authority, id: u64, outcome: CasOutcome) -> String {
    let came = match outcome {
        CasOutcome::Won(version) => {
            let now = after.record().map(record).unwrap_or_default();
            return format!("write {id} landed as version {}: {now}", version.0);
        }
        CasOutcome::Conflict => "was refused, for the record has changed meanwhile",
        CasOutcome::NotSent => "never left: no connection to the API server",
        CasOutcome::Unknown => "got no reply: it may have landed, or may land later",
        CasOutcome::Missing => "was refused: the record does not exist",
    };
    format!("write {id} {came}")
}

fn verdict(v: Verdict) -> String {
    match v {
        Verdict::Promised => "promised".into(),
        Verdict::Challenge => "first the way back is to be proven".into(),
        Verdict::Refused(why) => format!("no promise ({why:?})"),
        Verdict::NewerTerm(term) => format!("no promise: term {term} has begun"),
    }
}

fn answered(answer: &Answer, last: Option<&Answer>) -> Part {
    let s = &answer.standby;
    let same = last.is_some_and(|l| {
        let state = (l.standby.volume, l.standby.timeline, l.standby.streaming, l.standby.leaving);
        (l.term, l.verdict) == (answer.term, answer.verdict)
            && state == (s.volume, s.timeline, s.streaming, s.leaving)
    });
    let text = format!(
        "the standby answers heartbeat {}: {}; it {}{}",
        answer.seq,
        verdict(answer.verdict),
        if s.streaming { "streams" } else { "does not stream" },
        if s.leaving { " and is going to stop" } else { "" },
    );
    Part { text, matters: !same }
}

fn resignation(r: &Resignation) -> String {
    format!(
        "{} resigns term {}; its log ends at {} of timeline {}{}",
        holder(r.from),
        r.term,
        r.end,
        r.timeline,
        if r.ordered { "; a person ordered it" } else { "" },
    )
}

fn resign_reply(reply: Option<ResignReply>) -> String {
    match reply {
        Some(ResignReply::Accepted) => "the standby has taken note of the resignation".into(),
        Some(ResignReply::Refused(why)) => {
            format!("the standby does not follow the resignation: {why:?}")
        }
        Some(ResignReply::Taken(term)) => format!("the standby says that term {term} has begun"),
        None => "the standby did not answer the resignation".into(),
    }
}

fn order_reply(reply: OrderReply) -> String {
    match reply {
        OrderReply::Accepted => "accepted".into(),
        OrderReply::Done => "done".into(),
        OrderReply::Refused(why) => format!("refused, {}: {}", why.as_str(), why.message()),
    }
}

/// What is asked of the world.
pub(super) fn command(now: Ms, command: &Command, told: &Told) -> Part {
    match command {
        Command::Persist(durable) => Part::minor(format!("stores: {}", on_disk(durable))),
        Command::Read { .. } => Part::minor("reads the record"),
        Command::Cas { id, expected, record: r, .. } => {
            Part::telling(format!("write {} over version {}: {}", id.0, expected.0, record(r)))
        }
        Command::Heartbeat(hb) => Part::minor(format!("heartbeat {}", hb.seq)),
        Command::AskCanTake(_) => Part::telling("asks the standby whether it can take over"),
        // Repeated until it is heard; that it resigned is a note.
        Command::Resign(r) => Part::minor(format!(
            "tells the standby that its log ends at {} of timeline {}",
            r.end, r.timeline
        )),
        Command::AnswerHeartbeat(_, answer) => Part {
            text: format!("answers: {}", verdict(answer.verdict)),
            matters: told.verdict != Some(answer.verdict),
        },
        Command::AnswerCanTake(_, CanTakeReply::Yes(_)) => Part::telling("answers: it can"),
        Command::AnswerCanTake(_, CanTakeReply::No(why)) => {
            Part::telling(format!("answers: it cannot ({why:?})"))
        }
        Command::AnswerResignation(_, reply) => Part {
            text: match reply {
                ResignReply::Accepted => "takes note".into(),
                ResignReply::Refused(why) => format!("does not follow: {why:?}"),
                ResignReply::Taken(term) => format!("answers that term {term} has begun"),
            },
            matters: told.accepted != Some(*reply),
        },
        Command::AnswerOrder(_, reply) => Part::telling(format!("the order is {}", order_reply(*reply))),
        Command::OrderEnded(reply) => {
            Part::telling(format!("what became of the order: {}", order_reply(*reply)))
        }
        Command::Note(n) => Part::telling(note(now, n)),
    }
}

fn note(now: Ms, note: &Note) -> String {
    match note {
        Note::GoingSolo(reason) => format!("GOING SOLO: {}", solo_reason(*reason)),
        Note::Pairing => "PAIRING: the standby is caught up, and may take over from now on".into(),
        Note::Resigned(term) => format!("RESIGNED: this process never writes again in term {term}"),
        Note::TakingBack(term) => {
            format!("TAKING BACK: the standby did not take over; this instance takes term {term} itself")
        }
        Note::TakingOver { term, cause, evidence, last_heartbeat, .. } => {
            let last = last_heartbeat.map_or("it has promised nothing".to_owned(), |t| {
                format!("its last promise was given {} ms ago", now - t)
            });
            let proof = evidence.map_or_else(String::new, |kind| format!(" ({kind:?})"));
            format!("TAKING OVER term {term}: {}{proof}; {last}", failover_cause(*cause))
        }
        Note::Won(term) => format!("WON: the record names this process as primary of term {term}"),
    }
}

fn solo_reason(reason: SoloReason) -> &'static str {
    match reason {
        SoloReason::StandbySilent => "no promise of the standby for half of ttl (StandbySilent)",
        SoloReason::StandbyNotStreaming => "the standby does not stream (StandbyNotStreaming)",
        SoloReason::StandbyLags => {
            "the standby lacks more than maxLag, and in a sync mode for too long (StandbyLags)"
        }
        SoloReason::StandbyStalls => "the standby gets no further (StandbyStalls)",
        SoloReason::StandbyLeaves => "the standby is going to stop (StandbyLeaves)",
        SoloReason::StandbyReplaced => "the standby has another data directory (StandbyReplaced)",
        SoloReason::DurabilityChanged => "another durability is set (DurabilityChanged)",
    }
}

fn failover_cause(cause: FailoverCause) -> &'static str {
    match cause {
        FailoverCause::PromiseLapsed => "every promise to the primary has lapsed (PromiseLapsed)",
        FailoverCause::Resigned => "the primary resigned, and its whole log is here (Resigned)",
        FailoverCause::Evidence => "the primary is proven dead (Evidence)",
        FailoverCause::Switchover => "the primary hands over by order (Switchover)",
        FailoverCause::Forced => "a person says that the primary is dead (Forced)",
    }
}

/// What differs from the moment before.
pub(super) fn changes(now: Ms, old: &Look, new: &Look) -> Vec<Part> {
    let mut parts = Vec::new();
    if (old.role, old.term) != (new.role, new.term) {
        parts.push(Part::telling(format!("is {} of term {}", role(new.role), new.term)));
    }
    let closed = |g: Gate| if let Gate::Closed(why) = g { Some(why) } else { None };
    if closed(old.gate) != closed(new.gate) || old.gate.is_open() != new.gate.is_open() {
        parts.push(Part::telling(match new.gate {
            Gate::Open { until: None } => "the gate opens".into(),
            Gate::Open { until: Some(until) } => format!("the gate opens for {} ms", until - now),
            Gate::Closed(why) if old.gate.is_open() => format!("the gate closes: {}", why.as_str()),
            Gate::Closed(why) => format!("the gate stays closed: {}", why.as_str()),
        }));
    }
    if old.desired.postgres != new.desired.postgres {
        parts.push(Part::telling(format!("postgres is to be {}", want(new.desired.postgres))));
    }
    let fenced = |l: &Look| l.desired.refusal == Some(Refusal::Fenced);
    if fenced(old) != fenced(new) {
        parts.push(Part::telling(if fenced(new) { "fenced by a person" } else { "no longer fenced" }));
    }
    let primary = old.role == Role::Primary && new.role == Role::Primary;
    if primary && old.desired.synchronous != new.desired.synchronous {
        let wait = if new.desired.synchronous { "are to wait" } else { "need not wait" };
        parts.push(Part::telling(format!("commits {wait} for the standby")));
    }
    if primary && old.desired.admit_clients != new.desired.admit_clients {
        let may = if new.desired.admit_clients { "may" } else { "may not" };
        parts.push(Part::telling(format!("clients {may} come in")));
    }
    parts
}

fn role(role: Role) -> &'static str {
    match role {
        Role::Primary => "primary",
        Role::Standby => "standby",
        Role::Unknown => "neither primary nor standby",
    }
}

fn want(want: Want) -> String {
    match want {
        Want::Down => "down".into(),
        Want::Stopped => "stopped politely".into(),
        Want::Initialise => "initialised".into(),
        Want::Primary => "running as primary".into(),
        Want::Promoted => "promoted".into(),
        Want::Following(term) => format!("following the primary of term {term}"),
        Want::Unchanged => "left as it is".into(),
    }
}

/// The state in one line.
pub(super) fn state(authority: &Authority, look: &Look) -> String {
    let gate = match look.gate {
        Gate::Open { until: None } => "open".to_owned(),
        Gate::Open { until: Some(_) } => "open by promise".to_owned(),
        Gate::Closed(why) => format!("closed ({})", why.as_str()),
    };
    let facts = authority.postgres();
    format!(
        "incarnation {}, {} of term {}; the record: {}; the gate is {gate}; postgres is {:?}, to be {}",
        authority.me().incarnation,
        role(look.role),
        look.term,
        authority.record().map_or("not read".to_owned(), record),
        facts.state,
        want(look.desired.postgres),
    )
}
