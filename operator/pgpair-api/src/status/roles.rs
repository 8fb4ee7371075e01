//! What the status tells of roles.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use strum::{EnumString, IntoStaticStr, VariantNames};

use crate::word::Word;

/// The password of a role.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct PasswordStatus {
    /// The role.
    pub role: String,
    /// The Secret that holds its password.
    pub secret: String,
    /// `InEffect`: it lets the role in. `Pending`: it is on its way. In all other states the role has another one: `SecretMissing`, `SecretEmpty`
    /// (nothing was changed), `Refused` (PostgreSQL does not take it, or does not let the role in with it), `Differs` (it was changed in
    /// the database).
    pub state: Word<PasswordStage>,
    /// Why it is not in effect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Tells the password from others, and nothing about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mark: Option<String>,
    /// Since when the Secret has had it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
}

/// How far a password has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, IntoStaticStr, EnumString, VariantNames)]
pub enum PasswordStage {
    /// The role has it, and it lets the role in.
    InEffect,
    /// It has not reached the database yet, or nobody tells.
    Pending,
    /// The Secret is not there: nothing was changed.
    SecretMissing,
    /// The Secret has no password of one line: nothing was changed.
    SecretEmpty,
    /// PostgreSQL does not take it, or does not let the role in with it.
    Refused,
    /// It was changed in the database.
    Differs,
}

/// A role or a database of the spec.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct DefinitionStatus {
    /// Its name.
    pub name: String,
    /// `AsDefined`; `Pending`: it has not been looked at since the spec was changed; `Refused`: PostgreSQL refuses some of it; `Differs`: it was
    /// changed in the database, and stays so; `Released`: it is no longer in the spec, and stays in the database (until the next change of
    /// the spec).
    pub state: Word<DefinitionStage>,
    /// What is refused or differs, in PostgreSQL's words if it refused something.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// How a role or a database of the spec stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, IntoStaticStr, EnumString, VariantNames)]
pub enum DefinitionStage {
    /// It is as the spec says.
    AsDefined,
    /// It has not been looked at since the spec was changed.
    Pending,
    /// PostgreSQL refuses some of it.
    Refused,
    /// It was changed in the database, and stays so.
    Differs,
    /// It is no longer in the spec, and stays in the database.
    Released,
}
