package apogee.interop;

import java.time.Duration;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.stream.Collectors;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.client.exception.MQBrokerException;
import org.apache.rocketmq.client.exception.MQClientException;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.SendCallback;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.common.TopicConfig;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.message.MessageRequestMode;
import org.apache.rocketmq.tools.admin.DefaultMQAdminExt;

/** What only the 5 line can do: timers and their recall, batches that the client makes, batch topics, pop. */
final class Newer {
    static final Map<String, Main.Scenario> SCENARIOS = new LinkedHashMap<>();

    static {
        SCENARIOS.put("timer", Newer::timer);
        SCENARIOS.put("recall", Newer::recall);
        SCENARIOS.put("auto_batch", Newer::autoBatch);
        SCENARIOS.put("inner_batch", Newer::innerBatch);
        SCENARIOS.put("pop", Newer::pop);
        SCENARIOS.put("pop_retry", Newer::popRetry);
        SCENARIOS.put("pop_revive", Newer::popRevive);
    }

    /** RocketMQ's wheel counts in seconds: a timer may go off up to one too early. */
    static final long EARLY_MS_MAX = 1_100;
    private static final Duration DELIVERY_MAX = Duration.ofSeconds(60);
    private static final int MESSAGE_ILLEGAL = 13;
    private static final long DAY_SECONDS = 24 * 3_600;

    private static final int STUCK = 20;
    private static final long INVISIBLE_MS = 10_000;
    /** Acknowledgements leave the client a moment after the messages were consumed. */
    private static final long ACKNOWLEDGED_MS = 2_000;

    private Newer() {}

    /** At any time within three days, given in three ways; what is due already comes at once; what is later is refused. */
    static String timer(World world) throws Exception {
        DefaultMQProducer producer = world.producer();
        String topic = world.topic(producer);
        Inbox inbox = new Inbox();
        world.pushConsumer(world.name("group"), topic, "Later", inbox);
        Delaying.Due due = new Delaying.Due(EARLY_MS_MAX);
        for (int i = 0; i < 5; i++) {
            Message seconds = Delaying.message(topic, "seconds-" + i);
            seconds.setDelayTimeSec(2 + i);
            due.send(producer, seconds, (2 + i) * 1_000L);
            Message millis = Delaying.message(topic, "millis-" + i);
            millis.setDelayTimeMs(2_300 + 500L * i);
            due.send(producer, millis, 2_300 + 500L * i);
            Message at = Delaying.message(topic, "at-" + i);
            at.setDeliverTimeMs(System.currentTimeMillis() + 12_000 + 100L * i);
            due.send(producer, at, 12_000 + 100L * i);
            Message past = Delaying.message(topic, "past-" + i);
            past.setDeliverTimeMs(System.currentTimeMillis() - 10_000);
            due.send(producer, past, 0);
        }
        Message never = Delaying.message(topic, "never");
        never.setDelayTimeSec(4 * DAY_SECONDS);
        try {
            throw new AssertionError("a timer of four days was taken: " + producer.send(never));
        } catch (MQBrokerException refused) {
            Check.equal(MESSAGE_ILLEGAL, refused.getResponseCode(), "code for a timer of four days");
        }
        String lateness = due.await(inbox);
        inbox.checkExactly(due.keys(), 1);
        for (String key : due.keys()) {
            MessageExt message = inbox.of(key).get(0).message();
            Check.equal(topic, message.getTopic(), "topic of " + key);
            Check.equal("kept", message.getUserProperty("mine"), "property of " + key);
        }
        return due.keys().size() + " timers, " + lateness;
    }

