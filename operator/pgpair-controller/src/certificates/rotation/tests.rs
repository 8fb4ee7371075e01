use proptest::prelude::*;

use super::*;
use crate::certificates::revocation::Leaf;
use pgpair_api::order::CertificateKind;

const POLICY: Policy = Policy {
    validity: SignedDuration::from_hours(90 * 24),
    renew_before: SignedDuration::from_hours(30 * 24),
};
/// Two instances, the operator, clients.
const PARTIES: usize = 4;

/// What a pod has of its Secret lags behind it.
struct World {
    now: Timestamp,
    made: u32,
    authority: Option<AuthorityView>,
    secrets: Vec<Option<PartyView>>,
    pods: Vec<PartyView>,
    /// What the installation keeps that does not look after the pair: the authority and the operator's own Secret.
    elsewhere: (Option<AuthorityView>, Option<PartyView>),
    /// The operator has another certificate than the agents know, until they have their Secrets.
    is_strange: bool,
}

/// The place of the operator among the parties.
const OPERATOR: usize = 2;

/// What may happen.
#[derive(Debug, Clone)]
enum Event {
    /// The operator reconciles, and dies after so many writes.
    Reconcile { writes: usize },
    /// Time passes; the pods whose bit is set look at their Secrets at its end.
    Wait { minutes: i64, looks: u8 },
    /// Somebody deletes the authority's Secret.
    LoseAuthority,
    /// Another installation looks after the pair from now on. What it has kept is from when it did so last.
    Handover,
    /// Somebody deletes the Secret of a party.
    LoseParty(usize),
    /// The names that a certificate should have change.
    Rename(u8),
}

impl World {
    fn new() -> World {
        let now = "2026-01-01T00:00:00Z".parse().unwrap();
        let mut world = World {
            now,
            made: 0,
            authority: None,
            secrets: vec![None; PARTIES],
            pods: Vec::new(),
            elsewhere: (None, None),
            is_strange: false,
        };
        world.reconcile(usize::MAX, "n0");
        world.pods = world.secrets.iter().map(|s| s.clone().unwrap()).collect();
        world
    }

    fn new_mark(&mut self) -> AuthorityId {
        self.made += 1;
        format!("ca{}", self.made)
    }

    fn reconcile(&mut self, mut writes: usize, names: &str) {
        let (authority, instances) = (self.authority.as_ref(), &self.secrets[..OPERATOR]);
        let step = decide_next(authority, instances, &self.secrets, POLICY, self.now);
        if let Some(step) = step {
            let end = self.now + POLICY.authority_life();
            let next = self.new_mark();
            // The instances first.
            let present = self.secrets.iter().flatten().next();
            self.authority = Some(match (step, self.authority.take()) {
                (AuthorityStep::Introduce, Some(a)) => a.introduced(next),
                (AuthorityStep::Switch, Some(a)) => a.switched(end),
                (AuthorityStep::Retire, Some(a)) => a.retired(),
                _ => AuthorityView::established(
                    next,
                    present.map(|p| p.trusts.clone()).unwrap_or_default(),
                    end,
                ),
            });
            writes -= 1;
        }
        let Some(authority) = self.authority.clone() else { return };
        for (i, secret) in self.secrets.iter_mut().enumerate() {
            let wants = if i < 3 { Wants::Certificate(names) } else { Wants::Bundle };
            let Some(step) = decide_party(&authority, secret.as_ref(), wants, POLICY, self.now) else {
                continue;
            };
            if writes == 0 {
                return;
            }
            writes -= 1;
            let new = (i < 3).then(|| CertificateView {
                signed_by: authority.signer().unwrap().clone(),
                not_after: self.now + POLICY.validity,
                names: names.to_owned(),
            });
            let kept = secret.as_ref().and_then(|s| s.certificate.clone());
            let certificate = if step == PartyStep::Issue { new } else { kept };
            *secret = Some(PartyView {
                trusts: authority.trusted(),
                certificate,
                changed_at: self.now,
                ..PartyView::default()
            });
        }
    }

    fn wait(&mut self, minutes: i64, looks: u8) {
        self.now += SignedDuration::from_mins(minutes);
        for (i, pod) in self.pods.iter_mut().enumerate() {
            let Some(secret) = &self.secrets[i] else { continue };
            if looks & (1 << i) != 0 || self.now.duration_since(secret.changed_at) >= SPREAD {
                *pod = secret.clone();
            }
        }
        let trusted = self.authority.as_ref().map(AuthorityView::trusted);
        let all_have = self.secrets.iter().zip(&self.pods).all(|(s, pod)| s.as_ref() == Some(pod));
        if all_have && self.pods.iter().all(|pod| Some(&pod.trusts) == trusted.as_ref()) {
            self.is_strange = false;
        }
    }

    fn hand_over(&mut self) {
        std::mem::swap(&mut self.authority, &mut self.elsewhere.0);
        std::mem::swap(&mut self.secrets[OPERATOR], &mut self.elsewhere.1);
        self.pods[OPERATOR] = self.secrets[OPERATOR].clone().unwrap_or_default();
        self.is_strange = true;
    }

