//! Flags that say which brokers are measured and how they are spoken to.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::bail;
use clap::Args;

use super::flags::{put, put_some};
use crate::scenario::{Acl, HeaderForm, Target};

#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Target")]
pub(super) struct TargetArgs {
    /// NameServers, host:port, several separated by ';' [default: 127.0.0.1:9876]
    #[arg(long, value_delimiter = ';')]
    namesrv: Option<Vec<String>>,
    /// Only these brokers, separated by commas
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    brokers: Option<Vec<String>>,
    /// How often the route is asked for again while all is well [default: 30s]
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    route_interval: Option<Duration>,
    /// Write request headers in RocketMQ's binary form instead of JSON
    #[arg(long)]
    binary_header: bool,
    /// Speak TLS; without --tls-ca any certificate is believed, as stock clients do
    #[arg(long)]
    tls: bool,
    /// PEM file of certificates, one of which must have signed the servers'; implies --tls
    #[arg(long, value_name = "FILE")]
    tls_ca: Option<PathBuf>,
    /// Name that the servers' certificates must be for; implies --tls
    #[arg(long, value_name = "NAME")]
    tls_server_name: Option<String>,
    /// PEM file with a certificate of the generator's own, for servers that want one; implies --tls
    #[arg(long, value_name = "FILE")]
    tls_cert: Option<PathBuf>,
    /// PEM file with the key to it; implies --tls
    #[arg(long, value_name = "FILE")]
    tls_key: Option<PathBuf>,
    /// Sign requests as this user (RocketMQ ACL)
    #[arg(long, value_name = "USER")]
    access_key: Option<String>,
    /// The user's secret
    #[arg(long, value_name = "SECRET")]
    secret_key: Option<String>,
    /// Comes with temporary keys
    #[arg(long, value_name = "TOKEN")]
    security_token: Option<String>,
}

impl TargetArgs {
    pub(super) fn apply(self, target: &mut Target) -> anyhow::Result<()> {
        let addresses = |list: Vec<String>| list.into_iter().filter(|address| !address.is_empty()).collect();
        put(&mut target.namesrv, self.namesrv.map(addresses));
        put_some(&mut target.brokers, self.brokers);
        put(&mut target.route_interval, self.route_interval);
        put(&mut target.header, self.binary_header.then_some(HeaderForm::Binary));
        let files = [&self.tls_ca, &self.tls_cert, &self.tls_key];
        if self.tls || files.into_iter().any(Option::is_some) || self.tls_server_name.is_some() {
            let tls = target.tls.get_or_insert_default();
            put_some(&mut tls.ca, self.tls_ca);
            put_some(&mut tls.server_name, self.tls_server_name);
            put_some(&mut tls.certificate, self.tls_cert);
            put_some(&mut tls.key, self.tls_key);
        }
        if let Some(access_key) = self.access_key {
            // Another user's secret is no use to this one.
            target.acl = Some(Acl { access_key, secret_key: String::new(), security_token: None });
        }
        match &mut target.acl {
            Some(acl) => {
                put(&mut acl.secret_key, self.secret_key);
                put_some(&mut acl.security_token, self.security_token);
            }
            None if self.secret_key.is_some() || self.security_token.is_some() => {
                bail!("a secret without its user: give --access-key too");
            }
            None => {}
        }
        Ok(())
    }
}
