//! Commands in a container.

use std::time::Duration;

use anyhow::{Context as _, bail};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::AttachParams;
use tokio::io::AsyncReadExt as _;
use tokio::time::timeout;

/// Longest time that a command in a container may take.
const LIMIT: Duration = Duration::from_secs(30);

/// Runs `command` in a container and returns its standard output.
///
/// # Errors
/// When it cannot be started, fails, or takes more than 30 s; carries its standard error.
pub async fn exec(pods: &Api<Pod>, pod: &str, container: &str, command: &[&str]) -> anyhow::Result<String> {
    timeout(LIMIT, run(pods, pod, container, command))
        .await
        .with_context(|| format!("`{}` in {pod} took more than {} s", command.join(" "), LIMIT.as_secs()))?
}

async fn run(pods: &Api<Pod>, pod: &str, container: &str, command: &[&str]) -> anyhow::Result<String> {
    let params = AttachParams::default().container(container).stdin(false).stdout(true).stderr(true);
    let mut process = pods
        .exec(pod, command.iter().copied(), &params)
        .await
        .with_context(|| format!("starting `{}` in {pod}", command.join(" ")))?;
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let (stdout, stderr, status) = (process.stdout(), process.stderr(), process.take_status());
    let read_out = async {
        if let Some(mut stream) = stdout {
            stream.read_to_end(&mut out).await.map(|_| ())?;
        }
        std::io::Result::Ok(())
    };
    let read_err = async {
        if let Some(mut stream) = stderr {
            stream.read_to_end(&mut err).await.map(|_| ())?;
        }
        std::io::Result::Ok(())
    };
    tokio::try_join!(read_out, read_err).with_context(|| format!("reading what {pod} says"))?;
    let status = match status {
        Some(status) => status.await,
        None => None,
    };
    match status {
        Some(status) if status.status.as_deref() == Some("Success") => {
            Ok(String::from_utf8_lossy(&out).into_owned())
        }
        Some(status) => bail!(
            "`{}` in {pod}: {} {}",
            command.join(" "),
            status.message.unwrap_or_default(),
            String::from_utf8_lossy(&err).trim()
        ),
        None => bail!("`{}` in {pod}: the connection ended before its outcome was known", command.join(" ")),
    }
}
