//! Synchronous mode: which step comes next, so that whoever may be promoted holds everything that
//! was acknowledged (patroni-surface §5.13, the overlap rule).
//!
//! The log is told *before* PostgreSQL stops waiting for a member (the member leaves the set of
//! those who may lead first), and *after* PostgreSQL has begun to wait for a new one.
use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::facts::{Facts, SqlFacts};
use super::state::{ClusterState, Sync};
use crate::pure::config::{Dynamic, SynchronousMode};
use crate::pure::postgres::lsn::Lsn;
use crate::pure::postgres::state::PgState;
use crate::pure::postgres::sync_names::{first_names, waited_for};

/// Nobody has this name: with `synchronous_mode_strict` commits wait until a standby is there. For a moment
/// it stands there too before PostgreSQL waits for anybody, to see whether it waits at all.
pub const STRICT_PLACEHOLDER: &str = "__patroni_strict_sync_replica_placeholder__";

/// One step towards the wanted synchronous set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum SyncStep {
    /// Tell the log.
    Publish(Option<Sync>),
    /// Tell PostgreSQL.
    Apply(String),
}

/// What the holder does next; nothing when all agrees.
pub fn next_step(
    leader: &str,
    cluster: &ClusterState,
    dynamic: &Dynamic,
    sql: &SqlFacts,
    members: &[&Facts],
) -> Option<SyncStep> {
    if dynamic.synchronous_mode == SynchronousMode::Off {
        return switch_off(cluster, sql);
    }
    let wanted = wanted(leader, dynamic, sql, members);
    let known: BTreeSet<String> = cluster
        .sync
        .iter()
        .filter(|s| s.leader == leader)
        .flat_map(|s| s.sync_standby.clone())
        .collect();
    let setting = setting(dynamic, &wanted);
    let publish = |names: &BTreeSet<String>| {
        let sync = Sync {
            leader: leader.to_string(),
            sync_standby: names.iter().cloned().collect(),
            quorum: 0,
        };
        (cluster.sync.as_ref() != Some(&sync)).then_some(SyncStep::Publish(Some(sync)))
    };
    // Whoever is not waited for any longer, whatever took it out of the setting, leaves at once.
    let waited = waited_for(&sql.synchronous_standby_names);
    let still = |name: &&String| wanted.contains(*name) && waited.contains(*name);
    let kept: BTreeSet<String> = known.iter().filter(still).cloned().collect();
    if kept != known || cluster.sync.as_ref().is_none_or(|s| s.leader != leader) {
        return publish(&kept);
    }
    if sql.synchronous_standby_names != setting {
        return Some(SyncStep::Apply(setting));
    }
    let since = waits_since(leader, &setting, members)?;
    let holds_all = |name: &String| {
        sql.replication.iter().any(|w| {
            w.application_name.eq_ignore_ascii_case(name)
                && w.sync_state == "sync"
                && w.flush_lsn >= since
        })
    };
    let confirmed = wanted.iter().filter(|name| known.contains(*name) || holds_all(name));
    let confirmed: BTreeSet<String> = confirmed.cloned().collect();
    publish(&confirmed)
}

/// Where the leader's WAL ended when it began to wait: what was acknowledged before then waited
/// for nobody, so a standby that has not flushed as much may not lead yet.
fn waits_since(leader: &str, setting: &str, members: &[&Facts]) -> Option<Lsn> {
    let own = members.iter().find(|facts| facts.name == leader)?.sql.as_ref()?;
    (own.synchronous_standby_names == setting).then_some(own.waits_since)
}

fn switch_off(cluster: &ClusterState, sql: &SqlFacts) -> Option<SyncStep> {
    if cluster.sync.is_some() {
        return Some(SyncStep::Publish(None));
    }
    // Only what we set ourselves is taken back; the operator's own value comes with the files.
    sql.names_are_ours.then(|| SyncStep::Apply(String::new()))
}

