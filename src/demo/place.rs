//! The demo's directory: who may use it, what must hold before, what lies in it after.
//!
//! Everything that can refuse is asked before anything is made; what was made by a start that
//! then failed is taken away again. Only a directory with our marker is ever emptied.
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Error, Result, bail, ensure};
use rustix::fs::{Access, FlockOperation};
use serde::{Deserialize, Serialize};

use super::plan::{NODES_MAX, Passwords, Plan, Ports};
use super::{DemoArgs, binaries, leftover};
use crate::host::postgres::account::Account;

/// Carries the plan of the cluster, and the lock of the demo that runs it.
const MARKER: &str = ".surus-demo";
const PASSWORDS: &str = "passwords.json";

/// Three fresh clusters with some WAL need about 200 MiB; less than this is asking for trouble.
const FREE_BYTES_MIN: u64 = 500 << 20;

/// What the marker remembers from the first start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Marker {
    about: String,
    nodes: u16,
    ports: Ports,
    bin_dir: PathBuf,
}

/// A prepared directory; the lock lasts as long as this.
pub struct Place {
    pub plan: Plan,
    /// What had to be done first, one sentence each.
    pub notes: Vec<String>,
    default_dir: bool,
    _lock: File,
}

impl Place {
    /// All checks, then the files. An error is one sentence, and nothing is left behind.
    pub fn prepare(args: &DemoArgs) -> Result<Place> {
        check_arguments(args)?;
        let dir = std::path::absolute(match &args.dir {
            Some(dir) => dir.clone(),
            None => default_dir()?,
        })?;
        let held = existing(&dir)?;
        let kept = held.as_ref().map(|(_, marker)| marker).filter(|_| !args.fresh);
        let owner = postgres_account()?;
        check_reachable(&dir, owner.as_ref())?;
        let mut plan = plan(args, &dir, kept)?;
        if let (Some((_, earlier)), None) = (&held, args.base_port) {
            plan.ports = earlier.ports;
        }
        let mut notes = Vec::new();
        if let Some((_, marker)) = &held {
            notes.extend(clear_the_way(&plan, marker, args.fresh));
        }
        check_ports(&plan)?;
        if args.fresh && held.is_some() {
            remove_cluster(&dir)?;
            notes.push(format!("Removed the earlier demo cluster in {}.", dir.display()));
        }
        let lock = establish(&plan, held.map(|(lock, _)| lock), owner.as_ref())?;
        Ok(Place { plan, notes, default_dir: args.dir.is_none(), _lock: lock })
    }

    /// What to repeat on the command line to come back here.
    pub fn dir_argument(&self) -> String {
        let dir = self.plan.dir.display();
        if self.default_dir { String::new() } else { format!(" --dir {dir}") }
    }
}

fn check_arguments(args: &DemoArgs) -> Result<()> {
    if let Some(nodes) = args.nodes {
        ensure!((1..=NODES_MAX).contains(&nodes), "--nodes {nodes}: between 1 and {NODES_MAX}");
    }
    if let Some(base) = args.base_port {
        ensure!((1024..=65500).contains(&base), "--base-port {base}: between 1024 and 65500");
    }
    Ok(())
}

fn default_dir() -> Result<PathBuf> {
    if rustix::process::geteuid().is_root() {
        return Ok(PathBuf::from("/var/lib/surus-demo"));
    }
    let absolute =
        |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    absolute("XDG_STATE_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".local/state")))
        .map(|state| state.join("surus-demo"))
        .context("neither XDG_STATE_HOME nor HOME is set; say where with --dir")
}

/// The marker of a demo that was here before, locked; `None` for a new or an empty directory.
fn existing(dir: &Path) -> Result<Option<(File, Marker)>> {
    let path = dir.join(MARKER);
    match OpenOptions::new().read(true).write(true).open(&path) {
        Ok(file) => {
            lock(&file, dir)?;
            let marker = serde_json::from_reader(&file).with_context(|| {
                format!("{} is damaged; remove {} yourself", path.display(), dir.display())
            })?;
            Ok(Some((file, marker)))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let mut entries = fs::read_dir(dir).into_iter().flatten();
            ensure!(
                entries.next().is_none(),
                "{} is not empty and no demo directory (it has no {MARKER}); choose another --dir",
                dir.display()
            );
            Ok(None)
        }
        Err(error) => Err(error).with_context(|| format!("cannot open {}", path.display())),
    }
}

fn lock(file: &File, dir: &Path) -> Result<()> {
    rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive)
        .ok()
        .with_context(|| format!("another `surus demo` runs in {}", dir.display()))
}

