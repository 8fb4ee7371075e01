//! The init process and the end of a tree.

use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use pgpair_agent::fence::init::{Tree, run_if_init};
use pgpair_agent::fence::lock::VolumeLock;
use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, prlimit};

use crate::fixture::{eventually, run};

const FILE: &str = "PGPAIR_TEST_FILE";
/// Set: the agent leaves no children behind.
const CHILDLESS: &str = "PGPAIR_TEST_CHILDLESS";
const CODE: u8 = 7;

/// Plays `pgpair agent`: becomes the init process, and then the agent below it.
#[test]
fn agent() {
    let Ok(file) = std::env::var(FILE) else { return };
    if let Some(code) = run_if_init().unwrap() {
        std::process::exit(if code == ExitCode::from(CODE) { i32::from(CODE) } else { 1 });
    }
    // Handlers of a runtime of its own, started after the split.
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let mut term = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).unwrap();
        if std::env::var_os(CHILDLESS).is_some() {
            fs::write(&file, "").unwrap();
            term.recv().await;
            return;
        }
        let script = "setsid sh -c 'sleep 600 & sleep 600' & sleep 600";
        let mut child = Command::new("sh").args(["-c", script]).spawn().unwrap();
        let tree = Tree::of_agent();
        let pids = eventually("all five run", async || tree.alive().ok().filter(|p| p.len() >= 5)).await;
        let pids: Vec<String> = pids.iter().map(|p| p.as_raw_nonzero().to_string()).collect();
        fs::write(format!("{file}.new"), pids.join(" ")).unwrap();
        fs::rename(format!("{file}.new"), &file).unwrap();
        term.recv().await;
        // Still alive: the init process has to end it.
        assert!(child.try_wait().unwrap().is_none());
    });
    std::process::exit(i32::from(CODE));
}

/// SIGINT is what PostgreSQL's images name as STOPSIGNAL, and so what the kubelet sends.
#[test]
fn told_to_end_the_init_process_asks_the_agent_and_ends_with_every_descendant() {
    run(async |w| {
        for told in [Signal::TERM, Signal::INT, Signal::QUIT] {
            let file = w.path().join(format!("pids-{}", told.as_raw()));
            let mut init = Command::new("/proc/self/exe")
                .args(["--exact", "init::agent", "--nocapture"])
                .env(FILE, &file)
                .spawn()
                .unwrap();
            let pids =
                eventually("the agent has started its children", async || fs::read_to_string(&file).ok())
                    .await;
            kill_process(Pid::from_child(&init), told).unwrap();
            let status = eventually("the init process ends", async || init.try_wait().unwrap()).await;
            assert_eq!(status.code(), Some(i32::from(CODE)), "{told:?}");
            for pid in pids.split(' ') {
                let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
                assert!(stat.is_empty() || stat.contains(") Z "), "{stat}");
            }
        }
    });
}

/// As [`Command`] of this test, in which [`agent`] runs as PID 1 of its own namespace, as in a container.
fn in_a_namespace(program: &Path) -> Command {
    let mut command = Command::new("unshare");
    if !rustix::process::geteuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    command.args(["--pid", "--fork", "--mount-proc", "--kill-child"]).arg(program);
    command
}

/// Lets a process open nothing more, so that it cannot list processes either.
fn take_descriptors(pid: Pid) {
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    prlimit(Some(pid), Resource::Nofile, none).unwrap();
}

fn child_of(pid: u32) -> Option<Pid> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    Pid::from_raw(children.split_whitespace().next()?.parse().ok()?)
}

/// The kernel lets nobody see them without a descriptor; what it lets its init process do is kill them all, and count none.
#[test]
fn an_init_process_that_cannot_list_processes_ends_with_every_descendant_and_at_once() {
    run(async |w| {
        for (name, childless, own_namespace) in
            [("childless", true, false), ("namespace-childless", true, true), ("namespace", false, true)]
        {
            let file = w.path().join(name);
            let mut command =
                if own_namespace { in_a_namespace(&w.program()) } else { Command::new("/proc/self/exe") };
            command.args(["--exact", "init::agent", "--nocapture"]).env(FILE, &file);
            if childless {
                command.env(CHILDLESS, "1");
            }
            let mut started = command.spawn().unwrap();
            eventually("the agent runs", async || file.exists().then_some(())).await;
            let own = Pid::from_child(&started);
            let init = if own_namespace { child_of(started.id()).unwrap() } else { own };
            take_descriptors(init);
            let begin = Instant::now();
            kill_process(init, Signal::TERM).unwrap();
            let status = eventually("the init process ends", async || started.try_wait().unwrap()).await;
            println!("{name}: ended after {:?}", begin.elapsed());
            assert_eq!(status.code(), Some(i32::from(CODE)), "{name}");
            assert!(begin.elapsed() < Duration::from_secs(5), "{name}: {:?}", begin.elapsed());
        }
    });
}

#[test]
fn an_orphaned_backend_keeps_the_lock_until_the_tree_is_killed() {
    run(async |w| {
        let postmaster = w.primary().await;
        let client = w.a.person("postgres").await.unwrap();
        let busy = tokio::spawn(async move {
            // Never looks whether its postmaster is still there.
            let text = "DO $$ BEGIN FOR i IN 1..2000000000 LOOP PERFORM 1; END LOOP; END $$";
            let _ = client.batch_execute(text).await;
        });
        eventually("the backend is busy", async || {
            let client = w.a.person("postgres").await.ok()?;
            let query = "SELECT FROM pg_stat_activity WHERE state = 'active' AND query LIKE 'DO%'";
            client.query_opt(query, &[]).await.ok()?
        })
        .await;
        let (flushed, waited_for) = w.a.sql.positions().await.unwrap();
        assert!(flushed.is_some() && waited_for.is_none(), "nobody waits for the disk: {waited_for:?}");
        kill_process(postmaster.pid(), Signal::KILL).unwrap();
        postmaster.exited().await;
        let tree = Tree::of_agent();
        eventually("only the busy backend is left", async || {
            (tree.alive().unwrap().len() == 1).then_some(())
        })
        .await;
        assert!(VolumeLock::try_acquire(&w.a.settings.layout.lock()).unwrap().is_none());
        let begin = Instant::now();
        let killed = tree.kill(Duration::from_secs(10));
        assert_eq!((killed.left, tree.alive().unwrap().len()), (Some(0), 0));
        assert!(w.a.free().await.is_some());
        println!("killed and lock free after {:?}: {killed:?}", begin.elapsed());
        let _ = busy.await;
    });
}
