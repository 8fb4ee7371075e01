//! What postgres and whatever it starts can reach of the agent: nothing that speaks for it.
//!
//! Postgres runs under the agent's user, and who may run SQL as a superuser, or `COPY ... FROM PROGRAM`, has all that a process of it
//! has. So it is started in a Landlock domain (Linux, `userspace-api/landlock`; 5.13 or later, no privilege needed), which all its
//! children are in: they see neither the agent's key, token and passwords nor what it keeps on the volumes, cannot look into its
//! memory, and from Linux 6.12 on cannot send it signals. Where the kernel has none of it postgres runs as it did, and the log says so.
//!
//! A domain allows and cannot forbid: everything beside what is closed is listed as it is at the start of postgres. What comes
//! later in a directory that holds something closed, such as a new one on the data volume, is closed until the next start.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;

use landlock::{
    ABI, Access, AccessFs, BitFlags, CompatLevel, Compatible, Ruleset, RulesetAttr, RulesetCreatedAttr,
    RulesetError, RulesetStatus, Scope, path_beneath_rules,
};
use tokio::process::{Child, Command};
use tokio::runtime::Handle;

use crate::instance::layout::Layout;

/// Where Kubernetes mounts the token by which the agent writes the record.
const TOKEN: &str = "/var/run/secrets";
/// The newest kernel interface that is used, by best effort: truncation and device control among the rights.
const RIGHTS: ABI = ABI::V5;
/// The first with scopes.
const SCOPES: ABI = ABI::V6;

/// How far a postgres is closed in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Confinement {
    /// Files, memory and signals of the agent are out of reach.
    Full,
    /// The kernel is older than 6.12: something of it is missing, signals at least.
    Partial,
    /// The kernel has no Landlock, or the container may not use it.
    None,
}

/// What a confined program may reach.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Open {
    /// With all rights that its user has.
    whole: Vec<PathBuf>,
    /// For reading.
    to_read: Vec<PathBuf>,
}

impl Open {
    fn of(layout: &Layout) -> Open {
        let closed = [&layout.data, &layout.run, &layout.tls, &layout.app, Path::new(TOKEN)]
            .map(|path| fs::canonicalize(path).unwrap_or_else(|_| path.to_owned()));
        let mut whole = Vec::new();
        beside(Path::new("/"), &closed, &mut whole);
        let own = layout.own_in_data();
        let in_data = children(&layout.data).filter(|path| *path == layout.pgdata() || !own.contains(path));
        whole.extend(in_data.chain([layout.socket_dir(), layout.restore()]));
        Open { whole, to_read: vec![layout.tls_copies(), layout.told()] }
    }
}

/// Everything below `dir` but what is closed; as few paths as do it.
fn beside(dir: &Path, closed: &[PathBuf], open: &mut Vec<PathBuf>) {
    for path in children(dir) {
        // A link is its target, which is met where it lies.
        if closed.contains(&path) || path.is_symlink() {
            continue;
        }
        if closed.iter().any(|c| c.starts_with(&path)) {
            beside(&path, closed, open);
        } else {
            open.push(path);
        }
    }
}

fn children(dir: &Path) -> impl Iterator<Item = PathBuf> {
    fs::read_dir(dir).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()))
}

/// Starts a program that runs what people bring: it and all its children are confined.
///
/// # Errors
/// It cannot be started. That it could not be confined is none: a pair without its primary would be worse.
pub(crate) fn spawn(command: &mut Command, layout: &Layout) -> io::Result<(Child, Confinement)> {
    let open = Open::of(layout);
    let runtime = Handle::current();
    // A domain is a thread's, and what the thread starts inherits it.
    let started = thread::scope(|scope| {
        let in_domain = move || {
            let _runtime = runtime.enter();
            let confinement = enter_domain(&open).unwrap_or_else(|e| {
                tracing::warn!(error = %e, "postgres cannot be confined");
                Confinement::None
            });
            command.spawn().map(|child| (child, confinement))
        };
        scope.spawn(in_domain).join()
    });
    started.unwrap_or_else(|_| Err(io::Error::other("the thread that starts it has panicked")))
}

fn enter_domain(open: &Open) -> Result<Confinement, RulesetError> {
    let all: BitFlags<AccessFs> = AccessFs::from_all(RIGHTS);
    let read = AccessFs::from_read(RIGHTS);
    let status = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(all)?
        .scope(Scope::from_all(SCOPES))?
        .create()?
        .add_rules(path_beneath_rules(&open.whole, all))?
        .add_rules(path_beneath_rules(&open.to_read, read))?
        .restrict_self()?;
    Ok(match status.ruleset {
        RulesetStatus::FullyEnforced => Confinement::Full,
        RulesetStatus::PartiallyEnforced => Confinement::Partial,
        RulesetStatus::NotEnforced => Confinement::None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_open_but_what_is_the_agents() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::under(dir.path());
        for path in [layout.pgdata(), layout.data.join("fast"), layout.tls.clone(), layout.archive.clone()] {
            fs::create_dir_all(path).unwrap();
        }
        for file in [layout.state_json(), layout.state_spare(), layout.passwords_json()] {
            fs::write(file, "").unwrap();
        }
        let Open { whole, .. } = Open::of(&layout);
        let reaches = |path: PathBuf| whole.iter().any(|open| path.starts_with(open));
        for path in [layout.in_pgdata("base"), layout.data.join("fast/x"), layout.archive.join("1/wal")] {
            assert!(reaches(path.clone()), "{path:?}");
        }
        assert!(reaches("/usr/lib".into()) && reaches("/proc/self".into()));
        let token = Path::new(TOKEN).join("kubernetes.io/serviceaccount/token");
        for path in
            [layout.tls.join("tls.key"), layout.app.join("verifiers.json"), layout.state_json(), token]
        {
            assert!(!reaches(path.clone()), "{path:?}");
        }
        for path in [
            layout.state_spare(),
            layout.passwords_json(),
            layout.journal(),
            layout.stored_config(),
            layout.trigger(),
        ] {
            assert!(!reaches(path.clone()), "{path:?}");
        }
    }
}
