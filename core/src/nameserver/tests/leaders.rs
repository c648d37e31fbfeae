//! Changes of leaders, whatever the order in which a group's nodes are heard.
//!
//! A node registers as 0 while it leads and under its own id otherwise, with its Raft term as `stateVersion`.

use super::*;

const C: &str = "10.0.0.3:10911";

/// Address of a node, by its id.
const ADDRS: [&str; 4] = ["", A, B, C];

/// A node of the group as it registers.
fn node(number: usize, role: Role, term: i64) -> Broker {
    let broker = broker("broker-a", ADDRS[number]).with_id(if role == Leads { 0 } else { number as i64 });
    Broker { version: DataVersion { state_version: term, ..broker.version }, ..broker }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Leads,
    Follows,
}
use Role::{Follows, Leads};

/// The route of a topic as ids with node numbers, e.g. `0=2 1=1 3=3`.
fn route(world: &mut World) -> String {
    let answer = world.route_answer("TopicTest");
    if answer.code == ResponseCode::TOPIC_NOT_EXIST {
        return String::new();
    }
    let route: TopicRouteData = parse(&answer.success().body).unwrap();
    let number = |addr: &str| ADDRS.iter().position(|known| *known == addr).unwrap();
    let brokers = route.broker_datas.iter().flat_map(|broker| &broker.broker_addrs);
    brokers.map(|(id, addr)| format!("{id}={}", number(addr))).collect::<Vec<_>>().join(" ")
}

/// Three nodes of which the first leads in term 5.
fn group() -> World {
    let mut world = World::start();
    for (number, role) in [(1, Leads), (2, Follows), (3, Follows)] {
        world.register(&node(number, role, 5)).success();
    }
    assert_eq!(route(&mut world), "0=1 2=2 3=3");
    world
}

fn permutations<T: Clone>(of: &[T]) -> Vec<Vec<T>> {
    if of.is_empty() {
        return vec![Vec::new()];
    }
    let mut all = Vec::new();
    for first in 0..of.len() {
        let mut rest = of.to_vec();
        let first = rest.remove(first);
        for mut tail in permutations(&rest) {
            tail.insert(0, first.clone());
            all.push(tail);
        }
    }
    all
}

#[test]
fn a_new_leader_takes_the_master_s_place_and_leaves_its_own() {
    let mut world = group();
    world.register(&node(2, Leads, 6)).success();
    assert_eq!(route(&mut world), "0=2 3=3", "the old leader has no place until it registers as a slave");
    world.register(&node(1, Follows, 6)).success();
    assert_eq!(route(&mut world), "0=2 1=1 3=3");
}

#[test]
fn whatever_the_order_of_arrival_the_newest_leader_is_master_and_each_node_has_one_place() {
    let change = [node(2, Leads, 6), node(1, Follows, 6), node(3, Follows, 6)];
    for order in permutations(&change) {
        let mut world = group();
        for registration in &order {
            world.register(registration).success();
        }
        assert_eq!(route(&mut world), "0=2 1=1 3=3", "{:?}", ids(&order));
    }
}

#[test]
fn a_deposed_leader_does_not_come_back_by_its_successor_s_death_though_no_slave_has_heard_of_that() {
    let mut world = group();
    let successor = node(2, Leads, 6).on(9);
    world.register(&successor).success();
    world.close(&successor);
    world.register(&node(1, Leads, 5)).success();
    assert_eq!(route(&mut world), "3=3");
    world.register(&node(3, Leads, 7)).success();
    assert_eq!(route(&mut world), "0=3");
}

#[test]
fn a_late_registration_of_the_old_leader_is_ignored_in_every_order() {
    // Node 1 says once more that it leads in term 5, on a connection that was slow.
    let change = [node(1, Leads, 5), node(2, Leads, 6), node(3, Follows, 6)];
    for order in permutations(&change) {
        let mut world = group();
        for registration in &order {
            world.register(registration).success();
        }
        assert_eq!(route(&mut world), "0=2 3=3", "{:?}", ids(&order));
        world.register(&node(1, Follows, 6)).success();
        assert_eq!(route(&mut world), "0=2 1=1 3=3", "{:?}", ids(&order));
    }
}

