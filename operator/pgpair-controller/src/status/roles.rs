//! What is told of the passwords of roles.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use pgpair_api::status::{PasswordStage, PasswordStatus};
use pgpair_wire::report::{InstanceReport, PasswordState};

use crate::observed::{Observed, PasswordView};
use crate::secrets::passwords::Found;

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
        since: view.entry.since.map(|since| Time(Timestamp::from_second(since.as_second()).unwrap_or(since))),
    }
}
