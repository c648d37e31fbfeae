//! What a broker says of itself.

use super::fastjson::body;

body! {
    /// Reply to VIEW_BROKER_STATS_DATA (315).
    pub struct BrokerStatsData {
        "statsDay" => stats_day: BrokerStatsItem,
        "statsHour" => stats_hour: BrokerStatsItem,
        "statsMinute" => stats_minute: BrokerStatsItem,
    }
}

body! {
    /// What one figure came to in a period.
    pub struct BrokerStatsItem {
        /// Sum per time that something was counted.
        "avgpt" => avgpt: f64,
        "sum" => sum: i64,
        /// Sum per second.
        "tps" => tps: f64,
    }
}

body! {
    /// Reply to GET_BROKER_HA_STATUS (907).
    pub struct HaRuntimeInfo {
        "haClientRuntimeInfo" => ha_client_runtime_info: HaClientRuntimeInfo,
        "haConnectionInfo" => ha_connection_info: Vec<HaConnectionRuntimeInfo>,
        "inSyncSlaveNums" => in_sync_slave_nums: i32,
        "master" => master: bool,
        "masterCommitLogMaxOffset" => master_commit_log_max_offset: i64,
    }
}

body! {
    /// A slave, as its master sees it.
    #[derive(Eq)]
    pub struct HaConnectionRuntimeInfo {
        "addr" => addr: String,
        "diff" => diff: i64,
        "inSync" => in_sync: bool,
        "slaveAckOffset" => slave_ack_offset: i64,
        "transferFromWhere" => transfer_from_where: i64,
        "transferredByteInSecond" => transferred_byte_in_second: i64,
    }
}

body! {
    /// A master, as its slave sees it.
    #[derive(Eq)]
    pub struct HaClientRuntimeInfo {
        "activated" => activated: bool,
        "lastReadTimestamp" => last_read_timestamp: i64,
        "lastWriteTimestamp" => last_write_timestamp: i64,
        "masterAddr" => master_addr: Option<String>,
        "masterFlushOffset" => master_flush_offset: i64,
        "maxOffset" => max_offset: i64,
        "transferredByteInSecond" => transferred_byte_in_second: i64,
    }
}
