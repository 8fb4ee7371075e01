//! The batches, and the claims: each spec is refused in words or taken; the operator goes on, writes a bounded amount, comes to rest and
//! gives its memory back; the good pair is looked after meanwhile.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use kube::Client;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::scale::pairs;
use crate::scale::row::tenths;
use crate::scale::stage::Stage;
use crate::specs::draw::{Drawn, Generator, Manner};
use crate::specs::judge::{Verdict, judge};
use crate::specs::row::Row;

/// Of the specs.
pub const NAMESPACE: &str = "specs";
const PAIRS: &str = "/apis/pgpair.dev/v1alpha1/namespaces/specs/pgreplicapairs";
const SETS: &str = "/apis/apps/v1/namespaces/specs/statefulsets";
/// What a pair leaves behind: nothing here collects it but we.
const CHILDREN: [&str; 14] = [
    SETS,
    "/api/v1/namespaces/specs/pods",
    "/api/v1/namespaces/specs/services",
    "/api/v1/namespaces/specs/secrets",
    "/api/v1/namespaces/specs/configmaps",
    "/api/v1/namespaces/specs/serviceaccounts",
    "/api/v1/namespaces/specs/persistentvolumeclaims",
    "/apis/batch/v1/namespaces/specs/jobs",
    "/apis/rbac.authorization.k8s.io/v1/namespaces/specs/roles",
    "/apis/rbac.authorization.k8s.io/v1/namespaces/specs/rolebindings",
    "/apis/policy/v1/namespaces/specs/poddisruptionbudgets",
    "/apis/networking.k8s.io/v1/namespaces/specs/networkpolicies",
    "/apis/coordination.k8s.io/v1/namespaces/specs/leases",
    "/apis/discovery.k8s.io/v1/namespaces/specs/endpointslices",
];
/// Specs that are there at the same time.
const BATCH: usize = 50;
/// For the good pair to be there.
const BRING_UP: Duration = Duration::from_secs(180);
/// For the operator to say something of a spec.
const JUDGED: Duration = Duration::from_secs(60);
/// For the operator to come to rest after a batch, and how long it is watched at rest.
const SETTLED: Duration = Duration::from_secs(60);
/// See [`SETTLED`].
const WINDOW: Duration = Duration::from_secs(3);
/// For a change of the good pair to arrive.
const ARRIVED: Duration = Duration::from_secs(30);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(500);
/// Writes of the operator for one spec: about thirty objects, their statuses, Events, and a few tries.
const WRITES: f64 = 120.0;
/// Memory that it may take beyond what it had, at its peak and in the end.
const PEAK_MIB: f64 = 192.0;
/// See [`PEAK_MIB`].
const LEFT_MIB: f64 = 64.0;
/// Sentences about broken claims that are kept.
const MOST_BROKEN: usize = 50;

/// How much is tried.
#[derive(Debug, Clone, Copy)]
pub struct Extent {
    /// Specs.
    pub specs: usize,
    /// After so long no further batch begins.
    pub time: Duration,
}

/// One run on a stage with one pair, the good one. What breaks a claim is in the row, and beside the logs in `folder`.
///
/// # Errors
/// When the control plane ends, or the good pair does not come up.
pub async fn run(
    stage: &mut Stage,
    client: &Client,
    generator: &mut Generator,
    extent: Extent,
    folder: &Path,
    row: &mut Row,
) -> anyhow::Result<()> {
    pairs::create_namespace(client, NAMESPACE).await?;
    stage.await_calm(BRING_UP).await.context("the good pair")?;
    stage.check_ready(client).await?;
    row.rss_before_mib = mib(stage.operator.footprint()?.rss_bytes);
    let began = Instant::now();
    let mut run = Run { stage, client, folder, row };
    while run.row.specs < extent.specs && began.elapsed() < extent.time {
        let size = BATCH.min(extent.specs - run.row.specs);
        if let Err(error) = run.batch(generator, size).await {
            // A dead operator is a finding; a dead control plane is none.
            run.stage.plane.check()?;
            run.broken(&format!("{error:#}"), None);
            break;
        }
        if run.row.specs % (10 * BATCH) < BATCH {
            println!(
                "  {:5} specs after {:.0} s: {:?}",
                run.row.specs,
                began.elapsed().as_secs_f64(),
                run.row.taken
            );
        }
    }
    run.end().await?;
    row.took_s = tenths(began.elapsed().as_secs_f64());
    Ok(())
}

/// One object that the API server took.
#[derive(Debug)]
struct Taken {
    name: String,
    sent: Value,
}

/// What the API server says.
enum Answer {
    Taken(Value),
    Refused(u16, String),
}

struct Run<'a> {
    stage: &'a mut Stage,
    client: &'a Client,
    folder: &'a Path,
    row: &'a mut Row,
}

