//! Any text is a chart or a list of faults; a chart that was accepted can be drawn and walked.
use super::bytes::Bytes;
use crate::pure::chart::step::{self, Interpreter};
use crate::pure::chart::{Chart, Trigger, draw};

const STEPS_MAX: usize = 40;

/// Rng for a mind: every guard is answered by the next bit.
struct Whim(u64);

impl Interpreter for Whim {
    fn allows(&mut self, _guard: usize) -> bool {
        self.0 = self.0.rotate_left(1);
        self.0 & 1 == 1
    }

    fn apply(&mut self, _action: usize) {}
}

/// The text is the chart; its bytes are also the randomness with which it is walked.
pub fn source(bytes: &[u8]) {
    let text = super::text(bytes);
    let Ok(chart) = Chart::parse(&text) else { return };
    drop(draw::section(&chart));
    let rng = bytes.iter().fold(0u64, |rng, byte| rng.rotate_left(7) ^ u64::from(*byte));
    walk(&chart, rng, &mut Bytes::new(bytes));
}

fn walk(chart: &Chart, rng: u64, choices: &mut Bytes) {
    let mut mind = Whim(rng);
    let mut place = step::enter(chart, &mut mind).state;
    for _ in 0..STEPS_MAX {
        assert!(chart.states[place].initial.is_none(), "a walk ends in a state without states");
        let delays: Vec<usize> = chart.delays_of(place).collect();
        let trigger = match choices.below(4) {
            0 => Trigger::Done,
            1 => Trigger::Error,
            2 if !delays.is_empty() => Trigger::After(choices.one_of(&delays)),
            _ if !chart.events.is_empty() => Trigger::Event(choices.below(chart.events.len())),
            _ => Trigger::Done,
        };
        if let Some(walk) = step::step(chart, place, trigger, &mut mind) {
            place = walk.state;
        }
    }
}
