//! P5: no machine is in a working state without a running operation; no wait without a way out.
use super::super::world::World;

impl World {
    /// A machine took notice of an answer to a visit that was over: what it says is of another place.
    pub fn check_not_stale(&mut self, at: usize, flow: &str, (asked, now): (u64, u64)) {
        if asked != now {
            let name = &self.nodes[at].name;
            let what =
                format!("{flow} of {name} moved on an answer to visit {asked}, in visit {now}");
            self.checks.broken("P5", what);
        }
    }

    pub fn check_flows(&mut self) {
        let mut found = None;
        for node in &self.nodes {
            let Some(daemon) = &node.daemon else { continue };
            let slots = &daemon.flows.slots;
            for (level, slot) in slots.iter().enumerate() {
                let body = slot.frame.machine();
                let works = slot.work.as_ref().filter(|w| w.visit == body.visit());
                let runs_child = works.is_some_and(|w| w.operation.is_none());
                let has_child = level + 1 < slots.len();
                let idle = body.is_working() && works.is_none();
                if idle || runs_child != has_child || body.is_ended() {
                    found = Some(format!(
                        "{} of {} is {} and nothing works on it (child: {has_child})",
                        body.flow(),
                        node.name,
                        body.state()
                    ));
                }
            }
        }
        if let Some(what) = found {
            self.checks.broken("P5", what);
        }
    }
}
