//! Who may lead next: one verdict per member, in the order of Patroni's candidate rules.
use super::eligibility::{Candidate, Election, Ineligible, eligible};
use super::facts::Facts;
use super::state::{ClusterState, Verdict};
use crate::pure::postgres::lsn::Lsn;

/// The winner's id and everybody's verdict.
pub fn rank(election: &Election, candidates: &[Candidate]) -> (Option<u64>, Vec<Verdict>) {
    let judged: Vec<(&Candidate, Result<Score, Ineligible>)> =
        candidates.iter().map(|c| (c, judge(election, candidates, c))).collect();
    let best = judged
        .iter()
        .filter_map(|(c, j)| j.as_ref().ok().map(|score| (score, *c)))
        .max_by(|(a, x), (b, y)| a.cmp(b).then_with(|| y.member.name.cmp(&x.member.name)));
    let winner = best.map(|(_, c)| c.id);
    let verdicts = judged.iter().map(|(c, j)| verdict(election.cluster, c, j, winner)).collect();
    (winner, verdicts)
}

/// The name of the one that is preferred `among` these; `all` are the members, the last leader included.
pub fn furthest<'a>(
    election: &Election,
    all: &[Candidate],
    among: impl Iterator<Item = &'a Candidate<'a>>,
) -> Option<&'a str> {
    let scored = among.filter_map(|c| Some((judge(election, all, c).ok()?, &c.member.name)));
    let best = scored.max_by(|(a, x), (b, y)| a.cmp(b).then_with(|| y.cmp(x)));
    best.map(|(_, name)| name.as_str())
}

/// Ordered as candidates are preferred: the wanted one, then timeline, position, priority.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Score {
    wanted: bool,
    timeline: u32,
    position: Lsn,
    priority: i64,
}

fn judge(
    election: &Election,
    candidates: &[Candidate],
    candidate: &Candidate,
) -> Result<Score, Ineligible> {
    let (timeline, position) = eligible(election, candidates, candidate)?;
    let priority = candidate.fresh.map_or(0, Facts::failover_priority);
    Ok(Score { wanted: election.wants(candidate.member), timeline, position, priority })
}

