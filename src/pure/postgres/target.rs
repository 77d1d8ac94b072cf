//! Recovery targets: what was asked for, where recovery stopped, and whether that is the same.
use serde::{Deserialize, Serialize};

use super::lsn::Lsn;

/// The parameters that name a target, in the order in which they are looked for.
pub const PARAMETERS: [&str; 5] = [
    "recovery_target",
    "recovery_target_lsn",
    "recovery_target_name",
    "recovery_target_time",
    "recovery_target_xid",
];

/// Where a restored cluster's recovery ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecoveryEnd {
    /// The timeline that it is on now.
    pub timeline: u32,
    /// Where the old timeline was left.
    pub lsn: Lsn,
    /// Commit time of the last transaction that was replayed.
    pub time: Option<String>,
    /// `recovery_target_time = 2026-11-22 …`; empty when no target was asked for.
    pub asked: String,
    /// PostgreSQL's words of the timeline history: `before 2026-11-22 …`, `at restore point "x"`.
    pub reached: String,
}

impl RecoveryEnd {
    /// Whether recovery stopped where it should; the error is a sentence.
    pub fn judge(&self) -> Result<(), String> {
        let Some((name, value)) = self.asked.split_once(" = ") else { return Ok(()) };
        if meets(name, value, &self.reached) {
            return Ok(());
        }
        let reached = if self.reached.is_empty() { "no target" } else { self.reached.as_str() };
        let at = self.time.as_ref().map_or(String::new(), |time| format!(", last commit {time}"));
        Err(format!(
            "recovery stopped at {} of timeline {}{at} ({reached}), not at the {name} `{value}` that \
             was asked for",
            self.lsn, self.timeline
        ))
    }
}

/// The reason is the server's own, so its kind tells which target ended the recovery.
fn meets(name: &str, value: &str, reason: &str) -> bool {
    let side = reason.strip_prefix("before ").or(reason.strip_prefix("after "));
    let value = value.trim();
    match name {
        "recovery_target" => reason == "reached consistency",
        "recovery_target_name" => reason == format!("at restore point \"{value}\""),
        "recovery_target_xid" => side == Some(&format!("transaction {value}")),
        "recovery_target_lsn" => side.is_some_and(|rest| rest.starts_with("LSN ")),
        "recovery_target_time" => {
            side.is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
        }
        _ => false,
    }
}

/// Of a `0000000N.history` file, the last line: where the timeline before was left, and why.
pub fn last_switch(history: &str) -> Option<(Lsn, String)> {
    let is_row = |line: &&str| line.trim_start().starts_with(|c: char| c.is_ascii_digit());
    let line = history.lines().rev().find(is_row)?;
    let mut words = line.trim().splitn(3, ['\t', ' ']);
    let (_, at, reason) = (words.next()?, words.next()?, words.next().unwrap_or_default());
    Some((at.parse().ok()?, reason.trim().to_string()))
}

/// How far a recovery is, for people.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecoveryProgress {
    /// Zero while the server does not say.
    pub lsn: Lsn,
    pub time: Option<String>,
    /// `recovering 000000010000000000000003`, as the process shows itself.
    pub doing: String,
    pub paused: bool,
    /// What a person can do, where it waits for one.
    pub hint: String,
}

impl RecoveryProgress {
    /// In one sentence's half.
    pub fn text(&self) -> String {
        let mut text = String::from("recovery");
        if !self.doing.is_empty() {
            text = format!("{text}: {}", self.doing);
        }
        if self.lsn > Lsn(0) {
            text.push_str(&format!(", at {}", self.lsn));
        }
        if let Some(time) = &self.time {
            text.push_str(&format!(", last commit {time}"));
        }
        if !self.hint.is_empty() {
            text.push_str(&format!("; {}", self.hint));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(asked: &str, reached: &str) -> RecoveryEnd {
        RecoveryEnd {
            timeline: 2,
            asked: asked.into(),
            reached: reached.into(),
            ..Default::default()
        }
    }

    /// Spec: B-26, EX-25.
    #[test]
    fn each_target_is_met_by_its_own_reason_only() {
        let reasons = [
            ("recovery_target = immediate", "reached consistency"),
            ("recovery_target_name = here", "at restore point \"here\""),
            ("recovery_target_xid = 733", "after transaction 733"),
            ("recovery_target_lsn = 0/3000000", "before LSN 0/3000000"),
            ("recovery_target_time = 2026-11-22", "before 2026-11-22 10:00:00.1+00"),
        ];
        for (asked, _) in reasons {
            for (other, reached) in reasons {
                assert_eq!(
                    end(asked, reached).judge().is_ok(),
                    asked == other,
                    "{asked}: {reached}"
                );
            }
            let missed = end(asked, "no recovery target specified").judge().expect_err("missed");
            assert!(missed.contains("asked for"), "{missed}");
        }
        assert_eq!(end("", "no recovery target specified").judge(), Ok(()));
        assert!(end("recovery_target_name = here", "at restore point \"there\"").judge().is_err());
        assert!(end("recovery_target_xid = 733", "after transaction 7331").judge().is_err());
    }

    #[test]
    fn the_last_line_of_a_history_tells_where_and_why() {
        let text = "1\t0/3000148\tno recovery target specified\n\n\
            2\t0/5000A8\tbefore 2026-11-22 10:00:00.123+00\n\n";
        let found = last_switch(text).expect("a switch");
        assert_eq!(found, (Lsn(0x50_00A8), "before 2026-11-22 10:00:00.123+00".into()));
        assert_eq!(last_switch("# nothing\n"), None);
    }
}
