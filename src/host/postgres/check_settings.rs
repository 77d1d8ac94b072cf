//! Asks PostgreSQL's own binary which settings it refuses, before a server has to read them.
//!
//! A setting that the server cannot read is harmless while it runs and fatal at its next start, on
//! every node at once. The text is tried on a directory of its own; no data is touched.
use std::collections::BTreeMap;
use std::time::Duration;

use tokio::sync::Mutex;

use super::Server;
use crate::pure::postgres::settings::{Parameters, conf_settings};

/// Settings by name, each with what PostgreSQL says about it.
pub type Refused = BTreeMap<String, String>;

/// Unknown names hide wrong values, so several rounds may be needed.
const ROUNDS_MAX: usize = 20;
/// They all write the same file.
static TURNS: Mutex<()> = Mutex::const_new(());
const LIMIT: Duration = Duration::from_secs(10);

impl Server {
    /// Which of these the binary refuses.
    ///
    /// # Errors
    /// The binary could not be asked, or complains about something else.
    pub async fn refused_settings(&self, parameters: &Parameters) -> Result<Refused, String> {
        let _turn = TURNS.lock().await;
        let mut left = parameters.clone();
        let mut refused = Refused::new();
        for _ in 0..ROUNDS_MAX {
            let said = self.try_settings(&left).await?;
            let found: Refused = said
                .iter()
                .filter_map(|line| complaint(line))
                .filter(|(n, _)| has(&left, n))
                .collect();
            if found.is_empty() {
                break;
            }
            left.retain(|name, _| !found.keys().any(|bad| bad.eq_ignore_ascii_case(name)));
            refused.extend(found);
        }
        Ok(refused)
    }

    /// What the binary says while it reads them and, without starting anything, ends.
    async fn try_settings(&self, parameters: &Parameters) -> Result<Vec<String>, String> {
        let dir = self.state_dir.join("settings");
        self.files()
            .at(&dir, || std::fs::create_dir_all(&dir))
            .map_err(|e| format!("{}: {e}", dir.display()))?;
        let file = dir.join("postgresql.conf");
        self.files().write_private(&file, &conf_settings(parameters))?;
        let data_dir = dir.display();
        let output = self
            .tool("postgres")
            .args([
                "-C".to_owned(),
                "data_directory".to_owned(),
                "-D".to_owned(),
                data_dir.to_string(),
            ])
            .env("LC_ALL", "C")
            .timeout(LIMIT)
            .run_any(&mut |_, _| true)
            .await?;
        Ok(if output.code == 0 { Vec::new() } else { output.tail })
    }
}

fn has(parameters: &Parameters, name: &str) -> bool {
    parameters.keys().any(|other| other.eq_ignore_ascii_case(name))
}

/// The setting that a line of PostgreSQL's names, and the line from its words on.
pub(in crate::host) fn complaint(line: &str) -> Option<(String, String)> {
    const WORDS: [&str; 5] = [
        "unrecognized configuration parameter \"",
        "invalid value for parameter \"",
        "parameter \"",
        "invalid configuration parameter name \"",
        "outside the valid range for parameter \"",
    ];
    let (_, said) = line.split_once(":  ")?;
    let after = WORDS.iter().find_map(|words| said.split_once(words))?.1;
    let name = after.split('"').next()?;
    let said = said.split(" in file \"").next().unwrap_or(said);
    Some((name.to_owned(), said.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn complaints_name_their_setting() {
        let told = |line: &str| complaint(line).map(|(name, said)| format!("{name}: {said}"));
        let at = "2026-11-22 20:03:43.086 GMT [1] LOG:  ";
        assert_eq!(
            told(&format!("{at}unrecognized configuration parameter \"x\" in file \"/c\" line 2")),
            Some("x: unrecognized configuration parameter \"x\"".into())
        );
        assert_eq!(
            told(&format!("{at}invalid value for parameter \"work_mem\": \"abc\"")),
            Some("work_mem: invalid value for parameter \"work_mem\": \"abc\"".into())
        );
        assert_eq!(
            told(&format!(
                "{at}1 kB is outside the valid range for parameter \"work_mem\" (64 kB)"
            )),
            Some(
                "work_mem: 1 kB is outside the valid range for parameter \"work_mem\" (64 kB)"
                    .into()
            )
        );
        assert_eq!(told("FATAL:  configuration file \"/c\" contains errors"), None);
    }
}
