//! The tables of `docs/authority.md` are those of the code.

use std::fmt::Debug;
use std::path::PathBuf;

use crate::authority::answer::PROMISE;
use crate::authority::clause::{Clause, Condition};
use crate::authority::gate::{GATE, PROMOTION, WARRANTS};
use crate::authority::messages::Verdict;
use crate::authority::pairing::{PAIRABLE, STAYS_PAIRED, STAYS_PAIRED_WHILE_UP};
use crate::authority::standby::{LAPSED, READY_TO_TAKE_OVER};

/// Set to anything, the page is written instead of compared.
const WRITE: &str = "PGPAIR_WRITE_PAGES";

#[test]
fn the_tables_of_the_page_are_those_of_the_code() {
    let file = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").unwrap()).join("../../docs/authority.md");
    let page = std::fs::read_to_string(&file).unwrap();
    assert!(page.contains("<!-- table gate -->"));
    let made = with_tables(&page);
    if std::env::var_os(WRITE).is_some() {
        return std::fs::write(&file, made).unwrap();
    }
    assert!(made == page, "docs/authority.md does not show the code; {WRITE}=1 writes it:\n{made}");
}

/// Each table stands between `<!-- table NAME -->` and `<!-- end -->`.
fn with_tables(page: &str) -> String {
    let (mut out, mut rest) = (String::new(), page);
    while let Some((before, after)) = rest.split_once("<!-- table ") {
        let (name, after) = after.split_once(" -->").expect("a table has a name");
        let (_, after) = after.split_once("<!-- end -->").expect("a table has an end");
        out += &format!("{before}<!-- table {name} -->\n{}<!-- end -->", table(name));
        rest = after;
    }
    out + rest
}

fn table(name: &str) -> String {
    match name {
        "gate" => {
            let warrants =
                WARRANTS.iter().map(|w| row(&["or", w.words, "`NoPromise`", &clause(Some(w.clause))]));
            head(&["", "what must hold", "otherwise", "clause"])
                + &numbered(&GATE, 1, |refusal| format!("`{refusal:?}`"))
                + &warrants.collect::<String>().replacen("| or |", "| either |", 1)
        }
        "promotion" => head(&["", "what must hold", "clause"]) + &all(&PROMOTION, 1),
        "promise" => {
            head(&["", "what must hold", "otherwise", "clause"])
                + &numbered(&PROMISE, 1, |verdict| match verdict {
                    Verdict::Refused(why) => format!("`{why:?}`"),
                    verdict => format!("`{verdict:?}`"),
                })
        }
        "take-over" => {
            let first = head(&["", "what must hold", "clause"]) + &all(&LAPSED, 1);
            first + &all(&READY_TO_TAKE_OVER, 1 + LAPSED.len())
        }
        "solo" => {
            let first = head(&["", "what must hold", "otherwise", "clause"]);
            let first = first + &numbered(&STAYS_PAIRED, 1, |why| format!("`{why:?}`"));
            first + &numbered(&STAYS_PAIRED_WHILE_UP, 1 + STAYS_PAIRED.len(), |why| format!("`{why:?}`"))
        }
        "pairing" => head(&["", "what must hold", "clause"]) + &all(&PAIRABLE, 1),
        other => panic!("there is no table {other}"),
    }
}

fn row(cells: &[&str]) -> String {
    format!("| {} |\n", cells.join(" | "))
}

fn head(names: &[&str]) -> String {
    row(names) + &format!("|{}\n", "---|".repeat(names.len()))
}

fn clause(clause: Option<Clause>) -> String {
    clause.map_or(String::new(), |c| format!("`{c:?}`"))
}

fn all<Holds>(table: &[Condition<(), Holds>], from: usize) -> String {
    let rows = table.iter().zip(from..);
    rows.map(|(c, n)| row(&[&n.to_string(), c.words, &clause(c.clause)])).collect()
}

fn numbered<Otherwise: Copy + Debug, Holds>(
    table: &[Condition<Otherwise, Holds>],
    from: usize,
    otherwise: impl Fn(Otherwise) -> String,
) -> String {
    let rows = table.iter().zip(from..);
    rows.map(|(c, n)| row(&[&n.to_string(), c.words, &otherwise(c.otherwise), &clause(c.clause)])).collect()
}
