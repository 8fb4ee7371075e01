//! Carries a plan out. No choice is left to make here: everything may run twice, and may stop after any step.

mod adoption;
mod agents;
mod slices;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Secret;
use kube::runtime::reflector::ObjectRef;
use pgpair_api::validate::ValidatedPair;
use pgpair_core::ids::InstanceId;

use crate::api::{Created, Requests};
use crate::apply::apply;
use crate::build::stateful_set::build_stateful_set;
use crate::build::{record, seed_job};
use crate::cache::Caches;
use crate::children::{Children, apply_child, build_children, look_at_children};
use crate::error::{Error, chain};
use crate::memory::Memory;
use crate::observed::Observed;
use crate::outcome::{Child, Fault, Outcome, Step};
use crate::ownership::{Taken, create, is_own, look_at_others};
use crate::plan::{Notice, OrderPlan, Plan, Scope};
use crate::secrets::issued::apply_issued;
use crate::secrets::passwords::{Keeper, Source, apply_passwords, rotate};
use crate::secrets::place::Place;
use crate::secrets::server::apply_server;
use crate::secrets::{self, Extent};

/// Requests without any answer in one reconcile after which the API server counts as away: each takes its full limit.
const UNANSWERED: u32 = 2;

/// How long it is known of a Secret of a person whether it has changed: a pair that is as it should be is looked at once a minute.
const LOOK_AGAIN: Duration = Duration::from_secs(50);

/// What the steps work with.
struct Act<'a> {
    requests: &'a Requests,
    caches: &'a Caches,
    memory: &'a mut Memory,
    pair: &'a ValidatedPair,
    plan: &'a Plan,
    scope: Scope,
    children: Option<Children>,
}

/// Carries out what of `plan` belongs to `scope`. A step that fails holds back only those that need it, and is tried again later,
/// more and more slowly; all others go on. Agents get their proofs of death and their orders first and in every scope, because the
/// agents of a pair that is held still fail over.
pub async fn act(
    requests: &Requests,
    caches: &Caches,
    memory: &mut Memory,
    pair: &ValidatedPair,
    observed: &Observed,
    plan: &Plan,
    scope: Scope,
) -> Outcome {
    let mut outcome = Outcome {
        done: agents::send_evidence(memory, plan).await,
        order: agents::send_order(memory, plan, observed).await,
        failed: Vec::new(),
    };
    let mut act = Act { requests, caches, memory, pair, plan, scope, children: None };
    let generation = pair.config().generation;
    let mut unanswered = 0;
    for step in Step::of(scope).iter().copied().filter(|step| step.is_due(observed)) {
        let held_back = outcome.failed.iter().any(|failed| step.needs(failed.step, observed));
        if held_back || (unanswered >= UNANSWERED && step != Step::Settings) {
            continue;
        }
        if let Some(failed) = act.memory.retries.waits(step, generation, Instant::now()) {
            outcome.failed.push(failed);
            continue;
        }
        match act.carry_out(step).await {
            Ok(notices) => {
                act.memory.retries.forget(step);
                outcome.done.extend(notices);
            }
            Err(error) => {
                tracing::warn!(%step, error = chain(&error), "a step failed; the others go on");
                unanswered += u32::from(matches!(error, Error::Request { .. } | Error::Timeout { .. }));
                let fault = Fault::of(step, pair, &error);
                outcome.failed.push(act.memory.retries.failed(step, generation, fault, Instant::now()));
            }
        }
    }
    outcome
}

