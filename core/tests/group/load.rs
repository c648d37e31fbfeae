//! Load with books: stock Java clients, and the load generator.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::client::{Client, JAVA5};
use crate::cluster::Cluster;
use crate::matrix::{self, Cell};
use crate::session::Session;
use crate::sys;

const STEADY: &str = "steady";
/// Every kind of Java client has sent so much before the faults begin.
const ACKED_AT_FIRST: u64 = 2_000;
const START_TIME_MAX: Duration = Duration::from_secs(30);
/// The load generator writes its report so long after it was asked to end, at most: it waits for its consumers.
const REPORT_TIME_MAX: Duration = Duration::from_secs(120);

/// The stock Java client's program, built; none where the tools for it are missing.
pub(crate) fn java_client() -> Option<Client> {
    if let Some(missing) = JAVA5.missing() {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "{missing}; in CI that is a failure");
        println!("  without Java clients: {missing}");
        return None;
    }
    Some(JAVA5.build())
}

/// Stock Java clients at work.
pub(crate) struct JavaLoad {
    session: Session,
    suite: &'static str,
}

impl JavaLoad {
    /// Returns when they are well under way.
    pub(crate) fn start(cluster: &Cluster, suite: &'static str, work: &Path, client: Client) -> JavaLoad {
        let client = client.behind(cluster.clients().prefix());
        let mut session = Session::start(client, &cluster.namesrv_list(), work, &[STEADY], &[]);
        assert!(session.wait_for_acked(ACKED_AT_FIRST), "the Java clients do not come to work");
        JavaLoad { session, suite }
    }

    pub(crate) fn count(&mut self, what: &str) -> u64 {
        self.session.counts().get(what).copied().unwrap_or(0)
    }

    /// Sends of one kind that the application saw fail.
    pub(crate) fn failed(&mut self) -> Failed {
        Failed {
            sync: self.count("sync.failed"),
            asynchronous: self.count("async.failed"),
            ordered: self.count("ordered.failed"),
        }
    }

    /// Waits until they have sent so much more; false if they do not.
    pub(crate) fn wait_for_acked(&mut self, more: u64) -> bool {
        self.session.wait_for_acked(more)
    }

