//! Who is on the other side: the greeting, the reasons to refuse it, and the proof of a password.
use std::cmp::Ordering;

use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::Sha256;

use super::access::Key;
use crate::pure::consensus::quorum_loss::first_id;

/// First word of every greeting.
pub const MAGIC: &str = "surus";
/// Version of this protocol; others are refused.
pub const VERSION: u32 = 3;
/// Bytes of randomness that each side puts into the password's proof.
pub const NONCE_BYTES: usize = 32;

/// What a node says of itself, first thing on every connection and again when it changes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Hello {
    pub magic: String,
    pub version: u32,
    /// `namespace/scope`: nodes of different ones never talk.
    pub scope: String,
    /// Absent until the node belongs to a cluster.
    pub cluster_id: Option<String>,
    pub cluster_epoch: u64,
    pub raft_id: u64,
    pub name: String,
    /// Where this node can be dialled, `host:port`.
    pub raft_addr: String,
    /// Whatever the consensus wants known before the first message.
    #[serde(default)]
    pub state: Value,
}

impl Hello {
    /// A greeting of this version, outside of any cluster.
    pub fn new(scope: &str, raft_id: u64, name: &str, raft_addr: &str) -> Hello {
        Hello {
            magic: MAGIC.to_owned(),
            version: VERSION,
            scope: scope.to_owned(),
            cluster_id: None,
            cluster_epoch: 0,
            raft_id,
            name: name.to_owned(),
            raft_addr: raft_addr.to_owned(),
            state: Value::Null,
        }
    }
}

/// May these two talk? `Err` is the sentence for both logs.
pub fn check(own: &Hello, peer: &Hello) -> Result<(), String> {
    if peer.magic != MAGIC || peer.version != VERSION {
        return Err(format!("it speaks {} version {}", clip(&peer.magic), peer.version));
    }
    if peer.scope != own.scope {
        return Err(format!("its scope is {}, ours is {}", clip(&peer.scope), own.scope));
    }
    if peer.raft_id == own.raft_id {
        return Err(match peer.name == own.name && peer.raft_addr == own.raft_addr {
            true => "it is this node itself".to_owned(),
            false => format!("{} has our raft id {}", clip(&peer.name), own.raft_id),
        });
    }
    check_cluster(own, peer)
}

fn check_cluster(own: &Hello, peer: &Hello) -> Result<(), String> {
    let (Some(ours), Some(theirs)) = (&own.cluster_id, &peer.cluster_id) else { return Ok(()) };
    if first_id(ours) != first_id(theirs) {
        return Err(format!("it belongs to cluster {}, this node to {ours}", clip(theirs)));
    }
    let (ours_at, theirs_at) = (own.cluster_epoch, peer.cluster_epoch);
    let timeline_behind = |who: &str, behind: &Hello| {
        Err(format!(
            "{who} was left behind by `surus recover` (epoch {ours_at} here, {theirs_at} there): \
             stop {}, move its raft.data_dir away, start it again, and it joins as a new member",
            clip(&behind.name)
        ))
    };
    match theirs_at.cmp(&ours_at) {
        Ordering::Less => timeline_behind("it", peer),
        Ordering::Greater => timeline_behind("this node", own),
        Ordering::Equal if ours != theirs => Err(format!(
            "both {} and {} were recovered, each alone: stop the one with less data at once, move \
             its raft.data_dir away, start it again, and it joins as a new member",
            own.name,
            clip(&peer.name)
        )),
        Ordering::Equal => Ok(()),
    }
}

/// A word of a stranger, fit for a log line.
pub fn clip(text: &str) -> String {
    text.chars().take(100).flat_map(char::escape_debug).collect()
}

/// A sentence of a stranger, fit for a log line.
pub fn clip_long(text: &str) -> String {
    text.chars().take(500).flat_map(char::escape_debug).collect()
}

/// Which end of the connection speaks; both prove the password, neither can echo the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Dialled,
    Accepted,
}

impl End {
    pub fn other(self) -> End {
        match self {
            End::Dialled => End::Accepted,
            End::Accepted => End::Dialled,
        }
    }
}

