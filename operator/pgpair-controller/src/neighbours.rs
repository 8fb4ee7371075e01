//! Other installations of the operator: two of them must never look after the same pairs, because each would undo what the other one
//! writes.
//!
//! Each installation has one Lease, by which its replicas elect the one that works. The Lease also tells the others what the
//! installation looks after (class, namespaces) and whether it *claims* that. Rule: first the own Lease is written, then those of the others are
//! read. An installation that does not claim yet stands aside for one that does; of two that begin at the same time the
//! one whose Lease is older goes on. Since each writes before it reads, at least one of two sees the other.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use kube::ResourceExt;
use pgpair_api::names::{ANNOTATION_CLAIMS, ANNOTATION_CLASS, ANNOTATION_NAMESPACES};
use tokio::time::Instant;

/// An installation whose Lease has not changed for so long is gone. Longer than a Lease lasts, so that a change of replicas or of version is no end.
const GONE: Duration = Duration::from_secs(60);
/// The same by the time that its holder wrote, which another clock measured: only for what was left behind long ago.
const LONG_GONE: Duration = Duration::from_secs(600);

/// What an installation looks after.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Domain {
    /// Class of the pairs; empty: those without a class.
    pub class: String,
    /// Namespaces; empty: all.
    pub namespaces: BTreeSet<String>,
}

impl Domain {
    /// Whether a pair could belong to both.
    #[must_use]
    pub fn overlaps(&self, other: &Domain) -> bool {
        let everywhere = self.namespaces.is_empty() || other.namespaces.is_empty();
        self.class == other.class && (everywhere || !self.namespaces.is_disjoint(&other.namespaces))
    }

    /// The namespaces that are watched one by one; `None`: all of them at once.
    #[must_use]
    pub fn scopes(&self) -> Vec<Option<&str>> {
        let namespaces: Vec<_> = self.namespaces.iter().map(|n| Some(n.as_str())).collect();
        if namespaces.is_empty() { vec![None] } else { namespaces }
    }

    /// As annotations of a Lease.
    #[must_use]
    pub fn annotations(&self, claims: bool) -> BTreeMap<String, String> {
        let namespaces: Vec<_> = self.namespaces.iter().map(String::as_str).collect();
        BTreeMap::from([
            (ANNOTATION_CLASS.to_owned(), self.class.clone()),
            (ANNOTATION_NAMESPACES.to_owned(), namespaces.join(",")),
            (ANNOTATION_CLAIMS.to_owned(), claims.to_string()),
        ])
    }
}

/// An installation, by its Lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installation {
    /// When its Lease was created, by the API server's clock: the same for all who compare.
    pub created: Option<Timestamp>,
    /// Namespace and name of its Lease.
    pub name: (String, String),
    /// What it looks after.
    pub domain: Domain,
    /// Whether it claims that.
    pub claims: bool,
}

impl Installation {
    /// Of a Lease.
    #[must_use]
    pub fn of(lease: &Lease) -> Installation {
        let word = |key| lease.annotations().get(key).cloned().unwrap_or_default();
        let namespaces = word(ANNOTATION_NAMESPACES);
        let namespaces = namespaces.split(',').filter(|n| !n.is_empty()).map(ToOwned::to_owned).collect();
        Installation {
            created: lease.creation_timestamp().map(|t| t.0),
            name: (lease.namespace().unwrap_or_default(), lease.name_any()),
            domain: Domain { class: word(ANNOTATION_CLASS), namespaces },
            claims: word(ANNOTATION_CLAIMS) == "true",
        }
    }

    fn precedes(&self, other: &Installation) -> bool {
        (self.created, &self.name) < (other.created, &other.name)
    }
}

/// What an installation may do beside the others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Claim, and work once the claim has been written and looked at again.
    Work,
    /// Keep the claim, and wait until this one has given its own up.
    Wait((String, String)),
    /// Leave the pairs to this one.
    StandAside((String, String)),
}

/// Decides beside which installations `me` may work. `working`: it works already.
#[must_use]
pub fn decide_claim(me: &Installation, others: &[Installation], working: bool) -> Verdict {
    let rivals = others.iter().filter(|o| o.name != me.name && o.domain.overlaps(&me.domain));
    let mut verdict = Verdict::Work;
    for rival in rivals {
        match (me.claims, rival.claims) {
            (false, true) => return Verdict::StandAside(rival.name.clone()),
            (false, false) | (true, true) if rival.precedes(me) => {
                return Verdict::StandAside(rival.name.clone());
            }
            // It gives its claim up when it looks: until then it may be at work.
            (true, true) if !working => verdict = Verdict::Wait(rival.name.clone()),
            (true, true) | (true, false) | (false, false) => {}
        }
    }
    verdict
}

/// Which installations are there: one whose Lease does not change is gone.
#[derive(Debug, Default)]
pub struct Neighbours {
    seen: BTreeMap<(String, String), (String, Instant)>,
}

