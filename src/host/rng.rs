//! Numbers that nobody else draws.
use super::clock;

/// Never 0, and below 2^63, so that every reader of JSON can hold it.
pub fn random_id() -> u64 {
    let mut bytes = [0u8; 8];
    let drawn = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    let id = u64::from_ne_bytes(bytes) >> 1;
    if drawn.is_ok() && id != 0 { id } else { clock::now() | 1 }
}
