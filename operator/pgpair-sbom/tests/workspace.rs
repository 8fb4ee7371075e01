//! The bill of this very workspace.

use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

#[test]
fn the_bill_has_what_is_shipped_and_not_what_only_builds_or_tests_it() {
    let top = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").unwrap()).join("../..");
    let made = Command::new(env!("CARGO_BIN_EXE_pgpair-sbom")).current_dir(top).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let bill: Value = serde_json::from_slice(&made.stdout).unwrap();
    let components = bill["components"].as_array().unwrap();
    let names: Vec<&str> = components.iter().map(|c| c["name"].as_str().unwrap()).collect();
    for shipped in ["ring", "rustls", "tokio", "kube-client", "pgpair-agent", "pgpair-core", "rust-std"] {
        assert!(names.contains(&shipped), "{shipped} is missing");
    }
    for not in
        ["serde_derive", "proptest", "insta", "stateright", "pgpair-model", "pgpair-e2e", "pgpair-fuzz", "cc"]
    {
        assert!(!names.contains(&not), "{not} is not in the program");
    }
    let foreign = components
        .iter()
        .filter(|c| !c["name"].as_str().unwrap().starts_with("pgpair") && c["name"] != "rust-std");
    for one in foreign {
        let checksum = one["hashes"][0]["content"].as_str().unwrap_or_default();
        assert!(checksum.len() == 64 && one["licenses"][0]["expression"].is_string(), "{one}");
    }
}
