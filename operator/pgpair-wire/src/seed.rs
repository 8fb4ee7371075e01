//! What a seeding pod says: how far its base backup is, and how it ended.

use pgpair_core::ids::VolumeId;
use serde::{Deserialize, Serialize};

/// How far a base backup is: `GET` [`crate::paths::SEED`]. What is not known is `None`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SeedProgress {
    /// Bytes received.
    pub done_bytes: u64,
    /// Bytes to receive, as the primary estimated at the beginning.
    pub total_bytes: Option<u64>,
    /// 0 to 100.
    pub percent: Option<u8>,
}

/// How seeding ended: the termination message of the container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SeedEnd {
    /// Whether the volume holds a data directory now.
    pub seeded: bool,
    /// Its id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume_id: Option<VolumeId>,
    /// What went wrong, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// After a failure: the volume still holds the complete data directory that it held before.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub kept: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_written_as_it_always_was() {
        let done = SeedEnd { seeded: true, volume_id: Some(VolumeId(7)), error: None, kept: false };
        assert_eq!(serde_json::to_string(&done).unwrap(), r#"{"seeded":true,"volumeId":"0000000000000007"}"#);
        let failed = SeedEnd { seeded: false, volume_id: None, error: Some("no space".into()), kept: false };
        assert_eq!(serde_json::to_string(&failed).unwrap(), r#"{"seeded":false,"error":"no space"}"#);
        let kept = SeedEnd { kept: true, ..failed };
        assert_eq!(
            serde_json::to_string(&kept).unwrap(),
            r#"{"seeded":false,"error":"no space","kept":true}"#
        );
    }

    #[test]
    fn what_is_not_known_of_the_progress_is_null() {
        let begun = serde_json::to_string(&SeedProgress::default()).unwrap();
        assert_eq!(begun, r#"{"doneBytes":0,"totalBytes":null,"percent":null}"#);
    }
}
