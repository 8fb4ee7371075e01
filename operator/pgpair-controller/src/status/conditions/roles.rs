//! Whether roles and databases are as they have to be.

use pgpair_api::status::{
    ConditionType, DefinitionStage, DefinitionStatus, PasswordStage, PasswordStatus, PgReplicaPairStatus,
    Reason,
};

use super::{Draft, draft};

/// Sentences that are told; the status has the rest.
const TOLD: usize = 4;

pub(super) fn roles_healthy(status: &PgReplicaPairStatus) -> Draft {
    let type_ = ConditionType::RolesHealthy;
    let passwords = status.passwords.iter().filter_map(of_password);
    let roles = status.roles.iter().filter_map(|one| of_definition("role", one));
    let databases = status.databases.iter().filter_map(|one| of_definition("database", one));
    let wrong: Vec<(Reason, String)> = passwords.chain(roles).chain(databases).collect();
    if let Some((reason, _)) = wrong.first() {
        let more = wrong.len().saturating_sub(TOLD);
        let mut told: Vec<String> = wrong.iter().take(TOLD).map(|(_, sentence)| sentence.clone()).collect();
        told.extend(
            (more > 0).then(|| format!("and {more} more: see status.passwords, roles and databases")),
        );
        return draft(type_, false, *reason, told.join("; "));
    }
    if let Some(one) = status.passwords.iter().find(|one| !one.state.is(PasswordStage::InEffect)) {
        let message = format!(
            "the password of role {} in Secret {} has not reached the database yet",
            one.role, one.secret
        );
        return draft(type_, None, Reason::PasswordPending, message);
    }
    let mut defined = status.roles.iter().chain(&status.databases);
    if let Some(one) = defined.find(|one| one.state.is(DefinitionStage::Pending)) {
        let message = format!("{} has not been looked at since the spec was changed", one.name);
        return draft(type_, None, Reason::DefinitionPending, message);
    }
    if status.passwords.is_empty() {
        return draft(type_, None, Reason::Unknown, "no Secret with a password was read yet");
    }
    let message = "every role has the password of its Secret, and roles and databases are as the spec says";
    draft(type_, true, Reason::RolesAsExpected, message)
}

/// What is wrong with a role or a database, and what to do.
fn of_definition(kind: &str, one: &DefinitionStatus) -> Option<(Reason, String)> {
    let DefinitionStatus { name, message, .. } = one;
    let why = message.clone().unwrap_or_default();
    match one.state.known()? {
        DefinitionStage::AsDefined | DefinitionStage::Pending | DefinitionStage::Released => None,
        DefinitionStage::Refused => {
            Some((Reason::DefinitionRefused, format!("{kind} {name} is not as the spec says: {why}")))
        }
        DefinitionStage::Differs => Some((
            Reason::DefinitionDiffers,
            format!(
                "{kind} {name} was changed in the database, and stays so: {why}; change it back there, or change the spec"
            ),
        )),
    }
}

/// What is wrong with the password of a role, and what to do.
fn of_password(one: &PasswordStatus) -> Option<(Reason, String)> {
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
