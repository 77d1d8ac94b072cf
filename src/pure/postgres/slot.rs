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

/// Why PostgreSQL would know a member of this name by another one: it cuts names after 63 bytes, and in
/// `application_name` it shows `?` for whatever is not ASCII.
pub fn unfit_name(member: &str) -> Option<String> {
    if member.len() > NAME_LENGTH_MAX {
        return Some(format!(
            "has {} bytes, and PostgreSQL cuts names after {NAME_LENGTH_MAX}; choose a shorter one",
            member.len()
        ));
    }
    (!member.is_ascii()).then(|| {
        String::from(
            "has characters that are not ASCII, which PostgreSQL replaces by `?` in application_name; \
             choose another",
        )
    })
}

/// PostgreSQL could not tell two members of these names apart: their slots have one name, or they
/// differ in upper and lower case only.
pub fn share_a_name(one: &str, other: &str) -> bool {
    one.eq_ignore_ascii_case(other) || slot_name(one) == slot_name(other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_postgresql_cuts_or_mangles_is_told_apart_or_refused() {
        assert_eq!(unfit_name(&"x".repeat(63)), None);
        let said = unfit_name(&"x".repeat(64)).expect("it is cut");
        assert!(said.starts_with("has 64 bytes, and PostgreSQL cuts names after 63"), "{said}");
        assert!(unfit_name("n\u{fc}rnberg").is_some_and(|said| said.contains("not ASCII")));
        assert!(share_a_name("x-y", "x.y") && share_a_name("N1", "n1") && share_a_name("a", "a"));
        let long = |last: &str| format!("{}{last}", "a b".repeat(20));
        assert!(share_a_name(&long("1"), &long("2")), "the slots are cut to one name");
        assert!(!share_a_name("x-y", "xy"));
    }

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
