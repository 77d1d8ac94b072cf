//! `bootstrap plan`: what the creation of a cluster would run, write and need. Runs nothing.
use std::path::{Path, PathBuf};

use clap::Subcommand;

use crate::host::config::{find_bin_dir, load_file};
use crate::host::postgres::Connection;
use crate::host::postgres::account::Account;
use crate::host::postgres::bootstrap_marker::trusting_hba;
use crate::host::postgres::create::{
    POST_BOOTSTRAP_OPTIONS, bootstrap_arguments, initdb_arguments, script_dsn,
};
use crate::host::postgres::files::Files;
use crate::host::postgres::processes::beside;
use crate::host::run::local_host;
use crate::pure::config::redact::redacted_text;
use crate::pure::config::{Bootstrap, Config, CreateMethod, CustomMethod, Postgresql};
use crate::pure::postgres::recovery::restored;
use crate::pure::postgres::settings::conf_settings;

const MIB: u64 = 1 << 20;
/// An empty cluster with its first WAL, and room for a few segments more.
const INITDB_MIB: u64 = 100;

/// What a shell takes as it is, besides letters and digits.
const PLAIN: &str = "-_=/.:,@%+";

#[derive(Subcommand)]
pub enum BootstrapCommand {
    /// Show what would run, in which order, with which arguments; nothing is run or changed.
    Plan { config: PathBuf },
}

/// Prints it; the exit code.
pub fn run(command: &BootstrapCommand) -> i32 {
    let BootstrapCommand::Plan { config } = command;
    match load_file(config) {
        Ok(config) => match plan(&config) {
            Ok(lines) => {
                lines.iter().for_each(|line| println!("{line}"));
                0
            }
            Err(problem) => {
                eprintln!("Error: {problem}");
                1
            }
        },
        Err(faults) => {
            faults.iter().for_each(|fault| eprintln!("{fault}"));
            1
        }
    }
}

fn plan(config: &Config) -> Result<Vec<String>, String> {
    let own = config.postgresql.as_ref().ok_or("a witness creates no cluster")?;
    let Some(bootstrap) = &config.bootstrap else {
        return Ok(vec!["There is no bootstrap section: this node creates no cluster.".into()]);
    };
    let (scope, name) = (&config.scope, &config.name);
    let mut lines = vec![format!(
        "What {name} would do to create the cluster {scope}. Nothing was run, nothing was changed."
    )];
    for (at, method) in bootstrap.methods.iter().enumerate() {
        let order = if at == 0 { "" } else { ", only if the one before fails" };
        lines.push(format!("\nmethod {}: {}{order}", at + 1, method.name()));
        match method {
            CreateMethod::Initdb => lines.extend(initdb(own, bootstrap)),
            CreateMethod::Custom(method) => lines.extend(custom(scope, own, method)?),
        }
        lines.push(limit("bootstrap.method_timeout", bootstrap.method_timeout_s));
    }
    lines.extend(afterwards(own, bootstrap)?);
    lines.extend(touched(own));
    lines.extend(space(own, bootstrap));
    Ok(lines)
}

fn limit(key: &str, seconds: Option<u64>) -> String {
    match seconds {
        Some(seconds) => format!("  limit: {seconds} s ({key})"),
        None => format!("  limit: none ({key} is not set)"),
    }
}

/// The words as a shell would be given them, secrets hidden.
fn argv(words: &[String]) -> String {
    let quoted = words.iter().map(|word| {
        let word = redacted_text(word);
        if !word.is_empty() && word.chars().all(|c| c.is_ascii_alphanumeric() || PLAIN.contains(c))
        {
            return word;
        }
        shlex::try_quote(&word).map_or_else(|_| word.clone(), |text| text.into_owned())
    });
    format!("  argv: {}", quoted.collect::<Vec<_>>().join(" "))
}

fn environment(own: &Postgresql, more: &str) -> String {
    let account = match Account::for_data_dir(&own.data_dir) {
        Ok(Some(account)) => format!(", HOME USER LOGNAME of {}", account.name),
        _ => String::new(),
    };
    format!(
        "  environment: the daemon's without PATRONI_* and SURUS_*{account}, SURUS_OPERATION SURUS_LIFE{more}"
    )
}

fn initdb(own: &Postgresql, bootstrap: &Bootstrap) -> Vec<String> {
    let program = find_bin_dir(own).map(|dir| dir.join("initdb").display().to_string());
    let mut words = vec![program.unwrap_or_else(|_| String::from("initdb"))];
    let options: Vec<String> = bootstrap.initdb.iter().map(|option| option.argument()).collect();
    words.extend(initdb_arguments(&options, &own.superuser.username));
    if own.superuser.password.is_some() {
        words.push("--pwfile=/proc/self/fd/N".into());
    }
    words.extend(["-D".into(), own.data_dir.display().to_string()]);
    vec![argv(&words), environment(own, " LC_ALL LANG")]
}

