//! `pgpair-sbom [PROGRAM]`: prints the bill of materials of `pgpair`, with the checksum of the built program if its path is given.

use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Context as _, ensure};
use pgpair_sbom::{build_bill, read_lock, read_tree};

fn main() -> ExitCode {
    match print(std::env::args().nth(1).as_deref()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("pgpair-sbom: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn print(program: Option<&str>) -> anyhow::Result<()> {
    let bytes =
        program.map(|path| std::fs::read(path).with_context(|| format!("reading {path}"))).transpose()?;
    let compiler = run("rustc", &["-vV"])?;
    let of_compiler = |label: &str| compiler.lines().find_map(|line| line.strip_prefix(label)).map(str::trim);
    let host = of_compiler("host:").context("rustc names no host")?;
    let toolchain = of_compiler("release:").context("rustc names no release")?;
    // What is linked in: neither what only builds or tests it, nor macros.
    let tree = run(
        "cargo",
        &[
            "tree",
            "--locked",
            "--package=pgpair",
            "--edges=normal,no-proc-macro",
            "--prefix=none",
            "--format={p}|{l}",
            "--target",
            host,
        ],
    )?;
    let lock = std::fs::read_to_string(Path::new("Cargo.lock"))
        .context("reading Cargo.lock: start it at the top")?;
    let (program, crates) = read_tree(&tree)?;
    let bill = build_bill(&program, &crates, &read_lock(&lock), bytes.as_deref(), toolchain)?;
    println!("{}", serde_json::to_string_pretty(&bill)?);
    Ok(())
}

fn run(program: &str, args: &[&str]) -> anyhow::Result<String> {
    let output = Command::new(program).args(args).output().with_context(|| format!("starting {program}"))?;
    ensure!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr).trim());
    String::from_utf8(output.stdout).with_context(|| format!("what {program} says"))
}
