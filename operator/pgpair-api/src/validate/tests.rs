use serde_json::json;

use super::*;
use pgpair_core::authority::{Durability, OnPostgresCrash};
use pgpair_wire::config::{DatabaseConfig, RoleConfig, StandbyProfile};

fn defaults() -> Defaults {
    Defaults {
        postgres_image_template: "registry.test/pg:{version}".into(),
        agent_image: "registry.test/pgpair:1".into(),
        image_pull_policy: "IfNotPresent".into(),
        operator_namespace: "pgpair-system".into(),
    }
}

fn check(name: &str, spec: serde_json::Value) -> Result<ValidatedPair, InvalidSpec> {
    let pair = json!({
        "apiVersion": "pgpair.dev/v1alpha1", "kind": "PgReplicaPair",
        "metadata": {"name": name, "namespace": "shop", "uid": "u-1"}, "spec": spec,
    });
    validate(&serde_json::from_value(pair).unwrap(), &defaults())
}

#[test]
fn a_line_for_a_role_of_ours_is_refused_and_one_for_another_is_not() {
    for line in [
        "host all postgres all trust",
        "hostssl\tall  app,\"pgpair_agent\" 10.0.0.0/8 md5",
        "host replication pgpair_replication all cert",
    ] {
        let refused = check("orders", json!({"postgres": {"hba": [line]}})).unwrap_err();
        assert_eq!(refused, InvalidSpec::OwnHbaLine(line.into()));
    }
    for line in ["host postgres app all scram-sha-256", "host all all all md5", "host all postgresql all md5"]
    {
        check("orders", json!({"postgres": {"hba": [line]}})).unwrap();
    }
}

#[test]
fn an_empty_spec_gets_every_default() {
    let pair = check("orders", json!({})).unwrap();
    assert_eq!(pair.postgres_image, "registry.test/pg:17");
    assert_eq!(pair.uid, 999);
    assert_eq!((pair.data.size.as_str(), pair.archive.size.as_str()), ("10Gi", "10Gi"));
    assert_eq!((pair.database.as_str(), pair.database_owner.as_str()), ("app", "app"));
    assert_eq!(pair.config().durability, Durability::Sync);
    assert!(!pair.paused);
}

#[test]
fn the_defaults_of_the_spec_are_those_of_the_agents_but_for_tls() {
    let bootstrap = Bootstrap { version: Some(17), ..Bootstrap::default() };
    let agents = PairConfig { client_tls: ClientTls::Required, bootstrap, ..PairConfig::default() };
    assert_eq!(*check("orders", json!({})).unwrap().config(), agents);
}

#[test]
fn every_setting_reaches_the_agents() {
    let pair = check(
        "orders",
        json!({
            "postgres": {"parameters": {"work_mem": "8MB"}, "hba": ["host all all all md5"]},
            "durability": "SyncStrict",
            "failover": {"automatic": false, "ttlSeconds": 3, "maxLag": "1.5Mi", "onPostgresCrash": "Restart", "hangTimeoutSeconds": 7},
            "archiveTimeoutSeconds": 20, "standbyProfile": "Reporting", "readLag": "2Gi", "seeding": {"maxRateMiB": 5},
            "tls": {"clients": "Optional"},
            "bootstrap": {"superuserAccess": true, "checksums": false, "locale": "C", "encoding": "LATIN1", "postInitSQL": ["SELECT 1"]},
            "roles": [{"name": "report", "login": true, "memberOf": ["pg_monitor"], "connectionLimit": 3, "passwordSecret": "mine"}],
            "databases": [{"name": "reporting", "extensions": ["hstore"]}, {"name": "other", "owner": "report"}],
        }),
    );
    let expected = PairConfig {
        generation: 0,
        durability: Durability::SyncStrict,
        ttl_ms: 3000,
        max_lag_bytes: 3 << 19,
        automatic: false,
        on_postgres_crash: OnPostgresCrash::Restart,
        hang_timeout_ms: 7000,
        archive_timeout_s: 20,
        standby_profile: StandbyProfile::Reporting,
        parameters: [("work_mem".to_owned(), "8MB".to_owned())].into(),
        hba: vec!["host all all all md5".into()],
        read_lag_bytes: 2 << 30,
        seed_rate_kib: Some(5120),
        client_tls: ClientTls::Optional,
        superuser_access: true,
        roles: vec![RoleConfig {
            name: "report".into(),
            login: true,
            member_of: vec!["pg_monitor".into()],
            connection_limit: 3,
            certificate: false,
        }],
        databases: vec![
            DatabaseConfig {
                name: "reporting".into(),
                owner: "app".into(),
                extensions: vec!["hstore".into()],
            },
            DatabaseConfig { name: "other".into(), owner: "report".into(), extensions: Vec::new() },
        ],
        bootstrap: Bootstrap {
            checksums: false,
            locale: "C".into(),
            encoding: "LATIN1".into(),
            version: Some(17),
            post_init_sql: vec!["SELECT 1".into()],
        },
    };
    assert_eq!(*pair.unwrap().config(), expected);
}

