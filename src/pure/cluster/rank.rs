//! Who may lead next: one verdict per member, in the order of Patroni's candidate rules.
use super::facts::{DataDirectory, Facts};
use super::state::{ClusterState, Member, Verdict};
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
pub struct Race<'a> {
    pub cluster: &'a ClusterState,
    pub dynamic: &'a Dynamic,
    /// The furthest position the last leader was ever heard to have.
    pub optime: Lsn,
    /// The newest timeline anybody was heard on.
    pub timeline: u32,
    /// A switchover or failover names this member.
    pub wanted: Option<&'a str>,
}

/// The winner's id and everybody's verdict.
pub fn rank(race: &Race, candidates: &[Candidate]) -> (Option<u64>, Vec<Verdict>) {
    let judged: Vec<(&Candidate, Result<Score, Refusal>)> =
        candidates.iter().map(|c| (c, judge(race, c))).collect();
    let best = judged
        .iter()
        .filter_map(|(c, j)| j.as_ref().ok().map(|score| (score, *c)))
        .max_by(|(a, x), (b, y)| a.cmp(b).then_with(|| y.member.name.cmp(&x.member.name)));
    let winner = best.map(|(_, c)| c.id);
    let verdicts = judged.iter().map(|(c, j)| verdict(c, j, winner)).collect();
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

fn judge(race: &Race, candidate: &Candidate) -> Result<Score, Refusal> {
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
    let (timeline, position) = standing(facts)?;
    identity(race, facts)?;
    synchronous(race, candidate)?;
    behind(race, candidate, timeline, position)?;
    let wanted = race.wanted == Some(candidate.member.name.as_str());
    Ok(Score { wanted, timeline, position, priority: facts.failover_priority() })
}

/// Only a PostgreSQL that runs and answers can be promoted.
fn standing(facts: &Facts) -> Result<(u32, Lsn), Refusal> {
    match (&facts.sql, &facts.data) {
        (Some(sql), _) if facts.state == PgState::Running => Ok((sql.timeline, sql.position())),
        (_, DataDirectory::Empty | DataDirectory::Incomplete) => {
            Err(refuse("has no complete copy", facts.state.text()))
        }
        _ => Err(refuse("its PostgreSQL does not answer", facts.state.text())),
    }
}

fn identity(race: &Race, facts: &Facts) -> Result<(), Refusal> {
    let own = facts.sql.as_ref().map_or("", |sql| sql.system_identifier.as_str());
    match race.cluster.system_identifier() {
        Some(sysid) if sysid != own => {
            Err(refuse("belongs to another cluster", format!("system_identifier={own}")))
        }
        _ => Ok(()),
    }
}

/// With synchronous_mode on, only the set that holds everything acknowledged may lead.
fn synchronous(race: &Race, candidate: &Candidate) -> Result<(), Refusal> {
    if race.dynamic.synchronous_mode == SynchronousMode::Off || follows(race) {
        return Ok(());
    }
    let Some(sync) = &race.cluster.sync else { return Ok(()) };
    let name = &candidate.member.name;
    let manual = race.wanted == Some(name.as_str()) && race.cluster.lease.is_none();
    let manual_failover =
        manual && race.cluster.failover.as_ref().is_some_and(|f| f.leader.is_none());
    if manual_failover || sync.leader == *name || sync.sync_standby.contains(name) {
        return Ok(());
    }
    Err(refuse(
        "is not in the synchronous set",
        format!("sync_standby={}", sync.sync_standby.join(",")),
    ))
}

/// In a standby cluster nobody acknowledges anything, and what its leader lacks comes from the
/// remote: the furthest leads, however far that is.
fn follows(race: &Race) -> bool {
    race.dynamic.standby_cluster.is_some()
}

fn behind(race: &Race, candidate: &Candidate, timeline: u32, position: Lsn) -> Result<(), Refusal> {
    if follows(race) {
        return Ok(());
    }
    let lag = race.optime.since(position);
    let inputs = format!("timeline={timeline} position={position} lag_bytes={lag}");
    let manual = race.wanted == Some(candidate.member.name.as_str());
    if !manual && lag > race.dynamic.maximum_lag_on_failover {
        return Err(refuse("lags more than maximum_lag_on_failover", inputs));
    }
    if race.dynamic.check_timeline && timeline < race.timeline {
        return Err(refuse("is on an older timeline (check_timeline)", inputs));
    }
    Ok(())
}

fn verdict(candidate: &Candidate, judged: &Result<Score, Refusal>, winner: Option<u64>) -> Verdict {
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
    Verdict {
        member: candidate.member.name.clone(),
        outcome: outcome.into(),
        rule: rule.into(),
        inputs,
    }
}
