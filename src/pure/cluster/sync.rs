//! Synchronous mode: which step comes next, so that whoever may be promoted holds everything that
//! was acknowledged (patroni-surface §5.13, the overlap rule).
//!
//! The log is told *before* PostgreSQL stops waiting for a member (the member leaves the set of
//! those who may lead first), and *after* PostgreSQL has begun to wait for a new one.
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::facts::{DataDirectory, Facts, SqlFacts};
use super::state::{ClusterState, CopyId, Sync};
use crate::pure::config::{Dynamic, SynchronousMode};
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

/// What the holder does next; nothing when all agrees. Which copy it has itself it knows better than what
/// was last heard of it.
pub fn next_step(
    (leader, copy): (&str, CopyId),
    cluster: &ClusterState,
    dynamic: &Dynamic,
    sql: &SqlFacts,
    members: &[&Facts],
) -> Option<SyncStep> {
    if dynamic.synchronous_mode == SynchronousMode::Off {
        return switch_off(cluster, sql);
    }
    let known: BTreeSet<String> = cluster
        .sync
        .iter()
        .filter(|s| s.leader == leader)
        .flat_map(|s| s.sync_standby.clone())
        .collect();
    let mut copies: BTreeMap<String, CopyId> =
        members.iter().map(|facts| (facts.name.clone(), facts.copy)).collect();
    copies.insert(leader.to_string(), copy);
    copies.retain(|_, copy| *copy != 0);
    let mut wanted = wanted(leader, dynamic, sql, members);
    wanted.retain(|name| !known.contains(name) || is_counted(cluster, name, copies.get(name)));
    let setting = setting(dynamic, &wanted);
    let publish = |names: &BTreeSet<String>| {
        let named = |name: &String| name == leader || names.contains(name);
        let sync = Sync {
            leader: leader.to_string(),
            sync_standby: names.iter().cloned().collect(),
            copies: copies.iter().filter(|(n, _)| named(n)).map(|(n, c)| (n.clone(), *c)).collect(),
            ..Sync::default()
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
    let own = waiting(leader, &setting, members)?;
    let holds_all = |name: &String| {
        let row = sql.replication.iter().any(|w| {
            w.application_name.eq_ignore_ascii_case(name)
                && w.sync_state == "sync"
                && w.flush_lsn >= own.waits_since
        });
        row && members.iter().any(|facts| {
            facts.name == *name && is_a_copy(facts, cluster) && says_it_holds_all(facts, own)
        })
    };
    let confirmed = wanted.iter().filter(|name| known.contains(*name) || holds_all(name));
    let confirmed: BTreeSet<String> = confirmed.cloned().collect();
    publish(&confirmed)
}

/// The log counts on this very copy of it.
fn is_counted(cluster: &ClusterState, name: &str, copy: Option<&CopyId>) -> bool {
    let known = cluster.sync.as_ref().and_then(|sync| sync.copies.get(name));
    known.is_none_or(|known| Some(known) == copy)
}

/// Since when the leader waits: what was acknowledged before then waited for nobody, so a standby
/// that has not flushed as much may not lead yet.
fn waiting<'a>(leader: &str, setting: &str, members: &[&'a Facts]) -> Option<&'a SqlFacts> {
    let own = members.iter().find(|facts| facts.name == leader)?.sql.as_ref()?;
    (own.synchronous_standby_names == setting).then_some(own)
}

/// What lies there is this cluster's and has a number: without one it cannot be told from the next.
fn is_a_copy(standby: &Facts, cluster: &ClusterState) -> bool {
    let DataDirectory::Present { system_identifier, .. } = &standby.data else { return false };
    standby.copy != 0 && cluster.system_identifier() == Some(system_identifier)
}

/// By its own word, too: what the leader shows of a standby may still be of the copy before, whose
/// connection nobody has closed.
fn says_it_holds_all(standby: &Facts, leader: &SqlFacts) -> bool {
    let same = leader.waits_for.get(&standby.name) == Some(&standby.copy);
    let sql = standby.sql.as_ref().filter(|sql| sql.timeline == leader.timeline);
    same && sql.is_some_and(|sql| sql.position() >= leader.waits_since)
}

fn switch_off(cluster: &ClusterState, sql: &SqlFacts) -> Option<SyncStep> {
    if cluster.sync.is_some() {
        return Some(SyncStep::Publish(None));
    }
    // Only what we set ourselves is taken back; the operator's own value comes with the files.
    sql.names_are_ours.then(|| SyncStep::Apply(String::new()))
}

