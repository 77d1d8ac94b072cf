//! From an operation to real work: one match, the work is in the files beside this one.
use std::rc::Rc;
use std::time::Duration;

use super::bootstrap_retry::{Needs, upheld};
use super::{
    NodeContext, bootstrap, build, copy, promote, recovery_target, remote, start_stop, sync,
};
use crate::pure::flow::any::{Creation, Local};
use crate::pure::operation::{FlowInput, Operation, Report, StartAs};

/// Does one operation; dropping the future ends whatever it started.
pub async fn execute(context: Rc<NodeContext>, operation: Operation) -> Result<Report, String> {
    match operation {
        Operation::InspectNode => super::adopted::inspect(&context).await,
        Operation::ClearDataDirectory { permission } => copy::clear(&context, permission).await,
        Operation::MoveDataDirectoryAside { suffix } => copy::move_aside(&context, &suffix).await,
        Operation::CreateCluster { method } => bootstrap::create_cluster(&context, &method).await,
        Operation::VerifyRestored { method } => bootstrap::verify_restored(&context, &method).await,
        Operation::AwaitRecovery => {
            upheld(&context, Needs::Restored, || recovery_target::await_recovery(&context)).await
        }
        Operation::CheckTarget => {
            upheld(&context, Needs::Recovered, || recovery_target::check_target(&context)).await
        }
        Operation::CreateSuperuser => {
            upheld(&context, Needs::Recovered, || bootstrap::create_superuser(&context)).await
        }
        Operation::SealCluster => bootstrap::seal_cluster(&context).await,
        Operation::StartPostgres { start_as }
            if context.is_creating() && !matches!(start_as, StartAs::Standby { .. }) =>
        {
            upheld(&context, Needs::Nothing, || start_stop::start(&context, start_as.clone())).await
        }
        Operation::StartPostgres { start_as } => start_stop::start(&context, start_as).await,
        Operation::StopPostgres { mode } => start_stop::stop(&context, mode).await,
        Operation::Promote { timeline } => promote::promote(&context, timeline).await,
        Operation::Checkpoint => context.server()?.checkpoint().await.map(|()| Report::Done),
        Operation::CreateRoles => {
            upheld(&context, Needs::Primary, || bootstrap::create_roles(&context)).await
        }
        Operation::RunPostBootstrap => {
            upheld(&context, Needs::Primary, || promote::post_bootstrap(&context)).await
        }
        Operation::RunPrePromote => promote::pre_promote(&context).await,
        Operation::CheckMethod { method, source } => build::check(&context, &method, source).await,
        Operation::CopyCluster { method, source, keep_data } => {
            build::copy(&context, &method, source, keep_data).await
        }
        Operation::VerifyCopy { system_identifier } => {
            copy::verify(&context, system_identifier).await
        }
        Operation::WatchReplay => build::watch_replay(&context).await,
        Operation::CheckDivergence { source } => copy::check_divergence(&context, source).await,
        Operation::Rewind { source } => copy::rewind(&context, source).await,
        Operation::PointUpstream { source } => start_stop::point_upstream(&context, source).await,
        Operation::ArmGuard { epoch } => promote::arm_guard(&context, epoch).await,
        Operation::DisarmGuard => promote::disarm_guard(&context).await,
        Operation::Propose { command } => promote::propose(&context, command).await,
        Operation::AwaitReceived { member, timeline, lsn } => {
            promote::await_received(&context, &member, (timeline, lsn)).await
        }
        Operation::SetSynchronousStandbyNames { value } => sync::set_names(&context, value).await,
        Operation::ShipWal { timeline, lsn } => remote::ship_wal(&context, timeline, lsn).await,
        Operation::GiveUpVote => promote::give_up_vote(&context).await,
        Operation::Run(_) => Err(String::from("a flow is run by its actor")),
    }
}

/// What this node adds to the input of a flow that begins.
pub fn flow_local(context: &NodeContext, input: &FlowInput) -> Local {
    let config = context.config();
    let mut seen = context.seen.borrow_mut();
    let is_restart = matches!(input, FlowInput::Restart { .. });
    Local {
        node: config.name.clone(),
        postgres_runs: seen.postmaster_alive,
        creation: config.bootstrap.as_ref().map(Creation::of).unwrap_or_default(),
        primary_start_timeout_ms: context.dynamic().primary_start_timeout_ms,
        restart_timeout_ms: is_restart.then(|| seen.restart_timeout_ms.take()).flatten(),
    }
}

/// A pause that ends early when the view changes.
pub async fn until_view_changes(context: &NodeContext, at_most: Duration) {
    let mut view = context.view.clone();
    view.mark_unchanged();
    tokio::time::timeout(at_most, view.changed()).await.ok();
}
