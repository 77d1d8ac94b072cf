//! Callbacks: told to the user's scripts, never waited for.
//!
//! One runs at a time: a newer one kills the older one with everything it started. `on_reload`
//! has a lane of its own. How one ends is only logged.
use std::path::PathBuf;

use tokio::task::JoinHandle;

use super::account::Account;
use super::program::{Program, quoted};

/// Why a callback is called; the text is its first argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    OnStart,
    OnStop,
    OnRestart,
    OnReload,
    OnRoleChange,
}

impl Action {
    pub fn text(self) -> &'static str {
        match self {
            Action::OnStart => "on_start",
            Action::OnStop => "on_stop",
            Action::OnRestart => "on_restart",
            Action::OnReload => "on_reload",
            Action::OnRoleChange => "on_role_change",
        }
    }
}

/// Runs callbacks; whatever runs is killed when this is dropped.
pub struct Callbacks {
    state_dir: PathBuf,
    run_as: Option<Account>,
    running: Option<JoinHandle<()>>,
    reloading: Option<JoinHandle<()>>,
}

impl Callbacks {
    pub fn new(state_dir: PathBuf, run_as: Option<Account>) -> Callbacks {
        Callbacks { state_dir, run_as, running: None, reloading: None }
    }

    /// Starts the command with action, role and scope added; answers at once. Call on a reactor
    /// thread that lives as long as the daemon.
    pub fn call(&mut self, action: Action, command: &str, role: &str, scope: &str) {
        // A promotion in progress is a primary to the world.
        let role = if role == "promoted" { "primary" } else { role };
        let program = Program::from_words(command, &self.state_dir, self.run_as.as_ref())
            .map(|program| program.args([action.text(), role, scope]));
        let program = match program {
            Ok(program) => program,
            Err(error) => {
                tracing::error!("callback {}: {error}", action.text());
                return;
            }
        };
        let on_reload = action == Action::OnReload;
        let lane = if on_reload { &mut self.reloading } else { &mut self.running };
        let older = lane.take();
        *lane = Some(tokio::spawn(async move {
            if let Some(older) = older {
                older.abort();
                // Its group is dead when this returns.
                let _ = older.await;
            }
            run(action, program).await;
        }));
    }
}

impl Drop for Callbacks {
    fn drop(&mut self) {
        for lane in [&self.running, &self.reloading].into_iter().flatten() {
            lane.abort();
        }
    }
}

async fn run(action: Action, program: Program) {
    let name = action.text();
    match program.run_any(&mut |_, _| true).await {
        Ok(output) if output.code == 0 => tracing::info!("callback {name} ended well"),
        Ok(output) => {
            let said = quoted(&output.tail);
            tracing::warn!("callback {name} ended with exit code {}{said}", output.code);
        }
        Err(error) => tracing::warn!("callback {name}: {error}"),
    }
}
