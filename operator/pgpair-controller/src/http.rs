//! Probes and metrics of the operator, on plain HTTP: nothing secret.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{StatusCode, header};
use axum::routing::get;
use hyper_util::service::TowerToHyperService;
use pgpair_wire::door::{self, Limits};
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::cache::Signs;

/// Who asks at once, and for how long: all metrics of many pairs take a while to a slow reader.
const ASKERS: Limits = Limits { places: 64, time: Duration::from_secs(30) };

/// Serves until `stop` says so. `/readyz` answers what [`crate::health::Health::readiness`] says: of a leader that its caches are filled and its
/// watches live, of another replica that the API server answers it.
///
/// # Errors
/// The address cannot be bound, or the listener broke.
pub async fn serve(
    address: SocketAddr,
    Signs { health, metrics }: Signs,
    mut stop: watch::Receiver<bool>,
) -> std::io::Result<()> {
    let router = Router::new()
        .route("/livez", get(async || "ok"))
        .route(
            "/readyz",
            get(async move || match health.readiness() {
                Ok(words) => (StatusCode::OK, words.to_owned()),
                Err(why) => (StatusCode::SERVICE_UNAVAILABLE, why),
            }),
        )
        .route(
            "/metrics",
            get(async move || {
                let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
                let parts = metrics.parts().filter(|part| !part.is_empty()).map(Ok::<_, Infallible>);
                ([(header::CONTENT_TYPE, kind)], Body::from_stream(futures::stream::iter(parts)))
            }),
        );
    let listener = TcpListener::bind(address).await?;
    tokio::select! {
        () = door::serve(listener, ASKERS, TowerToHyperService::new(router)) => {}
        // An error means that the process is ending: stop as well.
        _ = stop.wait_for(|stop| *stop) => {}
    }
    Ok(())
}
