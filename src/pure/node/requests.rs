//! When an operator's request is fulfilled: as soon as the flow `node` has taken it up.
use super::situation::OperatorRequests;
use crate::pure::flow::node::State;

/// The node went from one state to another: what was asked for is not asked for again.
pub fn moved(requests: &mut OperatorRequests, from: State, to: State) {
    match to {
        State::Restarting => requests.restart = false,
        State::Rebuilding => {
            (requests.reinitialize, requests.build) = (false, Default::default());
        }
        _ => {}
    }
    if from == State::Building && to != State::Building {
        requests.cancel_build = false;
    }
}

/// How the restart that an operator asked for ended, where this transition is its end.
pub fn restart_outcome(from: State, to: State, cause: &str) -> Option<Result<(), String>> {
    match (from, to) {
        (State::Restarting, State::Restarting) => None,
        (State::Restarting, State::Inspecting) => Some(Ok(())),
        (State::Restarting, _) => Some(Err(format!("restart failed: {cause}"))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_end_when_they_are_taken_up() {
        let all = OperatorRequests {
            restart: true,
            reinitialize: true,
            cancel_build: true,
            ..OperatorRequests::default()
        };
        let after = |from, to| {
            let mut requests = all.clone();
            moved(&mut requests, from, to);
            (requests.restart, requests.reinitialize, requests.cancel_build)
        };
        assert_eq!(after(State::Leading, State::Restarting), (false, true, true));
        assert_eq!(after(State::Following, State::Rebuilding), (true, false, true));
        assert_eq!(after(State::Building, State::Building), (true, true, true));
        assert_eq!(after(State::Building, State::WaitingToRetry), (true, true, false));
    }

    #[test]
    fn restart_ends_well_where_the_node_is_inspected_next() {
        let end = |to| restart_outcome(State::Restarting, to, "failed: why");
        assert_eq!(end(State::Restarting), None);
        assert_eq!(end(State::Inspecting), Some(Ok(())));
        assert_eq!(end(State::Demoting), Some(Err("restart failed: failed: why".into())));
        assert_eq!(restart_outcome(State::Leading, State::Inspecting, ""), None);
    }
}
