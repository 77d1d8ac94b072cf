//! Values for flows, from bytes: few names and numbers, so that what belongs together is met often.
use super::bytes::Bytes;
use crate::pure::cluster::facts::DataDirectory;
use crate::pure::cluster::remote::RemoteRelation;
use crate::pure::cluster::state::{FailoverRequest, Status, Sync};
use crate::pure::cluster::sync::SyncStep;
use crate::pure::node::situation::{HandOver, LeaseStatus, OperatorRequests, Situation};
use crate::pure::operation::{
    Inspection, Method, Offer, OfferKind, Ran, ReinitOptions, RejoinRules, Release, Remote, Report,
    Source, StartAs, StopMode, WipePermission,
};
use crate::pure::postgres::lsn::Lsn;
use crate::pure::postgres::target::RecoveryEnd;

pub fn name(b: &mut Bytes) -> String {
    b.one_of(&["n1", "n2", "n3", ""]).to_owned()
}

fn identifier(b: &mut Bytes) -> String {
    b.one_of(&["7001", "7002", ""]).to_owned()
}

pub fn lsn(b: &mut Bytes) -> Lsn {
    Lsn(b.number())
}

pub fn source(b: &mut Bytes) -> Source {
    if b.below(4) == 3 {
        return Source::remote("there", 5432, b.some(name));
    }
    Source { member: name(b), host: "127.0.0.1".to_owned(), port: 5432, slot: b.some(name) }
}

pub fn method(b: &mut Bytes) -> Method {
    let name = b.one_of(&["basebackup", "barman", "wal_e"]).to_owned();
    Method { name, keep_data: b.flag(), no_leader: b.flag() }
}

pub fn methods(b: &mut Bytes) -> Vec<Method> {
    b.few(3, method)
}

pub fn remote(b: &mut Bytes) -> Remote {
    Remote { source: b.some(source), methods: methods(b) }
}

pub fn permission(b: &mut Bytes) -> WipePermission {
    match b.below(3) {
        0 => WipePermission::OwnLeftovers,
        1 => WipePermission::Operator { what: "reinit".to_owned() },
        _ => WipePermission::NewerCopyElsewhere { leader: name(b), epoch: b.number() },
    }
}

pub fn reinit(b: &mut Bytes) -> ReinitOptions {
    ReinitOptions {
        from_leader: b.flag(),
        method: b.some(|b| method(b).name),
        source: b.some(name),
        keep_data: b.some(Bytes::flag),
    }
}

pub fn rules(b: &mut Bytes) -> RejoinRules {
    RejoinRules {
        use_pg_rewind: b.flag(),
        remove_on_rewind_failure: b.flag(),
        remove_on_diverged_timelines: b.flag(),
        methods: methods(b),
        system_identifier: identifier(b),
        leader_epoch: b.number(),
    }
}

pub fn mode(b: &mut Bytes) -> StopMode {
    b.one_of(&[StopMode::Fast, StopMode::Immediate])
}

pub fn release(b: &mut Bytes) -> Release {
    Release { epoch: b.number(), reason: "told to".to_owned(), hand_over_to: b.some(name) }
}

pub fn status(b: &mut Bytes) -> Status {
    Status { optime: lsn(b), timeline: b.number() as u32 }
}

pub fn start_as(b: &mut Bytes) -> StartAs {
    match b.below(3) {
        0 => StartAs::Primary { epoch: b.number() },
        1 => StartAs::Standby { source: b.some(source) },
        _ => StartAs::Restored { epoch: b.number(), method: method(b).name },
    }
}

fn data(b: &mut Bytes) -> DataDirectory {
    match b.below(5) {
        0 => DataDirectory::Unknown,
        1 => DataDirectory::Empty,
        2 => DataDirectory::Incomplete,
        3 => DataDirectory::Broken { problem: "pg_control is short".to_owned() },
        _ => DataDirectory::Present {
            system_identifier: identifier(b),
            timeline: b.number() as u32,
            lsn: lsn(b),
            was_primary: b.flag(),
            clean: b.flag(),
        },
    }
}

pub fn inspection(b: &mut Bytes) -> Inspection {
    Inspection {
        data: data(b),
        postmaster_alive: b.flag(),
        running_as_primary: b.flag(),
        unmanaged: b.flag(),
        numbered: b.flag(),
    }
}

