//! What PostgreSQL says about a backup in its own words: `backup_label`, and the end of `backup_manifest`.

use pgpair_core::lsn::Lsn;
use pgpair_core::timeline::TimelineId;
use serde::Deserialize;

use crate::digest::{Measuring, Sha256};

/// A label has less than 1 KiB.
pub(crate) const MOST_LABEL: usize = 64 << 10;
/// The end of a manifest: its digest, and the WAL that the backup needs, one line for each timeline. Room for 150 of them.
const TAIL: usize = 16 << 10;

/// What `backup_label` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Label {
    /// Where recovery begins.
    pub start: Lsn,
    /// On which timeline.
    pub timeline: TimelineId,
    /// Whether the source was a standby.
    pub from_standby: bool,
    /// Of an incremental backup: where the one before started.
    pub incremental_from: Option<Lsn>,
}

/// A label or a manifest that is not understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LabelError {
    /// The label has no such line, or not in the form that is known.
    #[error("backup_label has no line \"{0}\" that is understood")]
    Line(&'static str),
    /// Larger than a label is.
    #[error("backup_label is larger than {MOST_LABEL} bytes")]
    LabelTooLarge,
    /// The manifest has no digest at its end.
    #[error("backup_manifest was cut short")]
    NoDigest,
    /// The manifest is not what its digest says.
    #[error("backup_manifest has the SHA-256 {found}, and says that it has {said}")]
    OtherDigest {
        /// Of what passed.
        found: Sha256,
        /// At its end.
        said: Sha256,
    },
    /// The manifest does not say which WAL the backup needs.
    #[error("backup_manifest does not say which WAL the backup needs")]
    NoWal,
    /// Label and manifest disagree.
    #[error(
        "backup_label says that the backup starts at {label}, and backup_manifest that it does at {manifest}"
    )]
    Start {
        /// By the label.
        label: Lsn,
        /// By the manifest.
        manifest: Lsn,
    },
}

impl Label {
    /// Reads `backup_label`.
    pub(crate) fn parse(text: &[u8]) -> Result<Label, LabelError> {
        let text = String::from_utf8_lossy(text);
        let value = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(": "));
        let need = |key: &'static str| value(key).ok_or(LabelError::Line(key));
        let start = need("START WAL LOCATION")?.split(' ').next().and_then(|lsn| lsn.parse().ok());
        let incremental = value("INCREMENTAL FROM LSN").map(|lsn| lsn.trim().parse());
        Ok(Label {
            start: start.ok_or(LabelError::Line("START WAL LOCATION"))?,
            timeline: need("START TIMELINE")?
                .trim()
                .parse()
                .map(TimelineId)
                .map_err(|_| LabelError::Line("START TIMELINE"))?,
            from_standby: match need("BACKUP FROM")?.trim() {
                "primary" => false,
                "standby" => true,
                _ => return Err(LabelError::Line("BACKUP FROM")),
            },
            incremental_from: incremental
                .transpose()
                .map_err(|_| LabelError::Line("INCREMENTAL FROM LSN"))?,
        })
    }
}

/// WAL that a backup needs: on each timeline from where to where.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(crate) struct WalRange {
    #[serde(rename = "Timeline")]
    pub timeline: TimelineId,
    #[serde(rename = "Start-LSN")]
    pub start: Lsn,
    #[serde(rename = "End-LSN")]
    pub end: Lsn,
}

/// A manifest that passes: it is hashed but for its end, which is kept. A manifest of a million files has 150 MB.
#[derive(Debug, Default)]
pub(crate) struct ManifestEnd {
    before: Measuring,
    tail: Vec<u8>,
}

const DIGEST_LINE: &[u8] = b"\n\"Manifest-Checksum\": \"";
const WAL_LINE: &[u8] = b"\n\"WAL-Ranges\": [";

impl ManifestEnd {
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        for piece in bytes.chunks(TAIL) {
            self.tail.extend_from_slice(piece);
            if let Some(surplus) = self.tail.len().checked_sub(TAIL) {
                self.before.update(&self.tail[..surplus]);
                self.tail.drain(..surplus);
            }
        }
    }

    pub(crate) fn held(&self) -> usize {
        self.tail.capacity()
    }

    /// The WAL that the backup needs, oldest timeline first. Never empty.
    pub(crate) fn finish(self) -> Result<Vec<WalRange>, LabelError> {
        let digest = rfind(&self.tail, DIGEST_LINE).ok_or(LabelError::NoDigest)?;
        let (body, last) = self.tail.split_at(digest + 1);
        let said = last[DIGEST_LINE.len() - 1..].strip_suffix(b"\"}\n").ok_or(LabelError::NoDigest)?;
        let said: Sha256 =
            std::str::from_utf8(said).ok().and_then(|s| s.parse().ok()).ok_or(LabelError::NoDigest)?;
        let mut whole = self.before;
        whole.update(body);
        let found = whole.finish().sha256;
        if found != said {
            return Err(LabelError::OtherDigest { found, said });
        }
        let ranges = rfind(body, WAL_LINE).map(|at| &body[at + WAL_LINE.len() - 1..]);
        let ranges = ranges.and_then(|text| text.strip_suffix(b",\n"));
        let ranges = ranges.and_then(|text| serde_json::from_slice::<Vec<WalRange>>(text).ok());
        let mut ranges = ranges.filter(|r| !r.is_empty()).ok_or(LabelError::NoWal)?;
        ranges.sort_by_key(|range| range.timeline);
        Ok(ranges)
    }
}

