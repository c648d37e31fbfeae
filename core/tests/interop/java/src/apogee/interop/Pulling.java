package apogee.interop;

import java.time.Duration;
import java.util.ArrayList;
import java.util.Collection;
import java.util.Comparator;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import org.apache.rocketmq.client.consumer.DefaultLitePullConsumer;
import org.apache.rocketmq.client.consumer.DefaultMQPullConsumer;
import org.apache.rocketmq.client.consumer.PullResult;
import org.apache.rocketmq.client.consumer.PullStatus;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.message.MessageQueue;

/** Consumers that say themselves what they want: pull, lite pull, offsets by time. */
final class Pulling {
    private static final int PULL_MAX = 32;
    private static final int MESSAGES_PER_QUEUE = 100;
    /** The least that the client allows. */
    private static final long AUTO_COMMIT_MS = 1_000;
    private static final Duration DELIVERY_MAX = Duration.ofSeconds(40);

    private Pulling() {}

    /** Every answer that a pull can get, and offsets of queues and groups. */
    static String pull(World world) throws Exception {
        DefaultMQProducer producer = world.producer();
        Filled filled = new Filled(world, producer);
        DefaultMQPullConsumer consumer = world.pullConsumer(world.name("group"));

        Set<MessageQueue> queues = consumer.fetchSubscribeMessageQueues(filled.topic);
        Check.equal(new HashSet<>(World.queuesOf(producer, filled.topic)), queues, "queues to consume");
        for (MessageQueue queue : filled.queues()) {
            long end = MESSAGES_PER_QUEUE;
            Check.equal(0L, consumer.minOffset(queue), "minimum offset");
            Check.equal(end, consumer.maxOffset(queue), "maximum offset");

            List<MessageExt> all = pullAll(consumer, queue, "*");
            filled.check(queue, all);
            PullResult atEnd = consumer.pull(queue, "*", end, PULL_MAX);
            checkPull(atEnd, PullStatus.NO_NEW_MSG, end, "pull at the end");
            checkPull(consumer.pull(queue, "*", end + 100, PULL_MAX), PullStatus.OFFSET_ILLEGAL, end, "pull beyond the end");

            List<MessageExt> some = pullAll(consumer, queue, "TagA");
            Check.equal(all.stream().filter(m -> m.getTags().equals("TagA")).map(MessageExt::getQueueOffset).toList(),
                some.stream().map(MessageExt::getQueueOffset).toList(), "offsets of messages of one tag");
            PullResult none = consumer.pull(queue, "TagZ", 0, PULL_MAX);
            Check.equal(PullStatus.NO_MATCHED_MSG, none.getPullStatus(), "pull of a tag that no message has");
            Check.that(none.getNextBeginOffset() > 0, "a pull without matches must move on");

            PullResult few = consumer.pull(queue, "*", 7, 3);
            Check.equal(List.of(7L, 8L, 9L), few.getMsgFoundList().stream().map(MessageExt::getQueueOffset).toList(),
                "offsets of a pull of three");
            checkPull(few, PullStatus.FOUND, 10, "pull of three");
        }
        checkPull(consumer.pull(filled.empty, "*", 0, PULL_MAX), PullStatus.NO_NEW_MSG, 0, "pull of an empty queue");
        checkPull(consumer.pull(filled.empty, "*", 5, PULL_MAX), PullStatus.OFFSET_ILLEGAL, 0,
            "pull of an empty queue at 5");
        Check.equal(0L, consumer.minOffset(filled.empty), "minimum offset of an empty queue");
        Check.equal(0L, consumer.maxOffset(filled.empty), "maximum offset of an empty queue");

        // A pull that waits is answered by the next message.
        Future<PullResult> waiting = world.inBackground(() -> consumer.pullBlockIfNotFound(filled.empty, "*", 0, PULL_MAX));
        Thread.sleep(1_500);
        Check.that(!waiting.isDone(), "a pull of an empty queue did not wait");
        producer.send(new Message(filled.topic, "", "late", Payload.of("late")), filled.empty);
        PullResult answered = waiting.get(3, TimeUnit.SECONDS);
        checkPull(answered, PullStatus.FOUND, 1, "pull that waited");
        Check.equal("late", answered.getMsgFoundList().get(0).getKeys(), "key of the message waited for");

        String group = world.name("group");
        DefaultMQPullConsumer writer = world.pullConsumer(group);
        DefaultMQPullConsumer reader = world.pullConsumer(group);
        for (MessageQueue queue : filled.queues()) {
            // A group exists from its first pull on; before, 5.x refuses its offsets.
            writer.pull(queue, "*", 0, 1);
            for (long offset : List.of(17L, 42L, 3L)) {
                writer.getDefaultMQPullConsumerImpl().getOffsetStore().updateConsumeOffsetToBroker(queue, offset, false);
                Check.equal(offset, reader.fetchConsumeOffset(queue, true), "offset of the group");
            }
        }
        return queues.size() + " queues, " + filled.queues().size() * MESSAGES_PER_QUEUE + " messages";
    }