fn verdict(
    cluster: &ClusterState,
    candidate: &Candidate,
    judged: &Result<Score, Ineligible>,
    winner: Option<u64>,
) -> Verdict {
    let (outcome, rule, inputs) = match judged {
        Err(why) => ("refused", why.to_string(), why.inputs()),
        Ok(score) => {
            let inputs = format!(
                "timeline={} position={} priority={}",
                score.timeline, score.position, score.priority
            );
            let chosen = winner == Some(candidate.id);
            let rule = match (chosen, score.wanted) {
                (true, true) => "was named by the operator",
                (true, false) => "is furthest ahead",
                (false, _) => "may lead, but another is preferred",
            };
            (if chosen { "chosen" } else { "eligible" }, rule.to_owned(), inputs)
        }
    };
    let idle = cluster.idle_order_to(&candidate.member.name);
    let order = idle.map(|why| format!(" order=\"{why}\"")).unwrap_or_default();
    Verdict {
        member: candidate.member.name.clone(),
        outcome: outcome.into(),
        rule,
        inputs: inputs + &order,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pure::cluster::facts::Phase;
    use crate::pure::cluster::facts::SqlFacts;
    use crate::pure::cluster::state::{FailoverRequest, Member, Sync};
    use crate::pure::cluster::timelines::Timelines;
    use crate::pure::config::{Dynamic, SynchronousMode};
    use crate::pure::postgres::history::Switch;
    use crate::pure::postgres::state::PgState;

    fn election<'a>(cluster: &'a ClusterState, dynamic: &'a Dynamic) -> Election<'a> {
        let timelines = &cluster.timelines;
        Election {
            cluster,
            dynamic,
            timelines,
            optime: Lsn(2_000_000),
            timeline: 3,
            wanted: None,
            forced: false,
            leader_runs: false,
        }
    }

    fn facts(timeline: u32, position: u64) -> Facts {
        let receive_lsn = Lsn(position);
        let sql = SqlFacts { in_recovery: true, timeline, receive_lsn, ..SqlFacts::default() };
        Facts { has_postgres: true, state: PgState::Running, sql: Some(sql), ..Facts::default() }
    }

    #[test]
    fn whoever_is_about_to_lose_its_data_may_not_lead() {
        let (cluster, dynamic) = (ClusterState::default(), Dynamic::from_value(None));
        for (phase, leads) in [(Phase::Following, true), (Phase::Rebuilding, false)] {
            let known = Facts { phase, ..facts(3, 2_000_000) };
            let candidate = Candidate { id: 1, member: &Member::default(), fresh: Some(&known) };
            assert_eq!(rank(&election(&cluster, &dynamic), &[candidate]).0.is_some(), leads);
        }
    }

    /// The name stays; what lies under it today never confirmed anything.
    #[test]
    fn another_copy_under_a_synchronous_name_may_not_lead() {
        let sync = Sync {
            leader: String::from("a"),
            sync_standby: vec![String::from("b")],
            copies: [(String::from("a"), 3), (String::from("b"), 7)].into(),
            ..Sync::default()
        };
        let cluster = ClusterState { sync: Some(sync), ..ClusterState::default() };
        let mode = SynchronousMode::On;
        let dynamic = Dynamic { synchronous_mode: mode, ..Dynamic::from_value(None) };
        let leads = |name: &str, copy| {
            let known = Facts { copy, ..facts(3, 2_000_000) };
            let member = Member { name: name.to_owned(), ..Member::default() };
            let candidate = Candidate { id: 1, member: &member, fresh: Some(&known) };
            rank(&election(&cluster, &dynamic), &[candidate]).0.is_some()
        };
        assert!(leads("a", 3) && leads("b", 7));
        assert!(!leads("a", 4) && !leads("b", 3) && !leads("b", 0) && !leads("c", 7));
    }

    /// An operator named b, which lags; it got the lease and never promoted. Whatever b could have acknowledged
    /// counts as soon as it may have.
    #[test]
    fn the_synchronous_set_before_a_grant_that_was_not_used_holds() {
        let mode = SynchronousMode::On;
        let dynamic = Dynamic { synchronous_mode: mode, ..Dynamic::from_value(None) };
        let old = Sync { leader: String::from("a"), sync_standby: vec![], ..Sync::default() };
        let sync = old.granted(String::from("b"), Some(7), 4);
        let cluster = ClusterState { sync: Some(sync), ..ClusterState::default() };
        let member = |name: &str| Member { name: name.to_owned(), ..Member::default() };
        let (a, b) = (member("a"), member("b"));
        let winner = |b_is: Option<Facts>| {
            let a_is = facts(3, 2_000_000);
            let candidates = [
                Candidate { id: 1, member: &a, fresh: Some(&a_is) },
                Candidate { id: 2, member: &b, fresh: b_is.as_ref() },
            ];
            rank(&election(&cluster, &dynamic), &candidates).0
        };
        let copy = |copy, timeline| Some(Facts { copy, ..facts(timeline, 500_000) });
        assert_eq!(winner(copy(7, 3)), Some(1), "it says that it never led");
        assert_eq!(winner(copy(7, 4)), None, "it did: a lacks what it acknowledged");
        assert_eq!((winner(copy(8, 3)), winner(None)), (None, None), "that is not known");
    }

    /// The last leader was heard to write on 4, which no record tells of yet.
    #[test]
    fn where_the_last_leader_began_is_known_by_its_own_word() {
        let (cluster, dynamic) = (ClusterState::default(), Dynamic::from_value(None));
        let mut timelines = Timelines::default();
        timelines.note(4, &[Switch { timeline: 3, at: Lsn(500_000) }]);
        let (old, member) = (facts(3, 2_000_000), Member::default());
        let candidate = || Candidate { id: 1, member: &member, fresh: Some(&old) };
        let election = election(&cluster, &dynamic);
        assert_eq!(rank(&election, &[candidate()]).0, Some(1));
        let election = Election { timelines: &timelines, ..election };
        assert_eq!(rank(&election, &[candidate()]).0, None, "its tail is no progress");
    }

    /// A switchover for 2030, and the leader dies today: its candidate may lag no more than anybody else.
    /// The verdict says what became of the order.
    #[test]
    fn an_order_that_waits_waives_no_limit() {
        let request = FailoverRequest {
            leader: Some(String::from("a")),
            candidate: Some(String::from("b")),
            scheduled_at: Some(String::from("2030-01-01T00:00:00+00:00")),
        };
        let mut cluster = ClusterState { failover: Some(request), ..ClusterState::default() };
        let dynamic = Dynamic::from_value(None);
        let (near, far) = (facts(3, 1_999_000), facts(3, 500_000));
        let member = |name: &str| Member { name: name.to_owned(), ..Member::default() };
        let (b, c) = (member("b"), member("c"));
        let decide = |cluster: &ClusterState| {
            let wanted = cluster.order_in_force().and_then(|f| f.candidate.as_deref());
            let election = Election { wanted, ..election(cluster, &dynamic) };
            let far = Candidate { id: 1, member: &b, fresh: Some(&far) };
            rank(&election, &[far, Candidate { id: 2, member: &c, fresh: Some(&near) }])
        };
        let (winner, verdicts) = decide(&cluster);
        assert_eq!(winner, Some(2), "{verdicts:?}");
        assert!(verdicts[0].inputs.ends_with("order=\"it waits for 2030-01-01T00:00:00+00:00\""));
        cluster.failover_in_force = true;
        assert_eq!(decide(&cluster).0, Some(1), "the leader handed over");
    }

    /// An old leader wrote on when nobody heard it any more; the next one began timeline 3 before
    /// that, and is gone now.
    #[test]
    fn a_tail_that_was_left_behind_does_not_count() {
        let mut cluster = ClusterState::default();
        cluster.timelines.note(3, &[Switch { timeline: 2, at: Lsn(500_000) }]);
        let dynamic = Dynamic::from_value(None);
        let (old, member) = (facts(2, 1_900_000), Member::default());
        let candidate = Candidate { id: 1, member: &member, fresh: Some(&old) };
        let (winner, verdicts) = rank(&election(&cluster, &dynamic), &[candidate]);
        assert_eq!(winner, None, "{verdicts:?}");
        assert!(verdicts[0].inputs.contains("lag_bytes=1500000"), "{verdicts:?}");
        // A leader that failed had set 3 aside: 4 began on 2 all the same.
        let mut skipped = ClusterState::default();
        skipped.timelines.note(4, &[Switch { timeline: 2, at: Lsn(500_000) }]);
        let candidate = Candidate { id: 1, member: &member, fresh: Some(&old) };
        assert_eq!(rank(&election(&skipped, &dynamic), &[candidate]).0, None);
        let unknown = ClusterState::default();
        let candidate = Candidate { id: 1, member: &member, fresh: Some(&old) };
        assert_eq!(rank(&election(&unknown, &dynamic), &[candidate]).0, Some(1));
    }
}
