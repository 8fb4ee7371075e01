//! Which certificate postgres shows, found out by a handshake with it. Whether clients trust it is not asked here; that postgres has its key is.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::instance::env::InstanceEnv;

/// For all of it.
const LIMIT: Duration = Duration::from_secs(2);
/// The packet by which a client asks for TLS (PostgreSQL, Message Formats, `SSLRequest`).
const REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];
/// Nobody looks at the name.
const NAME: &str = "localhost";

/// The certificate that the postgres of this instance shows.
///
/// # Errors
/// There was no handshake within two seconds.
pub async fn shown_by(settings: &InstanceEnv) -> io::Result<CertificateDer<'static>> {
    let to = SocketAddr::new(settings.listen, settings.pg_port);
    tokio::time::timeout(LIMIT, shown_at(to)).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

async fn shown_at(to: SocketAddr) -> io::Result<CertificateDer<'static>> {
    let mut tcp = TcpStream::connect(to).await?;
    tcp.write_all(&REQUEST).await?;
    if tcp.read_u8().await? != b'S' {
        return Err(io::Error::other("postgres offers no TLS"));
    }
    let name = ServerName::try_from(NAME).map_err(io::Error::other)?;
    let tls = TlsConnector::from(config()?).connect(name, tcp).await?;
    let shown = tls.get_ref().1.peer_certificates().and_then(|chain| chain.first());
    shown.map(|shown| shown.clone().into_owned()).ok_or_else(|| io::Error::other("no certificate was shown"))
}

fn config() -> io::Result<Arc<ClientConfig>> {
    let provider = CryptoProvider::get_default().cloned();
    let provider = provider.unwrap_or_else(|| Arc::new(rustls::crypto::ring::default_provider()));
    let looks = OnlyLooks(provider.signature_verification_algorithms);
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.map_err(io::Error::other)?;
    Ok(Arc::new(config.dangerous().with_custom_certificate_verifier(Arc::new(looks)).with_no_client_auth()))
}

/// Takes any certificate whose key the server has: it is what is asked for, and nothing is said over the connection.
#[derive(Debug)]
struct OnlyLooks(WebPkiSupportedAlgorithms);

impl ServerCertVerifier for OnlyLooks {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, shown, signed, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, shown, signed, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}
