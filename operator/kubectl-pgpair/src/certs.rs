//! `certs`: when the pair's certificates end.

use std::fmt::Write as _;

use jiff::Timestamp;
use pgpair_api::PgReplicaPair;

use crate::args::Output;
use crate::cluster::Cluster;
use crate::page::until;

/// Shows them.
///
/// # Errors
/// The pair cannot be read.
pub async fn show(cluster: &Cluster, name: &str, output: Output) -> anyhow::Result<()> {
    let pair = cluster.pair(name).await?;
    match output {
        Output::Page => print!("{}", render(&pair, Timestamp::now())),
        Output::Json => {
            let certificates = pair.status.map(|s| s.certificates).unwrap_or_default();
            println!("{}", serde_json::to_string_pretty(&certificates)?);
        }
    }
    Ok(())
}

fn render(pair: &PgReplicaPair, now: Timestamp) -> String {
    let certificates = pair.status.as_ref().map(|s| s.certificates.as_slice()).unwrap_or_default();
    if certificates.is_empty() {
        return "the operator has told of no certificate yet: does it run?\n".into();
    }
    let wide = certificates.iter().map(|c| c.secret.len()).max().unwrap_or(0).max(6);
    let mut out = format!("{:<wide$}  {:<20}  ENDS\n", "SECRET", "NOT AFTER");
    for c in certificates {
        let end = c.not_after.0;
        // Writing into a String does not fail.
        let _ = writeln!(
            out,
            "{:<wide$}  {:<20}  {}",
            c.secret,
            end.to_string(),
            until(end.as_second() - now.as_second())
        );
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::mock;

    fn page(status: Value) -> String {
        render(&serde_json::from_value(mock::pair(status)).unwrap(), "2026-01-01T00:00:00Z".parse().unwrap())
    }

    #[test]
    fn each_certificate_has_its_end() {
        let status = json!({"certificates": [
            {"secret": "orders-ca", "notAfter": "2036-01-01T00:00:00Z"},
            {"secret": "orders-a-tls", "notAfter": "2026-03-01T00:00:00Z"},
            {"secret": "orders-b-tls", "notAfter": "2025-12-31T23:00:00Z"}]});
        insta::assert_snapshot!(page(status));
    }

    #[test]
    fn a_pair_that_nobody_looks_after_says_so() {
        assert!(page(Value::Null).contains("does it run?"));
    }
}
