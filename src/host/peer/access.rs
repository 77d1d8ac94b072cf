//! Who is let in at all: by a key stretched from `raft.password`, or by where the connection comes from.
use std::net::IpAddr;

use crate::pure::config::{PeerAccess, Raft};

/// Argon2id as SEC-13 asks for: 64 MiB, three passes.
const MEMORY_KIB: u32 = 64 * 1024;
const PASSES: u32 = 3;
const KEY_BYTES: usize = 32;

/// The key of both proofs. Stretched once per process, because that costs a tenth of a second.
#[derive(Clone, PartialEq, Eq)]
pub struct Key([u8; KEY_BYTES]);

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("<secret>")
    }
}

impl Key {
    /// The key of this password in this scope (`namespace/scope`).
    ///
    /// # Errors
    /// There is no memory for it.
    pub fn stretch(password: &str, scope: &str) -> Result<Key, String> {
        let wrong = |e: argon2::Error| format!("raft.password cannot be stretched into a key: {e}");
        let params = argon2::Params::new(MEMORY_KIB, PASSES, 1, Some(KEY_BYTES)).map_err(wrong)?;
        let argon =
            argon2::Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, params);
        let mut key = [0; KEY_BYTES];
        let salt = format!("surus raft {scope}");
        argon.hash_password_into(password.as_bytes(), salt.as_bytes(), &mut key).map_err(wrong)?;
        Ok(Key(key))
    }

    pub fn from_bytes(bytes: [u8; KEY_BYTES]) -> Key {
        Key(bytes)
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Who may connect. All but the first are without `raft.password`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Access {
    /// Whoever proves this key.
    Key(Key),
    /// Processes of this host.
    Loopback,
    /// Everybody: `raft.insecure`.
    Everybody,
    /// Nobody: a node that names no partners.
    Nobody,
}

impl Access {
    /// What the configuration says.
    ///
    /// # Errors
    /// The password cannot be stretched.
    pub fn of(raft: &Raft, scope: &str) -> Result<Access, String> {
        Ok(match (raft.access(), &raft.password) {
            (PeerAccess::Password, Some(password)) => {
                Access::Key(Key::stretch(&password.0, scope)?)
            }
            (PeerAccess::Loopback, _) => Access::Loopback,
            (PeerAccess::Insecure, _) => Access::Everybody,
            (PeerAccess::Nobody | PeerAccess::Password, _) => Access::Nobody,
        })
    }

    pub fn key(&self) -> Option<&Key> {
        match self {
            Access::Key(key) => Some(key),
            _ => None,
        }
    }

    /// Whether a connection with this address at its other end may greet; `Err` is the sentence.
    pub fn admits(&self, ip: IpAddr) -> Result<(), String> {
        match self {
            Access::Key(_) | Access::Everybody => Ok(()),
            Access::Loopback if ip.to_canonical().is_loopback() => Ok(()),
            Access::Loopback | Access::Nobody => Err(format!(
                "{ip} is not let in without a password; give every node of the cluster the same \
                 raft.password and restart it"
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_differ_by_password_and_scope_and_are_not_printed() {
        let key = |password, scope| Key::stretch(password, scope).expect("there is memory");
        let one = key("batman", "service/a");
        assert_eq!(one, key("batman", "service/a"));
        assert!(one != key("robin", "service/a") && one != key("batman", "service/b"));
        assert_eq!(format!("{one:?}"), "<secret>");
    }

    #[test]
    fn without_a_password_the_address_decides() {
        let ip = |text: &str| text.parse::<IpAddr>().expect("an address");
        assert_eq!(Access::Loopback.admits(ip("127.0.0.9")), Ok(()));
        assert_eq!(Access::Loopback.admits(ip("::ffff:127.0.0.1")), Ok(()));
        assert!(Access::Loopback.admits(ip("10.0.0.1")).is_err());
        assert!(Access::Nobody.admits(ip("127.0.0.1")).is_err());
        assert_eq!(Access::Everybody.admits(ip("10.0.0.1")), Ok(()));
    }
}
