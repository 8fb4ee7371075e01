//! A certificate that a person has revoked.
//!
//! Flow: the order is announced; the certificate is made anew, and the one before noted; when the new one is in use, the one before is listed as
//! revoked; the lists are given to the agents, and when both have them, the order is done. Guarantee: nothing is revoked that is still in use.

use std::time::Duration;

use pgpair_api::order::{CertificateKind, OrderReason, OrderStage, Task};
use pgpair_api::status::{OrderState, OrderStatus};
use pgpair_core::ids::InstanceId;

use super::orders::{end, find_announced};
use crate::certificates::revocation::{Leaf, ListsView, Reissue};
use crate::certificates::rotation::AuthorityView;
use crate::observed::Observed;
use crate::plan::{OrderPlan, Reissuing};

/// What was not reached by then is told; a running pair needs seconds.
const FOLLOW_FOR: Duration = Duration::from_secs(300);

/// Why nothing can be revoked now.
pub(super) fn refusal(
    observed: &Observed,
    what: CertificateKind,
    i: InstanceId,
    role: Option<&str>,
) -> Option<(OrderReason, &'static str)> {
    if role.is_some_and(|role| !observed.roles_certified.contains_key(role)) {
        return Some((
            OrderStage::NoSuchCertificate.into(),
            "the operator has made no certificate for that role: see spec.roles[].certificate and kubectl pgpair certs",
        ));
    }
    let is_settled = observed.authority.as_ref().is_some_and(|authority| {
        authority.signing.is_some() && authority.next.is_none() && authority.old.is_empty()
    });
    if !is_settled {
        return Some((
            OrderStage::AuthorityChanging.into(),
            "the authority is being replaced, and with it every certificate: order again when kubectl pgpair certs shows one authority",
        ));
    }
    let shows = observed.certified.get(&i).is_some_and(|view| view.server.shows.is_some());
    (what == CertificateKind::Server && shows).then_some((
        OrderStage::NotOurCertificate.into(),
        "postgres shows the certificate of spec.tls, which its own authority revokes: renew it in its Secret",
    ))
}

/// An order that was announced, to its end.
pub(super) fn decide_running(
    observed: &Observed,
    last: &OrderStatus,
    i: InstanceId,
    since: Duration,
) -> OrderPlan {
    let running = Running { observed, last, i, is_late: since > FOLLOW_FOR };
    let Some(reissue) = find(observed, last, i) else { return running.reissue() };
    if running.is(OrderStage::Announced) {
        return running.tell(OrderStage::Reissued, "there is another certificate, which comes into use next");
    }
    let lists = observed.authority.as_ref().and_then(|authority| authority.lists.as_ref());
    match lists.filter(|lists| lists.by == last.id) {
        None => running.revoke(reissue),
        Some(lists) => running.spread(lists),
    }
}

/// An order that was announced.
struct Running<'a> {
    observed: &'a Observed,
    last: &'a OrderStatus,
    i: InstanceId,
    is_late: bool,
}