    /** A timer that is recalled does not come; one that is due already cannot be recalled. */
    static String recall(World world) throws Exception {
        DefaultMQProducer producer = world.producer();
        String topic = world.topic(producer);
        Inbox inbox = new Inbox();
        world.pushConsumer(world.name("group"), topic, "Later", inbox);
        Delaying.Due due = new Delaying.Due(EARLY_MS_MAX);
        int pairs = 5;
        for (int i = 0; i < pairs; i++) {
            Message recalled = Delaying.message(topic, "recalled-" + i);
            recalled.setDelayTimeSec(10);
            SendResult sent = producer.send(recalled);
            Check.that(sent.getRecallHandle() != null, "no handle to recall with");
            String id = producer.recallMessage(topic, sent.getRecallHandle());
            Check.equal(sent.getMsgId(), id, "id of the message recalled");
            Message stays = Delaying.message(topic, "stays-" + i);
            stays.setDelayTimeSec(10);
            due.send(producer, stays, 10_000);
        }
        String lateness = due.await(inbox);
        Thread.sleep(2_000);
        inbox.checkExactly(due.keys(), 1);
        Message plain = Delaying.message(topic, "plain");
        Check.equal(null, producer.send(plain).getRecallHandle(), "handle of a message that is no timer");
        for (String handle : List.of("", "no handle", "djEg")) {
            try {
                throw new AssertionError("recalled by " + handle + ": " + producer.recallMessage(topic, handle));
            } catch (MQBrokerException | MQClientException expected) {
                // Refused by the client or by the broker.
            }
        }
        return pairs + " of " + 2 * pairs + " timers recalled; the others " + lateness;
    }

    /** Single sends that the client puts together: each gets its own result, and comes once. */
    static String autoBatch(World world) throws Exception {
        int messages = 2_000;
        DefaultMQProducer producer = world.producer();
        String topic = world.topic(producer);
        producer.setAutoBatch(true);
        producer.batchMaxDelayMs(20);
        Ledger ledger = new Ledger(topic);
        world.pushConsumer(world.name("group"), topic, "*", ledger::receive);
        CountDownLatch answered = new CountDownLatch(messages);
        List<Throwable> failures = new ArrayList<>();
        Positions positions = new Positions();
        for (Message message : ledger.owe("auto-", messages)) {
            producer.send(message, new SendCallback() {
                @Override
                public void onSuccess(SendResult result) {
                    try {
                        positions.add(result);
                    } catch (AssertionError e) {
                        onException(e);
                        return;
                    }
                    answered.countDown();
                }

                @Override
                public void onException(Throwable e) {
                    synchronized (failures) {
                        failures.add(e);
                    }
                    answered.countDown();
                }
            });
        }
        Check.within(DELIVERY_MAX, () -> answered.getCount() == 0, () -> answered.getCount() + " sends without an answer");
        Check.that(failures.isEmpty(), failures.size() + " sends failed, such as " + failures.stream().findFirst());
        ledger.awaitExactly(DELIVERY_MAX);
        return messages + " messages in batches of the client's own making";
    }

    /** A topic of batches: each batch is stored as one record, takes as many offsets as it has messages, and comes apart. */
    static String innerBatch(World world) throws Exception {
        int batches = 60;
        int size = 20;
        DefaultMQProducer producer = world.producer();
        DefaultMQAdminExt admin = world.admin();
        String topic = world.name("topic");
        List<String> addresses = World.brokerAddresses(admin);
        for (String address : addresses) {
            TopicConfig config = new TopicConfig(topic, 2, 2, 6);
            config.setAttributes(Map.of("+queue.type", "BatchCQ"));
            admin.createAndUpdateTopicConfig(address, config);
        }
        World.awaitRoute(producer, topic, 2 * addresses.size());
        Ledger ledger = new Ledger(topic);
        world.pushConsumer(world.name("group"), topic, "*", ledger::receive);
        Positions positions = new Positions();
        for (int i = 0; i < batches; i++) {
            List<Message> batch = ledger.owe("inner-" + i + "-", size);
            positions.add(producer.send(batch), size);
        }
        positions.checkContiguous(batches * size);
        ledger.awaitExactly(DELIVERY_MAX);
        // Once more from the first message, by a group that comes later.
        Ledger late = new Ledger(topic);
        for (int i = 0; i < batches; i++) {
            late.owe("inner-" + i + "-", size);
        }
        world.pushConsumer(world.name("group"), topic, "*", late::receive);
        late.awaitExactly(DELIVERY_MAX);
        return batches + " batches of " + size + ", each message received once by each of two groups";
    }

