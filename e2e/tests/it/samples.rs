//! Objects that must not be accepted.

use std::fs;

use anyhow::{Context as _, ensure};
use pgpair_e2e::harness::pair::dry_run;
use pgpair_e2e::repository;

use crate::Outcome;
use crate::context::Context;

/// Each file under `docs/samples/invalid` begins with a comment `# expect: part of the message`.
pub async fn invalid_samples_are_refused_with_the_sentence_they_expect(
    c: &mut Context,
) -> anyhow::Result<Outcome> {
    let namespace = c.namespace().await?;
    let cluster = c.cluster()?;
    let samples = repository::root().join("docs/samples");
    for file in ["pair.yaml", "full.yaml"] {
        let valid = fs::read_to_string(samples.join(file)).with_context(|| format!("reading {file}"))?;
        dry_run(&cluster, &namespace, &valid).await.with_context(|| format!("{file} must be accepted"))?;
    }

    let mut files: Vec<_> = fs::read_dir(samples.join("invalid"))
        .context("reading docs/samples/invalid")?
        .map(|entry| entry.map(|e| e.path()))
        .collect::<Result<_, _>>()?;
    files.retain(|path| path.extension().is_some_and(|e| e == "yaml"));
    files.sort();
    ensure!(!files.is_empty(), "there are no invalid samples");
    let mut wrong = Vec::new();
    for path in &files {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let text = fs::read_to_string(path)?;
        let expected = text.lines().next().and_then(|line| line.strip_prefix("# expect: "));
        let expected = expected.with_context(|| format!("{name} does not begin with `# expect: `"))?;
        match dry_run(&cluster, &namespace, &text).await {
            Ok(()) => wrong.push(format!("{name} was accepted")),
            Err(error) => {
                let message = format!("{error:#}");
                if !message.contains(expected.trim()) {
                    wrong.push(format!("{name}: expected {expected:?} in: {message}"));
                }
            }
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    println!("  {} invalid samples refused", files.len());
    Ok(Outcome::Passed)
}
