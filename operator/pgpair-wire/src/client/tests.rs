use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

/// What a server does with one connection: it answers its requests with these texts, in turn, and then ends it.
type Answers = &'static [&'static str];

/// A server without TLS: one connection after the other, as many as there are lists of answers. Its port, and each request's head.
async fn serve(connections: &'static [Answers]) -> (u16, mpsc::UnboundedReceiver<String>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (seen, heads) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        for answers in connections {
            let (mut stream, _) = listener.accept().await.unwrap();
            for answer in *answers {
                let Some(head) = head(&mut stream).await else { break };
                seen.send(head).unwrap();
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        }
    });
    (port, heads)
}

/// The head of the next request, none of which has a body here.
async fn head(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    Some(String::from_utf8(head).unwrap())
}

async fn open(port: u16) -> Result<Connection, RequestError> {
    Connection::plain(connect(("127.0.0.1", port)).await?, "orders-a").await
}

async fn get(idle: &Idle, port: u16) -> Result<String, RequestError> {
    let answer = idle.exchange(&Call::get("/v1/report"), 10, SECOND, open(port)).await?;
    Ok(String::from_utf8(answer).unwrap())
}

#[tokio::test]
async fn a_refusal_carries_the_servers_sentence_and_keeps_the_connection() {
    const REFUSES: &str =
        "HTTP/1.1 422 Unprocessable Entity\r\nContent-Length: 15\r\n\r\nno\x1b such\nthing\n";
    const SILENT: &str = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n";
    let (port, _heads) = serve(&[&[REFUSES, SILENT]]).await;
    let idle = Idle::default();
    let refused = get(&idle, port).await.unwrap_err();
    assert_eq!(refused.to_string(), "the answer was 422 Unprocessable Entity: no  such thing");
    let refused = get(&idle, port).await.unwrap_err();
    assert_eq!(refused.to_string(), "the answer was 503 Service Unavailable");
}

#[test]
fn a_long_sentence_is_cut() {
    assert_eq!(one_line(&[b'x'; 5000]).len(), MAX_MESSAGE);
    assert_eq!(one_line(b"\xff"), "\u{fffd}");
}

#[tokio::test]
async fn an_answer_that_is_too_long_is_not_read() {
    const LONG: &str = "HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\n12345678901";
    let (port, _heads) = serve(&[&[LONG]]).await;
    let error = get(&Idle::default(), port).await.unwrap_err();
    assert!(matches!(error, RequestError::TooLong(10)), "{error}");
}

#[tokio::test]
async fn a_request_is_sent_again_when_the_kept_connection_turns_out_to_be_broken() {
    const SEVEN: &str = "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n7";
    // The second request leaves over the first connection, which then ends without an answer.
    let (port, mut heads) = serve(&[&[SEVEN, ""], &[SEVEN]]).await;
    let idle = Idle::default();
    assert_eq!(get(&idle, port).await.unwrap(), "7");
    assert_eq!(get(&idle, port).await.unwrap(), "7");
    let mut seen = 0;
    while heads.try_recv().is_ok() {
        seen += 1;
    }
    assert_eq!(seen, 3, "one of them twice");
}

#[tokio::test]
async fn an_answer_that_does_not_come_ends_the_request_and_its_connection() {
    const SEVEN: &str = "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n7";
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let idle = Idle::default();
    let limit = Duration::from_millis(50);
    let late = idle.exchange(&Call::get("/v1/report"), 10, limit, open(port)).await.unwrap_err();
    assert!(matches!(late, RequestError::Late(l) if l == limit), "{late}");
    let (mut first, _) = listener.accept().await.unwrap();
    head(&mut first).await.unwrap();
    assert_eq!(first.read(&mut [0]).await.unwrap(), 0, "the client has hung up");
    let served = tokio::spawn(async move {
        let (mut second, _) = listener.accept().await.unwrap();
        head(&mut second).await.unwrap();
        second.write_all(SEVEN.as_bytes()).await.unwrap();
    });
    assert_eq!(get(&idle, port).await.unwrap(), "7");
    served.await.unwrap();
}

#[tokio::test]
async fn a_request_names_its_server_and_where_the_sender_is() {
    const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    let (port, mut heads) = serve(&[&[OK]]).await;
    let here = HeaderValue::from_static("10.0.0.7");
    let call = Call { here: Some(&here), ..Call::get("/v1/needs?x=1") };
    open(port).await.unwrap().exchange(&call, 10).await.unwrap();
    let head = heads.recv().await.unwrap();
    assert!(head.starts_with("GET /v1/needs?x=1 HTTP/1.1\r\n"), "{head}");
    for line in ["host: orders-a\r\n", "x-pgpair-here: 10.0.0.7\r\n"] {
        assert!(head.contains(line), "{head}");
    }
}

#[tokio::test]
async fn a_stream_comes_piece_by_piece_and_a_missing_file_is_a_refusal() {
    const FILE: &str = "HTTP/1.1 200 OK\r\nx-pgpair-size: 16\r\nContent-Length: 3\r\n\r\nwal";
    const NONE: &str = "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n";
    let (port, _heads) = serve(&[&[FILE], &[NONE]]).await;
    let call = Call::get("/v1/wal/000000010000000000000001");
    let (headers, mut pieces) = open(port).await.unwrap().stream(&call).await.unwrap();
    assert_eq!(headers["x-pgpair-size"], "16");
    assert_eq!(pieces.next(SECOND).await.unwrap().as_deref(), Some(b"wal".as_slice()));
    assert_eq!(pieces.next(SECOND).await.unwrap(), None);
    let missing = open(port).await.unwrap().stream(&call).await.err();
    assert!(
        matches!(missing, Some(RequestError::Refused { status: StatusCode::NOT_FOUND, .. })),
        "{missing:?}"
    );
}
