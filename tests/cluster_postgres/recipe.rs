//! The recipes of `docs/recipes`, run as they stand on the real tools; only paths, addresses and
//! ports are put in the places where a reader would put his own.
use std::fs;
use std::path::Path;

use super::cluster::{Cluster, wait_until};
use super::origin::{Origin, as_postgres, there, tried};
use super::single::{alone, leads};

/// A planned node whose file is the recipe.
fn cooked(recipe: &str, own: &[(&str, String)]) -> Cluster {
    let cluster = Cluster::plan(alone(serde_json::json!({}))).expect("PostgreSQL is there");
    let node = &cluster.nodes[0];
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/recipes").join(recipe);
    let mut text = fs::read_to_string(path).expect("the recipe is there");
    let at = |port: u16| format!("127.0.0.1:{port}");
    let places = [
        ("/var/lib/surus/raft", node.state().display().to_string()),
        ("/var/lib/postgresql/15/main", node.data().display().to_string()),
        ("/var/lib/postgresql/pgpass", node.dir.join("pgpass").display().to_string()),
        ("/var/run/postgresql", node.dir.display().to_string()),
        ("10.0.0.1:8008", at(node.at.rest)),
        ("10.0.0.1:2380", at(node.at.raft)),
        ("10.0.0.1:5432", at(node.at.postgresql)),
        ("10.0.0.0/24", String::from("127.0.0.0/8")),
    ];
    for (from, to) in places.iter().chain(own) {
        text = text.replace(from, to);
    }
    fs::write(node.config(), text).expect("it can be written");
    cluster
}

/// The cluster of the recipe: at its target, on a timeline of its own, with its roles.
#[track_caller]
fn is_served(mut cluster: Cluster) {
    cluster.start(0);
    wait_until("the cluster", 90, || leads(&cluster));
    let node = &cluster.nodes[0];
    let rows = node.sql("SELECT string_agg(x::text, ',' ORDER BY x) FROM t");
    assert_eq!(rows.as_deref(), Some("1,2"));
    assert_eq!(cluster.timeline(0), 2);
    let roles = node.sql("SELECT count(*)::text FROM pg_roles WHERE rolname = 'replicator'");
    assert_eq!(roles.as_deref(), Some("1"));
    assert_eq!(node.sql("SHOW archive_mode").as_deref(), Some("on"));
    assert!(node.said("at restore point") > 0, "where recovery stopped is said");
}

/// Spec: B-10, B-17, B-21, B-22, B-26, P-6, EX-28.
#[test]
fn a_cluster_begins_as_a_pgbackrest_backup() {
    if !there("pgbackrest") {
        return;
    }
    let push = "pgbackrest --config=ARCHIVE/../tool/pgbackrest.conf --stanza=demo archive-push %p";
    let Some(origin) = Origin::archiving(31_050, push, "") else { return };
    let dir = |name: &str| origin.path(name).display().to_string();
    let repository = format!(
        "[global]\nrepo1-path={}\nrepo1-retention-full=2\nlog-path={}\nspool-path={2}\n\
         lock-path={2}\nstart-fast=y\nlog-level-console=warn\n[demo]\n",
        dir("archive"),
        dir("tool"),
        dir("tool")
    );
    let conf = origin.path("tool/pgbackrest.conf");
    let source =
        format!("pg1-path={}\npg1-port={}\npg1-socket-path={}\n", dir("data"), 31_050, dir("tool"));
    fs::write(&conf, repository.clone() + &source).expect("it can be written");
    let config = format!("--config={}", conf.display());
    origin.live(|_| {
        for what in ["stanza-create", "backup"] {
            as_postgres("pgbackrest", &[&config, "--stanza=demo", what]);
        }
    });
    let own = [("/etc/pgbackrest.conf", conf.display().to_string())];
    let cluster = cooked("bootstrap-pgbackrest.yml", &own);
    let here = format!("pg1-path={}\n", cluster.nodes[0].data().display());
    fs::write(&conf, repository + &here).expect("it can be written");
    is_served(cluster);
}

/// Spec: B-10, B-17, B-21, B-22, B-26, P-6, EX-28.
#[test]
fn a_cluster_begins_as_a_barman_backup() {
    if !there("barman") {
        return;
    }
    let push = "cp %p ARCHIVE/pg/incoming/%f";
    let Some(origin) = Origin::archiving(31_060, push, "") else { return };
    let conf = origin.path("tool/barman.conf");
    let home = origin.archive().display().to_string();
    let words = "host=127.0.0.1 port=31060 user=postgres";
    let text = format!(
        "[barman]\nbarman_user = postgres\nbarman_home = {home}\nlog_file = {home}/barman.log\n\
         configuration_files_directory = {home}/none\n[pg]\ndescription = of long ago\n\
         conninfo = {words} dbname=postgres\nstreaming_conninfo = {words}\n\
         backup_method = postgres\narchiver = on\nimmediate_checkpoint = true\n"
    );
    fs::write(&conf, text).expect("it can be written");
    let config = conf.display().to_string();
    let barman = |words: &[&str]| as_postgres("barman", &[&["-c", &config], words].concat());
    origin.live(|origin| {
        // The first check makes its directories; it is content when a WAL file has come.
        let check = || tried("barman", &["-c", &config, "check", "pg"]);
        check();
        origin.sql("SELECT pg_switch_wal()");
        wait_until("barman to be content", 30, || {
            barman(&["archive-wal", "pg"]);
            check()
        });
        barman(&["backup", "pg", "--wait"]);
    });
    barman(&["archive-wal", "pg"]);
    let own = [("/etc/barman.conf", config), ("/var/lib/barman", home)];
    is_served(cooked("bootstrap-barman.yml", &own));
}
