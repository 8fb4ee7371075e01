//! Field by field: the tables of the guide against the committed definition.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::repository::{page, rows, schema};

/// The leaves of a schema by their path. Lists of objects are walked into, as `name[]`.
fn leaves(path: &str, node: &Value, out: &mut BTreeMap<String, Value>) {
    // As in a pod: documented as a whole.
    const WHOLE: [&str; 4] =
        ["scheduling.nodeAffinity", "scheduling.tolerations", "networkPolicy.allowFrom", "conditions"];
    let below = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    let items = &node["items"];
    match node["properties"].as_object() {
        _ if WHOLE.contains(&path) => {
            out.insert(path.to_owned(), node.clone());
        }
        Some(properties) => properties.iter().for_each(|(name, child)| leaves(&below(name), child, out)),
        None if items["properties"].is_object() => leaves(&format!("{path}[]"), items, out),
        None => {
            out.insert(path.to_owned(), node.clone());
        }
    }
}

fn documented(name: &str) -> BTreeMap<String, Vec<String>> {
    let mut out = BTreeMap::new();
    for row in rows(&page(name)) {
        let path = row[0].trim_matches('`').to_owned();
        assert!(out.insert(path.clone(), row).is_none(), "{name} tells of {path} twice");
    }
    out
}

fn same_fields(name: &str, part: &str) -> (BTreeMap<String, Value>, BTreeMap<String, Vec<String>>) {
    let mut fields = BTreeMap::new();
    leaves("", &schema(part), &mut fields);
    assert!(fields.len() > 30, "the definition was not understood");
    let told = documented(name);
    let set = |keys: Vec<&String>| keys.into_iter().cloned().collect::<BTreeSet<String>>();
    let (fields_set, told_set) = (set(fields.keys().collect()), set(told.keys().collect()));
    let missing: Vec<_> = fields_set.difference(&told_set).collect();
    let invented: Vec<_> = told_set.difference(&fields_set).collect();
    assert!(missing.is_empty() && invented.is_empty(), "{name}: missing {missing:?}, invented {invented:?}");
    (fields, told)
}

#[test]
fn every_field_of_the_spec_is_in_the_guide_with_its_default_and_range() {
    let (fields, told) = same_fields("spec.md", "spec");
    for (path, field) in &fields {
        let [_, default, range, ..] = &told[path][..] else { panic!("{path}: too few cells") };
        match &field["default"] {
            Value::Null => assert!(!default.is_empty() && !default.starts_with('`'), "{path}: {default}"),
            Value::String(s) => assert_eq!(*default, format!("`{s}`"), "{path}"),
            other => assert_eq!(*default, format!("`{other}`"), "{path}"),
        }
        if let (Some(min), Some(max)) = (field["minimum"].as_f64(), field["maximum"].as_f64()) {
            assert!(range.starts_with(&format!("{min} to {max}")), "{path}: {range}");
        }
        for word in field["enum"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            assert!(range.contains(&format!("`{word}`")), "{path}: {word} is missing");
        }
    }
}

#[test]
fn every_field_of_the_status_is_in_the_guide() {
    same_fields("status-fields.md", "status");
}
