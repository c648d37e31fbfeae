package apogee.interop;

import java.util.LinkedHashMap;
import java.util.Map;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.common.message.Message;

/** Scenarios that only the 5 line can do; why the 4 line cannot. */
final class Newer {
    static final Map<String, Main.Scenario> SCENARIOS = new LinkedHashMap<>();

    static {
        lacks("timer", "messages have delay levels only");
        lacks("recall", "no call for it");
        lacks("auto_batch", "the producer batches what it is given as a batch only");
        lacks("inner_batch", "topics cannot be made with attributes");
        lacks("pop", "no pop consumer");
        lacks("pop_retry", "no pop consumer");
        lacks("pop_revive", "no pop consumer");
    }

    private Newer() {}

    static final long EARLY_MS_MAX = 0;

    static void sendTimer(DefaultMQProducer producer, Message message, long delayMs, Delaying.Due due) {
        // It has no timers.
    }

    static Survival.Part poppedPart(World world) {
        return new Survival.Part() {
            @Override
            public void begin() {
                // It does not pop.
            }

            @Override
            public String end() {
                return "nothing popped";
            }
        };
    }

    private static void lacks(String scenario, String why) {
        SCENARIOS.put(scenario, world -> {
            throw new Lacks(why);
        });
    }
}
