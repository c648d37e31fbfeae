package apogee.interop;

import java.time.Duration;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Deque;
import java.util.List;
import java.util.concurrent.Callable;
import java.util.concurrent.ConcurrentLinkedDeque;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.function.Consumer;
import java.util.stream.Collectors;
import org.apache.rocketmq.client.ClientConfig;
import org.apache.rocketmq.client.consumer.DefaultLitePullConsumer;
import org.apache.rocketmq.client.consumer.DefaultMQPullConsumer;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.TransactionListener;
import org.apache.rocketmq.client.producer.TransactionMQProducer;
import org.apache.rocketmq.common.consumer.ConsumeFromWhere;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.message.MessageQueue;
import org.apache.rocketmq.tools.admin.DefaultMQAdminExt;

/** The clients of one scenario, with names that no other run uses. All are shut down when it ends. */
final class World implements AutoCloseable {
    static final int QUEUES_PER_BROKER = 4;
    /**
     * The default is 30 s. A 5.x consumer whose allocation changes while a heartbeat is under way leaves out the one
     * that would tell the broker, which then refuses its pulls (code 25) up to the next: 30 s lost at a bad moment.
     */
    private static final int HEARTBEAT_MS = 3_000;
    private static final int SEND_TIMEOUT_MS = 10_000;
    private static final Duration ROUTE_TIME_MAX = Duration.ofSeconds(10);

    private static final int READ_PAUSE_MS = 200;

    /** Calls a scenario makes at once, at most. */
    private static final int THREADS = 16;

    private final String namesrv;
    private final String prefix;
    private final AtomicInteger names = new AtomicInteger();
    private final Deque<Runnable> shutdowns = new ConcurrentLinkedDeque<>();
    private final ExecutorService threads = Executors.newFixedThreadPool(THREADS);
    /** Made when first needed. */
    private DefaultMQPullConsumer reader;

    World(String namesrv, String prefix) {
        this.namesrv = namesrv;
        this.prefix = prefix;
    }

    String namesrv() {
        return namesrv;
    }

    /** A name that was not used before, for a topic, a group or a client. */
    String name(String kind) {
        return prefix + "-" + kind + "-" + names.incrementAndGet();
    }

    /** A topic made for this scenario, with {@link #QUEUES_PER_BROKER} queues on every broker; its route is known. */
    String topic(DefaultMQProducer producer) throws Exception {
        String topic = name("topic");
        Line.createTopic(producer, topic, QUEUES_PER_BROKER);
        awaitRoute(producer, topic, brokers(producer) * QUEUES_PER_BROKER);
        return topic;
    }

    /** The number of brokers: each offers the template of automatic creation. */
    static int brokers(DefaultMQProducer producer) throws Exception {
        return (int) producer.fetchPublishMessageQueues("TBW102").stream()
            .map(MessageQueue::getBrokerName).distinct().count();
    }

    static void awaitRoute(DefaultMQProducer producer, String topic, int queues) throws Exception {
        Check.within(ROUTE_TIME_MAX, () -> queuesOf(producer, topic).size() == queues,
            () -> queues + " queues of " + topic + ", found " + queuesOf(producer, topic));
    }

    static List<MessageQueue> queuesOf(DefaultMQProducer producer, String topic) {
        try {
            return producer.fetchPublishMessageQueues(topic);
        } catch (Exception noRouteYet) {
            return List.of();
        }
    }

    /** Known once the producer has sent to the broker's topic. */
    static String brokerAddress(DefaultMQProducer producer, String broker) {
        String address = producer.getDefaultMQProducerImpl().getMqClientFactory().findBrokerAddressInPublish(broker);
        Check.that(address != null, "no address of " + broker);
        return address;
    }

    /** Of every broker in the cluster. */
    static List<String> brokerAddresses(DefaultMQAdminExt admin) throws Exception {
        return admin.examineBrokerClusterInfo().getBrokerAddrTable().values().stream()
            .map(broker -> broker.getBrokerAddrs().get(0L)).collect(Collectors.toList());
    }

    /** A producer tells the brokers of itself with its heartbeats: here at once, to those that it knows by now. */
    static void introduce(DefaultMQProducer producer) {
        producer.getDefaultMQProducerImpl().getMqClientFactory().sendHeartbeatToAllBrokerWithLock();
    }

    /** Retries nothing: each failure shows, and no message is sent twice. */
    DefaultMQProducer producer() throws Exception {
        return producer(namesrv);
    }

    /** As {@link #producer()}, with NameServers of its own. */
    DefaultMQProducer producer(String namesrvs) throws Exception {
        DefaultMQProducer producer = new DefaultMQProducer(name("producer"));
        configure(producer);
        producer.setNamesrvAddr(namesrvs);
        return started(producer);
    }

