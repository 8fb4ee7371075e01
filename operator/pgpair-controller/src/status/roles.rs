//! What is told of roles, their passwords, and databases.

use pgpair_api::status::{DefinitionStage, DefinitionStatus, PasswordStage, PasswordStatus};
use pgpair_wire::report::{DefinitionFault, DefinitionKind, InstanceReport, PasswordState};

use crate::observed::{Observed, PasswordView};
use crate::secrets::passwords::Found;
use crate::status::whole_seconds;

/// The password of each role, as far as the primary tells.
pub(super) fn passwords(observed: &Observed, old: &[PasswordStatus]) -> Vec<PasswordStatus> {
    let primary = observed.served_lately().map(|(_, report)| report);
    observed.passwords.iter().map(|view| password(view, primary, old)).collect()
}

fn password(view: &PasswordView, primary: Option<&InstanceReport>, old: &[PasswordStatus]) -> PasswordStatus {
    // Of an agent that has begun just now nothing is known, and the password is where it was.
    let was_in_effect = old.iter().any(|old| {
        old.role == view.role && old.mark == view.entry.mark && old.state.is(PasswordStage::InEffect)
    });
    let told = primary.and_then(|report| report.passwords.get(&view.role));
    let told = told.filter(|told| Some(&told.mark) == view.entry.mark.as_ref());
    let state = match (view.entry.found, told.map(|told| told.state)) {
        (Found::NoSecret, _) => PasswordStage::SecretMissing,
        (Found::NoPassword, _) => PasswordStage::SecretEmpty,
        (Found::Password, None) if was_in_effect => PasswordStage::InEffect,
        (Found::Password, None | Some(PasswordState::Awaited)) => PasswordStage::Pending,
        (Found::Password, Some(PasswordState::InEffect)) => PasswordStage::InEffect,
        (Found::Password, Some(PasswordState::Refused)) => PasswordStage::Refused,
        (Found::Password, Some(PasswordState::Differs)) => PasswordStage::Differs,
    };
    let has_found = view.entry.found == Found::Password;
    PasswordStatus {
        role: view.role.clone(),
        secret: view.secret.clone(),
        state: state.into(),
        message: told.and_then(|told| told.why.clone()).filter(|_| has_found),
        mark: view.entry.mark.clone(),
        since: view.entry.since.map(whole_seconds),
    }
}

/// The roles or the databases of the spec, as far as the primary tells; and for a while those that are in it no more.
pub(super) fn definitions(
    kind: DefinitionKind,
    observed: &Observed,
    old: &[DefinitionStatus],
    is_new_spec: bool,
) -> Vec<DefinitionStatus> {
    let names: Vec<&str> = match kind {
        DefinitionKind::Role => observed.config.roles.iter().map(|role| role.name.as_str()).collect(),
        DefinitionKind::Database => observed.config.databases.iter().map(|d| d.name.as_str()).collect(),
    };
    let gone = old.iter().filter(|old| {
        let is_told = old.state.is(DefinitionStage::Released);
        !names.contains(&old.name.as_str()) && (!is_told || !is_new_spec)
    });
    let released = gone.map(|old| DefinitionStatus {
        name: old.name.clone(),
        state: DefinitionStage::Released.into(),
        message: Some("it is no longer in the spec, and stays in the database as it is".into()),
    });
    names.iter().map(|name| definition(kind, name, observed, old)).chain(released).collect()
}

fn definition(
    kind: DefinitionKind,
    name: &str,
    observed: &Observed,
    old: &[DefinitionStatus],
) -> DefinitionStatus {
    let told = observed.served_lately().and_then(|(_, report)| report.definitions.as_ref());
    let wrong =
        told.and_then(|told| told.wrong.iter().find(|wrong| wrong.kind == kind && wrong.name == name));
    let state = match (told, wrong.map(|wrong| wrong.how)) {
        (_, Some(DefinitionFault::Refused)) => DefinitionStage::Refused,
        (_, Some(DefinitionFault::Differs)) => DefinitionStage::Differs,
        // Of a pair that is held the agents have the settings of an earlier generation.
        (Some(told), None) if told.generation >= observed.generation() || observed.is_held() => {
            DefinitionStage::AsDefined
        }
        (Some(_), None) => DefinitionStage::Pending,
        (None, None) => {
            let before = old.iter().find(|old| old.name == name).cloned();
            let known = before.filter(|before| !before.state.is(DefinitionStage::Released));
            return known.unwrap_or_else(|| DefinitionStatus {
                name: name.to_owned(),
                state: DefinitionStage::Pending.into(),
                message: None,
            });
        }
    };
    let message = wrong.map(|wrong| wrong.why.clone());
    DefinitionStatus { name: name.to_owned(), state: state.into(), message }
}
