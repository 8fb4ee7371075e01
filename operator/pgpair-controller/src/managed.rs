//! How an object tells that it still is what was applied, so that another leader need not apply everything anew.
//!
//! Two things together show it. An annotation says which content was applied (its SHA-256). And the API server keeps which fields of an
//! object are ours (`metadata.managedFields`; Kubernetes, "Server-Side Apply"): whoever else changes or removes one of them takes
//! it from us. So an object with that annotation, in which all fields of that content are still ours, has that content.
//!
//! Which fields those are depends on the schema, which is not known here; but it is the same for all objects of one shape (the
//! same keys with other values), and the answer to an apply shows it. So each process applies one object of each shape, and no more.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use kube::core::ObjectMeta;
use pgpair_api::names::{ANNOTATION_APPLIED, FIELD_MANAGER};
use serde_json::Value;
use sha2::{Digest, Sha256};

/// In caches only: the digest of the fields that are ours, in place of `metadata.managedFields`, which is the largest part of many
/// objects.
const FIELDS: &str = "pgpair.dev/cached-fields";
/// Members by which Kubernetes tells the items of a list apart; the names of fields that are ours contain them.
const KEYS: [&str; 9] = [
    "name",
    "containerPort",
    "devicePath",
    "ip",
    "mountPath",
    "port",
    "protocol",
    "topologyKey",
    "whenUnsatisfiable",
];
/// Lists that have one owner as a whole, or whose keys are of the pair.
const WHOLE: [&str; 2] = ["subjects", "ownerReferences"];

/// SHA-256 of something, shortened: equality is all that it is for.
pub type Digest16 = [u8; 16];

/// Which fields are ours of an object of a shape, as an apply has shown it.
#[derive(Debug, Default)]
pub struct Shapes(Mutex<HashMap<Digest16, Digest16>>);

impl Shapes {
    /// Whether `found` has the content of `hash`, which is that of `object`, by what is known of its shape.
    #[must_use]
    pub fn stands(&self, object: &Value, hash: &Digest16, found: &ObjectMeta) -> bool {
        let annotation = |key: &str| found.annotations.as_ref().and_then(|all| all.get(key));
        let shapes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        annotation(ANNOTATION_APPLIED) == Some(&hex(hash))
            && shapes.get(&shape(object)).is_some_and(|fields| annotation(FIELDS) == Some(&hex(fields)))
    }

    /// Learns from the answer to an apply of `object`.
    pub fn learn(&self, object: &Value, stored: &ObjectMeta) {
        if let Some(fields) = fields_of(stored) {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(shape(object), fields);
        }
    }
}

/// Marks an object with what is applied, and gives the digest of that.
pub fn mark(object: &mut Value) -> Digest16 {
    let hash = digest(&serde_json::to_vec(object).unwrap_or_default());
    object["metadata"]["annotations"][ANNOTATION_APPLIED] = Value::String(hex(&hash));
    hash
}

/// Puts the digest of the fields that are ours in the place of the managed fields.
pub fn condense(meta: &mut ObjectMeta) {
    let fields = fields_of(meta);
    meta.managed_fields = None;
    if let Some(fields) = fields {
        meta.annotations.get_or_insert_default().insert(FIELDS.to_owned(), hex(&fields));
    }
}

/// The digest of the fields that were applied by this operator and are still its own.
fn fields_of(meta: &ObjectMeta) -> Option<Digest16> {
    let ours = meta.managed_fields.iter().flatten().find(|entry| {
        entry.manager.as_deref() == Some(FIELD_MANAGER)
            && entry.operation.as_deref() == Some("Apply")
            && entry.subresource.as_deref().unwrap_or_default().is_empty()
    })?;
    let mut text = serde_json::to_string(&ours.fields_v1.as_ref()?.0).ok()?;
    for owner in meta.owner_references.iter().flatten() {
        text = text.replace(&owner.uid, "");
    }
    Some(digest(text.as_bytes()))
}

/// The shape of an object: its kind, its keys, and the values that are keys of lists.
fn shape(object: &Value) -> Digest16 {
    let mut text = object["kind"].to_string();
    write_shape(object, false, &mut text);
    digest(text.as_bytes())
}

