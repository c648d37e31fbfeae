//! rocketmq-rust: NameServer and broker as `cargo install` builds them from the published crates.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::broker::Place;
use super::peer::Flush;
use super::process::Launch;
use super::tools::{self, Missing};

/// The newest when this was written, and the first whose crates bring programs that serve clients.
pub const VERSION: &str = "1.0.0";

/// Published crate and the program it installs.
const NAMESRV: (&str, &str) = ("rocketmq-namesrv", "rocketmq-namesrv-rust");
const BROKER: (&str, &str) = ("rocketmq-broker", "rocketmq-broker-rust");

/// Its start-up check accepts plain connections only of a profile that stays on the loopback interface.
const SECURITY: (&str, &str) = ("ROCKETMQ_SECURITY_PROFILE", "development-insecure-loopback");

/// rocketmq-rust on this machine.
#[derive(Clone, Debug)]
pub struct RocketMqRust {
    pub version: String,
    /// As `rustc --version` says it.
    pub compiler: String,
    programs: PathBuf,
}

impl RocketMqRust {
    /// Builds what is not there yet below `store`; takes ten minutes of a core or two.
    pub fn obtain(version: &str, store: &Path) -> Result<RocketMqRust, Missing> {
        let root = store.join(format!("rocketmq-rust-{version}"));
        let target = store.join("rocketmq-rust-target");
        let mut is_built = false;
        for (package, program) in [NAMESRV, BROKER] {
            if root.join("bin").join(program).exists() {
                continue;
            }
            std::fs::create_dir_all(&root)
                .map_err(|error| Missing(format!("cannot make {}: {error}", root.display())))?;
            let mut cargo = Command::new("cargo");
            // Elsewhere than in a workspace: its configuration is none of this build's.
            cargo.current_dir(&root);
            cargo
                .args(["install", package, "--version", version, "--locked", "--quiet", "--root"])
                .arg(&root);
            cargo.env("CARGO_TARGET_DIR", &target).env("CARGO_PROFILE_RELEASE_DEBUG", "0");
            tools::run_with_retries(&format!("cargo's build of {package} {version}"), &mut cargo)?;
            is_built = true;
        }
        if is_built {
            // Gigabytes nobody needs again; if they stay, the next build removes them.
            let _ = std::fs::remove_dir_all(&target);
        }
        let compiler = tools::version_line("rustc", "--version").unwrap_or_default();
        Ok(RocketMqRust { version: version.to_owned(), compiler, programs: root.join("bin") })
    }

    /// Writes the configuration below the place and says what to start, in order.
    pub fn prepare(&self, flush: Flush, place: &Place) -> io::Result<Vec<Launch>> {
        std::fs::write(place.folder.join("namesrv.toml"), namesrv_toml(place))?;
        std::fs::write(place.folder.join("broker.toml"), broker_toml(flush, place))?;
        let launch = |role, program: &str, configuration: &str| {
            let home = || place.folder.clone().into_os_string();
            Launch {
                role,
                program: self.programs.join(program).into_os_string(),
                args: ["-c", configuration, "--log-filter", "warn"].map(OsString::from).to_vec(),
                env: vec![("ROCKETMQ_HOME", home()), ("HOME", home()), (SECURITY.0, SECURITY.1.into())],
                folder: place.folder.clone(),
            }
        };
        Ok(vec![launch("namesrv", NAMESRV.1, "namesrv.toml"), launch("broker", BROKER.1, "broker.toml")])
    }
}

fn namesrv_toml(place: &Place) -> String {
    format!(
        "rocketmqHome = \"{home}\"\nkvConfigPath = \"{home}/kvConfig.json\"\n\
         configStorePath = \"{home}/namesrv-stored.properties\"\nlistenPort = {port}\nbindAddress = \"127.0.0.1\"\n",
        home = place.folder.display(),
        port = place.ports.namesrv,
    )
}

/// Every line that differs from its default, with its reason in `docs/peers.md`.
fn broker_toml(flush: Flush, place: &Place) -> String {
    let flush = match flush {
        Flush::Sync => "SYNC_FLUSH",
        Flush::Async => "ASYNC_FLUSH",
    };
    format!(
        "[broker]\nnamesrvAddr = \"127.0.0.1:{namesrv}\"\nbrokerIp1 = \"127.0.0.1\"\nlistenPort = {broker}\n\
         storePathRootDir = \"{home}/store\"\n\n\
         [broker.brokerServerConfig]\nbindAddress = \"127.0.0.1\"\n\n\
         [broker.brokerIdentity]\nbrokerName = \"peer\"\nbrokerClusterName = \"DefaultCluster\"\nbrokerId = 0\n\n\
         [store]\nbrokerRole = \"ASYNC_MASTER\"\nstorePathRootDir = \"{home}/store\"\n\
         haListenAddress = \"127.0.0.1\"\nhaListenPort = {ha}\nflushDiskType = \"{flush}\"\n\
         timerWheelEnable = false\n",
        home = place.folder.display(),
        namesrv = place.ports.namesrv,
        broker = place.ports.broker,
        ha = place.ports.broker + 1,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peers::broker::Ports;

    #[test]
    fn configurations_are_toml_and_say_what_was_asked() {
        let place = Place {
            folder: "/data/run".into(),
            ports: Ports::from_base(21_000).unwrap(),
            cpus: vec![0],
            memory_bytes: 0,
        };
        let broker: toml::Table = toml::from_str(&broker_toml(Flush::Sync, &place)).unwrap();
        assert_eq!(broker["store"]["flushDiskType"].as_str(), Some("SYNC_FLUSH"));
        assert_eq!(broker["broker"]["namesrvAddr"].as_str(), Some("127.0.0.1:21000"));
        assert_eq!(broker["broker"]["listenPort"].as_integer(), Some(21_010));
        let namesrv: toml::Table = toml::from_str(&namesrv_toml(&place)).unwrap();
        assert_eq!(namesrv["listenPort"].as_integer(), Some(21_000));
    }
}
