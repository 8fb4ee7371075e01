//! The messages that agents and operator send each other, as JSON.

use std::fmt::Debug;

use pgpair_core::authority::messages::{
    Answer, CanTake, CanTakeReply, Evidence, Heartbeat, ResignReply, Resignation,
};
use pgpair_core::order::OrderReply;
use pgpair_wire::config::PairConfig;
use pgpair_wire::order::Order;
use pgpair_wire::report::InstanceReport;
use pgpair_wire::seed::{SeedEnd, SeedProgress};
use pgpair_wire::wal::{ArchivedFile, PrimaryTimeline, WalNeeds};
use pgpair_wire::words::{MEMBERS, SLOTS, WORDS as LONGEST};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

pub const WORDS: &[&str] = &[
    "null",
    "{",
    "}",
    "[",
    "]",
    "\"",
    ":",
    ",",
    "-1",
    "1e400",
    "0.5",
    "4294967295",
    "18446744073709551615",
    "18446744073709551616",
    "\"\\ud800\"",
    "\"\\u0000\"",
    "\"incarnation\"",
    "\"0000000000000001\"",
    "\"term\":",
];

/// The first line names the kind, the rest is the message. What is understood is sent on as it was read; a report is bounded, whatever
/// it says, and to bound it again changes nothing.
pub fn run(data: &[u8]) {
    let Some(end) = data.iter().position(|byte| *byte == b'\n') else { return };
    let message = &data[end + 1..];
    match &data[..end] {
        b"report" => reread(message).into_iter().for_each(bounded),
        b"config" => drop(reread::<PairConfig>(message)),
        b"order" => drop(reread::<Order>(message)),
        b"order-reply" => drop(reread::<OrderReply>(message)),
        b"heartbeat" => drop(reread::<Heartbeat>(message)),
        b"answer" => drop(reread::<Answer>(message)),
        b"can-take" => drop(reread::<CanTake>(message)),
        b"can-take-reply" => drop(reread::<CanTakeReply>(message)),
        b"resignation" => drop(reread::<Resignation>(message)),
        b"resign-reply" => drop(reread::<ResignReply>(message)),
        b"evidence" => drop(reread::<Evidence>(message)),
        b"timeline" => drop(reread::<PrimaryTimeline>(message)),
        b"needs" => drop(reread::<WalNeeds>(message)),
        b"archived" => drop(reread::<Vec<ArchivedFile>>(message)),
        b"seed-end" => drop(reread::<SeedEnd>(message)),
        b"seed-progress" => drop(reread::<SeedProgress>(message)),
        _ => {}
    }
}

fn reread<T: DeserializeOwned + Serialize + PartialEq + Debug>(message: &[u8]) -> Option<T> {
    let value: T = serde_json::from_slice(message).ok()?;
    let sent = serde_json::to_string(&value).expect("what was read can be sent");
    assert_eq!(serde_json::from_str::<T>(&sent).as_ref().ok(), Some(&value), "sent as {sent}");
    Some(value)
}

fn bounded(report: InstanceReport) {
    let mut next = report.clone();
    let news = next.follow(&report);
    assert!(!news || report.version.is_none(), "the same report is no news");
    let bounded = report.bounded();
    let sent = serde_json::to_string(&bounded).expect("what was read can be sent");
    // Four bytes a character at most; a name or a number takes less.
    let most = 4 * LONGEST * (16 + 3 * MEMBERS + SLOTS) + 8192;
    assert!(sent.len() <= most, "{} bytes", sent.len());
    let said = serde_json::to_value(&bounded).expect("what was read can be sent");
    assert!(!holds_control(&said), "a control character is left: {sent}");
    assert_eq!(bounded.clone().bounded(), bounded);
}

fn holds_control(value: &Value) -> bool {
    match value {
        Value::String(text) => text.chars().any(char::is_control),
        Value::Array(all) => all.iter().any(holds_control),
        Value::Object(all) => all.values().any(holds_control),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}
