//! A new cluster.

use std::time::Duration;

use pgpair_core::ids::{SystemIdentifier, VolumeId};
use pgpair_wire::config::Bootstrap;

use crate::fence::lock::VolumeLock;
use crate::instance::env::InstanceEnv;
use crate::instance::fsx;
use crate::postgres::control_file;
use crate::postgres::pgdata::Volume;
use crate::postgres::postmaster::PostmasterError;
use crate::postgres::tool::{self, PgBin, ToolError};

/// initdb writes and syncs about 40 MB.
const LIMIT: Duration = Duration::from_secs(300);

/// Makes a new cluster in the empty PGDATA; `volume.json` at the end says that it is complete. What an interrupted initdb
/// left must be moved aside by the caller first.
///
/// # Errors
/// PGDATA is not empty, or initdb failed.
pub async fn initdb(
    settings: &InstanceEnv,
    bootstrap: &Bootstrap,
    bin: &PgBin,
    lock: &VolumeLock,
    volume: VolumeId,
) -> Result<SystemIdentifier, PostmasterError> {
    let layout = &settings.layout;
    let pgdata = layout.pgdata();
    let mut command = bin.command("initdb");
    command
        .arg("-D")
        .arg(&pgdata)
        .arg(format!("--encoding={}", bootstrap.encoding))
        .arg(format!("--locale={}", bootstrap.locale))
        .args(["--username=postgres", "--auth-local=trust", "--auth-host=reject"])
        // Holds the lock too: an initdb that outlives its agent is noticed.
        .stdin(lock.share().map_err(|source| ToolError::Start { program: "initdb".into(), source })?);
    if bootstrap.checksums {
        command.arg("--data-checksums");
    } else if let Some(18..) = bin.major().await {
        // On by default since then.
        command.arg("--no-data-checksums");
    }
    tool::run(&mut command, LIMIT).await?;
    let system_identifier = control_file::system_identifier(&pgdata)?;
    fsx::write_json(&layout.volume_json(), &Volume { volume_id: volume, system_identifier })?;
    Ok(system_identifier)
}
