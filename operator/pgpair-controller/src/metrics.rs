//! Metrics of the operator. Everything of the status at full resolution, plus counters of its own work.

mod pair;

use std::time::Instant;

use pgpair_api::names::PairName;
use pgpair_core::authority::messages::EvidenceKind;
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use crate::plan::{Notice, RollStep};
pub use pair::PairMetrics;

/// Before the name of each metric.
const PREFIX: &str = "pgpair_operator";

/// A write to the API server.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct WriteLabels {
    /// Kind of the object.
    pub kind: String,
    /// `create`, `apply`, `replace`, `replace_status`, `delete` or `event`.
    pub verb: &'static str,
}

/// A failed reconcile.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ErrorLabels {
    /// See [`crate::error::Error::label`].
    pub error: &'static str,
}

/// A step that was taken.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct DecisionLabels {
    /// A word such as `seeding_started`; for proofs of death with their kind.
    pub decision: &'static str,
}

/// An order of a person that came to an end.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OrderLabels {
    /// `Switchover` and so on; empty if it could not be read.
    pub kind: &'static str,
    /// `Done`, `Refused` or `Failed`.
    pub state: &'static str,
}

/// Errors of the watches of a kind.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct WatchLabels {
    /// Kind of the objects.
    pub kind: String,
}

/// A pair.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct PairLabels {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// All metrics.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Reconciles that ended.
    pub reconciles: Counter,
    /// Reconciles that failed.
    pub errors: Family<ErrorLabels, Counter>,
    /// Seconds of each reconcile.
    pub duration: Histogram,
    /// Writes to the API server.
    pub writes: Family<WriteLabels, Counter>,
    /// Steps that were taken.
    pub decisions: Family<DecisionLabels, Counter>,
    /// Orders that came to an end.
    pub orders: Family<OrderLabels, Counter>,
    /// Errors of watches.
    pub watch_errors: Family<WatchLabels, Counter>,
    /// Events that were dropped because too many waited.
    pub events_dropped: Counter,
    /// 1 for each pair that cannot be decoded.
    pub undecodable: Family<PairLabels, Gauge>,
    /// Whether this replica leads.
    pub leader: Gauge,
    /// Whether this installation stands aside for another one.
    pub conflict: Gauge,
    /// Pairs whose roll has begun and is not done.
    pub rolling: Gauge,
    /// Those of them that hold the roll-out up.
    pub rolls_failed: Gauge,
    /// What is known of each pair.
    pub pairs: PairMetrics,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut metrics = Metrics {
            registry: Registry::with_prefix(PREFIX),
            reconciles: Counter::default(),
            errors: Family::default(),
            duration: Histogram::new(exponential_buckets(0.001, 4.0, 8)),
            writes: Family::default(),
            decisions: Family::default(),
            orders: Family::default(),
            watch_errors: Family::default(),
            events_dropped: Counter::default(),
            undecodable: Family::default(),
            leader: Gauge::default(),
            conflict: Gauge::default(),
            rolling: Gauge::default(),
            rolls_failed: Gauge::default(),
            pairs: PairMetrics::default(),
        };
        metrics.register();
        metrics
    }
}

impl Metrics {
    fn register(&mut self) {
        let r = &mut self.registry;
        r.register("reconciles", "Reconciles that ended", self.reconciles.clone());
        r.register("reconcile_errors", "Reconciles that failed", self.errors.clone());
        r.register("reconcile_duration_seconds", "Seconds of each reconcile", self.duration.clone());
        r.register("api_writes", "Writes to the API server", self.writes.clone());
        r.register("decisions", "Steps that were taken", self.decisions.clone());
        r.register("orders", "Orders of people that came to an end", self.orders.clone());
        r.register("watch_errors", "Errors of watches, which are opened again", self.watch_errors.clone());
        r.register(
            "events_dropped",
            "Events that were dropped because too many waited for the API server",
            self.events_dropped.clone(),
        );
        r.register(
            "undecodable",
            "1 for a pair that this version of the operator cannot read",
            self.undecodable.clone(),
        );
        r.register("leader", "1 while this replica leads", self.leader.clone());
        r.register("rolling", "Pairs whose roll has begun and is not done", self.rolling.clone());
        r.register(
            "rolls_failed",
            "Pairs whose roll has failed: the roll-out stops",
            self.rolls_failed.clone(),
        );
        r.register(
            "operator_conflict",
            "1 while this installation stands aside for another one that looks after the same pairs",
            self.conflict.clone(),
        );
    }