impl Act<'_> {
    /// Gives the notices of what was really done.
    async fn carry_out(&mut self, step: Step) -> Result<Vec<Notice>, Error> {
        let Act { requests, plan, pair, .. } = *self;
        let mut done = plan.notices.iter().filter(|notice| step.tells(notice)).cloned().collect();
        match step {
            Step::Names => self.check_names().await?,
            Step::Base(child) => self.apply_base(child).await?,
            Step::Secrets => self.apply_secrets().await?,
            Step::Revocation => self.revoke().await?,
            Step::Issuer => apply_issued(requests, pair, self.memory, plan.has_shown_issued).await?,
            Step::ServerCertificate => apply_server(requests, pair, &plan.server, Timestamp::now()).await?,
            Step::RotatePassword => {
                if let Some(rotation) = plan.rotation() {
                    rotate(requests, pair, rotation).await?;
                }
            }
            Step::Passwords => self.apply_passwords().await?,
            Step::Record => {
                if let Some(record) = &plan.create_lease
                    && create::<Lease>(requests, pair, &record::build_lease(pair, record)).await?
                        == Created::AlreadyExists
                {
                    done = Vec::new();
                }
            }
            Step::Adoption => done = adoption::carry_out(requests, pair, plan, done).await?,
            Step::Slices => slices::apply_slices(requests, self.memory, pair, plan).await?,
            Step::Jobs => {
                for (i, number) in &plan.delete_jobs {
                    requests.delete::<Job>(&pair.name.seed_job(*i, *number)).await?;
                }
            }
            Step::Release => {
                if let Some((_, pod)) = &plan.release {
                    requests.release_pod(&pod.name, &pod.uid).await?;
                }
            }
            Step::Settings => agents::send_settings(self.memory, plan, pair.config()).await,
            Step::GivePasswords => agents::send_passwords(requests, self.memory, plan, pair).await?,
            Step::GiveCertificates => agents::send_certificates(requests, self.memory, plan, pair).await?,
            Step::Set(i) => self.apply_set(i).await?,
            Step::SeedJob => {
                if let Some((i, number)) = plan.create_job
                    && create(requests, pair, &seed_job::build_seed_job(pair, i, number)).await?
                        == Created::AlreadyExists
                {
                    done = Vec::new();
                }
            }
            Step::Roll => {
                if let (Some(step), Some((_, what))) = (&plan.roll.step, plan.roll.pending.first())
                    && agents::apply_roll(requests, self.memory, step).await?
                {
                    done.push(Notice::Rolling(step.clone(), what.clone()));
                }
            }
        }
        Ok(done)
    }

    /// What an order to revoke needs next.
    async fn revoke(&self) -> Result<(), Error> {
        match &self.plan.order {
            OrderPlan::Reissue(order) => {
                secrets::reissue(self.requests, self.pair, order, Timestamp::now()).await
            }
            OrderPlan::Revoke(replaced, by) => {
                secrets::revoke(self.requests, self.pair, replaced, by, Timestamp::now()).await
            }
            OrderPlan::None | OrderPlan::Tell(_) | OrderPlan::Send { .. } | OrderPlan::Rotate(_) => Ok(()),
        }
    }

    async fn apply_base(&mut self, child: Child) -> Result<(), Error> {
        let children = match &self.children {
            Some(children) => children,
            None => self.children.insert(build_children(self.pair)?),
        };
        apply_child(self.requests, self.caches, self.memory, self.pair, children, child).await
    }

    async fn check_names(&self) -> Result<(), Error> {
        let children = build_children(self.pair)?;
        let mut taken = Taken::default();
        look_at_children(self.requests, self.caches, self.pair, &children, &mut taken).await?;
        look_at_others(self.requests, self.pair, &mut taken).await?;
        taken.none()
    }

    async fn apply_secrets(&self) -> Result<(), Error> {
        let extent = if self.scope == Scope::Everything { Extent::Spec } else { Extent::Upkeep };
        let known = |place: &Place| {
            let meta = place.cached(self.caches, self.pair)?;
            Some(meta.annotations.unwrap_or_default())
        };
        secrets::apply_secrets(self.requests, self.pair, extent, known, Timestamp::now()).await
    }

    async fn apply_passwords(&mut self) -> Result<(), Error> {
        let Act { requests, caches, pair, .. } = *self;
        let persons = Source::of(pair).into_iter().filter(|source| source.keeper == Keeper::Person);
        let persons: BTreeSet<String> = persons.map(|source| source.secret).collect();
        let looked = &mut self.memory.persons_secrets;
        looked.retain(|secret, (_, at)| persons.contains(secret) && at.elapsed() < LOOK_AGAIN);
        for secret in &persons {
            if !looked.contains_key(secret) {
                let found = requests.get_metadata::<Secret>(secret).await?;
                looked.insert(secret.clone(), (found, Instant::now()));
            }
        }
        let known = |name: &str| match looked.get(name) {
            Some((found, _)) => found.clone(),
            None => {
                let secret = caches.secrets.get(&ObjectRef::new(name).within(&pair.name.namespace))?;
                Some(secret.metadata.clone()).filter(|meta| is_own(pair, meta))
            }
        };
        apply_passwords(requests, pair, known, Timestamp::now()).await
    }

    async fn apply_set(&mut self, i: InstanceId) -> Result<(), Error> {
        let planned = match i {
            InstanceId::A => &self.plan.a,
            InstanceId::B => &self.plan.b,
        };
        let Some(planned) = planned else { return Ok(()) };
        let set = build_stateful_set(self.pair, i, planned);
        apply(self.requests, self.memory, self.pair, &self.caches.stateful_sets, &set).await
    }
}

#[cfg(test)]
mod tests;
