package apogee.twin;

import java.nio.charset.StandardCharsets;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.atomic.AtomicInteger;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.common.consumer.ConsumeFromWhere;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageQueue;
import org.apache.rocketmq.remoting.protocol.admin.ConsumeStats;
import org.apache.rocketmq.remoting.protocol.admin.OffsetWrapper;
import org.apache.rocketmq.tools.admin.DefaultMQAdminExt;

/** What the commands look at: messages in a topic, a live producer and a live consumer, a group that is behind. */
final class World {
    private static final String TOPIC = "Twin";
    private static final String TRACED = "TwinTraced";
    private static final String LIVE_GROUP = "TwinLive";
    private static final String BEHIND_GROUP = "TwinBehind";
    private static final int QUEUES = 4;
    private static final int PER_QUEUE = 3;
    private static final long PATIENCE_MILLIS = 60_000;

    private final String namesrv;

    World(String namesrv) {
        this.namesrv = namesrv;
    }

    /** Values that commands need. The clients stay until the process ends. */
    Map<String, String> populate() throws Exception {
        Map<String, String> values = new LinkedHashMap<>();
        values.put("$begin", Long.toString(System.currentTimeMillis()));

        DefaultMQProducer producer = new DefaultMQProducer("TwinProducers");
        producer.setNamesrvAddr(namesrv);
        producer.setInstanceName("producer");
        producer.start();
        List<MessageQueue> queues = producer.fetchPublishMessageQueues(TOPIC);
        for (int n = 0; n < QUEUES * PER_QUEUE; n++) {
            Message message = new Message(TOPIC, n % 2 == 0 ? "Even" : "Odd", "Key" + n,
                ("body " + n).getBytes(StandardCharsets.UTF_8));
            message.putUserProperty("number", Integer.toString(n));
            int queue = n % QUEUES;
            SendResult sent = producer.send(message,
                queues.stream().filter(q -> q.getQueueId() == queue).findFirst().orElseThrow());
            values.put("$msgId" + n, sent.getMsgId());
            values.put("$offsetMsgId" + n, sent.getOffsetMsgId());
        }

        DefaultMQProducer traced = new DefaultMQProducer("TwinTracedProducers");
        traced.setEnableTrace(true);
        traced.setNamesrvAddr(namesrv);
        traced.setInstanceName("traced");
        traced.start();
        values.put("$tracedMsgId", traced.send(new Message(TRACED, "Traced", "traced", new byte[] {'t'})).getMsgId());

        behind();
        live(values);
        values.put("$end", Long.toString(System.currentTimeMillis()));
        return values;
    }

    /** A group that was there, and has one message of each queue behind it. */
    private void behind() throws Exception {
        DefaultMQPushConsumer consumer = consumer(BEHIND_GROUP);
        consumer.registerMessageListener((MessageListenerConcurrently) (messages, context) ->
            ConsumeConcurrentlyStatus.CONSUME_SUCCESS);
        consumer.subscribe("TwinEmpty", "*");
        consumer.start();
        consumer.shutdown();
        DefaultMQAdminExt admin = admin();
        String broker = admin.examineBrokerClusterInfo().getBrokerAddrTable().values().iterator().next().selectBrokerAddr();
        for (int queue = 0; queue < QUEUES; queue++) {
            String name = admin.examineBrokerClusterInfo().getBrokerAddrTable().keySet().iterator().next();
            admin.updateConsumeOffset(broker, BEHIND_GROUP, new MessageQueue(TOPIC, name, queue), 1);
        }
        admin.shutdown();
    }

    /** A consumer that has consumed everything, and said so. */
    @SuppressWarnings("deprecation")
    private void live(Map<String, String> values) throws Exception {
        AtomicInteger consumed = new AtomicInteger();
        DefaultMQPushConsumer consumer = consumer(LIVE_GROUP);
        consumer.registerMessageListener((MessageListenerConcurrently) (messages, context) -> {
            consumed.addAndGet(messages.size());
            return ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
        });
        consumer.subscribe(TOPIC, "*");
        consumer.start();
        await("a queue of retries", () ->
            consumer.getDefaultMQPushConsumerImpl().getRebalanceImpl().getProcessQueueTable().keySet().stream()
                .anyMatch(queue -> queue.getTopic().equals("%RETRY%" + LIVE_GROUP)));
        await("messages consumed", () -> consumed.get() >= QUEUES * PER_QUEUE);
        DefaultMQAdminExt admin = admin();
        await("offsets committed", () -> {
            ConsumeStats stats = admin.examineConsumeStats(LIVE_GROUP, TOPIC);
            return stats.getOffsetTable().values().stream().mapToLong(OffsetWrapper::getConsumerOffset).sum()
                == QUEUES * PER_QUEUE;
        });
        admin.shutdown();
        values.put("$client", consumer.buildMQClientId());
    }

    private DefaultMQPushConsumer consumer(String group) {
        DefaultMQPushConsumer consumer = new DefaultMQPushConsumer(group);
        consumer.setNamesrvAddr(namesrv);
        consumer.setInstanceName(group);
        consumer.setConsumeFromWhere(ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET);
        consumer.setPersistConsumerOffsetInterval(500);
        return consumer;
    }

    private DefaultMQAdminExt admin() throws Exception {
        DefaultMQAdminExt admin = new DefaultMQAdminExt();
        admin.setNamesrvAddr(namesrv);
        admin.setInstanceName("admin" + System.nanoTime());
        admin.start();
        return admin;
    }

    private interface Condition {
        boolean holds() throws Exception;
    }

    private static void await(String what, Condition condition) throws Exception {
        long deadline = System.currentTimeMillis() + PATIENCE_MILLIS;
        Exception last = null;
        while (System.currentTimeMillis() < deadline) {
            try {
                if (condition.holds()) {
                    return;
                }
            } catch (Exception e) {
                last = e;
            }
            Thread.sleep(100);
        }
        throw new IllegalStateException("in vain: " + what, last);
    }
}
