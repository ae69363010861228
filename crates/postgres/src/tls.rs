//! TLS to PostgreSQL: the parameters of libpq in the URL, and the connector that follows them.
//!
//! The files of `sslrootcert`, `sslcert` and `sslkey` are read for each new connection, so that a rotated certificate needs no
//! restart. The system's store has hundreds of certificates; it is read once, at the start.

use std::fmt::Display;
use std::fs;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use percent_encoding::percent_decode_str;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use tokio_postgres::Socket;
use tokio_postgres::config::SslMode;
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres_rustls::MakeRustlsConnect;

/// The protocol that PostgreSQL 17 and newer expect in the handshake (ALPN); older servers ignore it.
const PROTOCOL: &[u8] = b"postgresql";

/// `sslmode`, as libpq defines it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Disable,
    Prefer,
    Require,
    VerifyCa,
    VerifyFull,
}

impl FromStr for Mode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text {
            "disable" => Mode::Disable,
            "prefer" => Mode::Prefer,
            "require" => Mode::Require,
            "verify-ca" => Mode::VerifyCa,
            "verify-full" => Mode::VerifyFull,
            _ => return Err("sslmode is disable, prefer, require, verify-ca or verify-full".to_owned()),
        })
    }
}

/// The certificates that are trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Roots {
    /// Those of the operating system.
    System,
    /// Those of a PEM file.
    File(PathBuf),
}

/// The TLS parameters of a database URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TlsParameters {
    mode: Mode,
    /// Against which the server's certificate is checked; `None` if it is not checked.
    roots: Option<Roots>,
    /// The files of the client's certificate and key.
    client: Option<(PathBuf, PathBuf)>,
}

impl TlsParameters {
    /// Takes the TLS parameters out of `url`. Returns the rest of the URL for the driver, which knows only three modes. The
    /// error contains nothing of the URL.
    pub(crate) fn take(url: &str) -> Result<(String, Self), String> {
        let (address, parameters) = url.split_once('?').unwrap_or((url, ""));
        let [mut mode, mut root_cert, mut cert, mut key] = [const { None }; 4];
        let mut rest = Vec::new();
        for parameter in parameters.split('&').filter(|parameter| !parameter.is_empty()) {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            let place = match &*percent_decode_str(name).decode_utf8_lossy() {
                "sslmode" => &mut mode,
                "sslrootcert" => &mut root_cert,
                "sslcert" => &mut cert,
                "sslkey" => &mut key,
                _ => {
                    rest.push(parameter);
                    continue;
                }
            };
            let value = percent_decode_str(value).decode_utf8().map_err(|error| error.to_string())?;
            *place = Some(value.into_owned()).filter(|value| !value.is_empty());
        }
        let url = if rest.is_empty() { address.to_owned() } else { format!("{address}?{}", rest.join("&")) };
        let mode = mode.map(|mode| mode.parse()).transpose()?;
        let client = match (cert, key) {
            (Some(cert), Some(key)) => Some((cert.into(), key.into())),
            (None, None) => None,
            _ => return Err("sslcert and sslkey need each other".to_owned()),
        };
        let (mode, roots) = match (mode, root_cert) {
            (None | Some(Mode::VerifyFull), Some(system)) if system == "system" => {
                (Mode::VerifyFull, Some(Roots::System))
            }
            // As in libpq: anybody can have a certificate of a public CA.
            (Some(_), Some(system)) if system == "system" => {
                return Err("sslrootcert=system needs sslmode=verify-full".to_owned());
            }
            (Some(Mode::Disable), _) => (Mode::Disable, None),
            (mode, Some(file)) => (mode.unwrap_or(Mode::Prefer), Some(Roots::File(file.into()))),
            (Some(mode @ (Mode::VerifyCa | Mode::VerifyFull)), None) => (mode, Some(Roots::System)),
            (mode, None) => (mode.unwrap_or(Mode::Prefer), None),
        };
        Ok((url, TlsParameters { mode, roots, client }))
    }

    /// The driver's mode. It needs to know only whether a server without TLS is refused.
    pub(crate) fn driver_mode(&self) -> SslMode {
        match self.mode {
            Mode::Disable => SslMode::Disable,
            Mode::Prefer => SslMode::Prefer,
            Mode::Require | Mode::VerifyCa | Mode::VerifyFull => SslMode::Require,
        }
    }
}

