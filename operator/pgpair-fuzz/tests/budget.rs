//! Each target on its corpus, and on so much made from it as a test has time for. More, and with a view of what the code does: `make fuzz`.

use std::time::Duration;

use pgpair_fuzz::drive::{Budget, corpus_dir, drive, read_corpus};
use pgpair_fuzz::{TARGETS, target};
use rstest::rstest;

/// All targets together: half a minute of one processor.
const BUDGET: Budget = Budget { seed: 0x5eed, inputs: 20_000, time: Duration::from_secs(2) };
/// A corpus is small: what it is for is kept, and no more.
const MOST_BYTES: usize = 128 * 1024;

#[rstest]
#[case("history")]
#[case("names")]
#[case("wal_header")]
#[case("wal_records")]
#[case("control_data")]
#[case("auto_conf")]
#[case("conf")]
#[case("hba")]
#[case("tool_output")]
#[case("messages")]
#[case("lease")]
#[case("words")]
#[case("journal")]
#[case("spec")]
fn its_claims_hold_on_its_corpus_and_on_what_is_made_from_it(#[case] name: &str) {
    let target = target(name).unwrap();
    let corpus = read_corpus(&corpus_dir(target)).unwrap();
    assert!(!corpus.is_empty(), "{name} has no corpus");
    assert!(corpus.iter().map(Vec::len).sum::<usize>() < MOST_BYTES, "the corpus of {name} is too large");
    match drive(target, &corpus, BUDGET) {
        Ok(tried) => assert!(tried.made > 0, "{name}: {tried:?}"),
        Err(broken) => panic!("{name}: {broken}"),
    }
}

#[test]
fn each_target_has_a_test_here_and_a_program_for_libfuzzer() {
    let here = include_str!("budget.rs");
    let fuzz = std::path::PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").unwrap()).join("../../fuzz");
    let manifest = std::fs::read_to_string(fuzz.join("Cargo.toml")).unwrap();
    for target in TARGETS {
        assert!(here.contains(&format!("#[case(\"{}\")]", target.name)), "{} has no test", target.name);
        assert!(
            manifest.contains(&format!("name = \"{}\"\n", target.name)),
            "{} has no program",
            target.name
        );
        let program = std::fs::read_to_string(fuzz.join(format!("fuzz_targets/{}.rs", target.name))).unwrap();
        assert!(program.contains(&format!("claims::{}::run(data)", target.name)), "{program}");
    }
}
