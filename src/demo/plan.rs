//! What the demo is going to run: nodes, ports, files, and each node's configuration.
//!
//! The configuration is ordinary: the file of a node on a server of its own has the same keys.
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// More nodes than this would need wider gaps between the three ranges of ports.
pub const NODES_MAX: u16 = 9;

/// The first port of each range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ports {
    pub postgresql: u16,
    pub rest: u16,
    pub raft: u16,
}

impl Default for Ports {
    fn default() -> Ports {
        Ports { postgresql: 5442, rest: 8018, raft: 2390 }
    }
}

impl Ports {
    /// All three ranges next to each other; `base` must leave room for them below 65536.
    pub fn from_base(base: u16) -> Ports {
        Ports { postgresql: base, rest: base + 10, raft: base + 20 }
    }
}

/// Drawn once per demo directory; the nodes must agree on all of them.
#[derive(Clone, Serialize, Deserialize)]
pub struct Passwords {
    pub superuser: String,
    pub replication: String,
    pub rewind: String,
    pub restapi: String,
    pub raft: String,
}

/// The whole cluster as values.
#[derive(Clone)]
pub struct Plan {
    pub dir: PathBuf,
    pub nodes: u16,
    pub ports: Ports,
    /// Absent only while it is being looked for.
    pub bin_dir: Option<PathBuf>,
    /// Major version of the programs in `bin_dir`.
    pub version: u32,
    pub passwords: Passwords,
}

impl Plan {
    /// `n1`, `n2`, … in the order of their ports.
    pub fn names(&self) -> Vec<String> {
        (1..=self.nodes).map(|k| format!("n{k}")).collect()
    }

    pub fn node_dir(&self, node: &str) -> PathBuf {
        self.dir.join(node)
    }

    pub fn data(&self, node: &str) -> PathBuf {
        self.node_dir(node).join("data")
    }

    pub fn config(&self, node: &str) -> PathBuf {
        self.node_dir(node).join("surus.yml")
    }

    pub fn log(&self, node: &str) -> PathBuf {
        self.node_dir(node).join("surus.log")
    }

    /// Port of the `k`th node, counted from 0, in each range.
    pub fn ports_of(&self, k: u16) -> Ports {
        let Ports { postgresql, rest, raft } = self.ports;
        Ports { postgresql: postgresql + k, rest: rest + k, raft: raft + k }
    }

    /// How to get in, once there is something to get into.
    pub fn invitation(&self) -> String {
        let hosts = vec!["127.0.0.1"; usize::from(self.nodes)].join(",");
        let ports: Vec<String> =
            (0..self.nodes).map(|k| self.ports_of(k).postgresql.to_string()).collect();
        format!(
            "Try:  psql \"host={hosts} port={} user=postgres password={} dbname=postgres \
             target_session_attrs=read-write\"\n      {} ctl -c {} list\n      \
             and kill any process you like.",
            ports.join(","),
            self.passwords.superuser,
            std::env::args().next().unwrap_or_else(|| "surus".into()),
            self.config("n1").display(),
        )
    }

    /// The text of a node's `surus.yml`.
    pub fn yaml(&self, k: u16) -> Result<String> {
        let body = serde_saphyr::to_string(&self.configuration(k))
            .context("cannot write the configuration as YAML")?;
        Ok(format!("# Written by `surus demo` once; from then on it is yours to edit.\n{body}"))
    }

    fn configuration(&self, k: u16) -> Value {
        let name = format!("n{}", k + 1);
        let ports = self.ports_of(k);
        let at = |port: u16| format!("127.0.0.1:{port}");
        let partners: Vec<String> =
            (0..self.nodes).filter(|j| *j != k).map(|j| at(self.ports_of(j).raft)).collect();
        json!({
            "scope": "demo",
            "name": name,
            "restapi": {
                "listen": at(ports.rest),
                "connect_address": at(ports.rest),
                "authentication": login("surus", &self.passwords.restapi),
            },
            "raft": {
                "self_addr": at(ports.raft),
                "partner_addrs": partners,
                "data_dir": self.node_dir(&name).join("raft"),
                "password": self.passwords.raft,
            },
            "bootstrap": bootstrap(),
            "postgresql": self.postgresql(&name, &at(ports.postgresql)),
            "watchdog": { "mode": "off" },
        })
    }

