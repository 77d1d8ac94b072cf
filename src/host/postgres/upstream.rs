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
use crate::pure::postgres::history::{self, Divergence, Left, Lineage, divergence};

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
        Ok(divergence(timeline, left, leader))
    }

    fn ask(&self, from: &Remote, question: &str) -> Program {
        let program = self
            .tool("psql")
            .args(["-X", "-A", "-t", "-w", "-F", "|", "-v", "ON_ERROR_STOP=1", "-c"])
            .arg(question)
            .args(["-d".to_owned(), format!("{} replication=true", from.conninfo)])
            .env("PGCONNECT_TIMEOUT", "5")
            .timeout(ANSWER);
        match self.passfile_env(&from.passfile) {
            Some((name, path)) => program.env(name, path),
            None => program,
        }
    }
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
        assert!(identified("").is_err() && identified("1|x|0/0|").is_err());
    }
}
