//! The name of a member's replication slot, which every node must work out alike.

/// PostgreSQL's limit for names, in bytes.
pub const NAME_LENGTH_MAX: usize = 63;

/// A member's name as a slot's name: lower case, `-` and `.` become `_`, any other character its
/// code point as `uNNNN`; 63 characters at most. Different names may collide; the caller says so.
pub fn slot_name(member: &str) -> String {
    let mut name = String::new();
    for c in member.chars().flat_map(char::to_lowercase) {
        match c {
            'a'..='z' | '0'..='9' | '_' => name.push(c),
            '-' | '.' => name.push('_'),
            other => name.push_str(&format!("u{:04}", u32::from(other))),
        }
    }
    name.truncate(NAME_LENGTH_MAX);
    name
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_become_what_postgresql_accepts() {
        assert_eq!(slot_name("Node-1.example"), "node_1_example");
        assert_eq!(slot_name("a b:c"), "au0032bu0058c");
        assert_eq!(slot_name("my_slot"), "my_slot");
        assert_eq!(slot_name(&"x".repeat(80)).len(), 63);
    }

    proptest! {
        #[test]
        fn any_name_gives_a_valid_slot_name_that_stays_as_it_is(member in "\\PC{1,90}") {
            let name = slot_name(&member);
            prop_assert!(!name.is_empty() && name.len() <= NAME_LENGTH_MAX);
            let valid = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
            prop_assert!(name.bytes().all(valid));
            prop_assert_eq!(slot_name(&name), name);
        }
    }
}
