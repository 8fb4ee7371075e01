//! `kubectl pgpair` and `pgpair explain` as people start them: what they print, and their exit status.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use pgpair_core::ids::InstanceId;
use pgpair_e2e::harness::pair::Pair;
use pgpair_e2e::harness::plugin::plugin;

use crate::Outcome;
use crate::context::Context;

/// For a pair to be whole.
const WHOLE: Duration = Duration::from_secs(240);

/// The page tells who is who; a pair that is not there is an error.
pub async fn the_status_page_tells_who_is_who(c: &mut Context) -> anyhow::Result<Outcome> {
    let pair = c.pair().await?;
    let status = pair.await_paired(1, WHOLE).await?;
    let primary = pair.primary_of(&status)?;
    let (namespace, name) = (&pair.names.namespace, pair.names.name.as_str());
    let run = async |args: &[&str]| plugin(&pair.cluster, namespace, args, "").await;
    let term = status.term.context("no term")?;
    let head = format!("{namespace}/{name}, PostgreSQL 17, Sync");
    let overview = format!("primary {}, term {term}, mode Paired", pair.names.instance(primary));
    let page = run(&["status", name]).await?;
    let lines = [head.as_str(), overview.as_str(), "FailoverReady", "INSTANCE", "LAG ", "LOSS ", "ARCHIVE "];
    let page = page.expect(0, &lines)?;
    for (instance, role) in [(primary, "Primary"), (primary.peer(), "Standby")] {
        let node = pair.node(instance).await?;
        let row = page.out.lines().find(|l| l.starts_with(&pair.names.instance(instance)));
        let row = row.with_context(|| format!("no row of {instance}: {}", page.out))?;
        ensure!([role, "yes", &node].iter().all(|word| row.contains(word)), "{role} on {node}: {row}");
    }
    let json = run(&["status", name, "-o", "json"]).await?.expect(0, &[])?;
    let told: serde_json::Value = serde_json::from_str(&json.out).context("the status as JSON")?;
    ensure!(told["primary"] == pair.names.instance(primary), "primary is {}", told["primary"]);
    run(&["status", "nowhere"]).await?.expect(1, &["error: ", "nowhere"])?;
    Ok(Outcome::Passed)
}

/// An order ends with 0 only when it was carried out; a refusal says what to do.
pub async fn orders_of_the_plugin_end_with_their_outcome(c: &mut Context) -> anyhow::Result<Outcome> {
    let pair = c.pair().await?;
    let status = pair.await_paired(1, WHOLE).await?;
    let (primary, term) = (pair.primary_of(&status)?, status.term.context("no term")?);
    let (namespace, name) = (&pair.names.namespace, pair.names.name.as_str());
    let run = async |args: &[&str]| plugin(&pair.cluster, namespace, args, "").await;
    let next = format!("primary {}, term {}", pair.names.instance(primary.peer()), term + 1);
    run(&["switchover", name]).await?.expect(0, &["Switchover", "done", &next])?;
    let status = pair.await_paired(term + 1, WHOLE).await?;
    ensure!(pair.primary_of(&status)? == primary.peer(), "the primary is {:?}", status.primary);

    let started = "SELECT pg_postmaster_start_time()";
    let before = pair.psql(primary, started).await?;
    run(&["restart", name, primary.as_str()]).await?.expect(0, &["Restart", "done"])?;
    pair.await_paired(term + 1, WHOLE).await?;
    let after = pair.psql(primary, started).await?;
    ensure!(before != after, "postgres of {primary} runs since {before}: it was not restarted");

    let rebuild = run(&["rebuild", name, primary.peer().as_str(), "--yes"]).await?;
    rebuild.expect(1, &["is the primary", "switchover"])?;
    // No terminal to ask on, and no word that it is meant.
    let promote = run(&["promote", name, "--primary-is-dead"]).await?;
    promote.expect(1, &["nothing was ordered"])?;
    let after = pair.status().await?;
    ensure!(after.term == Some(term + 1), "the term is {:?}", after.term);
    Ok(Outcome::Passed)
}

