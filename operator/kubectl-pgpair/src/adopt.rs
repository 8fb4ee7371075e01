//! `adopt`: what was found on the volumes of an earlier pair, and the choice of a person.

use std::fmt::Write as _;

use anyhow::ensure;
use pgpair_api::PgReplicaPair;
use pgpair_api::convert::bytes;
use pgpair_api::status::{AdoptionPhase, AdoptionStatus, FoundVolumeStatus};
use pgpair_core::ids::InstanceId;

use crate::cluster::Cluster;

/// Shows how the adoption stands, or gives the choice.
///
/// # Errors
/// The pair cannot be read or changed, or it does not ask what is answered.
pub async fn run(cluster: &Cluster, name: &str, choice: Option<(InstanceId, String)>) -> anyhow::Result<()> {
    let pair = cluster.pair(name).await?;
    let Some((primary, accept)) = choice else {
        print!("{}", render(&pair));
        return Ok(());
    };
    let adoption = pair.status.and_then(|status| status.adoption).unwrap_or_default();
    ensure!(
        adoption.phase.is(AdoptionPhase::Asking),
        "pair {name} asks nothing: kubectl pgpair adopt {name} shows how its adoption stands"
    );
    ensure!(
        adoption.accept.as_deref() == Some(&accept),
        "what is on the volumes of {name} is not what {accept} stands for: kubectl pgpair adopt {name} shows it"
    );
    cluster.choose(name, primary, &accept).await?;
    println!("{name}-{primary} becomes the primary; kubectl pgpair adopt {name} shows how it goes on");
    Ok(())
}

fn render(pair: &PgReplicaPair) -> String {
    match pair.status.as_ref().and_then(|status| status.adoption.as_ref()) {
        Some(adoption) => page(adoption),
        None => {
            "nothing is taken up: spec.bootstrap.adopt asks for it, before the pair has a record\n".into()
        }
    }
}

/// As part of the status page too.
pub fn page(adoption: &AdoptionStatus) -> String {
    let mut out = String::new();
    // Writing into a String does not fail.
    let _ = writeln!(out, "ADOPTION  {}: {}", adoption.phase, adoption.message);
    for volume in &adoption.volumes {
        let _ = writeln!(out, "          {}", of_volume(volume));
    }
    out
}

fn of_volume(volume: &FoundVolumeStatus) -> String {
    let mut text = format!("{}: {}", volume.instance, volume.found);
    if let Some(why) = &volume.why {
        let _ = write!(text, " ({why})");
    }
    if let Some(end) = &volume.end_lsn {
        let timeline = volume.timeline.map_or_else(|| "-".to_owned(), |timeline| timeline.to_string());
        let _ = write!(text, ", log to {end} of timeline {timeline}");
    }
    if let Some(term) = volume.term {
        let role = if volume.primary == Some(true) { "primary" } else { "standby" };
        let _ = write!(text, ", {role} in term {term}");
    }
    if let Some(written) = &volume.written_time {
        let _ = write!(text, ", written until {}", written.0);
    }
    if let Some(lost) = volume.loses_bytes {
        let seconds = volume.loses_seconds.map(|s| format!(", {s} s")).unwrap_or_default();
        let _ = write!(text, "; a choice of it loses {}{seconds}", bytes(u64::try_from(lost).unwrap_or(0)));
    }
    text
}

#[cfg(test)]
mod tests {
    use http::StatusCode;
    use serde_json::{Value, json};

    use super::*;
    use crate::mock::{self, cluster};

    fn asking() -> Value {
        json!({"adoption": {
            "phase": "Asking", "message": "each has WAL that the other lacks", "accept": "00000000000000ff",
            "volumes": [
                {"instance": "orders-a", "found": "Data", "term": 3, "primary": true, "timeline": 1, "endLsn": "0/5000060",
                 "writtenTime": "2026-01-01T00:00:00Z", "losesBytes": 4096, "losesSeconds": 7},
                {"instance": "orders-b", "found": "Unreadable", "why": "no pg_control"}],
        }})
    }

    #[test]
    fn the_page_says_what_was_found_and_what_a_choice_loses() {
        let pair = serde_json::from_value(mock::pair(asking())).unwrap();
        assert_eq!(
            render(&pair),
            "ADOPTION  Asking: each has WAL that the other lacks\n          orders-a: Data, log to 0/5000060 of timeline 1, primary in term 3, \
             written until 2026-01-01T00:00:00Z; a choice of it loses 4 KiB, 7 s\n          orders-b: Unreadable (no pg_control)\n"
        );
        let pair = serde_json::from_value(mock::pair(json!({}))).unwrap();
        assert!(render(&pair).contains("spec.bootstrap.adopt"));
    }

    #[tokio::test]
    async fn a_choice_is_given_only_for_what_is_asked() {
        let chosen = |accept: &str| Some((InstanceId::B, accept.to_owned()));
        for (status, accept, given) in [
            (asking(), "00000000000000ff", true),
            (asking(), "00000000000000fe", false),
            (json!({}), "00000000000000ff", false),
        ] {
            let (orders, server) = cluster(move |_, _| (StatusCode::OK, mock::pair(status.clone())));
            assert_eq!(run(&orders, "orders", chosen(accept)).await.is_ok(), given, "{accept}");
            drop(orders);
            let writes: Vec<_> =
                server.await.unwrap().into_iter().filter(|seen| seen.method == http::Method::PATCH).collect();
            let expected = json!({"spec": {"bootstrap": {"adopt": {"primary": "b", "accept": accept}}}});
            assert_eq!(writes.len(), usize::from(given));
            assert!(writes.iter().all(|write| write.body == expected), "{writes:?}");
        }
    }
}
