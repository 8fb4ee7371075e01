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

/// The pages of a folder, by their path from the top.
pub fn pages_in(folder: &str) -> Vec<String> {
    let names = fs::read_dir(root().join(folder)).unwrap();
    let names = names.map(|e| e.unwrap().file_name().into_string().unwrap());
    names.filter(|n| n.ends_with(".md")).map(|n| format!("{folder}/{n}")).collect()
}

/// Every page of the guide and about the code, and the README, by its path from the top.
pub fn pages() -> Vec<String> {
    let folders = ["docs/guide", "docs/architecture"];
    let top = ["README.md".to_owned(), "ARCHITECTURE.md".to_owned()];
    folders.into_iter().flat_map(pages_in).chain(top).collect()
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
