//! What is known of each pair, at full resolution. What is not known has no series: it is never zero.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pgpair_api::names::PairName;
use pgpair_api::status::{ConditionType, PgReplicaPairStatus};
use pgpair_api::word::Word;
use pgpair_core::ids::InstanceId;
use pgpair_core::lag::Lag;
use pgpair_core::record::Mode;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;

use crate::observed::Observed;
use crate::status::condition;

/// Name and help of each gauge, in the order of [`Of`].
const GAUGES: [(&str, &str); 39] = [
    ("pair_term", "Term of the record"),
    ("pair_paired", "1 in mode Paired, 0 in mode Solo"),
    ("pair_timeline", "Timeline of the primary"),
    ("pair_lag_bytes", "WAL that the standby has not replayed"),
    ("pair_lag_seconds", "Age of the oldest WAL that the standby has not replayed"),
    ("pair_receive_lag_bytes", "WAL that the standby has not received"),
    ("pair_receive_lag_seconds", "Age of the oldest WAL that the standby has not received"),
    ("pair_replay_lag_bytes", "WAL that the standby has received and not replayed"),
    ("pair_replay_lag_seconds", "Age of the oldest WAL that the standby has received and not replayed"),
    ("pair_ready", "1 while a primary takes writes"),
    ("pair_failover_ready", "1 while the standby may take over"),
    ("pair_archive_healthy", "1 while segments reach the archive"),
    ("pair_storage_healthy", "1 while the volumes have space"),
    (
        "pair_roles_healthy",
        "1 while roles have the passwords of their Secrets, and roles and databases are as the spec says",
    ),
    ("pair_degraded", "1 while something needs a person"),
    ("pair_update_pending", "1 while something of the spec is not in effect"),
    ("pair_rpo_bytes", "Estimate of what a loss of the primary would lose"),
    ("pair_rpo_seconds", "Age of the oldest of these bytes"),
    ("pair_rto_seconds", "Estimate of how long clients would wait, by cause"),
    ("pair_seeding_percent", "Progress of the base backup under way"),
    ("pair_seeding_bytes", "Bytes that the base backup under way has copied"),
    ("pair_last_failover_timestamp_seconds", "When the last failover began"),
    ("pair_last_failover_gap_seconds", "First to last step of the last failover"),
    ("pair_last_failover_lost_bytes", "WAL that only the old primary of the last failover had"),
    ("pair_last_failover_step_seconds", "Time from the first step of the last failover, by step"),
    ("pair_certificate_days", "Days until the first certificate of the pair ends"),
    (
        "pair_observed_timestamp_seconds",
        "When the operator last observed the pair: the time of all its gauges",
    ),
    (
        "instance_report_age_seconds",
        "Time since the agent of the instance last answered; at least, after a change of the operator's leader",
    ),
    ("instance_flush_lsn_bytes", "Position that the instance has flushed"),
    ("instance_replay_lsn_bytes", "Position that the instance has replayed"),
    ("instance_archive_age_seconds", "Age of the newest segment in the archive of the instance"),
    ("instance_archive_backlog_segments", "Segments that wait for the archiver of the instance"),
    ("instance_archive_failures", "Failures of the archiver since its last success"),
    ("instance_data_bytes", "Size of the data volume"),
    ("instance_data_free_bytes", "Free on the data volume"),
    ("instance_archive_bytes", "Size of the archive volume"),
    ("instance_archive_free_bytes", "Free on the archive volume"),
    (
        "instance_full_in_seconds",
        "Time until the first of the two volumes is full at the pace of the last minutes",
    ),
    ("instance_config_generation", "Generation of the settings that the agent of the instance follows"),
];

/// The gauges; the number of each is its place in [`GAUGES`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Of {
    Term,
    Paired,
    Timeline,
    LagBytes,
    LagSeconds,
    ReceiveBytes,
    ReceiveSeconds,
    ReplayBytes,
    ReplaySeconds,
    Ready,
    FailoverReady,
    ArchiveHealthy,
    StorageHealthy,
    RolesHealthy,
    Degraded,
    UpdatePending,
    RpoBytes,
    RpoSeconds,
    Rto,
    SeedingPercent,
    SeedingBytes,
    FailoverTime,
    FailoverGap,
    FailoverLost,
    FailoverStep,
    CertificateDays,
    Observed,
    ReportAge,
    Flush,
    Replay,
    ArchiveAge,
    ArchiveBacklog,
    ArchiveFailures,
    DataBytes,
    DataFree,
    ArchiveBytes,
    ArchiveFree,
    FullIn,
    ConfigGeneration,
}

