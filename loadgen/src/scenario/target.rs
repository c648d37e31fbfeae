//! Which brokers, and how they are spoken to.

use std::path::PathBuf;
use std::time::Duration;

use apogee_net::acl::Credentials;
use apogee_net::frame::HeaderEncoding;
use apogee_net::tls::{Identity, TlsClient, TlsFileError, TlsOptions, Trust};
use serde::{Deserialize, Serialize};

use super::ScenarioError;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Target {
    /// `host:port` of NameServers; the first that answers is used.
    pub namesrv: Vec<String>,
    /// Only these broker names; `None` takes all.
    pub brokers: Option<Vec<String>>,
    /// How often the route is asked for again while all is well; as often as stock clients by default.
    #[serde(with = "humantime_serde")]
    pub route_interval: Duration,
    /// Of requests' headers; replies come in the same.
    pub header: HeaderForm,
    /// `None`: plaintext.
    pub tls: Option<Tls>,
    /// `None`: requests are not signed.
    pub acl: Option<Acl>,
}

/// How a request's header is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HeaderForm {
    /// What most stock clients send.
    #[default]
    Json,
    /// RocketMQ's binary form.
    Binary,
}

/// TLS to NameServers and brokers alike. Empty: encrypted, and any certificate is believed, as stock clients do unless told
/// otherwise.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tls {
    /// PEM file; servers must show a certificate that one of these has signed.
    pub ca: Option<PathBuf>,
    /// The name that servers' certificates must be for.
    pub server_name: Option<String>,
    /// PEM file with the generator's own certificate, for servers that want to know it.
    pub certificate: Option<PathBuf>,
    /// PEM file with the key to it.
    pub key: Option<PathBuf>,
}

/// Whose name requests are signed with.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Acl {
    pub access_key: String,
    /// Never shown: reports leave it out. May be left out of a file too, and given on the command line.
    #[serde(default, skip_serializing)]
    pub secret_key: String,
    /// Of temporary credentials.
    #[serde(default, skip_serializing)]
    pub security_token: Option<String>,
}

impl Default for Target {
    fn default() -> Target {
        Target {
            namesrv: vec!["127.0.0.1:9876".to_owned()],
            brokers: None,
            route_interval: Duration::from_secs(30),
            header: HeaderForm::default(),
            tls: None,
            acl: None,
        }
    }
}

impl From<HeaderForm> for HeaderEncoding {
    fn from(form: HeaderForm) -> HeaderEncoding {
        match form {
            HeaderForm::Json => HeaderEncoding::Json,
            HeaderForm::Binary => HeaderEncoding::RocketMq,
        }
    }
}

impl Tls {
    pub(super) fn check(&self) -> Result<(), ScenarioError> {
        if self.certificate.is_some() != self.key.is_some() {
            return Err(ScenarioError::HalfAnIdentity);
        }
        if self.server_name.is_some() && self.ca.is_none() {
            return Err(ScenarioError::NameWithoutCa);
        }
        Ok(())
    }

    /// Reads the files.
    pub fn client(&self) -> Result<TlsClient, TlsFileError> {
        let identity = self.certificate.clone().zip(self.key.clone());
        TlsClient::new(&TlsOptions {
            trust: self.ca.clone().map_or(Trust::Anyone, Trust::CaFile),
            server_name: self.server_name.clone(),
            identity: identity.map(|(certificate, key)| Identity { certificate, key }),
        })
    }
}

impl Acl {
    pub fn credentials(&self) -> Credentials {
        Credentials::new(&self.access_key, &self.secret_key, self.security_token.as_deref())
    }
}

impl std::fmt::Debug for Acl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Acl({}, …)", self.access_key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_reads_as_written_and_keeps_its_secrets() {
        let text = "namesrv = ['h:1']\nheader = 'binary'\n[tls]\nca = 'ca.pem'\n\
                    [acl]\naccess_key = 'me'\nsecret_key = 'hush'\nsecurity_token = 'quiet'";
        let target: Target = toml::from_str(text).unwrap();
        assert_eq!(target.header, HeaderForm::Binary);
        assert_eq!(target.tls, Some(Tls { ca: Some("ca.pem".into()), ..Tls::default() }));
        assert_eq!(target.acl.as_ref().map(|acl| acl.secret_key.as_str()), Some("hush"));
        let json = serde_json::to_value(&target).unwrap();
        let read_again: Target = serde_json::from_value(json).unwrap();
        assert_eq!(read_again.acl.map(|acl| acl.secret_key), Some(String::new()));
        let shown = format!("{} {target:?}", serde_json::to_string(&target).unwrap());
        assert!(shown.contains("me") && !shown.contains("hush") && !shown.contains("quiet"), "{shown}");
    }

    #[test]
    fn half_an_identity_and_a_name_that_nobody_checks_are_refused() {
        let half = Tls { key: Some("k".into()), ..Tls::default() };
        assert_eq!(half.check(), Err(ScenarioError::HalfAnIdentity));
        let name = Tls { server_name: Some("n".into()), ..Tls::default() };
        assert_eq!(name.check(), Err(ScenarioError::NameWithoutCa));
        assert_eq!(Tls::default().check(), Ok(()));
    }
}
