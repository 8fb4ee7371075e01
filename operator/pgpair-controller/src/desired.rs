//! What a pair is to be. While its spec cannot be carried out, something stands in for it, so that what runs is still looked after.

use pgpair_api::PgReplicaPair;
use pgpair_api::spec::{BootstrapSpec, PgReplicaPairSpec, RoleSpec, TlsSpec};
use pgpair_api::validate::{Defaults, InvalidSpec, ValidatedPair, validate};

/// What a reconcile goes by.
#[derive(Debug, Clone)]
pub struct DesiredPair {
    /// The pair as the spec says. Of an invalid spec: who it is, whether it is paused, and how long its certificates live; the rest is
    /// defaults, of which nothing may be built.
    pub pair: ValidatedPair,
    /// Why the spec cannot be carried out.
    pub invalid: Option<InvalidSpec>,
}

impl DesiredPair {
    /// Of this object.
    ///
    /// # Errors
    /// Not even its name can be used, so it cannot have been carried out before.
    pub fn of(pair: &PgReplicaPair, defaults: &Defaults) -> Result<DesiredPair, InvalidSpec> {
        match validate(pair, defaults) {
            Ok(pair) => Ok(DesiredPair { pair, invalid: None }),
            Err(why) => {
                let pair = stand_in(pair, defaults).ok_or_else(|| why.clone())?;
                Ok(DesiredPair { pair, invalid: Some(why) })
            }
        }
    }

    /// Whether nothing of the spec comes into effect.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.pair.paused || self.invalid.is_some()
    }
}

/// The same object with a spec of defaults, but for what upkeep needs; its times of certificates, and the names of roles, only if they are valid.
fn stand_in(pair: &PgReplicaPair, defaults: &Defaults) -> Option<ValidatedPair> {
    let of_defaults: PgReplicaPairSpec = serde_json::from_str("{}").ok()?;
    // Their certificates end by themselves.
    let certified: Vec<_> = pair.spec.roles.iter().filter(|role| role.certificate).cloned().collect();
    let with_roles = |tls: &TlsSpec, bootstrap: &BootstrapSpec, roles: &[RoleSpec]| {
        let (tls, bootstrap, roles) = (tls.clone(), bootstrap.clone(), roles.to_vec());
        let spec =
            PgReplicaPairSpec { paused: pair.spec.paused, tls, bootstrap, roles, ..of_defaults.clone() };
        validate(&PgReplicaPair { spec, metadata: pair.metadata.clone(), status: None }, defaults).ok()
    };
    let with = |tls: &TlsSpec, bootstrap: &BootstrapSpec| {
        with_roles(tls, bootstrap, &certified).or_else(|| with_roles(tls, bootstrap, &[]))
    };
    let names_only = TlsSpec { dns_names: pair.spec.tls.dns_names.clone(), ..of_defaults.tls.clone() };
    [&pair.spec.bootstrap, &of_defaults.bootstrap]
        .into_iter()
        .find_map(|bootstrap| with(&pair.spec.tls, bootstrap).or_else(|| with(&names_only, bootstrap)))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::fixtures::{defaults, pair};

    fn of(spec: Value) -> DesiredPair {
        DesiredPair::of(&pair(spec), &defaults()).unwrap()
    }

    #[test]
    fn what_stands_in_for_an_invalid_spec_keeps_the_times_of_certificates_unless_these_are_invalid() {
        let times =
            |desired: &DesiredPair| (desired.pair.tls.validity_days, desired.pair.tls.renew_before_days);
        let owned = json!({"fsync": "off"});
        let other =
            of(json!({"postgres": {"parameters": owned}, "tls": {"validityDays": 9, "renewBeforeDays": 3}}));
        assert!(other.invalid.is_some());
        assert_eq!(times(&other), (9, 3));
        let wrong = of(json!({"paused": true, "tls": {"validityDays": 9, "dnsNames": ["db.example.com"]}}));
        assert!(wrong.invalid.is_some() && wrong.pair.paused);
        assert_eq!((times(&wrong), wrong.pair.tls.dns_names), ((90, 30), vec!["db.example.com".to_owned()]));
        assert_eq!(of(json!({})).invalid, None);
    }

    #[test]
    fn what_stands_in_for_an_invalid_spec_keeps_the_names_of_roles() {
        let owned = json!({"fsync": "off"});
        let other = of(
            json!({"postgres": {"parameters": owned}, "bootstrap": {"owner": "clerk", "superuserAccess": true}}),
        );
        assert_eq!(other.pair.database_owner, "clerk");
        assert!(other.pair.config().superuser_access);
        assert!(of(json!({"bootstrap": {"owner": "postgres"}})).invalid.is_some(), "it is no name of one");
        let roles = |names: &[&str]| {
            let roles: Vec<Value> =
                names.iter().map(|name| json!({"name": name, "certificate": true})).collect();
            let other = of(json!({"postgres": {"parameters": owned}, "roles": roles}));
            other.pair.roles.into_iter().map(|role| role.name).collect::<Vec<_>>()
        };
        assert_eq!(roles(&["report", "audit"]), ["report", "audit"], "their certificates end by themselves");
        assert_eq!(roles(&["report", "pg_audit"]), Vec::<String>::new());
    }

    #[test]
    fn nothing_stands_in_for_a_name_that_nothing_can_have() {
        let mut nameless = pair(json!({}));
        nameless.metadata.name = Some("1a".into());
        assert_eq!(DesiredPair::of(&nameless, &defaults()).unwrap_err(), InvalidSpec::Name("1a".into()));
    }
}
