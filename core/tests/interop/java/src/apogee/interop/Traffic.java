package apogee.interop;

import java.util.concurrent.Future;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.locks.LockSupport;
import org.apache.rocketmq.client.producer.DefaultMQProducer;

/** Messages at a steady rate in the background, until it is stopped. */
final class Traffic {
    interface Send {
        void next() throws Exception;
    }

    private final AtomicInteger sent = new AtomicInteger();
    private final Future<Void> thread;
    private volatile boolean stopping;

    /** Keys are {@code traffic-} and a number. */
    Traffic(World world, DefaultMQProducer producer, Ledger ledger, int perSecond) {
        this.thread = start(world, perSecond, () -> producer.send(ledger.owe("traffic-" + sent.get())));
    }

    Traffic(World world, int perSecond, Send send) {
        this.thread = start(world, perSecond, send);
    }

    int sent() {
        return sent.get();
    }

    /** After this nothing more is sent; fails if a send has failed. */
    void stop() throws Exception {
        stopping = true;
        thread.get();
    }

    private Future<Void> start(World world, int perSecond, Send send) {
        long begun = System.nanoTime();
        return world.inBackground(() -> {
            while (!stopping) {
                send.next();
                long due = begun + sent.incrementAndGet() * 1_000_000_000L / perSecond;
                LockSupport.parkNanos(due - System.nanoTime());
            }
            return null;
        });
    }
}
