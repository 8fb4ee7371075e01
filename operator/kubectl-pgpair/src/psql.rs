//! `kubectl pgpair psql`: kubectl's own `exec`, which knows terminals, with the right words.

use std::ffi::OsString;
use std::io::IsTerminal;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use anyhow::Context as _;

use crate::args::Access;

/// Directory of the socket in the container. Whoever may open it is whom he says (`local all all trust`).
const SOCKET: &str = "/pgpair/run/pg";

/// Who logs in, and where.
#[derive(Debug, Clone, Copy)]
pub struct Login<'a> {
    /// The role.
    pub role: &'a str,
    /// The database.
    pub database: &'a str,
}

/// Becomes kubectl.
///
/// # Errors
/// kubectl is not in `PATH`. Otherwise it does not come back: kubectl's exit status is ours.
pub fn run(
    access: &Access,
    namespace: &str,
    pod: &str,
    login: Login<'_>,
    args: &[String],
) -> anyhow::Result<()> {
    let terminal = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    let words = words(access, namespace, pod, login, terminal, args);
    Err(Command::new("kubectl").args(words).exec()).context("running kubectl: is it in PATH?")
}

fn words(
    access: &Access,
    namespace: &str,
    pod: &str,
    login: Login<'_>,
    terminal: bool,
    args: &[String],
) -> Vec<OsString> {
    let mut words: Vec<OsString> = Vec::new();
    if let Some(file) = &access.kubeconfig {
        words.extend(["--kubeconfig".into(), file.into()]);
    }
    if let Some(context) = &access.context {
        words.extend(["--context".into(), context.into()]);
    }
    let mode = if terminal { "-it" } else { "-i" };
    words.extend(["-n", namespace, "exec", mode, pod, "-c", "postgres", "--", "env"].map(Into::into));
    // Variables rather than options: what the person gives after `--` wins. The root file system is read-only.
    words.extend([
        format!("PGHOST={SOCKET}").into(),
        format!("PGUSER={}", login.role).into(),
        format!("PGDATABASE={}", login.database).into(),
        "PSQL_HISTORY=/tmp/.psql_history".into(),
        "psql".into(),
    ]);
    words.extend(args.iter().map(Into::into));
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(access: &Access, terminal: bool, args: &[&str]) -> String {
        let args: Vec<String> = args.iter().map(|a| (*a).to_owned()).collect();
        let login = Login { role: "orders", database: "app" };
        let words = words(access, "shop", "orders-b-0", login, terminal, &args);
        words.iter().map(|w| w.to_string_lossy()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn psql_opens_the_socket_in_the_postgres_container() {
        assert_eq!(
            line(&Access::default(), false, &["-Atc", "select 1"]),
            "-n shop exec -i orders-b-0 -c postgres -- env PGHOST=/pgpair/run/pg PGUSER=orders PGDATABASE=app PSQL_HISTORY=/tmp/.psql_history psql -Atc select 1"
        );
    }

    #[test]
    fn kubectl_gets_the_same_cluster_and_a_terminal_if_there_is_one() {
        let access = Access {
            kubeconfig: Some("/k".into()),
            context: Some("c".into()),
            namespace: Some("ignored: the one in use is given".into()),
        };
        let line = line(&access, true, &[]);
        assert!(line.starts_with("--kubeconfig /k --context c -n shop exec -it orders-b-0 "), "{line}");
    }
}
