//! What is decided about where the Services without selector lead.

use pgpair_core::ids::InstanceId;

/// A pod that a Service leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointTarget {
    /// Name of the pod.
    pub pod: String,
    /// Its uid.
    pub uid: String,
    /// Its address.
    pub ip: String,
    /// Its node.
    pub node: Option<String>,
}

/// The read-write slice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RwPlan {
    /// It is right, or nobody knows better.
    Keep,
    /// It does not exist: create it, with its target if a primary serves clients; else empty, and the promoting agent fills it.
    Create(Option<EndpointTarget>),
    /// Its ports or labels are wrong: put them right, and leave its endpoints, which are the agents' own.
    Mend,
    /// It leads elsewhere; the promoting agent may be about to write it, so look again first.
    Suspect,
    /// It has led elsewhere for long enough: put it right.
    Repair(InstanceId, EndpointTarget),
}

/// The read-only slice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RoPlan {
    /// It is right, or nobody knows better.
    Keep,
    /// Lead it there, or nowhere.
    Set(Option<EndpointTarget>),
}

/// The slice of `NAME-r`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AnyPlan {
    /// It is right.
    Keep,
    /// Lead it to these.
    Set(Vec<EndpointTarget>),
}
