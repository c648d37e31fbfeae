package apogee.interop;

import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;
import java.util.TreeSet;
import java.time.Duration;
import java.util.stream.Collectors;
import java.util.stream.IntStream;
import org.apache.rocketmq.client.consumer.DefaultMQPullConsumer;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.common.TopicConfig;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageQueue;
import org.apache.rocketmq.remoting.netty.NettyClientConfig;
import org.apache.rocketmq.remoting.netty.NettyRemotingClient;
import org.apache.rocketmq.remoting.protocol.RemotingCommand;
import org.apache.rocketmq.tools.admin.DefaultMQAdminExt;

/** Topics, made and found; the tools' library; and what no server knows. */
final class Administration {
    private static final Duration DELIVERY_MAX = Duration.ofSeconds(40);
    /** Codes of the protocol, which the two lines of the client keep in different classes. */
    private static final int REQUEST_CODE_NOT_SUPPORTED = 3;
    private static final int TOPIC_NOT_EXIST = 17;
    private static final int GET_MAX_OFFSET = 30;
    private static final int GET_ROUTEINFO_BY_TOPIC = 105;
    private static final int CODE_OF_NOTHING = 9_999;
    private static final int CALL_TIMEOUT_MS = 3_000;

    private Administration() {}

    /** A topic that a client makes is there at once, with its queues on every broker, and can be made larger. */
    static String createTopic(World world) throws Exception {
        DefaultMQProducer producer = world.producer();
        String topic = world.name("topic");
        int brokers = World.brokers(producer);
        for (int queues : List.of(3, 7)) {
            Line.createTopic(producer, topic, queues);
            // A new client, for others learn of the change when they next ask.
            DefaultMQProducer fresh = world.producer();
            World.awaitRoute(fresh, topic, queues * brokers);
            Map<String, Set<Integer>> ids = queueIds(World.queuesOf(fresh, topic));
            Set<Integer> expected = IntStream.range(0, queues).boxed().collect(Collectors.toSet());
            ids.forEach((broker, found) -> Check.equal(expected, found, "queue ids on " + broker));

            Ledger ledger = new Ledger(topic);
            for (MessageQueue queue : World.queuesOf(fresh, topic)) {
                SendResult sent = fresh.send(ledger.owe("create-" + queues + queue), queue);
                Check.equal(queue, sent.getMessageQueue(), "queue of a message");
            }
            world.pushConsumer(world.name("group"), topic, "*", message -> {
                if (message.getKeys().startsWith("create-" + queues)) {
                    ledger.receive(message);
                }
            });
            ledger.awaitExactly(DELIVERY_MAX);
        }
        return "3, then 7 queues on each of " + brokers + " brokers, each sent to and consumed";
    }

    /** A topic that nobody made comes into being with its first message. */
    static String autoCreate(World world) throws Exception {
        DefaultMQProducer producer = world.producer();
        String topic = world.name("topic");
        Ledger ledger = new Ledger(topic);
        Positions positions = new Positions();
        int messages = 200;
        for (int i = 0; i < messages; i++) {
            positions.add(producer.send(ledger.owe("auto-" + i)));
        }
        positions.checkContiguous(messages);

        DefaultMQProducer fresh = world.producer();
        Check.within(DELIVERY_MAX, () -> !World.queuesOf(fresh, topic).isEmpty(), () -> "no route of " + topic);
        Set<Integer> expected = IntStream.range(0, producer.getDefaultTopicQueueNums()).boxed().collect(Collectors.toSet());
        Map<String, Set<Integer>> ids = queueIds(World.queuesOf(fresh, topic));
        ids.forEach((broker, found) -> Check.equal(expected, found, "queue ids on " + broker));
        world.pushConsumer(world.name("group"), topic, "*", ledger::receive);
        ledger.awaitExactly(DELIVERY_MAX);
        return "made on " + ids.size() + " brokers with " + expected.size() + " queues each";
    }