/// Why no TLS connection can be attempted: a file is missing or is not what it should be. Names the parameter, not the file, which may be
/// a piece of a password if the URL is malformed.
#[derive(Debug, thiserror::Error)]
#[error("{0}: {1}")]
pub(crate) struct TlsError(&'static str, String);

/// An error about the parameter `name`.
fn about<E: Display>(name: &'static str) -> impl Fn(E) -> TlsError {
    move |error| TlsError(name, error.to_string())
}

/// Opens TLS connections as the parameters say.
#[derive(Debug, Clone)]
pub(crate) struct Connector(Arc<Sources>);

/// What the configuration of a connection is made from.
#[derive(Debug)]
struct Sources {
    parameters: TlsParameters,
    provider: Arc<CryptoProvider>,
    /// The system's store, if it is used.
    system: Arc<RootCertStore>,
}

impl Connector {
    /// Reads the system's store if it is used, and checks the files.
    pub(crate) fn open(parameters: TlsParameters) -> Result<Self, TlsError> {
        let mut system = RootCertStore::empty();
        if parameters.roots == Some(Roots::System) {
            let found = rustls_native_certs::load_native_certs();
            if let (0, _) = system.add_parsable_certificates(found.certs) {
                return Err(TlsError(
                    "sslrootcert",
                    "this system has no store of certificates: name a file".to_owned(),
                ));
            }
        }
        let provider = Arc::new(aws_lc_rs::default_provider());
        let sources = Sources { parameters, provider, system: Arc::new(system) };
        sources.client_config()?;
        Ok(Connector(Arc::new(sources)))
    }
}

impl Sources {
    fn client_config(&self) -> Result<ClientConfig, TlsError> {
        let TlsParameters { mode, roots, client } = &self.parameters;
        let roots = match roots {
            None => None,
            Some(Roots::System) => Some(Arc::clone(&self.system)),
            Some(Roots::File(file)) => {
                let mut store = RootCertStore::empty();
                for certificate in certificates("sslrootcert", file)? {
                    store.add(certificate).map_err(about("sslrootcert"))?;
                }
                Some(Arc::new(store))
            }
        };
        let chain =
            roots.map(|roots| WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(&self.provider)).build());
        let verifier = Verifier {
            chain: chain.transpose().map_err(about("sslrootcert"))?,
            checks_name: *mode == Mode::VerifyFull,
            provider: Arc::clone(&self.provider),
        };
        let builder = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_safe_default_protocol_versions()
            .map_err(about("sslmode"))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let mut config = match client {
            None => builder.with_no_client_auth(),
            Some((cert, key)) => {
                let key = PrivateKeyDer::from_pem_slice(&read("sslkey", key)?).map_err(|error| match error {
                    pem::Error::NoItemsFound => {
                        TlsError("sslkey", "the file has no private key in PEM form without a password".to_owned())
                    }
                    error => TlsError("sslkey", error.to_string()),
                })?;
                builder.with_client_auth_cert(certificates("sslcert", cert)?, key).map_err(about("sslcert, sslkey"))?
            }
        };
        config.alpn_protocols = vec![PROTOCOL.to_vec()];
        Ok(config)
    }
}

fn read(name: &'static str, file: &PathBuf) -> Result<Vec<u8>, TlsError> {
    fs::read(file).map_err(|error| TlsError(name, format!("the file cannot be read: {error}")))
}

/// The certificates of a PEM file, at least one.
fn certificates(name: &'static str, file: &PathBuf) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&read(name, file)?).collect();
    match found.map_err(about(name))? {
        none if none.is_empty() => Err(TlsError(name, "the file has no certificate in PEM form".to_owned())),
        found => Ok(found),
    }
}

impl MakeTlsConnect<Socket> for Connector {
    type Stream = <MakeRustlsConnect as MakeTlsConnect<Socket>>::Stream;
    type TlsConnect = <MakeRustlsConnect as MakeTlsConnect<Socket>>::TlsConnect;
    type Error = TlsError;

