//! The proof that a password lets its role in: a real login by SCRAM, with the key that a client would derive from the password.
//!
//! It goes to a database that does not exist, over the local socket: a line of our own in `pg_hba.conf` asks for the password there, whatever
//! the lines of people say, and the server judges password and role before it looks for the database. So nothing of a
//! session comes into being: no trigger, no setting and no limit of connections of anybody can get in between.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use pgpair_wire::scram::GivenPassword;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use crate::instance::env::InstanceEnv;
use crate::postgres::render::PROOF_DATABASE;

/// A login over the socket takes some milliseconds.
const LIMIT: Duration = Duration::from_secs(2);
/// Longest message of a server that is being logged in to.
const LONGEST: usize = 8192;
/// Version 3.0 of the protocol.
const PROTOCOL: i32 = 196_608;
const MECHANISM: &str = "SCRAM-SHA-256";
/// `n,,`, which says that there is no channel to bind to, in base64.
const NO_BINDING: &str = "biws";

/// What a server said to a login.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proof {
    /// The role is let in.
    LetIn,
    /// It is not, in the words of the server.
    TurnedAway(String),
}

/// A login that came to no end.
#[derive(Debug, thiserror::Error)]
pub enum ProofError {
    /// The connection broke.
    #[error("the connection for a login broke: {0}")]
    Io(#[from] io::Error),
    /// An answer that is none.
    #[error("postgres answers a login with {0}")]
    Answer(&'static str),
    /// No answer in time.
    #[error("postgres does not answer a login within {LIMIT:?}")]
    Late,
}

/// Where the local postgres can be logged in to.
#[derive(Debug, Clone)]
pub struct Gate(PathBuf);

impl Gate {
    /// Of this instance.
    #[must_use]
    pub fn of(settings: &InstanceEnv) -> Gate {
        Gate(settings.layout.socket_dir().join(format!(".s.PGSQL.{}", settings.pg_port)))
    }

    /// Tries whether the password lets the role in.
    ///
    /// # Errors
    /// There is no answer, or it is none.
    pub async fn prove(&self, role: &str, password: &GivenPassword) -> Result<Proof, ProofError> {
        let login = async { log_in(UnixStream::connect(&self.0).await?, role, password).await };
        tokio::time::timeout(LIMIT, login).await.map_err(|_| ProofError::Late)?
    }
}

async fn log_in(mut server: UnixStream, role: &str, password: &GivenPassword) -> Result<Proof, ProofError> {
    let nonce = BASE64_STANDARD.encode(rand::random::<[u8; 18]>());
    let client_first = format!("n=,r={nonce}");
    server.write_all(&startup(role)).await?;
    let mut expected_signature = None;
    let mut is_authentic = false;
    loop {
        let (tag, body) = read_message(&mut server).await?;
        match (tag, request(tag, &body)) {
            (b'R', Some(0)) => is_authentic = true,
            (b'R', Some(10)) => {
                server.write_all(&sasl_initial(&format!("n,,{client_first}"))).await?;
            }
            (b'R', Some(11)) => {
                let server_first = text(body.get(4..))?;
                let (answer, exchange) = answer(&client_first, server_first, &nonce)?;
                let proof = password.verifier.client_proof(&password.client_key, &exchange);
                expected_signature = Some(password.verifier.server_signature(&exchange));
                server.write_all(&message(b'p', format!("{answer},p={proof}").as_bytes())).await?;
            }
            (b'R', Some(12)) => {
                let signature = text(body.get(4..))?.strip_prefix("v=");
                if signature != expected_signature.as_deref() {
                    return Err(ProofError::Answer("the signature of another verifier"));
                }
            }
            (b'R', _) => return Err(ProofError::Answer("another method than SCRAM-SHA-256")),
            // After the password the role itself is judged, then the database is looked for.
            (b'E', _) if is_authentic && field(&body, b'C').as_deref() != Some("28000") => {
                return Ok(Proof::LetIn);
            }
            (b'E', _) => return Ok(Proof::TurnedAway(field(&body, b'M').unwrap_or_default())),
            (b'Z', _) if is_authentic => return Ok(Proof::LetIn),
            (b'N' | b'S' | b'K', _) => {}
            _ => return Err(ProofError::Answer("a message that does not belong there")),
        }
    }
}

/// Which step of an authentication the server asks for.
fn request(tag: u8, body: &[u8]) -> Option<i32> {
    let code = body.first_chunk().filter(|_| tag == b'R')?;
    Some(i32::from_be_bytes(*code))
}

/// The client's last message without its proof, and what both sides sign.
fn answer(client_first: &str, server_first: &str, nonce: &str) -> Result<(String, String), ProofError> {
    let bad = ProofError::Answer("what is no challenge of SCRAM");
    let both = server_first.split(',').find_map(|part| part.strip_prefix("r="));
    let Some(both) = both.filter(|both| both.starts_with(nonce)) else { return Err(bad) };
    let answer = format!("c={NO_BINDING},r={both}");
    let exchange = format!("{client_first},{server_first},{answer}");
    Ok((answer, exchange))
}

fn text(bytes: Option<&[u8]>) -> Result<&str, ProofError> {
    let text = bytes.and_then(|bytes| std::str::from_utf8(bytes).ok());
    text.ok_or(ProofError::Answer("what is no text"))
}

/// A field of an error of the server (PostgreSQL, Error and Notice Message Fields).
fn field(body: &[u8], code: u8) -> Option<String> {
    let found = body.split(|b| *b == 0).find(|field| field.first() == Some(&code))?;
    Some(String::from_utf8_lossy(found.get(1..)?).into_owned())
}

async fn read_message(server: &mut UnixStream) -> Result<(u8, Vec<u8>), ProofError> {
    let tag = server.read_u8().await?;
    let length = usize::try_from(server.read_i32().await?).unwrap_or(0);
    let Some(length) = length.checked_sub(4).filter(|n| *n <= LONGEST) else {
        return Err(ProofError::Answer("a message of no length of one"));
    };
    let mut body = vec![0; length];
    server.read_exact(&mut body).await?;
    Ok((tag, body))
}

fn startup(role: &str) -> Vec<u8> {
    let mut body = PROTOCOL.to_be_bytes().to_vec();
    for word in ["user", role, "database", PROOF_DATABASE, "application_name", "pgpair-proof", ""] {
        body.extend(word.as_bytes());
        body.push(0);
    }
    framed(Vec::new(), &body)
}

fn sasl_initial(first: &str) -> Vec<u8> {
    let mut body = MECHANISM.as_bytes().to_vec();
    body.push(0);
    body.extend(i32::try_from(first.len()).unwrap_or(0).to_be_bytes());
    body.extend(first.as_bytes());
    message(b'p', &body)
}

fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    framed(vec![tag], body)
}

fn framed(mut out: Vec<u8>, body: &[u8]) -> Vec<u8> {
    let length = body.len() + size_of::<i32>();
    out.extend(i32::try_from(length).unwrap_or(0).to_be_bytes());
    out.extend(body);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_challenge_that_goes_on_from_our_nonce_is_answered() {
        let (answer, exchange) = super::answer("n=,r=abc", "r=abcdef,s=c2FsdA==,i=4096", "abc").unwrap();
        assert_eq!(answer, "c=biws,r=abcdef");
        assert_eq!(exchange, "n=,r=abc,r=abcdef,s=c2FsdA==,i=4096,c=biws,r=abcdef");
        for other in ["r=xyz,s=c2FsdA==,i=4096", "s=c2FsdA==", ""] {
            super::answer("n=,r=abc", other, "abc").unwrap_err();
        }
    }

    #[test]
    fn the_words_of_a_server_are_found_in_its_error() {
        let body = b"SFATAL\0C28P01\0Mpassword authentication failed\0\0";
        assert_eq!(field(body, b'C').as_deref(), Some("28P01"));
        assert_eq!(field(body, b'M').as_deref(), Some("password authentication failed"));
        assert_eq!(field(body, b'H'), None);
    }
}
