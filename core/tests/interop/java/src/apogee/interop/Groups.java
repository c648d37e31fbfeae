package apogee.interop;

import java.net.InetAddress;
import java.net.ServerSocket;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Set;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageQueue;
import org.apache.rocketmq.tools.admin.DefaultMQAdminExt;

/** Who is there: connections, what consumers say of themselves, who learns of changes; and where NameServers are. */
final class Groups {
    private static final Duration SEEN_MAX = Duration.ofSeconds(30);
    /** Far below the 20 s after which consumers look for themselves. */
    private static final Duration NOTIFIED_MAX = Duration.ofSeconds(6);
    private static final int MESSAGES = 40;

    private Groups() {}

    /** What the tools can ask about a group that is at work, and through the broker of its consumers themselves. */
    static String consumers(World world) throws Exception {
        DefaultMQProducer producer = world.producer();
        String topic = world.topic(producer);
        String group = world.name("group");
        DefaultMQAdminExt admin = world.admin();
        Inbox inbox = new Inbox();
        DefaultMQPushConsumer consumer = world.pushConsumer(group, topic, "TagA || TagB", inbox);
        List<String> keys = new ArrayList<>();
        SendResult last = null;
        for (int i = 0; i < MESSAGES; i++) {
            keys.add("admin-" + i);
            last = producer.send(new Message(topic, "TagA", "admin-" + i, Payload.of("admin-" + i)));
        }
        inbox.await(keys, SEEN_MAX);
        World.introduce(producer);

        var connections = admin.examineConsumerConnectionInfo(group);
        Check.equal(1, connections.getConnectionSet().size(), "consumers of the group");
        var connection = connections.getConnectionSet().iterator().next();
        String clientId = consumer.getDefaultMQPushConsumerImpl().getmQClientFactory().getClientId();
        Check.equal(clientId, connection.getClientId(), "client id");
        Check.equal("JAVA", String.valueOf(connection.getLanguage()), "language");
        Check.that(connection.getClientAddr().startsWith("127.0.0.1:"), "address " + connection.getClientAddr());
        Check.equal("TagA || TagB", connections.getSubscriptionTable().get(topic).getSubString(), "subscription");
        Check.equal("CONSUME_PASSIVELY", String.valueOf(connections.getConsumeType()), "kind of consumer");
        Check.equal("CLUSTERING", String.valueOf(connections.getMessageModel()), "model");
        var producers = admin.examineProducerConnectionInfo(producer.getProducerGroup(), topic);
        Check.equal(1, producers.getConnectionSet().size(), "producers of the group");

        Offsets.awaitCommitted(admin, topic, group, MESSAGES);
        var consumeStats = admin.examineConsumeStats(group);
        Check.equal(0L, consumeStats.computeTotalDiff(), "messages behind");
        Check.that(consumeStats.getOffsetTable().keySet().containsAll(World.queuesOf(producer, topic)), "queues of the statistics");
        var topicStats = admin.examineTopicStats(topic);
        Check.equal((long) MESSAGES, topicStats.getOffsetTable().values().stream().mapToLong(q -> q.getMaxOffset()).sum(),
            "messages by the topic's statistics");
        Check.equal(Set.of(group), Set.copyOf(admin.queryTopicConsumeByWho(topic).getGroupList()), "groups of the topic");
        Check.equal(World.queuesOf(producer, topic).size(), admin.queryConsumeTimeSpan(topic, group).size(), "spans of time");

        // What the broker passes on to the consumer.
        var running = admin.getConsumerRunningInfo(group, clientId, true);
        Check.equal(World.queuesOf(producer, topic).size(),
            (int) running.getMqTable().keySet().stream().filter(q -> q.getTopic().equals(topic)).count(), "queues in work");
        Check.that(running.getJstack() != null && running.getJstack().contains("ConsumeMessageThread"), "stacks of the consumer");
        var status = admin.getConsumeStatus(topic, group, clientId);
        Check.equal((long) MESSAGES, status.get(clientId).values().stream().mapToLong(Long::longValue).sum(), "offsets by client");
        var direct = admin.consumeMessageDirectly(group, clientId, topic, last.getMsgId());
        Check.equal("CR_SUCCESS", String.valueOf(direct.getConsumeResult()), "result of a message consumed directly");
        Check.equal(2, inbox.of("admin-" + (MESSAGES - 1)).size(), "arrivals of the message consumed directly");

        for (String address : World.brokerAddresses(admin)) {
            Check.that(admin.fetchBrokerRuntimeStats(address).getTable().containsKey("brokerVersionDesc"), "runtime of " + address);
            Check.that(admin.getBrokerConfig(address).containsKey("brokerName"), "settings of " + address);
            Check.that(admin.getAllSubscriptionGroup(address, 5_000).getSubscriptionGroupTable().containsKey(group), "groups of " + address);
        }
        return "connections, statistics, running info, offsets by client; one message consumed directly";
    }

