//! What the agents' journals tell of a failover.

use std::path::Path;
use std::process::Command;

use pgpair_core::ids::InstanceId;
use pgpair_core::journal::Line;
use pgpair_core::journal::shorthand::Short;
use pgpair_core::record::Mode;
use rustix::process::Signal;

use crate::pair::{LIMIT, Pair, eventually};

const A: InstanceId = InstanceId::A;
const B: InstanceId = InstanceId::B;

fn explain(args: &[&Path]) -> String {
    let out = Command::new(env!("CARGO_BIN_EXE_pgpair")).arg("explain").args(args).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

/// Position in the story of the first line of `who` with these words, from `after` on.
fn told(story: &str, who: InstanceId, words: &str, after: usize) -> usize {
    let mark = format!(" {who}  ");
    let found = story.lines().enumerate().skip(after).find(|(_, l)| l.contains(&mark) && l.contains(words));
    assert!(found.is_some(), "{who} does not tell of {words:?} after line {after}:\n{story}");
    found.map_or(0, |(n, _)| n)
}

/// Whether a look at a primary is in its journal that shows what its standby has.
fn shows_standby(journal: &Path) -> bool {
    let text = std::fs::read_to_string(journal.join("current.jsonl")).unwrap_or_default();
    let mut lines = text.lines().filter_map(|line| serde_json::from_str::<Line>(line).ok());
    lines.any(|line| matches!(line, Line::Short(_, _, Short::Primary(Some(at), Some(has))) if has <= at))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_journals_of_both_sides_tell_of_a_resignation_and_of_the_take_over() {
    let pair = Pair::up().await;
    eventually("the primary's look shows its standby's position", LIMIT, async || {
        shows_standby(&pair.journal(A)).then_some(())
    })
    .await;
    rustix::process::kill_process(pair.postmaster_pid(A), Signal::KILL).unwrap();
    eventually("b takes writes", LIMIT, async || pair.is_writable(B).await.then_some(())).await;
    eventually("they are a pair again", LIMIT, async || {
        let r = pair.api.record();
        (r.primary.instance == B && r.mode == Mode::Paired).then_some(())
    })
    .await;
    let [a, b] = [A, B].map(|i| pair.journal(i));
    if let Some(keep) = std::env::var_os("PGPAIR_KEEP_JOURNALS") {
        for (i, dir) in [(A, &a), (B, &b)] {
            std::fs::copy(dir.join("current.jsonl"), Path::new(&keep).join(format!("{i}.jsonl"))).unwrap();
        }
    }
    // The clocks of both are one here, so the order of the two sides is right as well.
    let story = explain(&[&a, &b]);
    let paired = told(&story, A, "PAIRING", 0);
    let died = told(&story, A, "postgres: Down", paired);
    told(&story, A, "asks the standby whether it can take over", died);
    let resigned = told(&story, A, "RESIGNED", died);
    told(&story, A, "the gate closes: Resigned", died);
    let heard = told(&story, B, "resigns term 1", resigned);
    let taking =
        told(&story, B, "TAKING OVER term 2: the primary resigned, and its whole log is here", heard);
    let won = told(&story, B, "WON: the record names this process as primary of term 2", taking);
    told(&story, B, "postgres is to be promoted", taking);
    told(&story, B, "postgres: Primary", won);
    told(&story, A, "is standby of term 2", resigned);
    let by_pipe = Command::new(env!("CARGO_BIN_EXE_pgpair"))
        .args(["explain", "-"])
        .stdin(std::fs::File::open(a.join("current.jsonl")).unwrap())
        .output()
        .unwrap();
    assert!(String::from_utf8_lossy(&by_pipe.stdout).contains("RESIGNED"), "{by_pipe:?}");
    assert!(explain(&[&a]).contains("standby of term 2") && !explain(&[&a]).contains(" b  "));
}
