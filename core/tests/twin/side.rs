//! The two servers that are compared. Each is one broker with its NameServer.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::java::Java;
use crate::server::{Ports, Server};

/// Alike on both sides, for clients see them. Apogee's are its defaults.
const CLUSTER: &str = "DefaultCluster";
const BROKER: &str = "broker-a-0";

/// A running server.
pub(crate) struct Side {
    pub(crate) ports: Ports,
    /// Folder with its data and logs.
    pub(crate) work: PathBuf,
    server: Server,
}

impl Side {
    /// Apache RocketMQ.
    pub(crate) fn rocketmq(java: &Java, work: &Path, ports: Ports) -> Side {
        let work = folder(work, "rocketmq");
        let home = work.display();
        let namesrv = work.join("namesrv.properties");
        write(&namesrv, &format!("rocketmqHome={home}\nlistenPort={}\n", ports.namesrv.port()));
        let broker = work.join("broker.properties");
        // What differs from RocketMQ's defaults is there so that it runs in a small place beside another server, or is
        // a thing that Apogee always does.
        write(
            &broker,
            &format!(
                "rocketmqHome={home}\nstorePathRootDir={home}/store\nbrokerClusterName={CLUSTER}\n\
                 brokerName={BROKER}\nbrokerIP1=127.0.0.1\nbrokerIP2=127.0.0.1\nlistenPort={}\n\
                 namesrvAddr={}\nmappedFileSizeCommitLog=67108864\nmappedFileSizeConsumeQueue=60000\n\
                 maxIndexNum=40000\nmaxHashSlotNum=10000\nflushDiskType=SYNC_FLUSH\n\
                 enablePropertyFilter=true\n",
                ports.broker.port(),
                ports.namesrv
            ),
        );
        let mut args = java.args("apogee.twin.RocketMq", &work);
        args.extend([namesrv, broker].map(PathBuf::into_os_string));
        let log = work.join("server.log");
        let server = Server::start_program(OsString::from("java"), args, ports.namesrv, log);
        Side { ports, work, server }
    }

    pub(crate) fn apogee(work: &Path, ports: Ports) -> Side {
        let work = folder(work, "apogee");
        let server = Server::start_shards(&work, 1, ports, Vec::new());
        Side { ports, work, server }
    }

    pub(crate) fn stop(self) {
        self.server.stop();
    }
}

fn folder(work: &Path, name: &str) -> PathBuf {
    let folder =
        (1..).map(|n| work.join(format!("{name}-{n}"))).find(|folder| !folder.exists()).expect("a free name");
    std::fs::create_dir_all(&folder).expect("make a folder");
    folder
}

fn write(path: &Path, text: &str) {
    std::fs::write(path, text).expect("write a configuration file");
}
