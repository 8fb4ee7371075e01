//! Where everything lies on the volumes of an instance.

use std::path::{Path, PathBuf};

use pgpair_core::ids::SystemIdentifier;

/// What a program of the pod writes here outlives its container: Kubernetes shows it in the status of the pod.
pub(crate) const TERMINATION_LOG: &str = "/dev/termination-log";

/// Roots of the volumes, and the paths below them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// Data volume; default `/pgpair/data`.
    pub data: PathBuf,
    /// Archive volume; default `/pgpair/archive`.
    pub archive: PathBuf,
    /// Volatile directory; default `/pgpair/run`.
    pub run: PathBuf,
    /// Mounted certificates; default `/pgpair/tls`.
    pub tls: PathBuf,
    /// Mounted Secret of the application role; default `/pgpair/app`.
    pub app: PathBuf,
    /// Mounted ConfigMap; default `/pgpair/config`.
    pub config: PathBuf,
}

impl Layout {
    /// All volumes side by side below one directory.
    #[cfg(test)]
    pub(crate) fn under(root: &Path) -> Layout {
        let at = |name: &str| root.join(name);
        Layout {
            data: at("data"),
            archive: at("archive"),
            run: at("run"),
            tls: at("tls"),
            app: at("app"),
            config: at("config"),
        }
    }

    /// PGDATA.
    #[must_use]
    pub fn pgdata(&self) -> PathBuf {
        self.data.join("pgdata")
    }

    /// `pg_wal` of PGDATA.
    #[must_use]
    pub fn pg_wal(&self) -> PathBuf {
        self.pgdata().join("pg_wal")
    }

    /// A base backup that is being taken; becomes PGDATA by a rename.
    #[must_use]
    pub fn seeding(&self) -> PathBuf {
        self.data.join("pgdata.seeding")
    }

    /// Tablespaces of a base backup that is being taken, each by its number.
    #[must_use]
    pub fn seeding_tablespaces(&self) -> PathBuf {
        self.data.join("tablespaces.seeding")
    }

    /// There after this instance has asked for another copy of the data, until its own serves again: why.
    #[must_use]
    pub fn rebuild_needed(&self) -> PathBuf {
        self.data.join("rebuild-needed")
    }

    /// There after a copy, until its postgres accepts connections.
    #[must_use]
    pub fn fresh_copy(&self) -> PathBuf {
        self.data.join("fresh-copy")
    }

    /// There while a rewind is under way: PGDATA is not to be trusted.
    #[must_use]
    pub fn rewinding(&self) -> PathBuf {
        self.data.join("pgdata.rewinding")
    }

    /// The file whose flock every process of a postmaster's tree holds.
    #[must_use]
    pub fn lock(&self) -> PathBuf {
        self.data.join("pgpair.lock")
    }

    /// The file whose flock a living agent holds, with its incarnation as content.
    #[must_use]
    pub fn agent_lock(&self) -> PathBuf {
        self.data.join("agent.lock")
    }

    /// Identity of the data directory, written when it is complete.
    #[must_use]
    pub fn volume_json(&self) -> PathBuf {
        self.data.join("volume.json")
    }

    /// There while a promotion of the data directory is under way.
    #[must_use]
    pub fn promoting_json(&self) -> PathBuf {
        self.data.join("promoting.json")
    }

    /// Written over and over, to see whether the disk takes a write.
    #[must_use]
    pub fn write_probe(&self) -> PathBuf {
        self.data.join("write-probe")
    }

    /// Durable state of the authority protocol.
    #[must_use]
    pub fn state_json(&self) -> PathBuf {
        self.data.join("state.json")
    }

    /// The state before the last one, in whose place the next is written.
    #[must_use]
    pub fn state_spare(&self) -> PathBuf {
        self.data.join("state.json.spare")
    }

    /// The state as it was when this volume was let go of, for another record.
    #[must_use]
    pub fn state_before_adoption(&self) -> PathBuf {
        self.data.join("state.json.before-adoption")
    }

    /// The same of earlier adoptions, in files with numbers.
    #[must_use]
    pub fn states_before_earlier_adoptions(&self) -> PathBuf {
        self.data.join("states-before-adoption")
    }

    /// Data directories that were replaced.
    #[must_use]
    pub fn moved_aside(&self) -> PathBuf {
        self.data.join("moved-aside")
    }

