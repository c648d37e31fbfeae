package apogee.interop;

import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.List;
import java.util.stream.Collectors;
import org.apache.rocketmq.client.QueryResult;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.exception.MQClientException;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.message.MessageQueue;
import org.apache.rocketmq.tools.admin.DefaultMQAdminExt;

/** Finding single messages, and the traces that clients leave of them. */
final class Querying {
    /** A server may index in the background. */
    private static final Duration INDEXED_MAX = Duration.ofSeconds(20);
    private static final Duration TRACED_MAX = Duration.ofSeconds(40);
    private static final String TRACE_TOPIC = "RMQ_SYS_TRACE_TOPIC";

    private Querying() {}

    /** By key, by unique id, by the offset id that the broker gave, by time; and the entries of a queue. */
    static String query(World world) throws Exception {
        DefaultMQProducer producer = world.producer();
        String topic = world.topic(producer);
        DefaultMQAdminExt admin = world.admin();
        long begin = System.currentTimeMillis() - 1_000;
        SendResult[] sent = new SendResult[20];
        for (int i = 0; i < sent.length; i++) {
            String key = "query-" + i;
            Message message = new Message(topic, "Tag" + i % 2, key + " even-" + i % 2, Payload.of(key));
            sent[i] = producer.send(message);
        }
        long end = System.currentTimeMillis() + 1_000;

        Check.within(INDEXED_MAX, () -> find(admin, topic, "even-1", 32, begin, end).size() == sent.length / 2,
            () -> "by a key of many: " + find(admin, topic, "even-1", 32, begin, end));
        for (int i = 0; i < sent.length; i++) {
            Check.equal(List.of("query-" + i + " even-" + i % 2), find(admin, topic, "query-" + i, 32, begin, end), "by its key");
        }
        // So many are asked of each broker.
        int some = find(admin, topic, "even-0", 3, begin, end).size();
        Check.that(some >= 3 && some <= 3 * World.brokers(producer), some + " messages when three are asked for");
        Check.equal(List.of(), find(admin, topic, "nothing", 32, begin, end), "by a key that no message has");
        Check.equal(List.of(), find(admin, topic, "query-1", 32, begin - 100_000_000, begin - 90_000_000), "of another day");

        for (SendResult one : sent) {
            for (String id : List.of(one.getMsgId(), one.getOffsetMsgId())) {
                MessageExt found = admin.viewMessage(topic, id);
                Check.equal(one.getQueueOffset(), found.getQueueOffset(), "offset of the message with id " + id);
                Check.equal(one.getMessageQueue().getQueueId(), found.getQueueId(), "queue of the message with id " + id);
                Check.equal(one.getMsgId(), found.getProperty("UNIQ_KEY"), "unique id of the message with id " + id);
                String key = found.getKeys().split(" ")[0];
                Check.that(Payload.isIntact(key, found.getBody()), "body of " + key);
            }
        }
        try {
            MessageExt found = admin.viewMessage(topic, "7F0000010000000000000000FFFFFF00");
            throw new AssertionError("a message with an id that was never given: " + found);
        } catch (MQClientException expected) {
            // Neither an offset nor a unique id of anything.
        }

        SendResult first = sent[0];
        MessageQueue queue = first.getMessageQueue();
        String address = World.brokerAddress(producer, queue.getBrokerName());
        var entries = admin.queryConsumeQueue(address, topic, queue.getQueueId(), 0, 10, world.name("group"));
        Check.equal(0L, entries.getMinQueueIndex(), "first entry of the queue");
        Check.equal(admin.maxOffset(queue), entries.getMaxQueueIndex(), "end of the queue");
        Check.equal((int) Math.min(10, entries.getMaxQueueIndex()), entries.getQueueData().size(), "entries");
        Check.that(entries.getQueueData().get(0).getPhysicSize() > 0, "size of the first entry");
        Check.equal((long) ("Tag0".hashCode()), entries.getQueueData().get((int) first.getQueueOffset()).getTagsCode(), "hash of the tag");
        return sent.length + " messages by key, by both their ids, and as entries of their queue";
    }

    private static List<String> find(DefaultMQAdminExt admin, String topic, String key, int max, long begin, long end) {
        try {
            QueryResult result = admin.queryMessage(topic, key, max, begin, end);
            return result.getMessageList().stream().map(MessageExt::getKeys).sorted().collect(Collectors.toList());
        } catch (MQClientException none) {
            return List.of();
        } catch (InterruptedException e) {
            Thread.currentThread().interrupt();
            return List.of();
        }
    }

    /** The hooks of a producer and a consumer leave their traces, to be found by the message's id. */
    static String trace(World world) throws Exception {
        DefaultMQProducer plain = world.producer();
        String topic = world.topic(plain);
        DefaultMQProducer producer = world.tracingProducer();
        Inbox inbox = new Inbox();
        DefaultMQPushConsumer consumer = world.tracingPushConsumer(world.name("group"));
        consumer.subscribe(topic, "*");
        consumer.registerMessageListener(World.each(inbox));
        consumer.start();
        DefaultMQAdminExt admin = world.admin();
        long begin = System.currentTimeMillis() - 1_000;
        for (int i = 0; i < 3; i++) {
            String key = "traced-" + i;
            SendResult sent = producer.send(new Message(topic, "", key, Payload.of(key)));
            inbox.await(key, TRACED_MAX);
            // Sent, taken, done: each part begins with its kind, as the tools know it.
            Check.within(TRACED_MAX, () -> {
                String found = traces(admin, sent.getMsgId(), begin);
                return found.contains("Pub\u0001") && found.contains("SubBefore\u0001") && found.contains("SubAfter\u0001");
            }, () -> "traces of " + key + ": " + traces(admin, sent.getMsgId(), begin).replace('\u0001', ' '));
        }
        return "sent, taken and done, each found by the message's id";
    }

    private static String traces(DefaultMQAdminExt admin, String id, long begin) {
        try {
            return admin.queryMessage(TRACE_TOPIC, id, 64, begin, System.currentTimeMillis() + 1_000).getMessageList().stream()
                .map(m -> new String(m.getBody(), StandardCharsets.UTF_8))
                .filter(text -> text.contains(id)).collect(Collectors.joining("\u0002"));
        } catch (MQClientException none) {
            return "";
        } catch (InterruptedException e) {
            Thread.currentThread().interrupt();
            return "";
        }
    }
}
