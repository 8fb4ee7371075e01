use pgpair_wire::certificates::CertificatesReport;

use super::*;
use crate::certificates::offered::{NotTaken, OfferSummary};
use crate::certificates::server::{Holder, ServerView, Told};
use crate::observed::{IssuerState, Offer, ReportView, ServerObserved};

/// A pair whose spec names Secret `db-cert`, and whose instances have shown this certificate.
fn offering(offer: Offer, shown: [Told; 2]) -> Observed {
    let holder = |told| {
        let trusts = ["A".to_owned()].into();
        Holder {
            view: ServerView { shows: Some("m".into()), from: Some("db-cert".into()), trusts },
            version: 1,
            told,
        }
    };
    let [a, b] = shown.map(holder);
    let source = Some("db-cert".into());
    let server = ServerObserved { source, offer, issuer: None, has_shown_issued: false, a, b };
    Observed { server: Some(server), ..steady() }
}

/// One whose spec names an issuer of cert-manager's, which has made nothing yet.
fn issued(state: IssuerState) -> Observed {
    let mut observed = offering(Offer::Bad(NotTaken::SecretMissing), [shows("m"), shows("m")]);
    observed.server.as_mut().unwrap().issuer = Some(state);
    observed
}

fn good() -> Offer {
    Offer::Good(OfferSummary { mark: "m".into(), trusts: ["A".to_owned()].into(), not_after: now() })
}

fn shows(mark: &str) -> Told {
    Told::Uses(1, Some(mark.into()))
}

#[test]
fn what_postgres_shows_is_told_and_why_it_does_not_show_the_certificate_of_the_spec() {
    let mut refusing = offering(good(), [shows("m"), shows("m")]);
    refusing.refused_certificates.insert(B, ("they do not fit together".into(), Duration::ZERO));
    let mut troubled = offering(good(), [shows("m"), shows("m")]);
    let ReportView::Fresh(report) = &mut troubled.b.report else { panic!() };
    let trouble = Some("a revocation list cannot be read".to_owned());
    report.certificates = Some(CertificatesReport { trouble, ..CertificatesReport::default() });
    for (observed, status, reason, words) in [
        (troubled, "Unknown", "CertificatePending", "orders-b does not use all of its certificates: a revo"),
        (offering(good(), [shows("m"), shows("m")]), "True", "CertificateInEffect", "valid until"),
        (offering(good(), [shows("m"), Told::NoPod]), "True", "CertificateInEffect", "of Secret db-cert"),
        (
            offering(good(), [shows("m"), shows("old")]),
            "Unknown",
            "CertificatePending",
            "orders-b was not seen",
        ),
        (offering(good(), [Told::Nothing, shows("m")]), "Unknown", "CertificatePending", "agent of orders-a"),
        (refusing, "Unknown", "CertificatePending", "they do not fit together"),
        (
            issued(IssuerState::KindMissing),
            "False",
            "IssuerKindMissing",
            "install cert-manager, or remove spec.tls.issuerRef",
        ),
        (
            issued(IssuerState::Asked),
            "Unknown",
            "CertificatePending",
            "kubectl describe certificate orders-server",
        ),
        (offering(Offer::Unread, [shows("m"), shows("m")]), "Unknown", "CertificatePending", "not read yet"),
        (
            offering(Offer::Bad(NotTaken::SecretMissing), [shows("m"), shows("m")]),
            "False",
            "CertificateMissing",
            "does not exist",
        ),
        (
            offering(
                Offer::Bad(NotTaken::NamesMissing(vec!["db.example.com".into()])),
                [shows("m"), shows("m")],
            ),
            "False",
            "CertificateRefused",
            "without the names db.example.com",
        ),
    ] {
        let told = status_of(&observed);
        let condition = condition(&told, ConditionType::ServerCertificate).unwrap();
        assert_eq!((condition.status.as_str(), condition.reason.as_str()), (status, reason));
        assert!(condition.message.contains(words), "{}", condition.message);
    }
}

#[test]
fn only_a_pair_that_names_a_certificate_has_the_condition_and_a_refusal_is_an_event_once() {
    assert!(condition(&status_of(&steady()), ConditionType::ServerCertificate).is_none());
    let refused = offering(Offer::Bad(NotTaken::KeyDoesNotFit), [shows("m"), shows("m")]);
    let before = status_of(&offering(good(), [shows("m"), shows("m")]));
    let after = over(&before, &refused);
    let shown: Vec<String> = of_change(&before, &after).into_iter().map(|told| told.shown).collect();
    assert_eq!(shown, ["CertificateRefused"]);
    assert!(of_change(&after, &over(&after, &refused)).is_empty());
    let dropped = over(&after, &steady());
    assert!(condition(&dropped, ConditionType::ServerCertificate).is_none());
}
