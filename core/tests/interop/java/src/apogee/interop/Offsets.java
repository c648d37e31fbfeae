package apogee.interop;

import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageQueue;
import org.apache.rocketmq.tools.admin.DefaultMQAdminExt;

/** Where groups are, set by an administrator: back or forward to a time, from another group, past everything. */
final class Offsets {
    private static final Duration DELIVERY_MAX = Duration.ofSeconds(60);
    private static final int PART = 100;

    private Offsets() {}

    /** Consumers that are there go back to a time, and on from there. */
    static String resetLive(World world) throws Exception {
        DefaultMQProducer producer = world.producer();
        String topic = world.topic(producer);
        String group = world.name("group");
        DefaultMQAdminExt admin = world.admin();
        Inbox inbox = new Inbox();
        for (int i = 0; i < 2; i++) {
            world.pushConsumer(group, topic, "*", inbox);
        }
        List<String> old = send(producer, topic, "old-");
        Thread.sleep(50);
        long between = System.currentTimeMillis();
        Thread.sleep(50);
        List<String> recent = send(producer, topic, "recent-");
        inbox.await(old, DELIVERY_MAX);
        inbox.await(recent, DELIVERY_MAX);
        awaitCommitted(admin, topic, group, 2 * PART);

        // While the second consumer joined, some may have come to both.
        List<Integer> oldBefore = old.stream().map(key -> inbox.of(key).size()).toList();
        List<Integer> recentBefore = recent.stream().map(key -> inbox.of(key).size()).toList();
        Map<MessageQueue, Long> reset = admin.resetOffsetByTimestamp(topic, group, between, true);
        Check.equal(World.queuesOf(producer, topic).size(), reset.size(), "queues reset");
        Check.equal((long) PART, reset.values().stream().mapToLong(Long::longValue).sum(), "sum of the offsets reset to");
        for (int i = 0; i < PART; i++) {
            inbox.await(recent.get(i), recentBefore.get(i) + 1, DELIVERY_MAX);
        }
        Check.equal(oldBefore, old.stream().map(key -> inbox.of(key).size()).toList(), "arrivals of what is older");
        List<String> late = send(producer, topic, "late-");
        inbox.await(late, DELIVERY_MAX);
        awaitCommitted(admin, topic, group, 3 * PART);
        return "two consumers went back over " + PART + " of " + 2 * PART + " messages, then on";
    }

    /** A group without consumers is reset too; and past everything, which mqadmin calls to skip. */
    static String resetOffline(World world) throws Exception {
        DefaultMQProducer producer = world.producer();
        String topic = world.topic(producer);
        String group = world.name("group");
        DefaultMQAdminExt admin = world.admin();
        Inbox inbox = new Inbox();
        DefaultMQPushConsumer first = world.pushConsumer(group, topic, "*", inbox);
        List<String> old = send(producer, topic, "old-");
        Thread.sleep(50);
        long between = System.currentTimeMillis();
        Thread.sleep(50);
        List<String> recent = send(producer, topic, "recent-");
        inbox.await(old, DELIVERY_MAX);
        inbox.await(recent, DELIVERY_MAX);
        first.shutdown();
        awaitCommitted(admin, topic, group, 2 * PART);

        admin.resetOffsetByTimestampOld(group, topic, between, true);
        Inbox again = new Inbox();
        DefaultMQPushConsumer second = world.pushConsumer(group, topic, "*", again);
        again.await(recent, DELIVERY_MAX);
        again.checkExactly(recent, 1);
        second.shutdown();
        awaitCommitted(admin, topic, group, 2 * PART);

        // While nobody is there to take them.
        List<String> skipped = send(producer, topic, "skipped-");
        admin.resetOffsetByTimestampOld(group, topic, -1, true);
        List<String> late = send(producer, topic, "late-");
        Inbox afterSkip = new Inbox();
        world.pushConsumer(group, topic, "*", afterSkip);
        afterSkip.await(late, DELIVERY_MAX);
        afterSkip.checkExactly(late, 1);
        return PART + " messages again after a reset to a time, " + skipped.size() + " skipped";
    }

