package apogee.interop;

import java.time.Duration;
import java.time.Instant;
import java.time.ZoneId;
import java.time.format.DateTimeFormatter;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicLong;
import java.util.function.Consumer;
import java.util.function.Predicate;
import java.util.stream.Collectors;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.MessageSelector;
import org.apache.rocketmq.client.consumer.listener.ConsumeOrderlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerOrderly;
import org.apache.rocketmq.client.exception.MQClientException;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.common.consumer.ConsumeFromWhere;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.message.MessageQueue;

/** Push consumers: shares, filters, order, where they begin and where they go on. */
final class Pushing {
    private static final Duration DELIVERY_MAX = Duration.ofSeconds(40);
    /** Consumers rebalance by themselves every 20 s; who learns of a change later than this was not notified. */
    private static final Duration NOTIFIED_MAX = Duration.ofSeconds(15);
    /** A queue is unlocked by one consumer and locked by the next, whose second attempt comes 20 s after the first. */
    private static final Duration LOCK_HANDOVER_MAX = Duration.ofSeconds(60);

    private static final int SUBSCRIPTION_PARSE_FAILED = 23;

    private Pushing() {}

    /** Two consumers share a topic, a third comes and goes: each gets a share, and together they get everything. */
    static String clustering(World world) throws Exception {
        DefaultMQProducer producer = world.producer();
        String topic = world.topic(producer);
        String group = world.name("group");
        Ledger ledger = new Ledger(topic);
        Member a = new Member(world, group, topic, ledger);
        Member b = new Member(world, group, topic, ledger);
        Traffic traffic = new Traffic(world, producer, ledger, 500);

        int queues = World.queuesOf(producer, topic).size();
        long two = awaitShares(queues, a, b);
        Member c = new Member(world, group, topic, ledger);
        long three = awaitShares(queues, a, b, c);
        c.consumer.shutdown();
        long twoAgain = awaitShares(queues, a, b);
        traffic.stop();
        ledger.awaitAll(DELIVERY_MAX);
        return String.format("%d messages, shares %d + %d + %d, %d repeated; allocated after %d ms, %d ms, %d ms",
            traffic.sent(), a.count.get(), b.count.get(), c.count.get(), ledger.repeats(), two, three, twoAgain);
    }

    /** Waits until the members have all queues between them and each gets messages. Returns how long the first took. */
    private static long awaitShares(int queues, Member... members) throws InterruptedException {
        long begun = System.nanoTime();
        Check.within(NOTIFIED_MAX, () -> isShared(queues, members),
            () -> "queues allocated: " + Arrays.stream(members).map(m -> m.queues().size()).toList() + " of " + queues);
        long allocated = System.nanoTime();
        for (Member member : members) {
            long goal = member.count.get() + 50;
            Check.within(DELIVERY_MAX, () -> member.count.get() >= goal,
                () -> "a consumer with " + member.queues() + " gets no messages");
        }
        return (allocated - begun) / 1_000_000;
    }

    private static boolean isShared(int queues, Member... members) {
        Set<MessageQueue> shared = new HashSet<>();
        int sum = 0;
        for (Member member : members) {
            Set<MessageQueue> own = member.queues();
            shared.addAll(own);
            sum += own.size();
            // The algorithm is AVG: no member has two more than another.
            if (own.size() < queues / members.length) {
                return false;
            }
        }
        return sum == queues && shared.size() == queues;
    }

