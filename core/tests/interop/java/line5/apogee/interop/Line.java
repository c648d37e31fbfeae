package apogee.interop;

import java.util.List;
import java.util.Map;
import java.util.Set;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.common.compression.CompressionType;
import org.apache.rocketmq.remoting.protocol.subscription.SubscriptionGroupConfig;
import org.apache.rocketmq.tools.admin.DefaultMQAdminExt;

/** What the 4.9 and 5.x clients spell differently. This is the spelling of the 5 line. */
final class Line {
    private Line() {}

    static void createTopic(DefaultMQProducer producer, String topic, int queues) throws Exception {
        producer.createTopic("TBW102", topic, queues, Map.of());
    }

    static void createGroup(DefaultMQAdminExt admin, String broker, String group) throws Exception {
        SubscriptionGroupConfig config = new SubscriptionGroupConfig();
        config.setGroupName(group);
        admin.createAndUpdateSubscriptionGroupConfig(broker, config);
    }

    static void deleteTopicInNameServer(DefaultMQAdminExt admin, Set<String> namesrvs, String topic) throws Exception {
        admin.deleteTopicInNameServer(namesrvs, topic);
    }

    static List<String> compressionTypes() {
        return List.of("ZLIB", "LZ4", "ZSTD");
    }

    static void setCompressionType(DefaultMQProducer producer, String type) {
        producer.setCompressType(CompressionType.of(type));
    }
}
