package apogee.interop;

import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.Callable;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.Future;
import java.util.concurrent.Semaphore;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicLong;
import org.apache.rocketmq.client.consumer.DefaultMQPullConsumer;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.PullResult;
import org.apache.rocketmq.client.consumer.PullStatus;
import org.apache.rocketmq.client.consumer.listener.ConsumeOrderlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerOrderly;
import org.apache.rocketmq.client.hook.SendMessageContext;
import org.apache.rocketmq.client.hook.SendMessageHook;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.SendCallback;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.client.producer.SendStatus;
import org.apache.rocketmq.client.producer.selector.SelectMessageQueueByHash;
import org.apache.rocketmq.common.consumer.ConsumeFromWhere;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.message.MessageQueue;

/**
 * Clients as an application has them, with default settings, at work while the harness does its worst to the servers: it
 * is told what they count, and says {@code stop} on stdin when all is well again. Then every acknowledged message must
 * have been consumed, must be in its queue once per acknowledgement at least, and in the order it was sent in.
 */
final class Steady {
    private static final int SYNC_SENDERS = 4;
    private static final int ORDERED_SENDERS = 4;
    private static final int KEYS_PER_SENDER = 4;
    private static final int CONSUMERS = 2;
    /** Between two sends of one sender: load, but not so much that the machine is busy with it alone. */
    private static final long SYNC_PAUSE_MS = 4;
    private static final long ASYNC_PAUSE_MS = 3;
    private static final long ORDERED_PAUSE_MS = 6;
    private static final int ASYNC_UNANSWERED_MAX = 256;
    private static final long AFTER_FAILURE_MS = 20;
    private static final long PROGRESS_MS = 100;
    private static final Duration DELIVERY_MAX = Duration.ofSeconds(90);
    private static final Duration READ_MAX = Duration.ofSeconds(30);
    private static final int PULL_MAX = 32;
    private static final int FAULTS_SHOWN = 5;

    private final World world;
    private final String plainTopic;
    private final String orderedTopic;
    private final Ledger plain;
    private final Ledger ordered;
    private final Map<String, AtomicLong> counts = new ConcurrentHashMap<>();
    /** What stood at an acknowledged place. */
    private final Map<MessageQueue, Map<Long, String>> acked = new ConcurrentHashMap<>();
    private final Order consumed = new Order("consumed");
    private final List<DefaultMQPushConsumer> consumers = new ArrayList<>();
    private volatile boolean stopping;

    private Steady(World world, String plainTopic, String orderedTopic) {
        this.world = world;
        this.plainTopic = plainTopic;
        this.orderedTopic = orderedTopic;
        this.plain = new Ledger(plainTopic);
        this.ordered = new Ledger(orderedTopic);
    }

    static String steady(World world) throws Exception {
        DefaultMQProducer maker = world.producer();
        return new Steady(world, world.topic(maker), world.topic(maker)).run();
    }

    private String run() throws Exception {
        for (int i = 0; i < CONSUMERS; i++) {
            consumer("concurrent", plainTopic).registerMessageListener(World.each(plain::receive));
            consumer("orderly", orderedTopic).registerMessageListener((MessageListenerOrderly) (messages, context) -> {
                for (MessageExt message : messages) {
                    ordered.receive(message);
                    consumed.see(message, ordered);
                }
                return ConsumeOrderlyStatus.SUCCESS;
            });
        }
        for (DefaultMQPushConsumer consumer : consumers) {
            consumer.start();
        }

        List<Future<Void>> senders = new ArrayList<>();
        DefaultMQProducer sync = producer("sync");
        sync.getDefaultMQProducerImpl().registerSendMessageHook(new Tries());
        for (int s = 0; s < SYNC_SENDERS; s++) {
            String prefix = "sync-" + s + "-";
            senders.add(sender(SYNC_PAUSE_MS, new Callable<>() {
                private long next;

                @Override
                public Void call() throws Exception {
                    Message message = plain.message(prefix + next++);
                    attempt("sync", plain, message, () -> sync.send(message));
                    return null;
                }
            }));
        }
        senders.add(asyncSender(producer("async")));
        DefaultMQProducer orderly = producer("ordered");
        for (int s = 0; s < ORDERED_SENDERS; s++) {
            senders.add(orderedSender(orderly, s));
        }

        Future<Void> reporter = world.inBackground(() -> {
            while (!stopping) {
                report();
                Thread.sleep(PROGRESS_MS);
            }
            return null;
        });
        BufferedReader harness = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        Check.equal("stop", harness.readLine(), "word of the harness");
        stopping = true;
        for (Future<Void> sender : senders) {
            sender.get();
        }
        reporter.get();
        report();

        plain.awaitOwed(DELIVERY_MAX);
        ordered.awaitOwed(DELIVERY_MAX);
        long twice = checkStored();
        return String.format("%s; all consumed and where they were said to be; stored twice %d, consumed again %d",
            counts, twice, plain.repeats() + ordered.repeats());
    }