    /** Each of two consumers gets everything. */
    static String broadcast(World world) throws Exception {
        int messages = 2_000;
        DefaultMQProducer producer = world.producer();
        String topic = world.topic(producer);
        String group = world.name("group");
        List<Ledger> ledgers = List.of(new Ledger(topic), new Ledger(topic));
        for (Ledger ledger : ledgers) {
            DefaultMQPushConsumer consumer = world.pushConsumer(group);
            // The type has another package in each line of the client.
            consumer.setMessageModel(Enum.valueOf(consumer.getMessageModel().getDeclaringClass(), "BROADCASTING"));
            consumer.subscribe(topic, "*");
            consumer.registerMessageListener(World.each(ledger::receive));
            consumer.start();
        }
        for (int i = 0; i < messages; i++) {
            for (Ledger ledger : ledgers) {
                ledger.owe("broadcast-" + i);
            }
            producer.send(ledgers.get(0).message("broadcast-" + i));
        }
        for (Ledger ledger : ledgers) {
            ledger.awaitExactly(DELIVERY_MAX);
        }
        return messages + " messages, each received once by each of " + ledgers.size();
    }

    /** Of two tags, and of a tag that shares its hash with one that is not wanted. */
    static String tagFilter(World world) throws Exception {
        int messages = 1_200;
        Check.equal("Aa".hashCode(), "BB".hashCode(), "hash of two tags");
        String[] tags = {"TagA", "TagB", "TagC", "TagD", "Aa", "BB", "", "tagA"};
        Set<String> wanted = Set.of("TagA", "TagC", "Aa");
        DefaultMQProducer producer = world.producer();
        String topic = world.topic(producer);
        Ledger some = new Ledger(topic);
        Ledger all = new Ledger(topic);
        world.pushConsumer(world.name("group"), topic, "TagA || TagC||Aa", some::receive);
        world.pushConsumer(world.name("group"), topic, "*", all::receive);
        for (int i = 0; i < messages; i++) {
            String tag = tags[i % tags.length];
            Message message = all.owe("tag-" + i);
            message.setTags(tag);
            if (wanted.contains(tag)) {
                some.owe(message);
            }
            producer.send(message);
        }
        all.awaitExactly(DELIVERY_MAX);
        some.awaitExactly(DELIVERY_MAX);
        return some.received() + " of " + messages + " messages, " + all.received() + " without a filter";
    }

    /** Filtered by an expression: what comes while the consumer is there, and what was stored before it came. */
    static String sqlFilter(World world) throws Exception {
        int messages = 300;
        DefaultMQProducer producer = world.producer();
        String topic = world.topic(producer);
        Map<String, Predicate<Coloured>> expressions = Map.of(
            "n >= 100 AND colour = 'red'", c -> c.n >= 100 && c.red(),
            "n BETWEEN 10 AND 20 OR colour IN ('blue', 'green') AND n < 50", c -> c.n >= 10 && c.n <= 20 || !c.red() && c.n < 50,
            "absent IS NULL AND NOT (n <= 250) AND colour IS NOT NULL", c -> c.n > 250,
            "absent = 1", c -> false,
            "TAGS = 'Odd' AND n > 200", c -> !c.red() && c.n > 200,
            "flag = TRUE AND ratio > 0.5 AND n < 100", c -> c.red() && c.n > 50 && c.n < 100);
        Map<String, Ledger> ledgers = new HashMap<>();
        for (String expression : expressions.keySet()) {
            for (String time : List.of("early ", "late ")) {
                ledgers.put(time + expression, new Ledger(topic));
            }
            sqlConsumer(world, topic, expression, ledgers.get("early " + expression));
        }
        for (int i = 0; i < messages; i++) {
            Coloured coloured = new Coloured(i);
            Message message = new Message(topic, coloured.red() ? "Even" : "Odd", "sql-" + i, Payload.of("sql-" + i));
            message.putUserProperty("n", Integer.toString(i));
            message.putUserProperty("colour", coloured.red() ? "red" : "blue");
            message.putUserProperty("flag", Boolean.toString(coloured.red()));
            message.putUserProperty("ratio", Double.toString(i / 100.0));
            expressions.forEach((expression, wanted) -> {
                if (wanted.test(coloured)) {
                    ledgers.get("early " + expression).owe(message);
                    ledgers.get("late " + expression).owe(message);
                }
            });
            producer.send(message);
        }
        for (String expression : expressions.keySet()) {
            sqlConsumer(world, topic, expression, ledgers.get("late " + expression));
        }
        for (Ledger ledger : ledgers.values()) {
            ledger.awaitExactly(DELIVERY_MAX);
        }
        return expressions.size() + " expressions over " + messages + " messages, twice: "
            + ledgers.values().stream().map(Ledger::received).toList();
    }