impl Running<'_> {
    fn is(&self, stage: OrderStage) -> bool {
        self.last.reason.as_ref().is_some_and(|reason| reason.is(stage.into()))
    }

    fn tell(&self, stage: OrderStage, message: &str) -> OrderPlan {
        end(self.last, Some(self.i), OrderState::Running, stage.into(), message)
    }

    fn fail(&self, stage: OrderStage, message: &str) -> OrderPlan {
        end(self.last, Some(self.i), OrderState::Failed, stage.into(), message)
    }

    /// The Secret has no certificate that was made for this order.
    fn reissue(&self) -> OrderPlan {
        if !self.is(OrderStage::Announced) {
            let message = "the Secret was replaced meanwhile: look at kubectl pgpair certs, and order again";
            return if self.is_late { self.fail(OrderStage::Forgotten, message) } else { OrderPlan::None };
        }
        match find_announced(self.observed, self.last, self.i) {
            Err(withdrawn) => withdrawn,
            Ok(_) if self.is_late => {
                self.fail(OrderStage::TimedOut, "the Secret could not be changed: see condition Degraded")
            }
            Ok(order) => match order.task {
                Task::RevokeCertificate(what, role) => {
                    OrderPlan::Reissue(Reissuing { instance: self.i, what, role, word: self.last.id.clone() })
                }
                Task::Agent(_) | Task::RotatePassword(_) => OrderPlan::None,
            },
        }
    }

    /// Another certificate was made, and the one before is not revoked.
    fn revoke(&self, reissue: &Reissue) -> OrderPlan {
        let is_of =
            |authority: &AuthorityView, leaf: &Leaf| authority.signing.as_ref() == Some(&leaf.authority);
        let authority = self.observed.authority.as_ref();
        if authority.is_some_and(|authority| !reissue.replaced.iter().any(|leaf| is_of(authority, leaf))) {
            return self.fail(
                OrderStage::AuthorityChanging,
                "the authority is replaced meanwhile, which ends the use of every certificate that it has signed: see kubectl pgpair certs",
            );
        }
        match (is_in_use(self.observed, reissue, self.i), self.is_late) {
            (true, false) => OrderPlan::Revoke(reissue.replaced.clone(), self.last.id.clone()),
            (true, true) => self.fail(
                OrderStage::TimedOut,
                "the certificate could not be revoked within 5 min: see condition Degraded; order again, which revokes this one too",
            ),
            (false, true) => self.fail(
                OrderStage::TimedOut,
                "the new certificate did not come into use within 5 min, so nothing was revoked: order again when the agent answers, \
                 which revokes this one too",
            ),
            (false, false) => OrderPlan::None,
        }
    }

    /// It is revoked.
    fn spread(&self, lists: &ListsView) -> OrderPlan {
        if self.is(OrderStage::Reissued) {
            let message = "the certificate is revoked, which the agents are told next";
            return self.tell(OrderStage::Revoked, message);
        }
        match InstanceId::ALL.into_iter().find(|i| !refuses(self.observed, *i, &lists.mark)) {
            None => {
                let message =
                    "the certificate is revoked: both agents refuse it, and have closed its connections";
                end(self.last, Some(self.i), OrderState::Done, OrderStage::CarriedOut.into(), message)
            }
            Some(behind) if self.is_late => {
                let why = trouble(self.observed, behind).map(|why| format!(": {why}")).unwrap_or_default();
                let said = "the certificate is revoked, but the agent of";
                self.fail(
                    OrderStage::TimedOut,
                    &format!("{said} {behind} has not said that it refuses it{why}"),
                )
            }
            Some(_) => OrderPlan::None,
        }
    }
}

/// The certificate that was made for this order.
fn find<'a>(observed: &'a Observed, last: &OrderStatus, i: InstanceId) -> Option<&'a Reissue> {
    let of_instance = observed.certified.get(&i).and_then(|view| view.reissue.as_ref());
    let of_operator = observed.operator_certified.as_ref().and_then(|view| view.reissue.as_ref());
    let of_roles = observed.roles_certified.values().filter_map(|view| view.reissue.as_ref());
    [of_instance, of_operator].into_iter().flatten().chain(of_roles).find(|reissue| reissue.by == last.id)
}

/// The operator's is used from the moment on in which its Secret is seen. What clients use nobody knows, and who has their key is not to use it
/// for any longer.
fn is_in_use(observed: &Observed, reissue: &Reissue, i: InstanceId) -> bool {
    matches!(reissue.what, CertificateKind::Operator | CertificateKind::Role) || has_taken(observed, i)
}

fn refuses(observed: &Observed, i: InstanceId, lists: &str) -> bool {
    let has_lists = observed.certified.get(&i).is_some_and(|view| view.lists.as_deref() == Some(lists));
    has_lists && has_taken(observed, i) && trouble(observed, i).is_none()
}

/// Why the agent does not use all that it has: lists that it cannot read, say.
fn trouble(observed: &Observed, i: InstanceId) -> Option<&str> {
    observed.instance(i).report.fresh()?.certificates.as_ref()?.trouble.as_deref()
}

