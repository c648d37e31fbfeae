//! Three processes, one group: what one of them acknowledged the others have.

// No executor runs here that a sleep could block.
#![allow(clippy::disallowed_methods)]

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::client::Client;
use crate::ports::free_ports;
use crate::server::{APOGEE, Server, free_address};
use crate::{body, place, pull_all};

const NODES: usize = 3;

/// Of nodes on one machine.
const PORTS_PER_NODE: u16 = 10;

/// An election takes below two seconds, but for a machine that does other things too.
const PATIENCE: Duration = Duration::from_secs(60);

const LEADS: &str = "leads its group";
const FOLLOWS: &str = "follows in its group";

struct Group {
    directory: PathBuf,
    ports: Vec<u16>,
    /// By number of the node, from 1 on; none while it is down.
    nodes: Vec<Option<Server>>,
}

impl Group {
    fn start(directory: &Path) -> Group {
        let ports = (0..NODES).map(|_| free_ports(PORTS_PER_NODE) + 2).collect();
        let nodes = (0..NODES).map(|_| None).collect();
        let mut group = Group { directory: directory.to_owned(), ports, nodes };
        (1..=NODES).for_each(|number| group.start_node(number));
        group
    }

    fn start_node(&mut self, number: usize) {
        let dir = self.directory.join(format!("node-{number}"));
        std::fs::create_dir_all(&dir).unwrap();
        let data = dir.join("data");
        let port = self.ports[number - 1];
        let mut text = format!(
            "listen = \"127.0.0.1\"\nbase_port = {port}\nnamesrv = \"127.0.0.1:9\"\ndata_dir = {data:?}\nshards = 1\n\
             disk_reserve_bytes = 0\nsegment_bytes = 16777216\ntail_cache_bytes = 1048576\n[replication]\n\
             node = {number}\npreferred_leaders = false\nnodes = [\n"
        );
        for (other, port) in (1..).zip(&self.ports) {
            text += &format!("  {{ id = {other}, address = \"127.0.0.1\", base_port = {port} }},\n");
        }
        text += "]\n";
        let config = dir.join("broker.toml");
        std::fs::write(&config, text).unwrap();
        let mut command = Command::new(APOGEE);
        command.args(["broker", "--config"]).arg(&config);
        let address = ([127, 0, 0, 1], port).into();
        let nowhere = "127.0.0.1:9".parse().unwrap();
        self.nodes[number - 1] = Some(Server::run(command, &dir, data, address, nowhere));
    }

    fn node(&self, number: usize) -> &Server {
        self.nodes[number - 1].as_ref().expect("the node is up")
    }

    /// As with `kill -9`.
    fn kill(&mut self, number: usize) {
        drop(self.nodes[number - 1].take());
    }

