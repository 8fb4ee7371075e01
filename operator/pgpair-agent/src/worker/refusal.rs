//! Why no postgres runs, in the words of the program that refuses, and whether a new copy of the data would change that.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use pgpair_core::ids::Term;

use super::Worker;
use crate::postgres::control_file;
use crate::postgres::postmaster::PostmasterError;
use crate::postgres::tool::{self, NOT_THE_DATA};

/// The first start of a new pair that failed so often is made once more to learn why.
const FAILED_FIRST: u32 = 2;
/// How much of what a program said is told.
const WORDS: usize = 600;

/// What postgres says when the files of its directory are damaged or missing: a copy of the primary's has them. Anything else, such
/// as a library that is missing in the image, would keep the copy from starting too.
const CURED_BY_A_COPY: &[&str] = &[
    "could not locate a valid checkpoint record",
    "could not locate required checkpoint record",
    "invalid checkpoint record",
    "invalid primary checkpoint record",
    "could not find redo location referenced by checkpoint record",
    "is not a child of this server's history",
    "does not contain minimum recovery point",
    "WAL ends before consistent recovery point",
    "WAL ends before end of online backup",
    "history file",
    "backup_label",
    "invalid page in block",
    "page verification failed",
    "WAL contains references to invalid pages",
    "unexpected data beyond EOF",
    "could not access status of transaction",
    "incorrect checksum in control file",
    "global/pg_control",
    "could not find the database system",
    "is not a valid data directory",
    "\"base/",
    "\"base\"",
    "\"global/",
    "\"global\"",
    "open file \"pg_",
    "read file \"pg_",
    "open directory \"pg_",
];

/// Whether a new copy of the primary would start where this directory does not. In doubt not: a copy in vain takes hours, and the
/// standby is away meanwhile.
pub(super) fn is_cured_by_a_copy(said: &str) -> bool {
    let fatal = || said.lines().filter(|line| !line.contains("LOG:"));
    let says = |texts: &[&str]| fatal().any(|line| texts.iter().any(|text| line.contains(text)));
    // A replay that panics over a record has found pages that do not fit it.
    let panics = said.contains("PANIC:") && said.contains("WAL redo at");
    (panics || says(CURED_BY_A_COPY)) && !says(&NOT_THE_DATA)
}

/// The last refusal in what a program said, without times and process numbers, so that the same one reads the same each time;
/// else the end of it.
pub(super) fn last_words(said: &str) -> String {
    const REFUSALS: [&str; 3] = ["PANIC:", "FATAL:", "error:"];
    // Of a connection, while it starts or stops.
    const REFUSES_CLIENTS: &str = "the database system is";
    const EXPLAIN: [&str; 3] = ["DETAIL:", "HINT:", "CONTEXT:"];
    let from = |line: &str, words: &[&str]| -> Option<String> {
        let at = words.iter().find_map(|word| line.find(word))?;
        Some(line.get(at..)?.trim().to_owned())
    };
    // What follows the first one is mostly its consequence.
    let lines: Vec<&str> = said.lines().collect();
    let refuses = |line: &&str| from(line, &REFUSALS).is_some() && !line.contains(REFUSES_CLIENTS);
    let Some(first) = lines.iter().position(refuses) else {
        return tool::tail(said);
    };
    let explained = lines.iter().skip(first + 1).map_while(|line| from(line, &EXPLAIN));
    let all: Vec<String> =
        lines.get(first).and_then(|l| from(l, &REFUSALS)).into_iter().chain(explained).collect();
    all.join(" | ").chars().take(WORDS).collect()
}

/// What a program of PostgreSQL said, or why it said nothing.
pub(super) fn words_of(error: &PostmasterError) -> String {
    match error {
        PostmasterError::Tool(tool) if !tool.text().is_empty() => {
            format!("{}: {}", tool.program(), last_words(tool.text()))
        }
        other => other.to_string(),
    }
}

/// Why programs of one major version do not start a directory of another.
fn misfit(programs: Option<u32>, directory: Option<u32>) -> Option<String> {
    let (programs, directory) = (programs?, directory?);
    (programs != directory).then(|| {
        format!(
            "the image holds PostgreSQL {programs}, and the data directory is of major version {directory}: \
             postgres is not started; set spec.postgres.image to an image of PostgreSQL {directory}"
        )
    })
}

impl Worker {
    async fn major(&mut self) -> Option<u32> {
        if self.major.flatten().is_none() {
            self.major = Some(self.bin.major().await);
        }
        self.major.flatten()
    }

    /// Whether the programs are of the data directory's version; what is not known is no reason to refuse. Else it is told.
    pub(super) async fn programs_fit(&mut self) -> bool {
        let directory = control_file::major(&self.settings.layout.pgdata());
        let Some(why) = misfit(self.major().await, directory) else { return true };
        // Counts like a start that failed: a primary that cannot start hands over.
        self.failed_starts += 1;
        self.not_before = Instant::now() + Duration::from_millis(200 << self.failed_starts.min(6));
        self.refuse(why);
        false
    }