    fn make_tls_connect(&mut self, host: &str) -> Result<Self::TlsConnect, Self::Error> {
        // Only verify-full needs the name of the host. Names such as fe80::1%eth0 are valid in a URL, not in TLS. No name is sent
        // for an address.
        let is_usable = ServerName::try_from(host).is_ok() || self.0.parameters.mode == Mode::VerifyFull;
        let unspecified = Ipv4Addr::UNSPECIFIED.to_string();
        let host = if is_usable { host } else { &unspecified };
        let mut connect = MakeRustlsConnect::new(self.0.client_config()?);
        match MakeTlsConnect::<Socket>::make_tls_connect(&mut connect, host) {
            Ok(connect) => Ok(connect),
            Err(never) => match never {},
        }
    }
}

/// Checks as much of the server's certificate as `sslmode` asks for.
#[derive(Debug)]
struct Verifier {
    /// Checks chain, time and name; `None` if any certificate is good.
    chain: Option<Arc<WebPkiServerVerifier>>,
    /// Whether the certificate must have the host's name.
    checks_name: bool,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(chain) = &self.chain else { return Ok(ServerCertVerified::assertion()) };
        match chain.verify_server_cert(certificate, intermediates, name, ocsp_response, now) {
            // The name is checked last.
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if !self.checks_name => Ok(ServerCertVerified::assertion()),
            outcome => outcome,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The driver's URL and the parameters of `postgres://one/db?` with `parameters`.
    fn taken(parameters: &str) -> Result<(String, TlsParameters), String> {
        TlsParameters::take(&format!("postgres://one/db?{parameters}"))
    }

    #[test]
    fn the_driver_gets_the_other_parameters() {
        for (parameters, rest) in [
            ("", ""),
            ("sslmode=verify-full", ""),
            ("user=bob&sslmode=require&port=7", "?user=bob&port=7"),
            ("ssl%6dode=require&channel_binding=require&sslrootcert=/a%20b", "?channel_binding=require"),
        ] {
            assert_eq!(taken(parameters).unwrap().0, format!("postgres://one/db{rest}"), "{parameters}");
        }
    }

    #[test]
    fn a_file_of_roots_is_checked_against_in_every_mode_and_the_system_has_the_default() {
        let file = Some(Roots::File("/ca".into()));
        for (parameters, mode, roots) in [
            ("", Mode::Prefer, None),
            ("sslmode=require", Mode::Require, None),
            ("sslmode=require&sslrootcert=/ca", Mode::Require, file.clone()),
            ("sslrootcert=%2Fca", Mode::Prefer, file.clone()),
            ("sslmode=disable&sslrootcert=/ca", Mode::Disable, None),
            ("sslmode=verify-ca", Mode::VerifyCa, Some(Roots::System)),
            ("sslmode=verify-full&sslrootcert=/ca", Mode::VerifyFull, file),
            ("sslrootcert=system", Mode::VerifyFull, Some(Roots::System)),
        ] {
            let (_, found) = taken(parameters).unwrap();
            assert_eq!((found.mode, found.roots), (mode, roots), "{parameters}");
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        for (parameters, cause) in [
            ("sslmode=s3cret", "sslmode is disable, prefer"),
            ("sslmode=require&sslrootcert=system", "needs sslmode=verify-full"),
            ("sslcert=/a", "need each other"),
            ("sslkey=/a", "need each other"),
            ("sslcert=%FF", "invalid utf-8"),
        ] {
            let error = taken(parameters).unwrap_err();
            assert!(error.contains(cause), "{parameters}: {error}");
        }
    }

    #[test]
    fn files_are_checked_at_the_start_and_named_by_their_parameter() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("empty");
        std::fs::write(&file, "").unwrap();
        let file = file.display();
        for (parameters, cause) in [
            ("sslrootcert=/nowhere".to_owned(), "sslrootcert: the file cannot be read: No such file"),
            (format!("sslrootcert={file}"), "sslrootcert: the file has no certificate"),
            (format!("sslcert=/nowhere&sslkey={file}"), "sslkey: the file has no private key"),
            ("sslcert=/nowhere&sslkey=/nowhere".to_owned(), "sslkey: the file cannot be read"),
        ] {
            let error = Connector::open(taken(&parameters).unwrap().1).unwrap_err().to_string();
            assert!(error.starts_with(cause), "{parameters}: {error}");
        }
    }
}
