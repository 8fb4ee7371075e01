//! Who may ask an agent for what.

use axum::extract::connect_info::Connected;
use axum::extract::{ConnectInfo, Request};
use axum::http::header::CONTENT_LENGTH;
use axum::http::{HeaderMap, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::serve::IncomingStream;
use pgpair_core::authority::messages::EvidenceKind;
use pgpair_core::order::OrderKind;
use pgpair_wire::paths;

use crate::net::caller::Caller;
use crate::net::listener::MutualTls;

/// The configuration of a pair is the largest that travels.
const LARGEST_BODY: u64 = 2 * 1024 * 1024;

impl Connected<IncomingStream<'_, MutualTls>> for Caller {
    fn connect_info(stream: IncomingStream<'_, MutualTls>) -> Caller {
        *stream.remote_addr()
    }
}

impl Caller {
    /// Whether the path is for it at all. What it may say there, its handler judges.
    fn may(self, method: &Method, path: &str) -> bool {
        let is_of_both = [paths::REPORT, paths::EVIDENCE, paths::ORDER].contains(&path);
        let is_of_the_operator =
            [paths::CONFIG, paths::PASSWORDS, paths::CERTIFICATES].contains(&path) && method == Method::PUT;
        match self {
            Caller::Peer => is_of_both || !is_of_the_operator,
            Caller::PeerRestore => method == Method::GET && is_log(path),
            Caller::Operator => is_of_both || is_of_the_operator,
        }
    }

    /// The operator says what Kubernetes says; the peer's witness what its lock shows.
    pub(super) fn may_testify(self, kind: EvidenceKind) -> bool {
        match kind {
            EvidenceKind::VolumeLock => self == Caller::Peer,
            EvidenceKind::KubeletTerminated | EvidenceKind::OutOfServiceTaint => self == Caller::Operator,
            EvidenceKind::Person => false, // part of an order
        }
    }

    /// The peer hands on its trigger file, and nothing else.
    pub(super) fn may_order(self, kind: OrderKind) -> bool {
        match self {
            Caller::Operator => true,
            Caller::Peer => kind == OrderKind::Switchover,
            Caller::PeerRestore => false,
        }
    }
}

/// Whether the path is that of log files, or of one.
fn is_log(path: &str) -> bool {
    path.strip_prefix(paths::WAL).is_some_and(|file| file.is_empty() || file.starts_with('/'))
}

/// Whether a body is announced that is larger than any of ours; one that is not announced is limited where it is read.
fn is_too_large(headers: &HeaderMap) -> bool {
    let length = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    length.is_some_and(|length| length > LARGEST_BODY)
}

/// Lets a request through to its handler, with the [`Caller`] in its extensions, or refuses it.
pub(super) async fn judge(
    ConnectInfo(caller): ConnectInfo<Caller>,
    mut request: Request,
    next: Next,
) -> Response {
    if is_too_large(request.headers()) {
        return (StatusCode::PAYLOAD_TOO_LARGE, "the body is larger than any that is read here")
            .into_response();
    }
    if caller.may(request.method(), request.uri().path()) {
        request.extensions_mut().insert(caller);
        return next.run(request).await;
    }
    let path = request.uri().path();
    tracing::warn!(?caller, path, "a certificate asks for what is not for its name");
    (StatusCode::FORBIDDEN, "this is not for the name in your certificate").into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_that_is_announced_as_larger_than_any_of_ours_is_refused_before_it_is_read() {
        for (length, too_large) in [("0", false), ("2097152", false), ("2097153", true), ("x", false)] {
            let headers = HeaderMap::from_iter([(CONTENT_LENGTH, length.parse().unwrap())]);
            assert_eq!(is_too_large(&headers), too_large, "{length}");
        }
        assert!(!is_too_large(&HeaderMap::new()));
    }

    #[test]
    fn each_path_is_for_whom_it_is_meant() {
        use Method as M;
        let cells = [
            (M::GET, paths::REPORT, [true, false, true]),
            (M::POST, paths::EVIDENCE, [true, false, true]),
            (M::POST, paths::ORDER, [true, false, true]),
            (M::PUT, paths::CONFIG, [false, false, true]),
            (M::PUT, paths::PASSWORDS, [false, false, true]),
            (M::PUT, paths::CERTIFICATES, [false, false, true]),
            (M::POST, paths::HEARTBEAT, [true, false, false]),
            (M::POST, paths::CAN_TAKE, [true, false, false]),
            (M::POST, paths::RESIGN, [true, false, false]),
            (M::GET, paths::TIMELINE, [true, false, false]),
            (M::GET, paths::NEEDS, [true, false, false]),
            (M::GET, paths::WAL, [true, true, false]),
            (M::GET, "/v1/wal/000000010000000000000001", [true, true, false]),
            (M::POST, "/v1/wal/000000010000000000000001", [true, false, false]),
            (M::GET, "/v1/walnut", [true, false, false]),
        ];
        for (method, path, may) in cells {
            let callers = [Caller::Peer, Caller::PeerRestore, Caller::Operator];
            assert_eq!(callers.map(|caller| caller.may(&method, path)), may, "{method} {path}");
        }
    }

    #[test]
    fn evidence_and_orders_are_of_whom_they_can_be() {
        use EvidenceKind as E;
        for (kind, peer, operator) in [
            (E::VolumeLock, true, false),
            (E::KubeletTerminated, false, true),
            (E::OutOfServiceTaint, false, true),
            (E::Person, false, false),
        ] {
            assert_eq!(Caller::Peer.may_testify(kind), peer, "{kind:?}");
            assert_eq!(Caller::Operator.may_testify(kind), operator, "{kind:?}");
            assert!(!Caller::PeerRestore.may_testify(kind), "{kind:?}");
        }
        for kind in [OrderKind::Switchover, OrderKind::Restart, OrderKind::Fence, OrderKind::Rebuild] {
            assert!(Caller::Operator.may_order(kind) && !Caller::PeerRestore.may_order(kind));
            assert_eq!(Caller::Peer.may_order(kind), kind == OrderKind::Switchover, "{kind:?}");
        }
    }
}
