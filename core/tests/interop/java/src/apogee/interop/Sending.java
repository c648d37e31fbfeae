package apogee.interop;

import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.concurrent.Future;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.Semaphore;
import java.util.concurrent.TimeUnit;
import java.util.stream.Stream;
import org.apache.rocketmq.client.exception.MQBrokerException;
import org.apache.rocketmq.client.exception.MQClientException;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.SendCallback;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.client.producer.SendStatus;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.message.MessageQueue;

/** All ways to send. A push consumer takes everything back. */
final class Sending {
    private static final int MESSAGES = 20_000;
    private static final int SYNC_THREADS = 8;
    private static final int ASYNC_IN_FLIGHT = 1_000;
    private static final int BATCH_MESSAGES = 100;
    private static final Duration DELIVERY_MAX = Duration.ofSeconds(60);

    private static final int PROPERTIES_MAX = Short.MAX_VALUE;
    private static final int MESSAGE_ILLEGAL = 13;

    private Sending() {}

    static String sync(World world) throws Exception {
        Bench bench = new Bench(world);
        List<Message> messages = bench.ledger.owe("sync-", MESSAGES);
        Positions positions = new Positions();
        List<Future<Void>> threads = new ArrayList<>();
        for (int t = 0; t < SYNC_THREADS; t++) {
            int first = t;
            threads.add(world.inBackground(() -> {
                for (int i = first; i < MESSAGES; i += SYNC_THREADS) {
                    positions.add(bench.producer.send(messages.get(i)));
                }
                return null;
            }));
        }
        for (Future<Void> thread : threads) {
            thread.get();
        }
        return bench.finish(positions);
    }

    static String async(World world) throws Exception {
        Bench bench = new Bench(world);
        Positions positions = new Positions();
        Semaphore inFlight = new Semaphore(ASYNC_IN_FLIGHT);
        ConcurrentLinkedQueue<Throwable> failures = new ConcurrentLinkedQueue<>();
        for (Message message : bench.ledger.owe("async-", MESSAGES)) {
            inFlight.acquire();
            bench.producer.send(message, new SendCallback() {
                @Override
                public void onSuccess(SendResult result) {
                    try {
                        positions.add(result);
                    } catch (AssertionError e) {
                        failures.add(e);
                    }
                    inFlight.release();
                }

                @Override
                public void onException(Throwable e) {
                    failures.add(e);
                    inFlight.release();
                }
            });
        }
        Check.that(inFlight.tryAcquire(ASYNC_IN_FLIGHT, 30, TimeUnit.SECONDS), "sends without an answer");
        Check.that(failures.isEmpty(), failures.size() + " sends failed, such as " + failures.peek());
        return bench.finish(positions);
    }

    /** Nobody promises that a oneway message is stored; on an idle loopback nothing excuses a loss either. */
    static String oneway(World world) throws Exception {
        Bench bench = new Bench(world);
        for (Message message : bench.ledger.owe("oneway-", MESSAGES)) {
            bench.producer.sendOneway(message);
        }
        bench.ledger.awaitExactly(DELIVERY_MAX);
        return MESSAGES + " sent, " + bench.ledger.received() + " received";
    }

    static String batch(World world) throws Exception {
        Bench bench = new Bench(world);
        Positions positions = new Positions();
        List<Message> messages = bench.ledger.owe("batch-", MESSAGES);
        for (int i = 0; i < MESSAGES; i += BATCH_MESSAGES) {
            List<Message> batch = messages.subList(i, i + BATCH_MESSAGES);
            SendResult result = bench.producer.send(batch);
            positions.add(result, batch.size());
            Check.equal(batch.size(), result.getMsgId().split(",").length, "message ids of a batch");
        }
        return bench.finish(positions);
    }

    /** Bodies up to the limit of 4 MiB, and pulls that would not fit into a frame if they were filled up by count. */
    static String large(World world) throws Exception {
        Bench bench = new Bench(world);
        List<String> keys = new ArrayList<>();
        int limit = bench.producer.getMaxMessageSize();
        // Not compressed, as noise does not get smaller.
        bench.producer.setCompressMsgBodyOverHowmuch(Integer.MAX_VALUE);
        MessageQueue queue = World.queuesOf(bench.producer, bench.topic).get(0);
        List<Integer> sizes = new ArrayList<>(List.of(limit - 1024, limit, 4096, 1 << 16, limit - 1));
        for (int i = 0; i < 24; i++) {
            sizes.add(1 << 20);
        }
        for (int size : sizes) {
            String key = "large-" + keys.size();
            keys.add(key);
            Message message = new Message(bench.topic, "", key, Payload.of(key, size));
            bench.ledger.owe(message);
            bench.producer.send(message, queue);
        }
        bench.ledger.awaitExactly(DELIVERY_MAX);

        // Compressed by the client, and handed out as it came.
        DefaultMQProducer packing = world.producer();
        String topic = world.topic(packing);
        byte[] text = "what repeats gets small. ".repeat(150_000).getBytes(StandardCharsets.UTF_8);
        BlockingQueue<byte[]> unpacked = new LinkedBlockingQueue<>();
        world.pushConsumer(world.name("group"), topic, "*", m -> unpacked.add(m.getBody()));
        packing.send(new Message(topic, text));
        byte[] body = unpacked.poll(DELIVERY_MAX.toSeconds(), TimeUnit.SECONDS);
        Check.that(Arrays.equals(text, body), "a compressed body came back different");
        return sizes.size() + " bodies up to " + limit + " bytes and a compressed one of " + text.length;
    }