fn rfind(text: &[u8], wanted: &[u8]) -> Option<usize> {
    text.windows(wanted.len()).rposition(|window| window == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LABEL: &str = "START WAL LOCATION: 0/2000028 (file 000000010000000000000002)\nCHECKPOINT LOCATION: 0/2000060\n\
        BACKUP METHOD: streamed\nBACKUP FROM: standby\nSTART TIME: 2026-11-28 12:00:00 UTC\nLABEL: x\nSTART TIMELINE: 3\n";

    #[test]
    fn a_label_says_where_recovery_begins() {
        let label = Label::parse(LABEL.as_bytes()).unwrap();
        let full = Label {
            start: Lsn(0x200_0028),
            timeline: TimelineId(3),
            from_standby: true,
            incremental_from: None,
        };
        assert_eq!(label, full);
        let incremental = format!("{LABEL}INCREMENTAL FROM LSN: 0/1000028\nINCREMENTAL FROM TLI: 3\n");
        let label = Label::parse(incremental.as_bytes()).unwrap();
        assert_eq!(label.incremental_from, Some(Lsn(0x100_0028)));
    }

    #[test]
    fn a_label_without_one_of_its_lines_is_refused() {
        for key in ["START WAL LOCATION", "START TIMELINE", "BACKUP FROM"] {
            let without: Vec<&str> = LABEL.lines().filter(|l| !l.starts_with(key)).collect();
            assert!(Label::parse(without.join("\n").as_bytes()).is_err(), "{key}");
        }
    }

    fn manifest(files: usize, ranges: &str) -> Vec<u8> {
        let mut text = "{ \"PostgreSQL-Backup-Manifest-Version\": 1,\n\"Files\": [\n".to_owned();
        for n in 0..files {
            text += &format!("{{ \"Path\": \"base/1/{n}\", \"Size\": 8192, \"Checksum\": \"{n:064x}\" }},\n");
        }
        text += &format!("],\n\"WAL-Ranges\": [\n{ranges}\n],\n");
        let mut measuring = Measuring::default();
        measuring.update(text.as_bytes());
        let digest = measuring.finish().sha256;
        format!("{text}\"Manifest-Checksum\": \"{digest}\"}}\n").into_bytes()
    }

    const RANGES: &str = "{ \"Timeline\": 2, \"Start-LSN\": \"0/3000000\", \"End-LSN\": \"0/3000100\" },\n\
        { \"Timeline\": 1, \"Start-LSN\": \"0/2000028\", \"End-LSN\": \"0/3000000\" }";

    fn read(bytes: &[u8], step: usize) -> Result<Vec<WalRange>, LabelError> {
        let mut end = ManifestEnd::default();
        for piece in bytes.chunks(step) {
            end.push(piece);
            assert!(end.held() <= 4 * TAIL, "{}", end.held());
        }
        end.finish()
    }

    #[test]
    fn the_end_of_a_manifest_says_which_wal_the_backup_needs() {
        for (files, step) in [(0, 7), (3, 1 << 20), (5000, 1 << 20), (5000, 1000)] {
            let ranges = read(&manifest(files, RANGES), step).unwrap();
            let all: Vec<_> = ranges.iter().map(|r| (r.timeline.0, r.start.0, r.end.0)).collect();
            assert_eq!(all, [(1, 0x200_0028, 0x300_0000), (2, 0x300_0000, 0x300_0100)]);
        }
    }

    #[test]
    fn a_manifest_that_was_changed_or_cut_short_is_refused() {
        let good = manifest(200, RANGES);
        for at in [0, 70, good.len() / 2, good.len() - 100] {
            let mut changed = good.clone();
            changed[at] ^= 1;
            assert!(read(&changed, 4096).is_err(), "{at}");
        }
        for end in [0, good.len() / 2, good.len() - 80, good.len() - 1] {
            assert_eq!(read(&good[..end], 4096), Err(LabelError::NoDigest), "{end}");
        }
        assert_eq!(read(&manifest(2, ""), 4096), Err(LabelError::NoWal));
    }
}
