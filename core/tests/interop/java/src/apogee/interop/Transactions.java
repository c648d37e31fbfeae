package apogee.interop;

import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.stream.Collectors;
import java.util.stream.IntStream;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.LocalTransactionState;
import org.apache.rocketmq.client.producer.SendStatus;
import org.apache.rocketmq.client.producer.TransactionListener;
import org.apache.rocketmq.client.producer.TransactionMQProducer;
import org.apache.rocketmq.client.producer.TransactionSendResult;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageConst;
import org.apache.rocketmq.common.message.MessageExt;

/**
 * Transactions, on a server that checks back every few seconds and gives up after {@link #CHECKS_MAX} checks: see the
 * harness's settings of the server.
 */
final class Transactions {
    private static final int PER_KIND = 5;
    static final int CHECKS_MAX = 3;
    /** Several rounds of checks, on a busy machine. */
    private static final Duration CHECKED_MAX = Duration.ofSeconds(90);
    /** Longer than two rounds of checks. */
    private static final Duration NO_MORE_CHECKS = Duration.ofSeconds(12);

    private Transactions() {}

    /** Committed ones come once, rolled back ones never; who says nothing is asked. */
    static String transaction(World world) throws Exception {
        DefaultMQProducer maker = world.producer();
        String topic = world.topic(maker);
        Inbox inbox = new Inbox();
        world.pushConsumer(world.name("group"), topic, "*", inbox);
        Judge judge = new Judge();
        TransactionMQProducer producer = world.transactionProducer(world.name("producer"), judge);

        // What the local transaction answers, and what each check after it.
        List<String> owed = new ArrayList<>();
        List<String> never = new ArrayList<>();
        for (String kind : List.of("COMMIT", "ROLLBACK", "UNKNOW,COMMIT", "UNKNOW,ROLLBACK", "UNKNOW,UNKNOW,COMMIT", "THROW,COMMIT")) {
            List<String> keys = send(producer, topic, kind, PER_KIND);
            (kind.endsWith("COMMIT") ? owed : never).addAll(keys);
        }
        inbox.await(owed, CHECKED_MAX);
        Check.within(CHECKED_MAX, () -> judge.checksOf(never, 1), () -> "asked " + judge.checked.size() + " times");
        Thread.sleep(NO_MORE_CHECKS.toMillis() / 2);
        inbox.checkExactly(owed, 1);
        for (String key : owed) {
            MessageExt message = inbox.of(key).get(0).message();
            Check.equal(topic, message.getTopic(), "topic of " + key);
            Check.that(message.getTransactionId() != null, "no transaction id of " + key);
        }
        for (MessageExt asked : judge.checked) {
            Check.equal(topic, asked.getTopic(), "topic of a message asked about");
            Check.that(Payload.isIntact(asked.getKeys(), asked.getBody()), "body of a message asked about");
        }
        Check.equal(List.of(), judge.checked.stream().map(MessageExt::getKeys)
            .filter(key -> key.startsWith("COMMIT") || key.startsWith("ROLLBACK")).toList(), "asked though it had been said");
        return owed.size() + " committed and " + never.size() + " rolled back, " + judge.checked.size() + " checks";
    }

    /** Another producer of the group is asked when the one that sent has gone; and nobody before the message allows it. */
    static String transactionCheck(World world) throws Exception {
        DefaultMQProducer maker = world.producer();
        String topic = world.topic(maker);
        Inbox inbox = new Inbox();
        world.pushConsumer(world.name("group"), topic, "*", inbox);
        String group = world.name("producer");
        Judge judge = new Judge();
        TransactionMQProducer first = world.transactionProducer(group, new Judge());
        List<String> owed = send(first, topic, "UNKNOW,COMMIT", PER_KIND);
        first.shutdown();

        Judge later = new Judge();
        TransactionMQProducer second = world.transactionProducer(group, later);
        Message patient = message(topic, "UNKNOW,COMMIT-patient");
        long immunitySeconds = 10;
        patient.putUserProperty(MessageConst.PROPERTY_CHECK_IMMUNITY_TIME_IN_SECONDS, String.valueOf(immunitySeconds));
        long sent = System.currentTimeMillis();
        second.sendMessageInTransaction(patient, null);
        inbox.await(owed, CHECKED_MAX);
        long after = inbox.await(patient.getKeys(), CHECKED_MAX).atMs() - sent;
        Check.that(after >= immunitySeconds * 1_000, "checked " + after + " ms after the send");
        Check.equal(0, judge.checked.size(), "checks of the producer that has gone");
        owed.add(patient.getKeys());
        inbox.checkExactly(owed, 1);
        return PER_KIND + " committed by another producer of the group; one not checked for " + immunitySeconds + " s";
    }

