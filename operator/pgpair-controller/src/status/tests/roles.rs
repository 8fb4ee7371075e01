use pgpair_api::status::{DefinitionStage, PasswordStage};
use pgpair_wire::config::{DatabaseConfig, RoleConfig};
use pgpair_wire::report::{
    DefinitionFault, DefinitionKind, DefinitionsReport, PasswordState, WrongDefinition,
};

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
        (steady(), PasswordStage::InEffect, "True", "RolesAsExpected", "every role has"),
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

/// A pair whose spec has role `report` and database `reporting`, of which the primary tells this for that generation.
fn defining(generation: i64, wrong: Vec<WrongDefinition>) -> Observed {
    let mut observed =
        with_primary(|report| report.definitions = Some(DefinitionsReport { generation, wrong }));
    observed.config.roles = vec![RoleConfig {
        name: "report".into(),
        login: true,
        member_of: Vec::new(),
        connection_limit: -1,
        certificate: false,
    }];
    observed.config.databases =
        vec![DatabaseConfig { name: "reporting".into(), owner: "report".into(), extensions: Vec::new() }];
    observed
}

fn wrong(kind: DefinitionKind, name: &str, how: DefinitionFault) -> WrongDefinition {
    WrongDefinition { kind, name: name.into(), how, why: "role \"nobody\" does not exist".into() }
}

#[test]
fn roles_and_databases_of_the_spec_are_told_with_what_postgres_says_of_them() {
    let refused = || vec![wrong(DefinitionKind::Database, "reporting", DefinitionFault::Refused)];
    let differs = vec![wrong(DefinitionKind::Role, "report", DefinitionFault::Differs)];
    for (observed, role, database, status, reason) in [
        (defining(3, Vec::new()), "AsDefined", "AsDefined", "True", "RolesAsExpected"),
        (defining(2, Vec::new()), "Pending", "Pending", "Unknown", "DefinitionPending"),
        (
            Observed { paused: true, ..defining(2, Vec::new()) },
            "AsDefined",
            "AsDefined",
            "True",
            "RolesAsExpected",
        ),
        (defining(3, refused()), "AsDefined", "Refused", "False", "DefinitionRefused"),
        (defining(3, differs), "Differs", "AsDefined", "False", "DefinitionDiffers"),
    ] {
        let told = status_of(&observed);
        assert_eq!((told.roles[0].state.as_str(), told.databases[0].state.as_str()), (role, database));
        let condition = condition(&told, ConditionType::RolesHealthy).unwrap();
        assert_eq!((condition.status.as_str(), condition.reason.as_str()), (status, reason), "{condition:?}");
        assert_eq!(status == "False", condition.message.contains("role \"nobody\" does not exist"));
    }
    let old = status_of(&defining(3, refused()));
    let silent = over(&old, &defining(3, Vec::new()).a_silent());
    assert!(silent.databases[0].state.is(DefinitionStage::Refused), "what was known stays");
}

#[test]
fn what_is_no_longer_in_the_spec_is_told_until_its_next_change_and_by_one_event() {
    let shown = |old: &PgReplicaPairStatus, new: &PgReplicaPairStatus| {
        of_change(old, new).into_iter().map(|told| told.shown).collect::<Vec<_>>()
    };
    let at = |generation: i64, old: &PgReplicaPairStatus, observed: &Observed| {
        let status = compute(&name(), Some(generation), observed, &decide(observed), None, old);
        serde_json::from_value::<PgReplicaPairStatus>(serde_json::to_value(status).unwrap()).unwrap()
    };
    let before = status_of(&defining(3, Vec::new()));
    let released = at(4, &before, &steady());
    assert_eq!((released.roles[0].name.as_str(), released.roles[0].state.as_str()), ("report", "Released"));
    assert_eq!(shown(&before, &released), ["DefinitionReleased", "DefinitionReleased"]);
    assert_eq!(condition(&released, ConditionType::RolesHealthy).unwrap().status, "True");
    let still = at(4, &released, &steady());
    assert_eq!(still.roles, released.roles);
    assert!(shown(&released, &still).is_empty());
    assert!(at(5, &still, &steady()).roles.is_empty());
    let again = at(4, &still, &defining(4, Vec::new()));
    assert!(again.roles[0].state.is(DefinitionStage::AsDefined), "{again:?}");
}

#[test]
fn of_many_only_some_are_told_in_the_condition() {
    let many =
        (0..10).map(|n| wrong(DefinitionKind::Role, &format!("r{n}"), DefinitionFault::Refused)).collect();
    let mut observed = defining(3, many);
    observed.config.roles =
        (0..10).map(|n| RoleConfig { name: format!("r{n}"), ..observed.config.roles[0].clone() }).collect();
    let message = condition(&status_of(&observed), ConditionType::RolesHealthy).unwrap().message.clone();
    assert!(
        message.contains("role r3")
            && message.ends_with("and 6 more: see status.passwords, roles and databases"),
        "{message}"
    );
}