    /** The offset for a time is that of the first message stored at it or later. */
    static String searchOffset(World world) throws Exception {
        DefaultMQProducer producer = world.producer();
        Filled filled = new Filled(world, producer);
        DefaultMQPullConsumer consumer = world.pullConsumer(world.name("group"));
        int asked = 0;
        for (MessageQueue queue : filled.queues()) {
            List<MessageExt> all = pullAll(consumer, queue, "*");
            List<Long> times = new ArrayList<>(List.of(0L, System.currentTimeMillis() + 3_600_000));
            for (int i = 0; i < all.size(); i += 9) {
                long stored = all.get(i).getStoreTimestamp();
                times.addAll(List.of(stored - 1, stored, stored + 1));
            }
            for (long time : times) {
                long expected = all.stream().filter(m -> m.getStoreTimestamp() < time).count();
                Check.equal(expected, consumer.searchOffset(queue, time), "offset for time " + time + " in " + queue);
                asked++;
            }
        }
        Check.equal(0L, consumer.searchOffset(filled.empty, System.currentTimeMillis()), "offset in an empty queue");
        return asked + " times asked for";
    }

    /** The lite consumer in a group: takes everything, commits by itself, and its successor goes on after it. */
    static String litePull(World world) throws Exception {
        int part = 1_000;
        DefaultMQProducer producer = world.producer();
        String topic = world.topic(producer);
        String group = world.name("group");
        Ledger ledger = new Ledger(topic);
        for (int round = 0; round < 2; round++) {
            for (Message message : ledger.owe("lite-" + round + "-", part)) {
                producer.send(message);
            }
            DefaultLitePullConsumer consumer = world.litePullConsumer(group);
            consumer.setAutoCommitIntervalMillis(AUTO_COMMIT_MS);
            consumer.subscribe(topic, "*");
            consumer.start();
            int owed = part * (round + 1);
            Check.within(DELIVERY_MAX, () -> pollInto(ledger, consumer) && ledger.distinct() >= owed,
                () -> ledger.distinct() + " of " + owed + " messages polled");
            // It is the polls after the last message that commit it, and shutdown brings that to the broker.
            long until = System.nanoTime() + 2 * AUTO_COMMIT_MS * 1_000_000L;
            while (System.nanoTime() < until) {
                pollInto(ledger, consumer);
            }
            consumer.shutdown();
            ledger.awaitExactly(DELIVERY_MAX);
        }

        Ledger tagged = new Ledger(topic);
        for (int i = 0; i < 60; i++) {
            Message message = i % 3 == 0 ? tagged.message("tag-" + i) : tagged.owe("tag-" + i);
            message.setTags("Tag" + (char) ('A' + i % 3));
            producer.send(message);
        }
        DefaultLitePullConsumer consumer = world.litePullConsumer(world.name("group"));
        consumer.subscribe(topic, "TagB || TagC");
        consumer.start();
        Check.within(DELIVERY_MAX, () -> pollInto(tagged, consumer) && tagged.distinct() >= 40,
            () -> tagged.distinct() + " messages of two tags polled");
        tagged.awaitExactly(DELIVERY_MAX);
        return 2 * part + " messages by two consumers in turn, none repeated; 40 by tag";
    }

