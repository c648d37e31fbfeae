package apogee.interop;

import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.atomic.AtomicBoolean;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.ConsumeOrderlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.client.consumer.listener.MessageListenerOrderly;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.message.MessageQueue;

/** Messages whose consumption fails: again later, in the end among the dead letters. */
final class Retrying {
    private static final Duration RETRY_MAX = Duration.ofSeconds(60);
    private static final int MESSAGES = 6;

    private Retrying() {}

    /** Each comes again after its delay, counted, as often as the group allows; then it is a dead letter. */
    static String retry(World world) throws Exception {
        int retries = 3;
        DefaultMQProducer producer = world.producer();
        String topic = world.topic(producer);
        String group = world.name("group");
        Inbox inbox = new Inbox();
        DefaultMQPushConsumer consumer = world.pushConsumer(group);
        consumer.subscribe(topic, "Wanted");
        consumer.setMaxReconsumeTimes(retries);
        consumer.registerMessageListener((MessageListenerConcurrently) (messages, context) -> {
            messages.forEach(inbox);
            String key = messages.get(0).getKeys();
            int times = messages.get(0).getReconsumeTimes();
            // A second is the first level.
            context.setDelayLevelWhenNextConsume(1);
            boolean consumed = key.startsWith("once") && times >= 1 || key.startsWith("good");
            return consumed ? ConsumeConcurrentlyStatus.CONSUME_SUCCESS : ConsumeConcurrentlyStatus.RECONSUME_LATER;
        });
        consumer.start();
        List<String> bad = send(producer, topic, "bad");
        List<String> once = send(producer, topic, "once");
        List<String> good = send(producer, topic, "good");

        for (String key : bad) {
            inbox.await(key, retries + 1, RETRY_MAX);
        }
        for (String key : once) {
            inbox.await(key, 2, RETRY_MAX);
        }
        inbox.await(good, RETRY_MAX);
        Check.within(RETRY_MAX, () -> deadLetters(world, group).size() >= bad.size(),
            () -> "dead letters: " + deadLetters(world, group));
        for (String key : bad) {
            List<Inbox.Arrival> arrivals = inbox.of(key);
            Check.equal(retries + 1, arrivals.size(), "arrivals of " + key);
            for (int i = 0; i < arrivals.size(); i++) {
                MessageExt message = arrivals.get(i).message();
                Check.equal(i, message.getReconsumeTimes(), "reconsume times of " + key);
                Check.equal(topic, message.getTopic(), "topic of " + key);
                Check.equal("Wanted", message.getTags(), "tags of " + key);
                Check.that(Payload.isIntact(key, message.getBody()), "body of " + key);
                Check.equal(arrivals.get(0).message().getMsgId(), message.getMsgId(), "unique id of " + key);
                if (i > 0) {
                    long after = arrivals.get(i).atMs() - arrivals.get(i - 1).atMs();
                    Check.that(after >= 900, key + " came again after " + after + " ms");
                }
            }
        }
        once.forEach(key -> Check.equal(2, inbox.of(key).size(), "arrivals of " + key));
        good.forEach(key -> Check.equal(1, inbox.of(key).size(), "arrivals of " + key));
        Check.equal(List.copyOf(bad), deadLetters(world, group).stream().sorted().toList(), "dead letters");
        return bad.size() + " messages came " + (retries + 1) + " times and are dead letters; others came again once or not at all";
    }

