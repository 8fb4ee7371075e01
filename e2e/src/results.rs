//! Results of runs that take hours: made in `target`, and kept in `docs/numbers`, for the machine that made them may be gone, and the
//! pages of `docs` are made from them.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::repository;

/// From the top of the repository.
const KEPT: &str = "docs/numbers";

/// Content of a file that an earlier run left; the default without a file. `otherwise` ends the sentence about a file that holds
/// something else.
///
/// # Errors
/// When the file is there and cannot be read as `T`.
pub fn read_json<T: DeserializeOwned + Default>(path: &Path, otherwise: &str) -> anyhow::Result<T> {
    match fs::read(path) {
        Ok(text) => serde_json::from_slice(&text).with_context(|| format!("{} {otherwise}", path.display())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(T::default()),
        Err(error) => Err(error).with_context(|| format!("reading {}", path.display())),
    }
}

/// Writes `value` to `path` with its directory, whole or not at all.
///
/// # Errors
/// When it cannot be written.
pub fn write_json(path: &Path, value: &impl Serialize) -> anyhow::Result<()> {
    write(path, &(serde_json::to_string_pretty(value)? + "\n"))
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    let partial = path.with_extension("json.partial");
    let done = || -> anyhow::Result<()> {
        fs::create_dir_all(path.parent().context("it has no directory")?)?;
        fs::write(&partial, text)?;
        Ok(fs::rename(&partial, path)?)
    };
    done().with_context(|| format!("writing {}", path.display()))
}

/// Where `name` is kept.
#[must_use]
pub fn kept(name: &str) -> PathBuf {
    repository::root().join(KEPT).join(name)
}

/// Brings what is kept under `name` into `out`, unless a run of this machine has left something there.
///
/// # Errors
/// When it cannot be written.
pub fn fetch(out: &Path, name: &str) -> anyhow::Result<()> {
    let here = out.join(name);
    let known: Value = read_json(&kept(name), "is no JSON")?;
    if here.exists() || known.is_null() { Ok(()) } else { write_json(&here, &known) }
}

/// Keeps what `out` has under `name`: the elements of a list in a line each.
///
/// # Errors
/// When it cannot be read or written.
pub fn keep(out: &Path, name: &str) -> anyhow::Result<()> {
    match read_json(&out.join(name), "is no JSON")? {
        Value::Null => Ok(()),
        found => write(&kept(name), &in_lines(&found)?),
    }
}

fn in_lines(value: &Value) -> anyhow::Result<String> {
    let Value::Array(all) = value else { return Ok(serde_json::to_string_pretty(value)? + "\n") };
    let lines = all.iter().map(serde_json::to_string).collect::<Result<Vec<_>, _>>()?;
    Ok(format!("[\n{}\n]\n", lines.join(",\n")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_kept_with_a_line_for_each_and_is_the_same_list() {
        let list = serde_json::json!([{"a": 1}, {"a": [2, 3]}]);
        let text = in_lines(&list).unwrap();
        assert_eq!(text, "[\n{\"a\":1},\n{\"a\":[2,3]}\n]\n");
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), list);
    }
}
