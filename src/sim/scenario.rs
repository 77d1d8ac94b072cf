//! A scenario: a cluster's settings, a story of faults, and what must come of it, as a file.
//!
//! ```yaml
//! scenario: The leader's host dies.
//! source: users-and-peers 4.3, 24
//! cluster: {nodes: 3, seed: 7, config: {ttl: 3, loop_wait: 1, synchronous_mode: true}}
//! story:
//!   - {at_ms: 9950, expect: {leader: some}}
//!   - {at_ms: 10000, fault: {power_cut: {target: leader, ms: 300000}}}
//!   - {at_ms: 15000, expect: {leader: another, lost: 0}}
//! ```
//!
//! Everything under `cluster` has a default ([`Plan::quiet`]); `config` is the dynamic configuration as
//! the founder writes it. All seven promises are checked
//! besides, and after `heal_at` the cluster has to become well.
use serde::{Deserialize, Serialize};
use serde_saphyr::Spanned;

use super::check::Violation;
use super::fault::Fault;
use super::plan::Plan;
use super::run::{self, Failure, Summary};
use super::world::World;
use crate::pure::cluster::Millis;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    scenario: String,
    #[serde(default)]
    source: String,
    #[serde(default)]
    cluster: Plan,
    story: Vec<Spanned<Moment>>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Moment {
    at_ms: Millis,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    fault: Option<Fault>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expect: Option<Expect>,
}

/// What must hold at a moment; what is not named is not looked at.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Expect {
    /// `some`, `none`, `same` or `another` than at the last look, or a node, `n1`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub leader: Option<String>,
    /// Of whoever accepts writes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeline: Option<u32>,
    /// So many promotions have there been.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub promotions: Option<u64>,
    /// So many acknowledged commits are gone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lost: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub voters: Option<usize>,
    /// One accepts writes and all others stream from it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub well: Option<bool>,
    /// The cluster has its identity.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub initialized: Option<bool>,
}

/// A story that can be run.
#[derive(Clone, Debug)]
pub struct Scenario {
    pub title: String,
    pub source: String,
    pub plan: Plan,
    pub expects: Vec<(Millis, Expect)>,
}

impl Scenario {
    /// Reads a file's text.
    ///
    /// # Errors
    /// One sentence with line and column.
    pub fn parse(text: &str) -> Result<Scenario, String> {
        let file: File = serde_saphyr::from_str(text).map_err(|error| plain(&error))?;
        let (mut plan, mut expects) = (file.cluster, Vec::new());
        if plan.nodes == 0 || plan.nodes > NODES_MAX {
            return Err(format!("cluster.nodes is {}: write 1 to {NODES_MAX}", plan.nodes));
        }
        plan.ppm.resize(plan.nodes, 0);
        for moment in file.story {
            let place = moment.referenced;
            let Moment { at_ms, fault, expect } = moment.value;
            let wrong = |what: &str| {
                Err(format!("line {} column {}: {what}", place.line(), place.column()))
            };
            match &fault {
                Some(fault) if fault.numbers().iter().any(|node| *node >= plan.nodes) => {
                    return wrong(&format!("there are only n0 to n{}", plan.nodes - 1));
                }
                None if expect.is_none() => return wrong("neither `fault` nor `expect`"),
                _ => {}
            }
            plan.faults.extend(fault.map(|fault| (at_ms, fault)));
            expects.extend(expect.map(|expect| (at_ms, expect)));
        }
        expects.sort_by_key(|(at, _)| *at);
        plan.read_config();
        Ok(Scenario { title: file.scenario, source: file.source, plan, expects })
    }

    /// The file's text that parses to this.
    pub fn text(&self) -> String {
        let faults = self.plan.faults.iter().map(|(at_ms, fault)| Moment {
            at_ms: *at_ms,
            fault: Some(*fault),
            expect: None,
        });
        let expects = self.expects.iter().map(|(at_ms, expect)| Moment {
            at_ms: *at_ms,
            fault: None,
            expect: Some(expect.clone()),
        });
        let mut story: Vec<Moment> = faults.chain(expects).collect();
        story.sort_by_key(|moment| moment.at_ms);
        let file = serde_json::json!({
            "scenario": self.title, "source": self.source, "cluster": self.plan, "story": story,
        });
        serde_saphyr::to_string(&file).unwrap_or_else(|error| error.to_string())
    }