    /// What the agent has made on the data volume, or will: no place for a tablespace, and nothing of it is for postgres but PGDATA.
    #[must_use]
    pub fn own_in_data(&self) -> [PathBuf; 19] {
        [
            self.pgdata(),
            self.seeding(),
            self.seeding_tablespaces(),
            self.rebuild_needed(),
            self.fresh_copy(),
            self.rewinding(),
            self.lock(),
            self.agent_lock(),
            self.volume_json(),
            self.promoting_json(),
            self.write_probe(),
            self.state_json(),
            self.state_spare(),
            self.state_before_adoption(),
            self.states_before_earlier_adoptions(),
            self.moved_aside(),
            self.proven_config(),
            self.passwords_json(),
            self.data.join("lost+found"),
        ]
    }

    /// The archive of one cluster: nothing of another cluster is ever mixed in.
    #[must_use]
    pub fn archive_of(&self, system: SystemIdentifier) -> PathBuf {
        self.archive.join(system.to_string())
    }

    /// Archived segments and history files.
    #[must_use]
    pub fn wal_archive(&self, system: SystemIdentifier) -> PathBuf {
        self.archive_of(system).join("wal")
    }

    /// Branches of the log that were left behind by a failover.
    #[must_use]
    pub fn lost(&self) -> PathBuf {
        self.archive.join("lost")
    }

    /// Directory of the unix socket, 0700: who can open it is the superuser.
    #[must_use]
    pub fn socket_dir(&self) -> PathBuf {
        self.run.join("pg")
    }

    /// For postgres and what it starts: copies of their certificates and keys.
    #[must_use]
    pub fn tls_copies(&self) -> PathBuf {
        self.run.join("tls")
    }

    /// The copies in use, 0600 as postgres and libpq demand.
    #[must_use]
    pub fn run_tls(&self) -> PathBuf {
        self.tls_copies().join("current")
    }

    /// Certificates that the operator gave, newer than the mounted ones: a link to a directory of one moment.
    #[must_use]
    pub fn given_certificates(&self) -> PathBuf {
        self.run.join("certificates")
    }

    /// What the agent lets `wal-restore` know.
    #[must_use]
    pub fn told(&self) -> PathBuf {
        self.run.join("told")
    }

    /// What `wal-restore` keeps for its next run.
    #[must_use]
    pub fn restore(&self) -> PathBuf {
        self.run.join("restore")
    }

    /// A good place for tablespaces, which may also lie elsewhere on the data volume.
    #[must_use]
    pub fn tablespaces(&self) -> PathBuf {
        self.data.join("tablespaces")
    }

    /// The configuration as the operator has mounted it.
    #[must_use]
    pub fn mounted_config(&self) -> PathBuf {
        self.config.join(pgpair_wire::config::CONFIG_KEY)
    }

    /// The configuration as it was pushed last.
    #[must_use]
    pub fn stored_config(&self) -> PathBuf {
        self.run.join(pgpair_wire::config::CONFIG_KEY)
    }

    /// The configuration that postgres accepted last; it outlives the pod.
    #[must_use]
    pub fn proven_config(&self) -> PathBuf {
        self.data.join("proven.json")
    }

    /// What an earlier version kept of the passwords: an agent removes it when it starts.
    #[must_use]
    pub fn passwords_json(&self) -> PathBuf {
        self.data.join("passwords.json")
    }

    /// The peer's address as it was last known, for `wal-restore`: a name may not be found when it is needed most.
    #[must_use]
    pub fn peer_address(&self) -> PathBuf {
        self.told().join("peer-address")
    }

    /// What postgres says in a start that is made to learn why it fails.
    #[must_use]
    pub fn start_log(&self) -> PathBuf {
        self.run.join("start.log")
    }

    /// There from the beginning of a promotion until the next start: `wal-restore` asks only our own archive.
    #[must_use]
    pub fn alone(&self) -> PathBuf {
        self.told().join("alone")
    }

    /// Touched when `wal-restore` last complained about the peer.
    #[must_use]
    pub fn complained(&self) -> PathBuf {
        self.restore().join("complained")
    }

    /// What the state machine took, for `pgpair explain`.
    #[must_use]
    pub fn journal(&self) -> PathBuf {
        self.run.join("journal")
    }

    /// The trigger file.
    #[must_use]
    pub fn trigger(&self) -> PathBuf {
        self.run.join("promote")
    }

    /// A file of PGDATA.
    #[must_use]
    pub fn in_pgdata(&self, name: impl AsRef<Path>) -> PathBuf {
        self.pgdata().join(name)
    }
}
