package apogee.interop;

import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.Map;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import org.apache.rocketmq.client.exception.RequestTimeoutException;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.RequestCallback;
import org.apache.rocketmq.client.utils.MessageUtil;
import org.apache.rocketmq.common.message.Message;

/** Request and reply: the answer comes back to the very producer that asked. */
final class Requests {
    private static final int CALLS = 40;
    private static final long ANSWER_MS_MAX = 20_000;

    private Requests() {}

    static String requestReply(World world) throws Exception {
        DefaultMQProducer asker = world.producer();
        DefaultMQProducer bystander = world.producer();
        DefaultMQProducer answerer = world.producer();
        String topic = world.topic(asker);
        Map<String, Boolean> failures = new ConcurrentHashMap<>();
        world.pushConsumer(world.name("group"), topic, "*", message -> {
            try {
                byte[] body = ("answer to " + message.getKeys()).getBytes(StandardCharsets.UTF_8);
                answerer.send(MessageUtil.createReplyMessage(message, body), ANSWER_MS_MAX);
            } catch (Exception e) {
                failures.put(e.toString(), true);
            }
        });
        // Only then replies can find them.
        for (DefaultMQProducer producer : new DefaultMQProducer[] {asker, bystander}) {
            producer.send(new Message(world.topic(producer), new byte[] {1}));
            World.introduce(producer);
        }

        long slowest = 0;
        for (int i = 0; i < CALLS; i++) {
            DefaultMQProducer producer = i % 2 == 0 ? asker : bystander;
            String key = "sync-" + i;
            long begun = System.nanoTime();
            Message answer = producer.request(new Message(topic, "", key, Payload.of(key)), ANSWER_MS_MAX);
            slowest = Math.max(slowest, System.nanoTime() - begun);
            checkAnswer(key, answer);
        }
        BlockingQueue<Object> answers = new LinkedBlockingQueue<>();
        for (int i = 0; i < CALLS; i++) {
            String key = "async-" + i;
            asker.request(new Message(topic, "", key, Payload.of(key)), new RequestCallback() {
                @Override
                public void onSuccess(Message answer) {
                    answers.add(new String(answer.getBody(), StandardCharsets.UTF_8).equals("answer to " + key) ? key : answer);
                }

                @Override
                public void onException(Throwable e) {
                    answers.add(e);
                }
            }, ANSWER_MS_MAX);
        }
        for (int i = 0; i < CALLS; i++) {
            Object answer = answers.poll(ANSWER_MS_MAX, TimeUnit.MILLISECONDS);
            Check.that(answer instanceof String, "an answer: " + answer);
        }

        String unheard = world.topic(asker);
        try {
            Message answer = asker.request(new Message(unheard, new byte[] {1}), 1_500);
            throw new AssertionError("an answer that nobody gave: " + answer);
        } catch (RequestTimeoutException expected) {
            // Nobody is there to answer.
        }
        Check.that(failures.isEmpty(), "replies failed: " + failures.keySet());
        return String.format("%d calls and %d with a callback answered, slowest %d ms; one without an answer timed out",
            CALLS, CALLS, Duration.ofNanos(slowest).toMillis());
    }

    private static void checkAnswer(String key, Message answer) {
        Check.equal("answer to " + key, new String(answer.getBody(), StandardCharsets.UTF_8), "answer");
    }
}