    /** Not started. Nothing is set but where to begin, and what a test needs at its end. */
    private DefaultMQPushConsumer consumer(String kind, String topic) throws Exception {
        DefaultMQPushConsumer consumer = new DefaultMQPushConsumer("steady-" + kind + "-" + topic);
        consumer.setNamesrvAddr(world.namesrv());
        consumer.setConsumeFromWhere(ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET);
        consumer.subscribe(topic, "*");
        world.onClose(consumer::shutdown);
        consumers.add(consumer);
        return consumer;
    }

    private DefaultMQProducer producer(String kind) throws Exception {
        DefaultMQProducer producer = new DefaultMQProducer("steady-" + kind);
        producer.setNamesrvAddr(world.namesrv());
        producer.start();
        world.onClose(producer::shutdown);
        return producer;
    }

    /** What became of each try of a thread's send: one that fails as a whole is explained by them. */
    private static final class Tries implements SendMessageHook {
        private static final ThreadLocal<List<String>> OF_THREAD = ThreadLocal.withInitial(ArrayList::new);

        private final ThreadLocal<Long> begun = new ThreadLocal<>();

        @Override
        public String hookName() {
            return "tries";
        }

        @Override
        public void sendMessageBefore(SendMessageContext context) {
            begun.set(System.nanoTime());
        }

        @Override
        public void sendMessageAfter(SendMessageContext context) {
            OF_THREAD.get().add(context.getMq().getBrokerName() + " at " + context.getBrokerAddr() + " "
                + (System.nanoTime() - begun.get()) / 1_000_000 + " ms: " + context.getException());
        }

        static List<String> take() {
            List<String> tries = OF_THREAD.get();
            OF_THREAD.remove();
            return tries;
        }
    }

    private Future<Void> sender(long pauseMs, Callable<Void> send) {
        return world.inBackground(() -> {
            while (!stopping) {
                send.call();
                Thread.sleep(pauseMs);
            }
            return null;
        });
    }

    private Future<Void> asyncSender(DefaultMQProducer producer) {
        return world.inBackground(() -> {
            Semaphore unanswered = new Semaphore(ASYNC_UNANSWERED_MAX);
            for (long i = 0; !stopping; i++) {
                unanswered.acquire();
                Message message = plain.message("async-" + i);
                long begun = System.nanoTime();
                SendCallback callback = new SendCallback() {
                    @Override
                    public void onSuccess(SendResult sent) {
                        succeeded("async", plain, message, sent, begun);
                        unanswered.release();
                    }

                    @Override
                    public void onException(Throwable e) {
                        failed("async", message, e, begun);
                        unanswered.release();
                    }
                };
                try {
                    producer.send(message, callback);
                } catch (InterruptedException e) {
                    throw e;
                } catch (Exception e) {
                    callback.onException(e);
                }
                Thread.sleep(ASYNC_PAUSE_MS);
            }
            unanswered.tryAcquire(ASYNC_UNANSWERED_MAX, 30, TimeUnit.SECONDS);
            return null;
        });
    }

    /** Each key has one message under way: the next is sent when the last was acknowledged. */
    private Future<Void> orderedSender(DefaultMQProducer producer, int sender) {
        SelectMessageQueueByHash selector = new SelectMessageQueueByHash();
        return world.inBackground(() -> {
            long[] next = new long[KEYS_PER_SENDER];
            for (int k = 0; !stopping; k = (k + 1) % KEYS_PER_SENDER) {
                String key = "key" + (sender * KEYS_PER_SENDER + k);
                Message message = ordered.message(key + "-" + next[k]);
                while (!attempt("ordered", ordered, message, () -> producer.send(message, selector, key)) && !stopping) {
                    Thread.sleep(AFTER_FAILURE_MS);
                }
                next[k]++;
                Thread.sleep(ORDERED_PAUSE_MS);
            }
            return null;
        });
    }

    private boolean attempt(String kind, Ledger ledger, Message message, Callable<SendResult> send) throws Exception {
        long begun = System.nanoTime();
        try {
            succeeded(kind, ledger, message, send.call(), begun);
            return true;
        } catch (InterruptedException e) {
            throw e;
        } catch (Exception e) {
            failed(kind, message, e, begun);
            return false;
        }
    }

    private void succeeded(String kind, Ledger ledger, Message message, SendResult sent, long begun) {
        took(kind, begun);
        Tries.take();
        if (sent.getSendStatus() != SendStatus.SEND_OK) {
            count(kind + "." + sent.getSendStatus());
        }
        String before = acked.computeIfAbsent(sent.getMessageQueue(), q -> new ConcurrentHashMap<>())
            .put(sent.getQueueOffset(), message.getKeys());
        if (before != null) {
            ledger.fault(before + " and " + message.getKeys() + " were both given offset " + sent.getQueueOffset()
                + " of " + sent.getMessageQueue());
        }
        ledger.owe(message);
        count(kind + ".acked");
    }

