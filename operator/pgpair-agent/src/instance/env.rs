//! What the environment of the pod says; names and defaults are those of the StatefulSet that the operator builds. Only who and
//! where this instance is: what a person has set comes from [`crate::postgres::pair_config`].

use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use pgpair_core::ids::InstanceId;
use pgpair_wire::paths;

use crate::instance::layout::Layout;

/// An environment variable that is missing or not understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InstanceEnvError {
    /// A variable without default is not set.
    #[error("environment variable {0} is not set: the operator sets it in the pod template")]
    Missing(&'static str),
    /// A variable has a value of the wrong form.
    #[error("environment variable {name} is {value:?}: {expected} is expected")]
    Invalid {
        /// The variable.
        name: &'static str,
        /// Its value.
        value: String,
        /// What it should look like.
        expected: &'static str,
    },
}

/// Everything that the environment tells an agent, a WAL command or a seeding Job.
#[derive(Debug, Clone, PartialEq)]
pub struct InstanceEnv {
    /// Name of the `PgReplicaPair`.
    pub pair: String,
    /// Its namespace.
    pub namespace: String,
    /// Which instance this is.
    pub instance: InstanceId,
    /// Name of this pod; default empty.
    pub pod_name: String,
    /// Address of this pod, for the endpoint; default empty.
    pub pod_ip: String,
    /// Uid of this pod; default empty.
    pub pod_uid: String,
    /// Node of this pod; default empty.
    pub node: String,
    /// Host name of the other instance, as in its certificate.
    pub peer_host: String,
    /// Directory of the PostgreSQL programs; default: looked for.
    pub pg_bin: Option<PathBuf>,
    /// The volumes.
    pub layout: Layout,
    /// Address that postgres and the agent bind; default 0.0.0.0.
    pub listen: IpAddr,
    /// Port of postgres; default 5432.
    pub pg_port: u16,
    /// Port of the peer's postgres; default 5432.
    pub peer_pg_port: u16,
    /// Port of our own mTLS endpoint; default 8443.
    pub peer_port: u16,
    /// Port of the peer's mTLS endpoint; default 8443.
    pub peer_peer_port: u16,
    /// Port of probes; default 8080.
    pub probe_port: u16,
    /// How long this pod is given to stop; default a minute.
    pub grace: Duration,
    /// The program that `archive_command` and `restore_command` call; default: this executable.
    pub program: PathBuf,
}

impl InstanceEnv {
    /// Reads the environment of this process.
    ///
    /// # Errors
    /// Names the first variable that is missing or not understood.
    pub fn from_env() -> Result<InstanceEnv, InstanceEnvError> {
        Self::from_lookup(|name| std::env::var(name).ok())
    }

    /// As [`InstanceEnv::from_env`], from any source of variables. An empty variable counts as unset.
    ///
    /// # Errors
    /// As [`InstanceEnv::from_env`].
    pub fn from_lookup(
        lookup: impl Fn(&'static str) -> Option<String>,
    ) -> Result<InstanceEnv, InstanceEnvError> {
        let env = Env { lookup };
        Ok(InstanceEnv {
            pair: env.required("PGPAIR_PAIR")?,
            namespace: env.required("PGPAIR_NAMESPACE")?,
            instance: {
                let text = env.required("PGPAIR_INSTANCE")?;
                text.parse().map_err(|_| invalid("PGPAIR_INSTANCE", text, "a or b"))?
            },
            pod_name: env.or_empty("PGPAIR_POD_NAME"),
            pod_ip: env.or_empty("PGPAIR_POD_IP"),
            pod_uid: env.or_empty("PGPAIR_POD_UID"),
            node: env.or_empty("PGPAIR_NODE"),
            peer_host: env.required("PGPAIR_PEER_HOST")?,
            pg_bin: env.get("PGPAIR_PG_BIN").map(PathBuf::from),
            layout: env.layout(),
            listen: env.parsed("PGPAIR_LISTEN", "an IP address", IpAddr::from([0, 0, 0, 0]))?,
            pg_port: env.port("PGPAIR_PG_PORT", 5432)?,
            peer_pg_port: env.port("PGPAIR_PEER_PG_PORT", 5432)?,
            peer_port: env.port("PGPAIR_PEER_PORT", paths::PEER_PORT)?,
            peer_peer_port: env.port("PGPAIR_PEER_PEER_PORT", paths::PEER_PORT)?,
            probe_port: env.port("PGPAIR_PROBE_PORT", paths::PROBE_PORT)?,
            grace: Duration::from_secs(env.parsed("PGPAIR_GRACE_SECONDS", "a number of seconds", 60)?),
            program: env.program(),
        })
    }

    /// `application_name` and slot name of an instance: `pgpair_a` or `pgpair_b`.
    #[must_use]
    pub fn standby_name(instance: InstanceId) -> &'static str {
        match instance {
            InstanceId::A => "pgpair_a",
            InstanceId::B => "pgpair_b",
        }
    }
}

