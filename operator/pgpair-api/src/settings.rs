//! The form of names in `spec.postgres.parameters`; which of them are refused, and why, is [`pgpair_wire::parameters`].

/// Whether `name` has the form of a setting, in lower case, with at most one dot for an extension's setting.
#[must_use]
pub fn is_well_formed(name: &str) -> bool {
    let part = |p: &str| {
        p.bytes().next().is_some_and(|b| b.is_ascii_lowercase() || b == b'_')
            && p.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
    };
    name.len() <= 63 && name.split('.').count() <= 2 && name.split('.').all(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_postgres_could_have_are_well_formed() {
        for name in ["work_mem", "pg_stat_statements.max"] {
            assert!(is_well_formed(name), "{name}");
        }
        for name in ["", "a b", "a'b", "a.b.c", "Work_mem", "1a", "a\nport"] {
            assert!(!is_well_formed(name), "{name:?}");
        }
    }
}
