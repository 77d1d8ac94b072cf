//! Whom Raft's port lets in (SEC-5): whoever speaks Raft may change everything, so a missing password is
//! a fault where others can connect.
use super::Raft;
use super::reader::Section;
use super::sections::is_loopback;

/// Shorter passwords can be guessed.
const PASSWORD_CHARS_MIN: usize = 16;

/// Who may connect to Raft's port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerAccess {
    /// Whoever knows `raft.password`.
    Password,
    /// Processes of this host: there is no password, and all addresses are loopback addresses.
    Loopback,
    /// Nobody: there is no password, and no partner is named.
    Nobody,
    /// Everybody: `raft.insecure`.
    Insecure,
}

impl Raft {
    /// Who may connect. A password always counts; a file that names others without one is a fault, and
    /// lets nobody in.
    pub fn access(&self) -> PeerAccess {
        let hosts = self.partner_addrs.iter().chain([&self.self_addr, &self.bind_addr]);
        match () {
            () if self.password.is_some() => PeerAccess::Password,
            () if self.insecure => PeerAccess::Insecure,
            () if self.partner_addrs.is_empty() => PeerAccess::Nobody,
            () if hosts.into_iter().all(|addr| is_loopback(&addr.host)) => PeerAccess::Loopback,
            () => PeerAccess::Nobody,
        }
    }
}

/// Faults and warnings about it.
pub(super) fn check(section: &Section, raft: &Raft) {
    match raft.access() {
        PeerAccess::Password => {
            let length = raft.password.as_ref().map_or(0, |secret| secret.0.chars().count());
            if length < PASSWORD_CHARS_MIN {
                let message = format!(
                    "is shorter than {PASSWORD_CHARS_MIN} characters and can be guessed; write a \
                     long random word, the same on every node"
                );
                section.warn("password", message);
            }
        }
        PeerAccess::Insecure => section.warn(
            "insecure",
            "lets everybody who reaches raft.bind_addr change everything, and run commands as \
             PostgreSQL's account; give every node the same raft.password instead",
        ),
        PeerAccess::Loopback => section.warn(
            "password",
            "is missing: every account of this host can change everything; only connections from \
             this host are accepted",
        ),
        PeerAccess::Nobody if !raft.partner_addrs.is_empty() => section.fault(
            "password",
            "is missing; whoever reaches raft.bind_addr could change everything: write a long \
             random word, the same on every node",
        ),
        PeerAccess::Nobody => {}
    }
}
