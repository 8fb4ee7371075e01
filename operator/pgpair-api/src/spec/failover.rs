//! When the standby takes over.

use kube::KubeSchema;
use pgpair_core::authority::OnPostgresCrash;
use serde::{Deserialize, Serialize};

use super::schemas;

/// When the standby takes over.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq)]
#[serde(rename_all = "camelCase")] // KubeSchema knows no default of a whole struct: each field names its own
#[x_kube(validation = Rule::new("self.hangTimeoutSeconds >= self.ttlSeconds").message("spec.failover.hangTimeoutSeconds must not be below spec.failover.ttlSeconds: the standby may only follow after ttlSeconds; raise hangTimeoutSeconds or lower ttlSeconds"))]
pub struct FailoverSpec {
    /// Whether the standby takes over by itself. If not, a person orders it: `kubectl pgpair switchover` or `promote`.
    #[serde(default = "default_automatic")]
    pub automatic: bool,
    /// Seconds for which a standby promises the primary not to take over; the time to notice a silent primary. 2 to 60.
    #[serde(default = "default_ttl_seconds")]
    #[schemars(range(min = 2, max = 60))]
    pub ttl_seconds: i32,
    /// A standby that has not received more than this, as a quantity of bytes, may not take over. 1Mi to 1Ti. In `Async`
    /// it bounds what a failover can lose; in the sync modes a standby that soon has what the primary had keeps up.
    #[serde(default = "default_max_lag")]
    #[schemars(length(min = 1, max = 32), regex(pattern = schemas::BYTES))]
    #[x_kube(validation = Rule::new("isQuantity(self) && quantity(self).compareTo(quantity('1Mi')) >= 0 && quantity(self).compareTo(quantity('1Ti')) <= 0").message("maxLag must be a quantity of 1Mi to 1Ti, such as 16Mi"))]
    pub max_lag: String,
    /// What follows when the primary's postgres dies and its pod lives.
    #[serde(default)]
    #[schemars(schema_with = "schemas::words::<OnPostgresCrash>")]
    pub on_postgres_crash: OnPostgresCrash,
    /// A primary's postgres that neither answers nor writes for so many seconds is killed. 2 to 600, not below `ttlSeconds`.
    #[serde(default = "default_hang_timeout_seconds")]
    #[schemars(range(min = 2, max = 600))]
    pub hang_timeout_seconds: i32,
}

impl Default for FailoverSpec {
    fn default() -> Self {
        FailoverSpec {
            automatic: default_automatic(),
            ttl_seconds: default_ttl_seconds(),
            max_lag: default_max_lag(),
            on_postgres_crash: OnPostgresCrash::default(),
            hang_timeout_seconds: default_hang_timeout_seconds(),
        }
    }
}

fn default_automatic() -> bool {
    true
}

fn default_ttl_seconds() -> i32 {
    5
}

fn default_max_lag() -> String {
    "16Mi".into()
}

fn default_hang_timeout_seconds() -> i32 {
    10
}