    /** The library under mqadmin: cluster, topics with unequal queue counts, groups, key-value entries. */
    static String tools(World world) throws Exception {
        DefaultMQProducer producer = world.producer();
        DefaultMQAdminExt admin = world.admin();
        Set<String> names = World.queuesOf(producer, "TBW102").stream().map(MessageQueue::getBrokerName)
            .collect(Collectors.toCollection(TreeSet::new));
        var cluster = admin.examineBrokerClusterInfo();
        Check.equal(names, new TreeSet<>(cluster.getBrokerAddrTable().keySet()), "brokers in the cluster");
        Check.equal(names, cluster.getClusterAddrTable().values().stream().flatMap(Set::stream)
            .collect(Collectors.toCollection(TreeSet::new)), "brokers by cluster");
        String clusterName = cluster.getClusterAddrTable().keySet().iterator().next();

        String topic = world.name("topic");
        String group = world.name("group");
        String broker = names.iterator().next();
        for (String name : names) {
            String address = cluster.getBrokerAddrTable().get(name).getBrokerAddrs().get(0L);
            Check.that(address != null, "no master of " + name);
            Line.createGroup(admin, address, group);
            if (name.equals(broker)) {
                admin.createAndUpdateTopicConfig(address, new TopicConfig(topic, 3, 2, 6));
            }
        }
        World.awaitRoute(producer, topic, 2);
        var route = admin.examineTopicRouteInfo(topic);
        Check.equal(1, route.getQueueDatas().size(), "brokers of the topic");
        Check.equal(broker, route.getQueueDatas().get(0).getBrokerName(), "broker of the topic");
        Check.equal(3, route.getQueueDatas().get(0).getReadQueueNums(), "queues to read");
        Check.equal(2, route.getQueueDatas().get(0).getWriteQueueNums(), "queues to write");
        Check.equal(6, route.getQueueDatas().get(0).getPerm(), "permission");
        DefaultMQPullConsumer consumer = world.pullConsumer(world.name("group"));
        Check.equal(3, consumer.fetchSubscribeMessageQueues(topic).size(), "queues that a consumer sees");
        Set<String> topics = admin.fetchAllTopicList().getTopicList();
        Check.that(topics.containsAll(List.of(topic, "TBW102")), "topics listed: " + topics);

        Ledger ledger = new Ledger(topic);
        for (int i = 0; i < 10; i++) {
            producer.send(ledger.owe("tools-" + i));
        }
        world.pushConsumer(group, topic, "*", ledger::receive);
        ledger.awaitExactly(DELIVERY_MAX);

        String order = broker + ":2";
        admin.createOrUpdateOrderConf(topic, order, true);
        Check.equal(order, admin.getKVConfig("ORDER_TOPIC_CONFIG", topic), "key-value entry");
        return "cluster " + clusterName + " of " + names.size() + " brokers, " + topics.size() + " topics";
    }

    /** What a server does not know it refuses; the connection goes on, and a oneway request is never answered. */
    static String unsupported(World world) throws Exception {
        DefaultMQProducer producer = world.producer();
        String topic = world.topic(producer);
        MessageQueue queue = producer.send(new Message(topic, new byte[] {1})).getMessageQueue();
        String broker = World.brokerAddress(producer, queue.getBrokerName());
        NettyRemotingClient client = new NettyRemotingClient(new NettyClientConfig());
        client.start();
        world.onClose(client::shutdown);

        for (String address : List.of(world.namesrv(), broker)) {
            client.invokeOneway(address, request(CODE_OF_NOTHING, Map.of()), CALL_TIMEOUT_MS);
            for (Map<String, String> fields : List.of(Map.<String, String>of(), Map.of("topic", topic, "any", "1"))) {
                RemotingCommand request = request(CODE_OF_NOTHING, fields);
                request.setBody(new byte[] {1, 2, 3});
                RemotingCommand answer = client.invokeSync(address, request, CALL_TIMEOUT_MS);
                Check.equal(REQUEST_CODE_NOT_SUPPORTED, answer.getCode(), "answer of " + address);
                Check.that(answer.getRemark() != null && answer.getRemark().contains(Integer.toString(CODE_OF_NOTHING)),
                    "remark " + answer.getRemark());
            }
        }
        RemotingCommand route = client.invokeSync(world.namesrv(),
            request(GET_ROUTEINFO_BY_TOPIC, Map.of("topic", world.name("unknown"))), CALL_TIMEOUT_MS);
        Check.equal(TOPIC_NOT_EXIST, route.getCode(), "route of an unknown topic");
        RemotingCommand offset = client.invokeSync(broker,
            request(GET_MAX_OFFSET, Map.of("topic", topic, "queueId", String.valueOf(queue.getQueueId()))), CALL_TIMEOUT_MS);
        Check.equal(0, offset.getCode(), "an ordinary request after all that");
        Check.equal("1", offset.getExtFields().get("offset"), "maximum offset");
        return "code " + CODE_OF_NOTHING + " refused with " + REQUEST_CODE_NOT_SUPPORTED + " by NameServer and broker";
    }

    private static RemotingCommand request(int code, Map<String, String> fields) {
        RemotingCommand request = RemotingCommand.createRequestCommand(code, null);
        fields.forEach(request::addExtField);
        return request;
    }

    private static Map<String, Set<Integer>> queueIds(List<MessageQueue> queues) {
        return queues.stream().collect(Collectors.groupingBy(MessageQueue::getBrokerName, TreeMap::new,
            Collectors.mapping(MessageQueue::getQueueId, Collectors.toSet())));
    }
}
