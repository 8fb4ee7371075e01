//! Whether roles are as they have to be.

use pgpair_api::status::{ConditionType, PasswordStage, PasswordStatus, PgReplicaPairStatus, Reason};

use super::{Draft, draft};

pub(super) fn roles_healthy(status: &PgReplicaPairStatus) -> Draft {
    let type_ = ConditionType::RolesHealthy;
    let wrong = || status.passwords.iter().filter_map(|one| Some((one, wrong(one)?)));
    if let Some((_, (reason, _))) = wrong().next() {
        let all: Vec<String> = wrong().map(|(_, (_, sentence))| sentence).collect();
        return draft(type_, false, reason, all.join("; "));
    }
    let pending = status.passwords.iter().find(|one| !one.state.is(PasswordStage::InEffect));
    match pending {
        Some(PasswordStatus { role, secret, .. }) => {
            let message =
                format!("the password of role {role} in Secret {secret} has not reached the database yet");
            draft(type_, None, Reason::PasswordPending, message)
        }
        None if status.passwords.is_empty() => {
            draft(type_, None, Reason::Unknown, "no Secret with a password was read yet")
        }
        None => draft(type_, true, Reason::RolesAsExpected, "every role has the password of its Secret"),
    }
}

/// What is wrong with the password of a role, and what to do.
fn wrong(one: &PasswordStatus) -> Option<(Reason, String)> {
    let PasswordStatus { role, secret, message, .. } = one;
    let why = message.clone().unwrap_or_default();
    Some(match one.state.known()? {
        PasswordStage::InEffect | PasswordStage::Pending => return None,
        PasswordStage::SecretMissing => (
            Reason::PasswordMissing,
            format!(
                "Secret {secret} does not exist: role {role} keeps its password; create the Secret with key password"
            ),
        ),
        PasswordStage::SecretEmpty => (
            Reason::PasswordMissing,
            format!(
                "Secret {secret} has no key password with one line of text: role {role} keeps its password; set the key"
            ),
        ),
        PasswordStage::Refused => (
            Reason::PasswordRefused,
            format!("the password of role {role} in Secret {secret} is not in effect: {why}"),
        ),
        PasswordStage::Differs => (
            Reason::PasswordDiffers,
            format!(
                "the password of role {role} was changed in the database and is not that of Secret {secret}: change key password \
                 of the Secret, which then comes into effect"
            ),
        ),
    })
}
