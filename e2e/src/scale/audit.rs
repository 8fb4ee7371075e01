//! What the API server answered to the operator, counted from its audit log as it writes it: read from its standard output, so that
//! hours of it need no disk.

use std::collections::BTreeMap;
use std::ops::Sub;
use std::sync::{Mutex, PoisonError};

use serde::Deserialize;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};

/// User name of the operator: that of a service account, so that the API server ranks its requests as it would in a cluster.
pub const OPERATOR: &str = "system:serviceaccount:pgpair-system:pgreplicapair-operator";
/// Its group.
pub const OPERATOR_GROUP: &str = "system:serviceaccounts";

/// What is recorded: every request of the operator, without its content.
pub const POLICY: &str = r#"apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived, ResponseStarted]
rules:
  - level: Metadata
    users: ["system:serviceaccount:pgpair-system:pgreplicapair-operator"]
  - level: None
"#;

/// Requests of the operator that were answered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// Reads: get, list, and watches that ended.
    pub reads: u64,
    /// Writes, but for those of the Lease of its election.
    pub writes: u64,
    /// Writes of the Lease of its election.
    pub election: u64,
    /// Writes by resource and verb.
    pub by_kind: BTreeMap<String, u64>,
}

impl Sub<&Counts> for Counts {
    type Output = Counts;

    fn sub(mut self, earlier: &Counts) -> Counts {
        self.reads -= earlier.reads;
        self.writes -= earlier.writes;
        self.election -= earlier.election;
        for (kind, count) in &earlier.by_kind {
            if let Some(now) = self.by_kind.get_mut(kind) {
                *now -= count;
            }
        }
        self.by_kind.retain(|_, count| *count > 0);
        self
    }
}

/// The counts so far.
#[derive(Debug, Default)]
pub struct Audit {
    counts: Mutex<Counts>,
}

impl Audit {
    /// As they are now.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Counts every line until there are no more.
    pub async fn follow(&self, log: impl AsyncRead + Unpin) {
        let mut lines = BufReader::with_capacity(1 << 20, log).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            if let Ok(entry) = serde_json::from_str(&line) {
                self.note(&entry);
            }
        }
    }

    fn note(&self, entry: &Entry<'_>) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let object = entry.object_ref.unwrap_or_default();
        match entry.verb {
            "get" | "list" | "watch" => counts.reads += 1,
            // The records of pairs have the names of pairs.
            _ if object.resource == "leases" && object.namespace == "pgpair-system" => counts.election += 1,
            verb => {
                counts.writes += 1;
                let sub = if object.subresource.is_empty() { "" } else { "/" };
                let kind = format!("{verb} {}{sub}{}", object.resource, object.subresource);
                *counts.by_kind.entry(kind).or_default() += 1;
            }
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry<'a> {
    verb: &'a str,
    #[serde(borrow, default)]
    object_ref: Option<Object<'a>>,
}

#[derive(Deserialize, Default, Clone, Copy)]
#[serde(default)]
struct Object<'a> {
    resource: &'a str,
    subresource: &'a str,
    namespace: &'a str,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(verb: &str, resource: &str, namespace: &str, subresource: &str) -> String {
        serde_json::json!({"kind": "Event", "verb": verb, "user": {"username": OPERATOR},
            "objectRef": {"resource": resource, "namespace": namespace, "name": "x", "subresource": subresource}})
        .to_string()
    }

    #[tokio::test]
    async fn reads_writes_and_the_election_are_counted_apart() {
        let audit = Audit::default();
        let text = [
            line("get", "leases", "scale-00", ""),
            line("update", "leases", "pgpair-system", ""),
            line("patch", "pgreplicapairs", "scale-00", "status"),
            line("patch", "pgreplicapairs", "scale-00", "status"),
            "no entry".to_owned(),
        ];
        audit.follow(text.join("\n").as_bytes()).await;
        let counts = audit.counts();
        assert_eq!((counts.reads, counts.writes, counts.election), (1, 2, 1));
        assert_eq!(counts.by_kind, BTreeMap::from([("patch pgreplicapairs/status".to_owned(), 2)]));
        audit.follow(line("create", "events", "scale-00", "").as_bytes()).await;
        let since = audit.counts() - &counts;
        assert_eq!((since.writes, since.by_kind.len()), (1, 1));
    }

    #[test]
    fn the_policy_names_the_operator() {
        assert!(POLICY.contains(OPERATOR));
    }
}
