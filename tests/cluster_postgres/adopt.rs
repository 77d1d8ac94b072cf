//! Data and servers that were there before Surus.
use std::fs;
use std::time::Duration;

use serde_json::json;
use surus::host::postgres::account::Account;

use super::cluster::{Cluster, Spec, wait_until};
use super::http;
use super::origin::tool;
use super::scripts::{lines, script, scripts};
use super::single::{alone, leads};
use super::sql::PASSWORD;

/// A cluster of somebody's own on the node's address, not running yet.
fn settle_in(cluster: &Cluster, k: usize) {
    let node = &cluster.nodes[k];
    fs::remove_dir(node.data()).expect("it is empty");
    let data = node.data().display().to_string();
    tool("initdb", &["-D", &data, "-U", "postgres", "--auth=trust", "--no-sync"]);
    let own = "listen_addresses = '127.0.0.1'\nunix_socket_directories = ''\nfsync = off\n";
    configure(cluster, k, &format!("{own}port = {}\n", node.at.postgresql));
}

fn configure(cluster: &Cluster, k: usize, more: &str) {
    let conf = cluster.nodes[k].data().join("postgresql.conf");
    let text = fs::read_to_string(&conf).expect("it is there");
    fs::write(conf, text + more).expect("it can be written");
}

/// A standby of node 0's primary, made and started by hand.
fn copy_of_the_primary(cluster: &Cluster, k: usize) {
    let node = &cluster.nodes[k];
    fs::remove_dir(node.data()).expect("it is empty");
    let (data, port) = (node.data().display().to_string(), cluster.nodes[0].at.postgresql);
    let source = format!("host=127.0.0.1 port={port} user=postgres password={PASSWORD}");
    tool("pg_basebackup", &["-D", &data, "-d", &source, "-R", "--checkpoint=fast", "--no-sync"]);
    configure(cluster, k, &format!("port = {}\n", node.at.postgresql));
    pg_ctl(cluster, k, &["start"]);
}

fn pg_ctl(cluster: &Cluster, k: usize, what: &[&str]) {
    let data = cluster.nodes[k].data().display().to_string();
    let log = cluster.nodes[k].dir.join("foreign.log").display().to_string();
    tool("pg_ctl", &[&["-D", &data, "-l", &log, "-w"], what].concat());
}

/// A running primary is joined as it runs: no restart, no initdb, no post_bootstrap; its data and
/// its identity become the cluster's. A cached configuration of another program is not read.
/// Slots that nobody speaks for go after a while; those that the configuration names stay.
/// Spec, I-13, D-1, D-2, D-3, P-4.
#[test]
fn a_running_primary_is_adopted_without_a_restart() {
    let dir = scripts();
    let (born, told) = (script(dir.path(), "born", ""), script(dir.path(), "told", ""));
    let dcs = json!({"member_slots_ttl": 2, "slots": {"listed": {"type": "physical"}},
        "ignore_slots": [{"name": "barman", "type": "physical"}]});
    let file = json!({"bootstrap": {"post_bootstrap": born, "dcs": dcs}, "postgresql":
        {"callbacks": {"on_start": told}, "pg_hba": ["host all all 127.0.0.1/32 scram-sha-256",
        "host replication all 127.0.0.1/32 scram-sha-256"]}});
    let Some(mut cluster) = Cluster::plan(alone(file)) else { return };
    settle_in(&cluster, 0);
    pg_ctl(&cluster, 0, &["start"]);
    let node = &cluster.nodes[0];
    for statement in [
        format!("ALTER ROLE postgres PASSWORD '{PASSWORD}'"),
        "CREATE ROLE replicator REPLICATION LOGIN PASSWORD 'repl-geheim'".into(),
        "CREATE TABLE treasure AS SELECT 42 AS x".into(),
        "SELECT pg_create_physical_replication_slot(name, true) FROM \
         unnest(ARRAY['listed', 'barman', 'stale']) AS name"
            .into(),
    ] {
        node.sql(&statement);
    }
    fs::write(node.data().join("patroni.dynamic.json"), "{\"ttl\": 77}").expect("written");
    let (pid, identity) = (node.postmaster(), cluster.system_identifier(0));
    assert!(pid.is_some() && identity.is_some());
    cluster.start(0);
    wait_until("the cluster", 30, || leads(&cluster));
    let node = &cluster.nodes[0];
    assert_eq!(node.postmaster(), pid, "it was not restarted");
    assert_eq!(cluster.system_identifier(0), identity);
    assert_eq!(node.sql("SELECT x::text FROM treasure").as_deref(), Some("42"));
    let dump = node.dump().expect("a dump");
    let known = dump["cluster"]["initialize"].to_string();
    assert!(dump.to_string().contains(&identity.expect("known")), "{known}");
    let config = http::get_json(&node.rest(), "/config").expect("a configuration");
    assert_eq!(config["ttl"], 3);
    assert!(lines(&born).is_empty(), "nothing was created");
    wait_until("on_start, once", 10, || lines(&told) == ["on_start primary e2e"]);
    let slots = || {
        node.sql("SELECT string_agg(slot_name, ' ' ORDER BY slot_name) FROM pg_replication_slots")
    };
    wait_until("the slot of nobody to go", 20, || slots().as_deref() == Some("barman listed"));
    wait_until("pg_hba to be in force", 10, || {
        node.sql("SELECT count(*)::text FROM pg_hba_file_rules").as_deref() == Some("2")
    });
}

