//! The command line's front door.
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::{Parser, Subcommand};
use surus::host::{guard, run, signals};
use surus::tools::{barman, quorum_loss, wale};
use surus::{ctl, demo};

/// Keeps a PostgreSQL cluster alive: Patroni's interfaces, Raft inside.
#[derive(Parser)]
#[command(name = "surus", version, about)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Run the daemon in the foreground with a Patroni-shaped file.
    Run {
        /// The file, or a directory of them; without it PATRONI_CONFIGURATION holds the whole.
        #[arg(required_unless_present = "whole")]
        config: Option<PathBuf>,
        #[arg(hide = true, long, env = "PATRONI_CONFIGURATION")]
        whole: Option<String>,
    },
    /// Print every fault of a configuration with its key and line.
    Validate {
        config: PathBuf,
        /// Do not check whether the ports are free.
        #[arg(short, long)]
        ignore_listen_port: bool,
    },
    /// The operator's commands, as patronictl has them.
    #[command(disable_help_flag = true)]
    Ctl {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<OsString>,
    },
    /// Show a node's whole state: for people, or with --json for programs.
    #[command(disable_help_flag = true)]
    Dump {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<OsString>,
    },
    /// The built-in statecharts, or any file: list, check, draw, step.
    #[command(subcommand)]
    Chart(ctl::chart::ChartCommand),
    /// What the creation of a cluster would do.
    #[command(subcommand)]
    Bootstrap(ctl::bootstrap::BootstrapCommand),
    /// The majority is lost for ever: make this stopped node the cluster's only voter.
    Recover(quorum_loss::RecoverArgs),
    /// A replica method: the latest WAL-E backup, unless too much WAL was written since.
    WaleRestore(wale::WaleArgs),
    /// A replica method and a callback: ask a Barman server to recover, or to switch its model.
    #[command(disable_help_flag = true)]
    Barman {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<String>,
    },
    /// Walk a recorded history again: from a dump, or from a simulated run.
    Replay(ctl::replay::ReplayArgs),
    /// Whole simulated clusters under faults, each promise checked after each event.
    #[cfg(feature = "sim")]
    Sim(surus::sim::cli::SimArgs),
    /// Who would lead, what would be lost and how long it would take, asked of a dumped cluster.
    #[cfg(feature = "sim")]
    WhatIf(surus::sim::what_if::WhatIfArgs),
    /// A three-node cluster on this machine.
    Demo(demo::DemoArgs),
}

/// A thread that panics must not leave a living process with a dead conscience.
fn end_with_any_panic() {
    let tell = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        tell(panic);
        #[cfg(feature = "sim")]
        surus::sim::cli::tell_run_of_a_panic();
        std::process::abort();
    }));
}

fn main() {
    end_with_any_panic();
    let called_as = std::env::args_os().next().unwrap_or_default();
    let mut rest = std::env::args_os().skip(1);
    // Before anything else is set up: the guard needs next to nothing, and has next to nothing.
    match rest.next() {
        Some(command) if command == "guard" => guard::process::main(rest),
        Some(command) if command == "run" => signals::hold(),
        _ => {}
    }
    let name = Path::new(&called_as).file_name().unwrap_or_default().to_string_lossy().to_string();
    if name == "surusctl" || name == "patronictl" {
        std::process::exit(ctl::run(std::env::args_os().skip(1).collect(), &name));
    }
    match name.as_str() {
        "patroni_wale_restore" => std::process::exit(wale::run(&wale::WaleArgs::parse())),
        "patroni_barman" => {
            std::process::exit(barman::run(&std::env::args().skip(1).collect::<Vec<_>>()));
        }
        _ => {}
    }
    std::process::exit(perform(Arguments::parse().task));
}

fn perform(task: Task) -> i32 {
    match task {
        Task::Run { config, .. } => run::run(&config.unwrap_or_default()),
        Task::Validate { config, ignore_listen_port } => {
            ctl::validate::run(&config, ignore_listen_port)
        }
        Task::Ctl { words } => ctl::run(words, "surus ctl"),
        Task::Dump { words } => ctl::dump::run(words),
        Task::Chart(command) => match ctl::chart::run(command) {
            Ok(()) => 0,
            Err(error) => {
                eprintln!("{error:#}");
                1
            }
        },
        Task::Bootstrap(command) => ctl::bootstrap::run(&command),
        Task::Recover(args) => quorum_loss::run(&args),
        Task::WaleRestore(args) => wale::run(&args),
        Task::Barman { words } => barman::run(&words),
        Task::Replay(args) => ctl::replay::run(&args),
        #[cfg(feature = "sim")]
        Task::Sim(args) => surus::sim::cli::main(&args),
        #[cfg(feature = "sim")]
        Task::WhatIf(args) => surus::sim::what_if::main(&args),
        Task::Demo(args) => demo::run(args),
    }
}