    /** Topics and groups can be removed, and are gone. */
    static String remove(World world) throws Exception {
        DefaultMQProducer producer = world.producer();
        String topic = world.topic(producer);
        String group = world.name("group");
        DefaultMQAdminExt admin = world.admin();
        Set<String> addresses = Set.copyOf(World.brokerAddresses(admin));
        Inbox inbox = new Inbox();
        DefaultMQPushConsumer consumer = world.pushConsumer(group, topic, "*", inbox);
        producer.send(new Message(topic, "", "only", Payload.of("only")));
        inbox.await("only", SEEN_MAX);
        consumer.shutdown();
        for (String address : addresses) {
            // A pull that was still waiting may bring it back once.
            Check.within(SEEN_MAX, () -> isDeleted(admin, address, group), () -> "the group is still on " + address);
        }
        admin.deleteTopicInBroker(addresses, topic);
        Line.deleteTopicInNameServer(admin, Set.of(world.namesrv()), topic);
        Check.within(SEEN_MAX, () -> World.queuesOf(producer, topic).isEmpty(), () -> "the topic still has a route");
        // Made anew, it is empty.
        Line.createTopic(producer, topic, 2);
        World.awaitRoute(producer, topic, 2 * addresses.size());
        Check.equal(0L, admin.examineTopicStats(topic).getOffsetTable().values().stream().mapToLong(q -> q.getMaxOffset()).sum(),
            "messages of a topic made anew");
        // One that does not remember the queues there were.
        SendResult sent = world.producer().send(new Message(topic, "", "again", Payload.of("again")));
        Check.equal(0L, sent.getQueueOffset(), "first offset of a topic made anew");
        return "a group and a topic, gone; the topic begins at 0 when it is made anew";
    }

    private static boolean isDeleted(DefaultMQAdminExt admin, String address, String group) {
        try {
            admin.deleteSubscriptionGroup(address, group, true);
            Thread.sleep(500);
            return !admin.getAllSubscriptionGroup(address, 5_000).getSubscriptionGroupTable().containsKey(group);
        } catch (Exception failed) {
            throw new AssertionError(failed);
        }
    }

    /** Who shuts down is gone at once, not when its connection is found to be dead. */
    static String unregister(World world) throws Exception {
        DefaultMQProducer producer = world.producer();
        String topic = world.topic(producer);
        String group = world.name("group");
        DefaultMQAdminExt admin = world.admin();
        DefaultMQProducer leaving = world.producer();
        String producerGroup = leaving.getProducerGroup();
        leaving.send(new Message(topic, new byte[] {1}));
        World.introduce(leaving);
        DefaultMQPushConsumer consumer = world.pushConsumer(group, topic, "*", m -> { });
        Check.within(SEEN_MAX, () -> consumersOf(admin, group) == 1, () -> consumersOf(admin, group) + " consumers");
        Check.within(SEEN_MAX, () -> producersOf(admin, producerGroup, topic) == 1,
            () -> producersOf(admin, producerGroup, topic) + " producers");
        long begun = System.nanoTime();
        consumer.shutdown();
        leaving.shutdown();
        Check.within(NOTIFIED_MAX, () -> consumersOf(admin, group) == 0, () -> consumersOf(admin, group) + " consumers");
        Check.within(NOTIFIED_MAX, () -> producersOf(admin, producerGroup, topic) == 0,
            () -> producersOf(admin, producerGroup, topic) + " producers");
        return "a consumer and a producer gone " + (System.nanoTime() - begun) / 1_000_000 + " ms after they began to shut down";
    }

