//! Whether both instances hold the same: the content of every table, and indexes that fit their tables.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use futures::future::try_join_all;
use pgpair_core::ids::InstanceId;

use crate::harness::pair::Pair;
use crate::harness::wait::await_condition;

/// For the standby to have replayed the last of it.
const EQUAL: Duration = Duration::from_secs(60);
const TABLES: &str = "SELECT format('%I.%I', schemaname, tablename) FROM pg_tables WHERE schemaname NOT IN ('pg_catalog', \
    'information_schema') ORDER BY 1";
/// A line for each index, of the catalogs too: its tuples in order, and one for each row of its table.
const INDEXES: &str = "SELECT c.oid::regclass, bt_index_check(c.oid, true) FROM pg_class c JOIN pg_am m ON m.oid = c.relam \
    JOIN pg_index i ON i.indexrelid = c.oid WHERE m.amname = 'btree' AND c.relpersistence = 'p' AND i.indisvalid";
/// A line for each damage in a table.
const HEAP: &str = "SELECT c.oid::regclass, v.blkno, v.msg FROM pg_class c, LATERAL verify_heapam(c.oid) v WHERE c.relkind IN \
    ('r', 'm') AND c.relpersistence = 'p'";

/// Compares both instances of a pair that nobody writes to, and looks for damage on each. Says what was compared.
///
/// # Errors
/// Names what differs or is damaged.
pub async fn compare(pair: &Pair, primary: InstanceId) -> anyhow::Result<String> {
    pair.psql(primary, "CREATE EXTENSION IF NOT EXISTS amcheck").await?;
    let tables = pair.psql(primary, TABLES).await?;
    let count = tables.lines().count();
    if count > 0 {
        pair.await_equal(&checksums(&tables), EQUAL).await.context("comparing tables")?;
    }
    let found = try_join_all(InstanceId::ALL.map(|instance| damage(pair, instance))).await?;
    ensure!(found[0] == found[1], "a has {} sound indexes, b has {}", found[0], found[1]);
    Ok(format!("{count} tables and {} indexes", found[0]))
}

/// One query over all tables.
fn checksums(tables: &str) -> String {
    let one = |table: &str| {
        format!(
            "SELECT '{}', count(*), md5(coalesce(string_agg(md5(t::text), '' ORDER BY md5(t::text)), '')) FROM {table} t",
            table.replace('\'', "''")
        )
    };
    tables.lines().map(one).collect::<Vec<_>>().join(" UNION ALL ")
}

async fn damage(pair: &Pair, instance: InstanceId) -> anyhow::Result<usize> {
    // The standby gets the extension by replay.
    let what = format!("amcheck on {instance}");
    let indexes = await_condition(&what, EQUAL, || pair.psql(instance, INDEXES)).await?;
    let heap = pair.psql(instance, HEAP).await.with_context(|| format!("tables of {instance}"))?;
    ensure!(heap.is_empty(), "damage on {instance}: {heap}");
    Ok(indexes.lines().count())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_table_is_in_the_one_query() {
        let sql = checksums("public.one\npublic.\"it's\"");
        assert!(sql.starts_with("SELECT 'public.one', count(*)"), "{sql}");
        assert!(sql.contains("UNION ALL SELECT 'public.\"it''s\"'"), "{sql}");
        assert!(sql.ends_with("FROM public.\"it's\" t"), "{sql}");
    }
}