    /// The node that leads.
    fn leader(&self) -> usize {
        let started = Instant::now();
        loop {
            let says = |number: &usize| {
                let log = self.node(*number).log();
                log.lines().rfind(|line| line.contains(LEADS) || line.contains(FOLLOWS)).map(str::to_owned)
            };
            let leads = |number: &usize| says(number).is_some_and(|line| line.contains(LEADS));
            let leaders: Vec<_> = self.up().into_iter().filter(leads).collect();
            if let [leader] = leaders[..] {
                return leader;
            }
            assert!(started.elapsed() < PATIENCE, "leaders are {leaders:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn up(&self) -> Vec<usize> {
        (1..=NODES).filter(|number| self.nodes[number - 1].is_some()).collect()
    }
}

/// Looks until it is so.
fn until(mut is_so: impl FnMut() -> bool, otherwise: impl Fn() -> String) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < PATIENCE, "{}", otherwise());
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Sends a message and waits for its acknowledgement; gives its offset.
fn send(client: &mut Client, number: usize) -> i64 {
    client.send("T", 0, &body(number, 1000 + number), "").int("queueOffset")
}

#[test]
fn what_was_acknowledged_is_read_from_the_new_leader_when_the_old_one_is_killed() {
    let Some(directory) = place() else { return };
    let mut group = Group::start(directory.path());
    let old = group.leader();
    let mut to_leader = Client::connect(group.node(old));
    for number in 0..50 {
        assert_eq!(send(&mut to_leader, number), number as i64);
    }
    // A client whose route is of before reaches the leader through any node.
    for other in group.up().into_iter().filter(|other| *other != old) {
        let mut client = Client::connect(group.node(other));
        let number = 50 + other;
        let offset = send(&mut client, number);
        assert!((50..53).contains(&offset), "{offset}");
    }
    group.kill(old);
    let started = Instant::now();
    let survivor = group.up()[0];
    let mut client = Client::connect(group.node(survivor));
    // Held until there is a leader, then answered by it.
    assert_eq!(send(&mut client, 99), 52);
    let took = started.elapsed();
    let new = group.leader();
    assert_ne!(new, old);
    eprintln!("node {old} was killed, node {new} leads; a send was held for {took:?}");

    let mut expected: Vec<_> = (0..50).map(|number| body(number, 1000 + number)).collect();
    expected.extend((1..=NODES).filter(|node| *node != old).map(|node| body(50 + node, 1000 + 50 + node)));
    expected.push(body(99, 1099));
    let read = pull_all(&mut Client::connect(group.node(new)), "T", 0, 1 << 20);
    assert_eq!(read.len(), expected.len());
    assert!(read == expected, "other messages than those that were acknowledged");

    // The one that was killed gets what it missed, most of which is in no other node's memory any more, and serves it.
    for number in 100..140 {
        let sent = body(number, 100_000);
        client.send("T", 0, &sent, "");
        expected.push(sent);
    }
    // Even if it has lost its disk: it does not vote then before it has all again.
    std::fs::remove_dir_all(group.directory.join(format!("node-{old}/data"))).unwrap();
    group.start_node(old);
    let mut back = Client::connect(group.node(old));
    until(
        || pull_all(&mut back, "T", 0, 1 << 20) == expected,
        || format!("node {old} does not catch up:\n{}", group.node(old).log()),
    );
    assert!(group.node(old).log().contains("until this node has it too"), "{}", group.node(old).log());
    // It has all, so it counts again.
    group.kill(new);
    let other = group.up().into_iter().find(|other| *other != old).unwrap();
    let mut client = Client::connect(group.node(other));
    assert_eq!(send(&mut client, 200), expected.len() as i64);
}

/// Runs `apogee recover` on the shard of a node; how it ended, and what it said.
fn recover(group: &Group, number: usize, flags: &[&str]) -> (bool, String) {
    let shard = group.directory.join(format!("node-{number}/data/shard-0"));
    let output = Command::new(APOGEE).arg("recover").arg(shard).args(flags).output().unwrap();
    (output.status.success(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
}

#[test]
fn a_group_of_which_two_disks_are_damaged_goes_on_once_the_loss_is_accepted() {
    let Some(directory) = place() else { return };
    let mut group = Group::start(directory.path());
    let sound = group.leader();
    let mut client = Client::connect(group.node(sound));
    let sent: Vec<_> = (0..20).map(|number| body(number, 1000 + number)).collect();
    (0..20).for_each(|number| assert_eq!(send(&mut client, number), number as i64));
    // A node writes down about once a second how far it has committed: that proves the damage.
    std::thread::sleep(Duration::from_millis(3000));
    (1..=NODES).for_each(|number| group.kill(number));
    let damaged: Vec<_> = (1..=NODES).filter(|number| *number != sound).collect();
    for number in &damaged {
        let segment = format!("node-{number}/data/shard-0/log/{:020}.seg", 0);
        let segment = File::options().write(true).open(group.directory.join(segment)).unwrap();
        segment.write_all_at(&[0xee; 8], 8 * 4096 + 60).unwrap();
    }
    (1..=NODES).for_each(|number| group.start_node(number));
    let address = group.node(sound).address().to_string();
    let status = || {
        let output =
            Command::new(APOGEE).args(["admin", "group", "status", "--node", &address]).output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let tells_way_out = || {
        let (code, text) = status();
        code == Some(4) && text.contains("`apogee recover DATA/shard-0`")
    };
    until(tells_way_out, || status().1);
    let (done, text) = recover(&group, damaged[0], &["--accept-loss"]);
    assert!(!done && text.contains("the node has to be stopped first"), "{text}");
    group.kill(damaged[0]);
    let (done, text) = recover(&group, damaged[0], &[]);
    assert!(done && text.contains("Nothing was given up"), "{text}");
    let (done, text) = recover(&group, damaged[0], &["--accept-loss"]);
    assert!(done && text.contains("Done."), "{text}");
    group.start_node(damaged[0]);
    assert_eq!(group.leader(), sound, "it alone has everything");
    until(|| status().0 == Some(0), || format!("not well again:\n{}", status().1));
    let mut client = Client::connect(group.node(damaged[1]));
    assert_eq!(send(&mut client, 20), 20);
    assert!(
        pull_all(&mut client, "T", 0, 1 << 20)[..20] == sent,
        "other messages than those that were acknowledged"
    );
}

#[test]
fn a_leader_that_stops_hands_over_first() {
    let Some(directory) = place() else { return };
    let mut group = Group::start(directory.path());
    let old = group.leader();
    let other = group.up().into_iter().find(|other| *other != old).unwrap();
    let mut client = Client::connect(group.node(other));
    send(&mut client, 0);
    let stopping = group.nodes[old - 1].take().unwrap();
    let stopped = std::thread::spawn(move || {
        let log = stopping.log_path();
        stopping.stop();
        std::fs::read_to_string(log).unwrap()
    });
    let (mut sent, started) = (1, Instant::now());
    let mut longest = Duration::ZERO;
    while !stopped.is_finished() || sent < 20 {
        let began = Instant::now();
        assert_eq!(send(&mut client, sent), sent as i64);
        longest = longest.max(began.elapsed());
        sent += 1;
        assert!(started.elapsed() < PATIENCE, "it does not stop");
    }
    let log = stopped.join().unwrap();
    assert!(log.contains("leadership is handed over"), "{log}");
    eprintln!("{sent} sends went through a follower meanwhile, the slowest took {longest:?}");
    let read = pull_all(&mut Client::connect(group.node(group.leader())), "T", 0, 1 << 20);
    assert_eq!(read.len(), sent);
}

#[test]
fn a_log_of_a_shard_alone_begins_a_group_and_takes_no_others_by_itself() {
    let Some(directory) = place() else { return };
    let server = Server::start(directory.path(), "");
    let mut client = Client::connect(&server);
    for number in 0..20 {
        send(&mut client, number);
    }
    drop(server);
    let with = |settings: &str| Server::start(directory.path(), settings);
    let nodes = "nodes = [{ id = 1, address = \"127.0.0.1\" }]\n";
    let server = with(&format!("[replication]\nnode = 1\n{nodes}"));
    let mut client = Client::connect(&server);
    assert_eq!(send(&mut client, 20), 20);
    let expected: Vec<_> = (0..21).map(|number| body(number, 1000 + number)).collect();
    assert!(pull_all(&mut client, "T", 0, 1 << 20) == expected);
    drop(server);
    // And it is a group's from then on.
    let dir = directory.path().to_owned();
    let output = Command::new(APOGEE)
        .args(["broker", "--config"])
        .arg({
            let config = dir.join("alone.toml");
            let text = format!(
                "listen = \"127.0.0.1\"\nbase_port = {}\nnamesrv = \"127.0.0.1:9\"\ndata_dir = {:?}\nshards = 1\n",
                free_address().port(),
                dir.join("data")
            );
            std::fs::write(&config, text).unwrap();
            config
        })
        .output()
        .unwrap();
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("node 1's of a group"), "{said}");
}
