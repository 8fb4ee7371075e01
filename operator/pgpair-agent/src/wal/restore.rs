//! `pgpair wal-restore %f %p`: one file of the log, from our archive or from the peer's.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use hyper::StatusCode;
use hyper::header::HeaderValue;
use pgpair_core::ids::SystemIdentifier;
use pgpair_core::timeline::{TimelineHistory, TimelineId};
use pgpair_core::wal::WalFile;
use pgpair_wire::client::{self, Call, Connection, Pieces, RequestError};
use pgpair_wire::paths;

use crate::instance::env::InstanceEnv;
use crate::instance::fsx::{self, Context, FileError};
use crate::instance::layout::Layout;
use crate::net::tls::{self, TlsError};
use crate::postgres::control_file;
use crate::postgres::pgdata;
use crate::postgres::tool::PgBin;
use crate::wal::archive::{self, Places, SMALLEST_SEGMENT};
use crate::wal::content::{self, ContentError};
use crate::wal::histories;
use crate::wal::twice;

/// For an answer to begin, and for each next piece of it. Postgres waits for us: a peer that does not answer must not stop
/// replay of what is there.
const PEER: Duration = Duration::from_secs(3);
/// A node that is gone does not even refuse.
const CONNECT: Duration = Duration::from_secs(1);
/// How soon a promotion ends the wait for the peer.
const ALONE_POLL: Duration = Duration::from_millis(10);
/// An idle standby asks five times a second.
const COMPLAIN_EVERY: Duration = Duration::from_secs(30);
/// Nothing of the log is larger.
const LARGEST_FILE: usize = 1024 * 1024 * 1024;

/// A file that was not restored.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// Neither archive has it: the normal end of a replay.
    #[error("nobody has it")]
    Nobody,
    /// Not a name of the log.
    #[error("{0:?} is not the name of a WAL file")]
    Name(String),
    /// A file of ours.
    #[error(transparent)]
    File(#[from] FileError),
    /// Certificates.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The peer cannot be asked.
    #[error("cannot ask the peer {host}: {source}")]
    Peer {
        /// Its host name and port.
        host: String,
        /// Why.
        source: PeerFault,
    },
    /// Something else than what was asked for.
    #[error("the copy of {from} is not usable: {source}")]
    Unusable {
        /// Where it came from.
        from: &'static str,
        /// What is wrong with it.
        source: ContentError,
    },
}

/// Why the peer has not given a file that it may have.
#[derive(Debug, thiserror::Error)]
pub enum PeerFault {
    /// The request.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// The size that it names in its answer is not that of a file of the WAL.
    #[error("it names a size of {0:?}")]
    Size(HeaderValue),
    /// It sends more than a file of the WAL can have.
    #[error("it sends more than {LARGEST_FILE} bytes")]
    TooMuch,
}

/// The command: brings the file `name` of the log to `path` (relative to PGDATA). Exits with 1 when nobody has it; postgres
/// goes on with what is in `pg_wal` then, or asks again.
#[must_use]
pub fn run(name: &str, path: &Path) -> ExitCode {
    let begin = Instant::now();
    let settings = match InstanceEnv::from_env() {
        Ok(s) => s,
        Err(e) => {
            eprintln!("wal-restore: {e}");
            return ExitCode::FAILURE;
        }
    };
    match restore(&settings, name, path) {
        Ok(from) => {
            eprintln!("wal-restore: restored file={name} from={from} ms={}", begin.elapsed().as_millis());
            ExitCode::SUCCESS
        }
        // Asked for again and again by an idle standby: no line each time.
        Err(RestoreError::Nobody) => ExitCode::FAILURE,
        Err(RestoreError::Peer { .. }) if !may_complain(&settings.layout) => ExitCode::FAILURE,
        Err(e) => {
            eprintln!("wal-restore: not restored file={name} ms={}: {e}", begin.elapsed().as_millis());
            ExitCode::FAILURE
        }
    }
}

