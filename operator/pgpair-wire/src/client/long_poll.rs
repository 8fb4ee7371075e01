//! A connection for answers that are held back, often and for long.
//!
//! hyper keeps 24 kB for a connection whose answer has not come: room for the head of a request, for the head of an answer, and for requests
//! that wait. An operator waits on two connections for each pair, all its life. This one keeps nothing while it waits but the
//! TLS session. It does only what that needs: `GET`, one at a time, and answers of a known length.

use hyper::StatusCode;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::{MAX_REFUSAL, RequestError, one_line};

/// Longest head of an answer, in bytes.
const MAX_HEAD: usize = 16 * 1024;
/// Most headers of an answer.
const MAX_HEADERS: usize = 32;

/// An open connection to one server. Whoever stops waiting for an answer has to drop it: the answer may still come.
#[derive(Debug)]
pub struct LongPoll<S> {
    stream: S,
    host: String,
}

impl<S: AsyncRead + AsyncWrite + Unpin> LongPoll<S> {
    /// Over this stream, to the server of this name.
    #[must_use]
    pub fn new(stream: S, host: &str) -> LongPoll<S> {
        LongPoll { stream, host: host.to_owned() }
    }

    /// The answer to a `GET`, of at most `max` bytes.
    ///
    /// # Errors
    /// It is refused, too long, or broke off. Only after a refusal can the connection be used again.
    pub async fn get(&mut self, path: &str, max: usize) -> Result<Vec<u8>, RequestError> {
        let request = format!("GET {path} HTTP/1.1\r\nhost: {}\r\n\r\n", self.host);
        self.stream.write_all(request.as_bytes()).await.map_err(RequestError::broken)?;
        self.stream.flush().await.map_err(RequestError::broken)?;
        let mut text = Vec::new();
        let (status, length) = loop {
            // Nothing is reserved before something has come: the first piece is small, and on the stack.
            let mut piece = [0; 256];
            let n = self.stream.read(&mut piece).await.map_err(RequestError::broken)?;
            text.extend_from_slice(&piece[..n]);
            if let Some((head, status, length)) = parse(&text)? {
                text.drain(..head);
                break (status, length);
            }
            if n == 0 || text.len() > MAX_HEAD {
                return Err(RequestError::broken("the answer has no end of its head"));
            }
        };
        let max = if status.is_success() { max } else { MAX_REFUSAL };
        if length > max {
            return Err(RequestError::TooLong(max));
        }
        let mut body = Vec::with_capacity(length);
        body.extend_from_slice(&text[..text.len().min(length)]);
        let rest = u64::try_from(length - body.len()).unwrap_or(u64::MAX);
        (&mut self.stream).take(rest).read_to_end(&mut body).await.map_err(RequestError::broken)?;
        if body.len() < length {
            return Err(RequestError::broken("the answer ended before its end"));
        }
        if status.is_success() {
            return Ok(body);
        }
        Err(RequestError::Refused { status, message: one_line(&body) })
    }
}

/// Length of the head, status, and length of the body; `None` while the head is not complete.
fn parse(text: &[u8]) -> Result<Option<(usize, StatusCode, usize)>, RequestError> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut answer = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(head) = answer.parse(text).map_err(RequestError::broken)? else {
        return Ok(None);
    };
    let status = StatusCode::from_u16(answer.code.unwrap_or_default()).map_err(RequestError::broken)?;
    if status == StatusCode::NO_CONTENT {
        return Ok(Some((head, status, 0)));
    }
    let length = answer.headers.iter().find(|h| h.name.eq_ignore_ascii_case("content-length"));
    let length = length.and_then(|h| std::str::from_utf8(h.value).ok()?.trim().parse().ok());
    let length = length.ok_or_else(|| RequestError::broken("the answer does not tell its length"))?;
    Ok(Some((head, status, length)))
}

#[cfg(test)]
mod tests {
    use tokio::io::{DuplexStream, duplex};

    use super::*;

    const MAX: usize = 20;

    /// What comes of these pieces of answers, one request after the other until the server ends.
    async fn answers(pieces: &[&str]) -> Vec<Result<String, String>> {
        let (mut server, client) = duplex(16); // less than any head: it comes in many reads
        let pieces: Vec<_> = pieces.iter().map(|piece| (*piece).to_owned()).collect();
        let requests = pieces.iter().filter(|piece| piece.starts_with("HTTP/")).count();
        let task = tokio::spawn(async move {
            for piece in pieces {
                if piece.starts_with("HTTP/") {
                    assert_eq!(
                        request(&mut server).await,
                        "GET /v1/report HTTP/1.1\r\nhost: orders-a\r\n\r\n"
                    );
                }
                server.write_all(piece.as_bytes()).await.unwrap();
            }
        });
        let mut line = LongPoll::new(client, "orders-a");
        let mut answers = Vec::new();
        for _ in 0..requests {
            let answer = line.get("/v1/report", MAX).await;
            answers.push(answer.map(|a| String::from_utf8(a).unwrap()).map_err(|e| e.to_string()));
        }
        let _ = task.await; // it may not have been read to its end
        answers
    }

    async fn request(server: &mut DuplexStream) -> String {
        let mut text = Vec::new();
        while !text.ends_with(b"\r\n\r\n") {
            text.push(server.read_u8().await.unwrap());
        }
        String::from_utf8(text).unwrap()
    }

    #[tokio::test]
    async fn answers_follow_each_other_over_one_connection_in_whatever_pieces_they_come() {
        let heard = answers(&[
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n",
            "date: now\r\n\r",
            "\nhe",
            "llo",
            "HTTP/1.1 204 No Content\r\n\r\n",
            "HTTP/1.1 422 Unprocessable Entity\r\ncontent-length: 7\r\n\r\nno such",
            "HTTP/1.1 200 OK\r\ncontent-length: 20\r\n\r\n01234567890123456789",
        ]);
        let refused = Err("the answer was 422 Unprocessable Entity: no such".to_owned());
        let whole = Ok("01234567890123456789".to_owned());
        assert_eq!(heard.await, [Ok("hello".to_owned()), Ok(String::new()), refused, whole]);
    }

    #[tokio::test]
    async fn what_is_no_whole_answer_is_none() {
        for (answer, why) in [
            ("HTTP/1.1 200 OK\r\ncontent-length: 21\r\n\r\n", "the answer has more than 20 bytes"),
            ("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhell", "the answer ended before its end"),
            ("HTTP/1.1 200 OK\r\ncontent-le", "the answer has no end of its head"),
            ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", "the answer does not tell its length"),
            ("HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n", "the answer does not tell its length"),
            ("HTTP/1.1 099 Strange\r\n\r\n", "invalid status code"),
            ("HTTP/9 what\r\n\r\n", "invalid HTTP version"),
        ] {
            let heard = answers(&[answer]).await;
            assert!(heard[0].as_ref().is_err_and(|e| e.contains(why)), "{answer}: {heard:?}");
        }
    }

    #[tokio::test]
    async fn a_head_without_an_end_is_given_up() {
        let (mut server, client) = duplex(1024);
        tokio::spawn(async move {
            let _ = server.write_all(b"HTTP/1.1 200 OK\r\nx: ").await;
            while server.write_all(&[b'x'; 100]).await.is_ok() {}
        });
        let heard = LongPoll::new(client, "orders-a").get("/v1/report", MAX).await;
        assert!(matches!(heard, Err(RequestError::Broken(_))), "{heard:?}");
    }
}