/// Whom PostgreSQL runs as; `None` when that is ourselves.
fn postgres_account() -> Result<Option<Account>> {
    let root = rustix::process::geteuid().is_root();
    root.then(|| Account::by_name("postgres").map_err(Error::msg)).transpose()
}

/// Can we write there, is there room, and can PostgreSQL's user get in?
fn check_reachable(dir: &Path, owner: Option<&Account>) -> Result<()> {
    let ground = dir.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    ensure!(ground.is_dir(), "{} is not a directory; choose another --dir", ground.display());
    if let Err(error) = rustix::fs::access(ground, Access::WRITE_OK | Access::EXEC_OK) {
        bail!("cannot write in {} ({error}); choose another --dir", ground.display());
    }
    let space = rustix::fs::statvfs(ground)
        .with_context(|| format!("cannot ask for the free space of {}", ground.display()))?;
    let free = space.f_bavail * space.f_frsize;
    ensure!(
        free >= FREE_BYTES_MIN,
        "only {} MiB are free in {}, the demo needs {}; choose another --dir",
        free >> 20,
        ground.display(),
        FREE_BYTES_MIN >> 20
    );
    let closed = owner.and_then(|owner| {
        ground.ancestors().find(|path| fs::metadata(path).is_ok_and(|m| !may_enter(&m, owner)))
    });
    match closed {
        Some(path) => bail!(
            "PostgreSQL runs as user postgres, who may not enter {}; choose another --dir",
            path.display()
        ),
        None => Ok(()),
    }
}

fn may_enter(directory: &fs::Metadata, owner: &Account) -> bool {
    let bit = match (directory.uid() == owner.uid, directory.gid() == owner.gid) {
        (true, _) => 0o100,
        (false, true) => 0o010,
        (false, false) => 0o001,
    };
    directory.mode() & bit != 0
}

/// What was planned at the first start holds; only more nodes can be asked for later.
fn plan(args: &DemoArgs, dir: &Path, kept: Option<&Marker>) -> Result<Plan> {
    let wanted_ports = args.base_port.map(Ports::from_base);
    if let Some(marker) = kept {
        let here = format!("{} holds a demo cluster", dir.display());
        let out = "--fresh starts over, another --dir starts a second one";
        if let Some(nodes) = args.nodes.filter(|nodes| *nodes < marker.nodes) {
            bail!("{here} of {} nodes, not {nodes}: {out}", marker.nodes);
        }
        if wanted_ports.is_some_and(|ports| ports != marker.ports) {
            bail!("{here} on base port {}: {out}", marker.ports.postgresql);
        }
    }
    let recorded = kept.map(|marker| marker.bin_dir.clone());
    let wanted = args.bin_dir.as_ref().map(std::path::absolute).transpose()?;
    if let Some((wanted, recorded)) = wanted.as_ref().zip(recorded.as_ref()) {
        let (dir, recorded, same) = (dir.display(), recorded.display(), wanted == recorded);
        ensure!(same, "{dir} holds a demo cluster that runs with {recorded}: --fresh starts over");
    }
    let passwords = kept.map(|_| Passwords::load(&dir.join(PASSWORDS))).transpose()?.flatten();
    let mut plan = Plan {
        dir: dir.to_path_buf(),
        nodes: args.nodes.or(kept.map(|marker| marker.nodes)).unwrap_or(3),
        ports: kept.map(|marker| marker.ports).or(wanted_ports).unwrap_or_default(),
        bin_dir: wanted.or(recorded),
        version: 0,
        passwords: passwords.map_or_else(Passwords::draw, Ok)?,
    };
    let binaries = binaries::find(&plan)?;
    plan.version = binaries.major;
    plan.bin_dir = Some(binaries.dir);
    Ok(plan)
}

/// Daemons of an earlier demo end; its PostgreSQLs only if their data is about to go.
fn clear_the_way(plan: &Plan, marker: &Marker, fresh: bool) -> Vec<String> {
    let earlier = Plan { nodes: marker.nodes.max(plan.nodes), ..plan.clone() };
    let mut notes: Vec<String> = leftover::stop_daemons(&earlier).into_iter().collect();
    if fresh {
        notes.extend(leftover::stop_servers(&earlier));
    }
    notes
}

