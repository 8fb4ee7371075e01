//! What PostgreSQL has against a configuration that the agent itself would accept.

use std::path::PathBuf;

use crate::instance::fsx::FileError;
use crate::postgres::render::RenderError;
use crate::postgres::tool::ToolError;

/// A configuration that a postgres would not run with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Objection {
    /// Parameters, in PostgreSQL's words.
    #[error("{0}")]
    Parameters(String),
    /// An access rule.
    #[error("pg_hba.conf: {error}: {rule:?}")]
    Rule {
        /// In PostgreSQL's words.
        error: String,
        /// The line.
        rule: String,
    },
    /// A library that nobody has put into the image.
    #[error(
        "{parameter}: this image has no library {name:?} in {}: correct the name, or use an image that has it", directory.display()
    )]
    NoLibrary {
        /// The parameter that names it.
        parameter: &'static str,
        /// Its name there.
        name: String,
        /// Where the server's own libraries are.
        directory: PathBuf,
    },
    /// PostgreSQL would take the lower level and not start again.
    #[error(
        "wal_level cannot be replica while there are logical replication slots ({}): drop them, or write logical", slots.join(", ")
    )]
    NeedsLogical {
        /// Their names.
        slots: Vec<String>,
    },
}

/// A configuration that PostgreSQL was not found to accept.
#[derive(Debug, thiserror::Error)]
pub enum TryError {
    /// It does not.
    #[error("postgres does not accept it: {0}")]
    Objection(#[from] Objection),
    /// It cannot be written for postgres.
    #[error(transparent)]
    Render(#[from] RenderError),
    /// A file to try it with.
    #[error(transparent)]
    File(#[from] FileError),
    /// Postgres did not say.
    #[error("it cannot be tried: {0}")]
    Tool(#[from] ToolError),
}
