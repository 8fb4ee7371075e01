//! The settings that the agents follow while they run.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ConfigMap;
use pgpair_api::validate::ValidatedPair;
use pgpair_wire::config::CONFIG_KEY;

use super::owned;

/// ConfigMap `NAME-config`. The pods mount it, so a change reaches them without a new pod.
///
/// # Errors
/// Never: the settings are plain data.
pub fn build_config(pair: &ValidatedPair) -> Result<ConfigMap, serde_json::Error> {
    let json = serde_json::to_string_pretty(pair.config())?;
    Ok(ConfigMap {
        metadata: owned(pair, pair.name.config(), pair.name.labels()),
        data: Some(BTreeMap::from([(CONFIG_KEY.to_owned(), json)])),
        ..ConfigMap::default()
    })
}