    private static int consumersOf(DefaultMQAdminExt admin, String group) {
        try {
            return admin.examineConsumerConnectionInfo(group).getConnectionSet().size();
        } catch (Exception none) {
            return 0;
        }
    }

    private static int producersOf(DefaultMQAdminExt admin, String group, String topic) {
        try {
            return admin.examineProducerConnectionInfo(group, topic).getConnectionSet().size();
        } catch (Exception none) {
            return 0;
        }
    }

    /** A member that comes or goes is noticed by the others long before they look for themselves. */
    static String notified(World world) throws Exception {
        DefaultMQProducer producer = world.producer();
        String topic = world.topic(producer);
        String group = world.name("group");
        int queues = World.queuesOf(producer, topic).size();
        DefaultMQPushConsumer staying = world.pushConsumer(group, topic, "*", m -> { });
        Check.within(SEEN_MAX, () -> allocated(staying, topic) == queues, () -> allocated(staying, topic) + " queues");
        List<Long> took = new ArrayList<>();
        for (int round = 0; round < 3; round++) {
            DefaultMQPushConsumer passing = world.pushConsumer(group);
            passing.subscribe(topic, "*");
            passing.registerMessageListener(World.each(m -> { }));
            passing.start();
            took.add(awaitAllocated(staying, topic, queues / 2));
            passing.shutdown();
            took.add(awaitAllocated(staying, topic, queues));
        }
        return "noticed after " + took + " ms";
    }

    private static long awaitAllocated(DefaultMQPushConsumer consumer, String topic, int queues) throws InterruptedException {
        long begun = System.nanoTime();
        Check.within(NOTIFIED_MAX, () -> allocated(consumer, topic) == queues,
            () -> allocated(consumer, topic) + " queues rather than " + queues);
        return (System.nanoTime() - begun) / 1_000_000;
    }

    private static int allocated(DefaultMQPushConsumer consumer, String topic) {
        Set<MessageQueue> all = consumer.getDefaultMQPushConsumerImpl().getRebalanceImpl().getProcessQueueTable().keySet();
        return (int) all.stream().filter(queue -> queue.getTopic().equals(topic)).count();
    }

    /** A list of NameServers of which some are dead; and a list that changes under a client at work. */
    static String namesrvList(World world) throws Exception {
        String dead = "127.0.0.1:" + closedPort();
        DefaultMQProducer maker = world.producer();
        String topic = world.topic(maker);
        String other = world.topic(maker);
        DefaultMQProducer producer = world.producer(dead + ";" + world.namesrv());
        Check.within(SEEN_MAX, () -> !World.queuesOf(producer, topic).isEmpty(), () -> "no route of " + topic);
        producer.send(new Message(topic, new byte[] {1}));

        var api = producer.getDefaultMQProducerImpl().getMqClientFactory().getMQClientAPIImpl();
        api.updateNameServerAddressList(dead);
        Check.equal(List.of(), World.queuesOf(producer, other), "a route from a dead NameServer");
        // Known topics go on without a NameServer.
        producer.send(new Message(topic, new byte[] {1}));
        api.updateNameServerAddressList(world.namesrv() + ";" + dead);
        Check.within(SEEN_MAX, () -> !World.queuesOf(producer, other).isEmpty(), () -> "no route of " + other);
        producer.send(new Message(other, new byte[] {1}));
        return "one of two dead, all dead, one of two again: " + World.queuesOf(producer, other).size() + " queues found";
    }

    private static int closedPort() throws Exception {
        try (ServerSocket socket = new ServerSocket(0, 1, InetAddress.getLoopbackAddress())) {
            return socket.getLocalPort();
        }
    }
}