    private void failed(String kind, Message message, Throwable e, long begun) {
        took(kind, begun);
        count(kind + ".failed");
        System.err.println(System.currentTimeMillis() + " " + kind + " send of " + message.getKeys() + " failed after "
            + (System.nanoTime() - begun) / 1_000_000 + " ms: " + e + "; tries: " + Tries.take());
    }

    private void took(String kind, long begun) {
        counts.computeIfAbsent(kind + ".longest_ms", k -> new AtomicLong())
            .accumulateAndGet((System.nanoTime() - begun) / 1_000_000, Math::max);
    }

    private void count(String what) {
        counts.computeIfAbsent(what, k -> new AtomicLong()).incrementAndGet();
    }

    private void report() {
        count("reports");
        long all = counts.entrySet().stream().filter(e -> e.getKey().endsWith(".acked")).mapToLong(e -> e.getValue().get())
            .sum();
        Main.progress(all, counts);
    }

    /** Reads every queue whole; returns how many messages are there more than once. */
    private long checkStored() throws Exception {
        DefaultMQPullConsumer reader = world.pullConsumer(world.name("reader"));
        Order stored = new Order("stored");
        Set<String> seen = new HashSet<>();
        long twice = 0;
        for (String topic : List.of(plainTopic, orderedTopic)) {
            for (MessageQueue queue : reader.fetchSubscribeMessageQueues(topic)) {
                Map<Long, String> owed = acked.getOrDefault(queue, new ConcurrentHashMap<>());
                long expected = reader.minOffset(queue);
                Check.equal(0L, expected, "first offset of " + queue);
                for (MessageExt message : readWhole(reader, queue)) {
                    Check.equal(expected++, message.getQueueOffset(), "offsets of " + queue + " leave no hole");
                    String key = owed.remove(message.getQueueOffset());
                    Check.that(key == null || key.equals(message.getKeys()), "offset " + message.getQueueOffset()
                        + " of " + queue + " holds " + message.getKeys() + ", acknowledged was " + key);
                    Check.that(Payload.isIntact(message.getKeys(), message.getBody()), "body of " + message.getKeys());
                    if (!seen.add(message.getKeys())) {
                        twice++;
                    }
                    if (topic.equals(orderedTopic)) {
                        stored.see(message, ordered);
                    }
                }
                Check.that(owed.isEmpty(), owed.size() + " acknowledged messages are not in " + queue + ": "
                    + owed.entrySet().stream().limit(FAULTS_SHOWN).toList());
            }
        }
        ordered.awaitOwed(Duration.ofSeconds(1));
        return twice;
    }

    /** A slave that is asked may be a little behind, and an address a little old. */
    private static List<MessageExt> readWhole(DefaultMQPullConsumer reader, MessageQueue queue) throws Exception {
        long deadline = System.nanoTime() + READ_MAX.toNanos();
        List<MessageExt> all = new ArrayList<>();
        long end = reader.maxOffset(queue);
        for (long offset = 0; offset < end; ) {
            PullResult result = reader.pull(queue, "*", offset, PULL_MAX);
            if (result.getPullStatus() == PullStatus.FOUND) {
                all.addAll(result.getMsgFoundList());
                offset = result.getNextBeginOffset();
            } else {
                Check.that(System.nanoTime() < deadline, "cannot read " + queue + " at " + offset + " of " + end + ": " + result);
                Thread.sleep(20);
            }
        }
        return all;
    }

    /**
     * Whether the messages of each key come up in the order they were sent in. One that comes again, as at-least-once
     * delivery allows, tells nothing; one that comes for the first time must be behind all others of its key in its queue.
     */
    private static final class Order {
        private record Key(MessageQueue queue, String key) {}

        private static final class Seen {
            long last = -1;
            final Set<Long> all = new HashSet<>();
        }

        private final String where;
        private final Map<Key, Seen> keys = new ConcurrentHashMap<>();

        Order(String where) {
            this.where = where;
        }

        void see(MessageExt message, Ledger ledger) {
            int dash = message.getKeys().lastIndexOf('-');
            long number = Long.parseLong(message.getKeys().substring(dash + 1));
            Key key = new Key(Pulling.queueOf(message), message.getKeys().substring(0, dash));
            Seen seen = keys.computeIfAbsent(key, k -> new Seen());
            synchronized (seen) {
                if (seen.all.add(number) && number < seen.last) {
                    ledger.fault(where + " out of order: " + message.getKeys() + " at " + Ledger.place(message) + " after "
                        + seen.last);
                }
                seen.last = Math.max(seen.last, number);
            }
        }
    }
}
