//! The cluster of long ago that others are restored from: a base backup, an archive, and what was
//! written before and after the backup.
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use surus::host::postgres::account::Account;

use super::cluster::bin_dir;

/// Rows 1 (in the backup), 2 (before the restore point `here`) and 3 (after it).
pub struct Origin {
    dir: tempfile::TempDir,
    pub port: u16,
}

fn run(program: &str, words: &[&str]) -> Output {
    let mut command = if rustix::process::geteuid().is_root() {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=postgres", "--regid=postgres", "--init-groups"]).arg(program);
        command
    } else {
        Command::new(program)
    };
    let output = command.args(words).current_dir("/").stdin(Stdio::null()).output();
    output.expect("it runs")
}

/// Whether the tool is there; without it the test says so and passes, unless everything is required.
pub fn there(tool: &str) -> bool {
    let found = Command::new(tool).arg("--version").output().is_ok_and(|o| o.status.success())
        || Command::new(tool).arg("version").output().is_ok_and(|o| o.status.success());
    if !found {
        let why = format!("{tool} is not installed");
        let excused = std::env::var("SURUS_WITHOUT").is_ok_and(|without| without == tool);
        assert!(excused || std::env::var_os("SURUS_REQUIRE_POSTGRES").is_none(), "{why}");
        eprintln!("SKIPPED: {why}");
    }
    found
}

/// Whether a program that runs as PostgreSQL's user ends well.
pub fn tried(program: &str, words: &[&str]) -> bool {
    run(program, words).status.success()
}

/// Runs a program as PostgreSQL's user; its standard output.
#[track_caller]
pub fn as_postgres(program: &str, words: &[&str]) -> String {
    let output = run(program, words);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{program} {words:?}: {said}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A program of PostgreSQL's.
#[track_caller]
pub fn tool(name: &str, words: &[&str]) -> String {
    let program = bin_dir().expect("found before").join(name);
    as_postgres(&program.display().to_string(), words)
}

impl Origin {
    /// `None`: no PostgreSQL here, the test is skipped.
    pub fn new(port: u16) -> Option<Origin> {
        Origin::archiving(port, "cp %p ARCHIVE/%f", "")
    }

    /// With a configuration of its own, before its first start.
    pub fn archiving(port: u16, archive_command: &str, conf: &str) -> Option<Origin> {
        bin_dir()?;
        let dir = tempfile::Builder::new().prefix("surus-origin-").tempdir().expect("a directory");
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("chmod");
        let origin = Origin { dir, port };
        for path in [origin.data(), origin.archive(), origin.base(), origin.path("tool")] {
            fs::create_dir(&path).expect("it is new");
            if let Some(account) = Account::for_data_dir(&path).expect("an account") {
                account.own(&path).expect("chown");
            }
        }
        let data = origin.data().display().to_string();
        tool("initdb", &["-D", &data, "-U", "postgres", "--auth=trust", "--no-sync"]);
        let archive_command =
            archive_command.replace("ARCHIVE", &origin.archive().display().to_string());
        let own = format!(
            "port = {port}\nlisten_addresses = '127.0.0.1'\nunix_socket_directories = '{}'\n\
             fsync = off\nmax_connections = 101\narchive_mode = on\nwal_level = replica\n\
             archive_command = '{archive_command}'\n{conf}",
            origin.path("tool").display()
        );
        fs::write(origin.data().join("postgresql.auto.conf"), own).expect("it can be written");
        // A password that nobody tells the new cluster, and a cache of another cluster's settings.
        fs::write(origin.data().join("patroni.dynamic.json"), "{\"ttl\": 77}").expect("written");
        if let Some(account) = Account::for_data_dir(&origin.data()).expect("an account") {
            account.own(&origin.data().join("patroni.dynamic.json")).expect("chown");
        }
        Some(origin)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn data(&self) -> PathBuf {
        self.path("data")
    }

    pub fn archive(&self) -> PathBuf {
        self.path("archive")
    }

    /// The base backup.
    pub fn base(&self) -> PathBuf {
        self.path("base")
    }

    pub fn start(&self) {
        let log = self.path("tool/log").display().to_string();
        let data = self.data().display().to_string();
        tool("pg_ctl", &["-D", &data, "-l", &log, "-w", "start"]);
    }

    pub fn stop(&self) {
        let data = self.data().display().to_string();
        tool("pg_ctl", &["-D", &data, "-m", "fast", "-w", "stop"]);
    }

    #[track_caller]
    pub fn sql(&self, text: &str) -> String {
        let port = self.port.to_string();
        let words = ["-h", "127.0.0.1", "-p", &port, "-U", "postgres", "-XAtc", text, "postgres"];
        tool("psql", &words).trim().to_owned()
    }

    /// Lives its whole life: backup by `back_up`, rows, restore point, end.
    pub fn live(&self, back_up: impl FnOnce(&Origin)) {
        self.start();
        self.sql("ALTER ROLE postgres PASSWORD 'of long ago'");
        self.sql("CREATE TABLE t AS SELECT 1 AS x");
        self.sql("CREATE ROLE app LOGIN PASSWORD 'of the app'");
        back_up(self);
        self.sql("INSERT INTO t VALUES (2)");
        self.sql("SELECT pg_create_restore_point('here')");
        self.sql("INSERT INTO t VALUES (3)");
        self.sql("SELECT pg_switch_wal()");
        self.stop();
    }

    /// With a base backup and an archive of plain files. The backup asks for passwords.
    pub fn plain(port: u16) -> Option<Origin> {
        let origin = Origin::new(port)?;
        origin.live(|origin| {
            let (base, port) = (origin.base().display().to_string(), origin.port.to_string());
            let words = ["-h", "127.0.0.1", "-p", &port, "-U", "postgres", "-c", "fast"];
            tool("pg_basebackup", &[&words[..], &["-D", &base, "--no-sync"]].concat());
            // pg_basebackup leaves slots out; a snapshot of the disk would not.
            origin.sql("SELECT pg_create_physical_replication_slot('old', true)");
            let slot = |of: PathBuf| of.join("pg_replslot/old").display().to_string();
            as_postgres("cp", &["-R", "-p", &slot(origin.data()), &slot(origin.base())]);
            let auto = origin.base().join("postgresql.auto.conf");
            fs::write(auto, "# nothing\n").expect("written");
            let hba = "host all all 127.0.0.1/32 scram-sha-256\n\
                       host replication all 127.0.0.1/32 scram-sha-256\n";
            fs::write(origin.base().join("pg_hba.conf.backup"), hba).expect("written");
            fs::remove_file(origin.base().join("pg_hba.conf")).expect("it was copied");
        });
        Some(origin)
    }

    /// A restore script in `dir` that notes its arguments, copies the backup, and goes on as told.
    pub fn restore_script(&self, dir: &Path, name: &str, more: &str) -> String {
        let path = dir.join(name);
        let text = format!(
            "#!/bin/sh -e\necho \"$@\" >> {}.log\nfor word in \"$@\"; do\n  case $word in\n    \
             --datadir=*) data=${{word#--datadir=}} ;;\n  esac\ndone\necho restoring to $data\n\
             mkdir -p $data\nchmod 700 $data\ncp -R -p {}/. $data/\n{more}\n",
            path.display(),
            self.base().display()
        );
        fs::write(&path, text).expect("it can be written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).expect("chmod");
        path.display().to_string()
    }

    pub fn restore_command(&self) -> String {
        format!("cp {}/%f %p", self.archive().display())
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        super::process::kill_all(self.dir.path());
    }
}