#[test]
fn roles_and_databases_with_names_that_are_not_a_persons_are_refused() {
    for spec in [
        json!({"roles": [{"name": "app"}]}),
        json!({"roles": [{"name": "pg_report"}]}),
        json!({"roles": [{"name": "pgpair_agent"}]}),
        json!({"roles": [{"name": "report", "memberOf": ["pgpair_agent"]}]}),
        json!({"roles": [{"name": "report", "memberOf": ["postgres"]}]}),
        json!({"roles": [{"name": "report", "memberOf": ["report"]}]}),
        json!({"roles": [{"name": "report", "connectionLimit": -2}]}),
        json!({"roles": [{"name": "report", "passwordSecret": "orders-app"}]}),
        json!({"roles": (0..17).map(|n| json!({"name": format!("r{n}")})).collect::<Vec<_>>()}),
        json!({"databases": [{"name": "template1"}]}),
        json!({"databases": [{"name": "pgpair_proof"}]}),
        json!({"databases": [{"name": "report", "owner": "postgres"}]}),
    ] {
        let why = check("orders", spec.clone()).unwrap_err().to_string();
        assert!(why.contains("spec.roles") || why.contains("spec.databases"), "{spec}: {why}");
    }
    let app = json!({"databases": [{"name": "app", "extensions": ["hstore"]}]});
    check("orders", app).unwrap();
}

#[test]
fn contradictions_and_quantities_out_of_range_are_refused_by_name() {
    for (spec, word) in [
        (json!({"failover": {"ttlSeconds": 11}}), "hangTimeoutSeconds"),
        (json!({"failover": {"hangTimeoutSeconds": 601}}), "hangTimeoutSeconds"),
        (json!({"failover": {"maxLag": "1023Ki"}}), "maxLag"),
        (json!({"readLag": "2Ti"}), "readLag"),
        (json!({"readLag": "much"}), "readLag"),
        (json!({"tls": {"validityDays": 30}}), "renewBeforeDays"),
        (json!({"postgres": {"hba": ["hostnossl all all all md5"]}}), "hostnossl"),
        (json!({"seeding": {"maxRateMiB": 0}}), "maxRateMiB"),
        (json!({"bootstrap": {"database": "template1"}}), "database"),
        (json!({"bootstrap": {"ownerSecret": "orders-superuser"}}), "ownerSecret"),
    ] {
        let message = check("orders", spec).unwrap_err().to_string();
        assert!(message.contains(word), "{message}");
    }
}

#[test]
fn an_image_of_the_spec_wins_over_the_template() {
    assert_eq!(check("orders", json!({"postgres": {"image": "x:1"}})).unwrap().postgres_image, "x:1");
}

#[test]
fn settings_of_the_operator_are_refused_by_name_in_any_case() {
    let refused = |name: &str| check("orders", json!({"postgres": {"parameters": {name: "x"}}})).unwrap_err();
    for (name, reason) in [
        ("FSYNC", Reason::Operator),
        ("primary_conninfo", Reason::Operator),
        ("data_sync_retry", Reason::Durability),
    ] {
        assert_eq!(refused(name), InvalidSpec::RefusedParameter { name: name.into(), reason });
    }
    assert_eq!(refused("a b"), InvalidSpec::ParameterName("a b".into()));
}

#[test]
fn wal_level_is_replica_or_logical() {
    let of = |value: &str| check("orders", json!({"postgres": {"parameters": {"wal_level": value}}}));
    assert_eq!(of("logical").unwrap().config().parameters["wal_level"], "logical");
    of("replica").unwrap();
    for value in ["minimal", "Logical", ""] {
        assert_eq!(of(value).unwrap_err(), InvalidSpec::WalLevel(value.into()));
    }
}

/// New pairs of it are refused by the definition; what runs is not stopped.
#[test]
fn a_pair_of_a_version_that_is_out_of_support_goes_on() {
    assert_eq!(
        check("orders", json!({"postgres": {"version": 14}})).unwrap().postgres_image,
        "registry.test/pg:14"
    );
}

#[test]
fn a_value_with_a_line_break_is_refused() {
    let spec = json!({"postgres": {"parameters": {"work_mem": "1MB\nfsync = off"}}});
    assert_eq!(check("orders", spec).unwrap_err(), InvalidSpec::ParameterValue("work_mem".into()));
}

#[test]
fn names_that_services_cannot_have_are_refused() {
    for name in ["1a", "a.b", "a-", &"a".repeat(41)] {
        assert_eq!(check(name, json!({})).unwrap_err(), InvalidSpec::Name(name.into()));
    }
}

#[test]
fn reserved_owners_and_wrong_ranges_are_refused() {
    for owner in ["postgres", "pg_monitor", "pgpair_replication", "pgpair_agent"] {
        let spec = json!({"bootstrap": {"owner": owner}});
        assert_eq!(check("orders", spec).unwrap_err(), InvalidSpec::ReservedOwner(owner.into()));
    }
    assert!(matches!(
        check("orders", json!({"failover": {"ttlSeconds": 1}})),
        Err(InvalidSpec::Range { .. })
    ));
    assert_eq!(check("orders", json!({"postgres": {"version": 13}})).unwrap_err(), InvalidSpec::Version(13));
}
