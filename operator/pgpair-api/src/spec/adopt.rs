//! Data that is there already.

use kube::KubeSchema;
use pgpair_core::ids::InstanceId;
use serde::{Deserialize, Serialize};

/// While the pair has no record, the volumes that an earlier pair of this name has left are looked at, and taken up if they prove that
/// nothing is lost by it. Nothing is made in their place. What they do not prove is asked in `status.adoption`.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.primary) == has(self.accept)").message("spec.bootstrap.adopt.primary and accept belong together: the instance that you choose, and the word of status.adoption.accept that says what you have seen of both"))]
pub struct AdoptSpec {
    /// Whose volume becomes the primary's, if that is asked: `a` or `b`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = "^[ab]$"))]
    pub primary: Option<String>,
    /// `status.adoption.accept`: what was found when you chose. Of other volumes, or after a change of these, the choice does not count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = "^[0-9a-f]{16}$"))]
    pub accept: Option<String>,
}

/// What a person has chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdoptChoice {
    /// The primary.
    pub primary: InstanceId,
    /// By what was told then.
    pub accept: String,
}

impl AdoptSpec {
    /// The choice, if it is one.
    #[must_use]
    pub fn choice(&self) -> Option<AdoptChoice> {
        Some(AdoptChoice { primary: self.primary.as_deref()?.parse().ok()?, accept: self.accept.clone()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_choice_is_an_instance_and_what_was_told() {
        let of = |primary: Option<&str>, accept: Option<&str>| {
            AdoptSpec { primary: primary.map(str::to_owned), accept: accept.map(str::to_owned) }.choice()
        };
        let word = "00000000000000ff";
        let chosen = AdoptChoice { primary: InstanceId::B, accept: word.to_owned() };
        assert_eq!(of(Some("b"), Some(word)), Some(chosen));
        for (primary, accept) in
            [(None, None), (Some("b"), None), (None, Some(word)), (Some("c"), Some(word))]
        {
            assert_eq!(of(primary, accept), None);
        }
    }
}
