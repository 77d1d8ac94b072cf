//! Many seeds, on every core.
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;

use super::run::{Failure, Summary};

pub type Outcome<T = Summary, E = Box<Failure>> = Result<T, E>;

pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(2, usize::from)
}

/// Runs each seed and hands every outcome on, in the order in which they end. `heard` answers
/// whether to go on; runs that have begun are ended and heard all the same.
pub fn seeds<T: Send, E: Send>(
    seeds: Range<u64>,
    threads: usize,
    run: &(dyn Fn(u64) -> Outcome<T, E> + Sync),
    heard: &mut dyn FnMut(Outcome<T, E>) -> bool,
) {
    let (next, enough) = (AtomicU64::new(seeds.start), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let (tell, outcomes) = mpsc::channel();
        for _ in 0..threads.max(1) {
            let (tell, next, enough) = (tell.clone(), &next, &enough);
            scope.spawn(move || {
                while !enough.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end || tell.send(run(seed)).is_err() {
                        return;
                    }
                }
            });
        }
        drop(tell);
        for outcome in outcomes {
            if !heard(outcome) {
                enough.store(true, Ordering::Relaxed);
            }
        }
    });
}
