//! The thread that writes the Raft log: in order, off the reactor, and with an eye on how long the
//! disk takes.
use std::collections::VecDeque;
use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::{LogStore, LogWrite};

/// Numbers of writes and when they were submitted, oldest first.
type Pending = Arc<Mutex<VecDeque<(u64, Instant)>>>;

/// Hands writes to a thread of their own. Dropping it waits until all submitted ones are done.
pub struct LogWriter {
    jobs: Option<Sender<(u64, LogWrite)>>,
    pending: Pending,
    thread: Option<JoinHandle<()>>,
}

impl LogWriter {
    /// Starts the thread. `answer` is called on it, once for each write, in order; for a tokio
    /// channel give `move |number, result| { sender.send((number, result)).ok(); }`.
    pub fn start(
        store: impl LogStore + 'static,
        answer: impl FnMut(u64, io::Result<Duration>) + Send + 'static,
    ) -> io::Result<LogWriter> {
        let (jobs, taken) = channel();
        let pending = Pending::default();
        let shared = pending.clone();
        let thread = std::thread::Builder::new()
            .name("raft-log".to_owned())
            .spawn(move || work(store, taken, shared, answer))?;
        Ok(LogWriter { jobs: Some(jobs), pending, thread: Some(thread) })
    }

    /// Queues a write; never blocks. The answer comes with its number.
    pub fn submit(&self, number: u64, write: LogWrite) {
        lock(&self.pending).push_back((number, Instant::now()));
        let jobs = self.jobs.as_ref().expect("the channel is there until the drop");
        jobs.send((number, write)).expect("the thread takes jobs until the drop");
    }

    /// How long the oldest unanswered write has been waiting; nothing waits: `None`. An arbiter
    /// whose append is stuck for too long must step down.
    pub fn age_of_oldest_pending(&self) -> Option<Duration> {
        lock(&self.pending).front().map(|(_, since)| since.elapsed())
    }
}

impl Drop for LogWriter {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

fn work(
    mut store: impl LogStore,
    jobs: Receiver<(u64, LogWrite)>,
    pending: Pending,
    mut answer: impl FnMut(u64, io::Result<Duration>),
) {
    for (number, write) in jobs {
        let result = store.write(write);
        lock(&pending).pop_front();
        answer(number, result);
    }
}

fn lock(pending: &Pending) -> MutexGuard<'_, VecDeque<(u64, Instant)>> {
    pending.lock().expect("nobody panics while holding the list")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    /// A disk that waits for permission.
    struct Slow(mpsc::Receiver<io::Result<()>>);

    impl LogStore for Slow {
        fn write(&mut self, _: LogWrite) -> io::Result<Duration> {
            self.0.recv().expect("the test lives").map(|()| Duration::from_millis(1))
        }
    }

    #[test]
    fn answers_come_in_order_and_the_age_is_of_the_oldest() {
        let (permit, wait) = channel();
        let (report, answers) = channel();
        let writer = LogWriter::start(Slow(wait), move |number, result| {
            report.send((number, result.is_ok())).expect("the test lives");
        })
        .expect("a thread starts");
        assert_eq!(writer.age_of_oldest_pending(), None);
        writer.submit(1, LogWrite::default());
        std::thread::sleep(Duration::from_millis(30));
        writer.submit(2, LogWrite::default());
        assert!(writer.age_of_oldest_pending() >= Some(Duration::from_millis(30)));
        permit.send(Ok(())).expect("the thread lives");
        assert_eq!(answers.recv(), Ok((1, true)));
        assert!(writer.age_of_oldest_pending() < Some(Duration::from_millis(30)));
        permit.send(Err(io::Error::other("disk gone"))).expect("the thread lives");
        assert_eq!(answers.recv(), Ok((2, false)));
        assert_eq!(writer.age_of_oldest_pending(), None);
    }
}
