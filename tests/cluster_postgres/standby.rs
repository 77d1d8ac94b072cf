//! Two sites: a cluster that follows another one, on one machine, with real daemons.
use std::fs;

use serde_json::{Value, json};

use super::cluster::{Cluster, Spec, wait_until};
use super::http;
use super::origin::tool;
use super::scripts::{plain, scripts};
use super::sql::PASSWORD;

/// Short times, and not more connections than the primary cluster has: a standby would not stand it
/// the other way round.
const DCS: &str = "    ttl: 4\n    loop_wait: 1\n    retry_timeout: 1\n    postgresql: {parameters: \
                   {max_connections: 40}}\n";

/// A primary cluster of one node, in service, with a table.
fn primary(file: Value) -> Option<Cluster> {
    let mut cluster = Cluster::plan(Spec { nodes: 1, ttl_s: 4, file, ..Spec::default() })?;
    cluster.start(0);
    wait_until("the primary cluster", 60, || code(&cluster, 0, "/primary") == 200);
    cluster.make_table();
    Some(cluster)
}

/// A standby cluster of `nodes` that follows it by a slot: the recipe as it stands, with addresses,
/// directories and passwords of this test, and callbacks traced. `dcs` is more of `bootstrap.dcs`.
fn standby(nodes: usize, remote: &Cluster, dcs: &str) -> Cluster {
    let spec = Spec { nodes, ttl_s: 4, ..Spec::default() };
    let mut cluster = Cluster::plan(spec).expect("the other one was planned");
    for k in cluster.numbers() {
        let text = recipe(&cluster, k, remote, dcs);
        fs::write(cluster.nodes[k].config(), text).expect("it can be written");
    }
    (0..nodes).for_each(|k| cluster.start(k));
    cluster
}

fn recipe(cluster: &Cluster, k: usize, remote: &Cluster, dcs: &str) -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/recipes/standby-cluster.yml");
    let (node, there) = (&cluster.nodes[k], remote.address(0));
    let at = |port: u16| format!("{}:{port}", node.at.host);
    let others = cluster.others(k).into_iter().map(|other| cluster.address(other));
    let others: Vec<String> =
        others.map(|other| format!("{}:{}", other.host, other.raft)).collect();
    let mut text = fs::read_to_string(path).expect("the recipe");
    for (from, to) in [
        ("name: b1", format!("name: {}", node.name)),
        ("10.2.0.1:8008", at(node.at.rest)),
        ("10.2.0.1:2222", at(node.at.raft)),
        ("[10.2.0.2:2222, 10.2.0.3:2222]", format!("[{}]", others.join(", "))),
        ("/var/lib/surus", node.state().display().to_string()),
        ("10.1.0.1", there.host.clone()),
        ("port: 5432", format!("port: {}", there.postgresql)),
        ("10.2.0.1:5432", at(node.at.postgresql)),
        ("/var/lib/postgresql/data", node.data().display().to_string()),
        ("postgres, password: change-me", format!("postgres, password: {PASSWORD}")),
        ("password: change-me", String::from("password: repl-geheim")),
        ("  dcs:\n", format!("  dcs:\n{DCS}{dcs}")),
    ] {
        assert!(text.contains(from), "the recipe has no `{from}`");
        text = text.replace(from, &to);
    }
    let trace = script(cluster, k);
    let pgpass = node.dir.join("pgpass");
    text + &format!(
        "  pgpass: {}\n  parameters: {{unix_socket_directories: ''}}\n  callbacks: {{on_start: \
         {trace}, on_stop: {trace}, on_role_change: {trace}, on_restart: {trace}}}\n",
        pgpass.display()
    )
}

fn script(cluster: &Cluster, k: usize) -> String {
    let text = "echo \"$1 $2\" >> \"$(dirname \"$0\")/trace.log\"";
    plain(&cluster.nodes[k].dir, "trace.sh", text)
}

