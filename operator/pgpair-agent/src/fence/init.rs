//! The init process: parent of the agent, reaper of orphans, and the end of every process when the agent ends.
//!
//! A backend has a session of its own, so no signal to a process group reaches it, and it outlives its postmaster. What
//! always finds it is the chain of parents: orphans go to the init process, which is PID 1 or a subreaper.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use pgpair_core::authority::timing::Ms;
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions};
use tokio::signal::unix::{Signal as Stream, SignalKind, signal};

use crate::fence::clock;
use crate::fence::deadman::Deadman;

/// Set in the environment of the agent that an init process has started; its value is the pid of that init process.
const MARKER: &str = "PGPAIR_INIT_PID";
/// glibc gives each thread an arena of its own, and keeps in it what the thread no longer needs. The agent's threads mostly wait:
/// one arena serves them all (mallopt(3), `M_ARENA_MAX`). Postgres inherits it, whose processes have one thread each.
const ARENAS: (&str, &str) = ("MALLOC_ARENA_MAX", "1");
/// Where the kernel lists the processes.
const PROC: &str = "/proc";
/// How often a kill looks again whether something is left.
const POLL: Duration = Duration::from_millis(2);
/// How long the init process tries to kill what the agent has left behind; then it goes, and the container with it.
const LAST_KILL: Duration = Duration::from_secs(10);
/// How long of it in one go, before the dead are reaped.
const LAST_KILL_TURN: Duration = Duration::from_millis(100);
/// How often the deadman looks at its deadline while that is far, for it may have moved; also makes a missed SIGCHLD good.
/// Less than half of the smallest kill budget (125 ms), wherever the deadline moves to.
const FAR: Duration = Duration::from_millis(50);
/// The same when the deadline is here.
const NEAR: Duration = Duration::from_millis(20);
/// How long the deadman kills in one go before signals are looked at again.
const DEADMAN_KILL: Duration = Duration::from_millis(200);

/// The processes of this agent: everything below the init process, except the agent.
#[derive(Debug, Clone, Copy)]
pub struct Tree {
    root: Pid,
    keep: Pid,
}

/// Outcome of [`Tree::kill`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Killed {
    /// Signals sent; a process that does not vanish at once gets several.
    pub signalled: usize,
    /// Processes that were still there at the end of the time. `Some(0)` means that all are dead, `None` that they could not be counted.
    pub left: Option<usize>,
}

impl Tree {
    /// The tree of the calling agent. Without an init process (tests), everything below this process.
    #[must_use]
    pub fn of_agent() -> Tree {
        let me = rustix::process::getpid();
        let parent = rustix::process::getppid();
        let started_by_init = std::env::var(MARKER).ok().and_then(|v| v.parse().ok()).and_then(Pid::from_raw);
        let root = started_by_init.filter(|init| Some(*init) == parent).unwrap_or(me);
        Tree { root, keep: me }
    }

    /// Kills every process of the tree, again and again until none is left or `limit` has passed. Blocks; zombies do not
    /// count, for they execute nothing and hold no lock.
    #[must_use]
    pub fn kill(&self, limit: Duration) -> Killed {
        self.kill_listed(Path::new(PROC), limit)
    }

    fn kill_listed(&self, proc: &Path, limit: Duration) -> Killed {
        let deadline = Instant::now() + limit;
        let mut killed = Killed { signalled: 0, left: None };
        let mut complained = false;
        loop {
            match self.alive_by(proc) {
                Ok(alive) => {
                    // It may have gone meanwhile; the next round tells.
                    let sent = |pid: &&Pid| rustix::process::kill_process(**pid, Signal::KILL).is_ok();
                    killed.signalled += alive.iter().filter(sent).count();
                    killed.left = Some(alive.len());
                }
                Err(e) => {
                    if !std::mem::replace(&mut complained, true) {
                        tracing::error!(error = %e, "the processes that must be killed cannot be listed");
                    }
                    self.kill_unseen(&mut killed);
                }
            }
            if killed.left == Some(0) || Instant::now() >= deadline {
                return killed;
            }
            std::thread::sleep(POLL);
        }
    }