/// It is psql in the primary's container: its output, its input, and its exit status.
pub async fn psql_of_the_plugin_is_psql_on_the_primary(c: &mut Context) -> anyhow::Result<Outcome> {
    let pair = c.pair().await?;
    let status = pair.await_paired(1, WHOLE).await?;
    let standby = pair.primary_of(&status)?.peer();
    let (namespace, name) = (&pair.names.namespace, pair.names.name.as_str());
    let psql = async |args: &[&str], input: &str| {
        let all: Vec<&str> = ["psql", name].iter().chain(args).copied().collect();
        plugin(&pair.cluster, namespace, &all, input).await
    };
    let recovers = "SELECT pg_is_in_recovery()";
    let found = psql(&["--", "-Atc", recovers], "").await?.expect(0, &[])?;
    ensure!(found.out.trim() == "f", "the primary recovers: {found:?}");
    let found = psql(&["--instance", standby.as_str(), "--", "-Atc", recovers], "").await?.expect(0, &[])?;
    ensure!(found.out.trim() == "t", "the standby does not recover: {found:?}");
    let found = psql(&["--", "-At"], "SELECT 6 * 7;\n").await?.expect(0, &[])?;
    ensure!(found.out.trim() == "42", "from standard input: {found:?}");
    let owner = psql(&["--", "-Atc", "SHOW is_superuser"], "").await?.expect(0, &[])?;
    let superuser = psql(&["--superuser", "--", "-Atc", "SHOW is_superuser"], "").await?.expect(0, &[])?;
    let found = (owner.out.trim(), superuser.out.trim());
    ensure!(found == ("off", "on"), "superuser without and with being asked for: {found:?}");
    psql(&["--", "-c", "SELECT nonsense"], "").await?.expect(1, &["column \"nonsense\" does not exist"])?;
    // What psql says of a script that failed.
    psql(&["--", "-v", "ON_ERROR_STOP=1"], "SELECT nonsense;\n").await?.expect(3, &["nonsense"])?;
    Ok(Outcome::Passed)
}

/// After a switchover both journals, as one story, tell who resigned and who won; a journal that is none is an error.
pub async fn a_switchover_is_explained_by_the_journals_of_both(c: &mut Context) -> anyhow::Result<Outcome> {
    let pair = c.pair().await?;
    let before = pair.await_paired(1, WHOLE).await?;
    let after = pair.switch_over(&before, WHOLE).await?;
    let term = after.term.context("no term")?;
    let (old, new) = (pair.primary_of(&before)?, pair.primary_of(&after)?);
    ensure!(old != new, "nobody handed over");
    let journal = pair.shell(old, "cat /pgpair/run/journal/current.jsonl").await?;
    let story = explain(&pair, new, &format!("{journal}\n")).await?;
    let lines = [
        (old, "RESIGNED".to_owned()),
        (new, format!("TAKING OVER term {term}")),
        (new, format!("WON: the record names this process as primary of term {term}")),
    ];
    for (instance, words) in &lines {
        let mark = format!(" {} ", instance.as_str());
        let told = story.lines().any(|l| l.contains(&mark) && l.contains(words));
        ensure!(told, "{instance} does not say {words:?}; the end of the story: {}", end_of(&story));
    }
    let none = pair.shell(new, "/pgpair/bin/pgpair explain /pgpair/run/nothing").await;
    match none {
        Ok(said) => anyhow::bail!("a journal that is not there is explained: {said}"),
        Err(error) => ensure!(format!("{error:#}").contains("/pgpair/run/nothing"), "{error:#}"),
    }
    Ok(Outcome::Passed)
}

/// As the runbook says: the one journal in the pod, the other on standard input.
async fn explain(pair: &Pair, instance: InstanceId, other: &str) -> anyhow::Result<String> {
    let pod = pair.names.pod(instance);
    let exec = ["-n", &pair.names.namespace, "exec", "-i", &pod, "-c", "postgres", "--"];
    let explain = ["/pgpair/bin/pgpair", "explain", "/pgpair/run/journal", "-"];
    let args: Vec<&str> = exec.iter().chain(&explain).copied().collect();
    pair.cluster.kubectl_with_input(&args, other).await
}

fn end_of(story: &str) -> String {
    let lines: Vec<&str> = story.lines().collect();
    lines[lines.len().saturating_sub(40)..].join("\n")
}