    fn check(&self) -> Result<(), TestCaseError> {
        for (i, user) in self.pods.iter().enumerate() {
            let Some(certificate) = &user.certificate else { continue };
            for (j, judge) in self.pods.iter().enumerate() {
                if self.is_strange && (i == OPERATOR || j == OPERATOR) {
                    continue;
                }
                prop_assert!(
                    judge.trusts.contains(&certificate.signed_by),
                    "{j} trusts {:?} and meets {i} with {}",
                    judge.trusts,
                    certificate.signed_by
                );
            }
        }
        Ok(())
    }

    fn has_time(&self) -> bool {
        let long = |c: &CertificateView| c.not_after.duration_since(self.now) > DAY * 3;
        let valid = |p: &PartyView| p.certificate.as_ref().is_none_or(long);
        let others = self.secrets.iter().enumerate().filter(|(i, _)| *i != OPERATOR || !self.is_strange);
        others.into_iter().all(|(_, s)| s.as_ref().is_some_and(valid))
    }

    fn can_sign(&self) -> bool {
        let signs = |a: &AuthorityView| a.signing.is_some() && !is_estranged(a, &self.secrets[..OPERATOR]);
        self.authority.as_ref().is_some_and(signs)
    }

    fn is_at_rest(&self) -> bool {
        let authority = self.authority.as_ref().unwrap();
        authority.next.is_none() && authority.old.is_empty() && authority.signing.is_some()
    }
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        8 => (0..=PARTIES + 1).prop_map(|writes| Event::Reconcile { writes }),
        6 => (0..50_i64, any::<u8>()).prop_map(|(minutes, looks)| Event::Wait { minutes, looks }),
        2 => (0..5_000_000_i64, any::<u8>()).prop_map(|(minutes, looks)| Event::Wait { minutes, looks }),
        1 => Just(Event::LoseAuthority),
        1 => Just(Event::Handover),
        1 => (0..PARTIES).prop_map(Event::LoseParty),
        1 => any::<u8>().prop_map(Event::Rename),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn at_every_step_every_party_trusts_the_certificate_that_every_other_party_uses(events in prop::collection::vec(event(), 1..60)) {
        let mut world = World::new();
        let mut names = "n0".to_owned();
        for event in events {
            match event {
                Event::Reconcile { writes } => if writes > 0 { world.reconcile(writes, &names) },
                // Nor does it hold for an operator that is away until certificates end while the key is lost.
                Event::Wait { minutes, looks } => world.wait(if world.can_sign() { minutes } else { minutes % 50 }, looks),
                // Both lost at once is what the caveat excludes, and with certificates near their end nothing can wait.
                Event::LoseAuthority => if world.has_time() { world.authority = None },
                Event::Handover => if world.has_time() { world.hand_over() },
                Event::LoseParty(i) => if world.can_sign() { world.secrets[i] = None },
                Event::Rename(n) => names = format!("n{n}"),
            }
            world.check()?;
        }
        // Left alone, it finishes what was begun and, if that took years, one more rotation: three steps each.
        for _ in 0..8 {
            world.reconcile(usize::MAX, &names);
            world.wait(61, 0);
            world.check()?;
        }
        prop_assert!(world.is_at_rest() && !world.is_strange);
        let steps = decide_authority(world.authority.as_ref(), &world.secrets, POLICY, world.now);
        prop_assert!(steps.is_none_or(|s| s == AuthorityStep::Introduce));
    }
}

fn authority() -> AuthorityView {
    AuthorityView::established("ca1".into(), BTreeSet::new(), "2036-01-01T00:00:00Z".parse().unwrap())
}

fn party(not_after: &str) -> PartyView {
    PartyView {
        trusts: ["ca1".to_owned()].into(),
        certificate: Some(CertificateView {
            signed_by: "ca1".into(),
            not_after: not_after.parse().unwrap(),
            names: "n".into(),
        }),
        changed_at: "2026-01-01T00:00:00Z".parse().unwrap(),
        ..PartyView::default()
    }
}

#[test]
fn a_certificate_is_renewed_when_less_than_the_chosen_days_are_left() {
    let party = party("2026-04-01T00:00:00Z");
    let at = |now: &str| {
        let now = now.parse().unwrap();
        decide_party(&authority(), Some(&party), Wants::Certificate("n"), POLICY, now)
    };
    assert_eq!(at("2026-03-02T00:00:00Z"), None);
    assert_eq!(at("2026-03-02T00:00:01Z"), Some(PartyStep::Issue));
}

#[test]
fn other_names_need_another_certificate_and_a_bundle_has_no_names() {
    let now = "2026-01-02T00:00:00Z".parse().unwrap();
    let party = party("2026-04-01T00:00:00Z");
    let decide = |wants| decide_party(&authority(), Some(&party), wants, POLICY, now);
    assert_eq!(decide(Wants::Certificate("other")), Some(PartyStep::Issue));
    assert_eq!(decide(Wants::Bundle), None);
}

