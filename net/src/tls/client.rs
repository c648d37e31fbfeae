use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore};

use super::error::{HandshakeError, TlsFileError};
use super::pem;
use super::session::TlsSession;
use super::verifier::Verifier;

/// What a client demands of a server and shows of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsOptions {
    pub trust: Trust,
    /// The name that the server's certificate must be for, and that the server is told (SNI). Without one any name will
    /// do, as in Java's client, which never looks at it.
    pub server_name: Option<String>,
    /// For servers that want to know their clients (mutual TLS).
    pub identity: Option<Identity>,
}

/// Which servers are believed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Trust {
    /// Every one: what is sent is hidden from onlookers, but nobody knows who receives it. RocketMQ's default
    /// (`tls.client.authServer=false`, and `tls.test.mode.enable=true`).
    #[default]
    Anyone,
    /// Those whose certificate one of this PEM file's certificates has signed (`tls.client.trustCertPath`).
    CaFile(PathBuf),
}

/// A client's own certificate and its key, both in PEM files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The certificate, then those that lead to an authority (`tls.client.certPath`).
    pub certificate: PathBuf,
    /// Not encrypted (`tls.client.keyPath`).
    pub key: PathBuf,
}

/// Options that hold: their files have been read. Copies share the same.
#[derive(Clone)]
pub struct TlsClient {
    config: Arc<ClientConfig>,
    server_name: Option<ServerName<'static>>,
    /// For errors: whose signature was expected.
    ca_file: Option<PathBuf>,
}

impl TlsClient {
    /// Reads the files, at once and blocking.
    pub fn new(options: &TlsOptions) -> Result<TlsClient, TlsFileError> {
        let server_name = options.server_name.as_ref().map(|name| {
            let wrong = |_| TlsFileError::ServerName { name: name.clone() };
            ServerName::try_from(name.clone()).map_err(wrong)
        });
        let server_name = server_name.transpose()?;
        let ca_file = match &options.trust {
            Trust::Anyone => None,
            Trust::CaFile(path) => Some(path.clone()),
        };
        let roots = ca_file.as_deref().map(|path| {
            let mut roots = RootCertStore::empty();
            for certificate in pem::certificates(path)? {
                let unusable = |error| TlsFileError::Certificate { path: path.to_owned(), error };
                roots.add(certificate).map_err(unusable)?;
            }
            Ok(roots)
        });
        let provider = Arc::new(ring::default_provider());
        let verifier = Verifier::new(roots.transpose()?, server_name.is_some(), &provider);
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("ring has what TLS 1.2 and 1.3 need")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let config = match &options.identity {
            None => config.with_no_client_auth(),
            Some(Identity { certificate, key }) => config
                .with_client_auth_cert(pem::certificates(certificate)?, pem::private_key(key)?)
                .map_err(|error| TlsFileError::Identity {
                    certificate: certificate.clone(),
                    key: key.clone(),
                    error,
                })?,
        };
        Ok(TlsClient { config: Arc::new(config), server_name, ca_file })
    }

    /// A session for one connection to `address`.
    pub(crate) fn session(&self, address: IpAddr) -> TlsSession {
        let name = self.server_name.clone().unwrap_or_else(|| address.into());
        let session = ClientConnection::new(self.config.clone(), name);
        TlsSession::new(session.expect("fails only for protocols that need a name or a key schedule").into())
    }

    /// What went wrong, with what is known here.
    pub(crate) fn explain(&self, error: rustls::Error) -> HandshakeError {
        HandshakeError::from_client(error, self.ca_file.as_deref())
    }
}

impl fmt::Debug for TlsClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TlsClient(ca file {:?}, server name {:?})", self.ca_file, self.server_name)
    }
}
