//! The operator's callbacks: told of starts, stops, reloads and changes of role, never during
//! bootstrap; a change of role takes the place of the start that brought it about.
use std::rc::Rc;

use super::World;
use crate::host::postgres::callback::Action;
use crate::pure::postgres::state::Role;

fn call(world: &World, action: Action, role: Role) {
    // Until the cluster exists there is nothing to tell; then one word tells all of it.
    if world.view().cluster.system_identifier().is_some() {
        run(world, action, role);
    }
}

/// The cluster was just created here and its primary is in service.
pub fn created(world: &World) {
    let follows = world.dynamic().standby_cluster.is_some();
    let role = if follows { Role::StandbyLeader } else { Role::Primary };
    world.seen.borrow_mut().told_role = Some(role);
    run(world, Action::OnStart, role);
}

fn run(world: &World, action: Action, role: Role) {
    let callbacks = world.settings().callbacks;
    let command = match action {
        Action::OnStart => callbacks.on_start,
        Action::OnStop => callbacks.on_stop,
        Action::OnRestart => callbacks.on_restart,
        Action::OnReload => callbacks.on_reload,
        Action::OnRoleChange => callbacks.on_role_change,
    };
    if let Some(command) = command {
        let scope = world.config().scope.clone();
        world.callbacks.borrow_mut().call(action, &command, role.text(), &scope);
    }
}

/// PostgreSQL accepts connections in this role.
pub fn started(world: &Rc<World>, role: Role) {
    let before = world.seen.borrow_mut().told_role.replace(role);
    let restarting = world.seen.borrow().node_state == "restarting";
    let action = match before {
        Some(old) if old != role => Action::OnRoleChange,
        _ if restarting => Action::OnRestart,
        _ => Action::OnStart,
    };
    call(world, action, role);
}

/// A PostgreSQL that ran before this daemon is in service: told as a start, as Patroni does, and
/// so that the next change of role is one.
pub fn adopted(world: &Rc<World>) {
    let role = {
        let seen = world.seen.borrow();
        let serves =
            matches!(seen.node_state.as_str(), "leading" | "following" | "standby_leading");
        let told = seen.told_role.is_some();
        seen.sql.as_ref().filter(|_| serves && !told).map(|_| seen.role)
    };
    if let Some(role) = role {
        started(world, role);
    }
}

pub fn stopped(world: &Rc<World>, role: Role) {
    if world.seen.borrow().node_state != "restarting" {
        let state = world.seen.borrow().node_state.clone();
        let switching = matches!(state.as_str(), "switching_over" | "standing_down");
        let told = if switching && role == Role::Primary { Role::Demoted } else { role };
        call(world, Action::OnStop, told);
    }
}

/// PostgreSQL follows somebody else from now on, perhaps in another role.
pub fn pointed(world: &Rc<World>) {
    let role = world.standby_role();
    if world.seen.borrow().told_role.is_some_and(|told| told != role) {
        started(world, role);
    } else {
        reloaded(world);
    }
}

pub fn reloaded(world: &Rc<World>) {
    let role = world.seen.borrow().role;
    call(world, Action::OnReload, role);
}