    private static boolean pollInto(Ledger ledger, DefaultLitePullConsumer consumer) {
        ledger.receive(consumer.poll(200));
        return true;
    }

    /** The lite consumer without a group's help: it takes what it names, from where it says. */
    static String assignAndSeek(World world) throws Exception {
        DefaultMQProducer producer = world.producer();
        Filled filled = new Filled(world, producer);
        String group = world.name("group");
        DefaultLitePullConsumer consumer = world.litePullConsumer(group);
        consumer.setAutoCommit(false);
        consumer.start();
        Collection<MessageQueue> all = consumer.fetchMessageQueues(filled.topic);
        Check.equal(new HashSet<>(World.queuesOf(producer, filled.topic)), new HashSet<>(all), "queues to assign");

        List<MessageQueue> queues = filled.queues();
        consumer.assign(queues);
        // A pull task that begins just when a seek replaces it may take the offset to seek to, be interrupted, and leave its
        // successor to begin at the end (4.9.8). Once all of them wait for the broker, none does.
        Thread.sleep(500);
        for (MessageQueue queue : queues) {
            consumer.seekToBegin(queue);
        }
        Map<MessageQueue, List<MessageExt>> polled = pollFrom(consumer, queues, 0, MESSAGES_PER_QUEUE);
        for (MessageQueue queue : queues) {
            filled.check(queue, polled.get(queue));
        }

        int middle = MESSAGES_PER_QUEUE / 2;
        for (MessageQueue queue : queues) {
            consumer.seek(queue, middle);
        }
        pollFrom(consumer, queues, middle, MESSAGES_PER_QUEUE);

        for (MessageQueue queue : queues) {
            consumer.seekToEnd(queue);
            MessageExt later = filled.messages.get(queue).get(30);
            long expected = filled.messages.get(queue).stream()
                .filter(m -> m.getStoreTimestamp() < later.getStoreTimestamp()).count();
            Check.equal(expected, consumer.offsetForTimestamp(queue, later.getStoreTimestamp()), "offset for a time");
        }
        MessageQueue one = queues.get(0);
        producer.send(new Message(filled.topic, "", "late", Payload.of("late")), one);
        List<MessageExt> late = pollFrom(consumer, List.of(one), MESSAGES_PER_QUEUE, MESSAGES_PER_QUEUE + 1).get(one);
        Check.equal("late", late.get(0).getKeys(), "key of the first message after a seek to the end");
        // A commit is the client's own until shutdown, or a timer, brings it to the broker.
        consumer.commitSync();
        consumer.shutdown();
        DefaultLitePullConsumer successor = world.litePullConsumer(group);
        successor.start();
        Check.equal(MESSAGES_PER_QUEUE + 1L, successor.committed(one), "offset of the group");
        return queues.size() + " queues from the beginning, the middle and the end";
    }

    /**
     * The messages of each queue from one offset up to another, in order and without a gap. What the client had
     * fetched before a seek may still come, first or in between: a pull task that a seek replaces puts what it had in
     * flight behind what its successor has fetched already (`DefaultLitePullConsumerImpl.PullTaskImpl`).
     */
    private static Map<MessageQueue, List<MessageExt>> pollFrom(DefaultLitePullConsumer consumer,
        List<MessageQueue> queues, int from, int to) throws InterruptedException {
        Map<MessageQueue, List<MessageExt>> polled = new HashMap<>();
        queues.forEach(queue -> polled.put(queue, new ArrayList<>()));
        Check.within(DELIVERY_MAX, () -> {
            for (MessageExt message : consumer.poll(200)) {
                List<MessageExt> found = polled.getOrDefault(queueOf(message), new ArrayList<>());
                if (message.getQueueOffset() == from) {
                    found.clear();
                }
                if (message.getQueueOffset() == from + found.size()) {
                    found.add(message);
                } else if (message.getQueueOffset() > from + found.size()) {
                    Check.that(found.isEmpty(), Ledger.place(message) + " came rather than offset " + (from + found.size()));
                }
            }
            return polled.values().stream().allMatch(found -> found.size() == to - from);
        }, () -> "polled of each queue: " + polled.values().stream().map(List::size).toList());
        return polled;
    }

