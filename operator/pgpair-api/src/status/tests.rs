use serde_json::{Value, from_value, json, to_value};

use super::*;

/// A status with a word in each place that has one of an enumeration.
fn with(word: &str) -> Value {
    let time = "2026-01-01T00:00:00.000000Z";
    json!({
        "mode": word,
        "order": {"id": "x-1", "kind": word, "state": word, "reason": word},
        "instances": [{"name": "orders-a", "role": word, "ready": true, "state": word}],
        "lastFailover": {
            "term": 2, "cause": word, "evidence": word, "signals": [word], "from": "orders-a", "to": "orders-b",
            "rejoin": word, "steps": [{"step": word, "at": time, "offsetMs": 0}],
        },
        "rpo": {"basis": word},
        "rto": {"estimates": [{"cause": word, "seconds": 0.5}], "lastMeasuredCause": word},
    })
}

#[test]
fn words_of_a_later_operator_are_read_and_printed_back() {
    let later = with("WordOfTheFuture");
    let status: PgReplicaPairStatus = from_value(later.clone()).unwrap();
    assert_eq!(to_value(&status).unwrap(), later);
    assert_eq!(status.mode.and_then(|mode| mode.known()), None);
}

#[test]
fn every_word_of_the_status_is_one_that_may_be_unknown() {
    let definition = to_value(crate::crd::definition()).unwrap();
    let schema = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"];
    assert!(schema["properties"].is_object() && !schema.to_string().contains(r#""enum""#), "{schema}");
}

#[test]
fn each_word_is_read_as_what_was_written() {
    fn holds<T>(all: impl IntoIterator<Item = T>)
    where
        T: Copy + PartialEq + std::fmt::Debug + std::str::FromStr + Into<&'static str>,
    {
        for value in all {
            let word = Word::from(value);
            assert_eq!(from_value::<Word<T>>(to_value(&word).unwrap()).unwrap(), word);
        }
    }
    holds([Mode::Paired, Mode::Solo]);
    holds([Role::Primary, Role::Standby, Role::Unknown]);
    holds([InstanceState::Reported(pgpair_core::instance::PostgresState::Down)]);
    holds([InstanceState::Unreported(Unreported::NeverSeen)]);
    holds([OrderState::Running, OrderState::Done, OrderState::Refused, OrderState::Failed]);
    holds([OrderReason::Refused(pgpair_core::order::OrderRefusal::TimedOut)]);
    holds([OrderReason::Refused(pgpair_core::order::OrderRefusal::NotPaired)]);
    holds([OrderReason::Invalid(crate::order::InvalidOrderReason::Id)]);
    holds([OrderReason::Stage(crate::order::OrderStage::Copying)]);
}
