//! Strangers without a certificate, many of them.

use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pgpair_core::ids::{InstanceId, Term};
use pgpair_core::record::Mode;
use pgpair_wire::config::PairConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;

use crate::failover::table;
use crate::pair::{LIMIT, Pair, eventually};

const A: InstanceId = InstanceId::A;
/// Connections with half a request to each port of each agent.
const HALF: usize = 200;
/// Handshakes with each agent.
const HANDSHAKES: usize = 600;
/// At once.
const BESIDE: usize = 20;
/// Far more than an agent has open for itself, far less than what is tried.
const DESCRIPTORS: usize = 330;

/// From an address of its own, as a pod has one.
async fn connect(port: u16) -> Option<TcpStream> {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.9:0".parse().unwrap()).unwrap();
    socket.connect(([127, 0, 0, 1], port).into()).await.ok()
}

/// The beginning of what the port expects, and nothing more.
async fn half(port: u16, beginning: &[u8]) -> Option<TcpStream> {
    let mut stream = connect(port).await?;
    stream.write_all(beginning).await.ok()?;
    Some(stream)
}

async fn handshakes(pair: &Pair, i: InstanceId) -> usize {
    let mut roots = RootCertStore::empty();
    let ca = fs::read(pair.tls(i).join("ca.crt")).unwrap();
    roots.add(CertificateDer::from_pem_slice(&ca).unwrap()).unwrap();
    let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let connector = TlsConnector::from(Arc::new(config));
    let one = async |_| {
        let tcp = connect(pair.peer_port(i)).await?;
        connector.connect(ServerName::try_from("localhost").unwrap(), tcp).await.ok()
    };
    let mut made = 0;
    for _ in 0..HANDSHAKES / BESIDE {
        let done = futures::future::join_all((0..BESIDE).map(one)).await;
        made += done.iter().flatten().count();
    }
    made
}

fn descriptors(pair: &Pair, i: InstanceId) -> usize {
    let pid = pair.agent_pid(i).as_raw_nonzero();
    fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_in_numbers_cost_neither_a_failover_nor_a_probe_nor_memory() {
    let pair = Pair::up_with(PairConfig { ttl_ms: 5000, ..PairConfig::default() }).await;
    pair.paired().await;
    table(&pair, A).await;
    let mut kept = Vec::new();
    for i in InstanceId::ALL {
        // Of a ClientHello of 512 bytes (RFC 8446, 5.1), and of a request.
        let halves: [(u16, &[u8]); 2] =
            [(pair.peer_port(i), b"\x16\x03\x01\x02\x00\x01"), (pair.probe_port(i), b"GET /li")];
        for (port, beginning) in halves {
            for _ in 0..HALF {
                kept.extend(half(port, beginning).await);
            }
        }
    }
    assert!(kept.len() > 3 * HALF, "{} of {} connections", kept.len(), 4 * HALF);
    let longest = async {
        let (client, mut longest) = (pair.connect(A).await.unwrap(), Duration::ZERO);
        for n in 0..200 {
            let begun = Instant::now();
            client.execute("INSERT INTO t VALUES ($1)", &[&(10_000 + n)]).await.unwrap();
            longest = longest.max(begun.elapsed());
        }
        longest
    };
    let (made, longest) =
        tokio::join!(async { handshakes(&pair, A).await + handshakes(&pair, InstanceId::B).await }, longest);
    assert!(made > HANDSHAKES, "{made} handshakes only: nothing was tried");
    for i in InstanceId::ALL {
        assert_eq!(pair.probe(i, "/livez").await, 200, "{i}");
        assert!(pair.report(i).await.is_some(), "{i} does not answer the operator");
        eventually("the strangers have no place any more", LIMIT, async || {
            (descriptors(&pair, i) < DESCRIPTORS).then_some(())
        })
        .await;
    }
    println!("{made} handshakes; the writer's longest wait: {longest:?}");
    assert!(longest < Duration::from_secs(4), "the writer waited for {longest:?}");
    assert_eq!((pair.api.record().term, pair.api.mode()), (Term(1), Mode::Paired));
    drop(kept);
}