struct Env<F> {
    lookup: F,
}

impl<F: Fn(&'static str) -> Option<String>> Env<F> {
    fn get(&self, name: &'static str) -> Option<String> {
        (self.lookup)(name).filter(|v| !v.is_empty())
    }

    fn required(&self, name: &'static str) -> Result<String, InstanceEnvError> {
        self.get(name).ok_or(InstanceEnvError::Missing(name))
    }

    fn or_empty(&self, name: &'static str) -> String {
        self.get(name).unwrap_or_default()
    }

    fn path(&self, name: &'static str, default: &str) -> PathBuf {
        self.get(name).map_or_else(|| PathBuf::from(default), PathBuf::from)
    }

    fn parsed<T: FromStr>(
        &self,
        name: &'static str,
        expected: &'static str,
        default: T,
    ) -> Result<T, InstanceEnvError> {
        match self.get(name) {
            None => Ok(default),
            Some(value) => value.parse().map_err(|_| invalid(name, value, expected)),
        }
    }

    fn port(&self, name: &'static str, default: u16) -> Result<u16, InstanceEnvError> {
        self.parsed(name, "a port number", default)
    }

    fn layout(&self) -> Layout {
        Layout {
            data: self.path("PGPAIR_DATA_ROOT", "/pgpair/data"),
            archive: self.path("PGPAIR_ARCHIVE_ROOT", "/pgpair/archive"),
            run: self.path("PGPAIR_RUN", "/pgpair/run"),
            tls: self.path("PGPAIR_TLS", "/pgpair/tls"),
            app: self.path("PGPAIR_APP", "/pgpair/app"),
            config: self.path("PGPAIR_CONFIG", "/pgpair/config"),
        }
    }

    fn program(&self) -> PathBuf {
        self.get("PGPAIR_PROGRAM").map_or_else(
            || std::env::current_exe().unwrap_or_else(|_| PathBuf::from("/pgpair/bin/pgpair")),
            PathBuf::from,
        )
    }
}

fn invalid(name: &'static str, value: String, expected: &'static str) -> InstanceEnvError {
    InstanceEnvError::Invalid { name, value, expected }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn read(vars: &[(&'static str, &str)]) -> Result<InstanceEnv, InstanceEnvError> {
        let base = [
            ("PGPAIR_PAIR", "shop"),
            ("PGPAIR_NAMESPACE", "prod"),
            ("PGPAIR_INSTANCE", "b"),
            ("PGPAIR_PEER_HOST", "shop-a-0.shop-pods.prod.svc"),
        ];
        let map: BTreeMap<_, _> = base.into_iter().chain(vars.iter().copied()).collect();
        InstanceEnv::from_lookup(|name| map.get(name).map(|v| (*v).to_owned()))
    }

    #[test]
    fn the_smallest_environment_gets_the_documented_defaults() {
        let s = read(&[]).unwrap();
        assert_eq!(s.instance, InstanceId::B);
        assert_eq!(s.layout.pgdata(), PathBuf::from("/pgpair/data/pgdata"));
        assert_eq!(s.layout.mounted_config(), PathBuf::from("/pgpair/config/pair.json"));
        assert_eq!((s.pg_port, s.peer_peer_port, s.probe_port), (5432, 8443, 8080));
        assert_eq!(s.grace, Duration::from_secs(60));
    }

    #[test]
    fn what_is_missing_or_wrong_is_named() {
        assert_eq!(read(&[("PGPAIR_PAIR", "")]), Err(InstanceEnvError::Missing("PGPAIR_PAIR")));
        let text = |vars| read(vars).unwrap_err().to_string();
        assert!(text(&[("PGPAIR_INSTANCE", "c")]).contains("a or b"));
        assert!(text(&[("PGPAIR_PG_PORT", "5s")]).contains("PGPAIR_PG_PORT"));
    }
}
