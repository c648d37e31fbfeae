package apogee.interop;

import java.util.BitSet;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.client.producer.SendStatus;
import org.apache.rocketmq.common.message.MessageQueue;

/** Queue offsets that send results named. Thread-safe. */
final class Positions {
    private final Map<MessageQueue, BitSet> taken = new ConcurrentHashMap<>();

    void add(SendResult result) {
        add(result, 1);
    }

    /** {@code count} messages from the result's offset on. */
    void add(SendResult result, int count) {
        Check.equal(SendStatus.SEND_OK, result.getSendStatus(), "status of a send");
        int first = Math.toIntExact(result.getQueueOffset());
        taken.compute(result.getMessageQueue(), (queue, offsets) -> {
            BitSet set = offsets == null ? new BitSet() : offsets;
            Check.that(set.get(first, first + count).isEmpty(),
                "offsets " + first + " + " + count + " of " + queue + " were given twice");
            set.set(first, first + count);
            return set;
        });
    }

    /** Every queue was filled from offset 0 without a hole, and {@code messages} in all. */
    void checkContiguous(int messages) {
        taken.forEach((queue, offsets) ->
            Check.equal(offsets.cardinality(), offsets.length(), "one past the last offset of " + queue));
        Check.equal(messages, taken.values().stream().mapToInt(BitSet::cardinality).sum(), "offsets given");
    }

    int queues() {
        return taken.size();
    }
}
