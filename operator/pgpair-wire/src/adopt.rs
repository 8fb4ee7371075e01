//! What a kept volume says of itself when it is looked at: the last words of a Job of an adoption.

use pgpair_core::authority::Durable;
use pgpair_core::ids::{SystemIdentifier, VolumeId};
use pgpair_core::lsn::Lsn;
use pgpair_core::timeline::TimelineHistory;
use serde::{Deserialize, Serialize};

/// Ancestors of a timeline that a look tells, the newest. Kubernetes keeps 4096 bytes of the last words of a container.
pub const ANCESTORS: usize = 80;
/// Characters of a sentence in them.
pub const WORDS: usize = 500;

/// What was found on the volumes of an instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
// Without a tag inside: serde reads no 128 bits then, and the id of a record has as many.
#[serde(rename_all = "camelCase")]
pub enum Look {
    /// No complete data directory.
    Nothing,
    /// Another process holds the lock of the volume.
    InUse,
    /// Something that cannot be read.
    Unreadable {
        /// Why, for people.
        why: String,
    },
    /// A data directory.
    Volume(KeptVolume),
}

/// A data directory at rest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KeptVolume {
    /// Its id.
    pub volume_id: VolumeId,
    /// Its cluster.
    pub system_identifier: SystemIdentifier,
    /// Major version of PostgreSQL.
    pub version: u32,
    /// The timeline on which its WAL ends, with its [newest ancestors](ANCESTORS).
    pub history: TimelineHistory,
    /// Behind the last record of its WAL. `None`: it could not be found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<Lsn>,
    /// Why not, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_unknown: Option<String>,
    /// When WAL was written there last, in milliseconds since 1970 by the clock of that node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub written_ms: Option<u64>,
    /// What its agent remembered. `None`: nothing is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<Durable>,
}

#[cfg(test)]
mod tests {
    use pgpair_core::record::RecordUid;
    use pgpair_core::timeline::TimelineId;

    use super::*;

    #[test]
    fn the_longest_look_fits_into_the_last_words_of_a_container() {
        let history = TimelineHistory {
            timeline: TimelineId(u32::MAX),
            ancestors: vec![(TimelineId(u32::MAX), Lsn(u64::MAX)); ANCESTORS],
        };
        let volume = KeptVolume {
            volume_id: VolumeId(u64::MAX),
            system_identifier: SystemIdentifier(u64::MAX),
            version: u32::MAX,
            history,
            end: Some(Lsn(u64::MAX)),
            end_unknown: Some("x".repeat(WORDS)),
            written_ms: Some(u64::MAX),
            state: Some(Durable { record_uid: Some(RecordUid(u128::MAX)), ..Durable::default() }),
        };
        let text = serde_json::to_string(&Look::Volume(volume.clone())).unwrap();
        // What the state may have beside its defaults: some words.
        assert!(text.len() < 4096 - 300, "{}", text.len());
        assert_eq!(serde_json::from_str::<Look>(&text).unwrap(), Look::Volume(volume));
        assert_eq!(serde_json::to_string(&Look::Nothing).unwrap(), r#""nothing""#);
    }
}