fn custom(scope: &str, own: &Postgresql, method: &CustomMethod) -> Result<Vec<String>, String> {
    let mut words = shlex::split(&method.command)
        .ok_or_else(|| format!("bootstrap.{}.command has an open quote: close it", method.name))?;
    words.extend(bootstrap_arguments(method, scope, &own.data_dir));
    let mut lines = vec![argv(&words), environment(own, " SURUS_WORK")];
    let how = restored(method, "");
    lines.push(match (how.keeps_signals, how.recovers, how.follows) {
        (true, ..) => "  recovery: by the signal file and settings that the method leaves".into(),
        (_, true, true) => "  recovery: standby.signal; ends when somebody promotes it".into(),
        (_, true, false) => String::from("  recovery: recovery.signal, from the archive"),
        _ => "  recovery: recovery.* and standby.signal are removed; what lies in pg_wal".into(),
    });
    let settings = conf_settings(&how.parameters);
    lines.extend(settings.lines().map(|line| format!("    {}", redacted_text(line))));
    if !how.arguments.is_empty() {
        lines.push(format!("    {}", how.arguments.join(" ")));
    }
    Ok(lines)
}

fn afterwards(own: &Postgresql, bootstrap: &Bootstrap) -> Result<Vec<String>, String> {
    let is_custom = |method: &CreateMethod| matches!(method, CreateMethod::Custom(_));
    let mut lines = vec![String::from("\nthen")];
    if bootstrap.methods.iter().any(is_custom) {
        lines.push(String::from(
            "  after a custom method: recovery (local connections need no password meanwhile), its \
             end compared with its target, the superuser's password set, a restart",
        ));
        lines.push(limit("bootstrap.recovery_timeout", bootstrap.recovery_timeout_s));
    }
    if let Some(script) = &bootstrap.post_bootstrap {
        let mut words =
            shlex::split(script).ok_or("bootstrap.post_bootstrap has an open quote: close it")?;
        words.push(script_dsn(&connection(own)));
        lines.push(String::from("post_bootstrap"));
        lines.push(argv(&words));
        lines.push(environment(own, &format!(" PGPASSFILE PGOPTIONS={POST_BOOTSTRAP_OPTIONS:?}")));
        lines.push(limit("bootstrap.post_bootstrap_timeout", bootstrap.post_bootstrap_timeout_s));
    }
    let mut roles = vec![format!("{} (replication)", own.replication.username)];
    roles.extend(own.rewind.as_ref().map(|user| format!("{} (rewind)", user.username)));
    lines.push(format!("roles: {}", roles.join(", ")));
    Ok(lines)
}

/// The first directory of sockets that the file names, where the socket is to be used.
fn socket_dir(own: &Postgresql) -> Option<String> {
    let named =
        own.settings.parameters.get("unix_socket_directories").filter(|_| own.use_unix_socket)?;
    let text = named.as_str()?;
    text.split(',').map(str::trim).find(|dir| dir.starts_with('/')).map(str::to_owned)
}

fn connection(own: &Postgresql) -> Connection {
    Connection {
        host: socket_dir(own).unwrap_or_else(|| local_host(own)),
        port: own.port,
        user: own.superuser.username.clone(),
        password: None,
        database: own.database.clone(),
        options: own.superuser.options.clone(),
        socket: None,
    }
}

fn touched(own: &Postgresql) -> Vec<String> {
    let dir = &own.data_dir;
    let holds = match (dir.exists(), Files::of(None).is_empty(dir)) {
        (false, _) => "is absent and would be made",
        (true, Ok(true)) => "is empty",
        (true, Ok(false)) => "holds files, so no cluster would be created here",
        (true, Err(_)) => "cannot be read",
    };
    let mut paths = vec![
        format!("{} ({holds})", dir.display()),
        format!("{} (until all is done)", beside(dir, ".surus-incomplete").display()),
        format!("{} (during recovery)", trusting_hba(dir).display()),
        format!("{} (what a failed attempt left)", beside(dir, ".failed").display()),
        format!("{} (for post_bootstrap)", own.pgpass.display()),
    ];
    paths.extend(own.config_dir.as_ref().map(|dir| format!("{}/*.conf", dir.display())));
    let rows = paths.into_iter().map(|path| format!("  {path}"));
    std::iter::once(String::from("\npaths touched")).chain(rows).collect()
}

fn space(own: &Postgresql, bootstrap: &Bootstrap) -> Vec<String> {
    let needed = match bootstrap.methods.first() {
        Some(CreateMethod::Custom(method)) => {
            format!("as much as {} restores, and the WAL that is replayed", method.name)
        }
        _ => format!("about {INITDB_MIB} MiB"),
    };
    let free = free_mib(&own.data_dir).map_or("unknown".into(), |mib| format!("{mib} MiB"));
    vec![String::from("\nspace"), format!("  needed: {needed}"), format!("  free: {free}")]
}

/// Where the directory is, or will be.
fn free_mib(dir: &Path) -> Option<u64> {
    let there = dir.ancestors().find(|dir| dir.exists())?;
    let fs = rustix::fs::statvfs(there).ok()?;
    Some(fs.f_bavail.saturating_mul(fs.f_frsize) / MIB)
}