#[test]
fn an_authority_is_followed_by_another_before_it_could_sign_past_its_end() {
    let parties = vec![Some(party("2026-04-01T00:00:00Z"))];
    let at = |now: &str| decide_authority(Some(&authority()), &parties, POLICY, now.parse().unwrap());
    assert_eq!(at("2035-10-03T00:00:00Z"), None);
    assert_eq!(at("2035-10-03T00:00:01Z"), Some(AuthorityStep::Introduce));
}

#[test]
fn nothing_is_switched_while_a_bundle_is_missing_or_young() {
    let introduced = authority().introduced("ca2".into());
    let knows = PartyView { trusts: introduced.trusted(), ..party("2026-04-01T00:00:00Z") };
    let at = |parties: &[Option<PartyView>], now: &str| {
        decide_authority(Some(&introduced), parties, POLICY, now.parse().unwrap())
    };
    let late = "2026-01-01T01:00:00Z";
    assert_eq!(at(&[Some(knows.clone())], late), Some(AuthorityStep::Switch));
    assert_eq!(at(&[Some(knows.clone())], "2026-01-01T00:59:59Z"), None);
    assert_eq!(at(&[Some(knows.clone()), None], late), None);
    assert_eq!(at(&[Some(knows), Some(party("2026-04-01T00:00:00Z"))], late), None);
}

#[test]
fn revocation_lists_reach_all_but_clients_and_are_signed_anew_before_they_are_outdated() {
    let lists =
        ListsView { mark: "l".into(), by: "x-1".into(), until: "2035-01-01T00:00:00Z".parse().unwrap() };
    let authority = AuthorityView { lists: Some(lists), ..authority() };
    let (plain, now) = (party("2026-04-01T00:00:00Z"), "2026-01-01T02:00:00Z".parse().unwrap());
    let decide = |party: &PartyView, wants| decide_party(&authority, Some(party), wants, POLICY, now);
    assert_eq!(decide(&plain, Wants::Certificate("n")), Some(PartyStep::Spread));
    assert_eq!(decide(&plain, Wants::Bundle), None);
    let has = PartyView { lists: Some("l".into()), ..plain };
    assert_eq!(decide(&has, Wants::Certificate("n")), None);
    let at =
        |now: &str| decide_authority(Some(&authority), &[Some(has.clone())], POLICY, now.parse().unwrap());
    assert_eq!(at("2034-10-03T00:00:00Z"), None);
    assert_eq!(at("2034-10-03T00:00:01Z"), Some(AuthorityStep::Relist));
}

#[test]
fn annotations_are_read_back_as_they_were() {
    let lists =
        ListsView { mark: "l".into(), by: "x-1".into(), until: "2036-01-01T00:00:00Z".parse().unwrap() };
    let views = [
        AuthorityView { lists: Some(lists), ..authority() },
        authority(),
        authority().introduced("ca2".into()),
        AuthorityView { signing: None, ..authority().introduced("x".into()) },
    ];
    for view in views {
        assert_eq!(AuthorityView::read(&view.annotations()), Some(view));
    }
    let bundle = PartyView { certificate: None, ..party("2026-04-01T00:00:00Z") };
    let replaced =
        Leaf { authority: "ca1".into(), serial: "0a".into(), until: "2026-04-01T00:00:00Z".parse().unwrap() };
    let reissue = Some(Reissue { by: "x-1".into(), what: CertificateKind::Agent, replaced: vec![replaced] });
    let revoked = PartyView { reissue, lists: Some("l".into()), version: 7, ..party("2026-04-01T00:00:00Z") };
    for view in [party("2026-04-01T00:00:00Z"), bundle, revoked] {
        assert_eq!(PartyView::read(&view.annotations()), Some(view));
    }
    assert_eq!(AuthorityView::read(&BTreeMap::new()), None);
    assert_eq!(PartyView::read(&BTreeMap::new()), None);
}

#[test]
fn an_authority_that_signed_no_certificate_of_an_instance_that_is_in_use_counts_as_lost() {
    let now = "2026-01-02T00:00:00Z".parse().unwrap();
    let ours = party("2026-04-01T00:00:00Z");
    let mut theirs = ours.clone();
    theirs.certificate.as_mut().unwrap().signed_by = "theirs".into();
    let next =
        |instances: &[Option<PartyView>]| decide_next(Some(&authority()), instances, instances, POLICY, now);
    assert_eq!(next(&[Some(ours.clone()), Some(ours.clone())]), None);
    assert_eq!(next(&[Some(ours.clone()), None]), None, "one that is missing says nothing");
    assert_eq!(next(&[Some(ours), Some(theirs.clone())]), Some(AuthorityStep::Establish));
    let following = AuthorityView { old: ["theirs".to_owned()].into(), ..authority() };
    assert!(!is_estranged(&following, &[Some(theirs.clone())]));
    theirs.trusts = ["theirs".to_owned()].into();
    assert!(is_estranged(&following, &[Some(theirs.clone())]), "what is signed here would not be trusted");
    theirs.trusts.clear();
    assert!(!is_estranged(&following, &[Some(theirs)]), "an earlier version did not tell");
}