    private static void sqlConsumer(World world, String topic, String expression, Ledger ledger) throws MQClientException {
        DefaultMQPushConsumer consumer = world.pushConsumer(world.name("group"));
        consumer.subscribe(topic, MessageSelector.bySql(expression));
        consumer.registerMessageListener(World.each(ledger::receive));
        consumer.start();
    }

    private record Coloured(int n) {
        boolean red() {
            return n % 2 == 0;
        }
    }

    /** Who subscribes with something that is no expression is told so when it starts. */
    static String sqlError(World world) throws Exception {
        DefaultMQProducer producer = world.producer();
        String topic = world.topic(producer);
        List<String> wrong = List.of("n >", "n BETWEEN 1", "colour = 'red", "(n > 1", "n > > 1", "n ! 5", "colour IN ()");
        for (String expression : wrong) {
            DefaultMQPushConsumer consumer = world.pushConsumer(world.name("group"));
            consumer.subscribe(topic, MessageSelector.bySql(expression));
            consumer.registerMessageListener(World.each(message -> { }));
            try {
                consumer.start();
                throw new AssertionError("accepted: " + expression);
            } catch (MQClientException refused) {
                Check.equal(SUBSCRIPTION_PARSE_FAILED, refused.getResponseCode(), "code for " + expression);
            }
        }
        return wrong.size() + " expressions refused at start with code " + SUBSCRIPTION_PARSE_FAILED;
    }

    /**
     * Each key's messages come in order and without a gap, and no queue is consumed by two consumers at once, also
     * while a second consumer joins and leaves. A message may come again when its queue changes hands.
     */
    static String ordered(World world) throws Exception {
        int keys = 40;
        DefaultMQProducer producer = world.producer();
        String topic = world.topic(producer);
        String group = world.name("group");
        Ledger ledger = new Ledger(topic);
        OrderJudge judge = new OrderJudge(ledger);

        AtomicInteger next = new AtomicInteger();
        Traffic traffic = new Traffic(world, 500, () -> {
            int i = next.getAndIncrement();
            Message message = ledger.owe("ordered-" + i % keys + "-" + i / keys);
            producer.send(message, (queues, m, key) -> queues.get((Integer) key % queues.size()), i % keys);
        });
        AtomicLong countA = new AtomicLong();
        AtomicLong countB = new AtomicLong();
        orderly(world, group, topic, judge, countA);
        Check.within(LOCK_HANDOVER_MAX, () -> countA.get() > 300, () -> "the first consumer gets nothing");
        DefaultMQPushConsumer b = orderly(world, group, topic, judge, countB);
        Check.within(LOCK_HANDOVER_MAX, () -> countB.get() > 100, () -> "the second consumer gets nothing");
        b.shutdown();
        traffic.stop();
        ledger.awaitAll(LOCK_HANDOVER_MAX);
        judge.checkComplete(keys, next.get());
        return String.format("%d messages of %d keys in order, %d + %d of them by two consumers, %d repeated",
            next.get(), keys, countA.get(), countB.get(), ledger.repeats());
    }

    private static DefaultMQPushConsumer orderly(World world, String group, String topic, OrderJudge judge,
        AtomicLong count) throws Exception {
        DefaultMQPushConsumer consumer = world.pushConsumer(group);
        consumer.subscribe(topic, "*");
        consumer.registerMessageListener((MessageListenerOrderly) (messages, context) -> {
            messages.forEach(judge::consume);
            count.addAndGet(messages.size());
            return ConsumeOrderlyStatus.SUCCESS;
        });
        consumer.start();
        return consumer;
    }

