//! What the API server of the local cluster recorded: who wrote what (`e2e/cluster/manifests/audit-policy.yaml`).

use std::fmt;
use std::fs::File;
use std::io::{ErrorKind, Read as _, Seek as _, SeekFrom};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use pgpair_api::names::PairName;
use serde::Deserialize;
use tokio::time::sleep;

use crate::harness::cluster::Cluster;

/// Start of the user names of service accounts.
const SERVICE_ACCOUNT: &str = "system:serviceaccount:";
/// Between two looks at the log.
const LOOK: Duration = Duration::from_secs(1);

/// The log of writes.
#[derive(Debug, Clone)]
pub struct AuditLog {
    path: PathBuf,
}

/// One write that the API server answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// Such as `system:serviceaccount:shop:orders-agent`.
    pub user: String,
    /// `create`, `update`, `patch`, `delete`, `deletecollection`.
    pub verb: String,
    /// Resource in the plural, with its subresource.
    pub resource: String,
    /// Namespace of the object; empty for one without.
    pub namespace: String,
    /// Name of the object; empty when many were meant.
    pub name: String,
    /// Status code of the answer.
    pub code: u16,
}

impl fmt::Display for Write {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let user = self.user.strip_prefix(SERVICE_ACCOUNT).unwrap_or(&self.user);
        write!(f, "{user}: {} {} {} ({})", self.verb, self.resource, self.name, self.code)
    }
}

impl Write {
    /// Whether an agent of `pair` made it.
    #[must_use]
    pub fn is_by_agent(&self, pair: &PairName) -> bool {
        self.user == format!("{SERVICE_ACCOUNT}{}:{}", pair.namespace, pair.agent())
    }

    /// Whether an agent of `pair` made it, or anybody for one of the pair's objects. The operator's own lease, which it
    /// renews however many pairs there are, lies in another namespace.
    #[must_use]
    pub fn is_for(&self, pair: &PairName) -> bool {
        let named = self.name == pair.name || self.name.starts_with(&format!("{}-", pair.name));
        // An event is named after its object, with a dot.
        let event = self.name.split('.').next().is_some_and(|object| object == pair.name);
        self.is_by_agent(pair)
            || (self.namespace == pair.namespace && (self.name.is_empty() || named || event))
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    verb: String,
    user: User,
    #[serde(default)]
    object_ref: Object,
    #[serde(default)]
    response_status: Response,
}

#[derive(Deserialize)]
struct User {
    username: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Object {
    resource: String,
    subresource: String,
    namespace: String,
    name: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Response {
    code: u16,
}

impl AuditLog {
    /// The log of `cluster`; `None` where the API server's log cannot be read.
    #[must_use]
    pub fn of(cluster: &Cluster) -> Option<AuditLog> {
        let local = cluster.local.as_ref()?;
        Some(AuditLog { path: local.run_dir.join("log/audit.log") })
    }

    /// Its length in bytes: where a count begins. 0 while nothing was ever written.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn position(&self) -> anyhow::Result<u64> {
        match std::fs::metadata(&self.path) {
            Ok(file) => Ok(file.len()),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(0),
            Err(error) => Err(error).with_context(|| format!("reading {}", self.path.display())),
        }
    }

    /// Every write since `position`.
    ///
    /// # Errors
    /// When it cannot be read, or has been cut since.
    pub fn since(&self, position: u64) -> anyhow::Result<Vec<Write>> {
        if self.position()? == 0 {
            return Ok(Vec::new());
        }
        let read = || -> anyhow::Result<String> {
            let mut file = File::open(&self.path)?;
            anyhow::ensure!(file.metadata()?.len() >= position, "it has been rotated meanwhile");
            file.seek(SeekFrom::Start(position))?;
            let mut text = String::new();
            file.read_to_string(&mut text)?;
            Ok(text)
        };
        parse(&read().with_context(|| format!("reading {}", self.path.display()))?)
    }
}

impl AuditLog {
    /// Waits until nothing has been written for `pair` for as long as `quiet`; returns where the log ends then.
    ///
    /// # Errors
    /// When that does not come within `limit`: names the last write.
    pub async fn await_quiet(
        &self,
        pair: &PairName,
        quiet: Duration,
        limit: Duration,
    ) -> anyhow::Result<u64> {
        let begin = self.position()?;
        let (mut count, mut since) = (0, Instant::now());
        let end = Instant::now() + limit;
        loop {
            let writes: Vec<Write> = self.since(begin)?.into_iter().filter(|w| w.is_for(pair)).collect();
            if writes.len() != count {
                (count, since) = (writes.len(), Instant::now());
            }
            if since.elapsed() >= quiet {
                return self.position();
            }
            if Instant::now() >= end {
                let last = writes.last().map(ToString::to_string).unwrap_or_default();
                bail!("{} was never quiet for {} s: {count} writes, last {last}", pair.name, quiet.as_secs());
            }
            sleep(LOOK).await;
        }
    }
}

/// A last line without its end is still being written, and is left out.
fn parse(text: &str) -> anyhow::Result<Vec<Write>> {
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let write = |line: &str| {
        let entry: Entry =
            serde_json::from_str(line).with_context(|| format!("line of the audit log: {line}"))?;
        let object = entry.object_ref;
        let sub =
            if object.subresource.is_empty() { String::new() } else { format!("/{}", object.subresource) };
        Ok(Write {
            user: entry.user.username,
            verb: entry.verb,
            resource: object.resource + &sub,
            namespace: object.namespace,
            name: object.name,
            code: entry.response_status.code,
        })
    };
    whole.lines().filter(|line| !line.is_empty()).map(write).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = r#"{"kind":"Event","stage":"ResponseComplete","verb":"update","user":{"username":"system:serviceaccount:shop:orders-agent","groups":["x"]},"objectRef":{"resource":"leases","namespace":"shop","name":"orders","apiGroup":"coordination.k8s.io"},"responseStatus":{"metadata":{},"code":409}}"#;

    fn pair(name: &str) -> PairName {
        PairName { namespace: "shop".into(), name: name.into() }
    }

    fn write(user: &str, name: &str) -> Write {
        Write {
            user: format!("{SERVICE_ACCOUNT}{user}"),
            verb: "patch".into(),
            resource: "pgreplicapairs/status".into(),
            namespace: "shop".into(),
            name: name.into(),
            code: 200,
        }
    }

    #[test]
    fn lines_are_read_and_the_unfinished_last_one_is_left_out() {
        let writes = parse(&format!("{LINE}\n{}", &LINE[..40])).unwrap();
        assert_eq!(writes.len(), 1);
        assert_eq!(writes[0].to_string(), "shop:orders-agent: update leases orders (409)");
        assert!(parse(&format!("{}\n{LINE}\n", &LINE[..40])).is_err());
    }

    #[test]
    fn a_write_counts_for_the_pair_whose_agent_made_it_or_whose_object_it_is() {
        assert!(parse(&format!("{LINE}\n")).unwrap()[0].is_for(&pair("orders")));
        assert!(write("system:operator", "orders").is_for(&pair("orders")));
        assert!(write("system:operator", "orders-rw").is_for(&pair("orders")));
        assert!(write("system:operator", "orders.18a").is_for(&pair("orders")));
        assert!(!write("system:operator", "orders2").is_for(&pair("orders")));
        assert!(!write("shop:legacy-agent", "legacy").is_for(&pair("orders")));
    }
}
