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

/// Whom every commit waits for: all names if as many are wanted as there are, nobody where PostgreSQL
/// may choose among them, as in `1 (a,b)` or `ANY 1 (a,b)`.
pub fn waited_for(setting: &str) -> BTreeSet<String> {
    let (count, names) = read(setting).unwrap_or_default();
    if count == names.len() { names.into_iter().collect() } else { BTreeSet::new() }
}

/// How many of whom; nothing where nobody is waited for, or what stands there cannot be read.
pub fn read(setting: &str) -> Option<(usize, Vec<String>)> {
    let (head, list) = setting.split_once('(').unwrap_or(("", setting));
    let names = names_in(list.trim_end().trim_end_matches(')'));
    let count = head.rsplit(' ').find(|word| !word.is_empty()).map_or(Ok(1), str::parse);
    Some((count.ok()?, names)).filter(|(_, names)| !names.is_empty())
}

/// The names of a list with commas, without their quotes.
fn names_in(list: &str) -> Vec<String> {
    let (mut names, mut inside, mut last) = (vec![String::new()], false, ' ');
    for c in list.chars() {
        match c {
            '"' if !inside && last == '"' => names.last_mut().into_iter().for_each(|n| n.push('"')),
            '"' => {}
            ',' if !inside => names.push(String::new()),
            c if inside || !c.is_whitespace() => {
                names.last_mut().into_iter().for_each(|n| n.push(c))
            }
            _ => {}
        }
        inside ^= c == '"';
        last = c;
    }
    names.retain(|name| !name.is_empty());
    names
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
    fn whom_commits_wait_for_is_read_back() {
        for list in [&["a"][..], &["a", "b"], &["pg-2", "x,y", "q\"q"], &["Any"], &[]] {
            let all = names(list);
            assert_eq!(waited_for(&first_names(all.len() as u32, &all)), all, "{list:?}");
        }
        for choice in ["1 (a,b)", "ANY 1 (a,b)", "FIRST 1 (a, b)", "*,a", "3 (a,b)", "x (a)"] {
            assert!(waited_for(choice).is_empty(), "{choice}");
        }
        assert_eq!(waited_for("FIRST 2 (a, \"b\")"), names(&["a", "b"]));
    }

    #[test]
    fn keywords_and_odd_names_are_quoted() {
        let cases = [("Any", "\"Any\""), ("a\"b", "\"a\"\"b\""), ("1a", "\"1a\""), ("a1$", "a1$")];
        for (name, expected) in cases {
            assert_eq!(quoted(name), expected);
        }
    }
}
