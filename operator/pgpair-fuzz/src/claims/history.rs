//! History files of timelines.

use pgpair_agent::wal::content;
use pgpair_core::ids::SystemIdentifier;
use pgpair_core::lsn::Lsn;
use pgpair_core::timeline::{Ancestry, TimelineHistory, TimelineId};
use pgpair_core::wal::WalFile;

use super::{head, text};

pub const WORDS: &[&str] =
    &["1\t0/3000148\tno recovery target specified\n", "\n", "#", "FFFFFFFF/FFFFFFFF", "\t", "4294967295"];

/// The first line is the timeline whose file it is, the rest the file. What is understood is in order, says the same when it is written
/// again, and answers about its own switch points as they are.
pub fn run(data: &[u8]) {
    let Some((number, file)) = text(data).map(head) else { return };
    let timeline = TimelineId(number.parse().unwrap_or(9));
    let read = TimelineHistory::parse(timeline, file);
    let checked = content::check(WalFile::History(timeline), SystemIdentifier(1), file.as_bytes(), 0);
    assert_eq!(read.is_ok(), checked.is_ok(), "the archive and recovery judge alike");
    let Ok(history) = read else { return };
    let ordered = history.ancestors.windows(2).all(|w| w[0].0 < w[1].0 && w[0].1 <= w[1].1);
    assert!(ordered && history.ancestors.iter().all(|(ancestor, _)| *ancestor < timeline), "{history:?}");
    let written: String =
        history.ancestors.iter().map(|(t, l)| format!("{t}\t{l}\tno recovery target specified\n")).collect();
    assert_eq!(TimelineHistory::parse(timeline, &written).as_ref(), Ok(&history));
    for &(ancestor, fork) in &history.ancestors {
        assert!(history.includes(ancestor));
        assert_eq!(history.ancestry_of(ancestor, fork), Ancestry::Contained);
        if let Some(beyond) = fork.0.checked_add(1) {
            assert_eq!(history.ancestry_of(ancestor, Lsn(beyond)), Ancestry::Diverged { fork });
        }
    }
}