    /** Who never answers is asked so often, then no more; the message is put aside and never delivered. */
    static String transactionLimit(World world) throws Exception {
        DefaultMQProducer maker = world.producer();
        String topic = world.topic(maker);
        Inbox inbox = new Inbox();
        world.pushConsumer(world.name("group"), topic, "*", inbox);
        Judge judge = new Judge();
        TransactionMQProducer producer = world.transactionProducer(world.name("producer"), judge);
        List<String> keys = send(producer, topic, "UNKNOW", 3);
        Check.within(CHECKED_MAX, () -> judge.checksOf(keys, CHECKS_MAX), () -> "asked " + judge.checked.size() + " times");
        Thread.sleep(NO_MORE_CHECKS.toMillis());
        for (String key : keys) {
            long checks = judge.checked.stream().filter(m -> m.getKeys().equals(key)).count();
            Check.equal((long) CHECKS_MAX, checks, "checks of " + key);
        }
        inbox.checkExactly(List.of(), 0);
        Check.within(CHECKED_MAX, () -> asideOf(world).containsAll(keys), () -> "put aside: " + asideOf(world));
        return keys.size() + " messages asked about " + CHECKS_MAX + " times each, then put aside";
    }

    private static List<String> asideOf(World world) {
        return world.readAll("TRANS_CHECK_MAX_TIME_TOPIC").stream().map(MessageExt::getKeys).collect(Collectors.toList());
    }

    private static Message message(String topic, String key) {
        return new Message(topic, "", key, Payload.of(key));
    }

    /** The answers are the first word of the key, separated by commas. */
    static List<String> send(TransactionMQProducer producer, String topic, String answers, int count) throws Exception {
        List<String> keys = IntStream.range(0, count).mapToObj(i -> answers + "-" + i).collect(Collectors.toList());
        for (String key : keys) {
            TransactionSendResult sent = producer.sendMessageInTransaction(message(topic, key), null);
            Check.equal(SendStatus.SEND_OK, sent.getSendStatus(), "status of a send");
            Check.that(sent.getTransactionId() != null, "no transaction id");
        }
        return keys;
    }

    /** Answers as the keys say; the last answer counts for all checks after it. */
    static final class Judge implements TransactionListener {
        final List<MessageExt> checked = new CopyOnWriteArrayList<>();

        @Override
        public LocalTransactionState executeLocalTransaction(Message message, Object argument) {
            return answer(message.getKeys(), 0);
        }

        @Override
        public LocalTransactionState checkLocalTransaction(MessageExt message) {
            checked.add(message);
            long nth = checked.stream().filter(m -> m.getKeys().equals(message.getKeys())).count();
            return answer(message.getKeys(), (int) nth);
        }

        boolean checksOf(List<String> keys, int times) {
            return keys.stream().filter(key -> key.startsWith("UNKNOW"))
                .allMatch(key -> checked.stream().filter(m -> m.getKeys().equals(key)).count() >= times);
        }

        private static LocalTransactionState answer(String key, int n) {
            String[] answers = key.split("-")[0].split(",");
            String answer = answers[Math.min(n, answers.length - 1)];
            return switch (answer) {
                case "COMMIT" -> LocalTransactionState.COMMIT_MESSAGE;
                case "ROLLBACK" -> LocalTransactionState.ROLLBACK_MESSAGE;
                case "THROW" -> throw new IllegalStateException("the local transaction fails");
                default -> LocalTransactionState.UNKNOW;
            };
        }
    }
}