/// What the callbacks of this node were told, reloads left out.
fn trace(cluster: &Cluster, k: usize) -> Vec<String> {
    let text = fs::read_to_string(cluster.nodes[k].dir.join("trace.log")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

/// Callbacks run beside everything else.
#[track_caller]
fn wait_trace(cluster: &Cluster, k: usize, wanted: &[&str]) {
    wait_until(&format!("the callbacks {wanted:?}"), 10, || trace(cluster, k) == wanted);
}

fn code(cluster: &Cluster, k: usize, path: &str) -> u16 {
    http::get(&cluster.nodes[k].rest(), path).map_or(0, |(code, _)| code)
}

fn listed(cluster: &Cluster, k: usize) -> Value {
    http::get_json(&cluster.nodes[k].rest(), "/cluster").unwrap_or_default()
}

/// Who leads the standby cluster and streams, once all others stream from it.
fn standby_leader(cluster: &Cluster) -> Option<usize> {
    let rows = cluster.numbers().into_iter().map(|k| listed(cluster, k)).find(|b| b.is_object())?;
    let members = rows["members"].as_array()?.clone();
    let settled = members.iter().all(|member| member["state"] == "streaming");
    let leader = members.iter().find(|member| member["role"] == "standby_leader")?;
    let leads = |k: &usize| cluster.nodes[*k].name == *leader["name"].as_str().unwrap_or_default();
    let k = cluster.numbers().into_iter().find(leads).filter(|_| settled)?;
    (code(cluster, k, "/standby_leader") == 200).then_some(k)
}

#[track_caller]
fn wait_standby_leader(cluster: &Cluster, seconds: u64) -> usize {
    let mut found = None;
    wait_until("a standby leader and its replicas", seconds, || {
        found = standby_leader(cluster);
        found.is_some()
    });
    found.expect("just found")
}

fn waits_for(cluster: &Cluster, k: usize) -> Option<String> {
    let own = listed(cluster, k)["surus"]["standby"]["promotion_waits_for"].clone();
    own.as_str().map(str::to_owned)
}

fn problems(cluster: &Cluster, k: usize) -> String {
    listed(cluster, k)["surus"]["standby"]["problems"].to_string()
}

fn patch(cluster: &Cluster, k: usize, change: Value) -> (u16, String) {
    http::patch(&cluster.nodes[k].rest(), "/config", &change.to_string()).expect("an answer")
}

fn rows(cluster: &Cluster, k: usize) -> usize {
    cluster.stored(k).len()
}

fn write(cluster: &Cluster, k: usize, ids: std::ops::Range<u64>) {
    let (from, to) = (ids.start, ids.end - 1);
    let insert = format!("INSERT INTO acked SELECT generate_series({from}, {to})");
    cluster.nodes[k].column(&insert).expect("the leader takes writes");
}

/// Spec: SC-3, SC-6, SC-10, SC-12, SC-13, SC-20, SC-21, SC-22, SC-26, EX-90, EX-94, EX-95.
#[test]
fn a_standby_cluster_follows_and_is_not_promoted_by_a_slip() {
    let Some(mut there) = primary(json!({})) else { return };
    let mut here = standby(2, &there, "");
    let first = wait_standby_leader(&here, 60);
    let second = 1 - first;
    assert_eq!(here.system_identifier(first), there.system_identifier(0));
    wait_trace(&here, first, &["on_start standby_leader"]);
    let slots = "SELECT active FROM pg_replication_slots WHERE slot_name = 'site_b'";
    assert_eq!(there.nodes[0].sql(slots).as_deref(), Some("t"), "made there, and used");
    let codes = |k: usize| {
        [
            "/standby_leader",
            "/standby-leader",
            "/leader",
            "/read-only",
            "/health",
            "/readiness",
            "/primary",
            "/replica",
            "/sync",
            "/async",
        ]
        .map(|path| code(&here, k, path))
    };
    assert_eq!(codes(first), [200, 200, 200, 200, 200, 200, 503, 503, 503, 503]);
    assert_eq!(codes(second)[..4], [503, 503, 503, 200]);
    assert_eq!(code(&here, second, "/replica"), 200);
    write(&there, 0, 0..10);
    wait_until("the rows here", 10, || rows(&here, second) == 10);

    an_edit_waits(&there, &here, first);
    let third = the_lease_changes_hands(&mut here, first);
    the_remote_comes_and_goes(&mut there, &here, third);
}

/// The section is taken out while the remote writes: nothing happens but a sentence.
fn an_edit_waits(there: &Cluster, here: &Cluster, leader: usize) {
    let section =
        http::get_json(&here.nodes[leader].rest(), "/config").expect("one")["standby_cluster"]
            .clone();
    assert_eq!(patch(here, 1 - leader, json!({"standby_cluster": null})).0, 200);
    wait_until("the sentence", 10, || {
        waits_for(here, 1 - leader).is_some_and(|why| why.contains("still accepts writes"))
    });
    write(there, 0, 10..20);
    wait_until("the rows here", 10, || rows(here, leader) == 20);
    assert_eq!(code(here, leader, "/standby_leader"), 200);
    assert_eq!(here.writable(), None);
    let (failed, said) =
        here.ctl(leader, &["promote-cluster", "site-b", "--force", "--timeout", "2"]);
    assert!(failed == 1 && said.contains("the order stands"), "{said}");
    assert!(here.ctl(leader, &["list"]).1.contains("Promotion waits: the remote"));
    assert_eq!(patch(here, leader, json!({"standby_cluster": section})).0, 200);
    wait_until("nothing to wait for", 10, || waits_for(here, leader).is_none());
    wait_standby_leader(here, 20);
}

/// Switchover and failover inside the standby cluster.
fn the_lease_changes_hands(here: &mut Cluster, first: usize) -> usize {
    let second = 1 - first;
    let names = [here.nodes[first].name.clone(), here.nodes[second].name.clone()];
    let body = json!({"leader": names[0], "candidate": names[1]}).to_string();
    let pid = here.nodes[first].postmaster();
    let answer = http::post(&here.nodes[first].rest(), "/switchover", &body).expect("an answer");
    assert_eq!(answer, (200, format!("Successfully switched over to \"{}\"", names[1])));
    wait_until("the other one to lead", 20, || standby_leader(here) == Some(second));
    assert_eq!(here.nodes[first].postmaster(), pid, "nothing had to be restarted for that");
    wait_trace(here, first, &["on_start standby_leader", "on_role_change replica"]);
    wait_trace(here, second, &["on_start replica", "on_role_change standby_leader"]);
    here.nodes[second].stop(30);
    wait_until("the first one to lead again", 30, || code(here, first, "/standby_leader") == 200);
    here.start(second);
    assert_eq!(wait_standby_leader(here, 40), first);
    assert_eq!(
        trace(here, first).last().map(String::as_str),
        Some("on_role_change standby_leader")
    );
    first
}

/// While the remote is down the key is kept and reads are served; the list says what is wrong.
fn the_remote_comes_and_goes(there: &mut Cluster, here: &Cluster, leader: usize) {
    there.nodes[0].stop(30);
    wait_until("the list to show it", 20, || problems(here, leader).contains("does not answer"));
    wait_until("streaming to be over", 20, || {
        listed(here, leader)["members"][leader]["state"] == "running"
    });
    assert_eq!(code(here, leader, "/standby_leader"), 200);
    assert_eq!(rows(here, leader), 20);
    there.start(0);
    wait_until("the remote", 30, || code(there, 0, "/primary") == 200);
    assert_eq!(wait_standby_leader(here, 30), leader);
    wait_until("no complaint", 20, || problems(here, leader) == "[]");
}

/// Spec: SC-7, SC-30, SC-31, SC-32, SC-34, EX-92.
#[test]
fn two_sites_change_places_without_a_loss() {
    let archive = scripts();
    let keep = format!("cp %p {}/%f", archive.path().display());
    let file = json!({"bootstrap": {"dcs": {"postgresql": {"parameters": {
        "archive_mode": "on", "archive_command": keep}}}}});
    let Some(there) = primary(file) else { return };
    let here = standby(1, &there, "    synchronous_mode: true\n");
    wait_standby_leader(&here, 60);
    write(&there, 0, 0..10);

    let port = here.address(0).postgresql.to_string();
    let words = ["demote-cluster", "e2e", "--host", "127.0.0.1", "--port", &port, "--force"];
    let (code_, said) = there.ctl(0, &words);
    assert_eq!(code_, 0, "{said}");
    let token = said.split("Handover token: ").nth(1).and_then(|t| t.split_whitespace().next());
    let token = token.unwrap_or_else(|| panic!("no token in: {said}"));
    assert!(token.starts_with(&there.system_identifier(0).expect("it answers")));
    assert_eq!(code(&there, 0, "/standby_leader"), 200);
    let file = wal_file_of(&there);
    assert!(archive.path().join(&file).exists(), "{file} is not in the archive");
    let (again, said) = there.ctl(0, &words);
    assert!(again == 1 && said.contains("already in the required state"), "{said}");

    let late = token.replace(":0/", ":F/");
    let (code_, said) =
        here.ctl(0, &["promote-cluster", "--token", &late, "--force", "--timeout", "2"]);
    assert!(code_ == 1 && said.contains("has not passed"), "{said}");
    assert_eq!((here.writable(), there.writable()), (None, None));
    let (code_, said) = here.ctl(0, &["promote-cluster", "--token", token, "--force"]);
    assert_eq!(code_, 0, "{said}");
    assert_eq!(here.wait_writable(10), 0);
    write(&here, 0, 10..20);
    wait_until("the rows there", 20, || rows(&there, 0) == 20);
    assert_eq!((here.timeline(0), there.nodes[0].said("pg_rewind")), (2, 0));
    assert_eq!(code(&here, 0, "/primary"), 200);
    wait_trace(&here, 0, &["on_start standby_leader", "on_role_change primary"]);
    let (code_, said) = here.ctl(0, &["promote-cluster", "--force"]);
    assert!(code_ == 1 && said.contains("already in the required state"), "{said}");
}

/// The WAL file in which the shutdown checkpoint is.
fn wal_file_of(cluster: &Cluster) -> String {
    let dump = cluster.nodes[0].dump().expect("a dump");
    let token = &dump["cluster"]["handover"];
    let (timeline, lsn) = (token["timeline"].as_u64(), token["lsn"].as_u64());
    let (timeline, lsn) = (timeline.expect("a number"), lsn.expect("a number"));
    format!("{timeline:08X}{:08X}{:08X}", lsn >> 32, (lsn & 0xFFFF_FFFF) >> 24)
}

/// Spec: SC-24, SC-25, SC-30, SC-33, EX-91, EX-95.
#[test]
fn both_wrote_and_one_of_them_is_rewound() {
    let Some(mut there) = primary(json!({})) else { return };
    let here = standby(2, &there, "");
    let leader = wait_standby_leader(&here, 60);
    write(&there, 0, 0..10);
    wait_until("the rows here", 10, || rows(&here, leader) == 10);
    let words = ["promote-cluster", "--even-if-remote-writes", "--force"];
    let (code_, said) = here.ctl(leader, &words);
    assert_eq!(code_, 0, "{said}");
    write(&there, 0, 10..13);
    write(&here, leader, 20..30);
    let at = here.address(leader).postgresql;
    let (code_, _) =
        patch(&there, 0, json!({"standby_cluster": {"host": "127.0.0.1", "port": at}}));
    assert_eq!(code_, 200);
    wait_until("the other site to follow", 60, || standby_leader(&there) == Some(0));
    wait_until("the same rows", 20, || there.stored(0) == here.stored(leader));
    assert_eq!(rows(&there, 0), 20);

    // A remote that comes back as another cluster is not followed, and nothing here is touched.
    let before = there.system_identifier(0);
    let (host, port) = ("127.0.0.1", at);
    drop(here);
    let spec = Spec { nodes: 1, ttl_s: 4, ..Spec::default() };
    let mut stranger = Cluster::plan(spec).expect("the first one was planned");
    stranger.nodes[0].at.postgresql = port;
    let at = format!("{host}:{port}");
    stranger.edit(0, &json!({"postgresql": {"listen": at, "connect_address": at}}));
    stranger.start(0);
    wait_until("the list to name it", 30, || problems(&there, 0).contains("it is another cluster"));
    wait_until("readiness to be over", 10, || code(&there, 0, "/readiness") == 503);
    wait_until("nobody to be followed", 10, || {
        there.nodes[0].sql("SHOW primary_conninfo").as_deref() == Some("")
    });
    assert_eq!((there.system_identifier(0), rows(&there, 0)), (before, 20));
    assert_eq!(code(&there, 0, "/standby_leader"), 200);
    let other = stranger.address(0).postgresql;
    let change = json!({"standby_cluster": {"host": "localhost", "port": other}});
    let (code_, said) = patch(&there, 0, change);
    assert!(code_ == 400 && said.contains("nothing was changed"), "{code_}: {said}");
    there.nodes[0].kill_daemon();
    there.start(0);
    wait_until("the same complaint", 30, || problems(&there, 0).contains("it is another cluster"));
    assert_eq!(rows(&there, 0), 20);
}

/// Data that lies there already, of the same system identifier, is taken as it is: it is started as
/// a standby, whatever it was before, and follows the remote; nothing is copied.
/// Spec: SC-14.
#[test]
fn data_that_is_there_is_followed_up_and_not_copied() {
    let Some(there) = primary(json!({})) else { return };
    write(&there, 0, 0..10);
    for was_standby in [false, true] {
        let spec = Spec { nodes: 1, ttl_s: 4, ..Spec::default() };
        let mut here = Cluster::plan(spec).expect("the other one was planned");
        let text = recipe(&here, 0, &there, "").replace("site_b", "site_c");
        fs::write(here.nodes[0].config(), text).expect("it can be written");
        let data = here.nodes[0].data();
        let to = format!(
            "host=127.0.0.1 port={} user=replicator password=repl-geheim",
            there.address(0).postgresql
        );
        fs::remove_dir(&data).expect("it is empty");
        let data_dir = data.display().to_string();
        tool("pg_basebackup", &["-D", &data_dir, "-d", &to, "-c", "fast", "--no-sync"]);
        if was_standby {
            fs::write(data.join("standby.signal"), "").expect("written");
        }
        fs::write(data.join("a_mark"), "").expect("written");
        here.start(0);
        wait_standby_leader(&here, 40);
        assert!(data.join("a_mark").exists(), "it was not copied");
        assert_eq!(here.system_identifier(0), there.system_identifier(0));
        wait_until("the rows here", 10, || rows(&here, 0) == 10);
        assert_eq!((here.timeline(0), here.nodes[0].said("pg_basebackup")), (1, 0));
    }
}

/// Without pg_rewind a site that wrote after it had lost its place keeps what it wrote aside, and
/// begins anew as a copy.
/// Spec: EX-96, SC-33.
#[test]
fn a_demoted_site_without_rewind_is_copied_anew() {
    let spec = Spec { nodes: 1, ttl_s: 4, use_pg_rewind: false, ..Spec::default() };
    let Some(mut there) = Cluster::plan(spec) else { return };
    there.start(0);
    wait_until("the primary cluster", 60, || code(&there, 0, "/primary") == 200);
    there.make_table();
    let here = standby(1, &there, "");
    wait_standby_leader(&here, 60);
    write(&there, 0, 0..10);
    wait_until("the rows here", 10, || rows(&here, 0) == 10);
    let words = ["promote-cluster", "--even-if-remote-writes", "--force"];
    let (code_, said) = here.ctl(0, &words);
    assert_eq!(code_, 0, "{said}");
    write(&there, 0, 10..13);
    write(&here, 0, 20..30);
    let at = here.address(0).postgresql;
    let change = json!({"standby_cluster": {"host": "127.0.0.1", "port": at}});
    assert_eq!(patch(&there, 0, change).0, 200);
    wait_until("the other site to follow", 60, || standby_leader(&there) == Some(0));
    wait_until("the same rows", 20, || there.stored(0) == here.stored(0));
    assert_eq!(there.nodes[0].said("pg_rewind"), 0);
    let aside = there.nodes[0].dir.join("data.diverged/global/pg_control");
    assert!(aside.exists(), "what only it had is kept");
}

/// The daemon of the standby leader dies alone, and its PostgreSQL keeps the slot on the remote: the
/// next leader streams without it, says so, and takes it as soon as it is free.
/// Spec: SC-3, SC-20, EX-90.
#[test]
fn a_slot_that_another_keeps_is_done_without() {
    let Some(there) = primary(json!({})) else { return };
    let mut here = standby(3, &there, "");
    let first = wait_standby_leader(&here, 60);
    let user = "SELECT application_name FROM pg_replication_slots s JOIN pg_stat_replication r ON \
                s.active_pid = r.pid WHERE slot_name = 'site_b'";
    let uses = |there: &Cluster| there.nodes[0].sql(user);
    let old = here.nodes[first].name.clone();
    assert_eq!(uses(&there).as_ref(), Some(&old));
    here.nodes[first].kill_daemon();
    let next =
        || here.others(first).into_iter().find(|k| code(&here, *k, "/standby_leader") == 200);
    wait_until("another to lead", 20, || next().is_some());
    let next = next().expect("just found");
    wait_until("the sentence", 20, || problems(&here, next).contains("in use by another server"));
    write(&there, 0, 0..10);
    for k in here.others(first) {
        wait_until("the rows", 10, || rows(&here, k) == 10);
    }
    assert_eq!(uses(&there), Some(old), "reads go on there");
    assert_eq!(rows(&here, first), 10);
    here.start(first);
    let name = here.nodes[next].name.clone();
    wait_until("the slot to be taken over", 30, || uses(&there).as_ref() == Some(&name));
    assert_eq!(wait_standby_leader(&here, 20), next);
    wait_until("nothing to complain of", 20, || problems(&here, next) == "[]");
}