#[test]
fn two_elections_end_with_the_later_leader_in_every_order() {
    let change = [node(2, Leads, 6), node(3, Leads, 7), node(1, Follows, 7)];
    for order in permutations(&change) {
        let mut world = group();
        for registration in &order {
            world.register(registration).success();
        }
        world.register(&node(2, Follows, 7)).success();
        assert_eq!(route(&mut world), "0=3 1=1 2=2", "{:?}", ids(&order));
    }
}

fn ids(order: &[Broker]) -> Vec<(i64, &str, i64)> {
    order.iter().map(|broker| (broker.id, broker.addr, broker.version.state_version)).collect()
}

#[test]
fn a_leader_that_was_cut_off_does_not_come_back_by_its_successor_s_death() {
    let mut world = group();
    world.register(&node(2, Leads, 6)).success();
    world.register(&node(3, Follows, 6)).success();
    world.close(&node(2, Leads, 6));
    assert_eq!(route(&mut world), "3=3");
    world.register(&node(1, Leads, 5)).success();
    assert_eq!(route(&mut world), "3=3", "node 3 knows of term 6");
    world.register(&node(3, Leads, 7)).success();
    assert_eq!(route(&mut world), "0=3");
}

#[test]
fn the_present_master_stays_and_may_speak_until_its_successor_comes() {
    let mut world = group();
    world.register(&node(3, Follows, 6)).success();
    world.register(&node(1, Leads, 5).with_topics(&[("TopicTest", 16)])).success();
    assert_eq!(route(&mut world), "0=1 2=2 3=3");
    assert_eq!(world.route("TopicTest").queue_datas[0].read_queue_nums, 16);
    world.register(&node(3, Leads, 6)).success();
    assert_eq!(route(&mut world), "0=3 2=2");
}

#[test]
fn a_leader_brings_topics_that_were_passed_over_while_it_followed() {
    let mut world = group();
    let mut follower = node(2, Follows, 6);
    follower.topics = vec![("TopicTest", 32), ("New", 1)];
    world.register(&follower).success();
    assert_eq!(world.route("TopicTest").queue_datas[0].read_queue_nums, 4);
    let mut leader = node(2, Leads, 6);
    leader.topics = follower.topics;
    world.register(&leader).success();
    assert_eq!(world.route("TopicTest").queue_datas[0].read_queue_nums, 32, "with the same version");
    assert_eq!(world.route("New").queue_datas[0].read_queue_nums, 1);
}

#[test]
fn a_restarted_nameserver_knows_the_topics_from_followers_alone() {
    let mut world = World::start();
    world.register(&node(3, Follows, 6)).success();
    assert_eq!(route(&mut world), "3=3");
    world.register(&node(2, Follows, 6)).success();
    world.register(&node(1, Leads, 7)).success();
    assert_eq!(route(&mut world), "0=1 2=2 3=3");
}

/// A role change is never told by one topic alone: the id is new then, and such a registration is refused.
#[test]
fn a_changed_topic_alone_does_not_carry_a_new_role() {
    let mut world = group();
    world.close(&node(1, Leads, 5));
    let answer = world.register(&node(2, Leads, 6).with_topics(&[("TopicTest", 4)]));
    assert_eq!(answer.code, ResponseCode::SYSTEM_ERROR);
    assert_eq!(route(&mut world), "2=2 3=3", "its place as a slave is untouched");
    let nothing_changed = node(2, Leads, 6).with_topics(&[]);
    world.register(&nothing_changed).success();
    assert_eq!(route(&mut world), "0=2 3=3");
}

#[test]
fn a_node_that_leaves_takes_its_own_place_only() {
    let mut world = group();
    world.register(&node(2, Leads, 6)).success();
    // The old leader signs off without having registered as a slave.
    world.ask_about(&node(1, Leads, 5), RequestCode::UNREGISTER_BROKER, b"").success();
    assert_eq!(route(&mut world), "0=2 3=3");
    world.close(&node(3, Follows, 6));
    assert_eq!(route(&mut world), "0=2");
}

#[derive(Clone, Debug)]
enum Event {
    /// The node's oldest registration on its way arrives.
    Arrives(usize),
    Elected(usize),
    Dies(usize),
    Restarts(usize),
    NameserverRestarts,
}

