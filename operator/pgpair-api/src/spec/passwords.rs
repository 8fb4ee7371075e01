//! Passwords that the operator makes.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Passwords that the operator makes.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct PasswordsSpec {
    /// A password in `NAME-app` or `NAME-superuser` that is older than this many days is made anew, 1 to 3650. Default: never, because
    /// clients that read the Secret only when they start would be turned away.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 3650))]
    pub max_age_days: Option<i32>,
}
