//! Pulls whose filter is an expression over properties.

use apogee_net::body::{
    CheckClientRequestBody, ConsumeType, ConsumerData, HeartbeatData, SubscriptionData, to_fastjson,
};

use super::*;

impl World {
    fn send_coloured(&mut self, body: &str, colour: &str) -> Answered {
        let properties = format!("colour\u{1}{colour}\u{2}number\u{1}{}\u{2}", body.len());
        let send = SendMessageRequest { properties: &properties, ..send_to("T") };
        self.asked(PRODUCER, RequestCode::SEND_MESSAGE_V2, &send, body.as_bytes())
    }

    /// Messages that are red, green, red, green; the nth has n bytes, from one on.
    fn send_colours(&mut self, count: usize) {
        for number in 1..=count {
            let colour = if number % 2 == 1 { "red" } else { "green" };
            self.send_coloured(&"x".repeat(number), colour);
        }
    }

    fn check_filter(&mut self, expression_type: &str, expression: &str) -> Answered {
        let subscription = SubscriptionData {
            expression_type: expression_type.into(),
            sub_string: expression.into(),
            topic: "T".into(),
            ..Default::default()
        };
        let body = CheckClientRequestBody {
            client_id: "c".into(),
            group: "CG".into(),
            subscription_data: Some(subscription),
            ..Default::default()
        };
        self.asked(CONSUMER, RequestCode::CHECK_CLIENT_CONFIG, &NoExt, &to_fastjson(&body))
    }

    fn subscribe(&mut self, expression: &str) {
        let subscription = SubscriptionData {
            expression_type: "SQL92".into(),
            sub_string: expression.into(),
            sub_version: self.now_ms,
            topic: "T".into(),
            ..Default::default()
        };
        let consumer = ConsumerData {
            group_name: "CG".into(),
            consume_type: ConsumeType::Passively,
            subscription_data_set: vec![subscription],
            ..Default::default()
        };
        let data =
            HeartbeatData { client_id: "c".into(), consumer_data_set: vec![consumer], ..Default::default() };
        let heard = self.asked(CONSUMER, RequestCode::HEART_BEAT, &NoExt, &to_fastjson(&data));
        assert_eq!(heard.code, ResponseCode::SUCCESS, "{}", heard.remark);
    }
}

fn by_sql(expression: &str, offset: i64) -> PullMessageRequest<'_> {
    PullMessageRequest {
        subscription: Some(expression),
        expression_type: Some("SQL92"),
        ..pull_from("T", offset)
    }
}

fn lengths(answered: &Answered) -> Vec<usize> {
    answered.messages().iter().map(|message| message.body.len()).collect()
}

#[test]
fn an_expression_takes_the_messages_whose_properties_it_wants() {
    let mut world = World::new();
    world.send_colours(9);
    let red = world.pull(&by_sql("colour = 'red'", 0));
    assert_eq!(red.code, ResponseCode::SUCCESS, "{}", red.remark);
    assert_eq!((lengths(&red), red.int("nextBeginOffset")), (vec![1, 3, 5, 7, 9], 9));

    let middle = world.pull(&by_sql("number BETWEEN 4 AND 6 OR number = 8", 2));
    assert_eq!((lengths(&middle), middle.int("nextBeginOffset")), (vec![4, 5, 6, 8], 9));

    // What the broker adds is there to be asked for as well.
    let all = world.pull(&by_sql("UNIQ_KEY IS NOT NULL AND CLUSTER = 'DefaultCluster'", 0));
    assert_eq!(all.messages().len(), 9);
}

#[test]
fn a_pull_by_expression_stops_where_it_was_told() {
    let mut world = World::new();
    world.send_colours(9);
    let two = world.pull(&PullMessageRequest { messages_max: 2, ..by_sql("colour = 'green'", 0) });
    assert_eq!((lengths(&two), two.int("nextBeginOffset")), (vec![2, 4], 4));
    let one =
        world.pull(&PullMessageRequest { message_bytes_max: Some(10), ..by_sql("colour = 'green'", 0) });
    assert_eq!((lengths(&one), one.int("nextBeginOffset")), (vec![2], 3), "the second green one did not fit");

    let none = world.pull(&by_sql("colour = 'blue'", 0));
    assert_eq!(
        (none.code, none.remark.as_str()),
        (ResponseCode::PULL_RETRY_IMMEDIATELY, "NO_MATCHED_MESSAGE")
    );
    assert_eq!((none.int("nextBeginOffset"), none.int("maxOffset")), (9, 9));
}

#[test]
fn messages_are_read_from_disk_to_be_decided_on() {
    let mut world = World::with(1, LogConfig { tail_cache_bytes: 0, ..log_config() });
    for number in 0..40 {
        let colour = if number == 33 { "red" } else { "green" };
        world.send_coloured(&"x".repeat(20_000 + number), colour);
    }
    let (mut offset, mut pulls, mut found) = (0, 0, Vec::new());
    while offset < 40 {
        let reply = world.pull(&by_sql("colour = 'red'", offset));
        found.extend(lengths(&reply));
        assert!(reply.int("nextBeginOffset") > offset);
        (offset, pulls) = (reply.int("nextBeginOffset"), pulls + 1);
    }
    assert_eq!(found, [20_033]);
    assert!((2..=4).contains(&pulls), "{pulls} pulls for 800 KB");

    let mixed = world.pull(&PullMessageRequest { messages_max: 3, ..by_sql("colour = 'green'", 32) });
    assert_eq!((lengths(&mixed), mixed.int("nextBeginOffset")), (vec![20_032, 20_034, 20_035], 36));
}

