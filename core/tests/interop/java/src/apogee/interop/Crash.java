package apogee.interop;

import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ConcurrentSkipListMap;
import java.util.concurrent.Future;
import java.util.concurrent.atomic.AtomicLong;
import org.apache.rocketmq.client.consumer.DefaultMQPullConsumer;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.client.producer.SendStatus;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.message.MessageQueue;

/**
 * The server is killed again and again while this sends and consumes. The harness kills; it is told how far this has
 * come, and says {@code stop} on stdin when it is done. Later it kills once more, when asked to, and says
 * {@code restarted}.
 */
final class Crash {
    private static final int SENDERS = 4;
    private static final int SEND_TIMEOUT_MS = 2_000;
    private static final Duration DELIVERY_MAX = Duration.ofSeconds(60);
    /** RocketMQ writes group offsets to disk every 5 s. */
    private static final Duration OFFSETS_DURABLE = Duration.ofMillis(6_000);

    private Crash() {}

    static String crash(World world) throws Exception {
        DefaultMQProducer producer = world.producer();
        producer.setSendMsgTimeout(SEND_TIMEOUT_MS);
        String topic = world.topic(producer);
        String group = world.name("group");
        Ledger ledger = new Ledger(topic);
        DefaultMQPushConsumer survivor = world.pushConsumer(group, topic, "*", ledger::receive);

        Map<MessageQueue, Map<Long, String>> acked = new ConcurrentHashMap<>();
        AtomicLong ackedCount = new AtomicLong();
        AtomicLong failedCount = new AtomicLong();
        BufferedReader harness = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        Flag stopping = new Flag();
        List<Future<Void>> senders = new ArrayList<>();
        for (int s = 0; s < SENDERS; s++) {
            String prefix = "crash-" + s + "-";
            senders.add(world.inBackground(() -> {
                for (int i = 0; !stopping.raised; i++) {
                    Message message = ledger.message(prefix + i);
                    try {
                        SendResult sent = producer.send(message);
                        Check.equal(SendStatus.SEND_OK, sent.getSendStatus(), "status of a send");
                        String before = acked.computeIfAbsent(sent.getMessageQueue(), q -> new ConcurrentSkipListMap<>())
                            .put(sent.getQueueOffset(), message.getKeys());
                        if (before != null) {
                            ledger.fault(before + " and " + message.getKeys() + " were both given offset "
                                + sent.getQueueOffset() + " of " + sent.getMessageQueue());
                        }
                        ledger.owe(message);
                        ackedCount.incrementAndGet();
                    } catch (InterruptedException e) {
                        throw e;
                    } catch (Exception whileDown) {
                        failedCount.incrementAndGet();
                        Thread.sleep(20);
                    }
                }
                return null;
            }));
        }
        Future<Void> reporter = world.inBackground(() -> {
            while (!stopping.raised) {
                Main.progress(ackedCount.get());
                Thread.sleep(100);
            }
            return null;
        });
        Check.equal("stop", harness.readLine(), "word of the harness");
        stopping.raised = true;
        for (Future<Void> sender : senders) {
            sender.get();
        }
        reporter.get();

        ledger.awaitOwed(DELIVERY_MAX);
        checkPositions(world.pullConsumer(world.name("group")), acked);

        // The group's offsets outlive a kill too.
        survivor.shutdown();
        Thread.sleep(OFFSETS_DURABLE.toMillis());
        Main.waiting("restart");
        Check.equal("restarted", harness.readLine(), "word of the harness");
        long repeatsBefore = ledger.repeats();
        world.pushConsumer(group, topic, "*", ledger::receive);
        DefaultMQProducer late = world.producer();
        for (int i = 0; i < 20; i++) {
            late.send(ledger.owe("crash-late-" + i));
        }
        ledger.awaitOwed(DELIVERY_MAX);
        Check.equal(repeatsBefore, ledger.repeats(), "repeats after the group's offsets should have been durable");
        checkPositions(world.pullConsumer(world.name("group")), acked);
        return String.format("%d acknowledged, all there and where they were said to be; %d sends failed, %d repeats consumed",
            ackedCount.get(), failedCount.get(), repeatsBefore);
    }

    /** Each acknowledged message is at the offset that was acknowledged. */
    private static void checkPositions(DefaultMQPullConsumer consumer, Map<MessageQueue, Map<Long, String>> acked)
        throws Exception {
        for (Map.Entry<MessageQueue, Map<Long, String>> entry : acked.entrySet()) {
            MessageQueue queue = entry.getKey();
            Map<Long, String> owed = new ConcurrentHashMap<>(entry.getValue());
            for (MessageExt message : Pulling.pullAll(consumer, queue, "*", consumer.minOffset(queue))) {
                String key = owed.remove(message.getQueueOffset());
                Check.that(key == null || key.equals(message.getKeys()), "offset " + message.getQueueOffset() + " of "
                    + queue + " holds " + message.getKeys() + ", acknowledged was " + key);
                Check.that(Payload.isIntact(message.getKeys(), message.getBody()), "body of " + message.getKeys());
            }
            Check.that(owed.isEmpty(), owed.size() + " acknowledged messages are not in " + queue + ": " + owed);
        }
    }

    private static final class Flag {
        volatile boolean raised;
    }
}
