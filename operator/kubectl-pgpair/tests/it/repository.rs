//! Files of the repository, as text.

use std::fs;
use std::path::PathBuf;

use serde_json::Value;

/// The top folder. At run time: clones share build outputs, and the path that the compiler saw may be that of another one.
pub fn root() -> PathBuf {
    PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").unwrap()).join("../..")
}

/// A file by its path from the top.
pub fn text(path: &str) -> String {
    let file = root().join(path);
    fs::read_to_string(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()))
}

/// A page of the guide.
pub fn page(name: &str) -> String {
    text(&format!("docs/guide/{name}"))
}

/// Every page of the guide, and the README, by its path from the top.
pub fn pages() -> Vec<String> {
    let dir = root().join("docs/guide");
    let names = fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
    let guide = names.filter(|n| n.ends_with(".md")).map(|n| format!("docs/guide/{n}"));
    guide.chain(["README.md".to_owned()]).collect()
}

/// `spec` or `status` of the committed definition.
pub fn schema(part: &str) -> Value {
    let crd: Value = serde_saphyr::from_str(&text("crds/pgreplicapair.yaml")).unwrap();
    crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"][part].clone()
}

/// The cells of the rows of all tables whose first cell is one word in backticks.
pub fn rows(page: &str) -> Vec<Vec<String>> {
    let word = |c: &str| c.len() > 2 && c.starts_with('`') && c.ends_with('`') && c.matches('`').count() == 2;
    page.lines()
        .filter_map(|line| {
            let cells = line.strip_prefix('|')?.trim_end().strip_suffix('|')?;
            let cells: Vec<String> = cells.split('|').map(|c| c.trim().to_owned()).collect();
            word(&cells[0]).then_some(cells)
        })
        .collect()
}
