//! Three NameServers: any one or two may die.

// No executor runs here that a sleep could block.
#![allow(clippy::disallowed_methods)]

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use apogee_net::body::{TopicList, TopicRouteData, parse};
use apogee_net::code::{RequestCode, ResponseCode};
use apogee_net::header::NoExt;
use apogee_net::request::GetRouteInfoRequest;

use crate::client::Client;
use crate::server::{Server, free_address};
use crate::{SMALL, place, pull_all};

/// A restarted NameServer must be complete within a heartbeat of the brokers; they are quicker than that.
const COMPLETE_WAIT: Duration = Duration::from_secs(30);

struct NameServers {
    addresses: [SocketAddr; 3],
    running: [Option<Server>; 3],
}

impl NameServers {
    fn start(dir: &Path) -> NameServers {
        let addresses = [(); 3].map(|()| free_address());
        let mut servers = NameServers { addresses, running: [None, None, None] };
        (0..3).for_each(|number| servers.start_one(dir, number));
        servers
    }

    fn start_one(&mut self, dir: &Path, number: usize) {
        let dir = dir.join(format!("namesrv-{number}"));
        self.running[number] = Some(Server::start_namesrv(&dir, self.addresses[number]));
    }

    fn kill(&mut self, number: usize) {
        self.running[number] = None;
    }

    /// What a NameServer knows: all topics, and where one of them is.
    fn knowledge(&self, number: usize, topic: &str) -> (BTreeSet<String>, Option<TopicRouteData>) {
        let mut client = Client::connect_to(self.addresses[number]);
        // The route first: the topics that it came with are known then, too.
        let header =
            GetRouteInfoRequest { topic, accept_standard_json_only: true, zone_name: None, zone_mode: false };
        let route = client.ask(RequestCode::GET_ROUTEINFO_BY_TOPIC, &header, b"");
        let route = (route.code == ResponseCode::SUCCESS).then(|| parse(&route.body).unwrap());
        let topics = client.ask(RequestCode::GET_ALL_TOPIC_LIST_FROM_NAMESERVER, &NoExt, b"");
        let topics: TopicList = parse(&topics.body).unwrap();
        (topics.topic_list.into_iter().collect(), route)
    }

    /// Waits until a NameServer knows of a topic, and returns what it knows.
    #[track_caller]
    fn await_route(&self, number: usize, topic: &str) -> (BTreeSet<String>, TopicRouteData) {
        let started = Instant::now();
        loop {
            if let (topics, Some(route)) = self.knowledge(number, topic) {
                eprintln!("NameServer {number} knew {topic} after {:?}", started.elapsed());
                return (topics, route);
            }
            assert!(started.elapsed() < COMPLETE_WAIT, "NameServer {number} does not know {topic}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

#[test]
fn any_two_of_three_nameservers_may_die_and_restarted_ones_are_complete_again() {
    let Some(dir) = place() else { return };
    let mut servers = NameServers::start(dir.path());
    let broker = Server::start_registered(dir.path(), SMALL, &servers.addresses);
    let before = [0, 1, 2].map(|number| servers.await_route(number, "TBW102"));
    assert_eq!(before[0], before[1]);
    assert_eq!(before[0], before[2]);

    let mut client = Client::connect(&broker);
    let mut bodies = Vec::new();
    for (topic, survivor) in [("First", 0), ("Second", 1), ("Third", 2)] {
        let others: Vec<usize> = (0..3).filter(|&number| number != survivor).collect();
        others.iter().for_each(|&number| servers.kill(number));
        // The first message makes the topic; nobody waits for NameServers that are away.
        let asked = Instant::now();
        client.send(topic, 0, topic.as_bytes(), "");
        assert!(asked.elapsed() < Duration::from_secs(2), "{:?}", asked.elapsed());
        bodies.push(topic);
        servers.await_route(survivor, topic);
        others.iter().for_each(|&number| servers.start_one(dir.path(), number));
        for number in others {
            let complete = servers.await_route(number, topic);
            assert_eq!(complete, servers.await_route(survivor, topic), "after {topic}");
        }
    }
    for topic in bodies {
        assert_eq!(pull_all(&mut client, topic, 0, 4096), [topic.as_bytes()]);
    }
    broker.stop();
    let (topics, route) = servers.knowledge(0, "First");
    assert_eq!((topics.len(), route), (0, None), "who signs off is gone at once");
}
