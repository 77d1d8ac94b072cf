//! What another server says of itself: identity, timeline, and the way it came.
//!
//! Asked by IDENTIFY_SYSTEM and TIMELINE_HISTORY over a replication connection, because that is
//! what a replication role may do with nothing but its default rights; the SQL functions with the
//! same answers need a superuser. tokio-postgres cannot open such a connection, psql can, with
//! every authentication method and TLS setting that the walreceiver itself would use; it comes
//! in the same package as pg_basebackup.
use std::time::Duration;

use super::Server;
use super::program::Program;
use super::replica::Remote;
use super::session::identifier;
use crate::pure::postgres::history::{self, Divergence, Left, Lineage, Switch, divergence};

const OBJECT_IN_USE: &str = "55006";
/// For one question, connecting included.
const ANSWER: Duration = Duration::from_secs(10);

impl Server {
    /// The lineage of the server at `from`, asked as a replication user.
    pub async fn lineage(&self, from: &Remote) -> Result<Lineage, String> {
        self.write_passfile(&from.passfile).await?;
        let answer = self.ask(from, "IDENTIFY_SYSTEM").run().await?.stdout;
        let mut lineage = identified(&answer)?;
        if lineage.timeline > 1 {
            let question = format!("TIMELINE_HISTORY {}", lineage.timeline);
            let answer = self.ask(from, &question).run().await?.stdout;
            let (_, text) = answer.split_once('|').ok_or("the timeline history has no content")?;
            lineage.history = history::parse(text)?;
        }
        Ok(lineage)
    }

    /// Who answers at `from`, and whether clients could write there.
    pub async fn probe(&self, from: &Remote) -> Result<Probe, String> {
        self.write_passfile(&from.passfile).await?;
        let questions =
            ["IDENTIFY_SYSTEM", "SHOW server_version_num", "SHOW transaction_read_only"];
        let answer = self.ask_all(from, &questions).run().await?.stdout;
        probed(&answer)
    }

    /// The slot on the server at `from`: there, or created now (then true). Our replication role
    /// may do that by its default rights.
    pub async fn ensure_remote_slot(&self, from: &Remote, slot: &str) -> Result<bool, String> {
        self.write_passfile(&from.passfile).await?;
        let create = format!("CREATE_REPLICATION_SLOT {} PHYSICAL RESERVE_WAL", identifier(slot));
        match self.ask(from, &create).run().await {
            Ok(_) => Ok(true),
            Err(problem) if problem.contains("already exists") => Ok(false),
            Err(problem) => Err(problem),
        }
    }

    /// Whether somebody streams by this slot of the server at `from`. Asked by trying to take it, at
    /// a place that no server reaches: nothing is sent, and the slot stays as it is.
    pub async fn remote_slot_is_busy(&self, from: &Remote, slot: &str) -> Result<bool, String> {
        self.write_passfile(&from.passfile).await?;
        let take = format!("START_REPLICATION SLOT {} PHYSICAL FFFFFFFF/0", identifier(slot));
        // The words may be in any language, the code is the same in all.
        let program = self.ask(from, &take).args(["-v", "VERBOSITY=sqlstate"]);
        let answer = program.run().await.err().unwrap_or_default();
        Ok(answer.contains(OBJECT_IN_USE))
    }

    /// Has our stopped cluster gone another way than `leader`? `replayed` is how far a standby
    /// was known to have replayed, where that is more than its control file says.
    pub async fn check_divergence(
        &self,
        leader: &Lineage,
        replayed: Option<crate::pure::postgres::lsn::Lsn>,
    ) -> Result<Divergence, String> {
        let found = self.inspect().await?;
        let control = found.control.ok_or("the data directory has no readable control file")?;
        if control.system_identifier != leader.system_identifier {
            return Err(format!(
                "our cluster is {}, the leader's is {}: they are not copies of each other",
                control.system_identifier, leader.system_identifier
            ));
        }
        let (timeline, end) = control.position();
        // A signal file says what is to become of it, the control file what it was. A fresh copy
        // carries its source's control file, and recovers like a standby.
        let left = if !control.out_of_recovery() || found.backup_label.is_some() {
            Left::Standby { end: end.max(replayed.unwrap_or_default()) }
        } else if control.clean() {
            Left::CleanPrimary { checkpoint: control.checkpoint }
        } else {
            Left::CrashedPrimary
        };
        let ours = self.own_history(timeline)?;
        Ok(divergence(timeline, ours.as_deref(), left, leader))
    }