/// Any report, also one that the operation in question never gives.
pub fn report(b: &mut Bytes) -> Report {
    match b.below(9) {
        0 => Report::Inspected(inspection(b)),
        1 => Report::At { timeline: b.number() as u32, lsn: lsn(b) },
        2 => Report::Identified { system_identifier: identifier(b) },
        3 => Report::Diverged { yes: b.flag(), because: "of timeline 2".to_owned() },
        4 => Report::Ran(Ran { program: "initdb".to_owned(), code: 0, tail: b.few(2, name) }),
        5 => Report::Recovered(recovery_end(b)),
        6 => {
            let flow = b.one_of(&["demote", "bootstrap", "replica_build", "rejoin"]).to_owned();
            let state = b.one_of(&["demoted", "streaming", "must_rebuild", "", "x"]).to_owned();
            Report::Ended { flow, state }
        }
        7 => Report::Applied,
        _ => Report::Done,
    }
}

pub fn recovery_end(b: &mut Bytes) -> RecoveryEnd {
    let (timeline, lsn, time) = (b.number() as u32, lsn(b), None);
    let asked = b.one_of(&["", "recovery_target_lsn = 0/3", "recovery_target = x"]).to_owned();
    let reached = b.one_of(&["", "after LSN 0/3", "no recovery target"]).to_owned();
    RecoveryEnd { timeline, lsn, time, asked, reached }
}

pub fn request(b: &mut Bytes) -> FailoverRequest {
    FailoverRequest { leader: b.some(name), candidate: b.some(name), scheduled_at: None }
}

fn sync_step(b: &mut Bytes) -> SyncStep {
    let sync = sync(b);
    match b.flag() {
        true => SyncStep::Publish(Some(sync)),
        false => SyncStep::Apply(sync.sync_standby.join(",")),
    }
}

fn sync(b: &mut Bytes) -> Sync {
    let (sync_standby, leader) = (b.few(2, name), name(b));
    Sync { sync_standby, leader, ..Sync::default() }
}

fn standing(b: &mut Bytes) -> LeaseStatus {
    match b.below(4) {
        0 => LeaseStatus::Nobody,
        1 => LeaseStatus::Theirs { leader: b.some(name) },
        _ => LeaseStatus::Mine { epoch: b.number(), creates: b.flag() },
    }
}

fn remote_relation(b: &mut Bytes) -> RemoteRelation {
    b.one_of(&[
        RemoteRelation::Unknown,
        RemoteRelation::Silent,
        RemoteRelation::Foreign,
        RemoteRelation::Same,
    ])
}

fn offer(b: &mut Bytes) -> Offer {
    let kind = b.one_of(&[OfferKind::CloneFrom, OfferKind::Leader, OfferKind::Member]);
    Offer { source: source(b), kind }
}

/// Any situation, also ones that cannot be.
pub fn situation(b: &mut Bytes) -> Situation {
    Situation {
        config_version: b.number() % 8,
        lease: standing(b),
        initialized: b.some(identifier),
        upstream: b.some(source),
        clone_offers: b.few(2, offer),
        postmaster_alive: b.flag(),
        guarded: b.flag(),
        in_recovery: b.some(Bytes::flag),
        hand_over: b.some(|b| HandOver { request: request(b), candidate: b.some(name) }),
        requests: OperatorRequests {
            restart: b.flag(),
            reinitialize: b.flag(),
            build: ReinitOptions::default(),
            cancel_build: b.below(8) == 7,
            stop: b.below(4) == 3,
        },
        rules: RejoinRules::default(),
        pre_promote: b.flag(),
        sync_step: b.some(sync_step),
        remote: b.some(remote),
        remote_relation: remote_relation(b),
        behind_remote: b.flag(),
        timeline: b.below(9) as u32,
        set_aside: b.below(9) as u32,
        remote_writes: b.flag(),
        may_be_promoted: b.flag(),
        never_followed: b.flag(),
        another_can_lead: b.flag(),
        data_is_gone: b.below(8) == 7,
        timeline_behind_since: b.some(|b| b.below(4) as u32),
        sync_version: b.below(4) as u64,
        sync_barrier: b.some(sync),
        armed: b.some(Bytes::number),
        stranger: b.below(8) == 7,
    }
}