    /// Runs it to its end.
    ///
    /// # Errors
    /// The promise or the expectation that was broken.
    pub fn run(&self, verbose: bool) -> Result<Summary, Box<Failure>> {
        let mut expects = self.expects.iter();
        let mut next = expects.next();
        let mut led_by = None;
        run::watched(self.plan.clone(), verbose, &mut |world: &mut World, before: Millis| {
            while let Some((at, expect)) = next.filter(|(at, _)| *at < before) {
                expect.judge(world, &mut led_by).map_err(|what| Violation {
                    promise: "expectation",
                    what: format!("at {at} ms {what}"),
                })?;
                next = expects.next();
            }
            Ok(next.is_none())
        })
    }
}

/// Larger clusters than this are nobody's.
const NODES_MAX: usize = 9;

/// The parser's error without its drawing of the place: `line 3 column 23: unknown variant …`.
pub fn plain(error: &serde_saphyr::Error) -> String {
    let text = error.to_string();
    text.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned()
}

impl Expect {
    fn judge(&self, world: &World, led_by: &mut Option<usize>) -> Result<(), String> {
        let leader = world.nodes.iter().position(|n| n.postgres.takes_writes());
        if let Some(wanted) = &self.leader {
            let name = |node: Option<usize>| node.map_or("nobody".into(), |n| format!("n{n}"));
            let holds = match wanted.as_str() {
                "some" => leader.is_some(),
                "none" => leader.is_none(),
                "same" => leader.is_some() && leader == *led_by,
                "another" => leader.is_some() && leader != *led_by,
                node => name(leader) == node,
            };
            if !holds {
                let (now, old) = (name(leader), name(*led_by));
                return Err(format!("{now} leads, not {wanted} (last look: {old})"));
            }
        }
        *led_by = leader.or(*led_by);
        let cluster = leader.and_then(|at| world.nodes[at].postgres.cluster());
        let voters = leader.and_then(|at| world.nodes[at].daemon.as_ref());
        let voters = voters.and_then(|d| d.core.group().map(|group| group.voters().len()));
        same("the timeline", self.timeline, cluster.map(|c| c.wal.timeline()))?;
        same("promotions", self.promotions, Some(world.checks.promotions))?;
        same("commits lost", self.lost, Some(world.checks.lost))?;
        same("voters", self.voters, voters)?;
        same("initialized", self.initialized, Some(world.checks.identity.is_some()))?;
        match (self.well, world.missing()) {
            (Some(true), Some(missing)) => Err(missing),
            (Some(false), None) => Err(String::from("all is well")),
            _ => Ok(()),
        }
    }
}

fn same<T: PartialEq + std::fmt::Debug>(
    what: &str,
    wanted: Option<T>,
    found: Option<T>,
) -> Result<(), String> {
    if wanted.is_none() || wanted == found {
        return Ok(());
    }
    Err(format!("{what}: {found:?}, not {wanted:?}"))
}

#[cfg(test)]
mod tests {
    use super::Scenario;

    const WELL: &str = "scenario: x\nstory:\n  - {at_ms: 10000, fault: switchover}\n";

    #[test]
    fn what_is_written_reads_as_it_was() {
        let text = format!("{WELL}  - {{at_ms: 12000, expect: {{leader: another, lost: 0}}}}\n");
        let one = Scenario::parse(&text).expect("it reads");
        let two = Scenario::parse(&one.text()).unwrap_or_else(|e| panic!("{e}\n{}", one.text()));
        assert_eq!((one.plan, one.expects), (two.plan, two.expects));
    }

    #[test]
    fn mistakes_are_told_with_line_and_column() {
        for (text, words) in [
            ("scenario: x\nstory:\n  - {at_ms: 1, fault: swichover}\n", "line 3 column 23"),
            ("scenario: x\nstory:\n  - {at_ms: 1}\n", "line 3 column 5: neither"),
            (
                "scenario: x\nstory:\n  - {at_ms: 1, fault: {freeze: {target: n12, ms: 4}}}\n",
                "n0 to n2",
            ),
            (
                "scenario: x\nstory:\n  - {at_ms: 1, fault: {freeze: {target: me, ms: 4}}}\n",
                "`me` is nobody",
            ),
            ("scenario: x\ncluster: {nods: 3}\nstory: []\n", "nods"),
            ("scenario: [\n", "line 1 column 11"),
        ] {
            let error = Scenario::parse(text).expect_err(text);
            assert!(error.contains(words) && error.contains("line"), "{text}: {error}");
            assert_eq!(error.lines().count(), 1, "{error}");
        }
    }

    #[test]
    fn an_expectation_that_does_not_hold_is_told() {
        let text = format!("{WELL}  - {{at_ms: 20000, expect: {{leader: same}}}}\n");
        let text = text.replace("story:\n", "story:\n  - {at_ms: 9000, expect: {leader: some}}\n");
        let failure = Scenario::parse(&text).expect("it reads").run(false).expect_err("it moved");
        assert!(failure.violation.what.contains("not same"), "{failure}");
    }
}
