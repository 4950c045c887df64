//! Makes and describes certificates: what `trilith cert` does.
//!
//! A cluster has one authority (a self-signed certificate and its key, kept away from the nodes). What it issues
//! carries one name, a URI: `trilith://CLUSTER/node/ID`, `/client/NAME` or `/admin/NAME`, with the cluster's id as
//! 32 hex digits; and the DNS name [`SERVER_NAME`], which is the same in all of them and says nothing: TLS libraries
//! want one to compare.

use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SanType,
    SerialNumber,
};
use time::OffsetDateTime;

use crate::types::ClusterId;

use super::error::CertificateError;
use super::name::{Name, Role};
use super::pem;

/// The DNS name in every certificate.
pub const SERVER_NAME: &str = "trilith";
/// How far back a new certificate is valid, so that nodes whose clocks are a little behind take it at once.
const CLOCK_SLACK: Duration = Duration::from_secs(300);

/// From when to when a certificate is good.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Validity {
    pub from: SystemTime,
    pub until: SystemTime,
}

/// A certificate and its key, as PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct Issued {
    pub certificate: String,
    pub key: String,
}

/// The cluster's certificate authority, with its key.
pub struct Authority {
    cluster: ClusterId,
    issuer: Issuer<'static, KeyPair>,
    pem: Issued,
}

/// What a certificate says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Description {
    /// `None` for an authority.
    pub name: Option<Name>,
    pub cluster: ClusterId,
    pub validity: Validity,
    /// Big-endian; what a revocation names.
    pub serial: Vec<u8>,
}

impl Validity {
    pub fn days(days: u32) -> Validity {
        let now = SystemTime::now();
        Validity { from: now - CLOCK_SLACK, until: now + Duration::from_secs(u64::from(days) * 24 * 3600) }
    }
}

impl Authority {
    pub fn create(cluster: ClusterId, validity: Validity) -> Result<Authority, CertificateError> {
        let key = KeyPair::generate()?;
        let key_pem = key.serialize_pem();
        let made = CertifiedIssuer::self_signed(authority_parameters(cluster, validity), key)?;
        let pem = Issued { certificate: made.pem(), key: key_pem };
        Authority::from_pem(&pem.certificate, &pem.key)
    }

    /// An authority that [`Authority::create`] made. Refuses a key that is not the certificate's.
    pub fn from_pem(certificate: &str, key: &str) -> Result<Authority, CertificateError> {
        let der = pem::one_certificate(certificate)?;
        let Description { name: None, cluster, validity, .. } = pem::describe(&der)? else {
            return Err(CertificateError::NotAnAuthority);
        };
        let key = KeyPair::from_pem(key)?;
        if pem::public_key(&der)? != key.public_key_raw() {
            return Err(CertificateError::KeyMismatch);
        }
        let pem = Issued { certificate: certificate.to_owned(), key: key.serialize_pem() };
        Ok(Authority { cluster, issuer: Issuer::new(authority_parameters(cluster, validity), key), pem })
    }

    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// The authority's own certificate and key.
    pub fn pem(&self) -> &Issued {
        &self.pem
    }

    /// A certificate with a new key.
    pub fn issue(&self, role: &Role, validity: Validity) -> Result<Issued, CertificateError> {
        role.check()?;
        let name = Name { cluster: self.cluster, role: role.clone() };
        self.sign(parameters(&[&name.to_string()], usages(role), validity)?)
    }

    /// Whatever it is given: [`Authority::issue`] gives it only what belongs together, and tests what does not.
    pub(super) fn sign(&self, parameters: CertificateParams) -> Result<Issued, CertificateError> {
        let key = KeyPair::generate()?;
        let certificate = parameters.signed_by(&key, &self.issuer)?;
        Ok(Issued { certificate: certificate.pem(), key: key.serialize_pem() })
    }

    /// A list that revokes these certificates (PEM). It replaces all earlier lists, so it must name all that are
    /// revoked; `number` must rise.
    pub fn revoke(&self, certificates: &[&str], number: u64, validity: Validity) -> Result<String, CertificateError> {
        let revoked = certificates.iter().map(|certificate| {
            let description = pem::describe(&pem::one_certificate(certificate)?)?;
            Ok(RevokedCertParams {
                serial_number: SerialNumber::from_slice(&description.serial),
                revocation_time: OffsetDateTime::now_utc(),
                reason_code: None,
                invalidity_date: None,
            })
        });
        let parameters = CertificateRevocationListParams {
            this_update: OffsetDateTime::from(validity.from),
            next_update: OffsetDateTime::from(validity.until),
            crl_number: SerialNumber::from(number),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect::<Result<_, CertificateError>>()?,
            key_identifier_method: KeyIdMethod::Sha256,
        };
        Ok(parameters.signed_by(&self.issuer)?.pem()?)
    }
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Authority").field("cluster", &self.cluster).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Issued {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Issued").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

/// What a certificate (PEM) says.
pub fn show(certificate: &str) -> Result<Description, CertificateError> {
    pem::describe(&pem::one_certificate(certificate)?)
}

/// What stands in a certificate with these URI names.
pub(super) fn parameters(
    uris: &[&str],
    usages: Vec<ExtendedKeyUsagePurpose>,
    validity: Validity,
) -> Result<CertificateParams, CertificateError> {
    let mut parameters = CertificateParams::new([SERVER_NAME.to_owned()])?;
    for uri in uris {
        parameters.subject_alt_names.push(SanType::URI((*uri).try_into()?));
    }
    parameters.distinguished_name = common_name(uris.first().unwrap_or(&SERVER_NAME));
    parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    parameters.extended_key_usages = usages;
    parameters.use_authority_key_identifier_extension = true;
    set_validity(&mut parameters, validity);
    Ok(parameters)
}

/// A node dials and is dialled; everyone else only dials.
pub(super) fn usages(role: &Role) -> Vec<ExtendedKeyUsagePurpose> {
    match role {
        Role::Node(_) => vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth],
        Role::Client(_) | Role::Admin(_) => vec![ExtendedKeyUsagePurpose::ClientAuth],
    }
}

/// Follows from the cluster alone, so that an authority read back from its files issues under the same name.
fn authority_parameters(cluster: ClusterId, validity: Validity) -> CertificateParams {
    let mut parameters = CertificateParams::default();
    parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    parameters.distinguished_name = common_name(&format!("trilith authority {cluster}"));
    let uri = format!("trilith://{cluster}/authority");
    parameters.subject_alt_names = vec![SanType::URI(uri.try_into().expect("hex digits and slashes are ASCII"))];
    set_validity(&mut parameters, validity);
    parameters
}

fn set_validity(parameters: &mut CertificateParams, validity: Validity) {
    parameters.not_before = validity.from.into();
    parameters.not_after = validity.until.into();
}

fn common_name(text: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, text);
    name
}
