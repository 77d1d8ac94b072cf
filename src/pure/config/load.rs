//! From text and environment to a configuration, or to everything that is wrong with it.
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::faults::{Fault, Place, Report};
use super::reader::Section;
use super::tree::{self, Node};
use super::yaml;
use super::{Config, bootstrap, env, postgresql, sections, tags, unknown};
use crate::pure::postgres::slot;

/// What reading a configuration gave: the value, if it is usable, and everything to say about it.
#[derive(Debug, Default)]
pub struct Reading {
    /// Present exactly if there are no faults.
    pub config: Option<Config>,
    pub faults: Vec<Fault>,
    pub warnings: Vec<Fault>,
}

/// Reads one file's text with the environment laid over it. All faults come at once.
pub fn load(path: &Path, text: &str, env: &BTreeMap<String, String>) -> Result<Config, Vec<Fault>> {
    let reading = read_parts(path, &[(path.display().to_string(), text.to_string())], env);
    reading.config.ok_or(reading.faults)
}

/// Reads several texts, later ones over earlier ones, with the environment over all. `path` is
/// what was asked for; each part carries its own name for messages.
pub fn read_parts(
    path: &Path,
    parts: &[(String, String)],
    env: &BTreeMap<String, String>,
) -> Reading {
    let report = Report::default();
    let config = merged(path, parts, &report).map(|mut tree| {
        env::apply(&mut tree, env, &report);
        unknown::check(&tree, &report);
        read(path, &Section::top(&tree, &report), env)
    });
    let (faults, warnings) = report.finish();
    let config = config.filter(|_| faults.is_empty()).map(|mut config| {
        config.warnings = warnings.iter().map(Fault::to_string).collect();
        config
    });
    Reading { config, faults, warnings }
}

/// Where `key` (a dotted path) stands in these texts; its section's place if it is absent.
pub fn find_place(parts: &[(String, String)], key: &str) -> Option<Place> {
    let mut best: Option<(usize, Place)> = None;
    for (name, text) in parts {
        let Ok(tree) = yaml::parse(&Arc::from(name.as_str()), text, &Report::default()) else {
            continue;
        };
        let mut node = &tree;
        for (depth, part) in key.split('.').enumerate() {
            let Some(next) = node.get(part) else { break };
            node = next;
            if best.as_ref().is_none_or(|(deepest, _)| depth >= *deepest) {
                best = Some((depth, node.place.clone()));
            }
        }
    }
    best.map(|(_, place)| place)
}

/// All parts as one tree; absent when one of them cannot be read at all.
fn merged(path: &Path, parts: &[(String, String)], report: &Report) -> Option<Node> {
    let whole: Arc<str> = Arc::from(path.display().to_string());
    let mut tree: Option<Node> = None;
    for (name, text) in parts {
        let part = yaml::parse(&Arc::from(name.as_str()), text, report).and_then(|node| {
            let map = matches!(node.kind, tree::Kind::Map(_));
            let message = "the configuration must be a map of keys such as `scope: NAME`";
            if map { Ok(node) } else { Err(Fault::new(&node.place, "", message)) }
        });
        match (part, &mut tree) {
            (Err(fault), _) => {
                report.fault(fault);
                return None;
            }
            (Ok(node), Some(tree)) => tree.merge(node),
            (Ok(node), None) => tree = Some(node),
        }
    }
    if tree.is_none() {
        let message = "there is no configuration here; a directory must hold *.yml files";
        report.fault(Fault::new(&Place::new(&whole, None), "", message));
    }
    tree
}

fn read(path: &Path, top: &Section, env: &BTreeMap<String, String>) -> Config {
    let raft = raft(top);
    let restapi_section = top.child("restapi");
    let restapi = sections::restapi(&restapi_section);
    sections::check_loopback(
        &restapi_section,
        "connect_address",
        &restapi.connect_address.host,
        &raft,
    );
    let postgresql_section = top.child("postgresql");
    let postgresql =
        postgresql_section.present().then(|| postgresql::read(&postgresql_section, env));
    if let Some(postgresql) = &postgresql {
        let host = &postgresql.connect_address.host;
        sections::check_loopback(&postgresql_section, "connect_address", host, &raft);
    }
    name_witness(top);
    if let Some(postgresql) = &postgresql {
        check_directories(&postgresql_section, &postgresql.data_dir, &raft.data_dir);
    }
    let bootstrap = top.child("bootstrap");
    Config {
        path: path.to_path_buf(),
        scope: top.required_text("scope", "batman"),
        namespace: top.text("namespace").unwrap_or_else(|| "/service".into()),
        name: name(top),
        log: sections::log(&top.child("log")),
        ctl: sections::ctl(&top.child("ctl"), &restapi),
        restapi,
        raft,
        bootstrap: top.mentions("bootstrap").then(|| bootstrap::read(&bootstrap)),
        postgresql,
        tags: tags::read(&top.child("tags")),
        watchdog: sections::watchdog(&top.child("watchdog")),
        warnings: Vec::new(),
    }
}

/// The data directory is emptied before a copy and belongs to PostgreSQL: ours must not lie in it.
fn check_directories(postgresql: &Section, data_dir: &Path, raft_dir: &Path) {
    if raft_dir.starts_with(data_dir) && !data_dir.as_os_str().is_empty() {
        let message = "holds raft.data_dir, or is it; name a directory of its own for each";
        postgresql.fault("data_dir", message);
    }
}

/// A section without keys may be a slip of the hand; without it the node is another one.
fn name_witness(top: &Section) {
    if top.mentions("postgresql") && top.get("postgresql").is_none() {
        let message = "is empty, so this node is a witness without PostgreSQL; remove the key if \
                       that is meant";
        top.warn("postgresql", message);
    }
}

fn raft(top: &Section) -> super::Raft {
    let section = top.child("raft");
    if !section.present() {
        let message = "is missing; Surus keeps the cluster's state itself: add data_dir, \
                       self_addr and partner_addrs below it";
        top.fault("raft", message);
        return super::Raft::default();
    }
    sections::raft(&section)
}

fn name(top: &Section) -> String {
    let name = top.required_text("name", "node1");
    if name == "__patroni_strict_sync_replica_placeholder__" {
        top.fault("name", "is a reserved name; choose another");
    }
    if name.contains(|c: char| c.is_control() || c == '/' || c == ',') {
        top.fault("name", "must not contain `/`, `,` or control characters; choose another");
    }
    if let Some(why) = slot::unfit_name(&name) {
        top.fault("name", why);
    }
    name
}