    /// Whether the programs are of the version that the spec names: before the first data directory is made. Else it is told.
    pub(super) async fn programs_are_wanted(&mut self) -> bool {
        let wanted = self.config().bootstrap.version;
        match (self.major().await, wanted) {
            (Some(programs), Some(wanted)) if programs != wanted => {
                self.refuse(format!(
                "the image holds PostgreSQL {programs}, and spec.postgres.version is {wanted}: no data directory is made; set \
                 spec.postgres.image to an image of PostgreSQL {wanted}, or create the pair again with version {programs}"
            ));
                false
            }
            _ => true,
        }
    }

    fn refuse(&mut self, why: String) {
        if self.refused.as_ref() != Some(&why) {
            tracing::error!(why, "refused");
        }
        self.refused = Some(why);
    }

    /// Where postgres is to write what it says: the first starts of a new pair are made again to learn why they fail.
    pub(super) fn first_start_log(&mut self, term: Term) -> Option<PathBuf> {
        if term > Term(1) || self.failed_starts < FAILED_FIRST {
            return None;
        }
        let log = self.settings.layout.start_log();
        let words = last_words(&std::fs::read_to_string(&log).unwrap_or_default());
        if self.learning && !words.is_empty() {
            tracing::error!(failed = self.failed_starts, words, "postgres does not start");
            self.refused = Some(format!("postgres does not start: {words}"));
        }
        self.learning = true;
        Some(log)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_asked_for_when_files_are_damaged_or_missing_and_for_nothing_else() {
        for said in [
            "PANIC:  could not locate a valid checkpoint record",
            "PANIC:  could not locate a valid checkpoint record at 0/3000028",
            "FATAL:  requested timeline 2 is not a child of this server's history",
            "FATAL:  invalid page in block 7 of relation base/5/1259",
            "FATAL:  could not open file \"base/5/1259\": No such file or directory",
            "FATAL:  could not open file \"pg_xact/0000\": No such file or directory",
            "FATAL:  \"/pgpair/data/pgdata\" is not a valid data directory",
            "postgres: could not find the database system\nExpected to find it in the directory \"/pgpair/data/pgdata\"",
            "FATAL:  incorrect checksum in control file",
            "PANIC:  invalid max offset number\nCONTEXT:  WAL redo at 0/5000028 for Heap/INSERT",
        ] {
            assert!(is_cured_by_a_copy(said), "{said}");
        }
        for said in [
            "FATAL:  could not access file \"no_such_library\": No such file or directory",
            "FATAL:  could not access file \"pg_stat_statementz\": No such file or directory",
            "FATAL:  could not load library \"/usr/lib/pgaudit.so\": undefined symbol: x",
            "FATAL:  database files are incompatible with server",
            "FATAL:  configuration file \"/x/postgresql.conf\" contains errors",
            "FATAL:  could not write lock file \"postmaster.pid\": No space left on device",
            "FATAL:  could not open file \"base/5/1259\": Permission denied",
            "PANIC:  could not write to file \"pg_wal/xlogtemp.9\": No space left on device",
            "FATAL:  could not map anonymous shared memory: Cannot allocate memory",
            "FATAL:  recovery aborted because of insufficient parameter settings",
            "LOG:  invalid checkpoint record",
            "",
        ] {
            assert!(!is_cured_by_a_copy(said), "{said}");
        }
    }

    #[test]
    fn the_same_refusal_reads_the_same_each_time() {
        let said = |pid: u32| {
            format!(
                "2026-05-01 12:00:{pid} UTC [{pid}] LOG:  starting PostgreSQL 15\n\
                 2026-05-01 12:00:{pid} UTC [{pid}] FATAL:  database files are incompatible with server\n\
                 2026-05-01 12:00:{pid} UTC [{pid}] DETAIL:  The data directory was initialized by PostgreSQL version 17.\n\
                 2026-05-01 12:00:{pid} UTC [{pid}] LOG:  database system is shut down\n"
            )
        };
        let words = last_words(&said(11));
        assert_eq!(words, last_words(&said(12)));
        assert_eq!(
            words,
            "FATAL:  database files are incompatible with server | \
             DETAIL:  The data directory was initialized by PostgreSQL version 17."
        );
        let initdb = "The files belonging to this database system will be owned by user \"postgres\".\n\
                      initdb: error: invalid locale name \"de_DE.UTF-8\"\n\
                      initdb: hint: If the locale name is specific to ICU, use --icu-locale.";
        assert_eq!(last_words(initdb), "error: invalid locale name \"de_DE.UTF-8\"");
        assert_eq!(last_words("killed"), "killed");
    }

    #[test]
    fn programs_of_another_major_version_do_not_start_a_directory() {
        let why = misfit(Some(15), Some(17)).unwrap();
        assert!(
            why.contains("the image holds PostgreSQL 15") && why.contains("is of major version 17"),
            "{why}"
        );
        assert_eq!(misfit(Some(17), Some(17)), None);
        assert_eq!(misfit(None, Some(17)), None, "what is not known is no reason to refuse");
        assert_eq!(misfit(Some(17), None), None);
    }
}
