//! What may go wrong in one reconcile.

use std::time::Duration;

use pgpair_api::validate::InvalidSpec;

/// A failed reconcile. It is tried again later; only [`Error::Invalid`] waits for the user.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The spec cannot be carried out.
    #[error(transparent)]
    Invalid(#[from] InvalidSpec),
    /// A request to the API server failed.
    #[error("{verb} of {kind} {name} failed")]
    Request {
        /// `get`, `create`, `apply`, `replace` or `delete`.
        verb: &'static str,
        /// Kind of the object.
        kind: String,
        /// Its name.
        name: String,
        /// Why.
        source: Box<kube::Error>,
    },
    /// A request to the API server was not answered.
    #[error("{verb} of {kind} {name} was not answered within {} s: is the API server reachable?", .after.as_secs())]
    Timeout {
        /// `get`, `create`, `apply`, `replace` or `delete`.
        verb: &'static str,
        /// Kind of the object.
        kind: String,
        /// Its name.
        name: String,
        /// How long it was waited for.
        after: Duration,
    },
    /// A certificate could not be made.
    #[error("making the certificates of {pair} failed")]
    Certificates {
        /// The pair.
        pair: String,
        /// Why.
        source: rcgen::Error,
    },
    /// The settings of the agents could not be written as JSON.
    #[error("writing the settings of the agents failed")]
    Config {
        /// Why.
        source: serde_json::Error,
    },
    /// A Secret that the user named has no password.
    #[error(
        "secret {secret} of spec.bootstrap.{field} has no usable key password: create it, with a password of one line"
    )]
    Password {
        /// The Secret.
        secret: String,
        /// The field that names it.
        field: &'static str,
    },
    /// A Secret lacks what it should hold.
    #[error("secret {name} has no usable {key}: delete the secret, and the operator makes it anew")]
    Secret {
        /// The Secret.
        name: String,
        /// The key.
        key: &'static str,
    },
}

impl Error {
    /// Stable word for the metric.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Error::Invalid(_) => "invalid",
            Error::Request { .. } => "request",
            Error::Timeout { .. } => "timeout",
            Error::Certificates { .. } => "certificates",
            Error::Config { .. } => "config",
            Error::Password { .. } => "password",
            Error::Secret { .. } => "secret",
        }
    }
}
