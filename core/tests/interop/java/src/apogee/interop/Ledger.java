package apogee.interop;

import java.time.Duration;
import java.util.List;
import java.util.Map;
import java.util.Queue;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.concurrent.atomic.AtomicLong;
import java.util.stream.Collectors;
import java.util.stream.IntStream;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageExt;

/** Which messages are owed, which came, how often, and whether they came as they were sent. Thread-safe. */
final class Ledger {
    /** Silence after which nothing more is expected. */
    private static final Duration QUIET = Duration.ofMillis(700);

    private final String topic;
    private final Set<String> owed = ConcurrentHashMap.newKeySet();
    private final Map<String, Integer> came = new ConcurrentHashMap<>();
    private final Queue<String> faults = new ConcurrentLinkedQueue<>();
    private final AtomicLong received = new AtomicLong();
    private volatile long lastReceived = System.nanoTime();

    Ledger(String topic) {
        this.topic = topic;
    }

    /** A message that is owed from now on. */
    Message owe(String key) {
        owed.add(key);
        return message(key);
    }

    List<Message> owe(String prefix, int count) {
        return IntStream.range(0, count).mapToObj(i -> owe(prefix + i)).collect(Collectors.toList());
    }

    /** A message that nobody waits for. */
    Message message(String key) {
        return new Message(topic, "", key, Payload.of(key));
    }

    void owe(Message message) {
        owed.add(message.getKeys());
    }

    void receive(List<? extends MessageExt> messages) {
        messages.forEach(this::receive);
    }

    void receive(MessageExt message) {
        String key = message.getKeys();
        if (key == null || !Payload.isIntact(key, message.getBody())) {
            fault("message " + key + " at " + place(message) + " has another body than was sent");
        } else {
            came.merge(key, 1, Integer::sum);
        }
        received.incrementAndGet();
        lastReceived = System.nanoTime();
    }

    /** Something that makes the scenario fail when it comes to {@link #awaitAll}. */
    void fault(String fault) {
        if (faults.size() < 5) {
            faults.add(fault);
        }
    }

    boolean hasCome(String key) {
        return came.containsKey(key);
    }

    long received() {
        return received.get();
    }

    int distinct() {
        return came.size();
    }

    long repeats() {
        return received.get() - came.size();
    }

    /** Waits until everything owed has come, whole, and nothing more comes. */
    void awaitOwed(Duration limit) throws InterruptedException {
        Check.within(limit, () -> came.size() >= owed.size() && came.keySet().containsAll(owed), this::missing);
        awaitQuiet();
        Check.that(faults.isEmpty(), "faults: " + faults);
    }

    /** As {@link #awaitOwed}, and nothing else may have come. */
    void awaitAll(Duration limit) throws InterruptedException {
        awaitOwed(limit);
        List<String> foreign = came.keySet().stream().filter(k -> !owed.contains(k)).limit(5).toList();
        Check.that(foreign.isEmpty(), "came though not owed: " + foreign + " and perhaps more");
    }

    /** As {@link #awaitAll}, and each exactly once. */
    void awaitExactly(Duration limit) throws InterruptedException {
        awaitAll(limit);
        Check.equal(0L, repeats(), "repeated messages");
    }

    private void awaitQuiet() throws InterruptedException {
        lastReceived = Math.max(lastReceived, System.nanoTime() - QUIET.toNanos() / 2);
        while (System.nanoTime() - lastReceived < QUIET.toNanos()) {
            Thread.sleep(20);
        }
    }

    private String missing() {
        List<String> missing = owed.stream().filter(k -> !came.containsKey(k)).toList();
        return missing.size() + " of " + owed.size() + " messages have not come, such as "
            + missing.stream().limit(5).toList() + "; faults: " + faults;
    }

    static String place(MessageExt message) {
        return message.getBrokerName() + "/" + message.getQueueId() + "/" + message.getQueueOffset();
    }
}