    /** In order: the queue is held up meanwhile; after so many attempts its message is a dead letter and the next comes. */
    static String retryOrderly(World world) throws Exception {
        int retries = 2;
        DefaultMQProducer producer = world.producer();
        String topic = world.topic(producer);
        String group = world.name("group");
        MessageQueue queue = World.queuesOf(producer, topic).get(0);
        List<String> owed = List.of("a", "bad", "b", "again", "c");
        for (String key : owed) {
            producer.send(new Message(topic, "", key, Payload.of(key)), queue);
        }
        List<String> came = new ArrayList<>();
        AtomicBoolean complete = new AtomicBoolean();
        DefaultMQPushConsumer consumer = world.pushConsumer(group);
        consumer.subscribe(topic, "*");
        consumer.setMaxReconsumeTimes(retries);
        consumer.setConsumeMessageBatchMaxSize(1);
        consumer.registerMessageListener((MessageListenerOrderly) (messages, context) -> {
            context.setSuspendCurrentQueueTimeMillis(300);
            String key = messages.get(0).getKeys();
            synchronized (came) {
                came.add(key + messages.get(0).getReconsumeTimes());
            }
            complete.compareAndSet(false, key.equals("c"));
            boolean consumed = !key.equals("bad") && !(key.equals("again") && messages.get(0).getReconsumeTimes() == 0);
            return consumed ? ConsumeOrderlyStatus.SUCCESS : ConsumeOrderlyStatus.SUSPEND_CURRENT_QUEUE_A_MOMENT;
        });
        consumer.start();
        Check.within(RETRY_MAX, complete::get, () -> "came: " + came);
        synchronized (came) {
            Check.equal(List.of("a0", "bad0", "bad1", "bad2", "b0", "again0", "again1", "c0"), List.copyOf(came), "order");
        }
        Check.within(RETRY_MAX, () -> deadLetters(world, group).equals(List.of("bad")),
            () -> "dead letters: " + deadLetters(world, group));
        return "in order " + came + ", one dead letter";
    }

    /** Sent back by the application itself, with a delay of its choice, or straight to the dead letters. */
    static String sendBack(World world) throws Exception {
        DefaultMQProducer producer = world.producer();
        String topic = world.topic(producer);
        String group = world.name("group");
        Inbox inbox = new Inbox();
        List<Throwable> failures = new ArrayList<>();
        DefaultMQPushConsumer consumer = world.pushConsumer(group);
        consumer.subscribe(topic, "*");
        consumer.registerMessageListener(World.each(message -> {
            inbox.accept(message);
            int level = switch (message.getKeys()) {
                case "second" -> 1;
                case "seconds" -> 2;
                default -> -1;
            };
            if (message.getReconsumeTimes() == 0) {
                try {
                    consumer.sendMessageBack(message, level, message.getBrokerName());
                } catch (Exception e) {
                    failures.add(e);
                }
            }
        }));
        consumer.start();
        for (String key : List.of("second", "seconds", "dead")) {
            producer.send(new Message(topic, "", key, Payload.of(key)));
        }
        for (String key : List.of("second", "seconds")) {
            MessageExt again = inbox.await(key, 2, RETRY_MAX).message();
            Check.equal(1, again.getReconsumeTimes(), "reconsume times of " + key);
            long after = inbox.of(key).get(1).atMs() - inbox.of(key).get(0).atMs();
            Check.that(after >= (key.equals("second") ? 900 : 4_900), key + " came again after " + after + " ms");
        }
        Check.that(failures.isEmpty(), "sending back failed: " + failures);
        Check.within(RETRY_MAX, () -> deadLetters(world, group).equals(List.of("dead")),
            () -> "dead letters: " + deadLetters(world, group));
        Check.equal(1, inbox.of("dead").size(), "arrivals of the dead letter");
        return "came again after one and five seconds; one straight to the dead letters";
    }

    private static List<String> send(DefaultMQProducer producer, String topic, String prefix) throws Exception {
        List<String> keys = new ArrayList<>();
        for (int i = 0; i < MESSAGES; i++) {
            String key = prefix + "-" + i;
            keys.add(key);
            producer.send(new Message(topic, "Wanted", key, Payload.of(key)));
        }
        return keys;
    }

    static List<String> deadLetters(World world, String group) {
        return world.readAll("%DLQ%" + group).stream().map(MessageExt::getKeys).toList();
    }
}
