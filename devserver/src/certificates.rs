//! Test certificates: an authority, a server and clients, as files that the server and its clients can be given.
//!
//! Invariants: nothing that exists is overwritten, keys are readable by their owner only, and a folder in which something
//! went wrong is left as it was found.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SanType,
};
use time::{Duration, OffsetDateTime};
use tokio_rustls::rustls::pki_types::DnsName;

/// Certificates are valid from so long before they are made, for clocks that disagree.
const CLOCK_TOLERANCE: Duration = Duration::hours(1);

/// What [`create`] has made.
#[derive(Debug)]
#[non_exhaustive]
pub struct Certificates {
    /// The authority that signed `server` and `client`.
    pub authority: CertificateFiles,
    /// For the server: names the domain, every name directly under it, `localhost` and the loopback addresses.
    pub server: CertificateFiles,
    /// For a client that the server accepts.
    pub client: CertificateFiles,
    /// For a client that the server refuses: signed by another authority, which is not kept.
    pub untrusted_client: CertificateFiles,
}

/// A certificate and its key, in PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CertificateFiles {
    /// The certificate.
    pub certificate: PathBuf,
    /// The private key, PKCS#8.
    pub key: PathBuf,
}

/// Makes certificates for `domain` in `folder`, which is created if need be, valid for `days`.
///
/// A client that verifies expects `domain` from the controller, and a name directly under it from every streaming
/// processing unit; so the domain needs a dot, because no client accepts a wildcard right below the root.
pub fn create(folder: &Path, domain: &str, days: u32) -> anyhow::Result<Certificates> {
    ensure!(
        DnsName::try_from(domain).is_ok() && domain.contains('.') && domain.parse::<IpAddr>().is_err(),
        "{domain:?} is no domain with a dot, such as fluvio.local"
    );
    let authority =
        CertifiedIssuer::self_signed(authority_named("fluvio-devserver test CA", days), new_key()?)?;
    let stranger = CertifiedIssuer::self_signed(
        authority_named("fluvio-devserver untrusted test CA", days),
        new_key()?,
    )?;
    // What is told is used elsewhere: in profiles and other shells.
    let folder = &std::path::absolute(folder).with_context(|| format!("finding {}", folder.display()))?;
    let files = |name: &str| CertificateFiles {
        certificate: folder.join(format!("{name}.crt")),
        key: folder.join(format!("{name}.key")),
    };
    let made = Certificates {
        authority: files("ca"),
        server: files("server"),
        client: files("client"),
        untrusted_client: files("untrusted-client"),
    };
    let mut contents = vec![(&made.authority, authority.as_ref().pem(), authority.key().serialize_pem())];
    for (files, parameters, issuer) in [
        (&made.server, server(domain, days)?, &authority),
        (&made.client, client("fluvio-devserver test client", days), &authority),
        (&made.untrusted_client, client("fluvio-devserver untrusted client", days), &stranger),
    ] {
        let key = new_key()?;
        contents.push((files, parameters.signed_by(&key, issuer)?.pem(), key.serialize_pem()));
    }

    fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
    let mut written = Vec::new();
    for (files, certificate, key) in &contents {
        for (path, text, mode) in [(&files.certificate, certificate, 0o644), (&files.key, key, 0o600)] {
            if let Err(error) = write_new(path, text, mode, &mut written) {
                remove(&written);
                if error.kind() == io::ErrorKind::AlreadyExists {
                    bail!("{} exists already; name another folder or remove what is in it", path.display());
                }
                return Err(error).with_context(|| format!("writing {}", path.display()));
            }
        }
    }
    Ok(made)
}

fn write_new(path: &Path, text: &str, mode: u32, written: &mut Vec<PathBuf>) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    written.push(path.to_owned());
    file.write_all(text.as_bytes())
}

fn remove(paths: &[PathBuf]) {
    for path in paths {
        if let Err(error) = fs::remove_file(path) {
            tracing::warn!(path = %path.display(), %error, "cannot remove");
        }
    }
}

fn new_key() -> anyhow::Result<KeyPair> {
    KeyPair::generate().context("making a key")
}

fn parameters(name: &str, days: u32) -> CertificateParams {
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name.push(DnType::CommonName, name);
    let now = OffsetDateTime::now_utc();
    parameters.not_before = now - CLOCK_TOLERANCE;
    parameters.not_after = now + Duration::days(days.into());
    parameters
}

fn authority_named(name: &str, days: u32) -> CertificateParams {
    let mut parameters = parameters(name, days);
    parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    parameters
}

fn server(domain: &str, days: u32) -> anyhow::Result<CertificateParams> {
    let mut parameters = parameters(domain, days);
    for name in [domain, &format!("*.{domain}"), "localhost"] {
        parameters.subject_alt_names.push(SanType::DnsName(name.try_into()?));
    }
    for address in [IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST)] {
        parameters.subject_alt_names.push(SanType::IpAddress(address));
    }
    parameters.use_authority_key_identifier_extension = true;
    parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    Ok(parameters)
}

fn client(name: &str, days: u32) -> CertificateParams {
    let mut parameters = parameters(name, days);
    parameters.use_authority_key_identifier_extension = true;
    parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    parameters
}