/// What an earlier cluster left in the data directory stops nothing, and what stood in Patroni's store is named.
/// Spec: A-1.
#[test]
fn a_second_adoption_never_stops_the_primary() {
    let Some(mut cluster) = Cluster::plan(Spec::default()) else { return };
    settle_in(&cluster, 0);
    pg_ctl(&cluster, 0, &["start"]);
    let node = &cluster.nodes[0];
    node.sql(&format!("ALTER ROLE postgres PASSWORD '{PASSWORD}'"));
    node.sql("CREATE ROLE replicator REPLICATION LOGIN PASSWORD 'repl-geheim'");
    let left = node.data().join("surus.copy");
    fs::write(&left, "00000000deadbeef\n").expect("written");
    let cache = "{\"ttl\": 77, \"synchronous_mode\": true}";
    fs::write(node.data().join("patroni.dynamic.json"), cache).expect("written");
    let pid = node.postmaster();
    assert!(pid.is_some());
    cluster.start(0);
    std::thread::sleep(Duration::from_secs(6));
    assert_eq!(cluster.nodes[0].postmaster(), pid, "it was not stopped while nobody can decide");
    cluster.numbers().into_iter().skip(1).for_each(|k| cluster.start(k));
    assert_eq!(cluster.wait_settled(60), 0);
    let node = &cluster.nodes[0];
    assert_eq!(node.postmaster(), pid, "it was not restarted");
    assert!(
        !fs::read_to_string(&left).expect("it is there").contains("deadbeef"),
        "it has its own"
    );
    assert!(node.said("patronictl show-config") > 0 && node.said("ttl, synchronous_mode") > 0);
}

/// Three daemons that are brought to a running cluster one after the other: while nobody can decide yet,
/// its primary and its standby go on, also over a restart of the daemons, and after it.
/// Spec: A-1.
#[test]
fn a_running_cluster_goes_on_until_a_majority_adopts_it_and_after_it() {
    let Some(mut cluster) = Cluster::plan(Spec::default()) else { return };
    settle_in(&cluster, 0);
    pg_ctl(&cluster, 0, &["start"]);
    let node = &cluster.nodes[0];
    node.sql(&format!("ALTER ROLE postgres PASSWORD '{PASSWORD}'"));
    node.sql("CREATE ROLE replicator REPLICATION LOGIN PASSWORD 'repl-geheim'");
    copy_of_the_primary(&cluster, 1);
    let pids = |cluster: &Cluster| [0, 1].map(|k| cluster.nodes[k].postmaster());
    let first = pids(&cluster);
    assert!(first.iter().all(Option::is_some));
    cluster.start(0);
    std::thread::sleep(Duration::from_secs(5));
    assert_eq!(pids(&cluster), first, "it goes on without a majority");
    let dump = cluster.nodes[0].dump().expect("a dump").to_string();
    assert!(dump.contains("it is adopted when a majority"), "{dump}");
    cluster.nodes[0].stop(20);
    assert_eq!(pids(&cluster), first, "nobody has adopted it: it is not ours to stop");
    cluster.numbers().into_iter().for_each(|k| cluster.start(k));
    assert_eq!(cluster.wait_settled(60), 0);
    assert_eq!(pids(&cluster), first, "nobody was restarted");
}

