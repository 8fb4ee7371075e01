use pgpair_api::status::PasswordStage;
use pgpair_wire::report::PasswordState;

use super::*;
use crate::fixtures::password_told;
use crate::secrets::passwords::Found;

/// The primary tells this of the password of `app`.
fn telling(state: PasswordState, why: Option<&str>) -> Observed {
    with_primary(|report| {
        let told = PasswordReport { why: why.map(Into::into), ..password_told(state) };
        report.passwords.insert("app".into(), told);
    })
}

fn finding(found: Found) -> Observed {
    let mut observed = steady();
    observed.passwords[0].entry.found = found;
    observed
}

/// Another password stands in the Secret, of which nothing is told yet.
fn changed() -> Observed {
    let mut observed = steady();
    observed.passwords[0].entry.mark = Some("m2".into());
    observed
}

#[test]
fn a_password_that_is_not_in_effect_is_told_with_what_to_do() {
    let refused = telling(PasswordState::Refused, Some("the role is not permitted to log in"));
    for (observed, stage, status, reason, words) in [
        (steady(), PasswordStage::InEffect, "True", "RolesAsExpected", "every role"),
        (changed(), PasswordStage::Pending, "Unknown", "PasswordPending", "has not reached"),
        (
            finding(Found::NoSecret),
            PasswordStage::SecretMissing,
            "False",
            "PasswordMissing",
            "create the Secret",
        ),
        (
            finding(Found::NoPassword),
            PasswordStage::SecretEmpty,
            "False",
            "PasswordMissing",
            "keeps its password",
        ),
        (refused, PasswordStage::Refused, "False", "PasswordRefused", "not permitted to log in"),
        (
            telling(PasswordState::Differs, None),
            PasswordStage::Differs,
            "False",
            "PasswordDiffers",
            "changed in the database",
        ),
    ] {
        let told = status_of(&observed);
        assert!(told.passwords[0].state.is(stage), "{stage:?}: {told:?}");
        let condition = condition(&told, ConditionType::RolesHealthy).unwrap();
        assert_eq!((condition.status.as_str(), condition.reason.as_str()), (status, reason));
        assert!(condition.message.contains(words), "{}", condition.message);
        let pair_is_fine = super::condition(&told, ConditionType::Degraded).unwrap();
        assert_eq!(pair_is_fine.status, "False", "the pair itself works");
    }
}

#[test]
fn a_new_password_is_told_once_when_it_is_in_effect_and_a_new_agent_is_no_news() {
    let shown = |old: &PgReplicaPairStatus, new: &PgReplicaPairStatus| {
        of_change(old, new).into_iter().map(|told| told.shown).collect::<Vec<_>>()
    };
    let before = status_of(&steady());
    let pending = over(&before, &changed());
    assert!(shown(&before, &pending).is_empty());
    let mut done = changed();
    if let ReportView::Fresh(report) = &mut done.a.report {
        report.passwords.get_mut("app").unwrap().mark = "m2".into();
    }
    let after = over(&pending, &done);
    assert_eq!(shown(&pending, &after), ["PasswordChanged"]);
    let forgetful = over(&after, &Observed { a: with_primary(|r| r.passwords.clear()).a, ..done.clone() });
    assert!(forgetful.passwords[0].state.is(PasswordStage::InEffect));
    let silent = over(&after, &done.clone().a_silent());
    assert!(silent.passwords[0].state.is(PasswordStage::InEffect));
    assert!(shown(&after, &forgetful).is_empty());
    let refused = over(&after, &finding(Found::NoPassword));
    assert_eq!(shown(&after, &refused), ["PasswordMissing"]);
}