/// A group, one NameServer and what is on its way to it: in order from each node, in any order between nodes.
struct Group {
    world: World,
    term: i64,
    leader: usize,
    alive: [bool; 4],
    /// Number of the node's connection; another after each restart.
    lives: [u64; 4],
    on_the_way: [Vec<Broker>; 4],
    /// Greatest term that the NameServer has taken for a master since it started.
    greatest: i64,
}

impl Group {
    fn tell(&mut self, number: usize) {
        let role = if number == self.leader { Leads } else { Follows };
        let registration = node(number, role, self.term).on(self.lives[number]);
        self.on_the_way[number].push(registration);
    }

    fn tell_all(&mut self) {
        for number in 1..=3 {
            if self.alive[number] {
                self.tell(number);
            }
        }
    }

    fn apply(&mut self, event: Event) {
        match event {
            Event::Arrives(number) => {
                if !self.on_the_way[number].is_empty() {
                    let registration = self.on_the_way[number].remove(0);
                    self.world.register(&registration).success();
                }
            }
            Event::Elected(number) => {
                if self.alive[number] {
                    self.term += 1;
                    self.leader = number;
                    self.tell_all();
                }
            }
            Event::Dies(number) => {
                self.alive[number] = false;
                self.on_the_way[number].clear();
                self.world.server.on_connection_closed(ConnectionId(self.lives[number]));
                self.leader = if self.leader == number { 0 } else { self.leader };
            }
            Event::Restarts(number) => {
                if !self.alive[number] {
                    self.alive[number] = true;
                    self.lives[number] += 10;
                    self.tell(number);
                }
            }
            Event::NameserverRestarts => {
                self.world = World::start();
                self.greatest = 0;
                for number in 1..=3 {
                    self.on_the_way[number].clear();
                    self.lives[number] += 10;
                }
                self.tell_all();
            }
        }
        self.check();
    }

    /// The master's term never goes back while the NameServer lives and somebody remembers.
    fn check(&mut self) {
        let Some(broker) = self.world.server.routes.broker("broker-a") else {
            self.greatest = 0;
            return;
        };
        let addrs: std::collections::BTreeSet<_> = broker.broker_addrs.values().collect();
        assert_eq!(addrs.len(), broker.broker_addrs.len(), "an address under two ids: {broker:?}");
        if let Some(master) = broker.broker_addrs.get(&0) {
            let names = ("DefaultCluster", "broker-a", master.as_str(), self.world.now_ms);
            let term = self.world.server.routes.heard_of(names.0, names.1, names.2, names.3);
            let term = term.expect("it is registered").state_version;
            assert!(term >= self.greatest, "term {term} after {}", self.greatest);
            self.greatest = term;
        } else {
            // With its master the memory of the term may go; the slaves' remains.
            self.greatest = 0;
        }
    }
}

fn any_event() -> impl Strategy<Value = Event> {
    let number = || 1..=3usize;
    prop_oneof![
        12 => number().prop_map(Event::Arrives),
        2 => number().prop_map(Event::Elected),
        1 => number().prop_map(Event::Dies),
        2 => number().prop_map(Event::Restarts),
        1 => Just(Event::NameserverRestarts),
    ]
}

proptest! {
    /// Invariants: an address has one id; the master's term never goes back; once all that is on its way has arrived,
    /// the leader is master and everyone else who lives has its own id.
    #[test]
    fn routes_follow_the_group_in_any_order_of_arrival(
        events in prop::collection::vec(any_event(), 0..80)
    ) {
        let mut group = Group {
            world: World::start(),
            term: 1,
            leader: 1,
            alive: [false, true, true, true],
            lives: [0, 1, 2, 3],
            on_the_way: Default::default(),
            greatest: 0,
        };
        group.tell_all();
        for event in events {
            group.apply(event);
        }
        for number in 1..=3 {
            while !group.on_the_way[number].is_empty() {
                group.apply(Event::Arrives(number));
            }
        }
        // The second round is what the heartbeats bring to who was fenced or replaced meanwhile.
        group.tell_all();
        for number in 1..=3 {
            group.apply(Event::Arrives(number));
        }
        let expected: Vec<_> = (0..=3usize)
            .filter_map(|id| match id {
                0 => (group.leader != 0).then(|| format!("0={}", group.leader)),
                own => (group.alive[own] && own != group.leader).then(|| format!("{own}={own}")),
            })
            .collect();
        prop_assert_eq!(route(&mut group.world), expected.join(" "));
    }
}
