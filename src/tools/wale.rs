//! `surus wale-restore`: fetches the latest WAL-E backup as a replica method, unless too much WAL
//! was written since. It takes the arguments of `patroni_wale_restore` and ends with its codes.
//!
//! 0: restored. 1: worth another try. 2: not to be tried. Otherwise the fetch's own code.
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use clap::Parser;

use crate::pure::postgres::wal_e::{self, Backup, Fault, Limits};

const TRY_AGAIN: i32 = 1;
const GIVE_UP: i32 = 2;
const PAUSE: Duration = Duration::from_secs(1);

/// Restore a replica from the latest WAL-E backup.
#[derive(Parser, Debug)]
#[command(name = "wale-restore", rename_all = "snake_case")]
pub struct WaleArgs {
    #[arg(long)]
    pub scope: String,
    /// Accepted as every replica method gets it
    #[arg(long)]
    pub role: Option<String>,
    #[arg(long)]
    pub datadir: PathBuf,
    /// Of the leader, to see how much WAL was written since the backup; empty without one
    #[arg(long)]
    pub connstring: String,
    #[arg(long, default_value_t = 1)]
    pub retries: u32,
    /// A directory with WAL-E's variables, one in a file
    #[arg(long)]
    pub envdir: PathBuf,
    /// Restore only when less WAL than this was written since
    #[arg(long, default_value_t = 10240)]
    pub threshold_megabytes: u64,
    /// … and less than this part of the backup's size
    #[arg(long, default_value_t = 30)]
    pub threshold_backup_size_percentage: u64,
    #[arg(long, default_value_t = 0)]
    pub use_iam: i32,
    /// 1: restore also where no leader can be asked
    #[arg(long, default_value_t = 0)]
    pub no_leader: i32,
}

pub fn run(args: &WaleArgs) -> i32 {
    if !args.envdir.is_dir() {
        eprintln!("there is no directory {}: correct envdir", args.envdir.display());
        return GIVE_UP;
    }
    for round in 0..=args.retries {
        if round > 0 {
            thread::sleep(PAUSE);
        }
        match latest(args) {
            Ok(backup) if worth_it(args, &backup) => return fetch(args),
            Ok(_) => return GIVE_UP,
            Err(Fault::NotOne(number)) => {
                eprintln!("WAL-E lists {number} latest backups instead of one");
                return GIVE_UP;
            }
            Err(Fault::Unreadable(problem)) => eprintln!("{problem}"),
        }
    }
    TRY_AGAIN
}

fn wal_e(args: &WaleArgs) -> Command {
    let mut command = Command::new("envdir");
    command.arg(&args.envdir).arg("wal-e").stdin(Stdio::null());
    if args.use_iam == 1 {
        command.arg("--aws-instance-profile");
    }
    command
}

fn latest(args: &WaleArgs) -> Result<Backup, Fault> {
    let list = ["backup-list", "--detail", "LATEST"];
    let ran = wal_e(args).args(list).stderr(Stdio::inherit()).output();
    let output =
        ran.map_err(|error| Fault::Unreadable(format!("could not run envdir: {error}")))?;
    if !output.status.success() {
        return Err(Fault::Unreadable(format!("wal-e backup-list: {}", output.status)));
    }
    wal_e::parse(&String::from_utf8_lossy(&output.stdout))
}

/// Has less WAL been written since the backup than both limits allow?
fn worth_it(args: &WaleArgs, backup: &Backup) -> bool {
    let limits = Limits {
        wal_megabytes: args.threshold_megabytes,
        wal_percent: args.threshold_backup_size_percentage,
    };
    let Some(bytes) = written_since(args, backup) else {
        eprintln!("the leader does not say how much WAL it has written: not restored");
        return false;
    };
    let allowed = limits.allow(backup, bytes);
    if !allowed {
        eprintln!(
            "{} MiB of WAL since the backup{}: the leader's own data is the shorter way",
            bytes >> 20,
            backup.bytes.map(|size| format!(" of {} MiB", size >> 20)).unwrap_or_default()
        );
    }
    allowed
}

/// Nothing where a leader should answer and does not.
fn written_since(args: &WaleArgs, backup: &Backup) -> Option<u64> {
    if args.connstring.is_empty() {
        return Some(0);
    }
    for round in 0..=args.retries {
        if round > 0 {
            thread::sleep(PAUSE);
        }
        if let Some(bytes) = ask(&args.connstring, backup) {
            return Some(bytes);
        }
    }
    (args.no_leader == 1).then_some(0)
}

fn ask(connstring: &str, backup: &Backup) -> Option<u64> {
    let question = format!(
        "SELECT greatest(0, pg_wal_lsn_diff(CASE WHEN pg_is_in_recovery() THEN \
         coalesce(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn()) ELSE pg_current_wal_lsn() \
         END, '{}'))::bigint",
        backup.start
    );
    let mut psql = Command::new("psql");
    psql.args(["-X", "-A", "-t", "-q", "-w", "-d", connstring, "-c", &question]);
    let output = psql.stdin(Stdio::null()).stderr(Stdio::inherit()).output().ok()?;
    let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    said.parse().ok().filter(|_| output.status.success())
}

fn fetch(args: &WaleArgs) -> i32 {
    let ran = wal_e(args).arg("backup-fetch").arg(&args.datadir).arg("LATEST").status();
    let code = match ran {
        Ok(status) => status.code().unwrap_or(TRY_AGAIN),
        Err(error) => {
            eprintln!("could not run envdir: {error}");
            return TRY_AGAIN;
        }
    };
    match mend_wal_link(&args.datadir) {
        Err(problem) if code == 0 => {
            eprintln!("{problem}");
            TRY_AGAIN
        }
        _ => code,
    }
}

/// The backup names the WAL directory of the machine it was taken on: where that is not here, a
/// directory takes its place.
fn mend_wal_link(data_dir: &Path) -> Result<(), String> {
    let link = data_dir.join("pg_wal");
    if !link.is_symlink() || link.exists() {
        return Ok(());
    }
    std::fs::remove_file(&link)
        .and_then(|()| std::fs::create_dir(&link))
        .map_err(|error| format!("could not make {}: {error}", link.display()))
}