impl Neighbours {
    /// Those of `leases` that are there, at a time of the own clock and of everybody's.
    pub fn alive(&mut self, leases: &[Lease], at: Instant, now: Timestamp) -> Vec<Installation> {
        let there: BTreeSet<_> = leases.iter().map(|lease| Installation::of(lease).name).collect();
        self.seen.retain(|name, _| there.contains(name));
        let alive = leases.iter().filter(|lease| self.is_alive(lease, at, now));
        alive.map(Installation::of).collect()
    }

    fn is_alive(&mut self, lease: &Lease, at: Instant, now: Timestamp) -> bool {
        let version = lease.resource_version().unwrap_or_default();
        match self.seen.get(&Installation::of(lease).name) {
            Some((known, since)) if *known == version => at - *since < GONE,
            known => {
                let is_new = known.is_none();
                self.seen.insert(Installation::of(lease).name, (version, at));
                !is_new || !is_long_gone(lease, now)
            }
        }
    }
}

fn is_long_gone(lease: &Lease, now: Timestamp) -> bool {
    let renewed = lease.spec.as_ref().and_then(|s| s.renew_time.as_ref());
    renewed.is_none_or(|at| now.duration_since(at.0).unsigned_abs() >= LONG_GONE)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    fn domain(class: &str, namespaces: &[&str]) -> Domain {
        Domain { class: class.into(), namespaces: namespaces.iter().map(|n| (*n).to_owned()).collect() }
    }

    fn installation(name: &str, created: i64, claims: bool) -> Installation {
        Installation {
            created: Some(Timestamp::from_second(created).unwrap()),
            name: (name.into(), "operator".into()),
            domain: Domain::default(),
            claims,
        }
    }

    #[rstest]
    #[case::everything_twice(domain("", &[]), domain("", &[]), true)]
    #[case::other_classes(domain("", &[]), domain("staging", &[]), false)]
    #[case::all_namespaces_and_one(domain("", &[]), domain("", &["shop"]), true)]
    #[case::a_common_namespace(domain("", &["shop", "bank"]), domain("", &["shop"]), true)]
    #[case::other_namespaces(domain("", &["bank"]), domain("", &["shop"]), false)]
    fn installations_are_rivals_if_a_pair_could_belong_to_both(
        #[case] a: Domain,
        #[case] b: Domain,
        #[case] rivals: bool,
    ) {
        assert_eq!((a.overlaps(&b), b.overlaps(&a)), (rivals, rivals));
    }

    #[test]
    fn a_newcomer_stands_aside_for_one_that_works_however_old_its_own_lease_is() {
        let old_but_new_here = installation("a", 1, false);
        let works = installation("b", 2, true);
        assert_eq!(
            decide_claim(&old_but_new_here, std::slice::from_ref(&works), false),
            Verdict::StandAside(works.name.clone())
        );
        assert_eq!(decide_claim(&works, &[old_but_new_here], true), Verdict::Work);
    }

    #[test]
    fn of_two_that_begin_together_exactly_one_works() {
        for (first, second) in [(false, false), (true, true)] {
            let (a, b) = (installation("a", 1, first), installation("b", 1, second));
            let of_a = decide_claim(&a, std::slice::from_ref(&b), false);
            let of_b = decide_claim(&b, std::slice::from_ref(&a), false);
            assert_ne!(of_a, Verdict::StandAside(b.name.clone()));
            assert_eq!(of_b, Verdict::StandAside(a.name.clone()));
        }
        let (a, b) = (installation("a", 1, true), installation("b", 1, true));
        assert_eq!(
            decide_claim(&a, std::slice::from_ref(&b), false),
            Verdict::Wait(b.name),
            "b may be at work until it looks"
        );
    }

    #[test]
    fn what_looks_after_other_pairs_is_no_rival() {
        let mut other = installation("b", 1, true);
        other.domain.class = "staging".into();
        assert_eq!(decide_claim(&installation("a", 2, false), &[other], false), Verdict::Work);
    }

    fn lease(version: &str, renewed: Timestamp) -> Lease {
        serde_json::from_value(json!({
            "metadata": {"namespace": "other", "name": "operator", "resourceVersion": version,
                         "annotations": Domain::default().annotations(true)},
            "spec": {"renewTime": renewed.to_string()},
        }))
        .unwrap()
    }

    #[test]
    fn an_installation_is_gone_when_its_lease_has_stood_still_for_a_minute() {
        let (mut neighbours, start, now) = (Neighbours::default(), Instant::now(), Timestamp::now());
        let mut alive = |version, after| neighbours.alive(&[lease(version, now)], start + after, now).len();
        assert_eq!(alive("1", Duration::ZERO), 1);
        assert_eq!(alive("1", GONE - Duration::from_secs(1)), 1, "its replicas may be changing over");
        assert_eq!(alive("1", GONE), 0);
        assert_eq!(alive("2", GONE), 1, "it is back");
    }

    #[test]
    fn a_lease_that_was_left_behind_long_ago_is_not_waited_for() {
        let now = Timestamp::now();
        let left = lease("1", now - jiff::SignedDuration::from_hours(1));
        assert_eq!(Neighbours::default().alive(&[left], Instant::now(), now), []);
    }
}
