//! Reasons of Events.

use strum::{IntoStaticStr, VariantNames};

/// Why an Event is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, IntoStaticStr, VariantNames)]
pub enum EventReason {
    /// The record of term 0 was created.
    Bootstrapping,
    /// The volumes of an earlier pair were taken up.
    Adopted,
    /// A base backup began.
    SeedingStarted,
    /// A base backup is complete.
    SeedingFinished,
    /// A base backup failed.
    SeedingFailed,
    /// A primary takes writes and the standby may take over.
    PairReady,
    /// The standby may no longer take over.
    FailoverNotReady,
    /// Another instance became primary.
    FailoverObserved,
    /// The former primary follows the new one.
    RejoinedAsStandby,
    /// An instance is to be copied anew.
    RebuildStarted,
    /// The pod of a standby that was given up, on a node that does not answer, was let go of.
    PodReleased,
    /// The read-write Service was put right.
    EndpointRepaired,
    /// Another quarter of a base backup is copied.
    SeedingProgress,
    /// A proof of death was taken by the agent that may act on it.
    EvidenceSent,
    /// What a failover lost is known.
    LossMeasured,
    /// An instance is restarted, or hands over, for a change of the spec.
    UpdateStarted,
    /// An order of a person will be sent.
    OrderAnnounced,
    /// It is carried out.
    OrderDone,
    /// It is not carried out.
    OrderRefused,
    /// Its outcome is not as ordered, or not known.
    OrderFailed,
    /// A volume is nearly full, or soon will be.
    StorageLow,
    /// Segments do not reach the archive.
    ArchiveFailing,
    /// A role has the new password of its Secret.
    PasswordChanged,
    /// A role does not have the password of its Secret, or a role or a database is not as the spec says.
    RolesUnhealthy,
    /// The certificate that the spec names for postgres cannot be used.
    ServerCertificateUnusable,
    /// A role or a database is no longer in the spec, and stays.
    DefinitionReleased,
    /// An agent refuses the settings of the spec.
    SettingsRefused,
    /// This version of the operator cannot read the pair.
    Undecodable,
    /// Another installation of the operator has the pairs. About the Lease of the installation that stands aside.
    OperatorConflict,
    /// Something needs a person.
    Degraded,
}

impl EventReason {
    /// Value of `reason`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}
