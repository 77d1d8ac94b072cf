//! `GET /metrics`: Patroni's series in Patroni's order, then our own.
//!
//! Names, types and labels are what alert rules match on; the help texts are ours.
use serde_json::Value;

use super::PATRONI_VERSION;
use super::snapshot::{Snapshot, SyncDuty};
use crate::pure::cluster::facts::SqlFacts;
use crate::pure::postgres::state::{PgState, Role};

/// The whole text, in the Prometheus text format.
pub fn text(snapshot: &Snapshot) -> String {
    let mut page = Page::new(snapshot);
    identity(&mut page, snapshot);
    positions(&mut page, snapshot);
    replication(&mut page, snapshot);
    cluster(&mut page, snapshot);
    own(&mut page, snapshot);
    page.text
}

struct Page {
    labels: String,
    text: String,
}

impl Page {
    fn new(snapshot: &Snapshot) -> Page {
        let scope = escape(&snapshot.config.scope);
        let name = escape(&snapshot.config.name);
        Page { labels: format!("{{scope=\"{scope}\",name=\"{name}\"}}"), text: String::new() }
    }

    fn gauge(&mut self, name: &str, help: &str, value: impl ToString) {
        self.series("gauge", name, help, "", value.to_string());
    }

    fn flag(&mut self, name: &str, help: &str, value: bool) {
        self.gauge(name, help, u8::from(value));
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.series("counter", name, help, "", value.to_string());
    }

    fn series(&mut self, kind: &str, name: &str, help: &str, comment: &str, value: String) {
        let labels = &self.labels;
        let text = format!(
            "# HELP {name} {help}\n{comment}# TYPE {name} {kind}\n{name}{labels} {value}\n"
        );
        self.text.push_str(&text);
    }
}

/// Label values escape backslash, quote and newline.
fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// `4.1.4` as `040104`.
fn version_digits(version: &str) -> String {
    version.split('.').map(|part| format!("{part:0>2}")).collect()
}

/// Seconds since 1970 of a timestamp as PostgreSQL prints it in UTC; 0 when there is none.
fn epoch(text: Option<&str>) -> String {
    match text.and_then(|text| text.parse::<jiff::Timestamp>().ok()) {
        None => "0".to_owned(),
        Some(at) => {
            let micros = at.as_microsecond();
            format!("{}.{:06}", micros.div_euclid(1_000_000), micros.rem_euclid(1_000_000))
        }
    }
}

fn identity(page: &mut Page, snapshot: &Snapshot) {
    let running = snapshot.state_text() == "running";
    let started = snapshot.sql().map(|sql| sql.postmaster_start_time.as_str());
    let role = snapshot.role();
    page.gauge(
        "patroni_version",
        "Version of the Patroni interfaces, two digits per part.",
        version_digits(PATRONI_VERSION),
    );
    page.flag("patroni_postgres_running", "1 if PostgreSQL runs and answers.", running);
    page.gauge(
        "patroni_postmaster_start_time",
        "When the postmaster started, in epoch seconds.",
        epoch(started),
    );
    page.flag("patroni_primary", "1 if PostgreSQL is a primary.", role == Role::Primary);
    let location = snapshot.sql().filter(|sql| !sql.in_recovery).map(|sql| sql.flush_lsn.0);
    page.counter(
        "patroni_xlog_location",
        "Bytes of WAL the primary has flushed, 0 on a replica.",
        location.unwrap_or(0),
    );
    let standby_leader = role == Role::StandbyLeader;
    page.flag("patroni_standby_leader", "1 if this is a standby leader.", standby_leader);
    let trouble = snapshot.facts().and_then(|f| f.remote.as_ref()).map(|r| r.problems.len());
    page.gauge(
        "surus_remote_problems",
        "Faults of the cluster that this standby leader follows.",
        trouble.unwrap_or(0),
    );
    page.flag("patroni_replica", "1 if PostgreSQL is a replica.", role == Role::Replica);
    let duty = snapshot.own_sync_duty();
    let sync = duty == Some(SyncDuty::Sync);
    page.flag("patroni_sync_standby", "1 if commits wait for this replica.", sync);
    let quorum = duty == Some(SyncDuty::Quorum);
    page.flag("patroni_quorum_standby", "1 if this replica counts in quorum commit.", quorum);
}

fn positions(page: &mut Page, snapshot: &Snapshot) {
    let replica = snapshot.sql().filter(|sql| sql.in_recovery);
    let received = |sql: &SqlFacts| {
        if sql.receive_lsn.0 > 0 { sql.receive_lsn.0 } else { sql.replay_lsn.0 }
    };
    page.counter(
        "patroni_xlog_received_location",
        "Bytes of WAL the replica has received, 0 on a primary.",
        replica.map_or(0, received),
    );
    page.counter(
        "patroni_xlog_replayed_location",
        "Bytes of WAL the replica has replayed, 0 on a primary.",
        replica.map_or(0, |sql| sql.replay_lsn.0),
    );
    page.gauge(
        "patroni_xlog_replayed_timestamp",
        "Commit time of the last replayed transaction, in epoch seconds.",
        epoch(replica.and_then(|sql| sql.replay_timestamp.as_deref())),
    );
    let paused = replica.is_some_and(|sql| sql.replay_paused);
    page.flag("patroni_xlog_paused", "1 if replay is paused.", paused);
}

