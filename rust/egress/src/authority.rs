//! How does the proxy show itself to an agent as the server it asked for?
//!
//! A certificate authority of this installation, made on first use and kept, signs a certificate for each host. Its key
//! never leaves the configuration directory; its certificate is copied to where the agent can be given it.

use std::collections::HashMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use time::OffsetDateTime;

use crate::settings::{Problem, strerror};

const MAX_KEPT: usize = 1024;
/// How long one certificate is shown; it is valid for longer.
const SHOWN: Duration = Duration::from_secs(24 * 3600);

pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// One for all hosts: it proves nothing that the authority's does not.
    leaf_key: KeyPair,
    kept: Mutex<HashMap<String, (Instant, Arc<ServerConfig>)>>,
}

fn cannot(path: &Path, error: &io::Error) -> Problem {
    format!("EGRESS_CONFDIR {}: {}.", path.display(), strerror(error)).into()
}

impl Authority {
    /// Reads it from the directory, or makes it there; copies its certificate to `copy`.
    pub fn open(confdir: &Path, copy: Option<&Path>) -> Result<Self, Problem> {
        let (key_file, cert_file) = (confdir.join("ca.key"), confdir.join("ca.pem"));
        let key = match fs::read_to_string(&key_file) {
            Ok(pem) => KeyPair::from_pem(&pem).map_err(|_| {
                format!("{} holds no key; remove it and ca.pem, and a new authority is made.", key_file.display())
            })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let key = KeyPair::generate().map_err(|error| format!("no key could be made: {error}."))?;
                write_private(&key_file, key.serialize_pem().as_bytes()).map_err(|error| cannot(confdir, &error))?;
                // Of another key.
                let _ = fs::remove_file(&cert_file);
                key
            }
            Err(error) => return Err(cannot(&key_file, &error)),
        };
        let params = authority_params();
        let pem = match fs::read_to_string(&cert_file) {
            Ok(pem) => pem,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let made =
                    params.self_signed(&key).map_err(|error| format!("no certificate could be made: {error}."))?;
                fs::write(&cert_file, made.pem()).map_err(|error| cannot(confdir, &error))?;
                made.pem()
            }
            Err(error) => return Err(cannot(&cert_file, &error)),
        };
        if let Some(copy) = copy {
            fs::write(copy, &pem)
                .map_err(|error| format!("EGRESS_CA_CERT_FILE {}: {}.", copy.display(), strerror(&error)))?;
        }
        let leaf_key = KeyPair::generate().map_err(|error| format!("no key could be made: {error}."))?;
        Ok(Authority { issuer: Issuer::new(params, key), leaf_key, kept: Mutex::default() })
    }

    /// How TLS is spoken as this host, which is canonical.
    pub fn config(&self, host: &str) -> Result<Arc<ServerConfig>, String> {
        let now = Instant::now();
        {
            let kept = self.kept.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            if let Some((made, config)) = kept.get(host)
                && now.duration_since(*made) < SHOWN
            {
                return Ok(config.clone());
            }
        }
        let config = Arc::new(self.make(host).map_err(|error| error.to_string())?);
        let mut kept = self.kept.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if kept.len() >= MAX_KEPT {
            kept.clear();
        }
        kept.insert(host.to_owned(), (now, config.clone()));
        Ok(config)
    }

    fn make(&self, host: &str) -> Result<ServerConfig, Box<dyn std::error::Error + Send + Sync>> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        // RFC 5280: a common name has 64 characters at most; who verifies looks at the alternative name.
        if host.len() <= 64 {
            params.distinguished_name.push(DnType::CommonName, host);
        }
        params.subject_alt_names = vec![match host.parse::<IpAddr>() {
            Ok(address) => SanType::IpAddress(address),
            Err(_) => SanType::DnsName(host.try_into()?),
        }];
        params.not_before = OffsetDateTime::now_utc() - time::Duration::days(1);
        params.not_after = OffsetDateTime::now_utc() + time::Duration::days(365);
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let leaf = params.signed_by(&self.leaf_key, &self.issuer)?;
        let chain = vec![CertificateDer::from(leaf.der().to_vec())];
        let key = PrivatePkcs8KeyDer::from(self.leaf_key.serialize_der());
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(chain, key.into())?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(config)
    }
}

fn authority_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "bot-bottle egress");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = OffsetDateTime::now_utc() - time::Duration::days(1);
    params.not_after = OffsetDateTime::now_utc() + time::Duration::days(3650);
    params
}

/// A new file that its owner alone can read.
pub fn write_private(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(content)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_authority_survives_a_restart() {
        let directory = std::env::temp_dir().join(format!("egress-ca-{}", std::process::id()));
        fs::create_dir(&directory).expect("a new directory");
        let copy = directory.join("copy.pem");
        let first = Authority::open(&directory, Some(&copy)).map_err(|problem| problem.sentence).expect("made");
        let pem = fs::read_to_string(&copy).expect("copied");
        assert!(first.config("a.example").is_ok() && first.config("192.0.2.1").is_ok());
        let again = Authority::open(&directory, Some(&copy)).map_err(|problem| problem.sentence).expect("read");
        assert!(again.config("a.example").is_ok());
        assert_eq!(fs::read_to_string(&copy).expect("copied"), pem);
        fs::remove_dir_all(&directory).expect("removed");
    }
}
