//! The record on the API server: linearizable reads and compare-and-set on the pair's Lease.

use std::error::Error as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{Api, PostParams};
use pgpair_core::authority::view::{CasId, CasOutcome, ReadOutcome};
use pgpair_core::record::{Holder, Record, RecordUid, Version, Versioned};
use pgpair_wire::lease::{self, WRITE};

/// The Lease of one pair.
#[derive(Debug, Clone)]
pub struct RecordStore {
    api: Api<Lease>,
    name: String,
    /// Who writes.
    me: Holder,
    /// As last seen: labels, owner and foreign annotations are kept when the record is written.
    seen: Arc<Mutex<Lease>>,
}

impl RecordStore {
    /// The Lease `name` in `namespace`, written by `me`.
    #[must_use]
    pub fn new(client: kube::Client, namespace: &str, name: &str, me: Holder) -> RecordStore {
        RecordStore {
            api: Api::namespaced(client, namespace),
            name: name.to_owned(),
            me,
            seen: Arc::default(),
        }
    }

    /// A GET without `resourceVersion`, answered by a quorum, never by a watch cache. Given up after `limit`.
    pub async fn read(&self, limit: Duration) -> ReadOutcome {
        match tokio::time::timeout(limit, self.api.get(&self.name)).await {
            Ok(Ok(lease)) => {
                let outcome = versioned(&lease).map_or(ReadOutcome::Malformed, ReadOutcome::Got);
                *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = lease;
                outcome
            }
            Ok(Err(kube::Error::Api(status))) if status.code == 404 => ReadOutcome::Missing,
            Ok(Err(e)) => {
                tracing::debug!(error = %e, "the record could not be read");
                ReadOutcome::Failed
            }
            Err(_) => ReadOutcome::Failed,
        }
    }

    /// A PUT with uid and resource version as preconditions. Whatever is not surely "no" may have landed, or may yet: without an
    /// answer within `limit` too.
    ///
    /// `id` makes it differ from every other write: a PUT that changes nothing is answered with the version that was there, and
    /// would not settle an earlier one that may still land.
    pub async fn write(
        &self,
        id: CasId,
        uid: RecordUid,
        expected: Version,
        record: &Record,
        limit: Duration,
    ) -> CasOutcome {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(mut lease) = lease(seen, &self.name, uid, expected, record) else {
            tracing::error!(term = %record.term, "a Lease cannot hold this term, so the record is not written");
            return CasOutcome::NotSent;
        };
        let annotations = lease.metadata.annotations.get_or_insert_default();
        annotations.insert(WRITE.into(), format!("{}/{}/{}", self.me.instance, self.me.incarnation, id.0));
        let parameters = PostParams::default();
        let request = self.api.replace(&self.name, &parameters, &lease);
        match tokio::time::timeout(limit, request).await {
            Ok(Ok(answer)) => {
                match answer.metadata.resource_version.as_deref().and_then(|v| v.parse().ok()) {
                    Some(v) => CasOutcome::Won(Version(v)),
                    None => CasOutcome::Unknown,
                }
            }
            Ok(Err(e)) => {
                tracing::debug!(error = %e, "the record could not be written");
                outcome_of(&e)
            }
            Err(_) => CasOutcome::Unknown,
        }
    }
}

fn outcome_of(e: &kube::Error) -> CasOutcome {
    match e {
        kube::Error::Api(s) if s.code == 409 => CasOutcome::Conflict,
        kube::Error::Api(s) if s.code == 404 => CasOutcome::Missing,
        // Refused before it was tried: no right to it, or not understood.
        kube::Error::Api(s) if (400..500).contains(&s.code) && s.code != 408 && s.code != 429 => {
            CasOutcome::NotSent
        }
        e if never_left(e) => CasOutcome::NotSent,
        _ => CasOutcome::Unknown,
    }
}

/// Whether the connection was never made, by the client library's own word.
fn never_left(e: &kube::Error) -> bool {
    let mut cause = e.source();
    while let Some(c) = cause {
        if c.downcast_ref::<hyper_util::client::legacy::Error>().is_some_and(|e| e.is_connect()) {
            return true;
        }
        cause = c.source();
    }
    false
}

