package apogee.twin;

import org.apache.rocketmq.broker.BrokerStartup;
import org.apache.rocketmq.namesrv.NamesrvStartup;

/** Apache RocketMQ as it is: a NameServer and a broker in one process. */
public final class RocketMq {
    /** Arguments: the two configuration files. */
    public static void main(String[] args) {
        NamesrvStartup.main(new String[] {"-c", args[0]});
        BrokerStartup.main(new String[] {"-c", args[1]});
        System.out.println("ready");
    }
}
