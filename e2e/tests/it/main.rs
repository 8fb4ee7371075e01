//! The tests that need a real cluster, in a fixed order. Most share one pair, and each leaves it as it found it; beside them run some with
//! pairs of their own. A test that cannot run on this cluster says why and counts as ignored; without a cluster all fail.
//!
//! `cargo test -p pgpair-e2e --features cluster --test it -- [PART-OF-A-NAME ...] [--list] [--long]`; with `--long` those that
//! take many minutes, and only those.

mod adoption;
mod certificates;
mod chart;
mod context;
mod copies;
mod data;
mod drain;
mod failover;
mod faults;
mod floods;
mod idle;
mod installations;
mod lag;
mod lane;
mod names;
mod options;
mod orders;
mod outages;
mod passwords;
mod plugin;
mod policies;
mod quotas;
mod record;
mod refusals;
mod rolls;
mod samples;
mod settings;
mod upgrades;

use std::process::ExitCode;
use std::time::Instant;

use context::Context;
use futures::future::LocalBoxFuture;
use lane::{Failure, Lane};

/// How a test ended that did not fail.
#[derive(Debug)]
pub enum Outcome {
    /// What it claims was seen.
    Passed,
    /// It cannot be run on this cluster, and why.
    Skipped(String),
}

type Run = for<'a> fn(&'a mut Context) -> LocalBoxFuture<'a, anyhow::Result<Outcome>>;

