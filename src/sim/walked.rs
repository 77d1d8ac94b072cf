//! The steps that runs have walked, kept in a file, so that several commands can be looked at together.
use std::collections::BTreeSet;
use std::io::{Error, ErrorKind};
use std::path::Path;

use super::coverage::StepWalked;
use crate::pure::flow::BUILT_IN;

/// Adds these steps to those of the file, which need not exist; all of them, which stand in the file now.
///
/// # Errors
/// The file cannot be read or written, or holds something else.
pub fn add(file: &Path, walked: &BTreeSet<StepWalked>) -> Result<BTreeSet<StepWalked>, Error> {
    let text = match std::fs::read_to_string(file) {
        Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
        text => text?,
    };
    let old: Result<BTreeSet<StepWalked>, Error> =
        text.lines().enumerate().map(|(at, line)| read(at + 1, line)).collect();
    let all: BTreeSet<StepWalked> = old?.union(walked).cloned().collect();
    let line = |(flow, from, to): &StepWalked| format!("{flow}\t{from}\t{to}\n");
    std::fs::write(file, all.iter().map(line).collect::<String>())?;
    Ok(all)
}

fn read(number: usize, line: &str) -> Result<StepWalked, Error> {
    let words: Vec<&str> = line.split('\t').collect();
    let known = |id: &str| BUILT_IN.iter().map(|(flow, _)| *flow).find(|flow| *flow == id);
    match words[..] {
        [id, from, to] if known(id).is_some() => {
            Ok((known(id).unwrap_or_default(), from.to_owned(), to.to_owned()))
        }
        _ => Err(Error::other(format!("line {number} is no step of a chart: `{line}`"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_added_and_other_files_are_left_alone() {
        let dir = std::env::temp_dir().join(format!("walked{}", std::process::id()));
        let step = |to: &str| ("node", String::from("deciding"), String::from(to));
        std::fs::remove_file(&dir).ok();
        add(&dir, &[step("leading")].into()).expect("it is written");
        let all = add(&dir, &[step("building")].into()).expect("it is written");
        assert_eq!(all, [step("leading"), step("building")].into());
        std::fs::write(&dir, "node\tdeciding\tleading\nsomething else").expect("written");
        let error = add(&dir, &all).expect_err("it is no such file").to_string();
        assert_eq!(error, "line 2 is no step of a chart: `something else`");
        assert!(std::fs::read_to_string(&dir).is_ok_and(|text| text.ends_with("else")));
        std::fs::remove_file(&dir).ok();
    }
}