fn replication(page: &mut Page, snapshot: &Snapshot) {
    if let Some(sql) = snapshot.sql() {
        let is = |wanted| sql.replication_state.as_deref() == Some(wanted);
        page.flag("patroni_postgres_streaming", "1 if the replica streams.", is("streaming"));
        page.flag(
            "patroni_postgres_in_archive_recovery",
            "1 if the replica reads WAL from the archive.",
            is("in archive recovery"),
        );
    }
    page.gauge(
        "patroni_postgres_server_version",
        "Version number of PostgreSQL, 0 while it does not answer.",
        snapshot.sql().map_or(0, |sql| sql.server_version),
    );
}

fn cluster(page: &mut Page, snapshot: &Snapshot) {
    page.flag("patroni_cluster_unlocked", "1 if the cluster has no leader.", snapshot.unlocked());
    page.flag("patroni_failsafe_mode_is_active", "1 if failsafe mode keeps a primary up.", false);
    let mode = snapshot.view.cluster.config.as_ref().and_then(|config| config.get("failsafe_mode"));
    let enabled = mode.and_then(Value::as_bool).unwrap_or(false);
    page.flag("patroni_failsafe_mode_enabled", "1 if failsafe_mode is configured.", enabled);
    page.flag("patroni_failsafe_member", "1 if this node is in the failsafe map.", false);
    let timeline = snapshot.sql().map_or(0, |sql| sql.timeline);
    page.gauge("patroni_postgres_timeline", "Timeline of PostgreSQL, 0 if unknown.", timeline);
    page.gauge(
        "patroni_dcs_last_seen",
        "When a quorum was last seen, in epoch seconds.",
        snapshot.view.raft.quorum_at_epoch_s,
    );
    let pending = snapshot.facts().is_some_and(|facts| !facts.pending_restart.is_empty());
    page.flag("patroni_pending_restart", "1 if PostgreSQL needs a restart.", pending);
    page.flag("patroni_is_paused", "1 if the cluster is paused.", false);
    let state = match snapshot.state_text() {
        "unknown" => -1,
        _ => snapshot.state().number(),
    };
    let help = "State of PostgreSQL as a number, -1 if unknown.";
    page.series("gauge", "patroni_postgres_state", help, &states(), state.to_string());
    let priority = snapshot
        .facts()
        .map_or(1, |facts| if facts.nofailover() { 0 } else { facts.failover_priority() });
    page.gauge("patroni_failover_priority", "Failover priority, 0 if never promoted.", priority);
}

fn states() -> String {
    let words: Vec<_> =
        PgState::ALL.iter().map(|state| format!("{}={}", state.number(), state.text())).collect();
    format!("# Values: {}\n", words.join(", "))
}

/// What Patroni has no word for: Raft, the lease, the guard.
fn own(page: &mut Page, snapshot: &Snapshot) {
    let raft = &snapshot.view.raft;
    let guard = &snapshot.local.guard;
    page.flag(
        "surus_writable",
        "1 if PostgreSQL here takes writes and may.",
        snapshot.is_writable(),
    );
    page.flag("surus_lease_held", "1 if this node holds the leader lease.", snapshot.lease());
    page.counter("surus_lease_epoch", "Number of the last grant.", snapshot.view.cluster.epoch);
    page.flag("surus_raft_quorum", "1 if a quorum was seen within ttl.", snapshot.fresh());
    page.flag("surus_raft_leader", "1 if this node is the arbiter.", raft.role == "leader");
    page.counter("surus_raft_term", "Raft's term.", raft.term);
    page.counter("surus_raft_commit_index", "Raft's last committed entry.", raft.commit);
    page.counter("surus_raft_applied_index", "Raft's last applied entry.", raft.applied);
    page.counter("surus_raft_fsync_total", "Durable writes of the Raft log.", raft.fsync_count);
    page.gauge(
        "surus_raft_fsync_max_microseconds",
        "The slowest durable write of the Raft log.",
        raft.fsync_max_us,
    );
    build(page, snapshot);
    page.flag("surus_guard_armed", "1 if a guard watches PostgreSQL.", guard.armed);
    page.counter(
        "surus_guard_fenced_total",
        "How often the guard had to stop PostgreSQL.",
        guard.fenced_count,
    );
}

/// A replica build: always there, so that an alert can be written before the first one.
fn build(page: &mut Page, snapshot: &Snapshot) {
    let build = snapshot.facts().and_then(|facts| facts.build.clone());
    page.flag("surus_replica_build", "1 while a replica build is under way.", build.is_some());
    let build = build.unwrap_or_default();
    page.gauge(
        "surus_replica_build_attempt",
        "Which round over all methods the build is in, 0 without one.",
        build.attempt,
    );
    page.gauge(
        "surus_replica_build_bytes_done",
        "Bytes that were copied so far.",
        build.bytes_done,
    );
    page.gauge(
        "surus_replica_build_bytes_total",
        "Bytes that the source has, 0 while that is unknown.",
        build.bytes_total,
    );
    page.gauge(
        "surus_replica_build_bytes_per_second",
        "How fast the copy grows.",
        build.bytes_per_second,
    );
    page.flag(
        "surus_replica_build_backing_off",
        "1 while every method has failed and the next attempt is waited for.",
        build.next_attempt_s.is_some(),
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_padded() {
        assert_eq!(version_digits("4.1.4"), "040104");
        assert_eq!(version_digits("10.12.3"), "101203");
    }

    #[test]
    fn timestamps_become_seconds() {
        assert_eq!(epoch(Some("2026-11-22 07:23:47.047734+00:00")), "1795332227.047734");
        assert_eq!(epoch(None), "0");
        assert_eq!(epoch(Some("soon")), "0");
    }

    #[test]
    fn labels_are_escaped() {
        assert_eq!(escape("a\"b\\c"), "a\\\"b\\\\c");
    }
}