    /**
     * A consumer goes on where the group stopped. After an orderly end nothing comes again; after an end in the middle
     * of the work only what was in work.
     */
    static String resume(World world) throws Exception {
        int part = 2_000;
        DefaultMQProducer producer = world.producer();
        String topic = world.topic(producer);
        String group = world.name("group");
        Ledger ledger = new Ledger(topic);

        DefaultMQPushConsumer first = world.pushConsumer(group, topic, "*", ledger::receive);
        send(producer, ledger.owe("resume-first-", part));
        ledger.awaitExactly(DELIVERY_MAX);
        first.shutdown();

        send(producer, ledger.owe("resume-second-", part));
        CountingConsumer slow = new CountingConsumer(ledger, 10);
        DefaultMQPushConsumer second = world.pushConsumer(group, topic, "*", slow);
        second.setAwaitTerminationMillisWhenShutdown(0);
        Check.within(DELIVERY_MAX, () -> slow.count.get() >= part / 8, () -> "the second consumer gets nothing");
        second.shutdown();
        Check.equal(0L, ledger.repeats(), "messages that came again after an orderly end");
        long consumedBefore = slow.count.get();
        Check.that(consumedBefore < part, "the second consumer was to be stopped in the middle of its work");

        world.pushConsumer(group, topic, "*", ledger::receive);
        ledger.awaitAll(DELIVERY_MAX);
        // A queue's offset is that of its oldest message in work: what the threads had finished beyond it comes again.
        long inWorkMax = 500;
        Check.that(ledger.repeats() <= inWorkMax, ledger.repeats() + " messages came again");
        return String.format("%d messages by three consumers in turn, the second stopped after %d, %d repeated",
            2 * part, consumedBefore, ledger.repeats());
    }

    /**
     * A group without offsets begins where its consumer says. A broker may answer for a young queue, all of which is
     * still in memory, that the group is at its start: then the older messages come too, in full.
     */
    static String startFrom(World world) throws Exception {
        int part = 400;
        DefaultMQProducer producer = world.producer();
        String topic = world.topic(producer);
        Ledger first = new Ledger(topic);
        Ledger timed = new Ledger(topic);
        send(producer, first.owe("start-old-", part));
        // The time is given in whole seconds.
        Thread.sleep(1_100);
        Instant between = Instant.ofEpochSecond(System.currentTimeMillis() / 1_000);
        Thread.sleep(1_100);
        List<Message> newer = first.owe("start-new-", part);
        newer.forEach(timed::owe);
        send(producer, newer);

        world.pushConsumer(world.name("group"), topic, "*", first::receive);
        first.awaitExactly(DELIVERY_MAX);

        DefaultMQPushConsumer consumer = world.pushConsumer(world.name("group"));
        consumer.setConsumeFromWhere(ConsumeFromWhere.CONSUME_FROM_TIMESTAMP);
        consumer.setConsumeTimestamp(
            DateTimeFormatter.ofPattern("yyyyMMddHHmmss").withZone(ZoneId.systemDefault()).format(between));
        consumer.subscribe(topic, "*");
        AtomicInteger older = new AtomicInteger();
        consumer.registerMessageListener(World.each(m -> {
            if (m.getKeys().startsWith("start-old-")) {
                older.incrementAndGet();
            } else {
                timed.receive(m);
            }
        }));
        consumer.start();
        timed.awaitExactly(DELIVERY_MAX);
        Check.that(older.get() == 0 || older.get() == part, older.get() + " of " + part + " older messages came");
        return String.format("from the first: %d messages; from a time: the %d newer and %d older", 2 * part, part, older.get());
    }