    /** Consumers that pop share every queue; nothing comes twice, and a consumer that comes later goes on. */
    static String pop(World world) throws Exception {
        int messages = 1_000;
        Popping popping = new Popping(world);
        Ledger ledger = new Ledger(popping.topic);
        AtomicInteger[] counts = {new AtomicInteger(), new AtomicInteger()};
        List<DefaultMQPushConsumer> consumers = new ArrayList<>();
        for (AtomicInteger count : counts) {
            consumers.add(popping.consumer(World.each(message -> {
                count.incrementAndGet();
                ledger.receive(message);
            })));
        }
        for (Message message : ledger.owe("pop-", messages)) {
            popping.producer.send(message);
        }
        ledger.awaitExactly(DELIVERY_MAX);
        consumers.forEach(DefaultMQPushConsumer::shutdown);
        popping.consumer(World.each(ledger::receive));
        for (Message message : ledger.owe("later-", messages)) {
            popping.producer.send(message);
        }
        ledger.awaitExactly(DELIVERY_MAX);
        return String.format("%d messages, %d + %d of the first half by two consumers", 2 * messages, counts[0].get(), counts[1].get());
    }

    /** What fails comes again when its invisible time, which the client changes, is over; in the end it is a dead letter. */
    static String popRetry(World world) throws Exception {
        Popping popping = new Popping(world);
        Inbox inbox = new Inbox();
        DefaultMQPushConsumer consumer = popping.newConsumer();
        consumer.setMaxReconsumeTimes(2);
        consumer.registerMessageListener((MessageListenerConcurrently) (list, context) -> {
            list.forEach(inbox);
            boolean consumed = list.stream().allMatch(m -> m.getKeys().startsWith("good")
                || m.getKeys().startsWith("once") && m.getReconsumeTimes() > 0);
            return consumed ? ConsumeConcurrentlyStatus.CONSUME_SUCCESS : ConsumeConcurrentlyStatus.RECONSUME_LATER;
        });
        consumer.start();
        List<String> good = popping.send("good", 5);
        List<String> once = popping.send("once", 5);
        inbox.await(good, DELIVERY_MAX);
        for (String key : once) {
            MessageExt again = inbox.await(key, 2, Duration.ofSeconds(90)).message();
            Check.equal(1, again.getReconsumeTimes(), "reconsume times of " + key);
            Check.equal(popping.topic, again.getTopic(), "topic of " + key);
            Check.that(Payload.isIntact(key, again.getBody()), "body of " + key);
        }
        Thread.sleep(2_000);
        good.forEach(key -> Check.equal(1, inbox.of(key).size(), "arrivals of " + key));
        once.forEach(key -> Check.equal(2, inbox.of(key).size(), "arrivals of " + key));
        long after = once.stream().mapToLong(key -> inbox.of(key).get(1).atMs() - inbox.of(key).get(0).atMs()).max().orElse(0);
        return once.size() + " messages came again, the last after " + after + " ms";
    }

    /** What a consumer took and never finished comes to another when its invisible time is over; what it finished does not. */
    static String popRevive(World world) throws Exception {
        Popping popping = new Popping(world);
        Inbox first = new Inbox();
        CountDownLatch released = new CountDownLatch(1);
        world.onClose(released::countDown);
        DefaultMQPushConsumer stuck = popping.stuckConsumer(first, released);
        List<String> finished = popping.send("finished", STUCK);
        List<String> unfinished = popping.send("stuck", STUCK);
        first.await(finished, DELIVERY_MAX);
        first.await(unfinished, DELIVERY_MAX);
        Thread.sleep(ACKNOWLEDGED_MS);
        stuck.shutdown();

        Inbox second = new Inbox();
        popping.consumer(World.each(second));
        second.await(unfinished, Duration.ofSeconds(90));
        second.checkExactly(unfinished, 1);
        long earliest = unfinished.stream()
            .mapToLong(key -> second.of(key).get(0).atMs() - first.of(key).get(0).atMs()).min().orElse(0);
        Check.that(earliest >= INVISIBLE_MS - 1_500, "came again after " + earliest + " ms, within the invisible time");
        long last = unfinished.stream()
            .mapToLong(key -> second.of(key).get(0).atMs() - first.of(key).get(0).atMs()).max().orElse(0);
        return unfinished.size() + " came again after " + earliest + " to " + last + " ms, " + finished.size() + " did not";
    }