/// A test and its name.
type Test = (&'static str, Run);

macro_rules! tests {
    ($($module:ident :: $name:ident),* $(,)?) => {
        [$((concat!(stringify!($module), "::", stringify!($name)), (|c| Box::pin($module::$name(c))) as Run)),*]
    };
}

/// One after the other on a pair that they share, and on some of their own: what is quick and what others stand on comes first. They disturb no
/// other pair.
const SHARED: [Test; 39] = tests![
    chart::an_image_is_named_by_its_digest_if_there_is_one,
    chart::the_image_has_no_shell,
    samples::invalid_samples_are_refused_with_the_sentence_they_expect,
    data::bring_up_seeds_the_standby_by_a_job_and_streams,
    data::lag_and_archive_are_told_in_the_status,
    idle::an_idle_pair_causes_no_writes,
    lag::replay_lag_is_told_and_goes_back,
    lag::receive_lag_is_told_while_the_standby_is_stopped,
    lag::a_standby_beyond_read_lag_leaves_the_read_service,
    lag::a_standby_whose_postgres_is_frozen_leaves_the_read_service,
    lag::an_async_standby_beyond_max_lag_may_not_take_over,
    lag::a_load_that_the_standby_keeps_up_with_leaves_the_pair_paired,
    settings::a_setting_comes_into_effect_without_a_restart,
    settings::a_setting_that_postgresql_refuses_is_told_and_the_correction_arrives,
    plugin::the_status_page_tells_who_is_who,
    plugin::psql_of_the_plugin_is_psql_on_the_primary,
    plugin::orders_of_the_plugin_end_with_their_outcome,
    plugin::a_switchover_is_explained_by_the_journals_of_both,
    policies::nobody_but_its_agents_writes_a_record,
    policies::endpoints_are_led_nowhere_else,
    policies::a_changed_slice_is_put_right_without_the_policies,
    policies::who_may_only_order_can_switch_over,
    failover::postmaster_kill_loses_nothing,
    failover::container_kill_loses_nothing,
    failover::a_switchover_hands_over,
    failover::deletion_of_the_pod_hands_over,
    failover::forced_deletion_of_the_pod_loses_nothing,
    orders::a_fenced_primary_hands_over_and_follows_when_it_is_let_go,
    orders::a_restarted_instance_keeps_its_role,
    orders::a_fenced_standby_stays_down_until_it_is_let_go,
    orders::a_standby_is_copied_anew,
    copies::a_tablespace_goes_through_copies_and_a_switchover,
    rolls::a_parameter_that_needs_a_restart_is_raised_and_lowered_again,
    rolls::new_resources_and_another_image_come_into_effect_one_instance_at_a_time,
    record::a_deleted_record_is_made_anew_by_nobody,
    data::both_archives_are_without_a_gap_and_equal,
    failover::loss_of_the_primarys_data_is_made_good_by_a_base_backup,
    failover::version_19_comes_up_fails_over_and_back_and_keeps_a_logical_slot,
    quotas::a_pair_that_its_namespace_does_not_admit_says_why_and_comes_up_when_it_fits,
];

/// Beside those, one after the other: pairs of their own that mostly wait, the longest first.
const BESIDE: [Test; 11] = tests![
    certificates::an_authority_follows_another_without_an_interruption,
    adoption::a_deleted_pair_is_taken_up_with_all_that_it_acknowledged,
    certificates::a_certificate_of_a_person_is_shown_and_renewed_without_a_restart,
    certificates::cert_manager_makes_the_certificate_of_postgres,
    certificates::a_revoked_certificate_is_refused_within_a_minute,
    options::seeding_services_and_tls_are_as_the_spec_says,
    passwords::a_secret_is_the_truth_for_its_password,
    options::a_paused_pair_is_left_alone,
    names::objects_of_other_owners_are_named_and_left_alone,
    failover::version_15_comes_up_and_fails_over,
    failover::version_18_comes_up_and_fails_over,
];

/// When both are done, one after the other: what disturbs nodes, the operator or the control plane. Outages of the control plane come last:
/// kubelets that have lost their watches start new pods late.
const ALONE: [Test; 26] = tests![
    failover::an_evicted_primary_hands_over,
    orders::a_forced_promotion_tells_what_it_may_lose_and_has_lost,
    orders::a_forced_promotion_of_an_async_pair_tells_the_same,
    options::data_of_another_cluster_is_never_overwritten,
    drain::a_budget_lets_one_instance_go_and_keeps_the_other,
    failover::cutting_the_primarys_node_loses_nothing,
    failover::power_loss_of_the_primarys_node_loses_nothing,
    floods::strangers_in_numbers_cost_neither_a_failover_nor_the_pairing,
    outages::a_failover_needs_no_operator,
    outages::another_replica_of_the_operator_goes_on_for_the_one_that_led,
    certificates::the_keys_of_an_earlier_version_leave_the_pairs_namespace,
    refusals::a_refused_write_of_each_kind_is_told_and_made_good,
    installations::a_second_operator_stands_aside_until_it_has_a_class_of_its_own,
    faults::a_stopped_agent_is_fenced_by_its_init_process,
    faults::a_stopped_postmaster_is_a_hang_and_the_standby_takes_over,
    faults::a_backend_killed_in_its_commit_loses_nothing,
    faults::a_frozen_pod_acknowledges_nothing_when_it_thaws,
    faults::packets_that_travel_one_way_only_lose_nothing,
    faults::a_wrong_wall_clock_harms_nobody,
    faults::a_full_data_volume_loses_nothing,
    faults::a_hung_data_volume_loses_nothing,
    faults::a_node_cut_off_again_and_again_loses_nothing,
    faults::two_nodes_without_power_lose_nothing,
    faults::a_slow_api_server_harms_nobody,
    faults::an_etcd_that_is_away_harms_nobody,
    outages::a_minute_without_the_api_server_harms_nobody,
];

/// What takes many minutes: `make e2e-long`.
const LONG: [Test; 5] = tests![
    adoption::deleted_pairs_are_taken_up_again_and_again,
    adoption::one_volume_alone_is_asked_about,
    copies::a_standby_whose_node_is_lost_for_good_is_made_anew_elsewhere,
    copies::a_copy_that_fails_for_good_leaves_the_standby_what_it_had,
    upgrades::an_upgrade_of_the_operator_and_its_rollback_roll_one_pair_after_the_other,
];

fn main() -> ExitCode {
    // What cargo and its users pass to any test binary is accepted; what is no option is part of a name.
    let args: Vec<String> = std::env::args().skip(1).collect();
    let parts: Vec<&String> = args.iter().filter(|a| !a.starts_with('-')).collect();
    let plan = if args.iter().any(|a| a == "--long") {
        Plan { alone: &LONG, ..Plan::default() }
    } else {
        Plan { shared: &SHARED, beside: &BESIDE, alone: &ALONE }
    };
    let is_chosen = |name: &str| parts.is_empty() || parts.iter().any(|part| name.contains(*part));
    if args.iter().any(|a| a == "--list") {
        plan.names().filter(|name| is_chosen(name)).for_each(|name| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("starting the runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    runtime.block_on(run(&plan, &is_chosen))
}

/// What is run.
#[derive(Default)]
struct Plan {
    shared: &'static [Test],
    /// At the same time.
    beside: &'static [Test],
    /// When both are done.
    alone: &'static [Test],
}

impl Plan {
    fn names(&self) -> impl Iterator<Item = &'static str> {
        [self.shared, self.beside, self.alone].into_iter().flatten().map(|(name, _)| *name)
    }
}

async fn run(plan: &Plan, is_chosen: &dyn Fn(&str) -> bool) -> ExitCode {
    let begin = Instant::now();
    println!("\nrunning {} tests", plan.names().filter(|name| is_chosen(name)).count());
    let (mut main, mut beside) = (Lane::new("pgpair-e2e").await, Lane::new("pgpair-beside").await);
    tokio::join!(main.run(plan.shared, is_chosen), beside.run(plan.beside, is_chosen));
    main.run(plan.alone, is_chosen).await;
    let done = main.end().await + beside.end().await;
    // Last, and a line each: what went wrong must not drown in the description of the namespace.
    if !done.failures.is_empty() {
        println!("\nfailures:");
    }
    for Failure { name, error } in &done.failures {
        println!("    {name}: {}", error.lines().next().unwrap_or_default());
    }
    println!(
        "\ntest result: {}. {} passed; {} failed; {} ignored; 0 measured; {} filtered out; finished in {:.2}s\n",
        if done.failures.is_empty() { "ok" } else { "FAILED" },
        done.passed,
        done.failures.len(),
        done.ignored,
        plan.names().filter(|name| !is_chosen(name)).count(),
        begin.elapsed().as_secs_f64()
    );
    if done.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