    /// Without a list, as when no descriptor is left: below an init process that is PID 1 every process goes, but for that one and this one. The
    /// namespace holds nothing else then than the container. Anywhere else this would end processes that are not ours.
    fn kill_unseen(&self, killed: &mut Killed) {
        killed.left = None;
        if self.root != Pid::INIT {
            return;
        }
        match rustix::process::kill_process_group(Pid::INIT, Signal::KILL) {
            Ok(()) => killed.signalled += 1,
            Err(Errno::SRCH) => killed.left = Some(0), // there is nobody else
            Err(_) => {}
        }
    }

    /// The processes of the tree that are not zombies, parents before children.
    ///
    /// # Errors
    /// The processes cannot be listed, so none of them is known to be dead.
    pub fn alive(&self) -> io::Result<Vec<Pid>> {
        self.alive_by(Path::new(PROC))
    }

    fn alive_by(&self, proc: &Path) -> io::Result<Vec<Pid>> {
        let processes = processes(proc)?;
        // A list in which not even this process stands, as of a directory where nothing is mounted, says nothing of others.
        if !processes.contains_key(&rustix::process::getpid().as_raw_nonzero().get()) {
            return Err(io::Error::new(io::ErrorKind::NotFound, "this process is not listed"));
        }
        let mut children: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
        for (pid, p) in &processes {
            children.entry(p.parent).or_default().push(*pid);
        }
        let mut queue = vec![self.root.as_raw_nonzero().get()];
        let mut out = Vec::new();
        let mut at = 0;
        while let Some(pid) = queue.get(at).copied() {
            at += 1;
            queue.extend(children.get(&pid).into_iter().flatten());
            let dead = processes.get(&pid).is_none_or(|p| p.dead);
            let spared = pid == self.root.as_raw_nonzero().get() || pid == self.keep.as_raw_nonzero().get();
            if !dead && !spared {
                out.extend(Pid::from_raw(pid));
            }
        }
        Ok(out)
    }
}

struct Process {
    parent: i32,
    dead: bool,
}

fn processes(proc: &Path) -> io::Result<BTreeMap<i32, Process>> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(proc)? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else { continue };
        let stat = match fs::read(proc.join(name).join("stat")) {
            Ok(stat) => stat,
            Err(e) if is_gone(&e) => continue,
            Err(e) => return Err(e),
        };
        // A process may call itself by any bytes.
        all.extend(parse_stat(&String::from_utf8_lossy(&stat)).map(|process| (pid, process)));
    }
    Ok(all)
}

/// A process that has ended since it was listed; or one of another user, which a `/proc` mounted with `hidepid` shows to nobody else.
fn is_gone(e: &io::Error) -> bool {
    let other_user = e.kind() == io::ErrorKind::PermissionDenied;
    other_user || e.kind() == io::ErrorKind::NotFound || Errno::from_io_error(e) == Some(Errno::SRCH)
}

/// `pid (name) state ppid …`; the name may hold spaces and parentheses.
fn parse_stat(stat: &str) -> Option<Process> {
    let mut words = stat.get(stat.rfind(')')? + 1..)?.split_ascii_whitespace();
    let state = words.next()?;
    let parent = words.next()?.parse().ok()?;
    Some(Process { parent, dead: matches!(state, "Z" | "X" | "x") })
}

/// [`run_if_init`] for a program that has said nothing yet and has nowhere to say it but the standard error.
#[must_use]
pub fn main() -> Option<ExitCode> {
    run_if_init().unwrap_or_else(|e| {
        eprintln!("the agent could not be started: {e}");
        Some(ExitCode::FAILURE)
    })
}

