package apogee.twin;

import org.apache.rocketmq.broker.BrokerStartup;
import org.apache.rocketmq.namesrv.NamesrvController;
import org.apache.rocketmq.namesrv.NamesrvStartup;

/** Apache RocketMQ as it is: a NameServer and a broker in one process. */
public final class RocketMq {
    private static final long LOOK_MILLIS = 50;

    /** Arguments: the two configuration files. */
    public static void main(String[] args) throws InterruptedException {
        NamesrvController namesrv = NamesrvStartup.main0(new String[] {"-c", args[0]});
        BrokerStartup.main(new String[] {"-c", args[1]});
        // The broker registers some time after it is up; before that, topics that are made do not get a route.
        while (namesrv.getRouteInfoManager().pickupTopicRouteData("TBW102") == null) {
            Thread.sleep(LOOK_MILLIS);
        }
        System.out.println("ready");
    }
}
