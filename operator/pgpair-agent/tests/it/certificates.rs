//! Certificates that are renewed while everything runs.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use pgpair_agent::net::tls::Identity;
use pgpair_agent::postgres::postmaster::{TlsFor, install_tls};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::client::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::fixture::{Ca, Instance, eventually, run};

type Client = TlsStream<TcpStream>;

/// Sends back what comes, with the certificates of the moment at each handshake, as the agent's server does.
async fn echo(identity: Identity) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let acceptor = TlsAcceptor::from(identity.server());
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(tcp).await else { return };
                let (mut read, mut write) = tokio::io::split(stream);
                let _ = tokio::io::copy(&mut read, &mut write).await;
            });
        }
    });
    address
}

async fn connect(identity: &Identity, to: SocketAddr) -> std::io::Result<Client> {
    let tcp = TcpStream::connect(to).await?;
    let mut client = TlsConnector::from(identity.client())
        .connect(ServerName::try_from("localhost").unwrap(), tcp)
        .await?;
    // With TLS 1.3 the refusal of our certificate comes with the first answer.
    answers(&mut client).await?;
    Ok(client)
}

async fn answers(client: &mut Client) -> std::io::Result<()> {
    client.write_all(b"x").await?;
    client.flush().await?;
    client.read_u8().await.map(|_| ())
}

fn shown(client: &Client) -> Vec<u8> {
    client.get_ref().1.peer_certificates().unwrap()[0].to_vec()
}

fn tls(i: &Instance) -> &Path {
    &i.settings.layout.tls
}

#[test]
fn renewing_keeps_old_connections_and_shows_the_new_certificate_to_new_ones() {
    run(async |w| {
        let (server, client) = (Identity::load(tls(&w.a)).unwrap(), Identity::load(tls(&w.b)).unwrap());
        let to = echo(server.clone()).await;
        let mut old = connect(&client, to).await.unwrap();
        assert!(!server.renew().unwrap(), "nothing has changed");
        w.ca.renew(tls(&w.a));
        assert!(server.renew().unwrap());
        assert_eq!(server.renewals(), 1);
        answers(&mut old).await.unwrap();
        let new = connect(&client, to).await.unwrap();
        assert_ne!(shown(&old), shown(&new));
    });
}

#[test]
fn a_certificate_that_the_others_would_refuse_is_not_taken() {
    run(async |w| {
        let identity = Identity::load(tls(&w.a)).unwrap();
        let key = fs::read(tls(&w.b).join("tls.key")).unwrap();
        fs::write(tls(&w.a).join("tls.key"), key).unwrap();
        identity.renew().expect_err("the key of another certificate");
        Ca::new().renew(tls(&w.a));
        let e = identity.renew().unwrap_err().to_string();
        assert!(e.contains("do not fit together"), "{e}");
        assert_eq!(identity.renewals(), 0);
        let to = echo(identity).await;
        connect(&Identity::load(tls(&w.b)).unwrap(), to).await.unwrap();
    });
}

#[test]
fn a_bundle_of_two_authorities_accepts_certificates_of_both() {
    run(async |w| {
        let next = Ca::new();
        next.renew(tls(&w.b));
        let old_only = Identity::load(tls(&w.a)).unwrap();
        let both = format!("{}{}", w.ca.pem(), next.pem());
        fs::write(tls(&w.b).join("ca.crt"), &both).unwrap();
        let of_next = Identity::load(tls(&w.b)).unwrap();
        let to = echo(old_only.clone()).await;
        connect(&of_next, to).await.expect_err("the old bundle knows one authority");
        fs::write(tls(&w.a).join("ca.crt"), &both).unwrap();
        assert!(old_only.renew().unwrap());
        connect(&of_next, to).await.unwrap();
        connect(&old_only, echo(of_next).await).await.unwrap();
    });
}

/// The certificate that postgres shows: its protocol asks for TLS with a packet of eight bytes first.
async fn shown_by_postgres(i: &Instance, identity: &Identity) -> Option<Vec<u8>> {
    let mut tcp = TcpStream::connect((i.settings.listen, i.settings.pg_port)).await.ok()?;
    tcp.write_all(&[0, 0, 0, 8, 4, 210, 22, 47]).await.ok()?;
    if tcp.read_u8().await.ok()? != b'S' {
        return None;
    }
    let name = ServerName::try_from("localhost").unwrap();
    let client = TlsConnector::from(identity.client()).connect(name, tcp).await.ok()?;
    Some(shown(&client))
}

#[test]
fn postgres_shows_the_renewed_certificate_after_a_reload_and_its_standby_goes_on() {
    run(async |w| {
        let (a, _b) = w.pair().await;
        let identity = Identity::load(tls(&w.b)).unwrap();
        let before = shown_by_postgres(&w.a, &identity).await.unwrap();
        let mut session = w.a.person("postgres").await.unwrap();
        assert!(!install_tls(&w.a.settings.layout, TlsFor::Postgres).unwrap());
        w.ca.renew(tls(&w.a));
        assert!(install_tls(&w.a.settings.layout, TlsFor::Postgres).unwrap());
        a.reload().unwrap();
        eventually("postgres shows the new one", async || {
            shown_by_postgres(&w.a, &identity).await.filter(|now| *now != before)
        })
        .await;
        session.transaction().await.unwrap().commit().await.unwrap();
        w.a.exec("INSERT INTO t VALUES (1)").await;
        w.streaming(&w.a).await;
        let copies = fs::read_dir(w.a.settings.layout.tls_copies()).unwrap();
        let copies =
            copies.filter(|e| e.as_ref().unwrap().file_name().to_string_lossy().starts_with("current."));
        assert_eq!(copies.count(), 1, "old copies are gone");
    });
}
