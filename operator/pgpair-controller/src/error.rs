//! What may go wrong in one reconcile.

use std::time::Duration;

use kube::core::Status;
use pgpair_api::validate::InvalidSpec;

/// A failed reconcile. It is tried again later; only [`Error::Invalid`] waits for the user.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The spec cannot be carried out.
    #[error(transparent)]
    Invalid(#[from] InvalidSpec),
    /// The API server refused a request.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Objects that another owner made have names that the pair needs.
    #[error(transparent)]
    NotOurs(#[from] NotOurs),
    /// A request to the API server failed before there was an answer.
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

/// What the API server said instead of doing what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{verb} of {kind} {name} was refused: {message}")]
pub struct Refusal {
    /// `get`, `create`, `apply`, `replace` or `delete`.
    pub verb: &'static str,
    /// Kind of the object.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// The HTTP status code.
    pub code: u16,
    /// Its words, at most [`LONGEST_WORDS`] characters.
    pub message: String,
}

/// Longest part of an answer of the API server that is kept and told.
pub const LONGEST_WORDS: usize = 500;

impl Refusal {
    /// Of a request, from the answer.
    #[must_use]
    pub fn new(verb: &'static str, kind: String, name: &str, status: &Status) -> Refusal {
        let words = if status.message.is_empty() { &status.reason } else { &status.message };
        let message = words.chars().filter(|c| !c.is_control()).take(LONGEST_WORDS).collect();
        Refusal { verb, kind, name: name.to_owned(), code: status.code, message }
    }
}

/// Objects that exist and do not belong to the pair.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{} exist and do not belong to this pair, so they are left alone: delete or rename them, or create the pair under another name",
    .0.join(", ")
)]
pub struct NotOurs(pub Vec<String>);

/// An error that may be an answer of the API server.
pub trait MayBeRefusal {
    /// Whether the API server answered with this HTTP status code.
    fn is_refused_with(&self, code: u16) -> bool;
}

impl MayBeRefusal for Error {
    fn is_refused_with(&self, code: u16) -> bool {
        matches!(self, Error::Refused(refusal) if refusal.code == code)
    }
}

impl MayBeRefusal for kube::Error {
    fn is_refused_with(&self, code: u16) -> bool {
        matches!(self, kube::Error::Api(status) if status.code == code)
    }
}

impl Error {
    /// Stable word for the metric.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Error::Invalid(_) => "invalid",
            Error::Refused(_) => "refused",
            Error::NotOurs(_) => "not_ours",
            Error::Request { .. } => "request",
            Error::Timeout { .. } => "timeout",
            Error::Certificates { .. } => "certificates",
            Error::Config { .. } => "config",
            Error::Password { .. } => "password",
            Error::Secret { .. } => "secret",
        }
    }
}

/// An error with its causes, as one line.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut out = error.to_string();
    let mut cause = error.source();
    while let Some(c) = cause {
        out = format!("{out}: {c}");
        cause = c.source();
    }
    out
}
