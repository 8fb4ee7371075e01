//! What the oracle records: one JSON object a line on standard output.

use std::fmt;
use std::str::FromStr;

use pgpair_core::lsn::Lsn;
use serde::{Deserialize, Serialize};

/// Who acknowledged: an address and the timeline that it wrote. A primary that was replaced has another timeline.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Reign {
    /// Timeline that the server writes; first, so that reigns sort by it.
    pub timeline: u32,
    /// `ADDRESS:PORT` as the server itself sees it.
    pub server: String,
}

impl fmt::Display for Reign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (timeline {})", self.server, self.timeline)
    }
}

/// One acknowledged number. Times are microseconds of the real-time clock since 1970.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ack {
    /// The number.
    pub n: i64,
    /// When its statement was sent.
    pub sent_us: i64,
    /// When its acknowledgement arrived.
    pub acked_us: i64,
    /// Who acknowledged it.
    #[serde(flatten)]
    pub reign: Reign,
    /// Position read inside its transaction: its commit lies behind it.
    pub lsn: Lsn,
}

/// One line of the oracle's output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub enum Event {
    /// A writer starts.
    Start {
        /// Its name.
        writer: String,
        /// The address that it connects to.
        target: String,
        /// Its table.
        table: String,
        /// When.
        at_us: i64,
    },
    /// A connection to a server that accepts writes.
    Connected {
        /// The writer's name.
        writer: String,
        /// Who answered.
        #[serde(flatten)]
        reign: Reign,
        /// When.
        at_us: i64,
    },
    /// A number was acknowledged.
    Ack(Ack),
    /// A number was sent, and its outcome will never be known.
    Unknown {
        /// The number.
        n: i64,
        /// When its statement was sent.
        sent_us: i64,
        /// When the writer gave up.
        at_us: i64,
        /// Why.
        error: String,
    },
    /// No connection. Repeated only when the message changes.
    Refused {
        /// The writer's name.
        writer: String,
        /// When.
        at_us: i64,
        /// Why.
        error: String,
    },
}

impl Event {
    /// As one line of JSON, without the line's end.
    #[must_use]
    pub fn to_line(&self) -> String {
        // Plain structs of numbers and strings: nothing in them can fail to serialise.
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// A line that is no event.
#[derive(Debug, thiserror::Error)]
#[error("line {line} of an oracle's log is no event: {text:?}")]
pub struct ParseEventError {
    /// Counted from 1.
    pub line: usize,
    /// The line, cut to 200 characters.
    pub text: String,
    /// Why.
    pub source: serde_json::Error,
}

/// Every event of a log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Log(pub Vec<Event>);

impl Log {
    /// The last record; empty when there is none.
    #[must_use]
    pub fn last_line(&self) -> String {
        self.0.last().map(Event::to_line).unwrap_or_default()
    }

    /// The acknowledged numbers, in the order of the log.
    pub fn acks(&self) -> impl Iterator<Item = &Ack> {
        self.0.iter().filter_map(|event| match event {
            Event::Ack(ack) => Some(ack),
            _ => None,
        })
    }
}

impl FromStr for Log {
    type Err = ParseEventError;
    /// A last line without its end is still being written, and is left out.
    fn from_str(text: &str) -> Result<Log, ParseEventError> {
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        let events =
            whole.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()).map(|(i, line)| {
                serde_json::from_str(line).map_err(|source| ParseEventError {
                    line: i + 1,
                    text: line.chars().take(200).collect(),
                    source,
                })
            });
        events.collect::<Result<Vec<Event>, _>>().map(Log)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ack() -> Event {
        Event::Ack(Ack {
            n: 7,
            sent_us: 1,
            acked_us: 2,
            reign: Reign { timeline: 3, server: "10.0.0.1:5432".into() },
            lsn: Lsn(0x100_0000_0028),
        })
    }

    #[test]
    fn events_are_read_back_as_written() {
        let refused = Event::Refused { writer: "rw".into(), at_us: 9, error: "no \"route\"\n".into() };
        let text = format!("{}\n{}\n", ack().to_line(), refused.to_line());
        assert_eq!(text.lines().count(), 2);
        assert_eq!(text.parse::<Log>().unwrap(), Log(vec![ack(), refused]));
        assert!(text.contains(
            r#""event":"ack","n":7,"sent_us":1,"acked_us":2,"timeline":3,"server":"10.0.0.1:5432""#
        ));
    }

    #[test]
    fn a_line_that_is_cut_in_the_middle_fails_unless_it_is_the_last() {
        let line = ack().to_line();
        assert_eq!(format!("{line}\n{}", &line[..20]).parse::<Log>().unwrap().acks().count(), 1);
        let error = format!("{}\n{line}\n", &line[..20]).parse::<Log>().unwrap_err();
        assert!(error.to_string().starts_with("line 1 of an oracle's log"), "{error}");
    }
}
