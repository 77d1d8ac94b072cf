//! The text of synchronous_standby_names.
use std::collections::BTreeSet;

/// `first` of the standbys by name: `a` for a single one, else `N (a,b)`. Nobody is the empty
/// text, which switches waiting off.
pub fn first_names(count: u32, names: &BTreeSet<String>) -> String {
    let list = list(names);
    match names.len() {
        0 => String::new(),
        1 => list,
        _ => format!("{} ({list})", count.max(1)),
    }
}

/// `ANY n (a,b)`: a commit waits for any `count` of the standbys.
pub fn any_names(count: u32, names: &BTreeSet<String>) -> String {
    if names.is_empty() { String::new() } else { format!("ANY {} ({})", count.max(1), list(names)) }
}

fn list(names: &BTreeSet<String>) -> String {
    names.iter().map(|name| quoted(name)).collect::<Vec<_>>().join(",")
}

/// A name as it stands there: bare if it is a plain identifier and no keyword.
pub fn quoted(name: &str) -> String {
    let letter = |b: u8| b.is_ascii_alphabetic() || b == b'_';
    let plain = name.bytes().next().is_some_and(letter)
        && name.bytes().all(|b| letter(b) || b.is_ascii_digit() || b == b'$')
        && !["first", "any"].iter().any(|word| word.eq_ignore_ascii_case(name));
    if plain { name.to_string() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(list: &[&str]) -> BTreeSet<String> {
        list.iter().map(|name| name.to_string()).collect()
    }

    #[test]
    fn first_is_written_as_patroni_writes_it() {
        assert_eq!(first_names(1, &names(&[])), "");
        assert_eq!(first_names(1, &names(&["a"])), "a");
        assert_eq!(first_names(2, &names(&["pg-2", "b"])), "2 (b,\"pg-2\")");
    }

    #[test]
    fn any_always_has_its_count() {
        assert_eq!(any_names(1, &names(&["a"])), "ANY 1 (a)");
        assert_eq!(any_names(2, &names(&["a", "c", "b"])), "ANY 2 (a,b,c)");
    }

    #[test]
    fn keywords_and_odd_names_are_quoted() {
        let cases = [("Any", "\"Any\""), ("a\"b", "\"a\"\"b\""), ("1a", "\"1a\""), ("a1$", "a1$")];
        for (name, expected) in cases {
            assert_eq!(quoted(name), expected);
        }
    }
}
