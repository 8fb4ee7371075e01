//! Whether the volumes have space, and will have it for a while.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use pgpair_api::convert::bytes;
use pgpair_api::names::PairName;
use pgpair_api::status::{ConditionType, Reason};
use pgpair_core::ids::InstanceId;
use pgpair_wire::report::SpaceReport;

use super::{Draft, draft};
use crate::observed::Observed;

/// A volume with less than one part in so many is nearly full,
const LOW: u64 = 10;
/// until it has one part in so many again: a volume at the edge does not flap.
const ENOUGH: u64 = 7;
/// Full in less than this is soon,
const SOON: Duration = Duration::from_secs(45 * 60);
/// until it is as far away as this again.
const FAR: Duration = Duration::from_secs(90 * 60);

pub(super) fn storage_healthy(name: &PairName, observed: &Observed, old: &[Condition]) -> Draft {
    let type_ = ConditionType::StorageHealthy;
    let was_bad = old.iter().any(|c| c.type_ == type_.as_str() && c.status == "False");
    let spaces: Vec<(InstanceId, SpaceReport)> = InstanceId::ALL
        .into_iter()
        .filter_map(|i| Some((i, observed.instance(i).report.recent()?.space)))
        .filter(|(_, s)| s.data_free.is_some() || s.archive_free.is_some())
        .collect();
    if spaces.is_empty() {
        return draft(type_, None, Reason::Unknown, "no instance tells how much space it has");
    }
    let part = if was_bad { ENOUGH } else { LOW };
    for (i, s) in &spaces {
        let volumes = [
            (name.data_claim(*i), s.data_bytes, s.data_free),
            (name.archive_claim(*i), s.archive_bytes, s.archive_free),
        ];
        for (claim, size, free) in volumes {
            if let (Some(size), Some(free)) = (size, free)
                && free < size / part
            {
                let message = format!(
                    "{claim} has {} of {} left: enlarge it in spec.storage",
                    bytes(free),
                    bytes(size)
                );
                return draft(type_, false, Reason::SpaceLow, message);
            }
        }
    }
    let limit = if was_bad { FAR } else { SOON };
    for (i, s) in &spaces {
        if let Some(seconds) = s.full_in_seconds.filter(|s| Duration::from_secs(*s) < limit) {
            let message = format!(
                "a volume of {} is full in about {} min at the pace of the last minutes",
                name.instance(*i),
                seconds / 60
            );
            return draft(type_, false, Reason::FillingUp, message);
        }
    }
    draft(type_, true, Reason::SpaceLeft, "the volumes have space")
}