    fn postgresql(&self, name: &str, address: &str) -> Value {
        let mut section = json!({
            "listen": address,
            "connect_address": address,
            "data_dir": self.data(name),
            "pgpass": self.node_dir(name).join("pgpass"),
            "authentication": {
                "superuser": login("postgres", &self.passwords.superuser),
                "replication": login("replicator", &self.passwords.replication),
                "rewind": login("rewinder", &self.passwords.rewind),
            },
            // The distribution's socket directory may be somebody else's, and TCP is enough here.
            "parameters": { "unix_socket_directories": "" },
        });
        if let Some(dir) = &self.bin_dir {
            section["bin_dir"] = json!(dir);
        }
        section
    }
}

fn login(username: &str, password: &str) -> Value {
    json!({ "username": username, "password": password })
}

/// The timings are the defaults: a visitor sees what a cluster of one's own would do.
fn bootstrap() -> Value {
    json!({
        "dcs": {
            "postgresql": {
                "use_pg_rewind": true,
                "use_slots": true,
                "parameters": { "shared_buffers": "32MB", "max_wal_size": "256MB" },
            },
        },
        "initdb": [{ "encoding": "UTF8" }, { "locale": "C" }, "data-checksums"],
        "pg_hba": [
            "host replication replicator 127.0.0.1/32 scram-sha-256",
            "host all all 127.0.0.1/32 scram-sha-256",
        ],
    })
}

/// 32 hexadecimal digits from the kernel.
pub fn draw_password() -> Result<String> {
    use std::io::Read;
    let mut bytes = [0; 16];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut source| source.read_exact(&mut bytes))
        .context("cannot read random bytes from /dev/urandom")?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

impl Passwords {
    pub fn draw() -> Result<Passwords> {
        Ok(Passwords {
            superuser: draw_password()?,
            replication: draw_password()?,
            rewind: draw_password()?,
            restapi: draw_password()?,
            raft: draw_password()?,
        })
    }

    /// The directory's own, or `None` where there is none yet.
    pub fn load(path: &Path) -> Result<Option<Passwords>> {
        match std::fs::read(path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map(Some)
                .with_context(|| format!("{} is damaged; --fresh starts over", path.display())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> Plan {
        Plan {
            dir: PathBuf::from("/d"),
            nodes: 3,
            ports: Ports::from_base(7000),
            bin_dir: Some(PathBuf::from("/pg/bin")),
            version: 15,
            passwords: Passwords::draw().expect("random bytes"),
        }
    }

    #[test]
    fn the_file_reads_back_as_it_was_meant() {
        let plan = plan();
        let text = plan.yaml(1).expect("it can be written");
        let read: Value = serde_saphyr::from_str(&text).expect("it is YAML");
        assert_eq!(read["name"], "n2");
        assert_eq!(read["raft"]["self_addr"], "127.0.0.1:7021");
        assert_eq!(read["raft"]["partner_addrs"], json!(["127.0.0.1:7020", "127.0.0.1:7022"]));
        assert_eq!(read["postgresql"]["data_dir"], "/d/n2/data");
        assert_eq!(read["bootstrap"]["initdb"][2], "data-checksums");
        assert_eq!(
            read["postgresql"]["authentication"]["superuser"]["password"],
            plan.passwords.superuser
        );
    }

    #[test]
    fn a_node_reads_its_file_without_a_word() {
        let plan = plan();
        for k in 0..plan.nodes {
            let text = plan.yaml(k).expect("it can be written");
            let env = std::collections::BTreeMap::new();
            let config = crate::pure::config::load(Path::new("surus.yml"), &text, &env);
            let config = config.expect("it has no faults");
            assert_eq!(config.warnings, Vec::<String>::new());
            assert_eq!(config.watchdog.mode, "off");
        }
    }

    #[test]
    fn no_port_is_used_twice() {
        let mut plan = plan();
        for ports in [Ports::default(), Ports::from_base(7000)] {
            plan.ports = ports;
            plan.nodes = NODES_MAX;
            let all: Vec<Ports> = (0..plan.nodes).map(|k| plan.ports_of(k)).collect();
            let mut flat: Vec<u16> =
                all.iter().flat_map(|p| [p.postgresql, p.rest, p.raft]).collect();
            flat.sort_unstable();
            flat.dedup();
            assert_eq!(flat.len(), 27);
        }
    }

    #[test]
    fn the_invitation_names_every_port() {
        assert!(plan().invitation().contains("port=7000,7001,7002 "), "{}", plan().invitation());
    }
}
