//! From a deed to real work: one match, the work is in the files beside this one.
use std::rc::Rc;
use std::time::Duration;

use super::upheld::{Needs, upheld};
use super::{World, birth, build, conf, copy, lead, recover, remote, sync};
use crate::pure::deed::{Brief, Deed, Report, StartAs};
use crate::pure::flow::any::{Creation, Local};

/// Does one deed; dropping the future ends whatever it started.
pub async fn perform(world: Rc<World>, deed: Deed) -> Result<Report, String> {
    match deed {
        Deed::InspectNode => super::adopted::inspect(&world).await,
        Deed::ClearDataDirectory { permission } => copy::clear(&world, permission).await,
        Deed::MoveDataDirectoryAside { suffix } => copy::move_aside(&world, &suffix).await,
        Deed::CreateCluster { method } => birth::create_cluster(&world, &method).await,
        Deed::VerifyRestored { method } => birth::verify_restored(&world, &method).await,
        Deed::AwaitRecovery => {
            upheld(&world, Needs::Restored, || recover::await_recovery(&world)).await
        }
        Deed::CheckTarget => {
            upheld(&world, Needs::Recovered, || recover::check_target(&world)).await
        }
        Deed::CreateSuperuser => {
            upheld(&world, Needs::Recovered, || birth::create_superuser(&world)).await
        }
        Deed::SealCluster => birth::seal_cluster(&world).await,
        Deed::StartPostgres { as_ }
            if world.is_creating() && !matches!(as_, StartAs::Standby { .. }) =>
        {
            upheld(&world, Needs::Nothing, || conf::start(&world, as_.clone())).await
        }
        Deed::StartPostgres { as_ } => conf::start(&world, as_).await,
        Deed::StopPostgres { mode } => conf::stop(&world, mode).await,
        Deed::Promote { timeline } => lead::promote(&world, timeline).await,
        Deed::Checkpoint => world.server()?.checkpoint().await.map(|()| Report::Done),
        Deed::CreateRoles => upheld(&world, Needs::Primary, || birth::create_roles(&world)).await,
        Deed::RunPostBootstrap => {
            upheld(&world, Needs::Primary, || lead::post_bootstrap(&world)).await
        }
        Deed::RunPrePromote => lead::pre_promote(&world).await,
        Deed::CheckMethod { method, source } => build::check(&world, &method, source).await,
        Deed::CopyCluster { method, source, keep_data } => {
            build::copy(&world, &method, source, keep_data).await
        }
        Deed::VerifyCopy { system_identifier } => copy::verify(&world, system_identifier).await,
        Deed::WatchReplay => build::watch_replay(&world).await,
        Deed::CheckDivergence { source } => copy::check_divergence(&world, source).await,
        Deed::Rewind { source } => copy::rewind(&world, source).await,
        Deed::PointUpstream { source } => conf::point_upstream(&world, source).await,
        Deed::ArmGuard { epoch } => lead::arm_guard(&world, epoch).await,
        Deed::DisarmGuard => lead::disarm_guard(&world).await,
        Deed::Propose { command } => lead::propose(&world, command).await,
        Deed::AwaitReceived { member, timeline, lsn } => {
            lead::await_received(&world, &member, (timeline, lsn)).await
        }
        Deed::SetSynchronousStandbyNames { value } => sync::set_names(&world, value).await,
        Deed::ShipWal { timeline, lsn } => remote::ship_wal(&world, timeline, lsn).await,
        Deed::GiveUpVote => lead::give_up_vote(&world).await,
        Deed::Run(_) => Err(String::from("a flow is run by its actor")),
    }
}

/// What this node adds to the input of a flow that begins.
pub fn flow_local(world: &World, input: &Brief) -> Local {
    let config = world.config();
    let mut seen = world.seen.borrow_mut();
    let is_restart = matches!(input, Brief::Restart { .. });
    Local {
        node: config.name.clone(),
        postgres_runs: seen.postmaster_alive,
        creation: config.bootstrap.as_ref().map(Creation::of).unwrap_or_default(),
        primary_start_timeout_ms: world.dynamic().primary_start_timeout_ms,
        restart_timeout_ms: is_restart.then(|| seen.restart_timeout_ms.take()).flatten(),
    }
}

/// A pause that ends early when the view changes.
pub async fn until_view_changes(world: &World, at_most: Duration) {
    let mut view = world.view.clone();
    view.mark_unchanged();
    tokio::time::timeout(at_most, view.changed()).await.ok();
}