    /** What is too large is refused with RocketMQ's code; what is just within the limit is stored. */
    static String limits(World world) throws Exception {
        DefaultMQProducer producer = world.producer();
        String topic = world.topic(producer);
        int limit = producer.getMaxMessageSize();
        // Otherwise the client would not even send it, or send it smaller.
        producer.setMaxMessageSize(Integer.MAX_VALUE);
        producer.setCompressMsgBodyOverHowmuch(Integer.MAX_VALUE);
        Map<String, Message> refused = new LinkedHashMap<>();
        refused.put("a body above the limit", new Message(topic, Payload.of("large", limit + 1024)));
        Message wordy = new Message(topic, new byte[] {1});
        wordy.putUserProperty("long", "x".repeat(PROPERTIES_MAX));
        refused.put("properties above the limit", wordy);
        for (Map.Entry<String, Message> entry : refused.entrySet()) {
            try {
                throw new AssertionError(entry.getKey() + " were taken: " + producer.send(entry.getValue()));
            } catch (MQBrokerException e) {
                Check.equal(MESSAGE_ILLEGAL, e.getResponseCode(), "code for " + entry.getKey());
            }
        }
        Message almost = new Message(topic, new byte[] {1});
        almost.putUserProperty("long", "x".repeat(PROPERTIES_MAX - 200));
        Check.equal(SendStatus.SEND_OK, producer.send(almost).getSendStatus(), "properties just within the limit");
        for (String system : List.of("SCHEDULE_TOPIC_XXXX", "RMQ_SYS_TRANS_HALF_TOPIC", "OFFSET_MOVED_EVENT")) {
            try {
                throw new AssertionError(system + " took a message: " + producer.send(new Message(system, new byte[] {1})));
            } catch (MQClientException | MQBrokerException expected) {
                // The client knows these itself.
            }
        }
        return refused.size() + " kinds of messages refused with code " + MESSAGE_ILLEGAL;
    }

    /** Every way of compressing that the client has, at every level; the consumer gets what was sent. */
    static String compressed(World world) throws Exception {
        DefaultMQProducer producer = world.producer();
        String topic = world.topic(producer);
        Inbox inbox = new Inbox();
        world.pushConsumer(world.name("group"), topic, "*", inbox);
        byte[] text = "what repeats gets small. ".repeat(20_000).getBytes(StandardCharsets.UTF_8);
        List<String> types = Line.compressionTypes();
        for (String type : types) {
            DefaultMQProducer packing = world.producer();
            Line.setCompressionType(packing, type);
            SendResult alone = packing.send(new Message(topic, "", type, text));
            Check.equal(SendStatus.SEND_OK, alone.getSendStatus(), "status of a send");
        }
        for (String type : types) {
            MessageExt message = inbox.await(type, 1, DELIVERY_MAX).message();
            Check.that(Arrays.equals(text, message.getBody()), "a body compressed by " + type + " came back different");
            Check.that(message.getStoreSize() < text.length / 10, "stored with " + message.getStoreSize() + " bytes");
        }
        return "bodies of " + text.length + " bytes by " + types;
    }

