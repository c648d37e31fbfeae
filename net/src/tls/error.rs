use std::path::{Path, PathBuf};

use rustls::{AlertDescription, CertificateError};

/// Why options cannot be used: what is wrong, and with which file.
#[derive(Debug, thiserror::Error)]
pub enum TlsFileError {
    #[error("cannot read {}: {error}", .path.display())]
    Read { path: PathBuf, error: std::io::Error },
    #[error("{} is no PEM file: {reason}", .path.display())]
    Malformed { path: PathBuf, reason: String },
    #[error("no certificate in {}, expected at least one (-----BEGIN CERTIFICATE-----)", .path.display())]
    NoCertificate { path: PathBuf },
    #[error("a certificate in {} cannot be used: {error}", .path.display())]
    Certificate { path: PathBuf, error: rustls::Error },
    #[error("no private key in {}, expected one (-----BEGIN PRIVATE KEY-----)", .path.display())]
    NoKey { path: PathBuf },
    #[error("the private key in {} is encrypted, expected one that needs no password", .path.display())]
    EncryptedKey { path: PathBuf },
    #[error("the certificate in {} and the key in {} cannot be used together: {error}", .certificate.display(), .key.display())]
    Identity { certificate: PathBuf, key: PathBuf, error: rustls::Error },
    #[error("'{name}' is no server name, expected a DNS name or an IP address")]
    ServerName { name: String },
}

/// Why a TLS connection did not come about, or ended.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum HandshakeError {
    #[error(
        "the server closed the connection where its TLS hello was expected; is TLS on there (RocketMQ: tls.server.mode)?"
    )]
    ClosedByPeer,
    #[error(
        "the server does not speak TLS: its answer begins with byte {found:#04x}, expected 0x16 (handshake) or 0x15 (alert)"
    )]
    NotTls { found: u8 },
    #[error("the server's certificate is not signed by any certificate in {}", .ca_file.display())]
    UnknownIssuer { ca_file: PathBuf },
    #[error("the server's certificate is for {}, expected {expected}", if .presented.is_empty() { "no name".to_owned() } else { .presented.join(", ") })]
    WrongName { expected: String, presented: Vec<String> },
    #[error("the server wants a client certificate that it knows, and {}", if *.was_refused { "refuses this one" } else { "got none" })]
    ClientCertificate { was_refused: bool },
    #[error("{0}")]
    Other(rustls::Error),
}

impl HandshakeError {
    /// `ca_file` is where the certificates are from that were to have signed the server's.
    pub(super) fn from_client(error: rustls::Error, ca_file: Option<&Path>) -> HandshakeError {
        match (error, ca_file) {
            (rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer), Some(ca_file)) => {
                HandshakeError::UnknownIssuer { ca_file: ca_file.to_owned() }
            }
            (error, _) => error.into(),
        }
    }
}

impl From<rustls::Error> for HandshakeError {
    fn from(error: rustls::Error) -> HandshakeError {
        use AlertDescription as Alert;
        match error {
            rustls::Error::InvalidCertificate(CertificateError::NotValidForNameContext {
                expected,
                presented,
            }) => HandshakeError::WrongName { expected: expected.to_str().into_owned(), presented },
            rustls::Error::AlertReceived(Alert::CertificateRequired) => {
                HandshakeError::ClientCertificate { was_refused: false }
            }
            rustls::Error::AlertReceived(
                Alert::BadCertificate | Alert::UnknownCA | Alert::CertificateUnknown | Alert::AccessDenied,
            ) => HandshakeError::ClientCertificate { was_refused: true },
            other => HandshakeError::Other(other),
        }
    }
}