/// One side of the exchange: its greeting's bytes as sent, and its nonce.
#[derive(Clone, Debug)]
pub struct Opening {
    pub greeting: Vec<u8>,
    pub nonce: Vec<u8>,
}

/// The password's proof by the side `end`, over both nonces and both greetings.
pub fn prove(key: &Key, end: End, dialled: &Opening, accepted: &Opening) -> Vec<u8> {
    mac(key, end, dialled, accepted).finalize().into_bytes().to_vec()
}

/// Is this the proof of the side `end`? Compared in constant time.
pub fn verify(key: &Key, end: End, dialled: &Opening, accepted: &Opening, proof: &[u8]) -> bool {
    mac(key, end, dialled, accepted).verify_slice(proof).is_ok()
}

fn mac(key: &Key, end: End, dialled: &Opening, accepted: &Opening) -> Hmac<Sha256> {
    let mut mac =
        Hmac::<Sha256>::new_from_slice(key.bytes()).expect("HMAC takes keys of every length");
    mac.update(match end {
        End::Dialled => b"surus 2 dialled ",
        End::Accepted => b"surus 2 accepted",
    });
    for part in [&dialled.nonce, &dialled.greeting, &accepted.nonce, &accepted.greeting] {
        mac.update(&(part.len() as u64).to_be_bytes());
        mac.update(part);
    }
    mac
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own() -> Hello {
        Hello::new("/service/batman", 1, "a", "10.0.0.1:2222")
    }

    #[test]
    fn strangers_are_named() {
        let changes: [fn(&mut Hello); 6] = [
            |h| h.magic = "http".into(),
            |h| h.version = VERSION + 1,
            |h| h.scope = "/service/robin".into(),
            |h| h.raft_id = 1,
            |h| h.cluster_id = Some("other".into()),
            |h| h.cluster_epoch = 9,
        ];
        let mut founded = own();
        founded.cluster_id = Some("c".into());
        for (number, change) in changes.iter().enumerate() {
            let mut peer = Hello { raft_id: 2, name: "b".into(), ..founded.clone() };
            assert_eq!(check(&founded, &peer), Ok(()));
            change(&mut peer);
            assert!(check(&founded, &peer).is_err(), "change {number}");
        }
    }

    #[test]
    fn whom_a_recovery_left_behind_is_told_what_to_do() {
        let old = Hello { cluster_id: Some("c".into()), ..own() };
        let at = |id: &str, cluster_epoch| Hello {
            raft_id: 2,
            name: "b".into(),
            cluster_id: Some(id.into()),
            cluster_epoch,
            ..own()
        };
        let new = at("c+1.2", 1);
        let told = check(&old, &new).expect_err("another epoch");
        assert!(told.starts_with("this node was left behind by `surus recover`"), "{told}");
        assert!(told.contains("stop a, move its raft.data_dir away"), "{told}");
        let told = check(&new, &old).expect_err("another epoch");
        assert!(told.starts_with("it was left behind") && told.contains("stop a,"), "{told}");
        let twin = Hello { raft_id: 3, ..at("c+1.3", 1) };
        let told = check(&new, &twin).expect_err("two recoveries");
        assert!(told.contains("each alone"), "{told}");
    }

    #[test]
    fn who_has_no_cluster_yet_may_talk_to_who_has() {
        let peer = Hello { raft_id: 2, cluster_id: Some("c".into()), cluster_epoch: 3, ..own() };
        assert_eq!(check(&own(), &peer), Ok(()));
    }

    #[test]
    fn a_proof_holds_for_one_end_one_password_and_one_exchange() {
        let a = Opening { greeting: b"a".to_vec(), nonce: vec![1; 32] };
        let b = Opening { greeting: b"b".to_vec(), nonce: vec![2; 32] };
        let secret = Key::from_bytes([3; 32]);
        let proof = prove(&secret, End::Dialled, &a, &b);
        assert!(verify(&secret, End::Dialled, &a, &b, &proof));
        assert!(!verify(&secret, End::Accepted, &a, &b, &proof));
        assert!(!verify(&secret, End::Dialled, &b, &a, &proof));
        assert!(!verify(&Key::from_bytes([4; 32]), End::Dialled, &a, &b, &proof));
        assert!(!verify(&secret, End::Dialled, &a, &b, &proof[..31]));
    }
}
