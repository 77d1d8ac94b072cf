//! What PostgreSQL's account must not get out of a daemon that runs as root: it plants links where
//! it may write, and root's own files are byte for byte and owner for owner what they were.
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

use surus::host::postgres::Server;
use surus::host::postgres::removal::make_data_dir;
use surus::host::postgres::start::Ready;

use crate::place::*;

const CANARY: &str = "root's own words\n";

/// A file and an empty directory of root's.
struct Canary {
    file: PathBuf,
    dir: PathBuf,
}

impl Canary {
    fn place(at: &Path) -> Canary {
        let canary = Canary { file: at.join("canary"), dir: at.join("roost") };
        std::fs::write(&canary.file, CANARY).expect("write");
        std::fs::set_permissions(&canary.file, PermissionsExt::from_mode(0o600)).expect("chmod");
        std::fs::create_dir(&canary.dir).expect("mkdir");
        canary
    }

    fn is_as_it_was(&self) {
        assert_eq!(std::fs::read_to_string(&self.file).expect("there"), CANARY);
        let file = std::fs::symlink_metadata(&self.file).expect("there");
        assert_eq!((file.uid(), file.gid(), file.mode() & 0o7777), (0, 0, 0o600));
        let dir = std::fs::symlink_metadata(&self.dir).expect("there");
        assert_eq!((dir.uid(), dir.gid(), dir.mode() & 0o7777), (0, 0, 0o755));
        assert_eq!(std::fs::read_dir(&self.dir).expect("there").count(), 0);
    }
}

/// As PostgreSQL's account would leave it.
fn plant(server: &Server, target: &Path, link: &Path) {
    let _ = std::fs::remove_file(link);
    symlink(target, link).expect("symlink");
    server.run_as.as_ref().expect("we are root").own(link).expect("lchown");
}

fn root_place() -> Option<Place> {
    let place = Place::new()?;
    rustix::process::geteuid().is_root().then_some(place)
}

/// No file of the cluster's may hold root's words.
fn tells_nothing(dir: &Path) {
    for entry in std::fs::read_dir(dir).expect("there").flatten() {
        let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
        let text = if is_file { std::fs::read(entry.path()).expect("reads") } else { Vec::new() };
        let told = String::from_utf8_lossy(&text).contains(CANARY.trim());
        assert!(!told, "{} holds root's words", entry.path().display());
    }
}

/// Spec: SEC-1, SEC-3.
#[tokio::test]
async fn links_of_the_account_lead_root_nowhere() {
    let Some(mut place) = root_place() else { return };
    let canary = Canary::place(place.dir.path());
    let server = place.server("one");
    server.initdb(&[], "boss", server.connection.password.as_ref()).await.expect("initdb");
    let wanted = files(&server, None);
    let log = server.log_path();
    plant(&server, &canary.file, &log);
    server.start(&wanted, LONG, Ready::ReadWrite).await.expect_err("its log is a link");
    canary.is_as_it_was();
    std::fs::remove_file(&log).expect("the link is removed");
    for name in [
        "postgresql.conf",
        "postgresql.base.conf",
        "postgresql.conf.backup",
        "pg_hba.conf",
        "pg_hba.conf.backup",
        "pg_ident.conf",
        "pg_ident.conf.backup",
        "postgresql.auto.conf",
        "PG_VERSION",
        "standby.signal",
        "surus.copy",
    ] {
        let path = server.data_dir.join(name);
        let kept = std::fs::read(&path).ok();
        plant(&server, &canary.file, &path);
        let _ = server.write_conf_files(&wanted);
        let _ = server.name_copy().await;
        let _ = server.complete_restored(Vec::new()).await;
        let _ = server.inspect().await;
        canary.is_as_it_was();
        tells_nothing(&server.data_dir);
        std::fs::remove_file(&path).ok();
        if let Some(bytes) = kept {
            std::fs::write(&path, bytes).expect("write");
            server.run_as.as_ref().expect("root").own(&path).expect("chown");
        }
    }
    plant(&server, &canary.file, &server.pgpass);
    let _ = server.write_passfile("h:1:*:u:p\n").await;
    canary.is_as_it_was();
    tells_nothing(&server.state_dir);
}

/// Spec: SEC-4.
/// Nor to a directory of root's in place of the data directory.
#[tokio::test]
async fn a_directory_of_roots_is_not_taken() {
    let Some(mut place) = root_place() else { return };
    let canary = Canary::place(place.dir.path());
    let server = place.server("one");
    plant(&server, &canary.dir, &server.data_dir);
    let why = server.initdb(&[], "boss", None).await.expect_err("it is root's");
    assert!(why.contains("another account"), "{why}");
    assert!(make_data_dir(&server.data_dir, server.run_as.as_ref()).is_err());
    let _ = server.move_aside("failed").await;
    let _ = server.clear_data_directory().await;
    canary.is_as_it_was();
}

/// What root prepared for PostgreSQL is given to it, and nothing else of root's is.
#[tokio::test]
async fn an_empty_directory_that_root_made_is_given() {
    let Some(mut place) = root_place() else { return };
    let mut server = place.server("one");
    let account = server.run_as.clone().expect("we are root");
    server.data_dir = place.dir.path().join("prepared");
    std::fs::create_dir(&server.data_dir).expect("mkdir");
    make_data_dir(&server.data_dir, Some(&account)).expect("given");
    assert_eq!(std::fs::metadata(&server.data_dir).expect("there").uid(), account.uid);
    chown(&server.data_dir, Some(0), Some(0)).expect("chown");
    std::fs::write(server.data_dir.join("mine"), "").expect("write");
    let why = make_data_dir(&server.data_dir, Some(&account)).expect_err("it is not empty");
    assert!(why.contains("not empty"), "{why}");
}

/// OPS of `initdb --allow-group-access`: the group may read what the server lets it read.
#[tokio::test]
async fn files_of_a_group_readable_cluster_are_group_readable() {
    let Some(mut place) = Place::new() else { return };
    let server = place.server("one");
    let options = ["--allow-group-access".to_owned()];
    server.initdb(&options, "boss", server.connection.password.as_ref()).await.expect("initdb");
    make_data_dir(&server.data_dir, server.run_as.as_ref()).expect("as it is");
    server.start(&files(&server, None), LONG, Ready::ReadWrite).await.expect("start");
    let mode = |path: &Path| std::fs::metadata(path).expect("there").mode() & 0o777;
    assert_eq!(mode(&server.data_dir), 0o750);
    for name in ["postgresql.conf", "pg_hba.conf", "postgresql.base.conf"] {
        assert_eq!(mode(&server.data_dir.join(name)), 0o640, "{name}");
    }
}
