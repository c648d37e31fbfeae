package apogee.interop;

import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.function.Consumer;
import org.apache.rocketmq.common.message.MessageExt;

/** What came, by key, and when. Thread-safe. */
final class Inbox implements Consumer<MessageExt> {
    record Arrival(MessageExt message, long atMs) {}

    private final Map<String, List<Arrival>> arrivals = new ConcurrentHashMap<>();

    @Override
    public void accept(MessageExt message) {
        Arrival arrival = new Arrival(message, System.currentTimeMillis());
        arrivals.computeIfAbsent(String.valueOf(message.getKeys()), key -> new CopyOnWriteArrayList<>()).add(arrival);
    }

    List<Arrival> of(String key) {
        return arrivals.getOrDefault(key, List.of());
    }

    /** The first arrival of each key, whole. */
    List<Arrival> await(List<String> keys, Duration limit) throws InterruptedException {
        Check.within(limit, () -> keys.stream().allMatch(key -> !of(key).isEmpty()),
            () -> "have not come: " + keys.stream().filter(key -> of(key).isEmpty()).toList());
        List<Arrival> first = new ArrayList<>();
        for (String key : keys) {
            Arrival arrival = of(key).get(0);
            Check.that(Payload.isIntact(key, arrival.message.getBody()), "the body of " + key + " differs");
            first.add(arrival);
        }
        return first;
    }

    Arrival await(String key, Duration limit) throws InterruptedException {
        return await(List.of(key), limit).get(0);
    }

    /** The {@code n}-th arrival of a key, counted from one. */
    Arrival await(String key, int n, Duration limit) throws InterruptedException {
        Check.within(limit, () -> of(key).size() >= n, () -> key + " came " + of(key).size() + " times, not " + n);
        return of(key).get(n - 1);
    }

    /** Each key came this often, and nothing else came at all. */
    void checkExactly(List<String> keys, int times) {
        for (String key : keys) {
            Check.equal(times, of(key).size(), "arrivals of " + key);
        }
        checkNothingBut(keys);
    }

    void checkNothingBut(List<String> keys) {
        List<String> foreign = arrivals.keySet().stream().filter(key -> !keys.contains(key)).limit(5).toList();
        Check.that(foreign.isEmpty(), "came though not owed: " + foreign);
    }
}
