//! What is known of an adoption.

use jiff::Timestamp;
use pgpair_api::names::AdoptStep;
use pgpair_api::spec::AdoptChoice;
use pgpair_core::ids::InstanceId;
use pgpair_wire::adopt::Look;

/// What is known of an adoption: only of pairs whose spec asks for one.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct AdoptionObserved {
    /// What a person has chosen.
    pub choice: Option<AdoptChoice>,
    /// Instance a.
    pub a: AdoptJobs,
    /// Instance b.
    pub b: AdoptJobs,
}

impl AdoptionObserved {
    /// The Jobs of an instance.
    #[must_use]
    pub fn instance(&self, i: InstanceId) -> &AdoptJobs {
        match i {
            InstanceId::A => &self.a,
            InstanceId::B => &self.b,
        }
    }
}

/// The Jobs of an adoption of one instance.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct AdoptJobs {
    /// The one that looks at its volumes.
    pub look: JobView<Look>,
    /// The one that lets go of them.
    pub release: JobView<()>,
}

impl AdoptJobs {
    /// The one that runs.
    #[must_use]
    pub fn running(&self) -> Option<AdoptStep> {
        let looks = (self.look == JobView::Running).then_some(AdoptStep::Look);
        looks.or((self.release == JobView::Running).then_some(AdoptStep::Release))
    }
}

/// A Job that is there once.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum JobView<T> {
    /// There is none.
    #[default]
    Missing,
    /// It has not ended.
    Running,
    /// It has failed; when, and in whose words.
    Failed(Timestamp, String),
    /// It has ended; when, and with what result.
    Done(Timestamp, T),
}
