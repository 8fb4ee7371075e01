//! Words of another process, as they may be shown.

use pgpair_wire::words::{plain, shown};

use super::text;

pub const WORDS: &[&str] = &[
    "\u{1b}[2J",
    "\u{202e}",
    "\u{9b}",
    "\u{2066}",
    "\u{85}",
    "…",
    "\u{1f468}\u{200d}\u{1f469}",
    "\n",
    "\u{feff}",
];

/// What is shown is no longer than it may be, holds nothing that a terminal acts upon, and is shown the same again.
pub fn run(data: &[u8]) {
    let Some(text) = text(data) else { return };
    let plain_text = plain(text);
    assert_eq!((plain_text.chars().count(), plain(&plain_text)), (text.chars().count(), plain_text.clone()));
    assert!(!plain_text.chars().any(char::is_control));
    for most in [1, 2, 40, 256] {
        let cut = shown(text, most);
        assert!(cut.chars().count() <= most && !cut.chars().any(char::is_control), "{cut:?}");
        assert_eq!(shown(&cut, most), cut);
        assert!(text.chars().count() > most || cut == plain_text);
    }
}
