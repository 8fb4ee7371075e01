//! Certificates that are renewed while everything runs.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use pgpair_agent::net::tls::{Identity, authorities_in};
use pgpair_agent::postgres::handshake::shown_by;
use pgpair_agent::postgres::postmaster::{
    ClientAccess, Installed, TlsFor, install_tls, reload_config, set_upstream,
};
use pgpair_agent::postgres::render;
use pgpair_agent::postgres::trust::ServerTrust;
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
        let install = || install_tls(&w.a.settings.layout, TlsFor::Postgres).unwrap();
        assert_eq!(install(), Installed::Unchanged);
        w.ca.renew(tls(&w.a));
        assert_eq!(install(), Installed::Renewed);
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

/// What `psql` says as the replication role, by what lies in the directory of copies of `of`, to the server of `to`.
async fn asked(of: &Instance, to: &Instance, trust: &ServerTrust) -> Result<(), String> {
    let conninfo = render::conninfo(&of.settings, &to.upstream(), trust, "asks", Some("postgres"));
    let mut command = of.bin.command("psql");
    let said =
        command.args(["-X", "-A", "-t", "-w", "-c", "SELECT 1", "-d", &conninfo]).output().await.unwrap();
    if said.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&said.stderr).into_owned()) }
}

fn install(i: &Instance) -> Installed {
    install_tls(&i.settings.layout, TlsFor::Postgres).unwrap()
}

fn trust(i: &Instance) -> ServerTrust {
    ServerTrust::of(&i.settings.layout)
}

#[test]
fn a_persons_certificate_is_shown_after_a_reload_and_the_standby_verifies_it_by_its_own_authority() {
    run(async |w| {
        let (a, b) = w.pair().await;
        assert_eq!(trust(&w.b), ServerTrust::default(), "nothing is named that was not before");
        let company = Ca::named("company");
        for i in [&w.a, &w.b] {
            fs::write(tls(i).join("server-ca.crt"), company.pem()).unwrap();
            assert_eq!(install(i), Installed::Rearranged);
        }
        set_upstream(&w.b.settings, &w.a.upstream(), &b).unwrap();
        company.renew_one(tls(&w.a), "db", "server");
        assert_eq!(install(&w.a), Installed::Renewed);
        a.reload().unwrap();
        let pem = fs::read(tls(&w.a).join("server.crt")).unwrap();
        let wanted = authorities_in(&pem).remove(0);
        eventually("postgres shows it", async || {
            shown_by(&w.a.settings).await.ok().filter(|shown| *shown == wanted)
        })
        .await;
        w.a.exec("SELECT pg_terminate_backend(pid) FROM pg_stat_replication; INSERT INTO t VALUES (1)").await;
        w.streaming(&w.a).await;
        asked(&w.b, &w.a, &trust(&w.b)).await.unwrap();
        // By the pair's authority alone it would not be the primary; and the company's makes no client of the pair.
        let e = asked(&w.b, &w.a, &ServerTrust::default()).await.unwrap_err();
        assert!(e.contains("certificate verify failed"), "{e}");
        company.renew_one(&w.b.settings.layout.run_tls(), "pgpair_replication", "replication");
        let e = asked(&w.b, &w.a, &trust(&w.b)).await.unwrap_err();
        assert!(e.contains("unknown ca"), "{e}");
    });
}

#[test]
fn postgres_ends_the_session_of_a_revoked_certificate_and_refuses_it_while_the_standby_goes_on_with_a_new_one()
 {
    run(async |w| {
        let (a, b) = w.pair().await;
        let (old, server) = (w.path().join("old.crt"), tls(&w.a).join("server.crt"));
        fs::copy(tls(&w.b).join("replication.crt"), &old).unwrap();
        fs::copy(tls(&w.b).join("replication.key"), w.path().join("old.key")).unwrap();
        w.ca.renew_one(tls(&w.b), "pgpair_replication", "replication");
        assert_eq!(install(&w.b), Installed::Renewed);
        let list = w.ca.revoke(&[&old]);
        for i in [&w.a, &w.b] {
            fs::write(tls(i).join("crl.pem"), &list).unwrap();
            assert_eq!(install(i), Installed::Rearranged);
        }
        reload_config(&w.a.settings, &w.a.config, a.floors(), ClientAccess::Open, &a).unwrap();
        set_upstream(&w.b.settings, &w.a.upstream(), &b).unwrap();
        let serials = Identity::load(tls(&w.a)).unwrap().revoked().serials();
        assert_eq!(serials.len(), 1);
        eventually("nobody is left with the revoked one", async || {
            let ended = w.a.sql.end_revoked(&serials).await.ok()?;
            let left = "SELECT count(*) FROM pg_stat_ssl WHERE client_serial::text = ANY ($1)";
            let client = w.a.person("postgres").await.ok()?;
            let left: i64 = client.query_one(left, &[&serials]).await.ok()?.get(0);
            (ended.is_empty() && left == 0).then_some(())
        })
        .await;
        w.a.exec("INSERT INTO t VALUES (1)").await;
        w.streaming(&w.a).await;
        asked(&w.b, &w.a, &trust(&w.b)).await.unwrap();
        let copies = w.b.settings.layout.run_tls();
        fs::copy(&old, copies.join("replication.crt")).unwrap();
        let key = fs::read(w.path().join("old.key")).unwrap();
        fs::write(copies.join("replication.key"), key).unwrap(); // with the permissions that libpq demands
        let e = asked(&w.b, &w.a, &trust(&w.b)).await.unwrap_err();
        assert!(e.contains("revoked"), "{e}");
        // The other way round: a standby refuses a server whose certificate is revoked.
        fs::write(tls(&w.b).join("crl.pem"), w.ca.revoke(&[&old, &server])).unwrap();
        assert_eq!(install(&w.b), Installed::Rearranged, "another name, so that postgres connects anew");
        let e = asked(&w.b, &w.a, &trust(&w.b)).await.unwrap_err();
        assert!(e.contains("certificate verify failed"), "{e}");
        fs::write(tls(&w.b).join("crl.pem"), &list).unwrap();
        install(&w.b);
        asked(&w.b, &w.a, &trust(&w.b)).await.unwrap();
    });
}

#[test]
fn a_list_that_cannot_be_read_stops_neither_a_start_nor_a_standby() {
    run(async |w| {
        for i in [&w.a, &w.b] {
            fs::write(tls(i).join("crl.pem"), "no list").unwrap();
        }
        let (_a, _b) = w.pair().await;
        let list = w.ca.revoke(&[]);
        fs::write(tls(&w.b).join("crl.pem"), &list).unwrap();
        assert_eq!(install(&w.b), Installed::Rearranged);
        fs::write(tls(&w.b).join("crl.pem"), "-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n")
            .unwrap();
        assert_eq!(install(&w.b), Installed::Unchanged, "the last good one stays");
        asked(&w.b, &w.a, &trust(&w.b)).await.unwrap();
    });
}
