//! Words of another process, as they may be shown. An agent shares its container with postgres, so whoever runs code there chooses its
//! words: they are cut where a report is read, and never reach a terminal or etcd as they came.

use std::collections::BTreeMap;

use crate::certificates::CertificatesReport;
use crate::report::{DefinitionsReport, InstanceReport, Need, PasswordReport};

/// Longest text of a report, in characters.
pub const WORDS: usize = 256;
/// Longest list of a report.
pub const MEMBERS: usize = 32;
/// Bytes of the longest name in PostgreSQL.
pub const NAME: usize = 63;
/// Longest list of replication slots. All of them count in the judgement of what a failover loses, and servers may have more than people
/// would read.
pub const SLOTS: usize = 256;

/// The text without characters that a terminal acts upon: control characters, and those that turn the direction of writing.
#[must_use]
pub fn plain(text: &str) -> String {
    text.chars().map(|c| if is_active(c) { ' ' } else { c }).collect()
}

fn is_active(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// The same, and of at most so many characters.
#[must_use]
pub fn shown(text: &str, characters: usize) -> String {
    let mut shown: String =
        text.chars().take(characters).map(|c| if is_active(c) { ' ' } else { c }).collect();
    if text.chars().nth(characters).is_some() {
        shown.pop();
        shown.push('…');
    }
    shown
}

fn bound(text: &mut Option<String>) {
    if let Some(text) = text {
        *text = shown(text, WORDS);
    }
}

fn bound_all(list: &mut Vec<String>, members: usize) {
    list.truncate(members);
    for text in list {
        *text = shown(text, WORDS);
    }
}

/// A role that nobody has given a password for is not looked for, so what is cut off here is missed by nobody.
fn bound_passwords(passwords: &mut BTreeMap<String, PasswordReport>) {
    passwords.retain(|role, _| role.len() <= NAME && *role == plain(role));
    while passwords.len() > MEMBERS {
        passwords.pop_last();
    }
    for password in passwords.values_mut() {
        password.mark = shown(&password.mark, NAME);
        bound(&mut password.why);
    }
}

fn bound_definitions(definitions: &mut DefinitionsReport) {
    definitions.wrong.truncate(MEMBERS);
    for wrong in &mut definitions.wrong {
        wrong.name = shown(&wrong.name, NAME);
        wrong.why = shown(&wrong.why, WORDS);
    }
}

impl InstanceReport {
    /// The report with every text and list bounded.
    #[must_use]
    pub fn bounded(mut self) -> InstanceReport {
        // Without `..`: a text that is not looked at does not compile.
        let InstanceReport {
            instance: _,
            incarnation: _,
            node,
            volume: _,
            system_identifier: _,
            authority,
            postgres: _,
            standby: _,
            archive,
            need,
            last_failover,
            order,
            refused_order,
            preparing,
            config_generation: _,
            pending_restart,
            raised,
            logical_slots,
            rejoin: _,
            space: _,
            trouble,
            login_refused,
            passwords,
            definitions,
            certificates,
            version: _,
        } = &mut self;
        let texts = [
            node,
            &mut authority.refusal,
            &mut archive.last_segment,
            &mut archive.last_failure,
            &mut archive.unknown,
            &mut archive.stalled,
            trouble,
            login_refused,
        ];
        texts.into_iter().for_each(bound);
        if let Some(Need::Rebuild { reason }) = need {
            *reason = shown(reason, WORDS);
        }
        for order in [order, refused_order].into_iter().flatten() {
            order.id = shown(&order.id, WORDS);
        }
        if let Some(failover) = last_failover {
            failover.signals.truncate(MEMBERS);
            failover.steps.truncate(MEMBERS);
        }
        for list in [preparing, pending_restart, raised] {
            bound_all(list, MEMBERS);
        }
        bound_all(logical_slots, SLOTS);
        bound_passwords(passwords);
        if let Some(CertificatesReport { version: _, shown: mark, trouble }) = certificates {
            bound(trouble);
            *mark = mark.take().map(|mark| shown(&mark, NAME));
        }
        definitions.iter_mut().for_each(bound_definitions);
        self
    }
}

#[cfg(test)]
mod tests {
    use pgpair_core::ids::{Incarnation, InstanceId};

    use super::*;
    use crate::report::{DefinitionFault, DefinitionKind, DefinitionsReport, PasswordState, WrongDefinition};

    #[test]
    fn words_that_a_terminal_would_act_upon_are_blanks() {
        assert_eq!(plain("a\u{1b}[2Jb\nc\u{202e}d\u{9b}e"), "a [2Jb c d e");
        assert_eq!(plain("größer als 5 %"), "größer als 5 %");
        assert_eq!((shown("abcdef", 4), shown("abcd", 4)), ("abc…".to_owned(), "abcd".to_owned()));
    }

    #[test]
    fn every_text_and_list_of_a_report_is_bounded() {
        let wide = || Some("\u{1b}".repeat(100_000));
        let mut report = InstanceReport::empty(InstanceId::A, Incarnation(1));
        (report.node, report.trouble, report.login_refused) = (wide(), wide(), wide());
        report.authority.refusal = wide();
        let archive = &mut report.archive;
        (archive.last_segment, archive.last_failure, archive.unknown, archive.stalled) =
            (wide(), wide(), wide(), wide());
        report.need = wide().map(|reason| Need::Rebuild { reason });
        for list in [
            &mut report.preparing,
            &mut report.pending_restart,
            &mut report.raised,
            &mut report.logical_slots,
        ] {
            *list = vec!["\u{7}".repeat(1000); 10_000];
        }
        let password =
            |n: usize| PasswordReport { mark: "\u{7}".repeat(n), state: PasswordState::Refused, why: wide() };
        report.passwords = (0..1000).map(|n| (format!("r{n}"), password(n))).collect();
        report.passwords.insert("\u{1b}".into(), password(1));
        let wrong = WrongDefinition {
            kind: DefinitionKind::Role,
            name: "\u{7}".repeat(1000),
            how: DefinitionFault::Refused,
            why: "\u{7}".repeat(1000),
        };
        report.definitions = Some(DefinitionsReport { generation: 1, wrong: vec![wrong; 1000] });
        report.certificates = Some(CertificatesReport { version: 1, shown: wide(), trouble: wide() });
        let text = serde_json::to_string(&report.bounded()).unwrap();
        assert!(text.len() < 160_000, "{}", text.len());
        assert!(!text.contains("\\u00"), "a control character is left");
    }

    #[test]
    fn a_report_of_usual_words_stays_as_it_is() {
        let mut report = InstanceReport::empty(InstanceId::A, Incarnation(1));
        report.trouble = Some("postgres does not start: see its log".into());
        report.logical_slots = (0..100).map(|n| format!("slot_{n}")).collect();
        assert_eq!(report.clone().bounded(), report);
    }
}
