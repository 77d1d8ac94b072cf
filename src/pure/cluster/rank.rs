//! Who may lead next: one verdict per member, in the order of Patroni's candidate rules.
use super::facts::{DataDirectory, Facts};
use super::state::{ClusterState, Member, Sync, Verdict};
use super::timelines::Timelines;
use crate::pure::config::{Dynamic, SynchronousMode};
use crate::pure::postgres::lsn::Lsn;
use crate::pure::postgres::state::PgState;

/// What the arbiter knows of one member when it decides.
pub struct Candidate<'a> {
    pub id: u64,
    pub member: &'a Member,
    /// Facts that answer this round's question; none: it did not answer in time.
    pub fresh: Option<&'a Facts>,
}

/// The circumstances of a decision.
pub struct Election<'a> {
    pub cluster: &'a ClusterState,
    pub dynamic: &'a Dynamic,
    /// Where timelines began: what is recorded, and what was heard of the last leader.
    pub timelines: &'a Timelines,
    /// The furthest position the last leader was ever heard to have.
    pub optime: Lsn,
    /// The newest timeline anybody was heard on.
    pub timeline: u32,
    /// A switchover or failover names this member.
    pub wanted: Option<&'a str>,
}

/// The winner's id and everybody's verdict.
pub fn rank(election: &Election, candidates: &[Candidate]) -> (Option<u64>, Vec<Verdict>) {
    let judged: Vec<(&Candidate, Result<Score, Refusal>)> =
        candidates.iter().map(|c| (c, judge(election, candidates, c))).collect();
    let best = judged
        .iter()
        .filter_map(|(c, j)| j.as_ref().ok().map(|score| (score, *c)))
        .max_by(|(a, x), (b, y)| a.cmp(b).then_with(|| y.member.name.cmp(&x.member.name)));
    let winner = best.map(|(_, c)| c.id);
    let verdicts = judged.iter().map(|(c, j)| verdict(election.cluster, c, j, winner)).collect();
    (winner, verdicts)
}

/// Ordered as candidates are preferred: the wanted one, then timeline, position, priority.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Score {
    wanted: bool,
    timeline: u32,
    position: Lsn,
    priority: i64,
}

struct Refusal {
    rule: &'static str,
    inputs: String,
}

fn refuse(rule: &'static str, inputs: impl Into<String>) -> Refusal {
    Refusal { rule, inputs: inputs.into() }
}

fn judge(
    election: &Election,
    candidates: &[Candidate],
    candidate: &Candidate,
) -> Result<Score, Refusal> {
    if candidate.member.witness {
        return Err(refuse("a witness has no PostgreSQL", ""));
    }
    let Some(facts) = candidate.fresh else {
        return Err(refuse("did not answer in time", ""));
    };
    if facts.leaving {
        return Err(refuse("is shutting down", ""));
    }
    if facts.nofailover() {
        return Err(refuse("is tagged nofailover", ""));
    }
    if facts.watchdog_failed {
        return Err(refuse("its watchdog is required and unusable", ""));
    }
    if facts.node_state == "rebuilding" {
        return Err(refuse("is to be copied anew, by the operator's order", ""));
    }
    let (timeline, position) = standing(facts)?;
    let (kept_on, position) = kept(election, candidate, timeline, position)?;
    identity(election, facts)?;
    synchronous(election, candidates, candidate)?;
    behind(election, candidate, timeline, position)?;
    let wanted = election.wanted == Some(candidate.member.name.as_str());
    Ok(Score { wanted, timeline: kept_on, position, priority: facts.failover_priority() })
}

/// Only a PostgreSQL that runs and answers can be promoted.
fn standing(facts: &Facts) -> Result<(u32, Lsn), Refusal> {
    match (&facts.sql, &facts.data) {
        (Some(sql), _) if facts.state == PgState::Running => Ok((sql.timeline, sql.position())),
        (_, DataDirectory::Empty | DataDirectory::Incomplete) => {
            Err(refuse("has no complete copy", facts.state.text()))
        }
        _ => match &facts.sql_failure {
            Some(failure) => Err(refuse("its PostgreSQL does not answer Surus", &failure.text)),
            None => Err(refuse("its PostgreSQL does not answer", facts.state.text())),
        },
    }
}

/// What a later leader did not take over counts for nothing: an old leader's tail is no progress. An operator
/// who names somebody has looked.
fn kept(
    election: &Election,
    candidate: &Candidate,
    on: u32,
    position: Lsn,
) -> Result<(u32, Lsn), Refusal> {
    let wanted = election.wanted == Some(candidate.member.name.as_str());
    let raw = wanted || follows(election) || on >= election.timeline;
    let known = election.timelines.kept(on, position);
    known.or(raw.then_some((on, position))).ok_or_else(|| {
        let inputs = format!("timeline={on} position={position}");
        refuse("is on a timeline of which nobody recorded where it began", inputs)
    })
}

fn identity(election: &Election, facts: &Facts) -> Result<(), Refusal> {
    let own = facts.sql.as_ref().map_or("", |sql| sql.system_identifier.as_str());
    match election.cluster.system_identifier() {
        Some(sysid) if sysid != own => {
            Err(refuse("belongs to another cluster", format!("system_identifier={own}")))
        }
        _ => Ok(()),
    }
}

