//! stub
use super::*;
impl Dynamic {
    pub fn from_value(_v: Option<&Value>) -> Dynamic {
        Dynamic { ttl_ms: 6000, loop_wait_ms: 2000, retry_timeout_ms: 2000, maximum_lag_on_failover: 1048576, check_timeline: false, max_timelines_history: 0, primary_start_timeout_ms: 300000, primary_stop_timeout_ms: 0, synchronous_mode: SynchronousMode::Off, synchronous_mode_strict: false, synchronous_node_count: 1, maximum_lag_on_syncnode: -1, member_slots_ttl_ms: 1800000, postgresql: Default::default(), standby_cluster: None, warnings: vec![] }
    }
}
