//! `surus wale-restore`: what it asks WAL-E, when it restores, and how it ends. WAL-E itself is
//! played by a script that says what a real one was recorded to say; the real one builds a replica in
//! tests/cluster_postgres/wale.rs.
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

const LISTING: &str = "name\tlast_modified\texpanded_size_bytes\twal_segment_backup_start\t\
    wal_segment_offset_backup_start\twal_segment_backup_stop\twal_segment_offset_backup_stop\n\
    base_000000010000000000000002_00000040\t2026-11-22T20:00:00.000Z\t1048576000\t\
    000000010000000000000002\t00000028\t000000010000000000000002\t00000100\n";

struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Place {
        let place = Place(tempfile::tempdir().expect("a directory"));
        fs::create_dir_all(place.path("bin")).expect("mkdir");
        fs::create_dir_all(place.path("env")).expect("mkdir");
        fs::create_dir_all(place.path("data")).expect("mkdir");
        fs::write(place.path("listing"), LISTING).expect("write");
        fs::write(place.path("distance"), "0").expect("write");
        place.program("envdir", "shift; exec \"$@\"");
        place.program(
            "wal-e",
            "echo \"$@\" >> $HERE/asked\ncase \"$*\" in *backup-list*) cat $HERE/listing;; \
             *backup-fetch*) exit $(cat $HERE/fetch 2>/dev/null || echo 0);; esac",
        );
        place.program(
            "psql",
            "echo \"$@\" >> $HERE/asked\n[ -e $HERE/distance ] && cat $HERE/distance",
        );
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn program(&self, name: &str, body: &str) {
        let path = self.path("bin").join(name);
        let here = self.0.path().display();
        fs::write(&path, format!("#!/bin/sh\nHERE={here}\n{body}\n")).expect("write");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("chmod");
    }

    fn run(&self, more: &[&str]) -> i32 {
        self.run_at(&self.path("env"), "dbname=postgres host=nowhere", more)
    }

    fn run_at(&self, envdir: &Path, connstring: &str, more: &[&str]) -> i32 {
        let _ = fs::remove_file(self.path("asked"));
        let path = format!("{}:/usr/bin:/bin", self.path("bin").display());
        let mut surus = Command::new(env!("CARGO_BIN_EXE_surus"));
        surus.arg("wale-restore").args(["--scope=demo", "--role=replica", "--retries=1"]);
        surus.arg(format!("--datadir={}", self.path("data").display()));
        surus.arg(format!("--connstring={connstring}"));
        surus.arg(format!("--envdir={}", envdir.display())).args(more).env("PATH", path);
        let output = surus.output().expect("it runs");
        output.status.code().expect("it ended by itself")
    }

    fn asked(&self) -> String {
        fs::read_to_string(self.path("asked")).unwrap_or_default()
    }
}

/// Spec: WE-1, WE-3, WE-4, WE-6.
#[test]
fn a_near_backup_is_fetched_and_a_far_one_not() {
    let place = Place::new();
    symlink("/nowhere/on/this/machine", place.path("data/pg_wal")).expect("symlink");
    assert_eq!(place.run(&["--use_iam=1"]), 0);
    let asked = place.asked();
    assert!(asked.contains("--aws-instance-profile backup-list --detail LATEST"), "{asked}");
    assert!(asked.contains("'0/2000028'"), "all digits of the start: {asked}");
    assert!(asked.ends_with(&format!("backup-fetch {} LATEST\n", place.path("data").display())));
    let wal = place.path("data/pg_wal");
    assert!(wal.is_dir() && !wal.is_symlink(), "a broken link became a directory");
    // 300 MiB are 30 percent of this backup.
    for (megabytes, code) in [(299, 0), (300, 2)] {
        fs::write(place.path("distance"), (megabytes << 20_u64).to_string()).expect("write");
        assert_eq!(place.run(&[]), code, "{megabytes} MiB");
    }
    assert_eq!(place.run(&["--threshold_backup_size_percentage=31"]), 0);
    let both = ["--threshold_backup_size_percentage=31", "--threshold_megabytes=300"];
    assert_eq!(place.run(&both), 2);
    fs::write(place.path("distance"), "0").expect("write");
    fs::write(place.path("fetch"), "7").expect("write");
    assert_eq!(place.run(&[]), 7, "the fetch's own code");
}

/// Spec: WE-1, WE-2, WE-3, WE-6.
#[test]
fn it_ends_with_2_where_another_try_is_no_use_and_with_1_where_it_is() {
    let place = Place::new();
    assert_eq!(place.run_at(&place.path("absent"), "", &[]), 2);
    assert_eq!(place.run(&["--keep_data=True"]), 2, "unknown arguments");
    assert_eq!(place.run(&["--no_leader=true"]), 2, "a number, as it always was");
    fs::remove_file(place.path("distance")).expect("removed");
    assert_eq!(place.run(&[]), 2, "the leader does not answer");
    assert_eq!(place.run(&["--no_leader=1"]), 0);
    assert_eq!(place.run_at(&place.path("env"), "", &[]), 0, "there is no leader to ask");
    assert!(!place.asked().contains("pg_wal_lsn_diff"));
    fs::write(place.path("listing"), LISTING.lines().next().expect("a header")).expect("write");
    assert_eq!(place.run(&[]), 2, "no backup");
    fs::write(place.path("listing"), "").expect("write");
    assert_eq!(place.run(&[]), 1, "half a listing");
    assert_eq!(place.asked().matches("backup-list").count(), 2, "it was tried again");
}