fn check_ports(plan: &Plan) -> Result<()> {
    let mut taken = Vec::new();
    for (k, node) in plan.names().iter().enumerate() {
        let ports = plan.ports_of(k as u16);
        let own_server = leftover::postmaster(&plan.data(node)).is_some();
        let all = [("PostgreSQL", ports.postgresql), ("REST", ports.rest), ("Raft", ports.raft)];
        for (what, port) in all {
            let adopted = own_server && what == "PostgreSQL";
            if !adopted && TcpListener::bind(("127.0.0.1", port)).is_err() {
                taken.push(format!("{port} ({what} of {node})"));
            }
        }
    }
    ensure!(
        taken.is_empty(),
        "ports in use on 127.0.0.1: {}; move the demo with --base-port",
        taken.join(", ")
    );
    Ok(())
}

/// Only what a demo makes, never the directory's other content.
fn remove_cluster(dir: &Path) -> Result<()> {
    for k in 1..=NODES_MAX {
        remove(&dir.join(format!("n{k}")))?;
    }
    remove(&dir.join(PASSWORDS))
}

fn remove(path: &Path) -> Result<()> {
    let done = match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match done {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        other => other.with_context(|| format!("cannot remove {}", path.display())),
    }
}

/// Makes what is missing. A failure takes away what this start has made.
fn establish(plan: &Plan, held: Option<File>, owner: Option<&Account>) -> Result<File> {
    let new = held.is_none();
    let first_made = plan.dir.ancestors().take_while(|path| !path.exists()).last();
    let made = make(plan, held, owner);
    if made.is_err() && new {
        let _ = remove_cluster(&plan.dir);
        let _ = fs::remove_file(plan.dir.join(MARKER));
        let _ = first_made.map(fs::remove_dir_all);
    }
    made
}

fn make(plan: &Plan, held: Option<File>, owner: Option<&Account>) -> Result<File> {
    let at = |path: &Path| format!("cannot create {}", path.display());
    fs::create_dir_all(&plan.dir).with_context(|| at(&plan.dir))?;
    let path = plan.dir.join(MARKER);
    let mut file = match held {
        Some(file) => file,
        None => {
            let file = File::options().write(true).create_new(true).open(&path);
            let file = file.with_context(|| at(&path))?;
            lock(&file, &plan.dir)?;
            file
        }
    };
    write_marker(&mut file, plan).with_context(|| at(&path))?;
    let passwords = serde_json::to_string_pretty(&plan.passwords).context("passwords as JSON")?;
    write_private(&plan.dir.join(PASSWORDS), &passwords)?;
    for k in 0..plan.nodes {
        make_node(plan, k, owner)?;
    }
    Ok(file)
}

fn write_marker(file: &mut File, plan: &Plan) -> std::io::Result<()> {
    use std::io::Seek;
    let marker = Marker {
        about: "Made by `surus demo`; `surus demo --fresh` may remove what lies beside this."
            .into(),
        nodes: plan.nodes,
        ports: plan.ports,
        bin_dir: plan.bin_dir.clone().unwrap_or_default(),
    };
    file.set_len(0)?;
    file.rewind()?;
    file.write_all(serde_json::to_string_pretty(&marker)?.as_bytes())
}

/// As root, the node's directory belongs to PostgreSQL's user and its configuration to root.
fn make_node(plan: &Plan, k: u16, owner: Option<&Account>) -> Result<()> {
    let node = format!("n{}", k + 1);
    for dir in [plan.node_dir(&node), plan.data(&node)] {
        if dir.is_dir() {
            continue;
        }
        fs::create_dir(&dir)
            .and_then(|()| fs::set_permissions(&dir, fs::Permissions::from_mode(0o700)))
            .and_then(|()| owner.map_or(Ok(()), |account| account.own(&dir)))
            .with_context(|| format!("cannot create {}", dir.display()))?;
    }
    let config = plan.config(&node);
    if config.exists() { Ok(()) } else { write_private(&config, &plan.yaml(k)?) }
}

/// Readable by us alone; replaces what was there in one step.
fn write_private(path: &Path, text: &str) -> Result<()> {
    let draft = path.with_extension("new");
    let written = File::options().write(true).create(true).truncate(true).mode(0o600).open(&draft);
    written
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .and_then(|()| fs::rename(&draft, path))
        .with_context(|| format!("cannot write {}", path.display()))
}
