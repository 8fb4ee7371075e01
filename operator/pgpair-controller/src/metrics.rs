//! Metrics of the operator. Everything of the status at full resolution, plus counters of its own work.

use std::fmt::Write as _;
use std::sync::Mutex;
use std::sync::atomic::AtomicU64;
use std::time::Instant;

use pgpair_api::names::PairName;
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

/// A pair.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct PairLabels {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
}

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

/// All metrics.
#[derive(Debug)]
pub struct Metrics {
    registry: Mutex<Registry>,
    /// Reconciles that ended.
    pub reconciles: Counter,
    /// Reconciles that failed.
    pub errors: Family<ErrorLabels, Counter>,
    /// Seconds of each reconcile.
    pub duration: Histogram,
    /// Writes to the API server.
    pub writes: Family<WriteLabels, Counter>,
    /// Whether this replica leads.
    pub leader: Gauge,
    /// Total lag of the standby in bytes.
    pub lag_bytes: Family<PairLabels, Gauge>,
    /// Total lag of the standby in seconds.
    pub lag_seconds: Family<PairLabels, Gauge<f64, AtomicU64>>,
    /// Term of the record.
    pub term: Family<PairLabels, Gauge>,
    /// Whether a primary takes writes.
    pub ready: Family<PairLabels, Gauge>,
    /// Whether the standby may take over.
    pub failover_ready: Family<PairLabels, Gauge>,
}

impl Default for Metrics {
    fn default() -> Self {
        let metrics = Metrics {
            registry: Mutex::new(Registry::with_prefix("pgpair_operator")),
            reconciles: Counter::default(),
            errors: Family::default(),
            duration: Histogram::new(exponential_buckets(0.001, 4.0, 8)),
            writes: Family::default(),
            leader: Gauge::default(),
            lag_bytes: Family::default(),
            lag_seconds: Family::default(),
            term: Family::default(),
            ready: Family::default(),
            failover_ready: Family::default(),
        };
        metrics.register();
        metrics
    }
}

impl Metrics {
    fn register(&self) {
        let Ok(mut r) = self.registry.lock() else { return };
        r.register("reconciles", "Reconciles that ended", self.reconciles.clone());
        r.register("reconcile_errors", "Reconciles that failed", self.errors.clone());
        r.register("reconcile_duration_seconds", "Seconds of each reconcile", self.duration.clone());
        r.register("api_writes", "Writes to the API server", self.writes.clone());
        r.register("leader", "1 while this replica leads", self.leader.clone());
        r.register("pair_lag_bytes", "WAL that the standby has not replayed", self.lag_bytes.clone());
        r.register(
            "pair_lag_seconds",
            "Age of the oldest WAL that the standby has not replayed",
            self.lag_seconds.clone(),
        );
        r.register("pair_term", "Term of the record", self.term.clone());
        r.register("pair_ready", "1 while a primary takes writes", self.ready.clone());
        r.register("pair_failover_ready", "1 while the standby may take over", self.failover_ready.clone());
    }

    /// Text in the OpenMetrics format.
    #[must_use]
    pub fn render(&self) -> String {
        let mut out = String::new();
        match self.registry.lock() {
            Ok(registry) if text::encode(&mut out, &registry).is_ok() => out,
            _ => {
                let _ = writeln!(out, "# EOF"); // an empty exposition is valid; a broken one is not
                out
            }
        }
    }

    /// Counts a write.
    pub fn wrote(&self, kind: &str, verb: &'static str) {
        self.writes.get_or_create(&WriteLabels { kind: kind.to_owned(), verb }).inc();
    }

    /// Measures until it is dropped.
    #[must_use]
    pub fn reconcile_timer(&self) -> ReconcileTimer<'_> {
        ReconcileTimer { metrics: self, start: Instant::now() }
    }

    /// Removes the series of a pair that is gone.
    pub fn forget(&self, pair: &PairName) {
        let labels = labels(pair);
        self.lag_bytes.remove(&labels);
        self.lag_seconds.remove(&labels);
        self.term.remove(&labels);
        self.ready.remove(&labels);
        self.failover_ready.remove(&labels);
    }
}

/// Labels of a pair.
#[must_use]
pub fn labels(pair: &PairName) -> PairLabels {
    PairLabels { namespace: pair.namespace.clone(), name: pair.name.clone() }
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