    static void sendTimer(DefaultMQProducer producer, Message message, long delayMs, Delaying.Due due) throws Exception {
        message.setDelayTimeMs(delayMs);
        due.send(producer, message, delayMs);
    }

    /** Popped before the server is killed: what was acknowledged does not come again, the rest does. */
    static Survival.Part poppedPart(World world) throws Exception {
        return new Survival.Part() {
            private final Popping popping = new Popping(world);
            private final Inbox first = new Inbox();
            private final CountDownLatch released = new CountDownLatch(1);
            private DefaultMQPushConsumer stuck;
            private List<String> finished;
            private List<String> unfinished;

            @Override
            public void begin() throws Exception {
                world.onClose(released::countDown);
                stuck = popping.stuckConsumer(first, released);
                finished = popping.send("finished", STUCK);
                unfinished = popping.send("stuck", STUCK);
                first.await(finished, DELIVERY_MAX);
                first.await(unfinished, DELIVERY_MAX);
                Thread.sleep(ACKNOWLEDGED_MS);
                stuck.shutdown();
            }

            @Override
            public String end() throws Exception {
                Inbox second = new Inbox();
                popping.consumer(World.each(second));
                second.await(unfinished, Duration.ofSeconds(120));
                second.checkNothingBut(unfinished);
                return unfinished.size() + " popped and not acknowledged came again, " + finished.size() + " did not";
            }
        };
    }

    /** A topic and a group whose consumers pop. */
    private static final class Popping {
        final World world;
        final DefaultMQProducer producer;
        final String topic;
        final String group;

        Popping(World world) throws Exception {
            this.world = world;
            producer = world.producer();
            topic = world.topic(producer);
            group = world.name("group");
            DefaultMQAdminExt admin = world.admin();
            for (String address : World.brokerAddresses(admin)) {
                Line.createGroup(admin, address, group);
                admin.setMessageRequestMode(address, topic, group, MessageRequestMode.POP, 8, 5_000);
            }
        }

        /** Not started: it asks the broker which queues are its own, and in which way to take messages. */
        DefaultMQPushConsumer newConsumer() throws Exception {
            DefaultMQPushConsumer consumer = world.pushConsumer(group);
            consumer.setClientRebalance(false);
            consumer.subscribe(topic, "*");
            return consumer;
        }

        DefaultMQPushConsumer consumer(MessageListenerConcurrently listener) throws Exception {
            DefaultMQPushConsumer consumer = newConsumer();
            consumer.registerMessageListener(listener);
            consumer.start();
            return consumer;
        }

        /** Started; it never finishes messages whose keys begin with {@code stuck}, until it is released. */
        DefaultMQPushConsumer stuckConsumer(Inbox inbox, CountDownLatch released) throws Exception {
            DefaultMQPushConsumer stuck = newConsumer();
            stuck.setPopInvisibleTime(INVISIBLE_MS);
            stuck.setAwaitTerminationMillisWhenShutdown(0);
            stuck.setConsumeThreadMin(2 * STUCK);
            stuck.setConsumeThreadMax(2 * STUCK);
            stuck.registerMessageListener((MessageListenerConcurrently) (list, context) -> {
                list.forEach(inbox);
                if (list.get(0).getKeys().startsWith("stuck")) {
                    try {
                        released.await();
                    } catch (InterruptedException e) {
                        Thread.currentThread().interrupt();
                    }
                }
                return ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
            });
            stuck.start();
            return stuck;
        }

        List<String> send(String prefix, int count) throws Exception {
            List<String> keys = new ArrayList<>();
            for (int i = 0; i < count; i++) {
                String key = prefix + "-" + i;
                keys.add(key);
                producer.send(new Message(topic, "", key, Payload.of(key)));
            }
            return keys.stream().sorted().collect(Collectors.toList());
        }
    }
}
