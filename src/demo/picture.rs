//! The cluster as the demo sees it: the latest answer of every node, put together.
//!
//! Plain values in, rows and sentences out; this is what the screen shows and what decides that
//! the cluster is up.
use super::fleet::DaemonView;
use super::plan::Plan;
use super::watch::{Build, Member, Seen};

/// One line of the table.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    pub name: String,
    pub port: u16,
    pub daemon: DaemonView,
    pub role: String,
    pub state: String,
    pub timeline: Option<u64>,
    pub lag_bytes: Option<u64>,
    pub sentence: String,
    pub build: Option<Build>,
}

/// What is known so far.
pub struct Picture {
    names: Vec<String>,
    ports: Vec<u16>,
    latest: Vec<Seen>,
    /// Which nodes have answered at least once.
    known: Vec<bool>,
    /// Who led when somebody last did.
    led: Option<String>,
}

impl Picture {
    pub fn new(plan: &Plan) -> Picture {
        let names = plan.names();
        Picture {
            ports: (0..plan.nodes).map(|k| plan.ports_of(k).postgresql).collect(),
            latest: (0..names.len()).map(|node| Seen { node, ..Seen::default() }).collect(),
            known: vec![false; names.len()],
            names,
            led: None,
        }
    }

    /// Replaces what was known of that node; a sentence when another node leads than before.
    pub fn take(&mut self, seen: Seen) -> Option<String> {
        let node = seen.node;
        self.known[node] |= seen.own.is_some();
        self.latest[node] = seen;
        let leader = self.leader()?.to_string();
        let before = self.led.replace(leader.clone());
        let timeline = self.member(&leader).and_then(|member| member.timeline);
        let on = timeline.map(|timeline| format!(" on timeline {timeline}")).unwrap_or_default();
        before.filter(|before| *before != leader).map(|_| format!("{leader} leads now{on}."))
    }

    /// The node that is writable, as it and its own view of the cluster agree.
    pub fn leader(&self) -> Option<&str> {
        let leads = |seen: &&Seen| {
            let name = &self.names[seen.node];
            let own = seen.own.as_ref();
            own.is_some_and(|own| own.role == "primary" && own.state == "running")
                && seen.members.iter().any(|m| m.name == *name && m.role == "leader")
        };
        // Of two that say so, an old one has not yet noticed: the later timeline is the truth.
        let timeline = |seen: &&Seen| seen.own.as_ref().and_then(|own| own.timeline);
        self.latest.iter().filter(leads).max_by_key(timeline).map(|s| self.names[s.node].as_str())
    }

    /// Every node runs, one leads, all others stream from it.
    pub fn is_complete(&self) -> bool {
        let Some(leader) = self.leader() else { return false };
        self.names.iter().all(|name| {
            name == leader || self.member(name).is_some_and(|member| member.state == "streaming")
        })
    }

    /// In the order of the plan, `daemons` likewise.
    pub fn rows(&self, daemons: &[DaemonView]) -> Vec<Row> {
        daemons.iter().enumerate().map(|(node, daemon)| self.row(node, *daemon)).collect()
    }

    fn row(&self, node: usize, daemon: DaemonView) -> Row {
        let name = self.names[node].clone();
        let mut row = Row {
            port: self.ports[node],
            daemon,
            role: String::new(),
            state: if self.known[node] { "no answer".into() } else { "coming up".into() },
            timeline: None,
            lag_bytes: None,
            sentence: String::new(),
            build: None,
            name,
        };
        if let DaemonView::StartsIn { .. } = daemon {
            row.state = "daemon down".into();
            return row;
        }
        let Some(own) = &self.latest[node].own else { return row };
        let member = self.member(&row.name);
        row.role = member.map(|m| m.role.clone()).unwrap_or_else(|| own.role.clone());
        row.state = own.replication_state.clone().unwrap_or_else(|| own.state.clone());
        row.timeline = own.timeline;
        row.lag_bytes = member.and_then(|m| m.lag_bytes);
        row.sentence = [&own.sentence, &own.node_state]
            .into_iter()
            .find(|s| !s.is_empty())
            .cloned()
            .unwrap_or_default();
        row.build = own.build.clone();
        row
    }

    /// A member as the leader sees it, else as anybody does.
    fn member(&self, name: &str) -> Option<&Member> {
        let of = |seen: &Seen| seen.members.iter().position(|m| m.name == name);
        let leader = self.leader().and_then(|leader| self.names.iter().position(|n| n == leader));
        let first = leader.into_iter().map(|node| &self.latest[node]);
        let sources = first.chain(&self.latest);
        sources.filter_map(|seen| Some(&seen.members[of(seen)?])).next()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::plan::{Passwords, Ports};
    use crate::demo::watch::Own;

    fn picture() -> Picture {
        Picture::new(&Plan {
            dir: "/d".into(),
            nodes: 2,
            ports: Ports::default(),
            bin_dir: None,
            version: 15,
            passwords: Passwords::draw().expect("random bytes"),
        })
    }

    fn seen(node: usize, role: &str, timeline: u64, roles: [(&str, &str); 2]) -> Seen {
        let own = Own {
            state: "running".into(),
            role: role.into(),
            timeline: Some(timeline),
            ..Own::default()
        };
        let member = |(k, (role, state)): (usize, (&str, &str))| Member {
            name: format!("n{}", k + 1),
            role: role.into(),
            state: state.into(),
            timeline: Some(timeline),
            lag_bytes: Some(7),
        };
        let members = roles.into_iter().enumerate().map(member).collect();
        Seen { node, own: Some(own), members }
    }

    const N1_LEADS: [(&str, &str); 2] = [("leader", "running"), ("replica", "streaming")];
    const N2_LEADS: [(&str, &str); 2] = [("replica", "streaming"), ("leader", "running")];

    #[test]
    fn complete_means_that_all_others_stream() {
        let mut picture = picture();
        assert!(!picture.is_complete());
        picture.take(seen(
            0,
            "primary",
            1,
            [("leader", "running"), ("replica", "creating replica")],
        ));
        assert_eq!((picture.leader(), picture.is_complete()), (Some("n1"), false));
        picture.take(seen(0, "primary", 1, N1_LEADS));
        assert!(picture.is_complete());
    }

    #[test]
    fn of_two_that_claim_to_lead_the_later_timeline_does() {
        let mut picture = picture();
        assert_eq!(picture.take(seen(0, "primary", 1, N1_LEADS)), None);
        let told = picture.take(seen(1, "primary", 2, N2_LEADS));
        assert_eq!(told.as_deref(), Some("n2 leads now on timeline 2."));
        assert_eq!(picture.leader(), Some("n2"));
    }

    #[test]
    fn a_node_that_is_silent_is_shown_as_silent() {
        let mut picture = picture();
        picture.take(seen(0, "primary", 1, N1_LEADS));
        picture.take(Seen { node: 0, ..Seen::default() });
        let rows =
            picture.rows(&[DaemonView::Runs { pid: 5 }, DaemonView::StartsIn { seconds: 2 }]);
        assert_eq!((rows[0].state.as_str(), rows[1].state.as_str()), ("no answer", "daemon down"));
        let rows = picture.rows(&[DaemonView::Runs { pid: 5 }, DaemonView::Runs { pid: 6 }]);
        assert_eq!(rows[1].state, "coming up");
        assert_eq!(picture.leader(), None);
    }
}