    /** Consumers that are there are sent past everything. */
    static String skipLive(World world) throws Exception {
        DefaultMQProducer producer = world.producer();
        String topic = world.topic(producer);
        String group = world.name("group");
        DefaultMQAdminExt admin = world.admin();
        Inbox inbox = new Inbox();
        // Slow enough that most is still to come when it is skipped.
        DefaultMQPushConsumer consumer = world.pushConsumer(group);
        consumer.setConsumeThreadMin(1);
        consumer.setConsumeThreadMax(1);
        consumer.setPullBatchSize(2);
        consumer.setPullThresholdForQueue(4);
        consumer.subscribe(topic, "*");
        consumer.registerMessageListener(World.each(message -> {
            inbox.accept(message);
            if (message.getKeys().startsWith("many-")) {
                try {
                    Thread.sleep(500);
                } catch (InterruptedException e) {
                    Thread.currentThread().interrupt();
                }
            }
        }));
        consumer.start();
        List<String> many = send(producer, topic, "many-");
        Check.within(DELIVERY_MAX, () -> many.stream().anyMatch(key -> !inbox.of(key).isEmpty()), () -> "nothing came");
        admin.resetOffsetByTimestamp(topic, group, -1, true);
        // What the client had fetched may still be worked off.
        List<String> late = send(producer, topic, "late-");
        inbox.await(late, DELIVERY_MAX);
        long came = many.stream().filter(key -> !inbox.of(key).isEmpty()).count();
        Check.that(came < many.size(), "nothing was skipped");
        return many.size() - came + " of " + many.size() + " messages skipped by a consumer at work";
    }

    /** A group goes on where another one is. */
    static String cloneGroup(World world) throws Exception {
        DefaultMQProducer producer = world.producer();
        String topic = world.topic(producer);
        String group = world.name("group");
        String copy = world.name("group");
        DefaultMQAdminExt admin = world.admin();
        Inbox inbox = new Inbox();
        DefaultMQPushConsumer first = world.pushConsumer(group, topic, "*", inbox);
        List<String> old = send(producer, topic, "old-");
        inbox.await(old, DELIVERY_MAX);
        first.shutdown();
        awaitCommitted(admin, topic, group, PART);
        List<String> recent = send(producer, topic, "recent-");

        for (String address : World.brokerAddresses(admin)) {
            Line.createGroup(admin, address, copy);
        }
        admin.cloneGroupOffset(group, copy, topic, true);
        Inbox copied = new Inbox();
        world.pushConsumer(copy, topic, "*", copied);
        copied.await(recent, DELIVERY_MAX);
        copied.checkExactly(recent, 1);
        return "the copy began after " + old.size() + " messages and got the next " + recent.size();
    }

    private static List<String> send(DefaultMQProducer producer, String topic, String prefix) throws Exception {
        List<String> keys = new ArrayList<>();
        for (int i = 0; i < PART; i++) {
            keys.add(prefix + i);
            producer.send(new Message(topic, "", prefix + i, Payload.of(prefix + i)));
        }
        return keys;
    }

    /** The client commits every five seconds, and when it shuts down. */
    static void awaitCommitted(DefaultMQAdminExt admin, String topic, String group, long sum) throws InterruptedException {
        Check.within(DELIVERY_MAX, () -> committed(admin, topic, group) == sum,
            () -> "committed in all queues: " + committed(admin, topic, group) + ", not " + sum);
    }

    private static long committed(DefaultMQAdminExt admin, String topic, String group) {
        try {
            return admin.examineConsumeStats(group, topic).getOffsetTable().values().stream()
                .mapToLong(offsets -> offsets.getConsumerOffset()).sum();
        } catch (Exception notYet) {
            return -1;
        }
    }
}
