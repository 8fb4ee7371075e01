//! What a program is made of, as a software bill of materials (CycloneDX 1.5): each crate that is linked into it, with version, license and the
//! checksum of its source, and the standard library. Made from what Cargo itself says: its tree of the program, and the lock file.
//! The same program gives the same text: there is no time and no random number in it.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// One crate.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Crate {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// An SPDX expression; empty if it says none.
    pub license: String,
    /// Whether it lies in this repository.
    pub is_ours: bool,
}

/// Reads what `cargo tree --prefix none --format '{p}|{l}'` prints: `name vVERSION (path)|license`, with `(*)` behind what it has
/// printed before. The first one is the program.
///
/// # Errors
/// Names the line that has another form.
pub fn read_tree(text: &str) -> anyhow::Result<(Crate, BTreeSet<Crate>)> {
    let mut all = text.lines().filter(|line| !line.is_empty()).map(read_line);
    let program = all.next().context("the tree is empty")??;
    Ok((program, all.collect::<anyhow::Result<_>>()?))
}

fn read_line(line: &str) -> anyhow::Result<Crate> {
    let read = || {
        let (package, license) = line.strip_suffix(" (*)").unwrap_or(line).split_once('|')?;
        let mut words = package.split(' ');
        let (name, version) = (words.next()?, words.next()?.strip_prefix('v')?);
        let is_ours = words.next().is_some_and(|place| place.starts_with("(/"));
        // Crates of before SPDX write a slash.
        let license = license.split('/').map(str::trim).collect::<Vec<_>>().join(" OR ");
        Some(Crate { name: name.to_owned(), version: version.to_owned(), license, is_ours })
    };
    read().with_context(|| format!("not a line of a tree: {line:?}"))
}

/// Checksums of the sources in a lock file, by name and version.
#[must_use]
pub fn read_lock(text: &str) -> BTreeMap<(String, String), String> {
    let package = |text: &str| {
        let field = |key: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(" = \""))?;
            line.strip_suffix('"').map(str::to_owned)
        };
        Some(((field("name")?, field("version")?), field("checksum")?))
    };
    text.split("[[package]]").filter_map(package).collect()
}

/// The bill. `program_bytes`: the program as it is shipped; `toolchain`: the version of Rust, whose standard library is in it.
///
/// # Errors
/// A crate that is not ours has no checksum: then nobody can tell which it is.
pub fn build_bill(
    program: &Crate,
    crates: &BTreeSet<Crate>,
    checksums: &BTreeMap<(String, String), String>,
    program_bytes: Option<&[u8]>,
    toolchain: &str,
) -> anyhow::Result<Value> {
    let mut components = crates
        .iter()
        .filter(|one| *one != program)
        .map(|one| build_component(one, checksums))
        .collect::<anyhow::Result<Vec<_>>>()?;
    components.push(json!({
        "type": "library", "bom-ref": "rust-std", "name": "rust-std", "version": toolchain, "purl": format!("pkg:generic/rust-std@{toolchain}"),
        "licenses": [{"expression": "MIT OR Apache-2.0"}],
    }));
    let mut subject = json!({
        "type": "application", "bom-ref": program.name, "name": program.name, "version": program.version,
        "licenses": [{"expression": program.license}],
    });
    if let Some(bytes) = program_bytes {
        subject["hashes"] = hashes(&hex(&Sha256::digest(bytes)));
    }
    Ok(json!({
        "bomFormat": "CycloneDX", "specVersion": "1.5", "version": 1,
        "metadata": {"component": subject},
        "components": components,
    }))
}

fn build_component(one: &Crate, checksums: &BTreeMap<(String, String), String>) -> anyhow::Result<Value> {
    let purl = format!("pkg:cargo/{}@{}", one.name, one.version);
    let mut component =
        json!({"type": "library", "bom-ref": purl, "name": one.name, "version": one.version, "purl": purl});
    if !one.license.is_empty() {
        component["licenses"] = json!([{"expression": one.license}]);
    }
    let checksum = checksums.get(&(one.name.clone(), one.version.clone()));
    ensure!(
        one.is_ours || checksum.is_some(),
        "the lock file has no checksum of {} {}",
        one.name,
        one.version
    );
    if let Some(checksum) = checksum {
        component["hashes"] = hashes(checksum);
    }
    Ok(component)
}

fn hashes(sha256: &str) -> Value {
    json!([{"alg": "SHA-256", "content": sha256}])
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TREE: &str = "pgpair v0.1.0 (/src/operator/pgpair)|Apache-2.0\n\
                        pgpair-core v0.1.0 (/src/operator/pgpair-core)|Apache-2.0\n\
                        serde v1.0.229|MIT OR Apache-2.0\n\
                        old v0.3.1|MIT/Apache-2.0\n\
                        serde v1.0.229|MIT OR Apache-2.0 (*)\n";
    const LOCK: &str = "version = 4\n\n[[package]]\nname = \"old\"\nversion = \"0.3.1\"\nchecksum = \"0a\"\n\n\
                        [[package]]\nname = \"pgpair\"\nversion = \"0.1.0\"\n\n\
                        [[package]]\nname = \"serde\"\nversion = \"1.0.229\"\nsource = \"x\"\nchecksum = \"0b\"\ndependencies = [\n \"old\",\n]\n";

    fn bill(lock: &str) -> anyhow::Result<Value> {
        let (program, crates) = read_tree(TREE)?;
        build_bill(&program, &crates, &read_lock(lock), Some(b"program"), "1.95.0")
    }

    #[test]
    fn each_crate_is_named_once_with_version_license_and_checksum() {
        let bill = bill(LOCK).unwrap();
        let components = bill["components"].as_array().unwrap();
        let names: Vec<_> = components.iter().map(|c| c["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["old", "pgpair-core", "serde", "rust-std"]);
        assert_eq!(components[0]["licenses"][0]["expression"], "MIT OR Apache-2.0");
        assert_eq!(components[2]["purl"], "pkg:cargo/serde@1.0.229");
        assert_eq!(components[2]["hashes"][0]["content"], "0b");
        let subject = &bill["metadata"]["component"];
        assert_eq!((&subject["name"], &subject["version"]), (&json!("pgpair"), &json!("0.1.0")));
        // sha256 of "program"
        assert_eq!(subject["hashes"][0]["content"].as_str().map(str::len), Some(64));
    }

    #[test]
    fn a_foreign_crate_without_a_checksum_is_told_and_so_is_a_line_that_is_none() {
        let error = bill(&LOCK.replace("checksum = \"0b\"\n", "")).unwrap_err().to_string();
        assert!(error.contains("serde 1.0.229"), "{error}");
        for wrong in ["", "warning: something\n", "serde 1.0|MIT\n"] {
            assert!(read_tree(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn the_same_program_gives_the_same_bill() {
        assert_eq!(bill(LOCK).unwrap().to_string(), bill(LOCK).unwrap().to_string());
    }
}
