//! TLS as libpq does it: from "encrypt, whoever it is" up to "this host, vouched for by that authority".
//!
//! Two things differ from a browser's TLS. `verify-ca` checks the chain and not the name. And a server's
//! certificate that is itself the root certificate (a self-signed one, copied to the client, as
//! PostgreSQL's manual shows) is accepted, because it is exactly the one that was trusted.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use super::conninfo::{ConnInfo, RootCert, SslMode};
use super::error::PostgresError;

/// ALPN's name for this protocol.
pub(super) const ALPN: &[u8] = b"postgresql";

fn setup<E>(what: String) -> impl FnOnce(E) -> PostgresError
where
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    move |source| PostgresError::TlsSetup { what, source: Some(source.into()) }
}

/// What `sslmode` and the certificate files amount to.
pub(super) fn config(info: &ConnInfo) -> Result<Arc<ClientConfig>, PostgresError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = verifier(info, &provider)?;
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(setup("the TLS library cannot be set up".to_owned()))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = match &info.sslcert {
        Some((cert, key)) => {
            let chain = certificates(cert)?;
            let what = || format!("the client certificate {} cannot be used", cert.display());
            builder.with_client_auth_cert(chain, private_key(key)?).map_err(setup(what()))?
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![ALPN.to_vec()];
    Ok(Arc::new(config))
}

fn verifier(info: &ConnInfo, provider: &Arc<CryptoProvider>) -> Result<Verifier, PostgresError> {
    let mut roots = RootCertStore::empty();
    let mut exact = Vec::new();
    // With a root certificate at hand, libpq takes `require` for `verify-ca`.
    let check_chain =
        info.sslmode >= SslMode::VerifyCa || (info.sslmode == SslMode::Require && info.sslrootcert.is_some());
    if check_chain {
        match &info.sslrootcert {
            None => {
                return Err(PostgresError::TlsSetup {
                    what: format!(
                        "sslmode={} needs a root certificate: sslrootcert names none and \
                         ~/.postgresql/root.crt is not there (sslrootcert=system takes the operating system's)",
                        info.sslmode.as_str()
                    ),
                    source: None,
                });
            }
            Some(RootCert::System) => {
                let (added, _) =
                    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
                if added == 0 {
                    let what = "the operating system has no root certificates".to_owned();
                    return Err(PostgresError::TlsSetup { what, source: None });
                }
            }
            Some(RootCert::File(path)) => {
                exact = certificates(path)?;
                for cert in &exact {
                    let what = format!("the root certificate {} cannot be used", path.display());
                    roots.add(cert.clone()).map_err(setup(what))?;
                }
            }
        }
    }
    Ok(Verifier {
        provider: Arc::clone(provider),
        roots,
        exact,
        check_chain,
        check_name: info.sslmode == SslMode::VerifyFull,
    })
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, PostgresError> {
    let what = format!("the certificate file {} cannot be read", path.display());
    let found: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    let found = found.map_err(setup(what))?;
    if found.is_empty() {
        let what = format!("the certificate file {} holds no certificate", path.display());
        return Err(PostgresError::TlsSetup { what, source: None });
    }
    Ok(found)
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, PostgresError> {
    let what = || format!("the private key {} cannot be read", path.display());
    let meta = fs::metadata(path).map_err(setup(what()))?;
    // As libpq: nobody else may read it, but a key of root's may be readable by a group.
    let allowed = if meta.uid() == 0 { 0o640 } else { 0o600 };
    if meta.mode() & 0o777 & !allowed != 0 {
        let what = format!(
            "the private key {} may be read by others; its permissions should be 0600, or 0640 if root owns it",
            path.display()
        );
        return Err(PostgresError::TlsSetup { what, source: None });
    }
    PrivateKeyDer::from_pem_file(path).map_err(setup(what()))
}

#[derive(Debug)]
struct Verifier {
    provider: Arc<CryptoProvider>,
    roots: RootCertStore,
    exact: Vec<CertificateDer<'static>>,
    check_chain: bool,
    check_name: bool,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if !self.check_chain {
            return Ok(ServerCertVerified::assertion());
        }
        let cert = ParsedCertificate::try_from(end_entity)?;
        let chain = verify_server_cert_signed_by_trust_anchor(
            &cert,
            &self.roots,
            intermediates,
            now,
            self.provider.signature_verification_algorithms.all,
        );
        // Of a certificate that is its own root, the chain's check says only that it is an authority's;
        // anything else it says (expired, say) stands.
        let is_root = self.exact.iter().any(|root| root.as_ref() == end_entity.as_ref());
        match chain {
            Err(rustls::Error::InvalidCertificate(CertificateError::Other(_))) if is_root => {}
            result => result?,
        }
        if self.check_name {
            verify_server_name(&cert, server_name)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// `tls-server-end-point` (RFC 5929): the certificate's hash by its own signature's hash function, SHA-256
/// for the broken ones. `None` where the signature has none of these (Ed25519): no binding is possible.
pub(super) fn end_point(certificate: &[u8]) -> Option<Vec<u8>> {
    use ::aws_lc_rs::digest::{SHA224, SHA256, SHA384, SHA512, digest};
    let (outer, _) = der(certificate)?;
    let (_tbs, rest) = der(outer)?;
    let (algorithm, _) = der(rest)?;
    let (oid, parameters) = der(algorithm)?;
    const RSA: &[u8] = &[0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 0x01, 0x01];
    const ECDSA: &[u8] = &[0x2A, 0x86, 0x48, 0xCE, 0x3D, 0x04];
    const SHA2: &[u8] = &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02];
    let hash = match (oid.strip_prefix(RSA), oid.strip_prefix(ECDSA)) {
        (Some([4 | 5 | 11]), _) | (_, Some([1] | [3, 2])) => &SHA256,
        (Some([12]), _) | (_, Some([3, 3])) => &SHA384,
        (Some([13]), _) | (_, Some([3, 4])) => &SHA512,
        (Some([14]), _) | (_, Some([3, 1])) => &SHA224,
        // RSASSA-PSS names its hash in its parameters; without one it is SHA-1.
        (Some([10]), _) => {
            let at = parameters.windows(SHA2.len()).position(|w| w == SHA2);
            match at.and_then(|at| parameters.get(at + SHA2.len())) {
                None | Some(1) => &SHA256,
                Some(2) => &SHA384,
                Some(3) => &SHA512,
                Some(4) => &SHA224,
                Some(_) => return None,
            }
        }
        _ => return None,
    };
    Some(digest(hash, certificate).as_ref().to_vec())
}

/// One DER element: its content, and what follows.
fn der(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (_tag, rest) = bytes.split_first()?;
    let (first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7F => (usize::from(*first), rest),
        _ => {
            let (length, rest) = rest.split_at_checked(usize::from(first & 0x7F))?;
            (length.iter().try_fold(0usize, |n, b| n.checked_mul(256)?.checked_add(usize::from(*b)))?, rest)
        }
    };
    rest.split_at_checked(length)
}
