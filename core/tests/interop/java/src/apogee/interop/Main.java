package apogee.interop;

import java.io.PrintStream;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import java.util.concurrent.atomic.AtomicLong;
import java.util.stream.Collectors;

/**
 * Runs scenarios against a RocketMQ-compatible server and prints one JSON line for each.
 *
 * <pre>--namesrv HOST:PORT[;HOST:PORT...] SCENARIO... [--together SCENARIO...]</pre>
 *
 * Those after {@code --together} mostly wait: several of them run at the same time, when the others are done.
 *
 * The rest of the program never writes to stdout.
 */
public final class Main {
    /** Above every deadline inside the scenarios; below the silence that the harness endures. */
    private static final long SCENARIO_SECONDS_MAX = 150;
    /** The server's restarts come on top of the scenario's own deadlines. */
    private static final long CRASH_SECONDS_MAX = 600;
    /** Ends when the harness says so. */
    private static final long STEADY_SECONDS_MAX = 4 * 3_600;

    private static final String TOGETHER = "--together";
    private static final int TOGETHER_MAX = 8;

    /** What a scenario found, in words; an exception means that it failed. */
    interface Scenario {
        String run(World world) throws Exception;
    }

    private static final Map<String, Scenario> SCENARIOS = new LinkedHashMap<>();

    static {
        SCENARIOS.put("sync", Sending::sync);
        SCENARIOS.put("async", Sending::async);
        SCENARIOS.put("oneway", Sending::oneway);
        SCENARIOS.put("batch", Sending::batch);
        SCENARIOS.put("large", Sending::large);
        SCENARIOS.put("properties", Sending::properties);
        SCENARIOS.put("clustering", Pushing::clustering);
        SCENARIOS.put("broadcast", Pushing::broadcast);
        SCENARIOS.put("tag_filter", Pushing::tagFilter);
        SCENARIOS.put("sql_filter", Pushing::sqlFilter);
        SCENARIOS.put("ordered", Pushing::ordered);
        SCENARIOS.put("resume", Pushing::resume);
        SCENARIOS.put("start_from", Pushing::startFrom);
        SCENARIOS.put("long_poll", Pushing::longPoll);
        SCENARIOS.put("pull", Pulling::pull);
        SCENARIOS.put("search_offset", Pulling::searchOffset);
        SCENARIOS.put("lite_pull", Pulling::litePull);
        SCENARIOS.put("assign_seek", Pulling::assignAndSeek);
        SCENARIOS.put("create_topic", Administration::createTopic);
        SCENARIOS.put("auto_create", Administration::autoCreate);
        SCENARIOS.put("admin", Administration::tools);
        SCENARIOS.put("unsupported", Administration::unsupported);
        SCENARIOS.put("delay_level", Delaying::delayLevel);
        SCENARIOS.put("transaction", Transactions::transaction);
        SCENARIOS.put("tx_check", Transactions::transactionCheck);
        SCENARIOS.put("tx_limit", Transactions::transactionLimit);
        SCENARIOS.put("request_reply", Requests::requestReply);
        SCENARIOS.put("limits", Sending::limits);
        SCENARIOS.put("compressed", Sending::compressed);
        SCENARIOS.put("retry", Retrying::retry);
        SCENARIOS.put("retry_orderly", Retrying::retryOrderly);
        SCENARIOS.put("send_back", Retrying::sendBack);
        SCENARIOS.put("sql_error", Pushing::sqlError);
        SCENARIOS.put("reset_live", Offsets::resetLive);
        SCENARIOS.put("reset_offline", Offsets::resetOffline);
        SCENARIOS.put("skip_live", Offsets::skipLive);
        SCENARIOS.put("clone_offset", Offsets::cloneGroup);
        SCENARIOS.put("query", Querying::query);
        SCENARIOS.put("trace", Querying::trace);
        SCENARIOS.put("consumers", Groups::consumers);
        SCENARIOS.put("remove", Groups::remove);
        SCENARIOS.put("unregister", Groups::unregister);
        SCENARIOS.put("notified", Groups::notified);
        SCENARIOS.put("namesrv_list", Groups::namesrvList);
        SCENARIOS.putAll(Newer.SCENARIOS);
        SCENARIOS.put("crash", Crash::crash);
        SCENARIOS.put("survive", Survival::survive);
        SCENARIOS.put("steady", Steady::steady);
    }

