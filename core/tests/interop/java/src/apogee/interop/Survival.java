package apogee.interop;

import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.stream.Collectors;
import java.util.stream.IntStream;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.MessageSelector;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.TransactionMQProducer;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageExt;

/**
 * What is under way when the server is killed goes on afterwards: delayed messages, half messages, retries, what was
 * popped and not acknowledged. The harness kills when it is asked to, and says {@code restarted} on stdin.
 */
final class Survival {
    private static final int COUNT = 20;
    private static final int KILLS = 3;
    /** From a restart: clients come back, retries and checks come round. */
    private static final Duration BACK_MAX = Duration.ofSeconds(120);

    private Survival() {}

    static String survive(World world) throws Exception {
        BufferedReader harness = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        DefaultMQProducer producer = world.producer();
        List<Part> parts = List.of(new Delayed(world, producer), new Halves(world, producer), new Retries(world, producer),
            new Filtered(world, producer), Newer.poppedPart(world));
        for (Part part : parts) {
            part.begin();
        }
        for (int kill = 0; kill < KILLS; kill++) {
            Main.waiting("restart");
            Check.equal("restarted", harness.readLine(), "word of the harness");
            if (kill < KILLS - 1) {
                Thread.sleep(2_500);
            }
        }
        List<String> found = new ArrayList<>();
        for (Part part : parts) {
            found.add(part.end());
        }
        return KILLS + " kills; " + String.join("; ", found);
    }

    /** Something that is under way. */
    interface Part {
        /** Returns when it is in the server's hands. */
        void begin() throws Exception;

        /** Waits for what must come of it. Returns what did, in words. */
        String end() throws Exception;
    }

    static List<String> keys(String prefix) {
        return IntStream.range(0, COUNT).mapToObj(i -> prefix + "-" + i).collect(Collectors.toList());
    }

    private static final class Delayed implements Part {
        private final DefaultMQProducer producer;
        private final String topic;
        private final Inbox inbox = new Inbox();
        private final Delaying.Due due = new Delaying.Due(Newer.EARLY_MS_MAX);

        Delayed(World world, DefaultMQProducer producer) throws Exception {
            this.producer = producer;
            topic = world.topic(producer);
            world.pushConsumer(world.name("group"), topic, "*", inbox);
        }

        @Override
        public void begin() throws Exception {
            for (int i = 0; i < COUNT; i++) {
                // Ten and thirty seconds.
                for (int level : List.of(3, 4)) {
                    Message message = Delaying.message(topic, "level-" + level + "-" + i);
                    message.setDelayTimeLevel(level);
                    due.send(producer, message, level == 3 ? 10_000 : 30_000);
                }
                Newer.sendTimer(producer, Delaying.message(topic, "timer-" + i), 20_000, due);
            }
        }

        @Override
        public String end() throws Exception {
            inbox.await(due.keys(), BACK_MAX);
            Thread.sleep(1_000);
            for (Inbox.Arrival arrival : inbox.await(due.keys(), BACK_MAX)) {
                due.checkNotEarly(arrival);
            }
            inbox.checkExactly(due.keys(), 1);
            return due.keys().size() + " delayed, each once";
        }
    }

    private static final class Halves implements Part {
        private final World world;
        private final String topic;
        private final Inbox inbox = new Inbox();
        private final List<String> owed = new ArrayList<>();

        Halves(World world, DefaultMQProducer producer) throws Exception {
            this.world = world;
            topic = world.topic(producer);
            world.pushConsumer(world.name("group"), topic, "*", inbox);
        }

        @Override
        public void begin() throws Exception {
            TransactionMQProducer producer = world.transactionProducer(world.name("producer"), new Transactions.Judge());
            for (String answers : List.of("COMMIT", "ROLLBACK", "UNKNOW,COMMIT", "UNKNOW,ROLLBACK")) {
                List<String> keys = Transactions.send(producer, topic, answers, COUNT);
                if (answers.endsWith("COMMIT")) {
                    owed.addAll(keys);
                }
            }
        }

        @Override
        public String end() throws Exception {
            inbox.await(owed, BACK_MAX);
            inbox.checkNothingBut(owed);
            return owed.size() + " committed";
        }
    }

    private static final class Retries implements Part {
        private final World world;
        private final DefaultMQProducer producer;
        private final String topic;
        private final String group;
        private final Inbox inbox = new Inbox();
        private final List<String> again = keys("again");
        private final List<String> bad = keys("bad");

        Retries(World world, DefaultMQProducer producer) throws Exception {
            this.world = world;
            this.producer = producer;
            topic = world.topic(producer);
            group = world.name("group");
        }

        @Override
        public void begin() throws Exception {
            DefaultMQPushConsumer consumer = world.pushConsumer(group);
            consumer.subscribe(topic, "*");
            consumer.setMaxReconsumeTimes(1);
            consumer.registerMessageListener((MessageListenerConcurrently) (messages, context) -> {
                messages.forEach(inbox);
                // Ten seconds.
                context.setDelayLevelWhenNextConsume(3);
                boolean consumed = messages.get(0).getReconsumeTimes() > 0 && messages.get(0).getKeys().startsWith("again");
                return consumed ? ConsumeConcurrentlyStatus.CONSUME_SUCCESS : ConsumeConcurrentlyStatus.RECONSUME_LATER;
            });
            consumer.start();
            for (List<String> keys : List.of(again, bad)) {
                for (String key : keys) {
                    producer.send(new Message(topic, "", key, Payload.of(key)));
                }
                inbox.await(keys, BACK_MAX);
            }
        }

        @Override
        public String end() throws Exception {
            for (List<String> keys : List.of(again, bad)) {
                for (String key : keys) {
                    inbox.await(key, 2, BACK_MAX);
                }
            }
            Check.within(BACK_MAX, () -> Retrying.deadLetters(world, group).containsAll(bad),
                () -> "dead letters: " + Retrying.deadLetters(world, group));
            return again.size() + " consumed at the second time, " + bad.size() + " dead letters";
        }
    }

    /** Nothing of these is in the server's memory any more when they are asked for. */
    private static final class Filtered implements Part {
        private final World world;
        private final DefaultMQProducer producer;
        private final String topic;
        private final List<String> owed = new ArrayList<>();
        private final List<String> ids = new ArrayList<>();

        Filtered(World world, DefaultMQProducer producer) throws Exception {
            this.world = world;
            this.producer = producer;
            topic = world.topic(producer);
        }

        @Override
        public void begin() throws Exception {
            for (int i = 0; i < 50 * COUNT; i++) {
                String key = "filtered-" + i;
                Message message = new Message(topic, "", key, Payload.of(key));
                message.putUserProperty("n", String.valueOf(i));
                ids.add(producer.send(message).getMsgId());
                if (i >= 100 && i < 200) {
                    owed.add(key);
                }
            }
        }

        @Override
        public String end() throws Exception {
            Inbox inbox = new Inbox();
            DefaultMQPushConsumer consumer = world.pushConsumer(world.name("group"));
            consumer.subscribe(topic, MessageSelector.bySql("n BETWEEN 100 AND 199"));
            consumer.registerMessageListener(World.each(inbox));
            consumer.start();
            inbox.await(owed, BACK_MAX);
            inbox.checkExactly(owed, 1);
            MessageExt found = world.admin().viewMessage(topic, ids.get(ids.size() / 2));
            Check.equal("filtered-" + ids.size() / 2, found.getKeys(), "key of a message found by its unique id");
            return owed.size() + " of " + ids.size() + " by an expression";
        }
    }
}