/// One series of a pair: its gauge; what it is about (the instance, the step or the cause; empty where there is one series); its value.
type Series = (Of, &'static str, f64);
type Values = Vec<Series>;
/// A pair, and its series in the order of their gauges.
type Shown = (Arc<PairName>, Arc<[Series]>);

/// Gauges of all pairs: of each pair a short list of numbers. Showing one pair costs the same however many there are.
#[derive(Debug, Default)]
pub struct PairMetrics(Mutex<BTreeMap<Arc<PairName>, Arc<[Series]>>>);

impl PairMetrics {
    fn shown(&self) -> MutexGuard<'_, BTreeMap<Arc<PairName>, Arc<[Series]>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shows what is known of a pair now, and nothing of what no longer is.
    pub fn measure(&self, pair: &PairName, observed: &Observed, status: &PgReplicaPairStatus) {
        let mut values = of_pair(observed, status);
        for i in InstanceId::ALL {
            values.extend(of_instance(observed, i));
        }
        self.show(pair, values);
    }

    /// Removes the series of a pair that is gone.
    pub fn forget(&self, pair: &PairName) {
        self.shown().remove(pair);
    }

    fn show(&self, pair: &PairName, mut values: Values) {
        values.sort_by_key(|(gauge, of, _)| (*gauge, *of));
        values.dedup_by(|later, first| {
            let same = (later.0, later.1) == (first.0, first.1);
            if same {
                first.2 = later.2; // a series that stands twice would make the whole text invalid
            }
            same
        });
        let (values, mut shown) = (Arc::from(values), self.shown());
        match shown.get_mut(pair) {
            Some(known) => *known = values,
            None => drop(shown.insert(Arc::new(pair.clone()), values)),
        }
    }

    /// The gauges as they stand, for one scrape. Nothing is locked after this.
    pub(super) fn gauges(&self) -> impl Iterator<Item = PairGauge> + Send + use<> {
        let pairs: Vec<_> =
            self.shown().iter().map(|(pair, series)| (pair.clone(), series.clone())).collect();
        let pairs: Arc<[_]> = pairs.into();
        GAUGES.iter().enumerate().map(move |(number, (name, help))| PairGauge {
            number,
            name,
            help,
            pairs: pairs.clone(),
        })
    }
}

/// One gauge of all pairs, at one moment.
#[derive(Debug)]
pub(super) struct PairGauge {
    number: usize,
    name: &'static str,
    help: &'static str,
    pairs: Arc<[Shown]>,
}

impl PairGauge {
    fn series(&self) -> impl Iterator<Item = (&PairName, &Series)> {
        self.pairs.iter().flat_map(|(pair, series)| {
            let begin = series.partition_point(|(gauge, ..)| (*gauge as usize) < self.number);
            let series = series.iter().skip(begin);
            series.take_while(|(gauge, ..)| *gauge as usize == self.number).map(|series| (&**pair, series))
        })
    }
}

impl Collector for PairGauge {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut series = self.series().peekable();
        if series.peek().is_none() {
            return Ok(()); // a name without a series says nothing
        }
        let help = format!("{}.", self.help);
        let mut metric = encoder.encode_descriptor(self.name, &help, None, MetricType::Gauge)?;
        for (pair, (_, of, value)) in series {
            let labels = [("namespace", pair.namespace.as_str()), ("name", pair.name.as_str()), ("of", *of)];
            metric.encode_family(&labels)?.encode_gauge(value)?;
        }
        Ok(())
    }
}

