//! Links lead somewhere, and examples can be read.

use std::path::Path;

use pgpair_api::PgReplicaPair;
use serde_json::Value;

use crate::repository::{pages, root, text};

/// Targets of `[text](target)`, without those of the web.
fn targets(page: &str) -> Vec<String> {
    let parts = page.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    parts.filter(|t| !t.contains("://")).map(ToOwned::to_owned).collect()
}

/// Headings as the anchors that a forge makes of them.
fn anchors(page: &str) -> Vec<String> {
    let headings = page.lines().filter(|l| l.starts_with('#')).map(|l| l.trim_start_matches('#').trim());
    let slug = |heading: &str| {
        let kept = heading.to_lowercase();
        let kept = kept.chars().filter(|c| c.is_alphanumeric() || *c == ' ' || *c == '-' || *c == '_');
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    };
    headings.map(slug).collect()
}

#[test]
fn every_link_leads_to_a_file_and_to_a_heading_of_it() {
    let mut dead = Vec::new();
    let mut links = 0;
    for path in pages() {
        for target in targets(&text(&path)) {
            links += 1;
            let (file, anchor) = target.split_once('#').unwrap_or((&target, ""));
            let folder = Path::new(&path).parent().unwrap();
            let file = if file.is_empty() { path.clone() } else { folder.join(file).display().to_string() };
            let there = root().join(&file).exists();
            if !there || (!anchor.is_empty() && !anchors(&text(&file)).iter().any(|a| a == anchor)) {
                dead.push(format!("{path}: {target}"));
            }
        }
    }
    assert!(links > 50, "the links were not found");
    assert!(dead.is_empty(), "dead links: {dead:#?}");
}

/// Blocks of YAML with the page that they are on.
fn yaml() -> Vec<(String, String)> {
    let mut out = Vec::new();
    for path in pages() {
        let text = text(&path);
        let blocks = text.split("```yaml\n").skip(1).filter_map(|b| b.split("```").next());
        out.extend(blocks.map(|b| (path.clone(), b.to_owned())));
    }
    out
}

#[test]
fn every_example_in_yaml_can_be_read_and_every_pair_in_it_is_one() {
    let mut pairs = 0;
    for (path, block) in yaml() {
        let value: Value = serde_saphyr::from_str(&block).unwrap_or_else(|e| panic!("{path}: {e}\n{block}"));
        if value["kind"] == "PgReplicaPair" {
            let pair: PgReplicaPair = serde_json::from_value(value.clone()).unwrap();
            // What the example says must be what was understood: a field that does not exist is silently left out.
            let understood = serde_json::to_value(&pair).unwrap();
            assert!(contains(&understood, &value), "{path}: {block}");
            pairs += 1;
        }
    }
    assert!(pairs >= 2, "the examples were not found");
}

/// Whether `all` has everything that `part` has.
fn contains(all: &Value, part: &Value) -> bool {
    match (all, part) {
        (Value::Object(all), Value::Object(part)) => {
            part.iter().all(|(k, v)| all.get(k).is_some_and(|a| contains(a, v)))
        }
        _ => all == part,
    }
}

#[test]
fn the_alerts_are_yaml_and_ask_for_metrics_that_there_are() {
    let rule: Value = serde_saphyr::from_str(&text("docs/guide/alerts.yaml")).unwrap();
    assert_eq!(rule["kind"], "PrometheusRule");
    let known = crate::words::series();
    let mut alerts = 0;
    for rule in rule["spec"]["groups"].as_array().unwrap().iter().flat_map(|g| g["rules"].as_array().unwrap())
    {
        let (alert, expr) = (rule["alert"].as_str().unwrap(), rule["expr"].as_str().unwrap());
        assert!(rule["annotations"]["summary"].is_string(), "{alert} says nothing");
        let (page, anchor) = rule["annotations"]["runbook"].as_str().unwrap().split_once('#').unwrap();
        assert!(anchors(&text(page)).iter().any(|a| a == anchor), "{alert}: {page} has no {anchor}");
        let names: Vec<&str> = expr
            .split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
            .filter(|w| w.starts_with("pgpair_"))
            .collect();
        assert!(!names.is_empty(), "{alert} asks for nothing of ours");
        for name in names {
            assert!(known.contains(name), "{alert}: {name} is no metric; there are {known:?}");
        }
        alerts += 1;
    }
    assert!(alerts >= 5);
}