/// The members that should be synchronous now: running, streaming, not tagged away; the highest
/// `sync_priority` first, then who already is, then whoever is furthest.
fn wanted(leader: &str, dynamic: &Dynamic, sql: &SqlFacts, members: &[&Facts]) -> BTreeSet<String> {
    let best = sql.replication.iter().map(|w| w.flush_lsn).max().unwrap_or_default();
    let mut able: Vec<_> = members
        .iter()
        .filter(|f| f.name != leader && f.state == PgState::Running && !f.leaving)
        .filter(|f| !f.tags.nosync())
        .filter_map(|f| {
            let sender = sql.replication.iter().find(|w| {
                w.application_name.eq_ignore_ascii_case(&f.name) && w.state == "streaming"
            })?;
            let lag = best.since(sender.flush_lsn);
            let near = dynamic.maximum_lag_on_syncnode <= 0
                || lag <= dynamic.maximum_lag_on_syncnode as u64;
            let priority = Reverse(f.tags.sync_priority());
            let not_yet = sender.sync_state != "sync";
            let order = (f.nofailover(), priority, not_yet, lag, f.name.clone());
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
    use std::iter;

    use super::*;
    use crate::pure::cluster::facts::Walsender;
    use crate::pure::cluster::state::Initialize;
    use crate::pure::postgres::lsn::Lsn;

    const LEADER: &str = "a";
    const CLUSTER: &str = "7301";

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
            waits_for: BTreeMap::from([(String::from("b"), 7)]),
            ..SqlFacts::default()
        }
    }

    fn write_deadline(names: &[&str]) -> ClusterState {
        let sync = Sync {
            leader: LEADER.to_owned(),
            sync_standby: names.iter().map(|name| name.to_string()).collect(),
            copies: iter::once(&LEADER).chain(names).map(|n| (n.to_string(), copy_of(n))).collect(),
            ..Sync::default()
        };
        let initialize = Initialize::Done { system_identifier: CLUSTER.to_owned() };
        ClusterState { initialize, sync: Some(sync), ..ClusterState::default() }
    }

    fn copy_of(name: &str) -> CopyId {
        if name == LEADER { 3 } else { 7 }
    }

    fn member(name: &str, sql: SqlFacts) -> Facts {
        let data = DataDirectory::Present {
            system_identifier: CLUSTER.to_owned(),
            timeline: 0,
            lsn: Lsn(0),
            was_primary: false,
            clean: true,
        };
        let (state, copy) = (PgState::Running, copy_of(name));
        Facts { name: name.to_owned(), state, data, copy, sql: Some(sql), ..Facts::default() }
    }

    fn step(cluster: &ClusterState, mode: SynchronousMode, sql: &SqlFacts) -> Option<SyncStep> {
        step_with(cluster, mode, sql, &member("b", SqlFacts::default()))
    }

    fn step_with(
        cluster: &ClusterState,
        mode: SynchronousMode,
        sql: &SqlFacts,
        b: &Facts,
    ) -> Option<SyncStep> {
        let a = member(LEADER, sql.clone());
        next_step((LEADER, copy_of(LEADER)), cluster, &dynamic(mode), sql, &[&a, b])
    }

    fn published(names: &[&str]) -> Option<SyncStep> {
        Some(SyncStep::Publish(write_deadline(names).sync))
    }

    #[test]
    fn waits_first_and_counts_on_it_afterwards() {
        let apply = Some(SyncStep::Apply(String::from("b")));
        assert_eq!(step(&write_deadline(&[]), SynchronousMode::On, &leading("")), apply);
        let now = leading("b");
        assert_eq!(step(&write_deadline(&[]), SynchronousMode::On, &now), published(&["b"]));
        assert_eq!(step(&write_deadline(&["b"]), SynchronousMode::On, &now), None);
    }

    /// A row of the leader's is a name: whose data runs under it only the member knows.
    #[test]
    fn data_of_another_cluster_and_a_copy_without_a_number_are_never_counted_on() {
        let stranger = DataDirectory::Present {
            system_identifier: String::from("666"),
            timeline: 0,
            lsn: Lsn(0),
            was_primary: true,
            clean: true,
        };
        let sql = leading("b");
        let good = member("b", SqlFacts::default());
        let found = |b: &Facts| step_with(&write_deadline(&[]), SynchronousMode::On, &sql, b);
        assert_eq!(found(&good), published(&["b"]));
        assert_eq!(found(&Facts { data: stranger, ..good.clone() }), None);
        assert_eq!(found(&Facts { copy: 0, ..good }), None);
    }

    /// What the leader shows of b may be of the copy before, whose connection nobody has closed.
    #[test]
    fn a_copy_that_was_made_anew_begins_again() {
        let (on, now) = (SynchronousMode::On, leading("b"));
        let anew = Facts { copy: 8, ..member("b", SqlFacts::default()) };
        let found = step_with(&write_deadline(&["b"]), on, &now, &anew);
        assert_eq!(found, published(&[]), "the log counts on another copy");
        let found = step_with(&write_deadline(&[]), on, &now, &anew);
        assert_eq!(found, None, "since when this one is waited for is not known yet");
        let known = SqlFacts { waits_for: BTreeMap::from([(String::from("b"), 8)]), ..now };
        assert!(step_with(&write_deadline(&[]), on, &known, &anew).is_some());
    }

    #[test]
    fn a_standby_is_counted_on_by_its_own_word_too() {
        let now = SqlFacts { waits_since: Lsn(50), timeline: 2, ..leading("b") };
        let now = SqlFacts {
            replication: now
                .replication
                .iter()
                .cloned()
                .map(|w| Walsender { flush_lsn: Lsn(60), ..w })
                .collect(),
            ..now
        };
        let said = |timeline, lsn| {
            let receive_lsn = Lsn(lsn);
            let sql = SqlFacts { in_recovery: true, timeline, receive_lsn, ..SqlFacts::default() };
            step_with(&write_deadline(&[]), SynchronousMode::On, &now, &member("b", sql))
        };
        assert_eq!((said(2, 49), said(1, 50)), (None, None));
        assert_eq!(said(2, 50), published(&["b"]));
        let unfinished = Facts { data: DataDirectory::Empty, ..member("b", SqlFacts::default()) };
        let now = leading("b");
        let found = step_with(&write_deadline(&[]), SynchronousMode::On, &now, &unfinished);
        assert_eq!(found, None, "its build is not over");
    }

    /// Spec: QC-5, TG-6.
    #[test]
    fn the_higher_sync_priority_replaces_the_lower_one() {
        let streams = |name: &str, sync_state: &str| Walsender {
            application_name: name.to_owned(),
            state: String::from("streaming"),
            sync_state: sync_state.to_owned(),
            ..Walsender::default()
        };
        let replication = vec![streams("b", "sync"), streams("c", "async")];
        let sql = SqlFacts { replication, ..leading("b") };
        let chosen = |b: serde_json::Value, c: serde_json::Value| {
            let tagged = |name: &str, tags: &serde_json::Value| Facts {
                tags: tags.into(),
                ..member(name, SqlFacts::default())
            };
            let (b, c) = (tagged("b", &b), tagged("c", &c));
            wanted(LEADER, &dynamic(SynchronousMode::On), &sql, &[&b, &c])
        };
        let (none, only) = (serde_json::json!({}), |name: &str| BTreeSet::from([name.to_owned()]));
        assert_eq!(chosen(none.clone(), none.clone()), only("b"));
        assert_eq!(chosen(none.clone(), serde_json::json!({"sync_priority": "2"})), only("c"));
        assert_eq!(chosen(serde_json::json!({"nosync": "true"}), none.clone()), only("c"));
        assert_eq!(chosen(serde_json::json!({"sync_priority": 0}), none), only("c"));
    }

    #[test]
    fn whoever_is_not_waited_for_is_not_counted_on() {
        for names in ["", "1 (b,c)", STRICT_PLACEHOLDER] {
            let found = step(&write_deadline(&["b"]), SynchronousMode::On, &leading(names));
            assert_eq!(found, published(&[]), "{names}");
        }
    }

    #[test]
    fn switched_off_the_log_goes_first_and_the_operators_names_stay() {
        let off = SynchronousMode::Off;
        let ours = SqlFacts { names_are_ours: true, ..leading("b") };
        let gone = Some(SyncStep::Publish(None));
        assert_eq!(step(&write_deadline(&["b"]), off, &ours), gone);
        let apply = Some(SyncStep::Apply(String::new()));
        assert_eq!(step(&ClusterState::default(), off, &ours), apply);
        assert_eq!(step(&ClusterState::default(), off, &leading("theirs")), None);
    }
}