fn of_pair(observed: &Observed, status: &PgReplicaPairStatus) -> Values {
    let mut out = Values::new();
    let mut put = |of: Of, value: Option<f64>| out.extend(value.map(|v| (of, "", v)));
    put(Of::Term, observed.record().map(|r| f64::from(r.term.0)));
    let mode = status.mode.as_ref().and_then(Word::known);
    put(Of::Paired, mode.map(|m| f64::from(u8::from(m == Mode::Paired))));
    put(Of::Timeline, status.timeline.map(|t| t as f64));
    let serving = observed.serving_primary().and_then(|i| observed.instance(i).report.fresh());
    let lag = serving.and_then(|r| r.standby.as_ref());
    let mut distance = |bytes: Of, seconds: Of, lag: Option<Lag>| {
        put(bytes, lag.map(|l| l.bytes as f64));
        put(seconds, lag.map(|l| l.millis as f64 / 1000.0));
    };
    distance(Of::LagBytes, Of::LagSeconds, lag.and_then(|l| l.total));
    distance(Of::ReceiveBytes, Of::ReceiveSeconds, lag.and_then(|l| l.receive));
    distance(Of::ReplayBytes, Of::ReplaySeconds, lag.and_then(|l| l.replay));
    let conditions = [
        (Of::Ready, ConditionType::Ready),
        (Of::FailoverReady, ConditionType::FailoverReady),
        (Of::ArchiveHealthy, ConditionType::ArchiveHealthy),
        (Of::StorageHealthy, ConditionType::StorageHealthy),
        (Of::RolesHealthy, ConditionType::RolesHealthy),
        (Of::Degraded, ConditionType::Degraded),
        (Of::UpdatePending, ConditionType::UpdatePending),
    ];
    for (of, type_) in conditions {
        let value = condition(status, type_).and_then(|c| match c.status.as_str() {
            "True" => Some(1.0),
            "False" => Some(0.0),
            _ => None,
        });
        put(of, value);
    }
    put(Of::RpoBytes, status.rpo.as_ref().and_then(|r| r.bytes).map(|b| b as f64));
    put(Of::RpoSeconds, status.rpo.as_ref().and_then(|r| r.seconds));
    let seeding = status.seeding.as_ref();
    put(Of::SeedingPercent, seeding.and_then(|s| s.percent).map(|p| p as f64));
    put(Of::SeedingBytes, seeding.and_then(|s| s.done_bytes).map(|b| b as f64));
    let days = |end: &jiff::Timestamp| (end.as_second() - observed.now.as_second()) as f64 / 86400.0;
    put(Of::CertificateDays, observed.certificates.iter().map(|(_, end)| days(end)).reduce(f64::min));
    put(Of::Observed, Some(observed.now.as_millisecond() as f64 / 1000.0));
    if let Some(failover) = &status.last_failover {
        put(Of::FailoverTime, failover.started_at.as_ref().map(|t| t.0.as_millisecond() as f64 / 1000.0));
        put(Of::FailoverGap, failover.gap_estimate_seconds);
        put(Of::FailoverLost, failover.bytes_lost.map(|b| b as f64));
        // A label has to be one of few words: another one is not shown.
        let steps = failover.steps.iter();
        out.extend(
            steps.filter_map(|s| {
                Some((Of::FailoverStep, s.step.known()?.into(), s.offset_ms as f64 / 1000.0))
            }),
        );
    }
    let causes = status.rto.iter().flat_map(|r| &r.estimates);
    out.extend(causes.filter_map(|e| Some((Of::Rto, e.cause.known()?.into(), e.seconds))));
    out
}

