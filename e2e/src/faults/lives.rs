//! Whether processes of a pair have lived through a fault: its containers, and the postmaster of its primary.

use std::collections::BTreeMap;

use pgpair_core::ids::InstanceId;

use crate::harness::pair::Pair;

/// When each of them was started, or the how-manieth it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lives(BTreeMap<String, String>);

impl Lives {
    /// Looks at a pair with this primary.
    ///
    /// # Errors
    /// When a pod or the primary's postgres cannot be asked.
    pub async fn of(pair: &Pair, primary: InstanceId) -> anyhow::Result<Lives> {
        let mut lives = BTreeMap::new();
        for instance in InstanceId::ALL {
            let pod = pair.pod(instance).await?;
            let uid = pod.metadata.uid.unwrap_or_default();
            let containers = pod.status.and_then(|status| status.container_statuses).unwrap_or_default();
            for container in containers {
                let which = format!("container {} of {instance}", container.name);
                lives.insert(which, format!("{uid} {}", container.restart_count));
            }
        }
        let started = pair.psql(primary, "SELECT pg_postmaster_start_time()").await?;
        lives.insert(format!("the postmaster of {primary}"), started);
        Ok(Lives(lives))
    }

    /// Who has not lived until `later`.
    #[must_use]
    pub fn ended(&self, later: &Lives) -> Vec<String> {
        self.0
            .iter()
            .filter(|(who, life)| later.0.get(*who) != Some(life))
            .map(|(who, _)| who.clone())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_was_started_anew_or_is_gone_has_not_lived() {
        let lives = |all: &[(&str, &str)]| {
            Lives(all.iter().map(|(who, life)| ((*who).to_owned(), (*life).to_owned())).collect())
        };
        let before = lives(&[("one", "1"), ("two", "1"), ("three", "1")]);
        assert_eq!(before.ended(&before), Vec::<String>::new());
        assert_eq!(before.ended(&lives(&[("one", "1"), ("two", "2"), ("four", "1")])), ["three", "two"]);
    }
}
