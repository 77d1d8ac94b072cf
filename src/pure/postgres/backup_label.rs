//! The text of `backup_label`: this directory is a copy that recovery has to make consistent.
use super::lsn::Lsn;

/// Where recovery of a copy begins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BackupLabel {
    pub start: Lsn,
    pub checkpoint: Lsn,
    pub timeline: Option<u32>,
    /// `streamed`, `pg_rewind`, …
    pub method: Option<String>,
    /// `primary` or `standby`.
    pub from: Option<String>,
}

/// Reads the file; an error when the two positions that recovery needs are not in it.
pub fn parse(text: &str) -> Result<BackupLabel, String> {
    let get = |name: &str| {
        text.lines()
            .filter_map(|line| line.split_once(": "))
            .find(|(key, _)| *key == name)
            .map(|(_, value)| value.trim())
    };
    let lsn = |name: &str| -> Result<Lsn, String> {
        let value = get(name).ok_or_else(|| format!("backup_label has no `{name}`"))?;
        value.split_whitespace().next().unwrap_or_default().parse()
    };
    Ok(BackupLabel {
        start: lsn("START WAL LOCATION")?,
        checkpoint: lsn("CHECKPOINT LOCATION")?,
        timeline: get("START TIMELINE").and_then(|text| text.parse().ok()),
        method: get("BACKUP METHOD").map(str::to_owned),
        from: get("BACKUP FROM").map(str::to_owned),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: &str = "START WAL LOCATION: 0/2000028 (file 000000010000000000000002)\n\
        CHECKPOINT LOCATION: 0/2000060\nBACKUP METHOD: streamed\nBACKUP FROM: primary\n\
        START TIME: 2026-11-22 15:00:00 UTC\nLABEL: pg_basebackup base backup\nSTART TIMELINE: 1\n";

    #[test]
    fn reads_a_streamed_copy() {
        let label = parse(SAMPLE).expect("whole");
        assert_eq!((label.start, label.checkpoint), (Lsn(0x200_0028), Lsn(0x200_0060)));
        assert_eq!((label.timeline, label.from.as_deref()), (Some(1), Some("primary")));
    }

    #[test]
    fn says_what_is_missing() {
        let text = SAMPLE.replace("CHECKPOINT LOCATION", "X");
        assert!(parse(&text).expect_err("no checkpoint").contains("CHECKPOINT LOCATION"));
    }
}
