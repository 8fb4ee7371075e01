//! Logical slots: what the primary has and its standby has not, a failover loses without a word. So both report theirs.

use std::time::{Duration, Instant};

use super::Worker;
use crate::postgres::slots;

/// How often they are looked for.
const LOOK: Duration = Duration::from_secs(5);

/// What was seen of them.
#[derive(Debug, Default)]
pub(super) struct Slots {
    /// Their names.
    pub(super) found: Vec<String>,
    looked: Option<Instant>,
}

impl Worker {
    pub(super) async fn watch_slots(&mut self) {
        let Some(postmaster) = self.server.running().map(|running| &running.postmaster) else { return };
        let is_due = self.slots.looked.is_none_or(|at| at.elapsed() >= LOOK);
        if !is_due || !postmaster.wal_level().may_have_slots(postmaster.floors().major) {
            return;
        }
        self.slots.looked = Some(Instant::now());
        if let Ok(found) = slots::fetch_lasting(&self.sql).await {
            self.slots.found = found;
        }
    }
}
