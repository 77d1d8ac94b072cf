//! Bootstrap: the code behind the names in `statecharts/bootstrap.json`.
//!
//! Each step is a state, so a restart of the daemon goes on where it was: no second initdb, no
//! recovery that forgets its target, no script that is left out.
use serde::{Deserialize, Serialize};

use crate::pure::chart::Implementation;
use crate::pure::cluster::Millis;
use crate::pure::machine::{Flow, FollowsSituation, Input};
use crate::pure::operation::{Operation, Ran, Report, StartAs, StopMode};
use crate::pure::postgres::target::RecoveryEnd;

include!(concat!(env!("OUT_DIR"), "/bootstrap.rs"));

const SECOND_MS: Millis = 1000;
/// Where the file sets no limit there is none; a chart's delays need a number.
const NO_LIMIT_MS: Millis = 365 * 24 * 3600 * SECOND_MS;
/// The name under which PostgreSQL's own program stands among the methods.
pub const INITDB: &str = "initdb";

/// What the bootstrap knows; persisted with every transition.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Bootstrap {
    pub epoch: u64,
    /// The file names a post_bootstrap script.
    pub has_script: bool,
    /// In the order in which they are tried; none is initdb.
    #[serde(default)]
    pub methods: Vec<String>,
    /// Which of them is being tried.
    #[serde(default)]
    pub method: usize,
    #[serde(default)]
    pub limits: Limits,
    /// The operator's programs that ended well: exit code and last lines.
    #[serde(default)]
    pub ran: Vec<Ran>,
    /// Where recovery stopped.
    #[serde(default)]
    pub recovery: Option<RecoveryEnd>,
    #[serde(default)]
    pub problem: String,
}

/// How long the operator lets things take; no limit where nothing is said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    pub method_ms: Option<Millis>,
    pub recovery_ms: Option<Millis>,
    pub script_ms: Option<Millis>,
}

/// Nothing but its own work moves it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Event {}

impl Bootstrap {
    /// The method that is being tried.
    pub fn method_name(&self) -> &str {
        self.methods.get(self.method).map_or(INITDB, String::as_str)
    }

    fn note_problem(&mut self, problem: &str) {
        let method = self.method_name();
        let several = self.methods.len() > 1;
        let here = if several { format!("method {method}: {problem}") } else { problem.into() };
        let earlier = std::mem::take(&mut self.problem);
        self.problem = if earlier.is_empty() { here } else { format!("{earlier}; {here}") };
    }

    fn too_long(&self, delay: Delay) -> String {
        let seconds = self.delay(delay) / SECOND_MS;
        match delay {
            Delay::CreateTimeout => {
                format!("did not end within bootstrap.method_timeout, {seconds} s")
            }
            Delay::RecoveryTimeout => {
                format!("recovery did not end within bootstrap.recovery_timeout, {seconds} s")
            }
            Delay::ScriptTimeout => format!(
                "post_bootstrap did not end within bootstrap.post_bootstrap_timeout, {seconds} s"
            ),
            Delay::StartTimeout => format!("PostgreSQL did not do it within {seconds} s"),
        }
    }
}

impl Implementation<Names, Input<Bootstrap>> for Bootstrap {
    fn allows(&self, guard: Guard, _input: &Input<Self>) -> bool {
        match guard {
            Guard::HasScript => self.has_script,
            Guard::IsRestored => self.method_name() != INITDB,
            Guard::MethodRemains => self.method + 1 < self.methods.len(),
        }
    }

    fn apply(&mut self, action: Action, input: &Input<Self>) {
        match (action, input) {
            (Action::NoteOutput, Input::Done { report: Report::Ran(ran), .. }) => {
                self.ran.retain(|earlier| earlier.program != ran.program);
                self.ran.push(ran.clone());
            }
            (Action::NoteRecovery, Input::Done { report: Report::Recovered(end), .. }) => {
                self.recovery = Some(end.clone());
            }
            (Action::NoteProblem, Input::Failed { problem, .. }) => self.note_problem(problem),
            (Action::NoteTimeout, Input::Elapsed { delay, .. }) => {
                self.note_problem(&self.too_long(*delay));
            }
            (Action::NextMethod, _) => self.method += 1,
            _ => {}
        }
    }
}

impl Flow for Bootstrap {
    type Names = Names;
    type Event = Event;
    const ID: &'static str = "bootstrap";

    fn name(event: &Event) -> EventName {
        match *event {}
    }

    fn operation(&self, activity: Activity) -> Operation {
        let (epoch, method) = (self.epoch, self.method_name().to_string());
        match activity {
            Activity::CreateCluster => Operation::CreateCluster { method },
            Activity::VerifyRestored => Operation::VerifyRestored { method },
            Activity::StartRestored => {
                Operation::StartPostgres { start_as: StartAs::Restored { epoch, method } }
            }
            Activity::AwaitRecovery => Operation::AwaitRecovery,
            Activity::CheckTarget => Operation::CheckTarget,
            Activity::CreateSuperuser => Operation::CreateSuperuser,
            Activity::StopRestored => Operation::StopPostgres { mode: StopMode::Fast },
            Activity::StartPrimary => {
                Operation::StartPostgres { start_as: StartAs::Primary { epoch } }
            }
            Activity::RunScript => Operation::RunPostBootstrap,
            Activity::CreateRoles => Operation::CreateRoles,
            Activity::SealCluster => Operation::SealCluster,
            Activity::StopFailed => Operation::StopPostgres { mode: StopMode::Immediate },
            Activity::SetAside => {
                Operation::MoveDataDirectoryAside { suffix: String::from("failed") }
            }
        }
    }

    fn delay(&self, delay: Delay) -> Millis {
        match delay {
            Delay::CreateTimeout => self.limits.method_ms.unwrap_or(NO_LIMIT_MS),
            Delay::RecoveryTimeout => self.limits.recovery_ms.unwrap_or(NO_LIMIT_MS),
            Delay::ScriptTimeout => self.limits.script_ms.unwrap_or(NO_LIMIT_MS),
            Delay::StartTimeout => 600 * SECOND_MS,
        }
    }

    fn problem(&self) -> Option<&str> {
        (!self.problem.is_empty()).then_some(self.problem.as_str())
    }
}

impl FollowsSituation for Bootstrap {}
