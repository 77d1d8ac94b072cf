//! The simulator against reality: the same histories, step by step, on made-up and real clusters.
//!
//! After each step both are left alone until they are at rest, and say who leads on which timeline,
//! how many replicas stream, and how many acknowledged writes are gone. The two must say the same.
mod made_up;
mod real;

use std::collections::BTreeSet;

use serde::Deserialize;

/// Simulated or real time for a step to come to rest.
const REST_S: u64 = 90;

#[derive(Deserialize)]
pub struct History {
    pub name: String,
    pub steps: Vec<String>,
}

/// A cluster of three that things can be done to.
pub trait Side {
    /// The one node that takes writes.
    fn leader(&self) -> Option<usize>;
    fn timeline(&self, node: usize) -> u32;
    /// Those of `among` that stream from the leader.
    fn streaming(&self, leader: usize, among: &BTreeSet<usize>) -> usize;
    fn act(&mut self, step: &str, node: usize);
    /// Acknowledged writes that were replicated, and are gone.
    fn lost(&self) -> usize;
    fn pass(&mut self, ms: u64);
}

/// Who is there to lead or follow, as far as the history itself says.
struct Teller<'a, S: Side> {
    side: &'a mut S,
    away: BTreeSet<usize>,
    leader: Option<usize>,
    first: u32,
}

/// What both sides must agree on, a line for every step.
pub fn tell(side: &mut impl Side, history: &History) -> Vec<String> {
    let mut teller = Teller { side, away: BTreeSet::new(), leader: None, first: 0 };
    teller.rest(REST_S * 1000);
    teller.leader = teller.side.leader();
    teller.first = teller.leader.map_or(0, |leader| teller.side.timeline(leader));
    let lines = history.steps.iter().map(|step| teller.step(step));
    lines.collect()
}

impl<S: Side> Teller<'_, S> {
    fn step(&mut self, step: &str) -> String {
        let leader = self.leader.or_else(|| self.present().first().copied()).unwrap_or(0);
        let replica = self.present().into_iter().find(|k| *k != leader).unwrap_or(leader);
        let node = if step.ends_with("replica") { replica } else { leader };
        match step.split(' ').next().unwrap_or_default() {
            _ if step == "kill all" => self.away = (0..3).collect(),
            "kill" if step == "kill postmaster" => {}
            "kill" | "freeze" | "isolate" | "stop" => drop(self.away.insert(node)),
            "revive" | "thaw" | "heal" => self.away.clear(),
            _ => {}
        }
        self.side.act(step, node);
        self.rest(REST_S * 1000);
        format!("{step}: {}", self.standing())
    }

    fn present(&self) -> BTreeSet<usize> {
        (0..3).filter(|k| !self.away.contains(k)).collect()
    }

    fn standing(&mut self) -> String {
        let leader = self.side.leader();
        let (before, lost) = (self.leader, self.side.lost());
        let Some(leader) = leader else { return format!("nobody leads, {lost} lost") };
        self.leader = Some(leader);
        let who = if before == Some(leader) { "the same" } else { "another" };
        let later = self.side.timeline(leader) - self.first;
        let streaming = self.side.streaming(leader, &self.present());
        format!("{who} leads, {later} timelines later, {streaming} stream, {lost} lost")
    }

    /// Until nothing changes any more.
    fn rest(&mut self, ms_max: u64) {
        let (mut passed, mut quiet) = (1500, 0);
        self.side.pass(1500); // it takes a moment to begin
        while passed < ms_max && quiet < 8 {
            self.side.pass(250);
            passed += 250;
            quiet = if self.is_at_rest() { quiet + 1 } else { 0 };
        }
    }

    fn is_at_rest(&self) -> bool {
        let present = self.present();
        match self.side.leader() {
            Some(leader) => {
                let others = present.len().saturating_sub(1);
                present.contains(&leader) && self.side.streaming(leader, &present) == others
            }
            None => present.len() < 2,
        }
    }
}

fn histories() -> Vec<History> {
    serde_json::from_str(include_str!("histories.json")).expect("the histories can be read")
}

/// On the simulator alone, several seeds say the same: what is compared is no matter of randomness.
#[test]
fn made_up_clusters_agree_with_each_other() {
    for history in histories() {
        let told: BTreeSet<Vec<String>> =
            (0..6).map(|seed| tell(&mut made_up::MadeUp::new(seed), &history)).collect();
        assert_eq!(told.len(), 1, "{}: {told:#?}", history.name);
    }
}

#[test]
#[ignore = "ten minutes, on a machine with nothing else to do: cargo test --test torture -- --ignored made_up_and_real"]
fn made_up_and_real_clusters_agree() {
    let Some(mut real) = real::Real::new() else { return };
    let mut made_up = made_up::MadeUp::new(1);
    let mut differences = Vec::new();
    for history in histories() {
        println!("{}", history.name);
        let there = tell(&mut real, &history);
        let here = tell(&mut made_up, &history);
        for (real, made_up) in there.iter().zip(&here) {
            println!("  {real}");
            if real != made_up {
                println!("  BUT MADE UP  {made_up}");
                differences.push(format!("{}: {real} | {made_up}", history.name));
            }
        }
    }
    assert!(differences.is_empty(), "{differences:#?}");
}
