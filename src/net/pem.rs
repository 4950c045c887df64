//! Certificates and keys in files: read with suspicion, written once.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::time::{Duration, SystemTime};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use x509_parser::prelude::{FromDer, GeneralName, ParsedExtension, X509Certificate};

use super::certificate::{Description, Issued, Validity};
use super::error::CertificateError;
use super::name::Name;

/// No certificate, key or list is longer; what is, is something else.
const FILE_BYTES_MAX: u64 = 4 << 20;
/// Only the owner may read or write a key.
const KEY_MODE: u32 = 0o600;
const CERTIFICATE_MODE: u32 = 0o644;

/// Writes a certificate and its key to new files. Neither may exist.
pub fn write(issued: &Issued, certificate: &Path, key: &Path) -> Result<(), CertificateError> {
    create(key, &issued.key, KEY_MODE)?;
    create(certificate, &issued.certificate, CERTIFICATE_MODE)
}

/// Writes a revocation list, or another public file, to a new file.
pub fn write_public(path: &Path, text: &str) -> Result<(), CertificateError> {
    create(path, text, CERTIFICATE_MODE)
}

/// The text of a file that others may read.
pub fn read_public(path: &Path) -> Result<String, CertificateError> {
    read(path, open(path)?)
}

/// The text of a key file. Refused if anyone but its owner has any right to it.
pub fn read_key(path: &Path) -> Result<String, CertificateError> {
    let file = open(path)?;
    let metadata = file.metadata().map_err(|source| CertificateError::File { path: path.to_owned(), source })?;
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(CertificateError::OpenKeyFile { path: path.to_owned(), mode });
    }
    read(path, file)
}

pub(super) fn certificates(text: &str) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text.as_bytes()).collect();
    match found {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        _ => Err(CertificateError::NoPem { what: "certificate" }),
    }
}

pub(super) fn one_certificate(text: &str) -> Result<CertificateDer<'static>, CertificateError> {
    Ok(certificates(text)?.swap_remove(0))
}

pub(super) fn private_key(text: &str) -> Result<PrivateKeyDer<'static>, CertificateError> {
    PrivateKeyDer::from_pem_slice(text.as_bytes()).map_err(|_| CertificateError::NoPem { what: "private key" })
}

pub(super) fn revocations(text: &str) -> Result<Vec<CertificateRevocationListDer<'static>>, CertificateError> {
    let found: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(text.as_bytes()).collect();
    match found {
        Ok(lists) if !lists.is_empty() => Ok(lists),
        _ => Err(CertificateError::NoPem { what: "revocation list" }),
    }
}

/// The one name in a certificate. None, or more than one, is refused: who would it be?
pub(super) fn name(certificate: &CertificateDer<'_>) -> Result<Name, CertificateError> {
    Name::parse(&uri(&parse(certificate)?)?)
}

pub(super) fn public_key(certificate: &CertificateDer<'_>) -> Result<Vec<u8>, CertificateError> {
    Ok(parse(certificate)?.public_key().subject_public_key.data.to_vec())
}

pub(super) fn describe(certificate: &CertificateDer<'_>) -> Result<Description, CertificateError> {
    let parsed = parse(certificate)?;
    let uri = uri(&parsed)?;
    let validity = Validity {
        from: instant(parsed.validity().not_before.timestamp()),
        until: instant(parsed.validity().not_after.timestamp()),
    };
    let serial = parsed.tbs_certificate.raw_serial().to_vec();
    if let Some(cluster) = Name::parse_authority(&uri) {
        return Ok(Description { name: None, cluster, validity, serial });
    }
    let name = Name::parse(&uri)?;
    Ok(Description { cluster: name.cluster, name: Some(name), validity, serial })
}

fn parse<'a>(certificate: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, CertificateError> {
    match X509Certificate::from_der(certificate) {
        Ok(([], parsed)) => Ok(parsed),
        _ => Err(CertificateError::NotACertificate),
    }
}

fn uri(certificate: &X509Certificate<'_>) -> Result<String, CertificateError> {
    let mut uris = Vec::new();
    for extension in certificate.extensions() {
        if let ParsedExtension::SubjectAlternativeName(names) = extension.parsed_extension() {
            uris.extend(names.general_names.iter().filter_map(|name| match name {
                GeneralName::URI(uri) => Some(*uri),
                _ => None,
            }));
        }
    }
    match uris.as_slice() {
        [uri] => Ok((*uri).to_owned()),
        _ => Err(CertificateError::NotOneName { found: uris.len() }),
    }
}

fn instant(seconds: i64) -> SystemTime {
    let distance = Duration::from_secs(seconds.unsigned_abs());
    let shifted = match seconds < 0 {
        true => SystemTime::UNIX_EPOCH.checked_sub(distance),
        false => SystemTime::UNIX_EPOCH.checked_add(distance),
    };
    shifted.unwrap_or(SystemTime::UNIX_EPOCH)
}

fn open(path: &Path) -> Result<File, CertificateError> {
    File::open(path).map_err(|source| CertificateError::File { path: path.to_owned(), source })
}

fn read(path: &Path, file: File) -> Result<String, CertificateError> {
    let mut text = String::new();
    let read = file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text);
    read.map_err(|source| CertificateError::File { path: path.to_owned(), source })?;
    match text.len() as u64 > FILE_BYTES_MAX {
        true => Err(CertificateError::NoPem { what: "PEM file of sensible size" }),
        false => Ok(text),
    }
}

fn create(path: &Path, text: &str, mode: u32) -> Result<(), CertificateError> {
    let write = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    };
    write().map_err(|source| CertificateError::File { path: path.to_owned(), source })
}
