//! The journal played again, told as a story: what came in, and what the rules made of it.

use crate::authority::messages::{Answer, CanTakeReply, ResignReply, Verdict};
use crate::authority::timing::Ms;
use crate::authority::view::ReadOutcome;
use crate::authority::{Authority, Command, Desired, Event, Gate};
use crate::ids::{InstanceId, Term};
use crate::instance::Role;
use crate::journal::shorthand::{Shorthand, Unreferenced};
use crate::journal::{Line, Snapshot, words};

/// What one event was, and what came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tale {
    /// Unix milliseconds on the machine of the agent.
    pub unix_ms: i64,
    /// Whose.
    pub who: InstanceId,
    /// What came in.
    pub came: Part,
    /// What came of it.
    pub parts: Vec<Part>,
}

/// A piece of a tale.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// In words.
    pub text: String,
    /// Whether it is worth telling people who want to know why something happened.
    pub matters: bool,
}

impl Part {
    pub(super) fn telling(text: impl Into<String>) -> Part {
        Part { text: text.into(), matters: true }
    }

    pub(super) fn minor(text: impl Into<String>) -> Part {
        Part { text: text.into(), matters: false }
    }
}

impl Tale {
    /// Whether anything of it is worth telling.
    #[must_use]
    pub fn matters(&self) -> bool {
        self.came.matters || self.parts.iter().any(|p| p.matters)
    }

    /// In words; without what does not matter, unless `all` is wanted.
    #[must_use]
    pub fn text(&self, all: bool) -> String {
        let parts: Vec<&str> =
            self.parts.iter().filter(|p| all || p.matters).map(|p| p.text.as_str()).collect();
        if parts.is_empty() {
            return self.came.text.clone();
        }
        format!("{} -> {}", self.came.text, parts.join("; "))
    }
}

/// What was said last of what is said again and again.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Told {
    pub(super) read: Option<ReadOutcome>,
    pub(super) answer: Option<Answer>,
    pub(super) verdict: Option<Verdict>,
    pub(super) accepted: Option<ResignReply>,
    pub(super) resign_reply: Option<Option<ResignReply>>,
    pub(super) can_take: Option<CanTakeReply>,
}

/// What people look at, at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Look {
    pub(super) role: Role,
    pub(super) term: Term,
    pub(super) gate: Gate,
    pub(super) desired: Desired,
}

impl Look {
    pub(super) fn at(authority: &Authority, now: Ms) -> Look {
        Look {
            role: authority.role(),
            term: authority.term(),
            gate: authority.gate(now),
            desired: authority.desired(now),
        }
    }
}

/// The state machine of one agent, played again.
#[derive(Debug, Clone)]
pub struct Replay {
    authority: Authority,
    now: Ms,
    unix_ms: i64,
    number: u64,
    look: Look,
    told: Told,
    shorthand: Shorthand,
}

/// The agent was in another state than the replay: the journal was written by other rules, or is not whole.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the agent was in another state here than the replay comes to")]
pub struct Diverged;

/// A line that cannot be played.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlayError {
    /// It contradicts what came before.
    #[error(transparent)]
    Diverged(#[from] Diverged),
    /// What it refers to is missing.
    #[error(transparent)]
    Unreferenced(#[from] Unreferenced),
}

impl Replay {
    /// From this state on.
    #[must_use]
    pub fn new(snapshot: Snapshot) -> Replay {
        let (authority, now) = (snapshot.authority, snapshot.at);
        Replay {
            look: Look::at(&authority, now),
            authority,
            now,
            unix_ms: snapshot.unix_ms,
            number: snapshot.number,
            told: Told::default(),
            shorthand: Shorthand::default(),
        }
    }

    /// Where it has come to.
    #[must_use]
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// Unix milliseconds of the last line.
    #[must_use]
    pub fn unix_ms(&self) -> i64 {
        self.unix_ms
    }

    /// How the story begins.
    #[must_use]
    pub fn beginning(&self) -> Tale {
        self.tale(Part::telling(format!("the journal begins: {}", self.state())), Vec::new())
    }

    /// Takes the next line.
    ///
    /// # Errors
    /// It cannot be played.
    pub fn take(&mut self, line: Line) -> Result<Tale, PlayError> {
        Ok(match line {
            Line::Snapshot(snapshot) => self.go_on(*snapshot)?,
            Line::Event(at, unix_ms, event) => {
                self.shorthand.remember(&event);
                self.event(at, unix_ms, event)
            }
            Line::Short(at, unix_ms, short) => {
                let event = self.shorthand.read(short)?;
                self.event(at, unix_ms, event)
            }
        })
    }

    /// Takes an event as the agent did.
    pub fn event(&mut self, at: Ms, unix_ms: i64, event: Event) -> Tale {
        let before = self.authority.clone();
        let commands = self.authority.handle(at, event.clone());
        (self.now, self.unix_ms, self.number) = (at, unix_ms, self.number.wrapping_add(1));
        let came = words::came_in(&before, &self.authority, &event, &commands, &self.told);
        self.told.hears(&event);
        let mut parts = Vec::new();
        for command in &commands {
            parts.push(words::command(at, command, &self.told));
            self.told.says(command);
        }
        let look = Look::at(&self.authority, at);
        parts.extend(words::changes(at, &self.look, &look));
        self.look = look;
        self.tale(came, parts)
    }

    /// A snapshot in the midst of it.
    ///
    /// # Errors
    /// It is one of this very moment, and says something else.
    pub fn go_on(&mut self, snapshot: Snapshot) -> Result<Tale, Diverged> {
        let same_process = snapshot.authority.me() == self.authority.me();
        let came = if !same_process {
            let me = snapshot.authority.me();
            *self = Replay::new(snapshot);
            Part::telling(format!("a new agent process, incarnation {}: {}", me.incarnation, self.state()))
        } else if snapshot.number == self.number {
            if snapshot.authority != self.authority {
                return Err(Diverged);
            }
            (self.now, self.unix_ms, self.shorthand) = (snapshot.at, snapshot.unix_ms, Shorthand::default());
            Part::minor("a snapshot, as replayed")
        } else {
            let missing = snapshot.number.saturating_sub(self.number);
            let why = if snapshot.lost > 0 { " (the disk did not keep up)" } else { "" };
            *self = Replay::new(snapshot);
            Part::telling(format!(
                "{missing} events are missing here{why}; it goes on with: {}",
                self.state()
            ))
        };
        Ok(self.tale(came, Vec::new()))
    }

    /// The state in one line.
    #[must_use]
    pub fn state(&self) -> String {
        words::state(&self.authority, &self.look)
    }

    fn tale(&self, came: Part, parts: Vec<Part>) -> Tale {
        Tale { unix_ms: self.unix_ms, who: self.authority.me().instance, came, parts }
    }
}

impl Told {
    fn hears(&mut self, event: &Event) {
        match event {
            Event::Read { outcome, .. } => self.read = Some(*outcome),
            Event::Answer(answer) => self.answer = Some(answer.clone()),
            Event::ResignReply(reply) => self.resign_reply = Some(*reply),
            _ => {}
        }
    }

    fn says(&mut self, command: &Command) {
        match command {
            Command::AnswerHeartbeat(_, answer) => self.verdict = Some(answer.verdict),
            Command::AnswerCanTake(_, reply) => self.can_take = Some(*reply),
            Command::AnswerResignation(_, reply) => self.accepted = Some(*reply),
            _ => {}
        }
    }
}