    /// Does the leader's timeline of our number come from elsewhere? A standby that seems to stream
    /// it does not know.
    pub async fn namesake(&self, leader: &Lineage) -> Result<Option<String>, String> {
        let timeline = self.control().await?.position().0;
        Ok(history::namesake(timeline, self.own_history(timeline)?.as_deref(), leader))
    }

    /// How our timeline came about, if its file is there.
    pub fn own_history(&self, timeline: u32) -> Result<Option<Vec<Switch>>, String> {
        let file = self.data_dir.join(format!("pg_wal/{timeline:08X}.history"));
        self.files().read(&file)?.map(|text| history::parse(&text)).transpose()
    }

    fn ask(&self, from: &Remote, question: &str) -> Program {
        self.ask_all(from, &[question])
    }

    fn ask_all(&self, from: &Remote, questions: &[&str]) -> Program {
        let program = self
            .tool("psql")
            .args(["-X", "-A", "-t", "-w", "-F", "|", "-v", "ON_ERROR_STOP=1"])
            .args(questions.iter().flat_map(|question| ["-c", question]))
            .args(["-d".to_owned(), format!("{} replication=true", from.conninfo)])
            .env("PGCONNECT_TIMEOUT", "5")
            .timeout(ANSWER);
        match self.passfile_env(&from.passfile) {
            Some((name, path)) => program.env(name, path),
            None => program,
        }
    }
}

/// What a server says of itself to whoever may stream from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    pub lineage: Lineage,
    /// 150018 is 15.18.
    pub server_version: u32,
    /// Out of recovery and not read-only for all.
    pub accepts_writes: bool,
}

/// One answer a line.
pub(in crate::host) fn probed(answer: &str) -> Result<Probe, String> {
    let mut lines = answer.lines().map(str::trim).filter(|line| !line.is_empty());
    let lineage = identified(lines.next().unwrap_or_default())?;
    let version = lines.next().and_then(|text| text.parse().ok());
    let (Some(server_version), Some(read_only)) = (version, lines.next()) else {
        return Err(format!("the server did not say what it is: `{}`", answer.trim()));
    };
    Ok(Probe { lineage, server_version, accepts_writes: read_only == "off" })
}

/// `system identifier|timeline|position|database`
fn identified(answer: &str) -> Result<Lineage, String> {
    let wrong = || format!("IDENTIFY_SYSTEM was answered by `{}`", answer.trim());
    let mut fields = answer.trim().split('|');
    let mut next = || fields.next().ok_or_else(wrong);
    Ok(Lineage {
        system_identifier: next()?.to_owned(),
        timeline: next()?.parse().map_err(|_| wrong())?,
        position: next()?.parse().map_err(|_| wrong())?,
        history: Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_an_identity() {
        let lineage = identified("7575292331414216201|3|0/3000148|\n").expect("whole");
        assert_eq!((lineage.timeline, lineage.position.0), (3, 0x300_0148));
        let probe = probed("7575292331414216201|3|0/3000148|\n150018\noff\n").expect("whole");
        assert_eq!((probe.server_version, probe.accepts_writes), (150_018, true));
        assert!(probed("7575292331414216201|3|0/3000148|\n150018\n").is_err());
        assert!(identified("").is_err() && identified("1|x|0/0|").is_err());
    }
}
