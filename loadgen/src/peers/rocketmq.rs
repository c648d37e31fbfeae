//! Apache RocketMQ: fetched by Maven, NameServer and broker as their own main classes, each in its JVM.

use std::ffi::OsString;
use std::fmt::Write;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::broker::Place;
use super::peer::Flush;
use super::process::Launch;
use super::tools::{self, Missing};

/// The newest 5.x when this was written.
pub const VERSION: &str = "5.5.0";

const POM: &str = include_str!("rocketmq/pom.xml");
const LOGBACK: &str = include_str!("rocketmq/logback.xml");

const GIB: u64 = 1024 * 1024 * 1024;
/// What `runbroker.sh` gives the broker.
const HEAP_RECOMMENDED: u64 = 8 * GIB;
const HEAP_MIN: u64 = GIB;
/// The NameServer of a single topic; `runserver.sh` gives it 4 GiB for whole clusters.
const NAMESRV_HEAP: &str = "256m";

/// Apache RocketMQ on this machine.
#[derive(Clone, Debug)]
pub struct RocketMq {
    pub version: String,
    /// As `java -version` says it.
    pub java: String,
    /// Further lines of the broker's configuration, `name=value`; they go before those that are here.
    pub further: Vec<String>,
    libraries: PathBuf,
}

impl RocketMq {
    /// Fetches what is not there yet below `store`.
    pub fn obtain(version: &str, further: &[String], store: &Path) -> Result<RocketMq, Missing> {
        if let Some(tool) = tools::first_missing(&["java", "mvn"]) {
            return Err(Missing(format!("there is no {tool} on this machine")));
        }
        let folder = store.join(format!("rocketmq-{version}"));
        let libraries = folder.join("lib");
        // Written last: without it the folder may hold half of the libraries.
        let stamp = folder.join("complete");
        if !stamp.exists() {
            let fetch = || -> io::Result<Result<(), Missing>> {
                std::fs::create_dir_all(&folder)?;
                let pom = folder.join("pom.xml");
                std::fs::write(&pom, POM)?;
                let mut mvn = Command::new("mvn");
                mvn.args(["--batch-mode", "--quiet", "--file"]).arg(&pom);
                mvn.arg(format!("-Drocketmq.version={version}"));
                mvn.args(["dependency:copy-dependencies", "-DincludeScope=runtime"]);
                mvn.arg(join("-DoutputDirectory=", &libraries));
                if let Err(missing) = tools::run_with_retries("Maven's fetch of Apache RocketMQ", &mut mvn) {
                    return Ok(Err(missing));
                }
                std::fs::write(&stamp, version)?;
                Ok(Ok(()))
            };
            fetch().map_err(|error| Missing(format!("cannot write {}: {error}", folder.display())))??;
        }
        let java = tools::version_line("java", "-version").unwrap_or_default();
        Ok(RocketMq { version: version.to_owned(), java, further: further.to_vec(), libraries })
    }

    /// Writes the configuration below the place and says what to start, in order.
    pub fn prepare(&self, flush: Flush, place: &Place) -> io::Result<Vec<Launch>> {
        let file = |name: &str, text: &str| -> io::Result<OsString> {
            let path = place.folder.join(name);
            std::fs::write(&path, text)?;
            Ok(path.into_os_string())
        };
        let namesrv = file("namesrv.properties", &namesrv_properties(place))?;
        let mut properties = broker_properties(flush, place);
        // Java keeps the last line of a name.
        self.further.iter().for_each(|line| properties.extend([line, "\n"]));
        let broker = file("broker.properties", &properties)?;
        let logback = file("logback.xml", LOGBACK)?;

        let heap = heap_bytes(place.memory_bytes);
        let java = |role, options: Vec<String>, class: &str, configuration: OsString| {
            let mut args: Vec<OsString> = options.into_iter().map(OsString::from).collect();
            args.push(join("-Duser.home=", &place.folder));
            args.push(join("-Drmq.logback.configurationFile=", Path::new(&logback)));
            args.extend(["-cp".into(), self.libraries.join("*").into_os_string()]);
            args.extend([class.into(), "-c".into(), configuration]);
            let env = vec![("ROCKETMQ_HOME", place.folder.clone().into_os_string())];
            Launch { role, program: "java".into(), args, env, folder: place.folder.clone() }
        };
        Ok(vec![
            java("namesrv", namesrv_options(), "org.apache.rocketmq.namesrv.NamesrvStartup", namesrv),
            java("broker", broker_options(heap), "org.apache.rocketmq.broker.BrokerStartup", broker),
        ])
    }
}

/// A quarter of the machine for the broker's heap, as the generator, the direct buffers and above all the page cache need
/// the rest; never more than RocketMQ itself recommends.
fn heap_bytes(memory_bytes: u64) -> u64 {
    (memory_bytes / 4 / GIB * GIB).clamp(HEAP_MIN, HEAP_RECOMMENDED)
}