/// Somebody's standby, running or not, is not made a primary: its own primary is somewhere.
/// Spec: I-14, EX-43.
#[test]
fn somebodys_standby_is_never_promoted() {
    let Some(mut cluster) = Cluster::plan(alone(json!({}))) else { return };
    settle_in(&cluster, 0);
    let data = cluster.nodes[0].data();
    fs::write(data.join("standby.signal"), "").expect("written");
    pg_ctl(&cluster, 0, &["start"]);
    let pid = cluster.nodes[0].postmaster();
    cluster.start(0);
    let said = "a PostgreSQL that Surus did not start";
    wait_until("the refusal to be said", 20, || {
        cluster.nodes[0].dump().is_some_and(|dump| dump.to_string().contains(said))
    });
    std::thread::sleep(Duration::from_secs(4));
    assert_eq!(cluster.nodes[0].postmaster(), pid, "it was not touched");
    let recovers = cluster.nodes[0].sql("SELECT pg_is_in_recovery()");
    assert_eq!(recovers.as_deref(), Some("t"), "it was not promoted");
    assert!(data.join("standby.signal").exists());
    cluster.nodes[0].stop(20);
    assert_eq!(cluster.nodes[0].postmaster(), pid, "an orderly stop of the daemon leaves it, too");
    pg_ctl(&cluster, 0, &["-m", "fast", "stop"]);
    cluster.start(0);
    let why = "its data directory was a standby's: start the primary's node first";
    wait_until("the refusal of what lies there", 20, || {
        cluster.nodes[0].dump().is_some_and(|dump| dump.to_string().contains(why))
    });
    assert!(!leads(&cluster) && data.join("standby.signal").exists());
}

/// What is no cluster and not empty either is left as it is, and said.
/// Spec: E-3, EX-41, I-3.
#[test]
fn a_broken_directory_is_left_as_it_is() {
    let Some(mut cluster) = Cluster::plan(alone(json!({}))) else { return };
    let data = cluster.nodes[0].data();
    fs::create_dir(data.join("global")).expect("it is new");
    for (name, text) in [("global/pg_control", "junk"), ("PG_VERSION", "15\n")] {
        fs::write(data.join(name), text).expect("it can be written");
    }
    if let Some(account) = Account::for_data_dir(&data).expect("an account") {
        for name in ["global", "global/pg_control", "PG_VERSION"] {
            account.own(&data.join(name)).expect("chown");
        }
    }
    cluster.start(0);
    let said = || cluster.nodes[0].dump().is_some_and(|d| d.to_string().contains("is broken"));
    wait_until("the sentence", 20, said);
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(fs::read_to_string(data.join("global/pg_control")).expect("it is there"), "junk");
    assert!(cluster.nodes[0].postmaster().is_none() && !leads(&cluster));
    assert!(!cluster.nodes[0].dir.join("data.failed").exists());
}

/// A watchdog that is required and missing: nothing that could write is begun, and why is said.
/// Spec: P-8, EX-34.
#[test]
fn without_the_required_watchdog_no_cluster_is_created() {
    let file = json!({"watchdog": {"mode": "required", "device": "/no/such/watchdog", "safety_margin": 1}});
    let Some(mut cluster) = Cluster::plan(alone(file)) else { return };
    cluster.start(0);
    let reason = || {
        let body = http::get_json(&cluster.nodes[0].rest(), "/cluster").unwrap_or_default();
        body["surus"]["initialize_failure"]["reason"].as_str().unwrap_or_default().to_owned()
    };
    wait_until("the reason", 20, || reason().contains("/no/such/watchdog"));
    std::thread::sleep(Duration::from_secs(3));
    assert!(!leads(&cluster) && !cluster.nodes[0].data().join("PG_VERSION").exists());
}