    /** What a consumer sees of a message is what its producer gave it, alone or in a batch. */
    static String properties(World world) throws Exception {
        DefaultMQProducer producer = world.producer();
        String topic = world.topic(producer);
        BlockingQueue<MessageExt> received = new LinkedBlockingQueue<>();
        world.pushConsumer(world.name("group"), topic, "*", received::add);

        Message message = decorated(topic, "alone");
        long before = System.currentTimeMillis();
        SendResult sent = producer.send(message);
        MessageExt came = take(received);
        long after = System.currentTimeMillis();
        checkSame(message, came);
        Check.equal(sent.getMsgId(), came.getMsgId(), "unique id");
        Check.equal(sent.getMessageQueue().getQueueId(), came.getQueueId(), "queue id");
        Check.equal(sent.getMessageQueue().getBrokerName(), came.getBrokerName(), "broker name");
        Check.equal(sent.getQueueOffset(), came.getQueueOffset(), "queue offset");
        for (long time : List.of(came.getBornTimestamp(), came.getStoreTimestamp())) {
            Check.that(before <= time && time <= after, "time " + time + " not within " + before + " to " + after);
        }
        Check.that(came.getBornHostString().equals("127.0.0.1"), "born host " + came.getBornHostString());
        Check.equal("/" + World.brokerAddress(producer, came.getBrokerName()), String.valueOf(came.getStoreHost()),
            "store host");
        Check.equal(0, came.getReconsumeTimes(), "reconsume times");
        Check.equal(0, came.getSysFlag() & 0xF, "compression and transaction bits of the system flag");

        List<Message> batch = Stream.of("first", "second", "third").map(n -> decorated(topic, n)).toList();
        SendResult sentBatch = producer.send(batch);
        String[] ids = sentBatch.getMsgId().split(",");
        for (int i = 0; i < batch.size(); i++) {
            MessageExt part = takeByKey(received, batch.get(i).getKeys());
            checkSame(batch.get(i), part);
            Check.equal(ids[i], part.getMsgId(), "unique id of a part");
            Check.equal(sentBatch.getQueueOffset() + i, part.getQueueOffset(), "queue offset of a part");
        }

        // An empty property list and a body of one byte.
        producer.send(new Message(topic, new byte[] {42}));
        MessageExt plain = take(received);
        Check.that(Arrays.equals(new byte[] {42}, plain.getBody()), "the body of one byte");
        Check.equal(null, plain.getKeys(), "keys of a message without keys");
        Check.equal(null, plain.getTags(), "tags of a message without tags");
        return "alone, in a batch, and without any";
    }

    private static Message decorated(String topic, String name) {
        Message message = new Message(topic, "Tag-" + name, name + "-key1 " + name + "-key2 ключ-鍵", 7,
            ("Zażółć gęślą jaźń, 你好 🚀 " + name).getBytes(StandardCharsets.UTF_8), true);
        message.putUserProperty("name", name);
        message.putUserProperty("ünïcödé-ключ", "значение 値 🚀");
        message.putUserProperty("json", "{\"a\":[1,2,\"\\\\\"],\"b\":null}");
        message.putUserProperty("lines", "one\r\ntwo\tthree");
        message.putUserProperty("long", "x".repeat(8_000));
        message.setBuyerId("buyer");
        return message;
    }

    private static void checkSame(Message sent, MessageExt came) {
        Check.equal(sent.getTopic(), came.getTopic(), "topic");
        Check.equal(sent.getTags(), came.getTags(), "tags");
        Check.equal(sent.getKeys(), came.getKeys(), "keys");
        Check.equal(sent.getFlag(), came.getFlag(), "flag");
        Check.that(Arrays.equals(sent.getBody(), came.getBody()), "the body differs");
        for (Map.Entry<String, String> property : sent.getProperties().entrySet()) {
            Check.equal(property.getValue(), came.getProperty(property.getKey()), "property " + property.getKey());
        }
    }

    private static MessageExt take(BlockingQueue<MessageExt> received) throws InterruptedException {
        MessageExt message = received.poll(DELIVERY_MAX.toSeconds(), TimeUnit.SECONDS);
        Check.that(message != null, "the message has not come");
        return message;
    }

    /** Messages of one queue may reach the listener's threads in another order. */
    private static MessageExt takeByKey(BlockingQueue<MessageExt> received, String keys) throws InterruptedException {
        for (int i = 0; i < 1_000; i++) {
            MessageExt message = take(received);
            if (keys.equals(message.getKeys())) {
                return message;
            }
            received.add(message);
            Thread.sleep(5);
        }
        throw new AssertionError("no message with keys " + keys);
    }

    /** A producer, a topic and a consumer that keeps the ledger. */
    private static final class Bench {
        final DefaultMQProducer producer;
        final String topic;
        final Ledger ledger;
        private final long begun = System.nanoTime();

        Bench(World world) throws Exception {
            producer = world.producer();
            topic = world.topic(producer);
            ledger = new Ledger(topic);
            world.pushConsumer(world.name("group"), topic, "*", ledger::receive);
        }

        String finish(Positions positions) throws InterruptedException {
            double seconds = (System.nanoTime() - begun) / 1e9;
            positions.checkContiguous(MESSAGES);
            ledger.awaitExactly(DELIVERY_MAX);
            return String.format("%d sent to %d queues in %.1f s, each received once", MESSAGES, positions.queues(), seconds);
        }
    }
}