fn versioned(lease: &Lease) -> Option<Versioned> {
    let spec = lease.spec.as_ref()?;
    let annotations = lease.metadata.annotations.clone().unwrap_or_default();
    let record = lease::read(spec.holder_identity.as_deref(), spec.lease_transitions, &annotations)
        .inspect_err(|e| tracing::error!(error = %e, "the lease holds no record that can be read; nothing is done by it"))
        .ok()?;
    let version = lease.metadata.resource_version.as_deref()?.parse().ok()?;
    Some(Versioned { uid: uid_of(lease.metadata.uid.as_deref()?)?, version: Version(version), record })
}

/// A UUID as a number.
fn uid_of(text: &str) -> Option<RecordUid> {
    let hex: String = text.chars().filter(|c| *c != '-').collect();
    u128::from_str_radix(&hex, 16).ok().map(RecordUid)
}

fn uid_text(uid: RecordUid) -> String {
    let h = format!("{:032x}", uid.0);
    format!("{}-{}-{}-{}-{}", &h[..8], &h[8..12], &h[12..16], &h[16..20], &h[20..])
}

/// `None`: the term is beyond what a Lease can hold; without it, nobody could read the record any more.
fn lease(seen: Lease, name: &str, uid: RecordUid, expected: Version, record: &Record) -> Option<Lease> {
    let mut lease = seen;
    lease.metadata.managed_fields = None;
    lease.metadata.name = Some(name.to_owned());
    lease.metadata.uid = Some(uid_text(uid));
    lease.metadata.resource_version = Some(expected.0.to_string());
    let annotations = lease.metadata.annotations.get_or_insert_default();
    annotations.retain(|key, _| !lease::ANNOTATIONS.contains(&key.as_str()));
    annotations.extend(lease::annotations(record));
    let spec = lease.spec.get_or_insert_default();
    spec.holder_identity = Some(lease::holder_identity(record));
    spec.lease_transitions = Some(i32::try_from(record.term.0).ok()?);
    Some(lease)
}

#[cfg(test)]
mod tests {
    use pgpair_core::ids::Term;

    use super::*;

    #[test]
    fn a_record_goes_through_the_lease_unchanged() {
        let uid = RecordUid(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef);
        let mut seen = Lease::default();
        let foreign = ("team".to_owned(), "blue".to_owned());
        let stale = (lease::STANDBY_VOLUME.to_owned(), "0000000000000001".to_owned());
        seen.metadata.annotations = Some([foreign.clone(), stale].into());
        let made = lease(seen, "shop", uid, Version(7), &Record::initial()).unwrap();
        assert_eq!(made.metadata.annotations.as_ref().and_then(|a| a.get("team")), Some(&foreign.1));
        assert_eq!(versioned(&made), Some(Versioned { uid, version: Version(7), record: Record::initial() }));
    }

    #[test]
    fn a_term_that_a_lease_cannot_hold_is_not_written_as_none() {
        let with_term = |term| Record { term: Term(term), ..Record::initial() };
        let made = |term| lease(Lease::default(), "shop", RecordUid(1), Version(7), &with_term(term));
        let last = made(i32::MAX.unsigned_abs()).unwrap().spec.unwrap();
        assert_eq!(last.lease_transitions, Some(i32::MAX));
        assert_eq!(made(1 << 31), None);
    }

    #[test]
    fn only_a_sure_no_is_taken_for_one() {
        let api =
            |code| kube::Error::Api(Box::new(kube::core::Status { code, ..kube::core::Status::default() }));
        assert_eq!(outcome_of(&api(409)), CasOutcome::Conflict);
        assert_eq!(outcome_of(&api(403)), CasOutcome::NotSent);
        assert_eq!(outcome_of(&api(404)), CasOutcome::Missing);
        for code in [408, 429, 500, 503, 504] {
            assert_eq!(outcome_of(&api(code)), CasOutcome::Unknown, "{code}");
        }
    }
}