    /// Counts a step that was taken.
    pub fn decided(&self, notice: &Notice) {
        self.decisions.get_or_create(&DecisionLabels { decision: decision(notice) }).inc();
    }

    /// Text in the OpenMetrics format, in parts: first that of the operator's own work, then one for each gauge of the pairs, as they stood at
    /// the call. With many pairs the whole is large: it never stands in memory at once, and no reconcile waits for whoever reads it.
    pub fn parts(&self) -> impl Iterator<Item = String> + Send + use<> {
        let own = encoded(&self.registry);
        let gauges = self.pairs.gauges().map(|gauge| {
            let mut registry = Registry::with_prefix(PREFIX);
            registry.register_collector(Box::new(gauge));
            encoded(&registry)
        });
        std::iter::once(own).chain(gauges).chain(std::iter::once("# EOF\n".to_owned()))
    }

    /// All parts as one text.
    #[cfg(test)]
    pub fn render(&self) -> String {
        self.parts().collect()
    }

    /// Counts a write.
    pub fn wrote(&self, kind: &str, verb: &'static str) {
        self.writes.get_or_create(&WriteLabels { kind: kind.to_owned(), verb }).inc();
    }

    /// Shows how many pairs roll, and how many of these hold the others up.
    pub fn show_rollout(&self, (rolling, failed): (usize, usize)) {
        self.rolling.set(i64::try_from(rolling).unwrap_or(i64::MAX));
        self.rolls_failed.set(i64::try_from(failed).unwrap_or(i64::MAX));
    }

    /// Counts an error of a watch.
    pub fn watch_broke(&self, kind: &str) {
        self.watch_errors.get_or_create(&WatchLabels { kind: kind.to_owned() }).inc();
    }

    /// Notes whether a pair can be decoded.
    pub fn decoded(&self, pair: &PairName, decodable: bool) {
        let labels = PairLabels { namespace: pair.namespace.clone(), name: pair.name.clone() };
        if decodable {
            self.undecodable.remove(&labels);
        } else {
            self.undecodable.get_or_create(&labels).set(1);
        }
    }

    /// Measures until it is dropped.
    #[must_use]
    pub fn reconcile_timer(&self) -> ReconcileTimer<'_> {
        ReconcileTimer { metrics: self, start: Instant::now() }
    }

    /// Removes the series of a pair that is gone.
    pub fn forget(&self, pair: &PairName) {
        self.pairs.forget(pair);
        self.decoded(pair, true);
    }
}

/// A part that cannot be encoded is left out: a text without it is valid, a broken one is not.
fn encoded(registry: &Registry) -> String {
    let mut out = String::new();
    text::encode_registry(&mut out, registry).map_or_else(|_| String::new(), |()| out)
}

fn decision(notice: &Notice) -> &'static str {
    match notice {
        Notice::Bootstrapping => "bootstrapping",
        Notice::Adopted(..) => "adopted",
        Notice::RecordDiscarded => "record_discarded",
        Notice::RebuildStarted(..) => "rebuild_started",
        Notice::SeedingStarted(..) => "seeding_started",
        Notice::SeedingFinished(..) => "seeding_finished",
        Notice::EndpointRepaired(_) => "endpoint_repaired",
        Notice::EvidenceSent(_, evidence) => match evidence.kind {
            EvidenceKind::OutOfServiceTaint => "evidence_taint",
            EvidenceKind::KubeletTerminated | EvidenceKind::VolumeLock | EvidenceKind::Person => {
                "evidence_kubelet"
            }
        },
        Notice::PodReleased(..) => "pod_released",
        Notice::Rolling(RollStep::Recreate { .. }, _) => "roll_pod",
        Notice::Rolling(RollStep::Send { .. }, _) => "roll_order",
    }
}

/// Records the duration of a reconcile when dropped, so that early returns count too.
#[derive(Debug)]
pub struct ReconcileTimer<'a> {
    metrics: &'a Metrics,
    start: Instant,
}

impl Drop for ReconcileTimer<'_> {
    fn drop(&mut self) {
        self.metrics.reconciles.inc();
        self.metrics.duration.observe(self.start.elapsed().as_secs_f64());
    }
}
