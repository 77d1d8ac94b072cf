//! What waits to be sent to one address: bounded, and honest about what it drops.
//!
//! Raft repeats what is lost, and gossip is overtaken by newer gossip; so a full queue throws away
//! the oldest gossip first, and refuses the newest frame when there is none.
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard};

use tokio::sync::Notify;

use crate::host::frame::{FRAME_BYTES_MAX, Frame};

/// Frames that may wait for one address.
pub const FRAMES_MAX: usize = 1024;
/// Bytes that may wait for one address: four of the largest frames.
pub const BYTES_MAX: usize = 4 * FRAME_BYTES_MAX;

/// One address's outgoing frames.
#[derive(Default)]
pub struct Queue {
    inner: Mutex<Inner>,
    filled: Notify,
}

#[derive(Default)]
struct Inner {
    /// The raft id of the peer at the other end, while a connection stands.
    open_to: Option<u64>,
    bytes: usize,
    frames: VecDeque<Frame>,
}

impl Inner {
    fn has_room(&self, bytes: usize) -> bool {
        self.frames.len() < FRAMES_MAX && self.bytes + bytes <= BYTES_MAX
    }

    fn drop_oldest_gossip(&mut self) -> bool {
        let Some(at) = self.frames.iter().position(|frame| !matches!(frame, Frame::Raft(_))) else {
            return false;
        };
        self.bytes -= self.frames.remove(at).map_or(0, |frame| frame.len());
        true
    }
}

impl Queue {
    /// Takes a frame, or answers `false`: too large, no connection, or full of Raft messages.
    pub fn push(&self, frame: Frame) -> bool {
        let mut inner = self.lock();
        if inner.open_to.is_none() || frame.len() > FRAME_BYTES_MAX {
            return false;
        }
        while !inner.has_room(frame.len()) {
            if !inner.drop_oldest_gossip() {
                return false;
            }
        }
        inner.bytes += frame.len();
        inner.frames.push_back(frame);
        drop(inner);
        self.filled.notify_one();
        true
    }

    /// A connection to this raft id stands: frames are taken. `None` forgets what waited.
    pub fn set_open(&self, open_to: Option<u64>) {
        let mut inner = self.lock();
        *inner = Inner { open_to, ..Inner::default() };
    }

    /// The raft id of the peer at the other end, while a connection stands.
    pub fn open_to(&self) -> Option<u64> {
        self.lock().open_to
    }

    /// The next frame; waits for one. Safe to drop while waiting.
    pub async fn next(&self) -> Frame {
        loop {
            if let Some(frame) = self.try_next() {
                return frame;
            }
            self.filled.notified().await;
        }
    }

    /// The next frame if one waits.
    pub fn try_next(&self) -> Option<Frame> {
        let mut inner = self.lock();
        let frame = inner.frames.pop_front()?;
        inner.bytes -= frame.len();
        Some(frame)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("nobody panics while holding the queue")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raft(n: u8) -> Frame {
        Frame::Raft(vec![n])
    }

    fn open() -> Queue {
        let queue = Queue::default();
        queue.set_open(Some(2));
        queue
    }

    #[test]
    fn a_full_queue_drops_old_gossip_then_new_raft() {
        let queue = open();
        assert!(queue.push(Frame::Peer(vec![1])));
        assert!(queue.push(Frame::Peer(vec![2])));
        for _ in 2..FRAMES_MAX {
            assert!(queue.push(raft(0)));
        }
        assert!(queue.push(raft(1)));
        assert_eq!(queue.try_next(), Some(Frame::Peer(vec![2])));
        assert!(queue.push(raft(2)));
        assert!(!queue.push(raft(3)));
        assert!(!queue.push(Frame::Peer(vec![4])));
    }

    #[test]
    fn bytes_are_bounded_too() {
        let queue = open();
        let large = Frame::Raft(vec![0; FRAME_BYTES_MAX - 1]);
        assert!((0..4).all(|_| queue.push(large.clone())));
        assert!(!queue.push(raft(0)));
        assert!(queue.try_next().is_some());
        assert!(queue.push(raft(0)));
        assert!(!open().push(Frame::Raft(vec![0; FRAME_BYTES_MAX])));
    }

    #[test]
    fn nothing_waits_for_a_connection_that_is_not_there() {
        let queue = open();
        queue.push(raft(1));
        queue.set_open(None);
        assert!(!queue.push(raft(2)));
        queue.set_open(Some(2));
        assert_eq!(queue.try_next(), None);
    }
}
