//! Carries a plan out. No choice is left to make here: everything may run twice, and may stop after any step.

mod agents;
mod slices;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::coordination::v1::Lease;
use kube::ResourceExt;
use kube::runtime::reflector::ObjectRef;
use pgpair_api::validate::ValidatedPair;
use pgpair_core::ids::InstanceId;

use crate::api::{Created, Requests};
use crate::apply::apply;
use crate::build::stateful_set::build_stateful_set;
use crate::build::{record, seed_job};
use crate::cache::Caches;
use crate::children::{Children, apply_child, build_children};
use crate::error::Error;
use crate::memory::Memory;
use crate::observed::Observed;
use crate::outcome::{Child, Outcome, Step, StepError};
use crate::plan::{Notice, Plan, Scope};
use crate::secrets::{self, Extent};

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

/// Carries out what of `plan` belongs to `scope`; the first step that fails is the last one. Agents get their proofs of death and
/// their orders in every scope, because the agents of a pair that is held still fail over.
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
    for step in Step::of(scope) {
        match act.carry_out(*step).await {
            Ok(notices) => outcome.done.extend(notices),
            Err(error) => {
                outcome.failed.push(StepError { step: *step, error });
                break;
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
            Step::Base(child) => self.apply_base(child).await?,
            Step::Secrets => self.apply_secrets().await?,
            Step::Record => {
                if plan.create_lease
                    && requests.create::<Lease>(&record::build_lease(pair)).await? == Created::AlreadyExists
                {
                    done = Vec::new();
                }
            }
            Step::Slices => slices::apply_slices(requests, self.memory, pair, plan).await?,
            Step::Jobs => {
                for (i, number) in &plan.delete_jobs {
                    requests.delete::<Job>(&pair.name.seed_job(*i, *number)).await?;
                }
            }
            Step::Settings => agents::send_settings(self.memory, plan, pair.config()).await,
            Step::Set(i) => self.apply_set(i).await?,
            Step::SeedJob => {
                if let Some((i, number)) = plan.create_job
                    && requests.create(&seed_job::build_seed_job(pair, i, number)).await?
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

    async fn apply_base(&mut self, child: Child) -> Result<(), Error> {
        let children = match &self.children {
            Some(children) => children,
            None => self.children.insert(build_children(self.pair)?),
        };
        apply_child(self.requests, self.caches, self.memory, children, child).await
    }

    async fn apply_secrets(&self) -> Result<(), Error> {
        let extent = if self.scope == Scope::Everything { Extent::Spec } else { Extent::Upkeep };
        let known = |name: &str| {
            let secret = self.caches.secrets.get(&ObjectRef::new(name).within(&self.pair.name.namespace))?;
            Some(secret.annotations().clone())
        };
        secrets::apply_secrets(self.requests, self.pair, extent, known, jiff::Timestamp::now()).await
    }

    async fn apply_set(&mut self, i: InstanceId) -> Result<(), Error> {
        let planned = match i {
            InstanceId::A => &self.plan.a,
            InstanceId::B => &self.plan.b,
        };
        let Some(planned) = planned else { return Ok(()) };
        let set = build_stateful_set(self.pair, i, planned);
        apply(self.requests, self.memory, &self.caches.stateful_sets, &set).await
    }
}

#[cfg(test)]
mod tests;
