//! Logical slots: what the primary has and its standby has not, a failover loses without a word. So both report theirs.

use std::time::{Duration, Instant};

use super::Worker;
use crate::postgres::render::decoding::WalLevel;
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
        let level = self.server.running().map(|running| running.postmaster.wal_level());
        let is_due = self.slots.looked.is_none_or(|at| at.elapsed() >= LOOK);
        if level != Some(WalLevel::Logical) || !is_due {
            return;
        }
        self.slots.looked = Some(Instant::now());
        if let Ok(found) = slots::fetch_lasting(&self.sql).await {
            self.slots.found = found;
        }
    }
}