/// Makes this process the init process, unless an init process has started it. Call it before anything else.
///
/// `None`: go on as the agent. `Some`: this was the init process; the agent and all its children are gone, and this is the
/// code to exit with.
///
/// # Errors
/// The agent could not be started.
pub fn run_if_init() -> io::Result<Option<ExitCode>> {
    if std::env::var_os(MARKER).is_some() {
        return Ok(None);
    }
    let me = rustix::process::getpid();
    rustix::process::set_child_subreaper(Some(me))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let code = runtime.block_on(async {
        // Handlers first: a signal that comes while the agent starts must reach it.
        let mut signals = Signals::new()?;
        let (deadman, variable) = Deadman::create()?;
        let agent = start_agent(me, variable)?;
        let code = signals.forward_until_exit(agent, &deadman, Tree { root: me, keep: agent }).await;
        io::Result::Ok(code)
    })?;
    match kill_the_rest(Tree { root: me, keep: me }, LAST_KILL) {
        Some(0) => {}
        Some(left) => eprintln!("{left} processes survived SIGKILL for {LAST_KILL:?}"),
        None => eprintln!("the processes that are left could not be listed for {LAST_KILL:?}"),
    }
    Ok(Some(code))
}

/// Kills what the agent has left behind. All of it are children of this process in the end: when there are none, nothing is left, also where
/// processes cannot be listed. The number of those that are left after `limit`, `None` if they cannot be counted.
fn kill_the_rest(tree: Tree, limit: Duration) -> Option<usize> {
    let deadline = Instant::now() + limit;
    loop {
        let left = tree.kill(LAST_KILL_TURN).left;
        if reap(None).is_childless {
            return Some(0);
        }
        if left == Some(0) || Instant::now() >= deadline {
            return left;
        }
    }
}

fn start_agent(me: Pid, (name, value): (&str, String)) -> io::Result<Pid> {
    let child = Command::new("/proc/self/exe")
        .args(std::env::args_os().skip(1))
        .env(MARKER, me.as_raw_nonzero().to_string())
        .env(ARENAS.0, ARENAS.1)
        .env(name, value)
        .spawn()?;
    Ok(Pid::from_child(&child))
}

struct Signals {
    child: Stream,
    end: [Stream; 3],
}

impl Signals {
    fn new() -> io::Result<Signals> {
        Ok(Signals {
            child: signal(SignalKind::child())?,
            // The kubelet sends what the image names as STOPSIGNAL, and PostgreSQL's images name SIGINT.
            end: [
                signal(SignalKind::terminate())?,
                signal(SignalKind::interrupt())?,
                signal(SignalKind::quit())?,
            ],
        })
    }

    async fn forward_until_exit(&mut self, agent: Pid, deadman: &Deadman, tree: Tree) -> ExitCode {
        let [term, int, quit] = &mut self.end;
        loop {
            if let Some(code) = reap(Some(agent)).code {
                return code;
            }
            let (deadline, now) = (deadman.deadline(), clock::now());
            if deadline.is_some_and(|at| now >= at) {
                // The agent would have done it, if it could: it is stopped, starved, or gone wrong.
                let killed = tree.kill(DEADMAN_KILL);
                if killed.signalled > 0 {
                    eprintln!("deadman: the agent let its deadline pass; {} signals sent", killed.signalled);
                }
            }
            let ends = tokio::select! {
                _ = self.child.recv() => false,
                () = tokio::time::sleep(until_next_look(deadline, now)) => false,
                _ = term.recv() => true,
                _ = int.recv() => true,
                _ = quit.recv() => true,
            };
            if ends && let Err(e) = rustix::process::kill_process(agent, Signal::TERM) {
                eprintln!("cannot tell the agent to end: {e}");
            }
        }
    }
}

fn until_next_look(deadline: Option<Ms>, now: Ms) -> Duration {
    deadline.map_or(FAR, |at| Duration::from_millis(at - now).clamp(NEAR, FAR))
}

