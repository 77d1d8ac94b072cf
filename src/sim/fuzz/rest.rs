//! Requests to the REST interface, asked of a leader, a replica and a node that hears nobody.
use std::sync::LazyLock;

use serde_json::{Map, Value, json};

use crate::pure::cluster::facts::{Facts, SqlFacts};
use crate::pure::cluster::state::{ClusterState, Initialize, Lease, Member, Purpose};
use crate::pure::config::{Config, Dynamic, load};
use crate::pure::dump;
use crate::pure::patroni::snapshot::Snapshot;
use crate::pure::patroni::switchover::{self, Action};
use crate::pure::patroni::{
    basic_auth, cluster, dynamic, health, json, keys, metrics, probe, reinit, restart, standby,
    status,
};
use crate::pure::postgres::lsn::Lsn;
use crate::pure::postgres::state::{PgState, Role};
use crate::pure::view::{Heard, LeaseView, LocalView, RaftView, View};

const NOW: u64 = 1_000_000;
const NOW_EPOCH_S: u64 = 1_795_332_227;

static CONFIG: LazyLock<Config> = LazyLock::new(|| {
    let text = "scope: batman\nname: pg1\n\
        restapi: {listen: 127.0.0.1:8008, connect_address: 127.0.0.1:8008, \
        authentication: {username: u, password: p}}\n\
        raft: {data_dir: /tmp/raft, self_addr: 127.0.0.1:2380}\n\
        postgresql: {listen: 127.0.0.1:5432, connect_address: 127.0.0.1:5432, \
        data_dir: /tmp/data, authentication: {superuser: {username: s, password: p}, \
        replication: {username: r, password: p}}}\n";
    load("surus.yml".as_ref(), text, &Default::default()).expect("this file is sound")
});

/// First line `METHOD /path?query`, then the body; the first byte says who is asked.
pub fn request(bytes: &[u8]) {
    let Some((who, rest)) = bytes.split_first() else { return };
    let text = super::text(rest);
    let (line, body) = text.split_once('\n').unwrap_or((&text, ""));
    let (method, target) = line.split_once(' ').unwrap_or(("GET", line));
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let value = serde_json::from_str::<Value>(body).unwrap_or(Value::Null);
    let dynamic = Dynamic::from_value(Some(&json!({"synchronous_mode": who & 8 != 0})));
    let view = view(*who);
    let local = LocalView::default();
    let look =
        Snapshot { view: &view, local: &local, dynamic: &dynamic, config: &CONFIG, now: NOW };
    match method {
        "GET" => read(&look, path, query),
        _ => change(&look, path, &value),
    }
    if let Some(credentials) = &CONFIG.restapi.authentication {
        let passes = basic_auth::check(Some(body.as_bytes()), credentials).is_ok();
        assert!(!passes || body == basic_auth::header(credentials), "a wrong header passes");
    }
    drop(dump::text::text(&value));
}

fn read(look: &Snapshot, path: &str, query: &str) {
    let pairs = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    let query: Vec<(String, String)> =
        pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
    let code = health::code(look, path, &query);
    assert!([200, 503].contains(&code), "{path} answers {code}");
    drop((probe::liveness(look), probe::readiness(look, &query), keys::value(look, path)));
    drop((json::dumps(&status::body(look)), json::dumps(&cluster::body(look))));
    drop(metrics::text(look));
}

fn change(look: &Snapshot, path: &str, value: &Value) {
    let nothing = Map::new();
    let body = value.as_object().unwrap_or(&nothing);
    drop(json::dumps(value));
    match path {
        "/switchover" => drop(switchover::check(look, Action::Switchover, body, NOW_EPOCH_S)),
        "/failover" => drop(switchover::check(look, Action::Failover, body, NOW_EPOCH_S)),
        "/restart" => {
            drop(restart::of_schedule(value));
            if let Ok(wanted) = restart::parse(body, NOW_EPOCH_S) {
                let stored = restart::scheduled(&wanted);
                drop((restart::applies(&wanted, look), stored));
            }
        }
        "/reinitialize" => drop(reinit::check(look, body)),
        "/promote" => drop(standby::order(look, body)),
        _ => drop(dynamic::check(body)),
    }
}

fn view(who: u8) -> View {
    let member = |name: &str| Member {
        name: name.to_owned(),
        api_url: "http://127.0.0.1:8008/patroni".to_owned(),
        conn_url: "postgres://127.0.0.1:5432/postgres".to_owned(),
        ..Member::default()
    };
    let cluster = ClusterState {
        members: (1..4).map(|n| (n, member(&format!("pg{n}")))).collect(),
        initialize: Initialize::Done { system_identifier: "7710893189902435061".to_owned() },
        epoch: 1,
        lease: (who & 1 == 0)
            .then(|| Lease::new(1 + u64::from(who >> 1 & 1), 1, 30_000, Purpose::Lead)),
        ..ClusterState::default()
    };
    View {
        now: NOW,
        own_id: 1,
        own_name: "pg1".to_owned(),
        cluster,
        raft: RaftView {
            quorum_at: if who & 4 == 0 { NOW - 10 } else { 0 },
            ..RaftView::default()
        },
        lease: LeaseView {
            held: who & 3 == 0,
            epoch: 1,
            deadline: Some(NOW + 9000),
            not_before: None,
        },
        facts: (1..4).map(|n| (n, heard(n, who))).collect(),
        joining: None,
        another_can_lead: false,
    }
}

fn heard(id: u64, who: u8) -> Heard {
    let leads = id == 1 + u64::from(who >> 1 & 1);
    let sql = SqlFacts {
        in_recovery: !leads,
        server_version: 150_018,
        timeline: 1,
        flush_lsn: Lsn(67_108_960),
        receive_lsn: Lsn(67_108_960),
        replay_lsn: Lsn(67_108_000),
        ..SqlFacts::default()
    };
    let facts = Facts {
        raft_id: id,
        name: format!("pg{id}"),
        has_postgres: true,
        state: PgState::Running,
        role: if leads { Role::Primary } else { Role::Replica },
        sql: (who & 16 == 0).then_some(sql),
        ..Facts::default()
    };
    Heard { facts, heard_at: NOW - 500 }
}