    /** A waiting consumer gets a message when it arrives, not when its wait is over. */
    static String longPoll(World world) throws Exception {
        int messages = 20;
        // Far below the 15 s for which the client lets a pull wait, far above what a busy machine makes of "at once".
        Duration latencyMax = Duration.ofSeconds(3);
        DefaultMQProducer producer = world.producer();
        String topic = world.topic(producer);
        Ledger ledger = new Ledger(topic);
        world.pushConsumer(world.name("group"), topic, "*", ledger::receive);
        // All queues are pulled once this has come, and waiting a while later.
        for (MessageQueue queue : World.queuesOf(producer, topic)) {
            producer.send(ledger.owe("poll-first-" + queue), queue);
        }
        ledger.awaitExactly(DELIVERY_MAX);
        Thread.sleep(1_000);
        long worst = 0;
        for (int i = 0; i < messages; i++) {
            String key = "poll-" + i;
            Message message = ledger.owe(key);
            long sent = System.nanoTime();
            producer.send(message);
            Check.within(latencyMax, () -> ledger.hasCome(key), () -> key + " came late or not at all");
            worst = Math.max(worst, System.nanoTime() - sent);
            Thread.sleep(100);
        }
        ledger.awaitExactly(DELIVERY_MAX);
        return String.format("%d messages, slowest %d ms", messages, worst / 1_000_000);
    }

    private static void send(DefaultMQProducer producer, List<Message> messages) throws Exception {
        for (Message message : messages) {
            producer.send(message);
        }
    }

    /** A consumer of a group, and its share. */
    private static final class Member {
        final DefaultMQPushConsumer consumer;
        final AtomicLong count = new AtomicLong();

        Member(World world, String group, String topic, Ledger ledger) throws Exception {
            consumer = world.pushConsumer(group, topic, "*", m -> {
                count.incrementAndGet();
                ledger.receive(m);
            });
        }

        /** What the client has allocated to itself, without the group's retry queues. */
        Set<MessageQueue> queues() {
            Set<MessageQueue> all = consumer.getDefaultMQPushConsumerImpl().getRebalanceImpl().getProcessQueueTable().keySet();
            return all.stream().filter(queue -> !queue.getTopic().startsWith("%RETRY%")).collect(Collectors.toSet());
        }
    }

    /** A listener that takes its time. */
    private static final class CountingConsumer implements Consumer<MessageExt> {
        final AtomicLong count = new AtomicLong();
        private final Ledger ledger;
        private final long millis;

        CountingConsumer(Ledger ledger, long millis) {
            this.ledger = ledger;
            this.millis = millis;
        }

        @Override
        public void accept(MessageExt message) {
            try {
                Thread.sleep(millis);
            } catch (InterruptedException e) {
                Thread.currentThread().interrupt();
            }
            ledger.receive(message);
            count.incrementAndGet();
        }
    }

    /** Watches order within keys and exclusivity of queues. */
    private static final class OrderJudge {
        private final Ledger ledger;
        private final Map<String, Integer> lastOfKey = new ConcurrentHashMap<>();
        private final Set<String> queuesInWork = ConcurrentHashMap.newKeySet();

        OrderJudge(Ledger ledger) {
            this.ledger = ledger;
        }

        void consume(MessageExt message) {
            String queue = message.getBrokerName() + "/" + message.getQueueId();
            if (!queuesInWork.add(queue)) {
                ledger.fault("queue " + queue + " is consumed twice at the same time");
            }
            String[] parts = message.getKeys().split("-");
            int number = Integer.parseInt(parts[2]);
            int last = lastOfKey.getOrDefault(parts[1], -1);
            if (number > last + 1) {
                ledger.fault("key " + parts[1] + ": " + number + " after " + last);
            }
            lastOfKey.put(parts[1], number);
            ledger.receive(message);
            queuesInWork.remove(queue);
        }

        void checkComplete(int keys, int messages) {
            List<String> short_ = new ArrayList<>();
            for (int key = 0; key < keys; key++) {
                int owed = (messages - key + keys - 1) / keys - 1;
                if (lastOfKey.getOrDefault(Integer.toString(key), -1) != owed) {
                    short_.add(key + ": " + lastOfKey.get(Integer.toString(key)) + " rather than " + owed);
                }
            }
            Check.that(short_.isEmpty(), "last numbers of keys: " + short_);
        }
    }
}