/// The members that should be synchronous now: running, streaming, not tagged away; who already is
/// stays, then whoever is furthest.
fn wanted(leader: &str, dynamic: &Dynamic, sql: &SqlFacts, members: &[&Facts]) -> BTreeSet<String> {
    let best = sql.replication.iter().map(|w| w.flush_lsn).max().unwrap_or_default();
    let mut able: Vec<_> = members
        .iter()
        .filter(|f| f.name != leader && f.state == PgState::Running && !f.leaving)
        .filter(|f| !f.tag_is_true("nosync"))
        .filter_map(|f| {
            let sender = sql.replication.iter().find(|w| {
                w.application_name.eq_ignore_ascii_case(&f.name) && w.state == "streaming"
            })?;
            let lag = best.since(sender.flush_lsn);
            let near = dynamic.maximum_lag_on_syncnode <= 0
                || lag <= dynamic.maximum_lag_on_syncnode as u64;
            let order = (f.nofailover(), sender.sync_state != "sync", lag, f.name.clone());
            near.then_some((order, f.name.clone()))
        })
        .collect();
    able.sort();
    let count = dynamic.synchronous_node_count.max(1) as usize;
    able.into_iter().take(count).map(|(_, name)| name).collect()
}

fn setting(dynamic: &Dynamic, wanted: &BTreeSet<String>) -> String {
    match (wanted.is_empty(), dynamic.synchronous_mode_strict) {
        (true, true) => STRICT_PLACEHOLDER.to_string(),
        (true, false) => String::new(),
        (false, _) => first_names(wanted.len() as u32, wanted),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pure::cluster::facts::Walsender;

    const LEADER: &str = "a";

    fn dynamic(mode: SynchronousMode) -> Dynamic {
        Dynamic { synchronous_mode: mode, ..Dynamic::default() }
    }

    /// A leader that names `names`, and to which b streams synchronously.
    fn leading(names: &str) -> SqlFacts {
        let b = Walsender {
            application_name: String::from("b"),
            state: String::from("streaming"),
            sync_state: String::from("sync"),
            ..Walsender::default()
        };
        SqlFacts {
            synchronous_standby_names: names.to_owned(),
            replication: vec![b],
            ..SqlFacts::default()
        }
    }

    fn counted_on(names: &[&str]) -> ClusterState {
        let sync = Sync {
            leader: LEADER.to_owned(),
            sync_standby: names.iter().map(|name| name.to_string()).collect(),
            quorum: 0,
        };
        ClusterState { sync: Some(sync), ..ClusterState::default() }
    }

    fn step(cluster: &ClusterState, mode: SynchronousMode, sql: &SqlFacts) -> Option<SyncStep> {
        let member = |name: &str, sql: Option<SqlFacts>| Facts {
            name: name.to_owned(),
            state: PgState::Running,
            sql,
            ..Facts::default()
        };
        let (a, b) = (member(LEADER, Some(sql.clone())), member("b", None));
        next_step(LEADER, cluster, &dynamic(mode), sql, &[&a, &b])
    }

    fn published(names: &[&str]) -> Option<SyncStep> {
        Some(SyncStep::Publish(counted_on(names).sync))
    }

    #[test]
    fn waits_first_and_counts_on_it_afterwards() {
        let apply = Some(SyncStep::Apply(String::from("b")));
        assert_eq!(step(&counted_on(&[]), SynchronousMode::On, &leading("")), apply);
        let now = leading("b");
        assert_eq!(step(&counted_on(&[]), SynchronousMode::On, &now), published(&["b"]));
        assert_eq!(step(&counted_on(&["b"]), SynchronousMode::On, &now), None);
    }

    #[test]
    fn whoever_is_not_waited_for_is_not_counted_on() {
        for names in ["", "1 (b,c)", STRICT_PLACEHOLDER] {
            let found = step(&counted_on(&["b"]), SynchronousMode::On, &leading(names));
            assert_eq!(found, published(&[]), "{names}");
        }
    }

    #[test]
    fn switched_off_the_log_goes_first_and_the_operators_names_stay() {
        let off = SynchronousMode::Off;
        let ours = SqlFacts { names_are_ours: true, ..leading("b") };
        let gone = Some(SyncStep::Publish(None));
        assert_eq!(step(&counted_on(&["b"]), off, &ours), gone);
        let apply = Some(SyncStep::Apply(String::new()));
        assert_eq!(step(&ClusterState::default(), off, &ours), apply);
        assert_eq!(step(&ClusterState::default(), off, &leading("theirs")), None);
    }
}