/// What comes of [`reap`].
struct Reaped {
    /// Exit code of the agent, if it was among the dead.
    code: Option<ExitCode>,
    /// There is no child left, dead or alive.
    is_childless: bool,
}

/// Reaps every dead child.
fn reap(agent: Option<Pid>) -> Reaped {
    let mut code = None;
    loop {
        match rustix::process::wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) if Some(pid) == agent => {
                let raw = status.exit_status().or_else(|| status.terminating_signal().map(|s| 128 + s));
                code = Some(ExitCode::from(raw.and_then(|c| u8::try_from(c).ok()).unwrap_or(1)));
            }
            Ok(Some(_)) => {}
            Ok(None) => return Reaped { code, is_childless: false },
            Err(e) => return Reaped { code, is_childless: e == Errno::CHILD },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_name_may_hold_anything() {
        let p = parse_stat("42 (a) R 1) S 7 42 42 0").unwrap();
        assert_eq!((p.parent, p.dead), (7, false));
        assert!(parse_stat("42 (x) Z 7 1").unwrap().dead);
        assert!(parse_stat("").is_none());
    }

    #[test]
    fn the_deadman_looks_at_the_deadline_and_seldom_before() {
        assert_eq!(until_next_look(None, Ms(7)), FAR);
        assert_eq!(until_next_look(Some(Ms(3000)), Ms(0)), FAR);
        assert_eq!(until_next_look(Some(Ms(31)), Ms(0)), Duration::from_millis(31));
        assert_eq!(until_next_look(Some(Ms(3)), Ms(0)), NEAR);
        assert_eq!(until_next_look(Some(Ms(3)), Ms(9)), NEAR);
    }

    #[test]
    fn a_tree_is_found_below_its_root_only() {
        let me = rustix::process::getpid();
        let mut child = Command::new("sh").args(["-c", "sleep 60 & wait"]).spawn().unwrap();
        let root = Pid::from_child(&child);
        let tree = Tree { root, keep: me };
        let end = Instant::now() + Duration::from_secs(10);
        while tree.alive().unwrap().is_empty() && Instant::now() < end {
            std::thread::sleep(POLL);
        }
        assert_eq!(tree.alive().unwrap().len(), 1);
        assert_eq!(tree.kill(Duration::from_secs(10)).left, Some(0));
        child.wait().unwrap();
    }

    /// As with `EMFILE`: neither "nobody is left", nor a kill of whatever else runs here.
    #[test]
    fn processes_that_cannot_be_listed_are_not_taken_for_dead() {
        let dir = tempfile::tempdir().unwrap();
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let tree = Tree { root: Pid::from_child(&child), keep: rustix::process::getpid() };
        let (missing, empty, broken) =
            (dir.path().join("no"), dir.path().join("empty"), dir.path().join("broken"));
        fs::create_dir(&empty).unwrap();
        // The list can be read, but a process in it cannot.
        fs::create_dir_all(broken.join("7/stat")).unwrap();
        for proc in [&missing, &empty, &broken] {
            assert!(tree.alive_by(proc).is_err());
            let nothing = Killed { signalled: 0, left: None };
            assert_eq!(tree.kill_listed(proc, Duration::ZERO), nothing);
        }
        assert_eq!(child.try_wait().unwrap(), None);
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn a_process_that_ended_while_they_were_listed_is_no_failure() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("8")).unwrap();
        fs::create_dir(dir.path().join("self")).unwrap();
        fs::create_dir(dir.path().join("9")).unwrap();
        fs::write(dir.path().join("9/stat"), b"9 (caf\xe9) S 1 9").unwrap();
        let all = processes(dir.path()).unwrap();
        assert_eq!(all.into_iter().map(|(pid, p)| (pid, p.parent)).collect::<Vec<_>>(), [(9, 1)]);
    }
}
