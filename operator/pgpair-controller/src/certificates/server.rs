//! How a person's certificate comes to be what postgres shows, and another one after it, without a moment in which the standby does not trust
//! its primary. Pure.
//!
//! Expected flow: *trust* (both instances and the clients' Secrets get the authority of the new certificate), *show* (both agents have told that
//! they have it: now postgres shows the certificate), *forget* (both agents have seen it in a handshake: the authority of the one before goes). The
//! pair's own authority is always trusted, so the way back has the same steps.
//!
//! Guarantee: an instance shows a certificate only when the other one, if it runs, trusts its authority. A renewed certificate of the same
//! authority is shown at once.

use std::collections::{BTreeMap, BTreeSet};

use pgpair_api::names::{ANNOTATION_SERVER_FROM, ANNOTATION_SERVER_SHOWS, ANNOTATION_SERVER_TRUSTS};
use pgpair_core::ids::InstanceId;

use super::offered::OfferSummary;

/// What a Secret says of the certificate of a person.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServerView {
    /// The certificate that postgres shows; `None`: the pair's own.
    pub shows: Option<String>,
    /// The Secret that it is from.
    pub from: Option<String>,
    /// Authorities of servers, beside the pair's own.
    pub trusts: BTreeSet<String>,
}

impl ServerView {
    /// As annotations; none while a pair uses its own certificate.
    pub fn write(&self, into: &mut BTreeMap<String, String>) {
        let trusts = self.trusts.iter().cloned().collect::<Vec<_>>().join(",");
        let all = [
            (ANNOTATION_SERVER_SHOWS, self.shows.clone()),
            (ANNOTATION_SERVER_FROM, self.from.clone()),
            (ANNOTATION_SERVER_TRUSTS, Some(trusts).filter(|t| !t.is_empty())),
        ];
        into.extend(all.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))));
    }

    /// From annotations.
    #[must_use]
    pub fn read(annotations: &BTreeMap<String, String>) -> ServerView {
        let trusts = annotations.get(ANNOTATION_SERVER_TRUSTS).map(String::as_str).unwrap_or_default();
        ServerView {
            shows: annotations.get(ANNOTATION_SERVER_SHOWS).cloned(),
            from: annotations.get(ANNOTATION_SERVER_FROM).cloned(),
            trusts: trusts.split(',').filter(|t| !t.is_empty()).map(str::to_owned).collect(),
        }
    }
}

/// What the agent of an instance tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// No pod runs: the next one begins with what the Secret has.
    NoPod,
    /// It runs and does not tell, or is of an earlier version.
    Nothing,
    /// The version that it uses, and the certificate that its postgres has shown in a handshake.
    Uses(u64, Option<String>),
}

/// An instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// What its Secret has.
    pub view: ServerView,
    /// Version of that.
    pub version: u64,
    /// What its agent tells.
    pub told: Told,
}

impl Holder {
    fn has_taken(&self) -> bool {
        match self.told {
            Told::NoPod => true,
            Told::Nothing => false,
            Told::Uses(version, _) => version >= self.version,
        }
    }

    /// Its agent trusts these authorities: it says so, or has shown a certificate of just these before.
    fn trusts_surely(&self, trusts: &BTreeSet<String>) -> bool {
        self.has_taken() || (self.view.shows.is_some() && self.view.trusts == *trusts)
    }

    fn has_shown(&self, mark: Option<&String>) -> bool {
        match (&self.told, mark) {
            (Told::Uses(_, Some(shown)), Some(mark)) => shown == mark,
            (Told::Uses(..), Some(_)) => false,
            _ => self.has_taken(),
        }
    }
}

/// What comes next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerStep {
    /// Nothing.
    None,
    /// Until the agent of this instance has taken the last step.
    Wait(InstanceId),
    /// These authorities are trusted too.
    Trust(BTreeSet<String>),
    /// This certificate is shown; `None`: the pair's own.
    Show(Option<String>),
    /// Only these authorities are trusted.
    Forget(BTreeSet<String>),
}

impl ServerStep {
    /// Whether something is to be written.
    #[must_use]
    pub fn acts(&self) -> bool {
        !matches!(self, ServerStep::None | ServerStep::Wait(_))
    }
}