fn of_instance(observed: &Observed, i: InstanceId) -> Values {
    let instance = observed.instance(i);
    let mut out = Values::new();
    let mut put = |of: Of, value: Option<f64>| out.extend(value.map(|v| (of, i.as_str(), v)));
    let age = instance.last_report.as_ref().map(|(_, age)| *age).or(instance.silent_for);
    put(Of::ReportAge, age.map(|age| age.as_secs_f64()));
    let Some(report) = instance.report.recent() else { return out };
    put(Of::Flush, report.postgres.flush_lsn.map(|l| l.0 as f64));
    put(Of::Replay, report.postgres.replay_lsn.map(|l| l.0 as f64));
    let archive = &report.archive;
    let now = observed.now.as_millisecond();
    put(Of::ArchiveAge, archive.last_archived_at_ms.map(|at| (now - at).max(0) as f64 / 1000.0));
    put(Of::ArchiveBacklog, archive.backlog_segments.map(|n| n as f64));
    put(Of::ArchiveFailures, archive.failures.map(|n| n as f64));
    put(Of::DataBytes, report.space.data_bytes.map(|n| n as f64));
    put(Of::DataFree, report.space.data_free.map(|n| n as f64));
    put(Of::ArchiveBytes, report.space.archive_bytes.map(|n| n as f64));
    put(Of::ArchiveFree, report.space.archive_free.map(|n| n as f64));
    put(Of::FullIn, report.space.full_in_seconds.map(|n| n as f64));
    put(Of::ConfigGeneration, Some(report.config_generation as f64));
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::decide;
    use crate::fixtures::{name, steady};
    use crate::metrics::Metrics;
    use crate::status::compute;

    fn shown(metrics: &Metrics, observed: &Observed) -> String {
        let status =
            compute(&name(), Some(3), observed, &decide(observed), None, &PgReplicaPairStatus::default());
        metrics.pairs.measure(&name(), observed, &status);
        metrics.render()
    }

    #[test]
    fn each_gauge_has_its_name() {
        assert_eq!(Of::ConfigGeneration as usize + 1, GAUGES.len());
        assert_eq!(GAUGES[Of::CertificateDays as usize].0, "pair_certificate_days");
        assert_eq!(GAUGES[Of::Observed as usize].0, "pair_observed_timestamp_seconds");
        assert_eq!(GAUGES[Of::Rto as usize].0, "pair_rto_seconds");
        assert_eq!(GAUGES[Of::ReportAge as usize].0, "instance_report_age_seconds");
    }

    #[test]
    fn the_age_of_the_last_report_survives_a_change_of_the_operators_leader() {
        let mut silent = steady();
        silent.b.report = crate::observed::ReportView::Unreachable;
        (silent.b.last_report, silent.b.silent_for) = (None, Some(std::time::Duration::from_secs(90)));
        let text = shown(&Metrics::default(), &silent);
        let age =
            r#"pgpair_operator_instance_report_age_seconds{namespace="shop",name="orders",of="b"} 90.0"#;
        assert!(text.contains(age), "{text}");
    }

    #[test]
    fn what_is_known_is_shown_and_what_no_longer_is_disappears() {
        let metrics = Metrics::default();
        let text = shown(&metrics, &steady());
        for line in [
            r#"pgpair_operator_pair_lag_bytes{namespace="shop",name="orders",of=""} 0.0"#,
            r#"pgpair_operator_pair_paired{namespace="shop",name="orders",of=""} 1.0"#,
            r#"pgpair_operator_instance_archive_age_seconds{namespace="shop",name="orders",of="b"} 30.5"#,
            r#"pgpair_operator_pair_rto_seconds{namespace="shop",name="orders",of="NodeLost"} 5.6"#,
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
        let silent = shown(&metrics, &steady().a_silent());
        assert!(!silent.contains("pair_lag_bytes{"), "{silent}");
        assert!(silent.contains(r#"pair_term{namespace="shop",name="orders",of=""} 3.0"#));
        metrics.forget(&name());
        assert!(!metrics.render().contains("orders"));
    }

    #[test]
    fn showing_one_pair_touches_no_other_pair() {
        let metrics = Metrics::default();
        let named = |n: usize| PairName { namespace: "shop".into(), name: format!("p{n}") };
        for n in 0..100 {
            metrics.pairs.show(&named(n), vec![(Of::Term, "", n as f64)]);
        }
        let others = |shown: &PairMetrics| -> Vec<_> {
            shown.shown().iter().filter(|(pair, _)| pair.name != "p7").map(|(_, list)| list.clone()).collect()
        };
        let before = others(&metrics.pairs);
        metrics.pairs.show(&named(7), vec![(Of::Term, "", 8.0)]);
        assert!(before.iter().zip(&others(&metrics.pairs)).all(|(a, b)| Arc::ptr_eq(a, b)));
        let text = metrics.render();
        assert_eq!(text.matches("pgpair_operator_pair_term{").count(), 100);
        assert!(text.contains(r#"pair_term{namespace="shop",name="p7",of=""} 8.0"#), "{text}");
    }

    #[test]
    fn a_scrape_holds_nothing_that_a_reconcile_needs_and_shows_one_moment() {
        let metrics = Metrics::default();
        metrics.pairs.show(&name(), vec![(Of::Term, "", 1.0), (Of::Paired, "", 1.0)]);
        let mut scrape = metrics.parts();
        let own = scrape.next().unwrap();
        metrics.pairs.show(&name(), vec![(Of::Paired, "", 0.0)]);
        let rest: String = scrape.collect();
        assert!(own.contains("pgpair_operator_leader 0") && !own.contains("operator_pair_"), "{own}");
        assert!(rest.contains(r#"pair_term{namespace="shop",name="orders",of=""} 1.0"#), "{rest}");
        assert!(rest.contains(r#"pair_paired{namespace="shop",name="orders",of=""} 1.0"#), "{rest}");
        assert!(rest.ends_with("# EOF\n"));
    }

    #[test]
    fn a_series_stands_once_and_below_its_help() {
        let metrics = Metrics::default();
        let values = [(Of::Rto, "NodeLost", 1.0), (Of::Term, "", 3.0), (Of::Rto, "NodeLost", 2.0)];
        metrics.pairs.show(&name(), values.to_vec());
        let text = metrics.render();
        let rto = "# HELP pgpair_operator_pair_rto_seconds Estimate of how long clients would wait, by cause.\n\
                   # TYPE pgpair_operator_pair_rto_seconds gauge\n\
                   pgpair_operator_pair_rto_seconds{namespace=\"shop\",name=\"orders\",of=\"NodeLost\"} 2.0\n# EOF\n";
        assert!(text.ends_with(rto), "{text}");
        assert!(!text.contains("pair_lag_bytes"), "nothing is known of it");
    }
}
