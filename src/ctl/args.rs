//! What can be typed.
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Look at a cluster and change it.
#[derive(Parser, Debug)]
#[command(disable_version_flag = true)]
pub struct Arguments {
    /// Configuration file; default ~/.config/patroni/patronictl.yaml
    #[arg(short = 'c', long, env = "PATRONICTL_CONFIG_FILE", value_name = "FILE")]
    pub config_file: Option<PathBuf>,
    /// Address of any member's REST interface, host:port, instead of the configuration's
    #[arg(
        short = 'd',
        long = "dcs-url",
        visible_alias = "dcs",
        env = "DCS_URL",
        value_name = "URL"
    )]
    pub dcs_url: Option<String>,
    /// Accepted as patronictl has it; without TLS there is no certificate to check
    #[arg(short = 'k', long)]
    pub insecure: bool,
    #[command(subcommand)]
    pub task: Task,
}

#[derive(Subcommand, Debug)]
pub enum Task {
    /// List the members of a cluster
    List(List),
    /// Show who replicates from whom
    Topology(Topology),
    /// Hand the leadership over in an orderly way
    Switchover(Switchover),
    /// Promote a candidate, also without a leader
    Failover(Failover),
    /// Restart PostgreSQL on members
    Restart(Restart),
    /// Rebuild the data directory of a replica
    Reinit(Reinit),
    /// Let members read their configuration files again
    Reload(Reload),
    /// Discard scheduled restarts or a scheduled switchover
    Flush(Flush),
    /// Print the dynamic configuration
    ShowConfig(Cluster),
    /// Edit the dynamic configuration
    EditConfig(EditConfig),
    /// Show timelines and how they came about
    History(History),
    /// Print a connection string
    Dsn(Dsn),
    /// Print versions
    Version(Version),
    /// Print the value of one of Patroni's store keys
    DcsGet(DcsGet),
    /// Make a standby cluster a primary cluster
    PromoteCluster(PromoteCluster),
    /// Make a primary cluster follow another one
    DemoteCluster(DemoteCluster),
    /// Show who votes and what may still fail; remove a member that is lost for good
    Members(Members),
    /// Not built yet
    Pause(Pause),
    /// Not built yet
    Resume(Pause),
    /// Not built yet
    #[command(hide = true, alias = "query")]
    Remove(NotBuilt),
}

#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Members {
    /// Name of the cluster; default: the configuration's scope
    pub cluster: Option<String>,
    #[arg(short, long, value_enum, default_value_t)]
    pub format: Format,
    #[command(subcommand)]
    pub task: Option<MembersTask>,
}

#[derive(Subcommand, Debug)]
pub enum MembersTask {
    /// Take a member that is dead for good out of the cluster: its vote, and its place
    Remove(RemoveMember),
}

#[derive(Args, Debug)]
pub struct RemoveMember {
    /// The member's name
    pub name: String,
    /// Succeed where there is no such member
    #[arg(long)]
    pub if_exists: bool,
    /// Only say whether it may be removed
    #[arg(long)]
    pub dry_run: bool,
    /// Ask nothing
    #[arg(long)]
    pub force: bool,
}

