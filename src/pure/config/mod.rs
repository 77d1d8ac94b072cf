//! The configuration as values: what a Patroni-shaped file means to Surus.
//!
//! Loading (YAML, environment, faults with their lines) is in `load`; this file is only the shape.
use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

mod bootstrap;
pub mod change;
pub mod dynamic;
pub mod effective;
mod env;
pub mod faults;
mod host_port;
#[cfg(test)]
mod keys_tests;
mod load;
pub mod network;
pub mod option;
mod peer_access;
mod postgresql;
pub mod reader;
pub mod redact;
pub mod scalar;
mod sections;
pub mod tags;
pub mod tree;
mod unknown;
mod yaml;

pub use effective::effective;
pub use faults::Fault;
pub use host_port::{HostPort, NotAnAddress};
pub use load::{Reading, find_place, load, read_parts};
pub use peer_access::PeerAccess;
pub use tags::Tags;
pub use yaml::value as yaml_value;

/// libpq keywords that a user of `postgresql.authentication` may carry, besides name and password.
pub const LIBPQ_KEYWORDS: [&str; 10] = [
    "sslmode",
    "sslkey",
    "sslpassword",
    "sslcert",
    "sslrootcert",
    "sslcrl",
    "sslcrldir",
    "gssencmode",
    "channel_binding",
    "sslnegotiation",
];

/// One node's own file, environment applied. Secrets cannot be printed.
#[derive(Clone, Debug, Serialize)]
pub struct Config {
    /// The file it came from, for messages.
    pub path: PathBuf,
    pub scope: String,
    pub namespace: String,
    pub name: String,
    pub log: Log,
    pub restapi: RestApi,
    pub ctl: Ctl,
    pub raft: Raft,
    /// Absent: this node never creates a cluster.
    pub bootstrap: Option<Bootstrap>,
    /// Absent: a witness.
    pub postgresql: Option<Postgresql>,
    pub tags: Tags,
    pub watchdog: Watchdog,
    /// Things worth a warning (unknown keys, sections of other stores), one sentence each.
    pub warnings: Vec<String>,
}

/// Text that never reaches a log, an argv or a dump.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<secret>")
    }
}