/// The agent uses what its Secret has; one without a pod begins with it.
fn has_taken(observed: &Observed, i: InstanceId) -> bool {
    let Some(view) = observed.certified.get(&i) else { return false };
    let instance = observed.instance(i);
    if instance.pod.as_ref().is_none_or(|pod| !pod.running) {
        return true;
    }
    let told = instance.report.fresh().and_then(|report| report.certificates.as_ref());
    told.is_some_and(|told| told.version >= view.version)
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use pgpair_wire::certificates::CertificatesReport;
    use serde_json::json;

    use super::*;
    use crate::certificates::rotation::PartyView;
    use crate::decide::decide;
    use crate::decide::tests::told_of;
    use crate::fixtures::{now, report, steady};
    use crate::observed::ReportView;
    use pgpair_core::instance::PostgresState;

    const ID: &str = "x-1777636795";
    const LATE: i64 = 301;

    fn leaf() -> Leaf {
        Leaf { authority: "ca1".into(), serial: "0a".into(), until: now() }
    }

    /// A pair with this order, as it was told so many seconds ago.
    fn ordered(what: &str, reason: &str, seconds_ago: i64) -> Observed {
        let at = Timestamp::from_second(now().as_second() - seconds_ago).unwrap();
        let told = json!({"id": ID, "kind": "RevokeCertificate", "instance": "orders-b", "state": "Running", "reason": reason, "time": at});
        let instance = (!["Operator", "Role"].contains(&what)).then_some("b");
        let role = (what == "Role").then_some("report");
        let order = json!({"id": ID, "kind": "RevokeCertificate", "certificate": what, "instance": instance, "role": role, "term": 3});
        let authority = AuthorityView::established("ca1".into(), [].into(), now());
        let certified = InstanceId::ALL.map(|i| (i, PartyView { version: 4, ..PartyView::default() }));
        let mut observed = Observed {
            order: Some(order.to_string()),
            last_order: serde_json::from_value(told).unwrap(),
            authority: Some(authority),
            certified: certified.into(),
            operator_certified: Some(PartyView::default()),
            roles_certified: [("report".to_owned(), PartyView::default())].into(),
            ..steady()
        };
        for i in InstanceId::ALL {
            tells(&mut observed, i, 4);
        }
        observed
    }

    fn tells(observed: &mut Observed, i: InstanceId, version: u64) {
        let state = if i == InstanceId::A { PostgresState::Primary } else { PostgresState::Standby };
        let certificates = Some(CertificatesReport { version, ..CertificatesReport::default() });
        let report = pgpair_wire::report::InstanceReport { certificates, ..report(i, state) };
        let instance = if i == InstanceId::A { &mut observed.a } else { &mut observed.b };
        instance.report = ReportView::Fresh(Box::new(report));
    }

    fn view(observed: &mut Observed, i: InstanceId) -> &mut PartyView {
        observed.certified.get_mut(&i).unwrap()
    }

    /// The certificate of b was made anew; its agent has version 4, the Secret this one.
    fn reissued(reason: &str, seconds_ago: i64, version: u64) -> Observed {
        let mut observed = ordered("Agent", reason, seconds_ago);
        let b = view(&mut observed, InstanceId::B);
        b.reissue = Some(Reissue { by: ID.into(), what: CertificateKind::Agent, replaced: vec![leaf()] });
        b.version = version;
        observed
    }

    fn listed(mut observed: Observed, mark: &str) -> Observed {
        let lists = ListsView { mark: "l1".into(), by: ID.into(), until: now() };
        observed.authority.as_mut().unwrap().lists = Some(lists);
        for i in InstanceId::ALL {
            view(&mut observed, i).lists = Some(mark.into());
        }
        observed
    }

    #[test]
    fn nothing_is_revoked_before_its_successor_is_in_use_and_the_order_is_done_when_both_agents_refuse_it() {
        let new = Observed { last_order: None, ..ordered("Agent", "", 0) };
        assert_eq!(told_of(&new), (OrderState::Running, "Announced"));
        let reissuing =
            Reissuing { instance: InstanceId::B, what: CertificateKind::Agent, role: None, word: ID.into() };
        assert_eq!(decide(&ordered("Agent", "Announced", 1)).order, OrderPlan::Reissue(reissuing));
        assert_eq!(told_of(&reissued("Announced", 1, 5)), (OrderState::Running, "Reissued"));
        assert_eq!(decide(&reissued("Reissued", 1, 5)).order, OrderPlan::None, "b uses version 4 still");
        let in_use = reissued("Reissued", 1, 4);
        assert_eq!(decide(&in_use).order, OrderPlan::Revoke(vec![leaf()], ID.into()));
        assert_eq!(told_of(&listed(in_use, "l0")), (OrderState::Running, "Revoked"));
        let spreading = listed(reissued("Revoked", 1, 4), "l0");
        assert_eq!(decide(&spreading).order, OrderPlan::None, "the Secrets have older lists");
        let mut spreading = listed(reissued("Revoked", 1, 4), "l1");
        view(&mut spreading, InstanceId::A).version = 5;
        assert_eq!(decide(&spreading).order, OrderPlan::None, "a has not taken them");
        tells(&mut spreading, InstanceId::A, 5);
        assert_eq!(told_of(&spreading), (OrderState::Done, "CarriedOut"));
        let ReportView::Fresh(report) = &mut spreading.a.report else { panic!() };
        report.certificates.as_mut().unwrap().trouble = Some("a list cannot be read".into());
        assert_eq!(decide(&spreading).order, OrderPlan::None, "a has taken them, and does not use them");
    }

    #[test]
    fn an_agent_that_does_not_answer_keeps_its_certificate_and_one_without_a_pod_does_not() {
        let mut silent = reissued("Reissued", LATE, 4);
        silent.b.report = ReportView::Unreachable;
        assert_eq!(told_of(&silent), (OrderState::Failed, "TimedOut"));
        let mut gone = reissued("Reissued", 1, 5);
        gone.b.report = ReportView::Unreachable;
        gone.b.pod = None;
        assert_eq!(decide(&gone).order, OrderPlan::Revoke(vec![leaf()], ID.into()));
        let mut behind = listed(reissued("Revoked", LATE, 4), "l1");
        behind.a.report = ReportView::Unreachable;
        assert_eq!(told_of(&behind), (OrderState::Failed, "TimedOut"));
    }

    #[test]
    fn an_order_ends_also_when_nothing_can_be_revoked_any_more() {
        let mut refused = reissued("Reissued", LATE, 4);
        assert_eq!(told_of(&refused), (OrderState::Failed, "TimedOut"), "the API server refuses the list");
        refused.authority.as_mut().unwrap().signing = Some("ca2".into());
        assert_eq!(told_of(&refused), (OrderState::Failed, "AuthorityChanging"));
        let mut replaced = reissued("Reissued", 1, 4);
        replaced.authority.as_mut().unwrap().signing = Some("ca2".into());
        assert_eq!(told_of(&replaced), (OrderState::Failed, "AuthorityChanging"));
        let mut lost = reissued("Reissued", 1, 4);
        lost.authority = None;
        assert_eq!(decide(&lost).order, OrderPlan::Revoke(vec![leaf()], ID.into()), "a cache that is behind");
    }

    #[test]
    fn the_operators_certificate_is_in_use_as_soon_as_it_is_there() {
        let mut observed = ordered("Operator", "Reissued", 1);
        let reissue = Reissue { by: ID.into(), what: CertificateKind::Operator, replaced: vec![leaf()] };
        observed.operator_certified = Some(PartyView { reissue: Some(reissue), ..PartyView::default() });
        assert_eq!(decide(&observed).order, OrderPlan::Revoke(vec![leaf()], ID.into()));
    }

    /// Nobody knows what clients use, and no agent has to answer first.
    #[test]
    fn the_certificate_of_a_role_is_revoked_as_soon_as_there_is_another() {
        let announced = ordered("Role", "Announced", 1);
        let OrderPlan::Reissue(reissuing) = decide(&announced).order else { panic!("{announced:?}") };
        assert_eq!(reissuing.party(), crate::secrets::Party::Role("report"));
        let mut observed = ordered("Role", "Reissued", 1);
        (observed.a.report, observed.b.report) = (ReportView::Unreachable, ReportView::Unreachable);
        let reissue = Reissue { by: ID.into(), what: CertificateKind::Role, replaced: vec![leaf()] };
        let view = PartyView { reissue: Some(reissue), ..PartyView::default() };
        observed.roles_certified.insert("report".into(), view);
        assert_eq!(decide(&observed).order, OrderPlan::Revoke(vec![leaf()], ID.into()));
    }

    #[test]
    fn what_cannot_be_revoked_is_refused_with_a_word() {
        let new = |what| Observed { last_order: None, ..ordered(what, "", 0) };
        let mut changing = new("Agent");
        changing.authority.as_mut().unwrap().next = Some("ca2".into());
        assert_eq!(told_of(&changing), (OrderState::Refused, "AuthorityChanging"));
        let mut theirs = new("Server");
        view(&mut theirs, InstanceId::B).server.shows = Some("m".into());
        assert_eq!(told_of(&theirs), (OrderState::Refused, "NotOurCertificate"));
        assert_eq!(told_of(&Observed { paused: true, ..new("Agent") }), (OrderState::Refused, "Paused"));
        let mut nobodys = new("Role");
        nobodys.roles_certified.clear();
        assert_eq!(told_of(&nobodys), (OrderState::Refused, "NoSuchCertificate"));
        let withdrawn = Observed { order: None, ..ordered("Agent", "Announced", 1) };
        assert_eq!(told_of(&withdrawn), (OrderState::Refused, "Withdrawn"));
        assert_eq!(told_of(&ordered("Agent", "Announced", LATE)), (OrderState::Failed, "TimedOut"));
        assert_eq!(told_of(&ordered("Agent", "Reissued", LATE)), (OrderState::Failed, "Forgotten"));
    }
}
