//! The other side as an attacker would write it: any certificate, any bytes, nothing checked.

use std::net::SocketAddr;
use std::sync::Arc;

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{Connection, ConnectionError, Endpoint};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};
use tokio::net::UdpSocket;

use super::certificate::Issued;
use super::{ALPN_CLIENT, ALPN_PEER, pem};

#[derive(Debug)]
struct TrustAll;

/// Dials with any certificate, or none.
pub(super) async fn dial(
    address: SocketAddr,
    issued: Option<&Issued>,
    alpn: &[u8],
) -> Result<Connection, ConnectionError> {
    let builder = rustls::ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(TrustAll));
    let mut config = match issued {
        None => builder.with_no_client_auth(),
        Some(issued) => builder.with_client_auth_cert(chain(issued), pem::private_key(&issued.key).unwrap()).unwrap(),
    };
    config.alpn_protocols = vec![alpn.to_vec()];
    let endpoint = Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
    let config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(config).unwrap()));
    endpoint.connect_with(config, address, "trilith").unwrap().await
}

/// Serves with any certificate, both protocols.
pub(super) fn serve(issued: &Issued) -> Endpoint {
    let mut config = rustls::ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_client_cert_verifier(Arc::new(TrustAll))
        .with_single_cert(chain(issued), pem::private_key(&issued.key).unwrap())
        .unwrap();
    config.alpn_protocols = vec![ALPN_PEER.to_vec(), ALPN_CLIENT.to_vec()];
    let config = quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(config).unwrap()));
    Endpoint::server(config, "127.0.0.1:0".parse().unwrap()).unwrap()
}

/// Stands between one client and a server, and keeps what the client sent. With `answers` false nothing comes back.
pub(super) struct Proxy {
    pub(super) address: SocketAddr,
    pub(super) captured: Arc<std::sync::Mutex<Vec<Vec<u8>>>>,
    pub(super) upstream: Arc<UdpSocket>,
}

pub(super) async fn proxy(server: SocketAddr, answers: bool) -> Proxy {
    let downstream = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
    let upstream = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
    upstream.connect(server).await.unwrap();
    let captured = Arc::new(std::sync::Mutex::new(Vec::new()));
    let proxy =
        Proxy { address: downstream.local_addr().unwrap(), captured: captured.clone(), upstream: upstream.clone() };
    tokio::spawn(async move {
        let (mut down, mut up) = (vec![0; 65_536], vec![0; 65_536]);
        let mut client = None;
        loop {
            tokio::select! {
                Ok((count, from)) = downstream.recv_from(&mut down) => {
                    client = Some(from);
                    captured.lock().unwrap().push(down[..count].to_vec());
                    let _ = upstream.send(&down[..count]).await;
                }
                Ok(count) = upstream.recv(&mut up) => {
                    if let Some(client) = client.filter(|_| answers) {
                        let _ = downstream.send_to(&up[..count], client).await;
                    }
                }
            }
        }
    });
    proxy
}

fn chain(issued: &Issued) -> Vec<CertificateDer<'static>> {
    pem::certificates(&issued.certificate).unwrap()
}

fn schemes() -> Vec<SignatureScheme> {
    ring::default_provider().signature_verification_algorithms.supported_schemes()
}

impl ServerCertVerifier for TrustAll {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        schemes()
    }
}

impl ClientCertVerifier for TrustAll {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        schemes()
    }
}
