//! Randomness as a value: a generator whose state the caller holds, so that a run can be repeated.
//!
//! The fingerprint of a chart is the one other hash: the build reads charts by themselves, without
//! the rest of the crate.

/// The next number of splitmix64.
pub fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// A number drawn from a text: always the same for the same text.
pub fn from_text(text: &str) -> u64 {
    text.bytes().fold(0, |drawn, byte| next(&mut (drawn ^ u64::from(byte))))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first numbers of the reference implementation, from state 0 (Vigna, splitmix64.c).
    #[test]
    fn it_is_splitmix64() {
        let mut state = 0;
        let first = [next(&mut state), next(&mut state)];
        assert_eq!(first, [0xE220_A839_7B1D_CDAF, 0x6E78_9E6A_A1B9_65F4]);
    }

    #[test]
    fn texts_that_differ_give_numbers_that_differ() {
        assert_eq!(from_text("n1 3"), from_text("n1 3"));
        let drawn: std::collections::BTreeSet<u64> =
            (0..1000).map(|number| from_text(&format!("n1 {number}"))).collect();
        assert_eq!(drawn.len(), 1000);
    }
}
