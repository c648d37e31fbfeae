package apogee.twin;

import com.alibaba.fastjson2.JSON;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.lang.reflect.Field;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import java.util.Map;
import org.apache.rocketmq.client.impl.MQClientManager;
import org.apache.rocketmq.client.impl.consumer.DefaultLitePullConsumerImpl;
import org.apache.rocketmq.client.impl.consumer.DefaultMQPullConsumerImpl;
import org.apache.rocketmq.client.impl.consumer.DefaultMQPushConsumerImpl;
import org.apache.rocketmq.client.impl.factory.MQClientInstance;
import org.apache.rocketmq.client.impl.producer.DefaultMQProducerImpl;
import org.apache.rocketmq.common.MixAll;

/**
 * RocketMQ's example programs, one after the other in one process. Each line of the standard input is one, separated by
 * tabs: `run` or `start`, a text to wait for, how often, for how many milliseconds at most, the class, its arguments.
 * `run` ends with its clients closed; `start` leaves them to the next `run`. Argument: the address of the NameServer.
 */
public final class Examples {
    public static void main(String[] args) throws Exception {
        System.setProperty(MixAll.NAMESRV_ADDR_PROPERTY, args[0]);
        PrintStream answers = System.out;
        Capture.install();
        BufferedReader lines = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        Capture.Running background = null;
        for (String line = lines.readLine(); line != null; line = lines.readLine()) {
            String[] words = line.split("\t", -1);
            String[] arguments = Arrays.copyOfRange(words, 5, words.length);
            Class<?> example = Class.forName("org.apache.rocketmq.example." + words[4]);
            Capture.Running running = Capture.start(() ->
                example.getMethod("main", String[].class).invoke(null, (Object) arguments));
            running.await(words[1], Integer.parseInt(words[2]), Long.parseLong(words[3]));
            // Before anything is closed: what programs say to that is not theirs.
            String printed = running.printed();
            if (words[0].equals("start")) {
                background = running;
            } else {
                closeClients();
                if (background != null) {
                    background.end();
                    background = null;
                }
                running.end();
            }
            answers.println(JSON.toJSONString(printed));
            answers.flush();
        }
        Runtime.getRuntime().halt(0);
    }

    /** As their owner would, but the examples leave that to the end of the process. */
    private static void closeClients() throws Exception {
        Map<?, ?> instances = (Map<?, ?>) field(MQClientManager.class, MQClientManager.getInstance(), "factoryTable");
        for (Object instance : instances.values().toArray()) {
            for (String table : new String[] {"consumerTable", "producerTable"}) {
                Map<?, ?> clients = (Map<?, ?>) field(MQClientInstance.class, instance, table);
                for (Object client : clients.values().toArray()) {
                    close(client);
                }
            }
        }
    }

    private static void close(Object client) {
        if (client instanceof DefaultMQPushConsumerImpl) {
            ((DefaultMQPushConsumerImpl) client).shutdown();
        } else if (client instanceof DefaultLitePullConsumerImpl) {
            ((DefaultLitePullConsumerImpl) client).shutdown();
        } else if (client instanceof DefaultMQPullConsumerImpl) {
            ((DefaultMQPullConsumerImpl) client).shutdown();
        } else if (client instanceof DefaultMQProducerImpl) {
            ((DefaultMQProducerImpl) client).shutdown();
        }
    }

    private static Object field(Class<?> owner, Object object, String name) throws Exception {
        Field field = owner.getDeclaredField(name);
        field.setAccessible(true);
        return field.get(object);
    }
}
