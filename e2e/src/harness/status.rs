//! What of a status has changed.

use std::collections::BTreeSet;

use pgpair_api::status::PgReplicaPairStatus;
use serde_json::{Map, Value};

/// The fields of a status that differ, with both values.
///
/// # Errors
/// When a status is no JSON.
pub fn changes(before: &PgReplicaPairStatus, after: &PgReplicaPairStatus) -> anyhow::Result<Vec<String>> {
    fn walk(path: &str, a: &Value, b: &Value, out: &mut Vec<String>) {
        match (a, b) {
            (Value::Object(x), Value::Object(y)) => {
                let keys: BTreeSet<&String> = x.keys().chain(y.keys()).collect();
                for key in keys {
                    let of = |map: &Map<String, Value>| map.get(key).cloned().unwrap_or_default();
                    walk(&format!("{path}.{key}"), &of(x), &of(y), out);
                }
            }
            (Value::Array(x), Value::Array(y)) if x.len() == y.len() => {
                x.iter().zip(y).enumerate().for_each(|(i, (a, b))| walk(&format!("{path}[{i}]"), a, b, out));
            }
            _ if a != b => out.push(format!("{path} {a} -> {b}")),
            _ => {}
        }
    }
    let mut out = Vec::new();
    walk("", &serde_json::to_value(before)?, &serde_json::to_value(after)?, &mut out);
    Ok(out)
}
