//! What the worker saw: from the worker to the driver, and into the report.

use pgpair_core::authority::PgFacts;
use pgpair_core::ids::Term;
use pgpair_wire::report::{ArchiveReport, Need, RejoinReport, SpaceReport};

use crate::postgres::promote::Promotion;
use crate::postgres::sql;

/// What the worker saw in one round.
#[derive(Debug, Clone)]
pub struct Observed {
    /// For the state machine.
    pub facts: PgFacts,
    /// All of SQL, if postgres answered.
    pub sql: Option<sql::SqlSnapshot>,
    /// The archive volume.
    pub archive: ArchiveReport,
    /// What this instance cannot do for itself.
    pub need: Option<Need>,
    /// The promotion that this worker carried out last.
    pub promotion: Option<(Term, Promotion)>,
    /// When the endpoint was pointed here, and in which term (Unix milliseconds).
    pub endpoint: Option<(Term, i64)>,
    /// How this instance joined its present primary.
    pub rejoin: Option<RejoinReport>,
    /// Generation of the configuration that postgres follows.
    pub config_generation: i64,
    /// Parameters of it that wait for a restart.
    pub pending_restart: Vec<String>,
    /// Parameters that this standby has more of than is configured, because its primary has.
    pub raised: Vec<String>,
    /// Room on the volumes.
    pub space: SpaceReport,
    /// What fails again and again.
    pub trouble: Option<String>,
    /// Why the agent cannot log in to its postgres.
    pub login_refused: Option<String>,
}