/// The next step towards a certificate; `None`: the pair's own.
#[must_use]
pub fn decide_server(target: Option<&OfferSummary>, holders: [&Holder; 2]) -> ServerStep {
    let trusts = target.map(|target| target.trusts.clone()).unwrap_or_default();
    let mark = target.map(|target| &target.mark);
    let waits = |is_ready: &dyn Fn(&Holder) -> bool| {
        let all = InstanceId::ALL.into_iter().zip(holders);
        all.into_iter().find(|(_, holder)| !is_ready(holder)).map(|(i, _)| ServerStep::Wait(i))
    };
    if holders.iter().any(|holder| !trusts.is_subset(&holder.view.trusts)) {
        return ServerStep::Trust(trusts);
    }
    if holders.iter().any(|holder| holder.view.shows.as_ref() != mark) {
        let wait = waits(&|holder| holder.trusts_surely(&trusts));
        return wait.unwrap_or_else(|| ServerStep::Show(mark.cloned()));
    }
    if holders.iter().any(|holder| holder.view.trusts != trusts) {
        return waits(&|holder| holder.has_shown(mark)).unwrap_or(ServerStep::Forget(trusts));
    }
    ServerStep::None
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    fn offer(mark: &str, authority: &str) -> OfferSummary {
        let not_after = Timestamp::UNIX_EPOCH;
        OfferSummary { mark: mark.into(), trusts: [authority.to_owned()].into(), not_after }
    }

    fn own() -> Holder {
        Holder { view: ServerView::default(), version: 0, told: Told::Uses(0, None) }
    }

    /// The two instances of a pair, of which one takes what it is given late.
    struct Both([Holder; 2]);

    impl Both {
        fn next(&self, target: Option<&OfferSummary>) -> ServerStep {
            decide_server(target, [&self.0[0], &self.0[1]])
        }

        /// Carries a step out, and checks that nobody shows what the other one, which may be behind, does not trust.
        fn carry_out(&mut self, step: &ServerStep, known: &[&OfferSummary]) {
            for holder in &mut self.0 {
                match step {
                    ServerStep::Trust(trusts) => holder.view.trusts.extend(trusts.clone()),
                    ServerStep::Show(mark) => holder.view.shows = mark.clone(),
                    ServerStep::Forget(trusts) => holder.view.trusts = trusts.clone(),
                    ServerStep::None | ServerStep::Wait(_) => return,
                }
                holder.version += 1;
            }
            for offer in known {
                let shown = self.0.iter().any(|holder| holder.view.shows.as_ref() == Some(&offer.mark));
                assert!(!shown || self.0.iter().all(|h| offer.trusts.is_subset(&h.view.trusts)), "{self:?}");
            }
        }

        fn take(&mut self, i: usize) {
            let shown = self.0[i].view.shows.clone().unwrap_or_else(|| "own".into());
            self.0[i].told = Told::Uses(self.0[i].version, Some(shown));
        }
    }

    impl std::fmt::Debug for Both {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.debug_list().entries(&self.0).finish()
        }
    }

    #[test]
    fn an_authority_is_trusted_by_both_before_its_certificate_is_shown_and_forgotten_after_it_was() {
        let (first, second) = (offer("one", "A"), offer("two", "B"));
        let mut both = Both([own(), own()]);
        let trust = |authority: &str| ServerStep::Trust([authority.to_owned()].into());
        for (target, authority, mark) in [
            (Some(&first), Some("A"), Some("one".to_owned())),
            (Some(&second), Some("B"), Some("two".to_owned())),
            (None, None, None),
        ] {
            if let Some(authority) = authority {
                assert_eq!(both.next(target), trust(authority));
                both.carry_out(&trust(authority), &[&first, &second]);
                both.take(0);
                assert_eq!(both.next(target), ServerStep::Wait(InstanceId::B));
                both.take(1);
            }
            assert_eq!(both.next(target), ServerStep::Show(mark.clone()));
            both.carry_out(&ServerStep::Show(mark), &[&first, &second]);
            both.take(1);
            if authority != Some("A") {
                assert_eq!(both.next(target), ServerStep::Wait(InstanceId::A), "not seen in a handshake");
            }
            both.take(0);
            let trusts = authority.map(|a| [a.to_owned()].into()).unwrap_or_default();
            if authority != Some("A") {
                assert_eq!(both.next(target), ServerStep::Forget(trusts));
                both.carry_out(&both.next(target), &[&first, &second]);
                both.take(0);
                both.take(1);
            }
            assert_eq!(both.next(target), ServerStep::None);
        }
        assert_eq!(both.0.each_ref().map(|h| h.view.clone()), [ServerView::default(), ServerView::default()]);
    }

    #[test]
    fn a_renewed_certificate_of_the_same_authority_waits_for_nobody() {
        let mut both = Both([own(), own()]);
        for step in [ServerStep::Trust(["A".to_owned()].into()), ServerStep::Show(Some("one".into()))] {
            both.carry_out(&step, &[]);
        }
        both.take(0);
        both.0[1].told = Told::Nothing;
        assert_eq!(both.next(Some(&offer("new", "A"))), ServerStep::Show(Some("new".into())));
        assert_eq!(both.next(Some(&offer("new", "B"))), ServerStep::Trust(["B".to_owned()].into()));
    }

    #[test]
    fn an_instance_without_a_pod_holds_nothing_up_and_an_agent_that_tells_nothing_does() {
        let mut both = Both([own(), own()]);
        both.carry_out(&ServerStep::Trust(["A".to_owned()].into()), &[]);
        both.take(0);
        for (told, next) in [
            (Told::NoPod, ServerStep::Show(Some("one".into()))),
            (Told::Nothing, ServerStep::Wait(InstanceId::B)),
        ] {
            both.0[1].told = told;
            assert_eq!(both.next(Some(&offer("one", "A"))), next);
        }
    }

    #[test]
    fn what_a_secret_says_is_read_back_and_a_pair_with_its_own_certificate_says_nothing() {
        let view = ServerView {
            shows: Some("m".into()),
            from: Some("shop-cert".into()),
            trusts: ["a".to_owned(), "b".to_owned()].into(),
        };
        for view in [view, ServerView::default()] {
            let mut annotations = BTreeMap::new();
            view.write(&mut annotations);
            assert_eq!(annotations.is_empty(), view == ServerView::default());
            assert_eq!(ServerView::read(&annotations), view);
        }
    }
}
