//! What others are shown of a node: its phase, and Patroni's one sentence for the cycle.
use crate::pure::cluster::facts::{DataDirectory, Phase};
use crate::pure::cluster::state::ClusterState;
use crate::pure::flow::node::State;
use crate::pure::postgres::target::RecoveryProgress;

/// What the state of the flow `node` is to others. A new state has to be placed here to compile.
pub fn phase(state: State) -> Phase {
    match state {
        State::Initialising => Phase::Initialising,
        State::Building => Phase::Building,
        State::Rebuilding => Phase::Rebuilding,
        State::Restarting => Phase::Restarting,
        State::Recovering => Phase::Recovering,
        State::Promoting => Phase::Promoting,
        State::Demoting | State::ReleasingLease | State::SwitchingOver => Phase::Demoting,
        State::Rejoining => Phase::Rejoining,
        State::Leading => Phase::Leading,
        State::StandbyLeading => Phase::LeadingStandby,
        State::Following => Phase::Following,
        State::Active
        | State::Inspecting
        | State::WaitingToRetry
        | State::Deciding
        | State::Disarming
        | State::Blocked
        | State::MovingAside
        | State::StandingBy
        | State::Retargeting
        | State::Comparing
        | State::DivergenceUnknown
        | State::RejectingSwitchover
        | State::AdjustingSync
        | State::SteppingDown
        | State::ForgettingRemote
        | State::ShuttingDown
        | State::GivingUpVote
        | State::Stopped => Phase::Idle,
    }
}

/// What the sentence is made of.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// `None` until the flow has begun.
    pub state: Option<State>,
    pub own_name: &'a str,
    pub cluster: &'a ClusterState,
    /// A majority was heard within the ttl.
    pub has_quorum: bool,
    /// A majority was ever heard.
    pub had_quorum: bool,
    pub data: &'a DataDirectory,
    pub postmaster_alive: bool,
    /// How far the recovery of a restored cluster is.
    pub recovery: Option<&'a RecoveryProgress>,
    /// The first problem of a standby leader with its remote.
    pub remote_problem: Option<&'a str>,
    /// A primary's start takes longer than `primary_start_timeout`, and no other can lead.
    pub start_is_overdue: bool,
}

impl Seen<'_> {
    /// Patroni's one sentence about this cycle.
    pub fn sentence(&self) -> String {
        let name = self.state.map_or("starting", State::name);
        if let Some(recovery) = self.recovery {
            return format!("{name}; {}", recovery.text());
        }
        if let Some(text) = self.without_leader_or_quorum(name) {
            return text;
        }
        let own = self.own_name;
        match (self.state, self.cluster.leader()) {
            (Some(State::Leading), _) => {
                format!("no action. I am ({own}), the leader with the lock")
            }
            (Some(State::StandbyLeading), _) => {
                let trouble = self.remote_problem.map(|problem| format!("; {problem}"));
                let trouble = trouble.unwrap_or_default();
                format!("no action. I am ({own}), the standby leader with the lock{trouble}")
            }
            (Some(State::Following), Some(leader)) => {
                format!("no action. I am ({own}), a secondary, and following a leader ({leader})")
            }
            (_, Some(leader)) => format!("{name}; the leader is ({leader})"),
            (_, None) => self.leaderless(name),
        }
    }

    fn without_leader_or_quorum(&self, name: &str) -> Option<String> {
        let own = self.own_name;
        Some(match self.state {
            Some(State::Recovering | State::Restarting) if self.start_is_overdue => String::from(
                "primary start has timed out, but continuing to wait because failover is not possible",
            ),
            Some(State::Blocked) => why_blocked(self.data, self.cluster.system_identifier()),
            Some(State::Following) if !self.has_quorum => {
                format!("no quorum: no majority is heard. I am ({own}), a secondary, and wait")
            }
            _ if !self.has_quorum && self.had_quorum => {
                format!("{name}; no quorum: no majority is heard")
            }
            _ => return None,
        })
    }

    fn leaderless(&self, name: &str) -> String {
        let exists = self.cluster.system_identifier().is_some();
        if self.state == Some(State::Deciding) && !exists && self.postmaster_alive {
            return String::from(
                "the PostgreSQL that runs here goes on; it is adopted when a majority of the \
                 members is up",
            );
        }
        match &self.cluster.initialize_failure {
            Some(failure) if !exists => format!(
                "{name}; creating the cluster failed on {} (attempt {}): {}",
                failure.node, failure.attempts, failure.reason
            ),
            _ => format!("{name}; nobody leads"),
        }
    }
}

/// What is here that Surus does not touch, and what a person can do.
pub fn why_blocked(data: &DataDirectory, cluster: Option<&str>) -> String {
    match (data, cluster) {
        (DataDirectory::Broken { problem }, Some(_)) => format!(
            "the data directory is broken ({problem}): mend it, move it away, or have it replaced \
             by a copy (surus ctl reinit)"
        ),
        (DataDirectory::Broken { problem }, None) => {
            format!("the data directory is broken ({problem}): mend it, or move it away")
        }
        (DataDirectory::Present { system_identifier, .. }, Some(cluster))
            if system_identifier != cluster =>
        {
            format!(
                "the data directory has the system identifier {system_identifier}, the cluster has \
                 {cluster}: move it away if it may go, or correct postgresql.data_dir"
            )
        }
        (DataDirectory::Present { was_primary: false, .. }, None) => String::from(
            "a PostgreSQL that Surus did not start runs here as a standby, and no cluster exists \
             that it belongs to: start Surus on its primary's node first; a standby is never made \
             a primary by itself",
        ),
        _ => String::from(
            "a PostgreSQL that Surus did not start runs on the data directory, for no cluster that \
             exists or where postgresql.listen does not find it: stop it, and Surus takes the \
             directory over, or correct postgresql.data_dir",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen<'a>(state: State, cluster: &'a ClusterState, data: &'a DataDirectory) -> Seen<'a> {
        Seen {
            state: Some(state),
            own_name: "n1",
            cluster,
            has_quorum: true,
            had_quorum: true,
            data,
            postmaster_alive: true,
            recovery: None,
            remote_problem: None,
            start_is_overdue: false,
        }
    }

    #[test]
    fn lost_quorum_is_said_before_anything_else_of_a_replica() {
        let (cluster, data) = (ClusterState::default(), DataDirectory::Unknown);
        let lost = Seen { has_quorum: false, ..seen(State::Following, &cluster, &data) };
        assert!(lost.sentence().starts_with("no quorum: no majority is heard. I am (n1)"));
        let lost = Seen { has_quorum: false, ..seen(State::Building, &cluster, &data) };
        assert_eq!(lost.sentence(), "building; no quorum: no majority is heard");
    }

    #[test]
    fn overdue_start_says_why_it_goes_on() {
        let (cluster, data) = (ClusterState::default(), DataDirectory::Unknown);
        let overdue = Seen { start_is_overdue: true, ..seen(State::Recovering, &cluster, &data) };
        assert!(overdue.sentence().contains("failover is not possible"));
        let overdue = Seen { start_is_overdue: true, ..seen(State::Leading, &cluster, &data) };
        assert!(overdue.sentence().contains("the leader with the lock"));
    }

    #[test]
    fn data_of_another_cluster_are_named_with_what_to_do() {
        let cluster = ClusterState::default();
        let data = DataDirectory::Broken { problem: "no control file".into() };
        let sentence = seen(State::Blocked, &cluster, &data).sentence();
        assert!(sentence.contains("(no control file): mend it, or move it away"), "{sentence}");
    }
}