fn write_shape(value: &Value, is_item: bool, text: &mut String) {
    match value {
        Value::Object(members) => {
            text.push('{');
            for (key, member) in members {
                text.push_str(key);
                text.push(':');
                match member {
                    Value::String(_) | Value::Number(_) if is_item && KEYS.contains(&key.as_str()) => {
                        text.push_str(&member.to_string());
                    }
                    _ if WHOLE.contains(&key.as_str()) => {}
                    _ => write_shape(member, false, text),
                }
                text.push(',');
            }
            text.push('}');
        }
        Value::Array(items) => {
            text.push('[');
            for item in items {
                write_shape(item, true, text);
                text.push(',');
            }
            text.push(']');
        }
        // What is empty may have no field of its own.
        Value::Null => text.push('0'),
        Value::String(_) | Value::Number(_) | Value::Bool(_) => text.push('1'),
    }
}

fn digest(bytes: &[u8]) -> Digest16 {
    let mut short = [0; 16];
    short.copy_from_slice(&Sha256::digest(bytes)[..16]);
    short
}

fn hex(digest: &Digest16) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// As the API server keeps it, with these fields ours.
    fn stored(object: &Value, fields: &Value) -> ObjectMeta {
        let mut metadata = object["metadata"].clone();
        metadata["managedFields"] = json!([
            {"manager": "kube-controller-manager", "operation": "Update", "fieldsV1": {"f:status": {}}},
            {"manager": FIELD_MANAGER, "operation": "Apply", "fieldsType": "FieldsV1", "fieldsV1": fields},
        ]);
        serde_json::from_value(metadata).unwrap()
    }

    fn service(pair: &str, uid: &str, port: u16) -> Value {
        json!({
            "kind": "Service",
            "metadata": {
                "name": pair,
                "ownerReferences": [{"apiVersion": "v1", "kind": "P", "name": pair, "uid": uid}],
            },
            "spec": {"ports": [{"name": "postgres", "port": port}]},
        })
    }

    fn fields(uid: &str, ports: &Value) -> Value {
        let owner = format!("k:{{\"uid\":\"{uid}\"}}");
        json!({"f:metadata": {"f:ownerReferences": {owner: {}}}, "f:spec": {"f:ports": ports}})
    }

    fn cached(object: &Value, fields: &Value) -> ObjectMeta {
        let mut meta = stored(object, fields);
        condense(&mut meta);
        assert_eq!(meta.managed_fields, None);
        meta
    }

    #[test]
    fn one_apply_shows_for_all_objects_of_a_shape_whether_they_still_are_what_was_applied() {
        let shapes = Shapes::default();
        let whole = json!({"k:{\"port\":5432}": {"f:name": {}, "f:port": {}}});
        let (mut first, mut second) = (service("orders", "1-2", 5432), service("books", "3-4", 5432));
        let (hash, other) = (mark(&mut first), mark(&mut second));
        let of_second = cached(&second, &fields("3-4", &whole));
        assert!(!shapes.stands(&second, &other, &of_second), "nothing is known of the shape");
        shapes.learn(&first, &stored(&first, &fields("1-2", &whole)));
        assert!(shapes.stands(&second, &other, &of_second));
        assert!(!shapes.stands(&second, &hash, &of_second), "it is to become another");

        let taken = json!({"k:{\"port\":5432}": {"f:port": {}}});
        assert!(
            !shapes.stands(&second, &other, &cached(&second, &fields("3-4", &taken))),
            "somebody took a field"
        );
        let mut unmarked = of_second.clone();
        unmarked.annotations.as_mut().unwrap().remove(ANNOTATION_APPLIED);
        assert!(!shapes.stands(&second, &other, &unmarked), "an earlier operator applied it");

        let mut third = service("orders", "1-2", 6432);
        let of_third = mark(&mut third);
        let ports = json!({"k:{\"port\":6432}": {"f:name": {}, "f:port": {}}});
        let third_as_cached = cached(&third, &fields("1-2", &ports));
        assert!(!shapes.stands(&third, &of_third, &third_as_cached), "another key of a list: another shape");
    }

    #[test]
    fn the_mark_is_of_the_content_without_the_mark() {
        let (mut one, mut again) = (service("orders", "1", 5432), service("orders", "1", 5432));
        assert_eq!(mark(&mut one), mark(&mut again));
        let mut other = service("orders", "1", 5433);
        assert_ne!(mark(&mut one.clone()), mark(&mut other));
    }
}
