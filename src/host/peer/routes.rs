//! Where we dial: one queue per address, found by address or by the raft id that greeted there.
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::oneshot;

use super::queue::Queue;
use crate::host::frame::Frame;
use crate::pure::config::HostPort;

/// One address that is dialled.
pub struct Target {
    pub queue: Arc<Queue>,
    /// Dropped to end the dialling.
    pub _stop: oneshot::Sender<()>,
}

#[derive(Default)]
struct Inner {
    targets: BTreeMap<String, Target>,
    /// Addresses where a dialled connection was opened: their inbound connections have places of their own.
    dialled: BTreeSet<IpAddr>,
}

/// Shared by all connections of a node.
#[derive(Clone, Default)]
pub struct Routes(Arc<Mutex<Inner>>);

impl Routes {
    /// Keeps the targets of these addresses and adds what is missing.
    pub fn set(&self, addrs: Vec<HostPort>, dial: impl Fn(HostPort) -> Target) {
        let targets = &mut self.lock().targets;
        targets.retain(|key, _| addrs.iter().any(|addr| addr.to_string() == *key));
        for addr in addrs {
            targets.entry(addr.to_string()).or_insert_with(|| dial(addr));
        }
    }

    /// Puts a frame into the queue of an address.
    pub fn send(&self, addr: &HostPort, frame: Frame) -> bool {
        self.lock().targets.get(&addr.to_string()).is_some_and(|target| target.queue.push(frame))
    }

    /// Sends a frame on every connection that we dialled and that this raft id greeted on.
    pub fn send_to_id(&self, id: u64, frame: &Frame) {
        let inner = self.lock();
        for target in inner.targets.values().filter(|t| t.queue.open_to() == Some(id)) {
            target.queue.push(frame.clone());
        }
    }

    pub fn dialled(&self, ip: IpAddr) {
        self.lock().dialled.insert(ip.to_canonical());
    }

    pub fn was_dialled(&self, ip: IpAddr) -> bool {
        self.lock().dialled.contains(&ip.to_canonical())
    }

    /// Ends all dialling.
    pub fn clear(&self) {
        self.lock().targets.clear();
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().expect("nobody panics while holding the targets")
    }
}
