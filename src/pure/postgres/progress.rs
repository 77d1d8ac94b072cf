//! The lines of `pg_basebackup --progress`.

/// One line of progress.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    pub bytes_done: u64,
    /// The server's estimate; zero when it gave none. May be less than what is done.
    pub bytes_total: u64,
    pub tablespaces_done: u32,
    pub tablespaces: u32,
}

/// `Some` when the line is one of progress, such as
/// `  23456/34567 kB (67%), 0/1 tablespace (…/base/1/1234)`.
pub fn parse(line: &str) -> Option<Progress> {
    let (amounts, rest) = line.trim().split_once(" kB (")?;
    let (done, total) = match amounts.split_once('/') {
        Some((done, total)) => (done, total.trim().parse().ok()?),
        None => (amounts, 0_u64),
    };
    let (_, spaces) = rest.split_once("), ")?;
    let (spaces_done, spaces) = spaces.split_whitespace().next()?.split_once('/')?;
    Some(Progress {
        bytes_done: done.trim().parse::<u64>().ok()?.saturating_mul(1024),
        bytes_total: total.saturating_mul(1024),
        tablespaces_done: spaces_done.parse().ok()?,
        tablespaces: spaces.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_lines_with_and_without_a_file_name() {
        let line = "  2345/34567 kB (6%), 0/2 tablespaces (/data/pg/base/1/1234     )";
        let progress = parse(line).expect("a line of progress");
        assert_eq!(progress.bytes_done, 2345 * 1024);
        assert_eq!(progress.bytes_total, 34567 * 1024);
        assert_eq!((progress.tablespaces_done, progress.tablespaces), (0, 2));
        assert!(parse("34567/34567 kB (100%), 1/1 tablespace").is_some());
    }

    #[test]
    fn other_lines_are_not_progress() {
        assert_eq!(parse("pg_basebackup: error: could not connect"), None);
        assert_eq!(parse("waiting for checkpoint"), None);
    }

    proptest! {
        #[test]
        fn reads_back_what_the_program_prints(done in 0u64..1 << 40, total in 0u64..1 << 40) {
            let line = format!("{done:9}/{total} kB ({}%), 0/1 tablespace", 5);
            let progress = parse(&line).expect("a line of progress");
            prop_assert_eq!((progress.bytes_done, progress.bytes_total), (done * 1024, total * 1024));
        }

        #[test]
        fn never_panics(line in ".{0,80}") {
            let _ = parse(&line);
        }
    }
}