/// With synchronous_mode on, only the set that holds everything acknowledged may lead.
fn synchronous(
    election: &Election,
    candidates: &[Candidate],
    candidate: &Candidate,
) -> Result<(), Refusal> {
    if election.dynamic.synchronous_mode == SynchronousMode::Off || follows(election) {
        return Ok(());
    }
    let Some(sync) = &election.cluster.sync else { return Ok(()) };
    let sync = in_force(sync, candidates);
    let name = &candidate.member.name;
    let manual = election.wanted == Some(name.as_str()) && election.cluster.lease.is_none();
    let manual_failover =
        manual && election.cluster.failover.as_ref().is_some_and(|f| f.leader.is_none());
    let named = sync.leader == *name || sync.sync_standby.contains(name);
    let copy = candidate.fresh.map(|facts| facts.copy);
    let same = sync.copies.get(name).is_none_or(|known| Some(*known) == copy);
    match (manual_failover || named && same, named) {
        (true, _) => Ok(()),
        (false, true) => {
            let known = sync.copies.get(name).copied().unwrap_or_default();
            let inputs = format!("copy={:016x} synchronous={known:016x}", copy.unwrap_or_default());
            Err(refuse("its copy is not the one that was synchronous", inputs))
        }
        (false, false) => {
            let inputs = format!("sync_standby={}", sync.sync_standby.join(","));
            Err(refuse("is not in the synchronous set", inputs))
        }
    }
}

/// The set that counts: a leader that was granted the lease and never began its timeline has acknowledged
/// nothing, and what was before still holds. Its own PostgreSQL says so, or a copy that is still the one which
/// was granted and not finished: nobody promotes that.
fn in_force<'a>(sync: &'a Sync, candidates: &[Candidate]) -> &'a Sync {
    let leader = candidates.iter().find(|c| c.member.name == sync.leader);
    let facts = leader.and_then(|c| c.fresh);
    let never_led = facts.is_some_and(|facts| {
        let same = sync.copies.get(&sync.leader) == Some(&facts.copy);
        let unfinished = facts.copy != 0 && facts.data == DataDirectory::Incomplete;
        let recovers = facts.sql.as_ref().filter(|sql| sql.in_recovery && sql.timeline > 0);
        same && (unfinished || recovers.is_some_and(|sql| sql.timeline < sync.timeline))
    });
    match sync.before.as_deref().filter(|_| never_led) {
        Some(before) => in_force(before, candidates),
        None => sync,
    }
}

/// In a standby cluster nobody acknowledges anything, and what its leader lacks comes from the
/// remote: the furthest leads, however far that is.
fn follows(election: &Election) -> bool {
    election.cluster.only_follows(election.dynamic)
}

fn behind(
    election: &Election,
    candidate: &Candidate,
    timeline: u32,
    position: Lsn,
) -> Result<(), Refusal> {
    if follows(election) {
        return Ok(());
    }
    let lag = election.optime.since(position);
    let inputs = format!("timeline={timeline} position={position} lag_bytes={lag}");
    let manual = election.wanted == Some(candidate.member.name.as_str());
    if !manual && lag > election.dynamic.maximum_lag_on_failover {
        return Err(refuse("lags more than maximum_lag_on_failover", inputs));
    }
    if election.dynamic.check_timeline && timeline < election.timeline {
        return Err(refuse("is on an older timeline (check_timeline)", inputs));
    }
    Ok(())
}

fn verdict(
    cluster: &ClusterState,
    candidate: &Candidate,
    judged: &Result<Score, Refusal>,
    winner: Option<u64>,
) -> Verdict {
    let (outcome, rule, inputs) = match judged {
        Err(refusal) => ("refused", refusal.rule, refusal.inputs.clone()),
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
            (if chosen { "chosen" } else { "eligible" }, rule, inputs)
        }
    };
    let idle = cluster.idle_order_to(&candidate.member.name);
    let order = idle.map(|why| format!(" order=\"{why}\"")).unwrap_or_default();
    Verdict {
        member: candidate.member.name.clone(),
        outcome: outcome.into(),
        rule: rule.into(),
        inputs: inputs + &order,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pure::cluster::facts::SqlFacts;
    use crate::pure::cluster::state::FailoverRequest;
    use crate::pure::postgres::history::Switch;

    fn election<'a>(cluster: &'a ClusterState, dynamic: &'a Dynamic) -> Election<'a> {
        let timelines = &cluster.timelines;
        Election { cluster, dynamic, timelines, optime: Lsn(2_000_000), timeline: 3, wanted: None }
    }

    fn facts(timeline: u32, position: u64) -> Facts {
        let receive_lsn = Lsn(position);
        let sql = SqlFacts { in_recovery: true, timeline, receive_lsn, ..SqlFacts::default() };
        Facts { state: PgState::Running, sql: Some(sql), ..Facts::default() }
    }

    #[test]
    fn whoever_is_about_to_lose_its_data_may_not_lead() {
        let (cluster, dynamic) = (ClusterState::default(), Dynamic::from_value(None));
        for (node_state, leads) in [("following", true), ("rebuilding", false)] {
            let known = Facts { node_state: node_state.into(), ..facts(3, 2_000_000) };
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