impl Serialize for Secret {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str("<secret>")
    }
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Log {
    /// DEBUG, INFO, WARNING, ERROR, CRITICAL as Patroni spells them.
    pub level: String,
    /// `plain` or `json`.
    pub kind: String,
    /// Directory of `surus.log`; standard error when absent.
    pub dir: Option<PathBuf>,
    /// A file of so many bytes becomes `surus.log.1`, and a new one begins.
    pub file_size_bytes: usize,
    /// So many old files are kept.
    pub file_num: usize,
    /// Permission bits of new files; by the umask when absent.
    pub mode: Option<u32>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RestApi {
    pub listen: HostPort,
    pub connect_address: HostPort,
    pub authentication: Option<Credentials>,
    pub http_extra_headers: Map<String, Value>,
    /// CIDRs and host names; empty allows everybody.
    pub allowlist: Vec<String>,
    pub allowlist_include_members: bool,
    /// `original`, `minimal` or `productonly`.
    pub server_tokens: String,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Ctl {
    pub authentication: Option<Credentials>,
    pub insecure: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Credentials {
    pub username: String,
    pub password: Option<Secret>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Raft {
    pub data_dir: PathBuf,
    pub self_addr: HostPort,
    pub bind_addr: HostPort,
    pub partner_addrs: Vec<HostPort>,
    pub password: Option<Secret>,
    /// Without a password everybody is let in; told at every start and in every list.
    pub insecure: bool,
    /// Voters at most; further members stay learners. Default 5.
    pub voters_max: usize,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Bootstrap {
    /// Patroni's `bootstrap.dcs`: the first dynamic configuration.
    pub dcs: Value,
    pub initdb: Vec<CommandOption>,
    pub pg_hba: Vec<String>,
    /// `post_bootstrap`, else `post_init`.
    pub post_bootstrap: Option<String>,
    /// In the order in which they are tried; never empty in a file that was read.
    pub methods: Vec<CreateMethod>,
    /// Seconds, Surus's own keys; absent means as long as it takes.
    pub method_timeout_s: Option<u64>,
    pub recovery_timeout_s: Option<u64>,
    pub post_bootstrap_timeout_s: Option<u64>,
}

/// How the first data of a cluster come about.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CreateMethod {
    Initdb,
    Custom(CustomMethod),
}

impl CreateMethod {
    /// As the file names it.
    pub fn name(&self) -> &str {
        match self {
            CreateMethod::Initdb => "initdb",
            CreateMethod::Custom(method) => &method.name,
        }
    }
}

impl Bootstrap {
    /// The custom method of this name; none is initdb.
    pub fn custom(&self, name: &str) -> Option<&CustomMethod> {
        self.methods.iter().find_map(|method| match method {
            CreateMethod::Custom(method) if method.name == name => Some(method),
            _ => None,
        })
    }
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct CustomMethod {
    pub name: String,
    pub command: String,
    pub no_params: bool,
    pub keep_existing_recovery_conf: bool,
    pub recovery_conf: Option<Map<String, Value>>,
    /// Further keys, in file order, rendered as Patroni renders them.
    pub extra: Vec<(String, String)>,
}

/// `--name` or `--name=value`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct CommandOption {
    pub name: String,
    pub value: Option<String>,
}

impl CommandOption {
    pub fn argument(&self) -> String {
        match &self.value {
            None => format!("--{}", self.name),
            Some(value) => format!("--{}={}", self.name, value),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Postgresql {
    /// Addresses for listen_addresses, `*` allowed.
    pub listen_addresses: String,
    pub port: u16,
    pub connect_address: HostPort,
    pub data_dir: PathBuf,
    /// Absent: PATH, then the distributions' usual places.
    pub bin_dir: Option<PathBuf>,
    pub config_dir: Option<PathBuf>,
    pub database: String,
    pub pgpass: PathBuf,
    pub superuser: PgUser,
    pub replication: PgUser,
    /// Falls back to the superuser.
    pub rewind: Option<PgUser>,
    /// The local file's own keys that merge over the dynamic `postgresql` section:
    /// parameters, pg_hba, pg_ident, use_pg_rewind, remove_data_directory_*, callbacks, recovery_conf …
    pub settings: PostgresSettings,
    pub use_unix_socket: bool,
    pub custom_conf: Option<PathBuf>,
    pub basebackup: Vec<CommandOption>,
    /// Further options of pg_rewind.
    pub rewind_options: Vec<CommandOption>,
    pub create_replica_methods: Vec<ReplicaMethod>,
    /// Sections that describe a method and are not listed: a standby cluster may name them.
    pub spare_methods: Vec<ReplicaMethod>,
}

impl Postgresql {
    /// The methods for a copy, in order. A standby cluster has a list of its own for all nodes, of
    /// names whose sections are in each node's file; without one it is `basebackup`.
    pub fn methods(&self, standby: Option<&StandbyCluster>) -> Vec<ReplicaMethod> {
        let Some(standby) = standby else { return self.create_replica_methods.clone() };
        let names = standby.create_replica_methods.iter();
        let listed: Vec<_> = names.map(|name| self.method(name)).collect();
        if listed.is_empty() { vec![self.method("basebackup")] } else { listed }
    }

    /// The method of this name; without a section the name itself is the command, as in Patroni.
    pub fn method(&self, name: &str) -> ReplicaMethod {
        let mut known = self.create_replica_methods.iter().chain(&self.spare_methods);
        let found = known.find(|method| method.name == name).cloned();
        let command = if name == "basebackup" { "" } else { name }.to_owned();
        found.unwrap_or(ReplicaMethod { name: name.into(), command, ..ReplicaMethod::default() })
    }
}

/// The part of `postgresql` that may also stand in the dynamic configuration.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct PostgresSettings {
    pub parameters: Map<String, Value>,
    pub pg_hba: Option<Vec<String>>,
    pub pg_ident: Option<Vec<String>>,
    pub recovery_conf: Map<String, Value>,
    pub use_pg_rewind: Option<bool>,
    pub use_slots: Option<bool>,
    pub remove_data_directory_on_rewind_failure: Option<bool>,
    pub remove_data_directory_on_diverged_timelines: Option<bool>,
    pub callbacks: Callbacks,
    pub pre_promote: Option<String>,
    pub before_stop: Option<String>,
    /// Seconds to wait for a start; default 60.
    pub pg_ctl_timeout: Option<u64>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Callbacks {
    pub on_start: Option<String>,
    pub on_stop: Option<String>,
    pub on_restart: Option<String>,
    pub on_reload: Option<String>,
    pub on_role_change: Option<String>,
}

#[derive(Clone, Default, PartialEq, Eq, Serialize)]
pub struct PgUser {
    pub username: String,
    pub password: Option<Secret>,
    /// libpq keywords that go into connection strings: sslmode, sslcert, …
    #[serde(serialize_with = "redact::serialize_pairs")]
    pub options: Vec<(String, String)>,
}

impl fmt::Debug for PgUser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PgUser")
            .field("username", &self.username)
            .field("password", &self.password)
            .field("options", &redact::pairs(&self.options))
            .finish()
    }
}

/// One entry of create_replica_methods; `basebackup` is built in.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct ReplicaMethod {
    pub name: String,
    /// Empty for `basebackup`.
    pub command: String,
    pub keep_data: bool,
    pub no_params: bool,
    pub no_leader: bool,
    /// The restore_command that the method's tool writes is kept.
    pub keep_existing_recovery_conf: bool,
    /// All keys but `command` and the one above, in file order, rendered as Patroni renders them.
    pub extra: Vec<(String, String)>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Watchdog {
    /// `off`, `automatic`, `required`.
    pub mode: String,
    pub device: PathBuf,
    /// `None`: nobody wrote one; −1: half the ttl.
    pub safety_margin_s: Option<i64>,
}

/// The dynamic configuration with defaults and limits applied. Times in milliseconds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Dynamic {
    pub ttl_ms: u64,
    pub loop_wait_ms: u64,
    pub retry_timeout_ms: u64,
    pub maximum_lag_on_failover: u64,
    pub check_timeline: bool,
    pub max_timelines_history: usize,
    pub primary_start_timeout_ms: u64,
    pub primary_stop_timeout_ms: u64,
    /// `off`, `on` or `quorum`.
    pub synchronous_mode: SynchronousMode,
    pub synchronous_mode_strict: bool,
    pub synchronous_node_count: u32,
    pub maximum_lag_on_syncnode: i64,
    pub member_slots_ttl_ms: u64,
    pub postgresql: PostgresSettings,
    /// Physical slots of the operator's own.
    pub permanent_slots: Vec<PermanentSlot>,
    /// Physical slots that Surus leaves alone.
    pub ignored_slots: Vec<IgnoredSlot>,
    /// Present and active: this is a standby cluster.
    pub standby_cluster: Option<StandbyCluster>,
    /// Its section was taken out, and the cluster follows until it may be promoted.
    pub leaves_standby: bool,
    /// What had to be adjusted, one sentence each.
    pub warnings: Vec<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SynchronousMode {
    #[default]
    Off,
    On,
    Quorum,
}

/// A physical slot that is kept on the leader, whoever that is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PermanentSlot {
    pub name: String,
    /// `cluster_type`: only in a standby cluster, or only in a primary one; nothing means both.
    pub in_standby_cluster: Option<bool>,
}

/// Of `ignore_slots`: a rule that covers physical slots.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct IgnoredSlot {
    /// Nothing means every one.
    pub name: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StandbyCluster {
    pub host: Option<String>,
    pub port: Option<u16>,
    pub primary_slot_name: Option<String>,
    /// Names; their sections are in each node's `postgresql`.
    pub create_replica_methods: Vec<String>,
    pub restore_command: Option<String>,
    pub archive_cleanup_command: Option<String>,
    pub recovery_min_apply_delay: Option<String>,
}

impl StandbyCluster {
    /// The hosts in the order in which they are tried; none where only an archive is followed.
    pub fn hosts(&self) -> Vec<HostPort> {
        let port = self.port.unwrap_or(5432);
        let names = self.host.iter().flat_map(|list| list.split(',')).map(str::trim);
        let names = names.filter(|name| !name.is_empty());
        names.map(|host| HostPort { host: host.to_owned(), port }).collect()
    }

    /// Whom it follows, for people and for comparing: `a,b:5432`, or the archive.
    pub fn address(&self) -> String {
        match &self.host {
            Some(host) => format!("{host}:{}", self.port.unwrap_or(5432)),
            None => String::from("(the archive)"),
        }
    }
}
