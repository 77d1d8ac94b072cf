//! From a deed to real work: one match, the work is in the files beside this one.
use std::rc::Rc;
use std::time::Duration;

use actix::prelude::*;

use super::upheld::{Needs, upheld};
use super::{World, birth, build, conf, copy, lead, recover, remote, sync};
use crate::host::actor::flow::{FlowActor, Halt, Hear, OnEnd};
use crate::pure::config;
use crate::pure::deed::{Brief, Deed, Report, StartAs, StopMode};
use crate::pure::flow::bootstrap::{Bootstrap, Limits};
use crate::pure::flow::cluster_init::ClusterInit;
use crate::pure::flow::demote::Demote;
use crate::pure::flow::promote::Promote;
use crate::pure::flow::rejoin::Rejoin;
use crate::pure::flow::replica_build::ReplicaBuild;
use crate::pure::flow::restart::Restart;
use crate::pure::flow::standby_leader::StandbyLeader;
use crate::pure::flow::switchover::Switchover;
use crate::pure::situation::Hears;

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

/// Starts the flow that a brief describes. `run`: whether to go on where its last record says, and
/// the name of the run it belongs to.
pub fn start_flow(
    world: Rc<World>,
    brief: Brief,
    run: (bool, &str),
    on_end: OnEnd,
) -> (Recipient<Hear>, Recipient<Halt>) {
    let config = world.config();
    let node = config.name.clone();
    match brief {
        Brief::ClusterInit { epoch, has_data, runs, remote } => {
            let dcs = config.bootstrap.as_ref().map(|b| b.dcs.clone());
            let mut config = dcs.filter(|v| v.is_object()).unwrap_or_else(|| serde_json::json!({}));
            // Refused when asked for; stored, it would say what is not so.
            config.as_object_mut().map(|keys| keys.shift_remove("pause"));
            let flow = ClusterInit {
                epoch,
                node,
                has_data,
                runs,
                remote,
                config,
                system_identifier: String::new(),
                problem: String::new(),
            };
            start(world, flow, run, on_end)
        }
        Brief::Bootstrap { epoch } => {
            let own = config.bootstrap.clone().unwrap_or_default();
            start(world, bootstrap(epoch, &own), run, on_end)
        }
        Brief::ReplicaBuild { permission, methods, wish } => {
            start(world, ReplicaBuild::new(&node, permission, methods, wish), run, on_end)
        }
        Brief::Rejoin { source, rules } => start(world, Rejoin { source, rules }, run, on_end),
        Brief::Promote { epoch, pre_promote, start_needed, set_aside } => {
            let start_needed = start_needed || !world.seen.borrow().postmaster_alive;
            let flow = Promote {
                epoch,
                node,
                pre_promote,
                start_needed,
                set_aside,
                timeline: 0,
                way: Vec::new(),
            };
            start(world, flow, run, on_end)
        }
        Brief::Demote { mode, release } => {
            start(world, Demote { mode, release, shutdown: None, hands_over: None }, run, on_end)
        }
        Brief::StandDown { epoch } => {
            let (mode, hands_over) = (StopMode::Fast, Some(epoch));
            start(world, Demote { mode, release: None, shutdown: None, hands_over }, run, on_end)
        }
        Brief::Switchover { epoch, candidate } => {
            start(world, Switchover { epoch, candidate, shutdown: None }, run, on_end)
        }
        Brief::Restart { as_, crashed } => {
            let primary = matches!(as_, StartAs::Primary { .. });
            let usual = if primary { world.dynamic().primary_start_timeout_ms } else { 600_000 };
            let asked = world.seen.borrow_mut().restart_timeout_ms.take().filter(|_| !crashed);
            start(world, Restart::new(as_, crashed, asked.unwrap_or(usual)), run, on_end)
        }
        Brief::StandbyLeader { epoch, remote } => {
            start(world, StandbyLeader::new(epoch, remote), run, on_end)
        }
    }
}

fn bootstrap(epoch: u64, own: &config::Bootstrap) -> Bootstrap {
    let ms = |seconds: Option<u64>| seconds.map(|s| s.saturating_mul(1000));
    Bootstrap {
        epoch,
        has_script: own.post_bootstrap.is_some(),
        methods: own.methods.iter().map(|method| method.name().to_string()).collect(),
        limits: Limits {
            method_ms: ms(own.method_timeout_s),
            recovery_ms: ms(own.recovery_timeout_s),
            script_ms: ms(own.post_bootstrap_timeout_s),
        },
        ..Bootstrap::default()
    }
}

fn start<F: Hears>(
    world: Rc<World>,
    knowledge: F,
    (resumed, by): (bool, &str),
    on_end: OnEnd,
) -> (Recipient<Hear>, Recipient<Halt>) {
    let actor = if resumed {
        FlowActor::resume(world, knowledge, by, on_end)
    } else {
        FlowActor::begin(world, knowledge, by, on_end)
    };
    let address = actor.start();
    (address.clone().recipient(), address.recipient())
}

/// A pause that ends early when the view changes.
pub async fn until_view_changes(world: &World, at_most: Duration) {
    let mut view = world.view.clone();
    view.mark_unchanged();
    tokio::time::timeout(at_most, view.changed()).await.ok();
}
