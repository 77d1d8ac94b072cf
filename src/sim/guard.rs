//! The guard as `safety.md` has it: beside a PostgreSQL that may write, with a deadline on the
//! host's own clock. It outlives the daemon, and it needs up to half a second to kill.
use crate::pure::cluster::Millis;
use crate::pure::guard::Grant;

/// The longest that the kill takes after the deadline (SIGQUIT, 300 ms, SIGKILL, and load).
pub const KILL_MS_MAX: Millis = 500;

#[derive(Clone, Debug, PartialEq)]
pub struct Guard {
    /// What its page says; the deadline is on the host's own clock.
    pub page: Grant,
    pub epoch: u64,
    /// The deadline has passed and the kill is under way: nothing calls it back.
    pub fires: bool,
    /// It has killed, and kills whatever appears, until it is disarmed or its deadline moves on.
    pub spent: bool,
    /// Its state directory was lost: no daemon knows of it.
    pub stray: bool,
    /// Tells this guard's alarms from those of an earlier one.
    pub life: u64,
}

impl Guard {
    pub fn new(epoch: u64, deadline: Millis, life: u64) -> Guard {
        let page = Grant::new(epoch, deadline);
        Guard { page, epoch, fires: false, spent: false, stray: false, life }
    }

    pub fn deadline(&self) -> Millis {
        self.page.deadline()
    }
}
