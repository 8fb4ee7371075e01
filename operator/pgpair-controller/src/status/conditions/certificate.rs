//! Whether postgres shows the certificate that the spec names.

use pgpair_api::names::PairName;
use pgpair_api::status::{ConditionType, Reason};
use pgpair_core::ids::InstanceId;

use super::{Draft, draft};
use crate::certificates::offered::{NotTaken, OfferSummary};
use crate::certificates::server::{Holder, Told};
use crate::observed::{IssuerState, Observed, Offer};

/// `None`: the spec names none.
pub(super) fn server_certificate(name: &PairName, observed: &Observed) -> Option<Draft> {
    let server = observed.server.as_ref()?;
    let secret = server.source.as_ref()?;
    let type_ = ConditionType::ServerCertificate;
    let stays = match server.a.view.shows.is_some() {
        true => "the certificate that was taken last",
        false => "its own certificate",
    };
    if server.issuer == Some(IssuerState::KindMissing) {
        let message = format!(
            "the API server does not know Certificate of cert-manager.io/v1: install cert-manager, or remove spec.tls.issuerRef; until then \
             postgres shows {stays}"
        );
        return Some(draft(type_, false, Reason::IssuerKindMissing, message));
    }
    Some(match &server.offer {
        Offer::Bad(NotTaken::SecretMissing) if server.issuer.is_some() => {
            let asked = name.server_certificate();
            let message = format!(
                "cert-manager has not made Secret {secret} yet: see kubectl describe certificate {asked}; until then postgres shows {stays}"
            );
            draft(type_, None, Reason::CertificatePending, message)
        }
        Offer::Unread => {
            draft(type_, None, Reason::CertificatePending, format!("Secret {secret} was not read yet"))
        }
        Offer::Bad(why) => {
            let reason = match why {
                NotTaken::SecretMissing => Reason::CertificateMissing,
                _ => Reason::CertificateRefused,
            };
            draft(type_, false, reason, format!("Secret {secret} {why}; until then postgres shows {stays}"))
        }
        Offer::Good(offer) => {
            let instances = [(InstanceId::A, &server.a), (InstanceId::B, &server.b)];
            match instances.into_iter().find_map(|(i, holder)| of_instance(name, observed, i, holder, offer))
            {
                Some(message) => draft(type_, None, Reason::CertificatePending, message),
                None => {
                    let message = format!(
                        "postgres shows the certificate of Secret {secret}, valid until {}",
                        offer.not_after
                    );
                    draft(type_, true, Reason::CertificateInEffect, message)
                }
            }
        }
    })
}

/// What is still to come at an instance.
fn of_instance(
    name: &PairName,
    observed: &Observed,
    i: InstanceId,
    holder: &Holder,
    offer: &OfferSummary,
) -> Option<String> {
    let me = name.instance(i);
    if let Some((why, _)) = observed.refused_certificates.get(&i) {
        return Some(format!("the agent of {me} does not take its certificates: {why}"));
    }
    let report = observed.instance(i).report.fresh().and_then(|report| report.certificates.as_ref());
    if let Some(why) = report.and_then(|told| told.trouble.as_ref()) {
        return Some(format!("{me} does not use all of its certificates: {why}"));
    }
    match &holder.told {
        Told::NoPod => None, // it begins with what its Secret has
        Told::Nothing => Some(format!(
            "the agent of {me} does not say which certificates it uses: it does not answer, or is of an earlier version and has to \
             be restarted"
        )),
        Told::Uses(..) if !offer.trusts.is_subset(&holder.view.trusts) => {
            Some(format!("{me} has not got the authority of the certificate yet"))
        }
        Told::Uses(_, shown) if shown.as_ref() != Some(&offer.mark) => {
            Some(format!("the postgres of {me} was not seen to show the certificate yet"))
        }
        Told::Uses(..) => None,
    }
}
