//! Specs and orders of people, behind the schema: objects may have been stored under older rules.

use pgpair_api::order::UserOrder;
use pgpair_api::quantity;
use pgpair_api::spec::PgReplicaPair;
use pgpair_api::validate::{Defaults, validate};
use pgpair_wire::config::PairConfig;

use super::{head, text};

pub const WORDS: &[&str] = &[
    "\"16Mi\"",
    "\"1e9\"",
    "99999999999Ti",
    "\"parameters\":{",
    "\"fsync\":\"off\"",
    "-1",
    "0",
    "null",
    "{}",
    "\"ttl\":",
    "\"a\\nb\"",
    "9223372036854775807",
    "\"hba\":[\"host all all all md5\"]",
    "\"version\":18",
];

/// The first line is a quantity, the second an order, the rest a pair. What passes can be said to an agent and is understood there as it
/// was meant.
pub fn run(data: &[u8]) {
    let Some((amount, rest)) = text(data).map(head) else { return };
    let (order, pair) = head(rest);
    check_quantity(amount);
    if let Ok(order) = UserOrder::parse(order) {
        assert_eq!(UserOrder::parse(&order.to_json()).ok(), Some(order.clone()));
        let _ = order.check(1_700_000_000);
    }
    let Ok(pair) = serde_json::from_str::<PgReplicaPair>(pair) else { return };
    let defaults = Defaults {
        postgres_image_template: "postgres:{version}".to_owned(),
        agent_image: "pgpair:1".to_owned(),
        image_pull_policy: "IfNotPresent".to_owned(),
        operator_namespace: "pgpair-system".to_owned(),
    };
    match validate(&pair, &defaults) {
        Ok(valid) => {
            let sent = serde_json::to_string(valid.config()).expect("a configuration can be sent");
            assert_eq!(serde_json::from_str::<PairConfig>(&sent).ok().as_ref(), Some(valid.config()));
            assert!(!valid.postgres_image.contains("{version}"));
        }
        Err(refusal) => assert!(!refusal.to_string().is_empty()),
    }
}

/// Against reckoning with floating point, which is nearly right.
fn check_quantity(text: &str) {
    let Some(bytes) = quantity::bytes(text) else { return };
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor: f64 = match &text[digits.len()..] {
        "" => 1.0,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        "Ki" => 1024.0,
        "Mi" => 1024.0 * 1024.0,
        "Gi" => 1024.0 * 1024.0 * 1024.0,
        _ => 1024.0 * 1024.0 * 1024.0 * 1024.0,
    };
    let about = digits.parse::<f64>().expect("a number") * factor;
    // Rounded down, and a double has 53 bits.
    assert!((bytes as f64 - about).abs() <= 1.0 + about / 1e12, "{text:?} is {bytes}");
}
