//! The body of an answer, piece by piece: a slow link may take its time for a segment, a dead one may not.

use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::{Body, Bytes, Incoming};

use super::{Connection, RequestError};

/// A body that is read as it comes.
#[derive(Debug)]
pub struct Pieces {
    body: Incoming,
    /// The rest comes over it.
    _connection: Connection,
}

impl Pieces {
    pub(super) fn new(body: Incoming, connection: Connection) -> Pieces {
        Pieces { body, _connection: connection }
    }

    /// The next piece; `None` at the end.
    ///
    /// # Errors
    /// None came within `limit`, or the connection broke.
    pub async fn next(&mut self, limit: Duration) -> Result<Option<Bytes>, RequestError> {
        next_piece(&mut self.body, limit).await.map_err(|e| match e {
            PieceError::Late(limit) => RequestError::Late(limit),
            PieceError::Broken(error) => RequestError::broken(error),
        })
    }
}

#[derive(Debug, PartialEq, Eq)]
enum PieceError<E> {
    Late(Duration),
    Broken(E),
}

async fn next_piece<B>(body: &mut B, limit: Duration) -> Result<Option<Bytes>, PieceError<B::Error>>
where
    B: Body<Data = Bytes> + Unpin,
{
    let piece = tokio::time::timeout(limit, body.frame()).await.map_err(|_| PieceError::Late(limit))?;
    let frame = piece.transpose().map_err(PieceError::Broken)?;
    Ok(frame.map(|frame| frame.into_data().unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use hyper::body::Frame;

    use super::*;

    /// How many of the pieces come, each after a pause of so many seconds.
    async fn after_pauses(pauses: &[u64]) -> Result<usize, PieceError<String>> {
        let (tx, rx) = tokio::sync::mpsc::channel::<Result<Frame<Bytes>, String>>(1);
        let pauses = pauses.to_vec();
        tokio::spawn(async move {
            for seconds in pauses {
                tokio::time::sleep(Duration::from_secs(seconds)).await;
                let _ = tx.send(Ok(Frame::data(Bytes::from_static(b"x")))).await;
            }
        });
        let stream = futures::stream::unfold(rx, async |mut rx| rx.recv().await.map(|f| (f, rx)));
        let mut body = http_body_util::StreamBody::new(Box::pin(stream));
        let mut pieces = 0;
        while next_piece(&mut body, Duration::from_secs(3)).await?.is_some() {
            pieces += 1;
        }
        Ok(pieces)
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_answer_is_waited_for_and_a_dead_one_is_not() {
        assert_eq!(after_pauses(&[2; 30]).await, Ok(30));
        assert_eq!(after_pauses(&[1, 4]).await, Err(PieceError::Late(Duration::from_secs(3))));
    }
}
