//! Heartbeats, their answers and moving positions are nearly all that a healthy pair's journal holds. Each is written as
//! what differs from the one before of its kind, so that the journal reaches back for hours.

use serde::{Deserialize, Serialize};

use crate::authority::messages::{Answer, Heartbeat, StandbyInfo};
use crate::authority::timing::Ms;
use crate::authority::{Event, PgFacts, ReplyId};
use crate::journal::Line;
use crate::lsn::Lsn;

/// Flushed and replayed; `None`: as before.
type Moved = Option<(Option<Lsn>, Option<Lsn>)>;

/// An event that is like the last one of its kind, but for this.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Short {
    /// An answer: its two numbers, and where the standby is.
    #[serde(rename = "a")]
    Answer(u64, u64, Moved),
    /// A heartbeat: where the reply belongs, its number and what it repeats.
    #[serde(rename = "h")]
    Heartbeat(ReplyId, u64, Option<u64>),
    /// Postgres of a standby: where it is.
    #[serde(rename = "p")]
    Postgres(Option<Lsn>, Option<Lsn>),
    /// Any other, a primary's above all: where it is, and what its standby has received.
    #[serde(rename = "q")]
    Primary(Option<Lsn>, Option<Lsn>),
}

/// A short event without one before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it refers to a line that is not there")]
pub struct Unreferenced;

/// The last event of each kind since the last snapshot.
#[derive(Debug, Clone, Default)]
pub struct Shorthand {
    answer: Option<Answer>,
    heartbeat: Option<Heartbeat>,
    facts: Option<PgFacts>,
}

impl Shorthand {
    /// The line for an event.
    #[must_use]
    pub fn line(&mut self, at: Ms, unix_ms: i64, event: Event) -> Line {
        let short = self.shorten(&event).filter(|s| self.expand(*s).as_ref() == Ok(&event));
        self.remember(&event);
        match short {
            Some(short) => Line::Short(at, unix_ms, short),
            None => Line::Event(at, unix_ms, event),
        }
    }

    /// The event of a short line, remembered.
    ///
    /// # Errors
    /// There was none of its kind before.
    pub fn read(&mut self, short: Short) -> Result<Event, Unreferenced> {
        let event = self.expand(short)?;
        self.remember(&event);
        Ok(event)
    }

    /// The next short event of its kind is told by what differs from this one.
    pub fn remember(&mut self, event: &Event) {
        match event {
            Event::Answer(answer) => self.answer = Some(answer.clone()),
            Event::Heartbeat(_, hb) => self.heartbeat = Some(hb.clone()),
            Event::Postgres(facts) => self.facts = Some(*facts),
            _ => {}
        }
    }

    /// A guess; [`Shorthand::expand`] tells whether it is right.
    fn shorten(&self, event: &Event) -> Option<Short> {
        match event {
            Event::Answer(a) => {
                let last = self.answer.as_ref()?.standby;
                let now = (a.standby.flush, a.standby.replay);
                Some(Short::Answer(a.seq, a.number, (now != (last.flush, last.replay)).then_some(now)))
            }
            Event::Heartbeat(reply, hb) => Some(Short::Heartbeat(*reply, hb.seq, hb.echo)),
            Event::Postgres(f) if f.replay.is_none() => Some(Short::Primary(f.flush, f.standby_write)),
            Event::Postgres(f) => Some(Short::Postgres(f.flush, f.replay)),
            _ => None,
        }
    }

    fn expand(&self, short: Short) -> Result<Event, Unreferenced> {
        Ok(match short {
            Short::Answer(seq, number, moved) => {
                let last = self.answer.clone().ok_or(Unreferenced)?;
                let (flush, replay) = moved.unwrap_or((last.standby.flush, last.standby.replay));
                let standby = StandbyInfo { flush, replay, ..last.standby };
                Event::Answer(Answer { seq, number, standby, ..last })
            }
            Short::Heartbeat(reply, seq, echo) => {
                let last = self.heartbeat.clone().ok_or(Unreferenced)?;
                Event::Heartbeat(reply, Heartbeat { seq, echo, ..last })
            }
            Short::Postgres(flush, replay) => {
                Event::Postgres(PgFacts { flush, replay, ..self.facts.ok_or(Unreferenced)? })
            }
            Short::Primary(flush, standby_write) => {
                Event::Postgres(PgFacts { flush, standby_write, ..self.facts.ok_or(Unreferenced)? })
            }
        })
    }
}