impl Run<'_> {
    async fn batch(&mut self, generator: &mut Generator, size: usize) -> anyhow::Result<()> {
        let (before, specs) = (self.stage.counts(), self.row.specs);
        let mut taken = Vec::new();
        for _ in 0..size.div_ceil(2).max(1) {
            let drawn = generator.draw(NAMESPACE, self.row.specs);
            self.count(drawn.manner);
            let answer = self.request("POST", PAIRS, "application/json", &drawn.object).await?;
            taken.extend(self.hear(answer, &drawn)?);
        }
        self.change_the_good_pair(specs).await?;
        let mut verdicts = self.await_verdicts(&taken).await?;
        // What was taken is changed, too: other rules hold for that.
        let mut changed = Vec::new();
        for one in taken.iter().take(size.saturating_sub(self.row.specs - specs)) {
            let spec = json!({"spec": generator.spec(Manner::Near)});
            self.count(Manner::Near);
            let path = format!("{PAIRS}/{}", one.name);
            let answer = self.request("PATCH", &path, "application/merge-patch+json", &spec).await?;
            changed.extend(self.hear(answer, &Drawn { manner: Manner::Near, object: spec })?);
        }
        verdicts.extend(self.await_verdicts(&changed).await?);
        for verdict in verdicts {
            *self.row.taken.entry(word(&verdict)).or_default() += 1;
        }
        self.settle(taken.len()).await?;
        let written = self.stage.counts() - &before;
        self.row.writes += written.writes;
        let per_spec = written.writes as f64 / (self.row.specs - specs).max(1) as f64;
        self.row.writes_per_spec = self.row.writes_per_spec.max(tenths(per_spec));
        if per_spec > WRITES {
            self.broken(
                &format!("{per_spec:.0} writes for each spec of a batch: {:?}", written.by_kind),
                None,
            );
        }
        self.clear().await
    }

    fn count(&mut self, manner: Manner) {
        self.row.specs += 1;
        match manner {
            Manner::Plain => self.row.plain += 1,
            Manner::Near => self.row.near += 1,
            Manner::Hostile => self.row.hostile += 1,
        }
    }

    /// Counts a refusal; a refusal without a word is none.
    fn hear(&mut self, answer: Answer, drawn: &Drawn) -> anyhow::Result<Option<Taken>> {
        match answer {
            Answer::Taken(object) => {
                let name = object["metadata"]["name"].as_str().context("an object without a name")?;
                Ok(Some(Taken { name: name.to_owned(), sent: drawn.object.clone() }))
            }
            Answer::Refused(code, why) => {
                *self.row.refused_by_server.entry(code).or_default() += 1;
                if why.trim().is_empty() || code >= 500 {
                    self.broken(&format!("the API server answers {code}: {why:?}"), Some(&drawn.object));
                }
                Ok(None)
            }
        }
    }

    /// Waits until the operator has said something of each, and keeps the first sentence of each kind of refusal.
    async fn await_verdicts(&mut self, taken: &[Taken]) -> anyhow::Result<Vec<Verdict>> {
        let end = Instant::now() + JUDGED;
        loop {
            self.stage.operator.footprint().context("with these specs")?;
            let (all, sets) = (self.list(PAIRS).await?, self.list(SETS).await?);
            let of = |name: &str| all.iter().find(|pair| pair["metadata"]["name"] == name);
            let has_sets =
                |name: &str| sets.iter().any(|set| set["metadata"]["labels"]["pgpair.dev/pair"] == name);
            let verdicts: Vec<Verdict> = taken
                .iter()
                .map(|one| of(&one.name).map_or(Verdict::Open, |pair| judge(pair, has_sets(&one.name))))
                .collect();
            if verdicts.iter().all(|verdict| *verdict != Verdict::Open) {
                self.keep_examples(&all);
                return Ok(verdicts);
            }
            if Instant::now() >= end {
                for (one, _) in taken.iter().zip(&verdicts).filter(|(_, verdict)| **verdict == Verdict::Open)
                {
                    let status =
                        of(&one.name).map_or(Value::Null, |pair| pair["status"]["conditions"].clone());
                    let text =
                        format!("{} is neither built nor refused within {JUDGED:?}: {status}", one.name);
                    self.broken(&text, Some(&one.sent));
                }
                return Ok(verdicts);
            }
            sleep(LOOK).await;
        }
    }

    fn keep_examples(&mut self, all: &[Value]) {
        for pair in all {
            let conditions = pair["status"]["conditions"].as_array().into_iter().flatten();
            for condition in conditions.filter(|c| c["type"] == "Degraded" && c["status"] == "True") {
                let (Some(reason), Some(message)) =
                    (condition["reason"].as_str(), condition["message"].as_str())
                else {
                    continue;
                };
                self.row.examples.entry(reason.to_owned()).or_insert_with(|| message.to_owned());
            }
        }
    }

    /// Waits until the operator writes next to nothing.
    async fn settle(&mut self, taken: usize) -> anyhow::Result<()> {
        let end = Instant::now() + SETTLED;
        loop {
            let before = self.stage.counts();
            sleep(WINDOW).await;
            self.stage.operator.footprint().context("while it came to rest")?;
            let written = self.stage.counts() - &before;
            if written.writes <= 1 + taken as u64 / 4 {
                return Ok(());
            }
            if Instant::now() >= end {
                let text = format!(
                    "{} writes within {WINDOW:?}, {SETTLED:?} after {taken} specs: {:?}",
                    written.writes, written.by_kind
                );
                self.broken(&text, None);
                return Ok(());
            }
        }
    }

    /// A change of the good pair comes to its agents while the operator has the batch before it.
    async fn change_the_good_pair(&mut self, number: usize) -> anyhow::Result<()> {
        let name = pairs::name(0);
        let path =
            format!("/apis/pgpair.dev/v1alpha1/namespaces/{}/pgreplicapairs/{}", name.namespace, name.name);
        let change =
            json!({"spec": {"postgres": {"parameters": {"work_mem": format!("{}kB", 8192 + number)}}}});
        let began = Instant::now();
        let answer = self.request("PATCH", &path, "application/merge-patch+json", &change).await?;
        let Answer::Taken(changed) = answer else { bail!("the change of the good pair was refused") };
        let generation = changed["metadata"]["generation"].as_i64().context("a pair without a generation")?;
        while began.elapsed() < ARRIVED {
            if let Some(at) = self.stage.agents.configured(0, generation) {
                let took = tenths(at.saturating_duration_since(began).as_secs_f64() * 1000.0);
                self.row.good_changes += 1;
                self.row.good_slowest_ms = self.row.good_slowest_ms.max(took);
                return Ok(());
            }
            self.stage.operator.footprint().context("beside the good pair")?;
            sleep(Duration::from_millis(20)).await;
        }
        self.broken(&format!("a change of the good pair did not arrive within {ARRIVED:?}"), None);
        Ok(())
    }

    /// Deletes the pairs, and when the operator has let go of them, what they have left.
    async fn clear(&mut self) -> anyhow::Result<()> {
        self.delete_all(PAIRS).await?;
        self.settle(0).await?;
        for path in CHILDREN {
            self.delete_all(path).await?;
        }
        Ok(())
    }

    async fn delete_all(&self, path: &str) -> anyhow::Result<()> {
        match self.request("DELETE", path, "application/json", &json!({"gracePeriodSeconds": 0})).await? {
            Answer::Taken(_) => Ok(()),
            Answer::Refused(code, why) => bail!("deleting {path}: {code} {why}"),
        }
    }

    async fn list(&self, path: &str) -> anyhow::Result<Vec<Value>> {
        let request = http::Request::get(path).body(Vec::new())?;
        let list: Value = self.client.request(request).await.with_context(|| format!("listing {path}"))?;
        Ok(list["items"].as_array().cloned().unwrap_or_default())
    }

    /// Unknown fields without a warning: each would be a header, and the client takes a hundred of those.
    async fn request(&self, method: &str, path: &str, kind: &str, body: &Value) -> anyhow::Result<Answer> {
        let uri = format!("{path}?fieldValidation=Ignore");
        let request = http::Request::builder().method(method).uri(uri).header("content-type", kind);
        match self.client.request::<Value>(request.body(serde_json::to_vec(body)?)?).await {
            Ok(object) => Ok(Answer::Taken(object)),
            Err(kube::Error::Api(status)) => Ok(Answer::Refused(status.code, status.message.clone())),
            Err(error) => Err(error).with_context(|| format!("{method} {path}")),
        }
    }

    fn broken(&mut self, text: &str, object: Option<&Value>) {
        eprintln!("  broken: {text}");
        if let Some(object) = object {
            let file = self.folder.join(format!("broken-{:05}.json", self.row.specs));
            if let Err(error) = std::fs::write(&file, object.to_string()) {
                eprintln!("  {} cannot be written: {error}", file.display());
            }
        }
        if self.row.broken.len() < MOST_BROKEN {
            self.row.broken.push(text.to_owned());
        }
    }

    /// All is gone: what the operator has kept of it.
    async fn end(&mut self) -> anyhow::Result<()> {
        self.row.rss_peak_mib = self.stage.operator.peak().map_or(0.0, mib);
        match self.stage.operator.footprint() {
            Ok(after) => self.row.rss_after_mib = mib(after.rss_bytes),
            Err(error) => self.broken(&format!("{error:#}"), None),
        }
        let (before, peak, after) = (self.row.rss_before_mib, self.row.rss_peak_mib, self.row.rss_after_mib);
        if peak > before + PEAK_MIB || after > before + LEFT_MIB {
            self.broken(
                &format!("memory of the operator: {before} MiB before, {peak} at its peak, {after} after"),
                None,
            );
        }
        Ok(())
    }
}

fn word(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Built => "built".to_owned(),
        Verdict::Refused(reason) => format!("refused: {reason}"),
        Verdict::Paused => "paused".to_owned(),
        Verdict::OfAnotherClass => "of another class".to_owned(),
        Verdict::Open => "open".to_owned(),
    }
}

fn mib(bytes: u64) -> f64 {
    tenths(bytes as f64 / f64::from(1 << 20))
}
