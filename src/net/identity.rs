//! Who this process is, whom it trusts, and the TLS settings that follow.
//!
//! TLS 1.3 alone, both sides with certificates of the same authority, checked for time, use and revocation by the
//! chain's verifier; the cluster in the name is checked in the handshake, too. No session is ever resumed and no data
//! is sent before the handshake ends, so that nothing captured can be replayed.

use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use ::ring::hmac;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::RootCertStore;
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};

use crate::types::NodeId;

use super::error::CertificateError;
use super::name::{Name, Role};
use super::pem;
use super::verifier::{DiallerVerifier, NodeVerifier};

/// Names of protocol and version, agreed on in the handshake.
pub const ALPN_PEER: &[u8] = b"trilith-peer/1";
pub const ALPN_CLIENT: &[u8] = b"trilith-client/1";
/// Between nodes, for bulk.
pub const ALPN_SNAPSHOT: &[u8] = b"trilith-snapshot/1";

/// A certificate with its key, and whom its holder trusts.
pub struct Identity {
    name: Name,
    expires: SystemTime,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    roots: Arc<RootCertStore>,
    revocations: Vec<CertificateRevocationListDer<'static>>,
}

impl Identity {
    /// From PEM texts: certificate (its chain may follow), key, the authority's certificates, and a revocation list
    /// if there is one.
    pub fn from_pem(
        certificate: &str,
        key: &str,
        authority: &str,
        revocations: Option<&str>,
    ) -> Result<Identity, CertificateError> {
        let chain = pem::certificates(certificate)?;
        let description = pem::describe(&chain[0])?;
        let Some(name) = description.name else {
            return Err(CertificateError::WrongRole {
                found: "an authority".into(),
                needed: "a node, client or administrator".into(),
            });
        };
        let mut roots = RootCertStore::empty();
        for root in pem::certificates(authority)? {
            roots.add(root)?;
        }
        Ok(Identity {
            name,
            expires: description.validity.until,
            chain,
            key: pem::private_key(key)?,
            roots: Arc::new(roots),
            revocations: revocations.map(pem::revocations).transpose()?.unwrap_or_default(),
        })
    }

    /// From PEM files. A key file that others may read is refused.
    pub fn load(
        certificate: &Path,
        key: &Path,
        authority: &Path,
        revocations: Option<&Path>,
    ) -> Result<Identity, CertificateError> {
        let revocations = revocations.map(pem::read_public).transpose()?;
        Identity::from_pem(
            &pem::read_public(certificate)?,
            &pem::read_key(key)?,
            &pem::read_public(authority)?,
            revocations.as_deref(),
        )
    }

    pub fn name(&self) -> &Name {
        &self.name
    }

    /// When the certificate ends: a metric, so that someone renews it before.
    pub fn expires(&self) -> SystemTime {
        self.expires
    }

    /// The node that this identity is for, or an error that says what it is for.
    pub fn node(&self) -> Result<NodeId, CertificateError> {
        match &self.name.role {
            Role::Node(id) => Ok(*id),
            other => Err(CertificateError::WrongRole { found: other.to_string(), needed: "a node".into() }),
        }
    }

    /// Bytes that follow from the private key and what they are for, the same at every start; they tell nothing of the
    /// key.
    pub(super) fn derived(&self, purpose: &[u8]) -> [u8; 32] {
        let key = hmac::Key::new(hmac::HMAC_SHA256, self.key.secret_der());
        let mut derived = [0; 32];
        derived.copy_from_slice(hmac::sign(&key, purpose).as_ref());
        derived
    }

    /// How a node answers those who dial it, on all protocols.
    pub(super) fn server_config(&self) -> Result<QuicServerConfig, CertificateError> {
        let mut config = rustls::ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(self.dialler_verifier()?)
            .with_single_cert(self.chain.clone(), self.key.clone_key())?;
        config.alpn_protocols = vec![ALPN_PEER.to_vec(), ALPN_SNAPSHOT.to_vec(), ALPN_CLIENT.to_vec()];
        config.send_tls13_tickets = 0;
        config.max_early_data_size = 0;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        Ok(QuicServerConfig::try_from(config).expect("the ring provider has the suite of initial packets"))
    }

    /// How this process dials a node.
    pub(super) fn client_config(&self, alpn: &[u8]) -> Result<QuicClientConfig, CertificateError> {
        let mut config = rustls::ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(self.node_verifier()?)
            .with_client_auth_cert(self.chain.clone(), self.key.clone_key())?;
        config.alpn_protocols = vec![alpn.to_vec()];
        config.resumption = Resumption::disabled();
        config.enable_early_data = false;
        config.enable_sni = false;
        Ok(QuicClientConfig::try_from(config).expect("the ring provider has the suite of initial packets"))
    }

    /// Checks those who dial this node.
    pub(super) fn dialler_verifier(&self) -> Result<Arc<DiallerVerifier>, CertificateError> {
        let chain = WebPkiClientVerifier::builder_with_provider(self.roots.clone(), provider())
            .with_crls(self.revocations.iter().cloned())
            .build()?;
        Ok(Arc::new(DiallerVerifier { chain, cluster: self.name.cluster }))
    }

    fn node_verifier(&self) -> Result<Arc<NodeVerifier>, CertificateError> {
        let chain = WebPkiServerVerifier::builder_with_provider(self.roots.clone(), provider())
            .with_crls(self.revocations.iter().cloned())
            .build()?;
        Ok(Arc::new(NodeVerifier { chain, cluster: self.name.cluster }))
    }
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Identity").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Named here and nowhere else, so that no other crate's choice of a default changes ours.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}