    private static final int DETAIL_CHARS_MAX = 600;

    private static final PrintStream RESULTS = System.out;

    private Main() {}

    public static void main(String[] args) throws InterruptedException {
        // Logging libraries greet on stdout.
        System.setOut(System.err);
        if (args.length < 3 || !args[0].equals("--namesrv")) {
            System.err.println("--namesrv HOST:PORT SCENARIO... [--together SCENARIO...], of " + SCENARIOS.keySet());
            System.exit(2);
        }
        String runId = Long.toString(System.currentTimeMillis(), 36);
        List<String> names = Arrays.asList(args).subList(2, args.length);
        ExecutorService together = Executors.newFixedThreadPool(TOGETHER_MAX);
        boolean waiting = false;
        for (String name : names) {
            if (name.equals(TOGETHER)) {
                waiting = true;
                continue;
            }
            Runnable run = () -> run(name, new World(args[1], name + "-" + runId));
            if (waiting) {
                together.execute(run);
            } else {
                run.run();
            }
        }
        together.shutdown();
        together.awaitTermination(names.size() * SCENARIO_SECONDS_MAX, TimeUnit.SECONDS);
        // The clients' threads do not end by themselves.
        System.exit(0);
    }

    /** A line about how far a scenario has come, for the harness. */
    static void progress(long acked) {
        print("{\"acked\":" + acked + "}");
    }

    /** The same, with all that is counted. */
    static void progress(long acked, Map<String, AtomicLong> counts) {
        String all = counts.entrySet().stream().sorted(Map.Entry.comparingByKey())
            .map(count -> quote(count.getKey()) + ":" + count.getValue()).collect(Collectors.joining(","));
        print("{\"acked\":" + acked + ",\"counts\":{" + all + "}}");
    }

    /** Asks the harness for something, which it will confirm on stdin. */
    static void waiting(String wanted) {
        print("{\"waiting\":" + quote(wanted) + "}");
    }

    private static void run(String name, World world) {
        long begun = System.nanoTime();
        boolean ok = false;
        String detail;
        long limit = switch (name) {
            case "crash", "survive" -> CRASH_SECONDS_MAX;
            case "steady" -> STEADY_SECONDS_MAX;
            default -> SCENARIO_SECONDS_MAX;
        };
        ExecutorService thread = Executors.newSingleThreadExecutor();
        try {
            Scenario scenario = SCENARIOS.get(name);
            Check.that(scenario != null, "no such scenario");
            Future<String> result = thread.submit(() -> scenario.run(world));
            detail = result.get(limit, TimeUnit.SECONDS);
            ok = true;
        } catch (TimeoutException e) {
            detail = "did not end within " + limit + " s";
        } catch (ExecutionException e) {
            if (e.getCause() instanceof Lacks) {
                print(String.format("{\"scenario\":%s,\"lacks\":%s}", quote(name), quote(e.getCause().getMessage())));
                return;
            }
            e.getCause().printStackTrace();
            detail = e.getCause().toString();
        } catch (Exception | AssertionError e) {
            detail = e.toString();
        } finally {
            thread.shutdownNow();
            world.close();
        }
        detail = detail.substring(0, Math.min(detail.length(), DETAIL_CHARS_MAX));
        double seconds = (System.nanoTime() - begun) / 1e9;
        print(String.format("{\"scenario\":%s,\"ok\":%b,\"seconds\":%.3f,\"detail\":%s}",
            quote(name), ok, seconds, quote(detail)));
    }

    private static synchronized void print(String line) {
        RESULTS.println(line);
        RESULTS.flush();
    }

    private static String quote(String text) {
        StringBuilder json = new StringBuilder("\"");
        for (char c : text.toCharArray()) {
            if (c == '"' || c == '\\') {
                json.append('\\').append(c);
            } else if (c < ' ') {
                json.append(String.format("\\u%04x", (int) c));
            } else {
                json.append(c);
            }
        }
        return json.append('"').toString();
    }
}
