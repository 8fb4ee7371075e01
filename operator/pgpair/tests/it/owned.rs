//! What an agent writes itself must be refused at admission.

use pgpair_agent::instance::env::InstanceEnv;
use pgpair_agent::postgres::render::{Floors, main_conf};
use pgpair_wire::config::PairConfig;
use pgpair_wire::parameters;

#[test]
fn every_parameter_that_an_agent_would_refuse_is_refused_at_admission() {
    let settings = InstanceEnv::from_lookup(|name| match name {
        "PGPAIR_PAIR" | "PGPAIR_NAMESPACE" | "PGPAIR_PEER_HOST" => Some("x".into()),
        "PGPAIR_INSTANCE" => Some("a".into()),
        _ => None,
    })
    .unwrap();
    let written = main_conf(&settings, &PairConfig::default(), Floors::default(), 1).unwrap();
    let names = written.lines().filter_map(|line| line.split_once(" = ")).map(|(name, _)| name.to_owned());
    let mut checked = 0;
    for name in names {
        // The one of which a user may choose the value.
        let value = if name == "wal_level" { "logical" } else { "1" };
        let parameters = [(name.clone(), value.to_owned())].into();
        let config = PairConfig { parameters, ..PairConfig::default() };
        let refused = main_conf(&settings, &config, Floors::default(), 1).is_err();
        assert_eq!(refused, parameters::refusal(&name).is_some(), "{name}");
        checked += 1;
    }
    assert!(checked > 30, "{checked} parameters only: is the form of the file another one?");
}
