//! A node of a three-member cluster as a value, to be bent into the shape a test needs.
use std::collections::BTreeMap;

use serde_json::{Value, json};
use surus::pure::cluster::facts::Phase;
use surus::pure::cluster::facts::{DataDirectory, Facts, SqlFacts, Walsender};
use surus::pure::cluster::state::{ClusterState, Initialize, Lease, Member, Purpose, Sync};
use surus::pure::config::{
    Config, Ctl, Dynamic, HostPort, Log, PostgresSettings, Raft, RestApi, StandbyCluster,
    SynchronousMode, Tags, Watchdog,
};
use surus::pure::patroni::snapshot::Snapshot;
use surus::pure::postgres::lsn::Lsn;
use surus::pure::postgres::state::{PgState, Role};
use surus::pure::view::{Heard, LeaseView, LocalView, RaftView, View};

/// The boot clock at which everything here happens.
pub const NOW: u64 = 1_000_000;
pub const SYSID: &str = "7710893189902435061";
pub const LEADER_LSN: Lsn = Lsn(67_108_960);

/// Everything a look needs.
#[derive(Clone)]
pub struct Node {
    pub view: View,
    pub local: LocalView,
    pub dynamic: Dynamic,
    pub config: Config,
}

impl Node {
    pub fn snapshot(&self) -> Snapshot<'_> {
        self.look_at(NOW)
    }

    pub fn look_at(&self, now: u64) -> Snapshot<'_> {
        Snapshot {
            view: &self.view,
            local: &self.local,
            dynamic: &self.dynamic,
            config: &self.config,
            now,
        }
    }

    pub fn facts(&mut self) -> &mut Facts {
        let id = self.view.own_id;
        &mut self.view.facts.get_mut(&id).expect("own facts").facts
    }

    pub fn sql(&mut self) -> &mut SqlFacts {
        self.facts().sql.as_mut().expect("own SQL facts")
    }

    pub fn tag(&mut self, name: &str, value: Value) {
        self.facts().tags.insert(name.into(), value);
    }

    /// PostgreSQL does not answer and is in this state.
    pub fn down(mut self, state: PgState) -> Node {
        self.facts().state = state;
        self.facts().sql = None;
        self
    }

    pub fn synchronous(mut self, mode: SynchronousMode, standbys: &[&str]) -> Node {
        self.dynamic.synchronous_mode = mode;
        let sync_standby = standbys.iter().map(|name| (*name).to_owned()).collect();
        self.view.cluster.sync =
            Some(Sync { leader: "pg0".into(), sync_standby, ..Sync::default() });
        self
    }

    pub fn standby_cluster(mut self) -> Node {
        self.dynamic.standby_cluster =
            Some(StandbyCluster { host: Some("remote".into()), ..StandbyCluster::default() });
        self
    }

    /// No quorum was seen for longer than ttl.
    pub fn stale(mut self) -> Node {
        self.view.raft.quorum = false;
        self.view.raft.quorum_at = NOW - 60_000;
        self
    }

    /// Nobody holds the lease.
    pub fn leaderless(mut self) -> Node {
        self.view.cluster.lease = None;
        self.view.lease = LeaseView::default();
        self
    }
}

/// pg0, holding the lease, PostgreSQL running as primary.
pub fn leader() -> Node {
    node(0)
}

/// pg1, streaming.
pub fn replica() -> Node {
    node(1)
}

fn node(number: u64) -> Node {
    let facts: BTreeMap<_, _> = (0..3).map(|n| (n + 1, heard(n))).collect();
    let lease = LeaseView {
        held: number == 0,
        epoch: 1,
        deadline: (number == 0).then_some(NOW + 12_300),
        not_before: None,
    };
    let view = View {
        now: NOW,
        own_id: number + 1,
        own_name: name(number),
        cluster: cluster(),
        raft: RaftView {
            quorum: true,
            quorum_at: NOW - 1000,
            quorum_at_epoch_s: 1_795_332_278,
            commit: 42,
            ..RaftView::default()
        },
        lease,
        facts,
        joining: None,
        another_can_lead: false,
    };
    let local = LocalView { sentence: "no action".into(), ..LocalView::default() };
    Node { view, local, dynamic: dynamic(), config: config(number) }
}

