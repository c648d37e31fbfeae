package apogee.twin;

import com.alibaba.fastjson2.JSON;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.stream.Collectors;
import org.apache.rocketmq.common.MixAll;
import org.apache.rocketmq.tools.command.MQAdminStartup;
import org.apache.rocketmq.tools.command.SubCommand;

/**
 * The tools of RocketMQ, many commands in one process. Each line of the standard input is a command, its words separated
 * by tabs; each is answered with one line, a JSON value. Argument: the address of the NameServer.
 */
public final class Mqadmin {
    private static final long LIMIT_MILLIS = 12_000;

    public static void main(String[] args) throws Exception {
        System.setProperty(MixAll.NAMESRV_ADDR_PROPERTY, args[0]);
        PrintStream answers = System.out;
        Capture.install();
        World world = new World(args[0]);
        BufferedReader lines = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line = lines.readLine(); line != null; line = lines.readLine()) {
            String[] words = line.split("\t", -1);
            answers.println(JSON.toJSONString(answer(world, words)));
            answers.flush();
        }
        Runtime.getRuntime().halt(0);
    }

    private static Object answer(World world, String[] words) throws Exception {
        switch (words[0]) {
            case "!commands":
                return Startup.commands();
            case "!populate":
                return world.populate();
            case "!sleep":
                Thread.sleep(Long.parseLong(words[1]));
                return Map.of();
            default:
                return run(words);
        }
    }

    /** Limit: `!limit MILLIS` before the command, for those that never end. */
    private static String run(String[] words) throws InterruptedException {
        boolean limited = words[0].equals("!limit");
        long limit = limited ? Long.parseLong(words[1]) : LIMIT_MILLIS;
        String[] command = limited ? Arrays.copyOfRange(words, 2, words.length) : words;
        return Capture.of(limit, () -> Startup.run(command));
    }

    private static final class Startup extends MQAdminStartup {
        static List<String> commands() {
            SUB_COMMANDS.clear();
            initCommand();
            return SUB_COMMANDS.stream().map(SubCommand::commandName).collect(Collectors.toList());
        }

        static void run(String[] command) {
            // Commands keep state in their objects; a process of their own would have new ones.
            SUB_COMMANDS.clear();
            main0(command, null);
        }
    }
}
