//! What agents are told: proofs of death, settings, orders; and the steps of rolling changes.

use std::time::Instant;

use http::{Method, StatusCode};
use pgpair_api::validate::ValidatedPair;
use pgpair_core::ids::InstanceId;
use pgpair_core::order::OrderReply;
use pgpair_wire::client::RequestError;
use pgpair_wire::config::PairConfig;
use pgpair_wire::order::Order;
use pgpair_wire::paths;

use crate::api::Requests;
use crate::decide::replied;
use crate::error::Error;
use crate::memory::Memory;
use crate::observed::{Observed, SettingsRefusal, Taken};
use crate::plan::{Notice, OrderPlan, OrderProgress, Plan, RollStep};
use crate::secrets::passwords::fetch_passwords;
use crate::secrets::server::fetch_certificates;

/// Characters of a refusal of settings that are kept for the status.
const REFUSAL: usize = 256;

/// Sends proofs of death; gives those that were taken. One that is not taken is sent again by the next reconcile.
pub async fn send_evidence(memory: &mut Memory, plan: &Plan) -> Vec<Notice> {
    let mut done = Vec::new();
    for (to, by, evidence) in &plan.evidence {
        let Some((line, target)) = memory.lines.to(*to) else { continue };
        match line.send(target, Method::POST, paths::EVIDENCE, evidence).await {
            Ok(()) => {
                memory.evidence.retain(|t| t.by == *by || t.dead == evidence.incarnation);
                memory.evidence.insert(Taken::new(*by, evidence.incarnation, evidence.kind));
                done.push(Notice::EvidenceSent(*to, *evidence));
            }
            Err(error) => {
                let kind: &str = evidence.kind.into();
                tracing::warn!(%to, dead = %evidence.incarnation, kind, error = &error as &dyn std::error::Error, "a proof of death was not taken");
            }
        }
    }
    done
}

/// Gives newer settings to the agents that lack them. The ConfigMap brings them too, some time later.
pub async fn send_settings(memory: &mut Memory, plan: &Plan, config: &PairConfig) {
    for to in &plan.configure {
        let Some((line, target)) = memory.lines.to(*to) else { continue };
        match line.send(target, Method::PUT, paths::CONFIG, config).await {
            Ok(()) => {
                memory.refused_settings.remove(to);
                tracing::info!(instance = %to, generation = config.generation, "settings given");
            }
            // Older than what it follows: the next report shows that.
            Err(RequestError::Refused { status, message })
                if status.is_client_error() && status != StatusCode::CONFLICT =>
            {
                let message: String = message.chars().take(REFUSAL).collect();
                tracing::warn!(instance = %to, generation = config.generation, message, "settings were refused");
                let refusal = SettingsRefusal { generation: config.generation, message };
                memory.refused_settings.insert(*to, (refusal, Instant::now()));
            }
            Err(error) => {
                tracing::warn!(instance = %to, generation = config.generation, error = &error as &dyn std::error::Error, "settings were not taken");
            }
        }
    }
}

/// Gives the passwords of roles to the agents that have not got them. What becomes of them is in their reports.
///
/// # Errors
/// The Secrets could not be read.
pub async fn send_passwords(
    requests: &Requests,
    memory: &mut Memory,
    plan: &Plan,
    pair: &ValidatedPair,
) -> Result<(), Error> {
    if plan.passwords.is_empty() {
        return Ok(());
    }
    let given = fetch_passwords(requests, pair).await?;
    for to in &plan.passwords {
        let Some((line, target)) = memory.lines.to(*to) else { continue };
        match line.send(target, Method::PUT, paths::PASSWORDS, &given).await {
            Ok(()) => {
                memory.refused_passwords.remove(to);
                tracing::info!(instance = %to, roles = given.len(), "passwords given");
            }
            Err(error) => {
                // An agent of an earlier version knows no passwords: it is rolled soon.
                if matches!(&error, RequestError::Refused { status, .. } if status.is_client_error()) {
                    memory.refused_passwords.insert(*to, Instant::now());
                }
                tracing::warn!(instance = %to, error = &error as &dyn std::error::Error, "passwords were not taken");
            }
        }
    }
    Ok(())
}

/// Gives the certificates of their Secrets to the agents that use older ones. The mounted Secret brings them too, up to minutes later.
///
/// # Errors
/// A Secret could not be read.
pub async fn send_certificates(
    requests: &Requests,
    memory: &mut Memory,
    plan: &Plan,
    pair: &ValidatedPair,
) -> Result<(), Error> {
    for to in &plan.certificates {
        let Some(given) = fetch_certificates(requests, pair, *to).await? else { continue };
        let Some((line, target)) = memory.lines.to(*to) else { continue };
        match line.send(target, Method::PUT, paths::CERTIFICATES, &given).await {
            // Refused so, it has them by now. Its report says so as soon as its postgres has them, too.
            Ok(()) | Err(RequestError::Refused { status: StatusCode::CONFLICT, .. }) => {
                memory.refused_certificates.remove(to);
                memory.given_certificates.insert(*to, (given.version(), Instant::now()));
                tracing::info!(instance = %to, version = given.version(), "certificates given");
            }
            Err(error) => {
                if let RequestError::Refused { status, message } = &error
                    && status.is_client_error()
                {
                    let message = message.chars().take(REFUSAL).collect();
                    memory.refused_certificates.insert(*to, (message, Instant::now()));
                }
                tracing::warn!(instance = %to, error = &error as &dyn std::error::Error, "certificates were not taken");
            }
        }
    }
    Ok(())
}

/// Sends the order of a person, if that is its turn; gives what is to be told of it.
pub async fn send_order(memory: &mut Memory, plan: &Plan, observed: &Observed) -> Option<OrderProgress> {
    match &plan.order {
        OrderPlan::None | OrderPlan::Rotate(_) | OrderPlan::Reissue(_) | OrderPlan::Revoke(..) => None,
        OrderPlan::Tell(told) => Some(told.clone()),
        OrderPlan::Send { to, order } => {
            let reply = send(memory, *to, order).await?;
            Some(replied(order, *to, observed.last_order.as_ref(), reply))
        }
    }
}

/// `None`: it is not known whether it was taken; the same order is sent again.
async fn send(memory: &mut Memory, to: InstanceId, order: &Order) -> Option<OrderReply> {
    let (line, target) = memory.lines.to(to)?;
    let reply: Result<OrderReply, RequestError> = line.post(target, paths::ORDER, order).await;
    let (id, kind) = (&order.id, order.kind.as_str());
    match &reply {
        Ok(reply) => tracing::info!(instance = %to, id, kind, ?reply, "order sent"),
        Err(error) => {
            tracing::warn!(instance = %to, id, kind, error = error as &dyn std::error::Error, "an order was not taken");
        }
    }
    reply.ok()
}

/// Takes a step of a rolling change; gives whether it was taken.
///
/// # Errors
/// The pod could not be deleted.
pub async fn apply_roll(requests: &Requests, memory: &mut Memory, step: &RollStep) -> Result<bool, Error> {
    // Counted also if its outcome is not known: the next one waits in any case.
    memory.rolled = Some(Instant::now());
    match step {
        RollStep::Recreate { pod, uid, .. } => {
            requests.delete_pod(pod, uid).await?;
            Ok(true)
        }
        RollStep::Send { to, order } => {
            let reply = send(memory, *to, order).await;
            Ok(matches!(reply, Some(OrderReply::Accepted | OrderReply::Done)))
        }
    }
}

#[cfg(test)]
mod tests;
