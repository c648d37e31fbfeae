package apogee.interop;

import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.client.producer.SendStatus;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageExt;

/** Messages that come later. Timers, which only the 5 line has, are in {@code Newer}. */
final class Delaying {
    /** What a busy machine makes of "on time". */
    static final Duration LATE_MAX = Duration.ofSeconds(20);
    /** Levels count from one; RocketMQ's default. */
    private static final Map<Integer, Integer> SECONDS_OF_LEVEL = new TreeMap<>(Map.of(1, 1, 2, 5, 3, 10, 4, 30));
    private static final int PER_LEVEL = 5;

    private Delaying() {}

    /** Each comes once, in its own topic, after its level's time; those without a level come at once. */
    static String delayLevel(World world) throws Exception {
        DefaultMQProducer producer = world.producer();
        String topic = world.topic(producer);
        Inbox inbox = new Inbox();
        world.pushConsumer(world.name("group"), topic, "Later", inbox);
        Due due = new Due(0);
        for (int i = 0; i < PER_LEVEL; i++) {
            for (Map.Entry<Integer, Integer> level : SECONDS_OF_LEVEL.entrySet()) {
                Message message = message(topic, "level-" + level.getKey() + "-" + i);
                message.setDelayTimeLevel(level.getKey());
                due.send(producer, message, level.getValue() * 1_000L);
            }
            due.send(producer, message(topic, "level-0-" + i), 0);
            // Of another tag, which is not subscribed.
            Message other = message(topic, "other-" + i);
            other.setTags("Other");
            other.setDelayTimeLevel(1);
            producer.send(other);
        }
        String lateness = due.await(inbox);
        inbox.checkExactly(due.keys(), 1);
        for (String key : due.keys()) {
            MessageExt message = inbox.of(key).get(0).message();
            Check.equal(topic, message.getTopic(), "topic of " + key);
            Check.equal("Later", message.getTags(), "tags of " + key);
            Check.equal("kept", message.getUserProperty("mine"), "property of " + key);
            Check.equal(0, message.getReconsumeTimes(), "reconsume times of " + key);
        }
        return due.keys().size() + " messages of levels " + SECONDS_OF_LEVEL.keySet() + ", " + lateness;
    }

    static Message message(String topic, String key) {
        Message message = new Message(topic, "Later", key, Payload.of(key));
        message.putUserProperty("mine", "kept");
        return message;
    }

    /** Which message is due when. */
    static final class Due {
        private final long earlyMaxMs;
        private final Map<String, Long> dueMs = new TreeMap<>();

        Due(long earlyMaxMs) {
            this.earlyMaxMs = earlyMaxMs;
        }

        SendResult send(DefaultMQProducer producer, Message message, long delayMs) throws Exception {
            dueMs.put(message.getKeys(), System.currentTimeMillis() + delayMs);
            SendResult sent = producer.send(message);
            Check.equal(SendStatus.SEND_OK, sent.getSendStatus(), "status of a send");
            return sent;
        }

        List<String> keys() {
            return new ArrayList<>(dueMs.keySet());
        }

        /** Returns how late it came. */
        long checkNotEarly(Inbox.Arrival arrival) {
            String key = arrival.message().getKeys();
            long lateMs = arrival.atMs() - dueMs.get(key);
            Check.that(lateMs >= -earlyMaxMs, key + " came " + -lateMs + " ms early");
            return lateMs;
        }

        /** None early, none late. Returns how late they were, in words. */
        String await(Inbox inbox) throws InterruptedException {
            long last = dueMs.values().stream().mapToLong(Long::longValue).max().orElse(0);
            Duration wait = Duration.ofMillis(Math.max(0, last - System.currentTimeMillis())).plus(LATE_MAX);
            List<Long> late = new ArrayList<>();
            for (Inbox.Arrival arrival : inbox.await(keys(), wait)) {
                long lateMs = checkNotEarly(arrival);
                Check.that(lateMs <= LATE_MAX.toMillis(), arrival.message().getKeys() + " came " + lateMs + " ms late");
                late.add(lateMs);
            }
            late.sort(null);
            return "late by " + late.get(late.size() / 2) + " ms in the middle, " + late.get(late.size() - 1) + " ms at most";
        }
    }
}