fn name(number: u64) -> String {
    format!("pg{number}")
}

fn heard(number: u64) -> Heard {
    let primary = number == 0;
    let facts = Facts {
        raft_id: number + 1,
        name: name(number),
        has_postgres: true,
        state: PgState::Running,
        role: if primary { Role::Primary } else { Role::Replica },
        postmaster_alive: true,
        data: DataDirectory::Unknown,
        sql: Some(if primary { primary_sql() } else { replica_sql() }),
        tags: Tags::from(&json!({"clonefrom": true})),
        node_state: if primary { "leading" } else { "following" }.into(),
        phase: if primary { Phase::Leading } else { Phase::Following },
        ..Facts::default()
    };
    Heard { facts, heard_at: NOW - 500 }
}

fn primary_sql() -> SqlFacts {
    SqlFacts {
        flush_lsn: LEADER_LSN,
        replication: vec![Walsender {
            usename: "replicator".into(),
            application_name: "pg2".into(),
            client_addr: Some("127.0.0.1".into()),
            state: "streaming".into(),
            sync_state: "async".into(),
            ..Walsender::default()
        }],
        ..any_sql()
    }
}

fn replica_sql() -> SqlFacts {
    SqlFacts {
        in_recovery: true,
        receive_lsn: LEADER_LSN,
        replay_lsn: LEADER_LSN,
        latest_end_lsn: LEADER_LSN,
        replication_state: Some("streaming".into()),
        ..any_sql()
    }
}

fn any_sql() -> SqlFacts {
    SqlFacts {
        server_version: 150_018,
        system_identifier: SYSID.into(),
        postmaster_start_time: "2026-11-22 07:23:47.047734+00:00".into(),
        timeline: 1,
        ..SqlFacts::default()
    }
}

fn cluster() -> ClusterState {
    let member = |n: u64| Member {
        name: name(n),
        api_url: format!("http://127.0.0.1:{}/patroni", 18008 + n),
        conn_url: format!("postgres://127.0.0.1:{}/postgres", 15432 + n),
        ..Member::default()
    };
    ClusterState {
        members: (0..3).map(|n| (n + 1, member(n))).collect(),
        initialize: Initialize::Done { system_identifier: SYSID.into() },
        epoch: 1,
        lease: Some(Lease::new(1, 1, 30_000, Purpose::Lead)),
        config: Some(json!({"ttl": 30, "postgresql": {"parameters": {"work_mem": "4MB"}}})),
        ..ClusterState::default()
    }
}

fn dynamic() -> Dynamic {
    Dynamic {
        ttl_ms: 30_000,
        loop_wait_ms: 10_000,
        retry_timeout_ms: 10_000,
        maximum_lag_on_failover: 1_048_576,
        check_timeline: false,
        max_timelines_history: 0,
        primary_start_timeout_ms: 300_000,
        primary_stop_timeout_ms: 0,
        synchronous_mode: SynchronousMode::Off,
        synchronous_mode_strict: false,
        synchronous_node_count: 1,
        maximum_lag_on_syncnode: -1,
        member_slots_ttl_ms: 1_800_000,
        postgresql: PostgresSettings::default(),
        permanent_slots: Vec::new(),
        ignored_slots: Vec::new(),
        standby_cluster: None,
        leaves_standby: false,
        warnings: Vec::new(),
    }
}

fn config(number: u64) -> Config {
    let address = HostPort { host: "127.0.0.1".into(), port: 0 };
    Config {
        path: "node.yml".into(),
        scope: "batman".into(),
        namespace: "/service".into(),
        name: name(number),
        log: Log { level: "INFO".into(), kind: "plain".into(), ..Log::default() },
        restapi: RestApi {
            listen: address.clone(),
            connect_address: address,
            authentication: None,
            http_extra_headers: serde_json::Map::new(),
            allowlist: Vec::new(),
            allowlist_include_members: false,
            server_tokens: "original".into(),
        },
        ctl: Ctl::default(),
        raft: Raft::default(),
        bootstrap: None,
        postgresql: None,
        tags: Tags::default(),
        watchdog: Watchdog::default(),
        warnings: Vec::new(),
    }
}