    /// Lets them settle accounts: everything acknowledged is there, in order. Gives what they counted.
    pub(crate) fn finish(mut self) -> BTreeMap<String, u64> {
        let counts = self.session.counts().clone();
        self.session.say("stop");
        let mut well = false;
        let suite = self.suite;
        self.session.run_to_end(|scenario, cell| {
            well = cell == Cell::Pass;
            matrix::record(suite, scenario, cell);
        });
        assert!(well, "the books of the Java clients do not balance");
        counts
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Failed {
    pub(crate) sync: u64,
    pub(crate) asynchronous: u64,
    pub(crate) ordered: u64,
}

impl Failed {
    pub(crate) fn since(self, before: Failed) -> Failed {
        Failed {
            sync: self.sync - before.sync,
            asynchronous: self.asynchronous - before.asynchronous,
            ordered: self.ordered - before.ordered,
        }
    }
}

/// The load generator as a process.
pub(crate) struct Loadgen {
    child: Child,
    report: PathBuf,
    log: PathBuf,
}

impl Loadgen {
    /// `args` are those of `apogee-loadgen run` but for the NameServers and the report. Returns when it has begun to send.
    pub(crate) fn start(cluster: &Cluster, work: &Path, name: &str, args: &[&str]) -> Loadgen {
        let report = work.join(format!("{name}.json"));
        let log = work.join(format!("{name}.log"));
        let output = std::fs::File::create(&log).expect("make a log");
        let child = cluster
            .clients()
            .command(loadgen_program())
            .arg("run")
            .args(["--namesrv", &cluster.namesrv_list()])
            .arg("--json")
            .arg(&report)
            .args(args)
            .stdin(Stdio::null())
            .stdout(output.try_clone().expect("a second handle of the log"))
            .stderr(output)
            .spawn()
            .expect("start the load generator");
        let mut loadgen = Loadgen { child, report, log };
        let begun = Instant::now();
        while !std::fs::read_to_string(&loadgen.log).is_ok_and(|said| said.contains("measuring")) {
            let ended = loadgen.child.try_wait().expect("look at the load generator");
            let is_time = begun.elapsed() < START_TIME_MAX;
            assert!(
                ended.is_none() && is_time,
                "the load generator does not begin, see {}",
                loadgen.log.display()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        loadgen
    }

    /// Waits for its end, at its own time.
    pub(crate) fn finish(mut self, limit: Duration) -> Report {
        let begun = Instant::now();
        while self.child.try_wait().expect("look at the load generator").is_none() {
            assert!(begun.elapsed() < limit, "the load generator does not end, see {}", self.log.display());
            std::thread::sleep(Duration::from_millis(50));
        }
        let text = std::fs::read_to_string(&self.report);
        let text = text.unwrap_or_else(|e| panic!("no report ({e}), see {}", self.log.display()));
        Report(serde_json::from_str(&text).expect("the report is JSON"))
    }

    /// Asks it to end now.
    pub(crate) fn stop(self) -> Report {
        sys::signal(&self.child, libc::SIGINT);
        self.finish(REPORT_TIME_MAX)
    }
}

impl Drop for Loadgen {
    fn drop(&mut self) {
        // Both fail only when the process is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What the load generator found.
pub(crate) struct Report(pub(crate) Value);

impl Report {
    pub(crate) fn number(&self, pointer: &str) -> f64 {
        let value = self.0.pointer(pointer).unwrap_or_else(|| panic!("no {pointer} in the report"));
        value.as_f64().unwrap_or_else(|| panic!("{pointer} is no number: {value}"))
    }

    /// Nothing acknowledged is lost or changed. Of order nothing is asked here: it sends while earlier messages of a queue
    /// are under way, and those that an old leader forwards arrive later. The Java clients' ordered producer waits.
    pub(crate) fn assert_books_balance(&self) {
        let ledger = &self.0["ledger"];
        println!("  loadgen: {ledger}");
        println!(
            "  loadgen: errors {}, longest without an answer {}",
            self.0["errors"], self.0["gaps"]["longest"]
        );
        assert!(self.number("/ledger/acked") > 0.0, "nothing was acknowledged");
        for fault in ["lost", "corrupted"] {
            assert_eq!(ledger[fault].as_u64().unwrap_or(0), 0, "{fault}: {ledger}");
        }
    }
}

/// The load generator's program: built if need be, beside the broker's and in the same profile. To be asked for before there
/// is a cluster, for a build takes all of a machine.
pub(crate) fn loadgen_program() -> PathBuf {
    let folder = Path::new(env!("CARGO_BIN_EXE_apogee")).parent().expect("the program is in a folder");
    let program = folder.join("apogee-loadgen");
    static BUILT: std::sync::Once = std::sync::Once::new();
    BUILT.call_once(|| {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--quiet", "-p", "apogee-loadgen", "--target-dir"]);
        cargo.arg(folder.parent().expect("a target folder"));
        if folder.ends_with("release") {
            cargo.arg("--release");
        }
        // What cargo tells this test of its package would be news to the build scripts of dependencies, and all that is above
        // them would be built again, now and when this test is built next.
        let is_told = |name: &String| ["CARGO_PKG_", "CARGO_MANIFEST_"].iter().any(|of| name.starts_with(of));
        for (name, _) in std::env::vars().filter(|(name, _)| is_told(name)) {
            cargo.env_remove(name);
        }
        let status = cargo.current_dir(env!("CARGO_MANIFEST_DIR")).status().expect("run cargo");
        assert!(status.success(), "cannot build the load generator");
    });
    program
}
