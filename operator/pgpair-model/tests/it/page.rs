//! The page says what the code says.

use std::path::PathBuf;

use pgpair_model::page::render;

#[test]
fn the_tables_of_the_page_are_those_of_the_code() {
    let file = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").unwrap()).join("../../docs/model.md");
    let page = std::fs::read_to_string(file).unwrap();
    assert!(page.contains("<!-- table runs -->"));
    assert_eq!(render(&page).unwrap(), page, "make model-page");
}
