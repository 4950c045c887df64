//! What a handshake checks of the other side's certificate: the chain, and then the name in it.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError as TlsCertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError,
    SignatureScheme,
};

use crate::types::ClusterId;

use super::error::CertificateError;
use super::name::{Name, Role};
use super::pem;

/// For a node: whoever dials must have a certificate of the cluster. Which role goes with which protocol is checked
/// when the handshake has told the protocol, before a stream is accepted.
#[derive(Debug)]
pub(super) struct DiallerVerifier {
    pub(super) chain: Arc<dyn ClientCertVerifier>,
    pub(super) cluster: ClusterId,
}

/// For whoever dials: the other side must be a node of the cluster.
#[derive(Debug)]
pub(super) struct NodeVerifier {
    pub(super) chain: Arc<WebPkiServerVerifier>,
    pub(super) cluster: ClusterId,
}

impl ClientCertVerifier for DiallerVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chain.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.chain.verify_client_cert(end_entity, intermediates, now)?;
        name_in(end_entity, self.cluster).map_err(refusal)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}

impl ServerCertVerifier for NodeVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verified = self.chain.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)?;
        match name_in(end_entity, self.cluster).map_err(refusal)?.role {
            Role::Node(_) => Ok(verified),
            other => Err(refusal(CertificateError::WrongRole { found: other.to_string(), needed: "a node".into() })),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}

/// The name in a certificate of this cluster.
fn name_in(certificate: &CertificateDer<'_>, cluster: ClusterId) -> Result<Name, CertificateError> {
    let name = pem::name(certificate)?;
    match name.cluster == cluster {
        true => Ok(name),
        false => Err(CertificateError::WrongCluster { found: name.cluster, expected: cluster }),
    }
}

fn refusal(error: CertificateError) -> Error {
    Error::InvalidCertificate(TlsCertificateError::Other(OtherError(Arc::new(error))))
}