#[test]
fn a_parked_pull_is_woken_only_by_what_its_expression_wants() {
    let mut world = World::new();
    world.send_colours(2);
    let parked = world.start_pull(&waiting(by_sql("colour = 'red'", 2)));
    assert!(world.answered.is_empty());
    for _ in 0..3 {
        world.tick(1_000);
        world.send_coloured("green", "green");
    }
    assert!(world.answered.is_empty(), "nothing that it wants");
    world.send_coloured("at last", "red");
    let reply = world.answered.remove(&parked).expect("woken");
    assert_eq!((reply.bodies(), reply.int("nextBeginOffset")), (vec!["at last".to_owned()], 6));
}

#[test]
fn what_wakes_a_pull_in_vain_does_not_prolong_its_time() {
    let mut world = World::new();
    world.send_colours(1);
    let parked = world.start_pull(&waiting(by_sql("colour = 'blue'", 1)));
    for _ in 0..14 {
        world.tick(1_000);
        world.send_coloured("green", "green");
    }
    assert!(world.answered.is_empty());
    world.tick(1_000);
    let reply = world.answered.remove(&parked).expect("its 15 s are over");
    assert_eq!((reply.code, reply.int("nextBeginOffset")), (ResponseCode::PULL_NOT_FOUND, 15));
}

/// The work for one arrival has its limit: who comes too late is told to ask again, and nothing is lost.
#[test]
fn a_crowd_of_waiting_expressions_is_told_to_ask_again() {
    let mut world = World::new();
    world.send_colours(1);
    let long = vec!["colour = 'blue'"; 600].join(" OR ");
    let parked: Vec<i32> = (0..60).map(|_| world.start_pull(&waiting(by_sql(&long, 1)))).collect();
    world.send_coloured("green", "green");
    let waiting = parked.iter().filter(|opaque| !world.answered.contains_key(opaque)).count();
    assert!((20..50).contains(&waiting), "{waiting} still wait");
    for reply in world.answered.values() {
        assert_eq!((reply.code, reply.int("nextBeginOffset")), (ResponseCode::PULL_RETRY_IMMEDIATELY, 1));
    }
}

#[test]
fn expressions_are_checked_at_the_consumers_start() {
    let mut world = World::new();
    assert_eq!(world.check_filter("SQL92", "a BETWEEN 1 AND 3").code, ResponseCode::SUCCESS);
    assert_eq!(world.check_filter("TAG", "a || b").code, ResponseCode::SUCCESS);
    let wrong = world.check_filter("SQL92", "a UNLIKE 'x%'");
    assert_eq!(wrong.code, ResponseCode::SUBSCRIPTION_PARSE_FAILED);
    assert!(wrong.remark.starts_with("Invalid MessageSelector. \"UNLIKE\""), "{}", wrong.remark);
    assert_eq!(world.check_filter("GROOVY", "x").code, ResponseCode::SUBSCRIPTION_PARSE_FAILED);
    let pulled = world.pull(&by_sql("a >", 0));
    assert_eq!(pulled.code, ResponseCode::TOPIC_NOT_EXIST, "the topic is looked at first");
    world.send_colours(1);
    assert_eq!(world.pull(&by_sql("a >", 0)).code, ResponseCode::SUBSCRIPTION_PARSE_FAILED);

    world.shard.config.enable_property_filter = false;
    let refused = world.check_filter("SQL92", "a > 1");
    assert_eq!(refused.code, ResponseCode::SYSTEM_ERROR);
    assert_eq!(refused.remark, "The broker does not support consumer to filter message by SQL92");
    assert_eq!(world.pull(&by_sql("a > 1", 0)).code, ResponseCode::SYSTEM_ERROR);
    assert_eq!(world.check_filter("TAG", "a").code, ResponseCode::SUCCESS);
}

#[test]
fn the_expression_of_a_heartbeat_is_used() {
    let mut world = World::new();
    world.send_colours(4);
    let pull = PullMessageRequest { sys_flag: PullSysFlag(0), subscription: None, ..pull_from("T", 0) };
    world.subscribe("colour = 'green'");
    assert_eq!(lengths(&world.pull(&pull)), [2, 4]);
    world.tick(10);
    world.subscribe("colour = 'red'");
    assert_eq!(lengths(&world.pull(&pull)), [1, 3]);
    world.tick(10);
    world.subscribe("colour =");
    let refused = world.pull(&pull);
    assert_eq!(refused.code, ResponseCode::FILTER_DATA_NOT_EXIST);
    assert!(refused.remark.contains("Your expression may be wrong!"), "{}", refused.remark);
}
