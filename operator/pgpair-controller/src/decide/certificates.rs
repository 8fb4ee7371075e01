//! Certificates: the next step with one of a person, and which agents are given theirs.

use pgpair_core::ids::InstanceId;

use super::REFUSED_RETRY;
use crate::certificates::server::{ServerStep, decide_server};
use crate::observed::{Observed, Offer};

/// The next step. What cannot be taken leaves everything as it is. A pair that is held takes only renewed certificates of the Secret that it has
/// its certificate from.
pub(super) fn decide_step(observed: &Observed) -> ServerStep {
    let Some(server) = &observed.server else { return ServerStep::None };
    let holders = [&server.a, &server.b];
    let is_born = holders.iter().all(|holder| holder.version > 0 || server.source.is_some());
    let goes_on = holders.iter().all(|holder| holder.view.from == server.source);
    if !is_born || (observed.is_held() && !goes_on) {
        return ServerStep::None;
    }
    match (&server.source, &server.offer) {
        (None, _) => decide_server(None, holders),
        (Some(_), Offer::Good(offer)) => decide_server(Some(offer), holders),
        (Some(_), Offer::Unread | Offer::Bad(_)) => ServerStep::None,
    }
}

/// Agents that use an older version than their Secrets have. One that has taken or refused it is given it again later.
pub(super) fn decide_given(observed: &Observed) -> Vec<InstanceId> {
    let is_due = |i: &InstanceId| {
        let version = observed.certified.get(i).map_or(0, |view| view.version);
        let told = observed.instance(*i).report.fresh().and_then(|report| report.certificates.as_ref());
        let waits = observed.refused_certificates.get(i).is_some_and(|(_, ago)| *ago < REFUSED_RETRY);
        let has = observed.given_certificates.get(i);
        let is_given = has.is_some_and(|(given, ago)| *given >= version && *ago < REFUSED_RETRY);
        told.is_some_and(|told| told.version < version) && !waits && !is_given
    };
    InstanceId::ALL.into_iter().filter(is_due).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use pgpair_core::instance::PostgresState;
    use pgpair_wire::certificates::CertificatesReport;

    use super::*;
    use crate::certificates::offered::{NotTaken, OfferSummary};
    use crate::certificates::rotation::PartyView;
    use crate::certificates::server::{Holder, ServerView, Told};
    use crate::fixtures::{now, report, steady};
    use crate::observed::{ReportView, ServerObserved};

    fn offering(offer: Offer) -> Observed {
        let holder = || Holder { view: ServerView::default(), version: 0, told: Told::Uses(0, None) };
        let (a, b, source) = (holder(), holder(), Some("db-cert".into()));
        let server = ServerObserved { source, offer, issuer: None, has_shown_issued: false, a, b };
        Observed { server: Some(server), ..steady() }
    }

    fn good() -> Offer {
        Offer::Good(OfferSummary { mark: "m".into(), trusts: ["A".to_owned()].into(), not_after: now() })
    }

    #[test]
    fn a_certificate_that_cannot_be_taken_changes_nothing() {
        assert_eq!(decide_step(&steady()), ServerStep::None);
        assert_eq!(decide_step(&offering(Offer::Unread)), ServerStep::None);
        assert_eq!(decide_step(&offering(Offer::Bad(NotTaken::KeyDoesNotFit))), ServerStep::None);
        assert_eq!(decide_step(&offering(good())), ServerStep::Trust(["A".to_owned()].into()));
    }

    #[test]
    fn a_pair_that_is_held_takes_a_renewed_certificate_of_the_same_secret_only() {
        let held = Observed { paused: true, ..offering(good()) };
        assert_eq!(decide_step(&held), ServerStep::None, "it is new in the spec");
        let mut going_on = held;
        let server = going_on.server.as_mut().unwrap();
        for holder in [&mut server.a, &mut server.b] {
            holder.view = ServerView {
                shows: Some("before".into()),
                from: Some("db-cert".into()),
                trusts: ["A".to_owned()].into(),
            };
        }
        assert_eq!(decide_step(&going_on), ServerStep::Show(Some("m".into())));
        going_on.server.as_mut().unwrap().source = Some("another".into());
        assert_eq!(decide_step(&going_on), ServerStep::None);
    }

    #[test]
    fn an_agent_is_given_what_is_newer_than_what_it_uses_and_one_that_refuses_it_later() {
        let mut observed = steady();
        observed.certified.insert(InstanceId::B, PartyView { version: 5, ..PartyView::default() });
        assert_eq!(decide_given(&observed), [], "an agent of an earlier version tells nothing");
        let mut tells = |version| {
            let certificates = Some(CertificatesReport { version, ..CertificatesReport::default() });
            let report = pgpair_wire::report::InstanceReport {
                certificates,
                ..report(InstanceId::B, PostgresState::Standby)
            };
            observed.b.report = ReportView::Fresh(Box::new(report));
            observed.clone()
        };
        assert_eq!(decide_given(&tells(5)), []);
        let mut behind = tells(4);
        assert_eq!(decide_given(&behind), [InstanceId::B]);
        assert!(!crate::decide::decide(&behind).is_idle());
        for (version, ago, due) in
            [(5, Duration::ZERO, false), (4, Duration::ZERO, true), (5, REFUSED_RETRY, true)]
        {
            behind.given_certificates.insert(InstanceId::B, (version, ago));
            assert_eq!(
                decide_given(&behind) == [InstanceId::B],
                due,
                "its postgres has not got version 5 yet"
            );
        }
        behind.refused_certificates.insert(InstanceId::B, ("why".into(), Duration::ZERO));
        assert_eq!(decide_given(&behind), []);
    }
}
