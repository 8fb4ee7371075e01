//! Words of the conditions: their types, and the reasons why they hold or not.

use strum::{IntoStaticStr, VariantNames};

/// Types of the conditions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, IntoStaticStr, VariantNames)]
pub enum ConditionType {
    /// A primary takes writes and the Service leads to it.
    Ready,
    /// The standby may take over now.
    FailoverReady,
    /// Segments reach the archive.
    ArchiveHealthy,
    /// The volumes have space, and will have it for a while.
    StorageHealthy,
    /// Roles have the passwords of their Secrets, and roles and databases are as the spec says.
    RolesHealthy,
    /// Postgres shows the certificate that the spec names. Only of pairs whose spec names one.
    ServerCertificate,
    /// A base backup is under way.
    Seeding,
    /// Something is newer in the spec than in a pod, a postgres or an agent.
    UpdatePending,
    /// Something needs a person, or cannot be done.
    Degraded,
}

impl ConditionType {
    /// Value of `type`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// Why a condition has its status. One enumeration for all conditions, so that a reason has one meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, IntoStaticStr, VariantNames)]
pub enum Reason {
    /// The primary's postgres takes writes.
    PrimaryAcceptsWrites,
    /// The primary is named, and its report does not say that it takes writes.
    PrimaryNotReady,
    /// The primary's postgres takes writes, and Service `NAME-rw` does not lead to it.
    EndpointPending,
    /// The first data directory is being made.
    Bootstrapping,
    /// The record is `Paired`.
    Paired,
    /// The record is `Solo`.
    Solo,
    /// `Solo`, and the standby lacks more than `maxLag`.
    StandbyLags,
    /// `Solo`, and the standby does not stream.
    StandbyNotStreaming,
    /// `Solo`, and no postgres of the standby runs.
    StandbyNotRunning,
    /// `Solo`, and the standby is being copied.
    StandbySeeding,
    /// `Solo`, and the standby is close: the primary will pair with it.
    StandbyCatchesUp,
    /// `Paired`, and the spec says that the standby does not take over by itself.
    AutomaticOff,
    /// The agent of the standby cannot log in to its postgres; or that of a primary that would pair with it cannot.
    AgentShutOut,
    /// An instance was fenced by an order.
    Fenced,
    /// Volumes have space.
    SpaceLeft,
    /// A volume is nearly full.
    SpaceLow,
    /// A volume will be full soon at its pace.
    FillingUp,
    /// Roles have the passwords of their Secrets, and roles and databases are as the spec says.
    RolesAsExpected,
    /// A role or a database of the spec has not been looked at since the spec was changed.
    DefinitionPending,
    /// PostgreSQL refuses some of a role or a database of the spec.
    DefinitionRefused,
    /// A role or a database of the spec was changed in the database.
    DefinitionDiffers,
    /// A password has not reached the database yet.
    PasswordPending,
    /// A Secret has no password, or is not there: the role keeps the one that it has.
    PasswordMissing,
    /// PostgreSQL does not take a password, or does not let the role in with it.
    PasswordRefused,
    /// A password was changed in the database and not in its Secret.
    PasswordDiffers,
    /// The certificate was seen in handshakes with postgres.
    CertificateInEffect,
    /// It is on its way to the instances.
    CertificatePending,
    /// Its Secret does not exist.
    CertificateMissing,
    /// It cannot be used: the one before stays.
    CertificateRefused,
    /// The API server does not know the kind by which cert-manager is asked for it.
    IssuerKindMissing,
    /// Everything is as the spec says.
    UpToDate,
    /// An agent does not follow the newest settings yet.
    ConfigPending,
    /// An agent refuses the newest settings, in its words or PostgreSQL's.
    SettingsRefused,
    /// A setting needs a restart of postgres.
    RestartPending,
    /// A pod was made of an earlier template.
    PodOutdated,
    /// The changes that need a restart are being carried out, one instance at a time.
    Rolling,
    /// Another pair is being rolled, or the operator has begun just now.
    RolloutWaits,
    /// Another pair was rolled and is not `Paired` again.
    RolloutStopped,
    /// A volume holds data that is not this pair's.
    ForeignData,
    /// The archiver's last attempt succeeded.
    Archiving,
    /// The archiver's last attempts failed.
    ArchiveFailing,
    /// Two histories give one timeline number different pasts.
    TimelineUsedTwice,
    /// Too many segments wait for the archiver.
    ArchiveBacklog,
    /// No report tells.
    Unknown,
    /// A Job copies the primary.
    SeedRunning,
    /// The last Job failed; another follows.
    SeedFailed,
    /// Nothing to copy.
    NotSeeding,
    /// The spec cannot be carried out.
    InvalidSpec,
    /// The record's Lease is gone although the pair has data.
    RecordMissing,
    /// The record's Lease cannot be read as a record.
    RecordUnreadable,
    /// The volumes of an earlier pair are being taken up.
    Adopting,
    /// Which of the volumes of an earlier pair becomes the primary's is for a person to say.
    AdoptionAsks,
    /// The volumes of an earlier pair are not taken up.
    AdoptionRefused,
    /// An instance asks for a base backup and cannot get it yet.
    RebuildBlocked,
    /// An instance does not report.
    InstanceUnreachable,
    /// The scheduler finds no node for a pod.
    PodUnschedulable,
    /// The image of a container cannot be pulled.
    ImageNotPulled,
    /// A container cannot be created.
    ContainerNotCreated,
    /// A container ends again and again.
    ContainerCrashes,
    /// A pod exists and does not start.
    PodNotStarting,
    /// A pod is refused: no pod is made.
    PodRefused,
    /// A base backup gets no further, or its pod does not end.
    SeedingStalled,
    /// The image holds another major version of PostgreSQL than the spec names.
    VersionMismatch,
    /// Both instances run on one node although they have to be apart.
    SameNode,
    /// An agent tries something again and again without success.
    InstanceInTrouble,
    /// This version of the operator cannot read the pair.
    Undecodable,
    /// The operator could not write one of the pair's objects.
    ApplyFailed,
    /// An object that does not belong to the pair has a name that the pair needs.
    NameTaken,
    /// Nothing is wrong.
    AsExpected,
}

impl Reason {
    /// Value of `reason`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}