/// Restores a file; returns `archive` or `peer`.
///
/// # Errors
/// There is nothing at `path` then.
pub fn restore(settings: &InstanceEnv, name: &str, path: &Path) -> Result<&'static str, RestoreError> {
    let file = WalFile::parse(name, SMALLEST_SEGMENT).ok_or_else(|| RestoreError::Name(name.to_owned()))?;
    let system = control_file::system_identifier(&settings.layout.pgdata())?;
    if let Some(own) = own_copy(settings, system, file, name) {
        let mut bytes = Vec::new();
        fs::File::open(&own).and_then(|mut f| f.read_to_end(&mut bytes)).at("read", &own)?;
        if is_hidden(settings, system, file, &bytes, Source::OurArchive) {
            return Err(RestoreError::Nobody);
        }
        match place(file, system, &bytes, "our archive", path) {
            Ok(()) => return Ok("archive"),
            // The peer's copy may be sound.
            Err(RestoreError::Unusable { source, .. }) => {
                eprintln!("wal-restore: ALARM file={name} in our archive is not usable: {source}");
            }
            Err(e) => return Err(e),
        }
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.at("start a runtime for", path)?;
    let answer = runtime.block_on(ask_peer(settings, name));
    // A name that is still being looked up would be waited for, and recovery with it.
    runtime.shutdown_background();
    let answer = answer?.ok_or(RestoreError::Nobody)?;
    if is_hidden(settings, system, file, &answer.bytes, Source::Peer) {
        return Err(RestoreError::Nobody);
    }
    if answer.live {
        // A recycled file has a name that the peer's WAL has not come to, and older WAL in it.
        let len = answer.bytes.len() as u64;
        if let Err(ContentError::OtherPlace { .. }) = content::check_place(file, system, &answer.bytes, len) {
            return Err(RestoreError::Nobody);
        }
        archive::mark_live(&settings.layout.wal_archive(system), name, &answer.bytes)?;
    }
    place(file, system, &answer.bytes, "the peer's log", path)?;
    Ok("peer")
}

/// The file in our archive, unless that belongs to another past of the timeline than the primary's. A promotion sees all.
fn own_copy(settings: &InstanceEnv, system: SystemIdentifier, file: WalFile, name: &str) -> Option<PathBuf> {
    let layout = &settings.layout;
    let own = archive::wal_file(layout, system, name, Places::Archive)?;
    let timeline = file.timeline().filter(|_| !layout.alone().exists());
    let is_disputed = timeline.is_some_and(|t| twice::is_disputed(layout, system, t));
    if is_disputed && may_complain(layout) {
        eprintln!(
            "wal-restore: ALARM file={name} in our archive is not used: its timeline has another past there than in pg_wal"
        );
    }
    (!is_disputed).then_some(own)
}

/// Where a file comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    OurArchive,
    Peer,
}

/// Why recovery does not get to see a history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hidden {
    /// It leaves our past before the end of that.
    NotOurPast,
    /// The peer's archive has another one of the same number. The primary's is fetched by streaming then.
    TwoPasts,
}

/// Whether it is a history that recovery does not get to see. A promotion sees all; what cannot be found out hides nothing.
fn is_hidden(
    settings: &InstanceEnv,
    system: SystemIdentifier,
    file: WalFile,
    bytes: &[u8],
    source: Source,
) -> bool {
    let WalFile::History(timeline) = file else { return false };
    if settings.layout.alone().exists() {
        return false;
    }
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
        return false;
    };
    let hidden = runtime.block_on(async {
        let bin = PgBin::find(settings).ok()?;
        let control = control_file::control_data(&bin, &settings.layout.pgdata()).await.ok()?;
        if source == Source::OurArchive
            && timeline > control.newest_timeline()
            && peer_contradicts(settings, timeline, bytes).await
        {
            return Some(Hidden::TwoPasts);
        }
        let first = String::from_utf8_lossy(bytes);
        let fetch = async |t| {
            if t == timeline {
                Some(first.clone().into_owned())
            } else {
                fetch_history(settings, system, t).await
            }
        };
        (!histories::is_for_recovery(&control, timeline, fetch).await).then_some(Hidden::NotOurPast)
    });
    runtime.shutdown_background();
    if let Some(why) = hidden
        && may_complain(&settings.layout)
    {
        let why = match why {
            Hidden::NotOurPast => "does not contain our past",
            Hidden::TwoPasts => "is another one in our archive than in the peer's (ALARM)",
        };
        eprintln!("wal-restore: the history of timeline {timeline} {why}: recovery goes on without it");
    }
    hidden.is_some()
}

/// Whether the peer's archive has a history of this timeline with another past.
async fn peer_contradicts(settings: &InstanceEnv, timeline: TimelineId, ours: &[u8]) -> bool {
    let past = |bytes: &[u8]| {
        let text = std::str::from_utf8(bytes).ok()?;
        TimelineHistory::parse(timeline, text).ok().map(|history| history.ancestors)
    };
    let theirs = ask_peer(settings, &pgdata::history_name(timeline)).await.ok().flatten();
    match (past(ours), theirs.and_then(|answer| past(&answer.bytes))) {
        (Some(ours), Some(theirs)) => ours != theirs,
        _ => false, // nothing to hold it against
    }
}

/// Text of a history, of our archive or else the peer's.
async fn fetch_history(
    settings: &InstanceEnv,
    system: SystemIdentifier,
    timeline: TimelineId,
) -> Option<String> {
    let name = pgdata::history_name(timeline);
    let own = archive::wal_file(&settings.layout, system, &name, Places::Archive);
    if let Some(text) = own.and_then(|path| fs::read_to_string(path).ok()) {
        return Some(text);
    }
    String::from_utf8(ask_peer(settings, &name).await.ok()??.bytes).ok()
}