/// Whatever follows a command that does not exist yet.
#[derive(Args, Debug)]
pub struct NotBuilt {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub words: Vec<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    #[default]
    Pretty,
    Tsv,
    Json,
    #[value(alias = "yml")]
    Yaml,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum RoleChoice {
    Leader,
    Primary,
    StandbyLeader,
    Replica,
    Standby,
    Any,
}

#[derive(Args, Debug)]
pub struct Cluster {
    /// Name of the cluster; default: the configuration's scope
    pub cluster: Option<String>,
}

#[derive(Args, Debug)]
pub struct Watch {
    /// Show again every two seconds
    #[arg(short = 'W')]
    pub watch_two: bool,
    /// Show again every SECONDS
    #[arg(short = 'w', long, value_name = "SECONDS")]
    pub watch: Option<f64>,
}

#[derive(Args, Debug)]
pub struct List {
    pub clusters: Vec<String>,
    /// Show columns that are empty
    #[arg(short, long)]
    pub extended: bool,
    /// Print the time first
    #[arg(short, long)]
    pub timestamp: bool,
    #[arg(short, long, value_enum, default_value_t)]
    pub format: Format,
    #[command(flatten)]
    pub watch: Watch,
}

#[derive(Args, Debug)]
pub struct Topology {
    pub clusters: Vec<String>,
    #[command(flatten)]
    pub watch: Watch,
}

#[derive(Args, Debug)]
pub struct Switchover {
    pub cluster: Option<String>,
    /// The current leader
    #[arg(long, visible_alias = "primary")]
    pub leader: Option<String>,
    /// Who is to lead
    #[arg(long)]
    pub candidate: Option<String>,
    /// When: ISO 8601, or `now`
    #[arg(long)]
    pub scheduled: Option<String>,
    /// Ask nothing
    #[arg(long)]
    pub force: bool,
}

#[derive(Args, Debug)]
pub struct Failover {
    pub cluster: Option<String>,
    #[arg(long)]
    pub candidate: Option<String>,
    /// Ask nothing
    #[arg(long)]
    pub force: bool,
}

#[derive(Args, Debug)]
pub struct Chosen {
    pub cluster: Option<String>,
    pub members: Vec<String>,
    /// Only members of this role
    #[arg(short, long, value_enum)]
    pub role: Option<RoleChoice>,
    /// Ask nothing
    #[arg(long)]
    pub force: bool,
}

#[derive(Args, Debug)]
pub struct Restart {
    #[command(flatten)]
    pub chosen: Chosen,
    /// One member only, whichever
    #[arg(long)]
    pub any: bool,
    /// When: ISO 8601, or `now`
    #[arg(long)]
    pub scheduled: Option<String>,
    /// Only where PostgreSQL is older than this
    #[arg(long)]
    pub pg_version: Option<String>,
    /// Only where a restart is pending
    #[arg(long)]
    pub pending: bool,
    /// How long the start may take: seconds, or with a unit
    #[arg(long)]
    pub timeout: Option<String>,
}

#[derive(Args, Debug)]
pub struct Reinit {
    pub cluster: Option<String>,
    pub members: Vec<String>,
    /// Ask nothing, and cancel what is running
    #[arg(long)]
    pub force: bool,
    /// Copy from the leader
    #[arg(long)]
    pub from_leader: bool,
    /// Only by this one of the member's create_replica_methods
    #[arg(long)]
    pub method: Option<String>,
    /// Only from this member
    #[arg(long, value_name = "MEMBER")]
    pub source: Option<String>,
    /// Leave the data where it is, for a method that only brings what differs
    #[arg(long)]
    pub keep_data: bool,
    /// Call off a reinitialize that is under way
    #[arg(long, conflicts_with_all = ["from_leader", "method", "source", "keep_data", "wait"])]
    pub cancel: bool,
    /// Wait until the build has ended
    #[arg(long)]
    pub wait: bool,
}

#[derive(Args, Debug)]
pub struct Reload {
    #[command(flatten)]
    pub chosen: Chosen,
}

#[derive(Args, Debug)]
pub struct Flush {
    pub cluster: String,
    /// Members, then `restart` or `switchover`
    #[arg(required = true)]
    pub words: Vec<String>,
    #[arg(short, long, value_enum)]
    pub role: Option<RoleChoice>,
    /// Ask nothing
    #[arg(long)]
    pub force: bool,
}

#[derive(Args, Debug)]
pub struct EditConfig {
    pub cluster: Option<String>,
    /// Do not print the difference
    #[arg(short, long)]
    pub quiet: bool,
    /// Set a key: ttl=30, or a.b=value
    #[arg(short, long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Set a PostgreSQL parameter: work_mem=64MB
    #[arg(short, long = "pg", value_name = "NAME=VALUE")]
    pub pg: Vec<String>,
    /// Merge a YAML file, - for standard input
    #[arg(long, value_name = "FILE")]
    pub apply: Option<String>,
    /// Take the whole configuration from a YAML file, - for standard input
    #[arg(long, value_name = "FILE", conflicts_with = "apply")]
    pub replace: Option<String>,
    /// Ask nothing
    #[arg(long)]
    pub force: bool,
}

#[derive(Args, Debug)]
pub struct History {
    pub cluster: Option<String>,
    #[arg(short, long, value_enum, default_value_t)]
    pub format: Format,
}

#[derive(Args, Debug)]
pub struct Dsn {
    pub cluster: Option<String>,
    #[arg(short, long, value_enum)]
    pub role: Option<RoleChoice>,
    #[arg(short, long)]
    pub member: Option<String>,
}

#[derive(Args, Debug)]
pub struct Version {
    pub cluster: Option<String>,
    pub members: Vec<String>,
}

#[derive(Args, Debug)]
pub struct DcsGet {
    /// initialize, leader, config, history, status, sync, failover or members/NAME
    pub key: String,
}

#[derive(Args, Debug)]
pub struct PromoteCluster {
    pub cluster: Option<String>,
    /// What the other site's demote-cluster printed: not promoted before all of that is replayed
    #[arg(long)]
    pub token: Option<String>,
    /// Promote although the remote accepts writes, or may
    #[arg(long)]
    pub even_if_remote_writes: bool,
    /// How long to wait for the outcome: seconds, or with a unit
    #[arg(long, default_value = "60")]
    pub timeout: String,
    /// Ask nothing
    #[arg(long)]
    pub force: bool,
}

#[derive(Args, Debug)]
pub struct DemoteCluster {
    pub cluster: Option<String>,
    /// Whom to follow: one host, or several separated by commas
    #[arg(long)]
    pub host: Option<String>,
    #[arg(long)]
    pub port: Option<u16>,
    /// How to get WAL from an archive
    #[arg(long)]
    pub restore_command: Option<String>,
    /// The slot on the remote; created there if it is missing
    #[arg(long)]
    pub primary_slot_name: Option<String>,
    /// How long to wait for the outcome: seconds, or with a unit
    #[arg(long, default_value = "60")]
    pub timeout: String,
    /// Ask nothing
    #[arg(long)]
    pub force: bool,
}

#[derive(Args, Debug)]
pub struct Pause {
    pub cluster: Option<String>,
    #[arg(long)]
    pub wait: bool,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn every_command_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn patronis_spellings_are_understood() {
        let task = |words: &str| {
            let words = ["patronictl"].into_iter().chain(words.split(' '));
            Arguments::try_parse_from(words).map(|arguments| arguments.task)
        };
        let switch = task("-c f.yml switchover batman --primary a --candidate b --force");
        assert!(
            matches!(switch, Ok(Task::Switchover(s)) if s.leader.as_deref() == Some("a") && s.force)
        );
        let list = task("-k list batman -e -t -f yml");
        assert!(matches!(list, Ok(Task::List(l)) if l.format == Format::Yaml && l.extended));
        let edit = task("edit-config -q -s ttl=30 -p work_mem=1MB --force");
        assert!(matches!(edit, Ok(Task::EditConfig(e)) if e.set.len() == 1 && e.pg.len() == 1));
        let restart = task("restart batman a b -r standby-leader --pending --timeout 1min");
        assert!(matches!(restart, Ok(Task::Restart(r)) if r.chosen.members.len() == 2));
        let words = "demote-cluster batman --host h --port 1 --primary-slot-name s --force";
        assert!(matches!(task(words), Ok(Task::DemoteCluster(d)) if d.port == Some(1)));
        let words = "demote-cluster --restore-command cp";
        assert!(matches!(task(words), Ok(Task::DemoteCluster(d)) if d.timeout == "60"));
        let words = "promote-cluster batman --force";
        assert!(matches!(task(words), Ok(Task::PromoteCluster(p)) if p.token.is_none()));
        assert!(matches!(task("reinit batman a --wait --from-leader"), Ok(Task::Reinit(_))));
        assert!(matches!(task("flush batman a restart --force"), Ok(Task::Flush(_))));
    }
}
