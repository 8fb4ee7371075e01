//! Words that the code can say, against the tables that explain them.

use std::any::type_name;
use std::collections::BTreeSet;

use pgpair_api::events::EventReason;
use pgpair_api::order::{InvalidOrderReason, OrderStage};
use pgpair_api::status::{ConditionType, Reason};
use pgpair_core::order::OrderRefusal;
use serde_json::Value;
use strum::VariantNames;

use crate::repository::{page, text};

/// Words in backticks in the first cells of tables.
fn explained(page: &str) -> BTreeSet<String> {
    let cells = page.lines().filter_map(|l| l.strip_prefix("| `")?.split('|').next().map(ToOwned::to_owned));
    cells.flat_map(|c| c.split('`').map(ToOwned::to_owned).collect::<Vec<_>>()).collect()
}

fn all_explained<T: VariantNames>(page_name: &str) {
    let explained = explained(&page(page_name));
    let missing: Vec<_> = T::VARIANTS.iter().filter(|word| !explained.contains(**word)).collect();
    assert!(missing.is_empty(), "{page_name} does not explain {missing:?} of {}", type_name::<T>());
}

#[test]
fn every_condition_and_every_reason_is_explained() {
    all_explained::<ConditionType>("status.md");
    all_explained::<Reason>("status.md");
}

#[test]
fn every_event_is_explained() {
    all_explained::<EventReason>("status.md");
}

#[test]
fn every_order_and_every_refusal_is_explained() {
    all_explained::<OrderRefusal>("kubectl-pgpair.md");
    all_explained::<InvalidOrderReason>("kubectl-pgpair.md");
    all_explained::<OrderStage>("kubectl-pgpair.md");
}

/// Names of the operator's metrics, without the suffixes that the format adds.
fn metrics() -> BTreeSet<String> {
    let own = text("operator/pgpair-controller/src/metrics.rs");
    let own = own.split("register(").skip(1).filter_map(|call| call.trim_start().strip_prefix('"'));
    let pairs = text("operator/pgpair-controller/src/metrics/pair.rs");
    let of_pair = |word: &&str| word.starts_with("pair_") || word.starts_with("instance_");
    // What stands between quotes is every second piece, whatever the lines are.
    let plain = |word: &&str| word.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
    let pairs = pairs.split('"').filter(of_pair).filter(plain);
    let names = own.chain(pairs).filter_map(|rest| rest.split('"').next());
    names.map(|name| format!("pgpair_operator_{name}")).collect()
}

/// The same as Prometheus sees them.
pub fn series() -> BTreeSet<String> {
    let with = |suffix: &str| metrics().into_iter().map(|m| m + suffix).collect::<BTreeSet<_>>();
    [with(""), with("_total"), with("_bucket"), with("_sum"), with("_count")].into_iter().flatten().collect()
}

#[test]
fn every_metric_is_in_the_guide_and_no_other() {
    let metrics = metrics();
    assert!(metrics.len() > 20, "the metrics were not understood: {metrics:?}");
    let page = page("monitoring.md");
    let told = explained(&page).into_iter().filter(|w| w.starts_with("pgpair_operator_")).collect();
    let differ: Vec<_> = metrics.symmetric_difference(&told).collect();
    assert!(differ.is_empty(), "monitoring.md and the code differ in {differ:?}");
}

#[test]
fn every_value_of_the_chart_is_in_the_guide() {
    let values: Value = serde_saphyr::from_str(&text("charts/pgreplicapair-operator/values.yaml")).unwrap();
    let names = values.as_object().unwrap().iter().flat_map(|(name, value)| match (name.as_str(), value) {
        // What is put into the pods as it is has no fields of ours.
        (
            "admissionPolicy" | "image" | "networkPolicy" | "podDisruptionBudget" | "rollout",
            Value::Object(below),
        ) => below.keys().map(|below| format!("{name}.{below}")).collect(),
        _ => vec![name.clone()],
    });
    let names: BTreeSet<String> = names.collect();
    assert!(names.len() > 8, "the values were not understood: {names:?}");
    let explained = explained(&page("install.md"));
    let missing: Vec<_> = names.difference(&explained).collect();
    assert!(missing.is_empty(), "install.md does not explain {missing:?}");
}