/// At most one line about an unreachable peer per [`COMPLAIN_EVERY`].
fn may_complain(layout: &Layout) -> bool {
    let path = layout.complained();
    let last = fs::metadata(&path).and_then(|m| m.modified()).ok();
    let recent = last.and_then(|t| t.elapsed().ok()).is_some_and(|age| age < COMPLAIN_EVERY);
    if !recent {
        // Without the file there are more lines, nothing else.
        let _ = fs::write(&path, b"");
    }
    !recent
}

/// Returns when this instance is being promoted.
async fn alone(layout: &Layout) {
    let path = layout.alone();
    while !path.exists() {
        tokio::time::sleep(ALONE_POLL).await;
    }
}

struct Answer {
    bytes: Vec<u8>,
    /// From `pg_wal`, so perhaps incomplete.
    live: bool,
}

async fn ask_peer(settings: &InstanceEnv, name: &str) -> Result<Option<Answer>, RestoreError> {
    tokio::select! {
        biased;
        () = alone(&settings.layout) => Ok(None),
        answer = answer_of_peer(settings, name) => answer,
    }
}

async fn answer_of_peer(settings: &InstanceEnv, name: &str) -> Result<Option<Answer>, RestoreError> {
    let host = format!("{}:{}", settings.peer_host, settings.peer_peer_port);
    let config = tls::client_config(&settings.layout.run_tls(), tls::RESTORE)?;
    let attempt = async {
        // What the agent knows, for looking a name up may take seconds.
        let known = fs::read_to_string(settings.layout.peer_address()).ok();
        let to = (known.as_deref().unwrap_or(&settings.peer_host), settings.peer_peer_port);
        let late = |_| RequestError::Late(CONNECT);
        let tcp = tokio::time::timeout(CONNECT, client::connect(to)).await.map_err(late)??;
        let connection = Connection::secured(tcp, &settings.peer_host, config).await?;
        connection.stream(&Call::get(&format!("{}/{name}", paths::WAL))).await
    };
    let answer = async {
        let begun = tokio::time::timeout(PEER, attempt).await.unwrap_or(Err(RequestError::Late(PEER)));
        let (headers, pieces) = match begun {
            Ok(begun) => begun,
            Err(RequestError::Refused { status: StatusCode::NOT_FOUND, .. }) => return Ok(None),
            Err(e) => return Err(e.into()),
        };
        let live = headers.contains_key(paths::LIVE_WAL);
        let size = size_told(&headers)?;
        let mut bytes = whole(pieces).await?;
        bytes.resize(size.unwrap_or(bytes.len()).max(bytes.len()), 0);
        Ok::<_, PeerFault>(Some(Answer { bytes, live }))
    };
    answer.await.map_err(|source| RestoreError::Peer { host, source })
}

/// Of the file whose beginning is sent.
fn size_told(headers: &hyper::HeaderMap) -> Result<Option<usize>, PeerFault> {
    let Some(told) = headers.get(paths::WAL_SIZE) else { return Ok(None) };
    let size = told.to_str().ok().and_then(|size| size.parse().ok()).filter(|size| *size <= LARGEST_FILE);
    size.map(Some).ok_or_else(|| PeerFault::Size(told.clone()))
}

/// All of an answer.
async fn whole(mut pieces: Pieces) -> Result<Vec<u8>, PeerFault> {
    let mut bytes = Vec::new();
    while let Some(piece) = pieces.next(PEER).await? {
        bytes.extend_from_slice(&piece);
        if bytes.len() > LARGEST_FILE {
            return Err(PeerFault::TooMuch);
        }
    }
    Ok(bytes)
}

/// Writes the file to where postgres wants it, whole or not at all.
fn place(
    file: WalFile,
    system: SystemIdentifier,
    bytes: &[u8],
    from: &'static str,
    path: &Path,
) -> Result<(), RestoreError> {
    content::check_place(file, system, bytes, bytes.len() as u64)
        .map_err(|source| RestoreError::Unusable { from, source })?;
    let tmp = fsx::sibling(path, ".pgpair");
    // Postgres syncs what it keeps: here only the name must come last.
    fs::write(&tmp, bytes).at("write", &tmp)?;
    fs::rename(&tmp, path).at("rename into place", path)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_that_no_file_has_is_refused() {
        let told = |text: &str| {
            let value = HeaderValue::from_str(text).unwrap();
            size_told(
                &[(hyper::header::HeaderName::from_static(paths::WAL_SIZE), value)].into_iter().collect(),
            )
        };
        assert_eq!(told("16777216").unwrap(), Some(16 << 20));
        assert_eq!(size_told(&hyper::HeaderMap::new()).unwrap(), None);
        for text in ["", "-1", "99999999999", "x"] {
            assert!(matches!(told(text), Err(PeerFault::Size(_))), "{text}");
        }
    }
}