    DefaultMQProducer tracingProducer() throws Exception {
        DefaultMQProducer producer = new DefaultMQProducer(name("producer"), true, null);
        configure(producer);
        return started(producer);
    }

    TransactionMQProducer transactionProducer(String group, TransactionListener listener) throws Exception {
        TransactionMQProducer producer = new TransactionMQProducer(group);
        configure(producer);
        producer.setTransactionListener(listener);
        started(producer);
        return producer;
    }

    private DefaultMQProducer started(DefaultMQProducer producer) throws Exception {
        producer.setSendMsgTimeout(SEND_TIMEOUT_MS);
        producer.setRetryTimesWhenSendFailed(0);
        producer.setRetryTimesWhenSendAsyncFailed(0);
        producer.start();
        shutdowns.push(producer::shutdown);
        return producer;
    }

    /** Not started; from the first message on, for groups without offsets. */
    DefaultMQPushConsumer pushConsumer(String group) {
        return configured(new DefaultMQPushConsumer(group));
    }

    /** As {@link #pushConsumer(String)}, with the client's own trace of each message. */
    DefaultMQPushConsumer tracingPushConsumer(String group) {
        return configured(new DefaultMQPushConsumer(group, true, null));
    }

    private DefaultMQPushConsumer configured(DefaultMQPushConsumer consumer) {
        configure(consumer);
        consumer.setConsumeFromWhere(ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET);
        // What was handed to the listener is finished, and counted as consumed, before shutdown returns.
        consumer.setAwaitTerminationMillisWhenShutdown(5_000);
        shutdowns.push(consumer::shutdown);
        return consumer;
    }

    /** Started. */
    DefaultMQPushConsumer pushConsumer(String group, String topic, String tags, Consumer<MessageExt> listener)
        throws Exception {
        DefaultMQPushConsumer consumer = pushConsumer(group);
        consumer.subscribe(topic, tags);
        consumer.registerMessageListener(each(listener));
        consumer.start();
        return consumer;
    }

    static MessageListenerConcurrently each(Consumer<MessageExt> listener) {
        return (messages, context) -> {
            messages.forEach(listener);
            return ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
        };
    }

    DefaultMQPullConsumer pullConsumer(String group) throws Exception {
        DefaultMQPullConsumer consumer = new DefaultMQPullConsumer(group);
        configure(consumer);
        consumer.start();
        shutdowns.push(consumer::shutdown);
        return consumer;
    }

    /** All messages of a topic there are now; none while it has no route. For tests that wait for some to be there. */
    List<MessageExt> readAll(String topic) {
        try {
            Thread.sleep(READ_PAUSE_MS);
            DefaultMQPullConsumer consumer = reader();
            List<MessageExt> all = new ArrayList<>();
            for (MessageQueue queue : consumer.fetchSubscribeMessageQueues(topic)) {
                all.addAll(Pulling.pullAll(consumer, queue, "*", consumer.minOffset(queue)));
            }
            return all;
        } catch (InterruptedException e) {
            Thread.currentThread().interrupt();
            return List.of();
        } catch (Exception noRouteYet) {
            return List.of();
        }
    }

    private synchronized DefaultMQPullConsumer reader() throws Exception {
        if (reader == null) {
            reader = pullConsumer(name("reader"));
        }
        return reader;
    }

    /** Not started. */
    DefaultLitePullConsumer litePullConsumer(String group) {
        DefaultLitePullConsumer consumer = new DefaultLitePullConsumer(group);
        configure(consumer);
        consumer.setConsumeFromWhere(ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET);
        shutdowns.push(consumer::shutdown);
        return consumer;
    }

    DefaultMQAdminExt admin() throws Exception {
        DefaultMQAdminExt admin = new DefaultMQAdminExt();
        configure(admin);
        admin.start();
        shutdowns.push(admin::shutdown);
        return admin;
    }

    <T> Future<T> inBackground(Callable<T> call) {
        return threads.submit(call);
    }

    void onClose(Runnable shutdown) {
        shutdowns.push(shutdown);
    }

    @Override
    public void close() {
        threads.shutdownNow();
        for (Runnable shutdown : new ArrayDeque<>(shutdowns)) {
            try {
                shutdown.run();
            } catch (RuntimeException e) {
                e.printStackTrace();
            }
        }
    }

    private void configure(ClientConfig client) {
        client.setNamesrvAddr(namesrv);
        client.setHeartbeatBrokerInterval(HEARTBEAT_MS);
        // Clients of one process share connections and threads unless their instance names differ.
        client.setInstanceName(name("instance"));
    }
}