    private static List<MessageExt> pullAll(DefaultMQPullConsumer consumer, MessageQueue queue, String tags)
        throws Exception {
        return pullAll(consumer, queue, tags, 0);
    }

    /** Everything from an offset to the end of the queue. */
    static List<MessageExt> pullAll(DefaultMQPullConsumer consumer, MessageQueue queue, String tags, long from)
        throws Exception {
        List<MessageExt> all = new ArrayList<>();
        long end = consumer.maxOffset(queue);
        for (long offset = from; offset < end; ) {
            PullResult result = consumer.pull(queue, tags, offset, PULL_MAX);
            boolean found = result.getPullStatus() == PullStatus.FOUND;
            Check.that(found || result.getPullStatus() == PullStatus.NO_MATCHED_MSG, "pull at " + offset + ": " + result);
            Check.that(result.getNextBeginOffset() > offset, "a pull must move on: " + result);
            Check.equal(end, Math.max(end, result.getMaxOffset()), "maximum offset");
            if (found) {
                Check.that(result.getMsgFoundList().size() <= PULL_MAX, "more messages than asked for");
                all.addAll(result.getMsgFoundList());
            }
            offset = result.getNextBeginOffset();
        }
        return all;
    }

    private static void checkPull(PullResult result, PullStatus status, long next, String what) {
        Check.equal(status, result.getPullStatus(), what);
        Check.equal(next, result.getNextBeginOffset(), "next offset after a " + what);
    }

    static MessageQueue queueOf(MessageExt message) {
        return new MessageQueue(message.getTopic(), message.getBrokerName(), message.getQueueId());
    }

    /** A topic whose queues, but one, hold {@link #MESSAGES_PER_QUEUE} messages each. */
    private static final class Filled {
        final String topic;
        final MessageQueue empty;
        final Map<MessageQueue, List<MessageExt>> messages = new TreeMap<>(Comparator.naturalOrder());
        private final Map<MessageQueue, List<String>> keys = new HashMap<>();

        Filled(World world, DefaultMQProducer producer) throws Exception {
            topic = world.topic(producer);
            List<MessageQueue> queues = new ArrayList<>(World.queuesOf(producer, topic));
            empty = queues.remove(queues.size() - 1);
            for (int i = 0; i < MESSAGES_PER_QUEUE; i++) {
                for (MessageQueue queue : queues) {
                    String key = queue.getBrokerName() + "-" + queue.getQueueId() + "-" + i;
                    Message message = new Message(topic, "Tag" + (char) ('A' + i % 5), key, Payload.of(key));
                    SendResult sent = producer.send(message, queue);
                    Check.equal(queue, sent.getMessageQueue(), "queue of a message sent to a chosen one");
                    Check.equal((long) i, sent.getQueueOffset(), "offset of a message");
                    keys.computeIfAbsent(queue, q -> new ArrayList<>()).add(key);
                }
                if (i % 10 == 0) {
                    // Different times for the search by time.
                    Thread.sleep(3);
                }
            }
            DefaultMQPullConsumer consumer = world.pullConsumer(world.name("group"));
            for (MessageQueue queue : queues) {
                messages.put(queue, pullAll(consumer, queue, "*"));
            }
        }

        List<MessageQueue> queues() {
            return List.copyOf(messages.keySet());
        }

        /** All of the queue's messages, in order, whole. */
        void check(MessageQueue queue, List<MessageExt> found) {
            Check.equal(keys.get(queue), found.stream().map(MessageExt::getKeys).toList(), "keys in " + queue);
            for (int i = 0; i < found.size(); i++) {
                MessageExt message = found.get(i);
                Check.equal((long) i, message.getQueueOffset(), "offset in " + queue);
                Check.equal(queue, queueOf(message), "queue of a message");
                Check.that(Payload.isIntact(message.getKeys(), message.getBody()), "body of " + message.getKeys());
            }
        }
    }
}
