//! The operator's commands, in Patroni's words: `surus ctl`, `surusctl`, `patronictl`.
//!
//! They talk REST to whichever member answers first and exit as `patronictl` does: 0, 1 with
//! `Error: …` or `Aborted!`, 2 for wrong usage. A refusal by a member prints `Failed…` and exits 0.
mod args;
pub mod bootstrap;
pub mod chart;
pub(crate) mod client;
mod configure;
pub mod dump;
mod footer;
mod list;
mod members;
mod moment;
pub(crate) mod output;
mod progress;
pub(crate) mod prompt;
mod reinit;
pub mod replay;
mod restart;
mod row;
mod show;
mod standby;
mod switch;
mod tree;
pub mod validate;
mod votes;

use std::ffi::OsString;
use std::iter;

use clap::{CommandFactory, FromArgMatches};

use self::args::{Arguments, Task};

/// Why a command ends early.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// `Error: …`, exit code 1.
    Error(String),
    /// The operator said no, or there was nobody to ask.
    Aborted,
}

impl From<String> for Stop {
    fn from(text: String) -> Stop {
        Stop::Error(text)
    }
}

impl From<&str> for Stop {
    fn from(text: &str) -> Stop {
        Stop::Error(text.to_owned())
    }
}

pub(crate) type Outcome<T = ()> = Result<T, Stop>;

/// Runs one command and returns the exit code.
///
/// `args` are the words after the command's own name, `called_as` is that name for messages.
pub fn run(args: Vec<OsString>, called_as: &str) -> i32 {
    let words = iter::once(OsString::from(called_as)).chain(args);
    let parsed = Arguments::command()
        .bin_name(called_as.to_owned())
        .try_get_matches_from(words)
        .and_then(|matches| Arguments::from_arg_matches(&matches));
    let arguments = match parsed {
        Ok(arguments) => arguments,
        Err(error) => {
            let _ = error.print();
            return error.exit_code();
        }
    };
    exit_code(perform(&arguments))
}

pub(crate) fn exit_code(outcome: Outcome) -> i32 {
    match outcome {
        Ok(()) => 0,
        Err(Stop::Error(text)) => {
            eprintln!("Error: {text}");
            1
        }
        Err(Stop::Aborted) => {
            eprintln!("Aborted!");
            1
        }
    }
}

fn perform(arguments: &Arguments) -> Outcome {
    if let Task::Version(task) = &arguments.task
        && task.cluster.is_none()
    {
        output::line(&format!("patronictl version {}", crate::pure::patroni::PATRONI_VERSION));
        return Ok(());
    }
    let client = client::open(arguments)?;
    match &arguments.task {
        Task::List(task) => list::list(&client, task),
        Task::Topology(task) => list::topology(&client, task),
        Task::Switchover(task) => switch::switchover(&client, task),
        Task::Failover(task) => switch::failover(&client, task),
        Task::Restart(task) => restart::restart(&client, task),
        Task::Reinit(task) => reinit::reinit(&client, task),
        Task::Reload(task) => restart::reload(&client, task),
        Task::Flush(task) => restart::flush(&client, task),
        Task::ShowConfig(task) => configure::show(&client, task),
        Task::EditConfig(task) => configure::edit(&client, task),
        Task::History(task) => show::history(&client, task),
        Task::Dsn(task) => show::dsn(&client, task),
        Task::Version(task) => show::version(&client, task),
        Task::DcsGet(task) => show::dcs_get(&client, task),
        Task::PromoteCluster(task) => standby::promote(&client, task),
        Task::DemoteCluster(task) => standby::demote(&client, task),
        Task::Members(task) => votes::members(&client, task),
        Task::Remove(_) => Err("remove and query are not built yet".into()),
        Task::Pause(_) | Task::Resume(_) => Err(crate::pure::patroni::PAUSE_NOT_BUILT.into()),
    }
}
