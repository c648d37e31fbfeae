//! Flags that say which brokers are measured and how they are spoken to.

use std::path::PathBuf;

use clap::Args;

use crate::scenario::{Acl, HeaderForm, Target, Tls};

#[derive(Debug, Args)]
pub(super) struct TargetArgs {
    /// NameServers, host:port, several separated by ';'
    #[arg(long, value_delimiter = ';', default_value = "127.0.0.1:9876")]
    namesrv: Vec<String>,
    /// Only these brokers, separated by commas
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    brokers: Option<Vec<String>>,
    /// Write request headers in RocketMQ's binary form instead of JSON
    #[arg(long)]
    binary_header: bool,
    /// Speak TLS; without --tls-ca any certificate is believed, as stock clients do
    #[arg(long)]
    tls: bool,
    /// PEM file of certificates, one of which must have signed the servers'; implies --tls
    #[arg(long, value_name = "FILE")]
    tls_ca: Option<PathBuf>,
    /// Name that the servers' certificates must be for
    #[arg(long, value_name = "NAME", requires = "tls_ca")]
    tls_server_name: Option<String>,
    /// PEM file with a certificate of the generator's own, for servers that want one; implies --tls
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// PEM file with the key to it
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Sign requests as this user (RocketMQ ACL)
    #[arg(long, value_name = "USER", requires = "secret_key")]
    access_key: Option<String>,
    /// The user's secret
    #[arg(long, value_name = "SECRET", requires = "access_key")]
    secret_key: Option<String>,
    /// Comes with temporary keys
    #[arg(long, value_name = "TOKEN", requires = "access_key")]
    security_token: Option<String>,
}

impl TargetArgs {
    pub(super) fn into_target(self) -> Target {
        let is_tls = self.tls || self.tls_ca.is_some() || self.tls_cert.is_some();
        let security_token = self.security_token;
        Target {
            namesrv: self.namesrv.into_iter().filter(|address| !address.is_empty()).collect(),
            brokers: self.brokers,
            header: if self.binary_header { HeaderForm::Binary } else { HeaderForm::Json },
            tls: is_tls.then_some(Tls {
                ca: self.tls_ca,
                server_name: self.tls_server_name,
                certificate: self.tls_cert,
                key: self.tls_key,
            }),
            acl: self.access_key.zip(self.secret_key).map(|(access_key, secret_key)| Acl {
                access_key,
                secret_key,
                security_token,
            }),
        }
    }
}