/// `runbroker.sh`, in its order, without the GC log and the options that JDK 17 no longer knows.
fn broker_options(heap: u64) -> Vec<String> {
    let heap_gib = heap / GIB;
    let mut options = vec![
        "-server".to_owned(),
        format!("-Xms{heap_gib}g"),
        format!("-Xmx{heap_gib}g"),
        "-XX:+UseG1GC".to_owned(),
        "-XX:G1HeapRegionSize=16m".to_owned(),
        "-XX:G1ReservePercent=25".to_owned(),
        "-XX:InitiatingHeapOccupancyPercent=30".to_owned(),
        "-XX:SoftRefLRUPolicyMSPerMB=0".to_owned(),
        "-XX:-OmitStackTraceInFastThrow".to_owned(),
        "-XX:+AlwaysPreTouch".to_owned(),
        // 15g beside a heap of 8g there; as a bound only, for nothing takes it all.
        format!("-XX:MaxDirectMemorySize={}g", heap_gib * 2),
        "-XX:-UseLargePages".to_owned(),
    ];
    options.extend(opened_packages());
    options
}

fn namesrv_options() -> Vec<String> {
    let heap = [format!("-Xms{NAMESRV_HEAP}"), format!("-Xmx{NAMESRV_HEAP}")];
    heap.into_iter().chain(["-XX:+UseSerialGC".to_owned()]).chain(opened_packages()).collect()
}

/// Private parts of the JDK through which RocketMQ unmaps files.
fn opened_packages() -> impl Iterator<Item = String> {
    let packages = ["java.nio", "sun.nio.ch", "jdk.internal.ref"];
    packages.into_iter().map(|package| format!("--add-opens=java.base/{package}=ALL-UNNAMED"))
}

fn namesrv_properties(place: &Place) -> String {
    format!("rocketmqHome={}\nlistenPort={}\n", place.folder.display(), place.ports.namesrv)
}

/// Every line that differs from RocketMQ's default, with its reason in `docs/peers.md`.
fn broker_properties(flush: Flush, place: &Place) -> String {
    let mut text = format!(
        "rocketmqHome={home}\nstorePathRootDir={home}/store\nbrokerClusterName=DefaultCluster\nbrokerName=peer\n\
         brokerIP1=127.0.0.1\nbrokerIP2=127.0.0.1\nlistenPort={broker}\nhaListenPort={ha}\n\
         namesrvAddr=127.0.0.1:{namesrv}\n",
        home = place.folder.display(),
        broker = place.ports.broker,
        ha = place.ports.broker + 1,
        namesrv = place.ports.namesrv,
    );
    let flush = match flush {
        Flush::Sync => "SYNC_FLUSH",
        Flush::Async => "ASYNC_FLUSH",
    };
    let _ = writeln!(text, "flushDiskType={flush}");
    for (name, value) in QUIET {
        let _ = writeln!(text, "{name}={value}");
    }
    text
}

/// Services that cost CPU although nobody here uses them.
const QUIET: [(&str, &str); 3] =
    [("timerWheelEnable", "false"), ("enableCompaction", "false"), ("autoCreateTopicEnable", "false")];

fn join(option: &str, path: &Path) -> OsString {
    let mut word = OsString::from(option);
    word.push(path);
    word
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peers::broker::Ports;

    fn place() -> Place {
        Place {
            folder: "/data/run".into(),
            ports: Ports::from_base(21_000).unwrap(),
            cpus: vec![0],
            memory_bytes: 24 * GIB,
        }
    }

    #[test]
    fn the_heap_is_a_quarter_of_the_machine_within_what_rocketmq_recommends() {
        assert_eq!([2, 7, 24, 128].map(|gib| heap_bytes(gib * GIB) / GIB), [1, 1, 6, 8]);
        let options = broker_options(heap_bytes(24 * GIB));
        for option in
            ["-Xms6g", "-Xmx6g", "-XX:MaxDirectMemorySize=12g", "-XX:+UseG1GC", "-XX:+AlwaysPreTouch"]
        {
            assert!(options.iter().any(|given| given == option), "{option} in {options:?}");
        }
    }

    #[test]
    fn the_broker_finds_its_namesrv_and_flushes_as_asked() {
        let text = broker_properties(Flush::Sync, &place());
        for line in [
            "listenPort=21010",
            "haListenPort=21011",
            "namesrvAddr=127.0.0.1:21000",
            "storePathRootDir=/data/run/store",
            "flushDiskType=SYNC_FLUSH",
            "timerWheelEnable=false",
        ] {
            assert!(text.lines().any(|given| given == line), "{line} in\n{text}");
        }
        assert!(broker_properties(Flush::Async, &place()).contains("flushDiskType=ASYNC_FLUSH\n"));
    }

    #[test]
    fn both_programs_are_its_own_main_classes() {
        let folder = tempfile::tempdir().unwrap();
        let rocketmq = RocketMq {
            version: VERSION.into(),
            java: String::new(),
            further: vec!["timerWheelEnable=true".into()],
            libraries: "/libraries".into(),
        };
        let place = Place { folder: folder.path().to_owned(), ..place() };
        let launches = rocketmq.prepare(Flush::Async, &place).unwrap();
        assert_eq!(launches.iter().map(|launch| launch.role).collect::<Vec<_>>(), ["namesrv", "broker"]);
        let line = launches[1].line();
        let end = format!(
            " -cp /libraries/* org.apache.rocketmq.broker.BrokerStartup -c {}/broker.properties",
            folder.path().display()
        );
        assert!(line.ends_with(&end), "{line}");
        let properties = std::fs::read_to_string(folder.path().join("broker.properties")).unwrap();
        assert_eq!(properties.lines().last(), Some("timerWheelEnable=true"));
    }
}
