//! The operator's callbacks: told of starts, stops, reloads and changes of role, never during
//! bootstrap; a change of role takes the place of the start that brought it about.
use std::rc::Rc;

use super::World;
use crate::host::postgres::callback::Action;
use crate::pure::postgres::state::Role;

fn call(world: &Rc<World>, action: Action, role: Role) {
    let callbacks = world.settings().callbacks;
    let command = match action {
        Action::OnStart => callbacks.on_start,
        Action::OnStop => callbacks.on_stop,
        Action::OnRestart => callbacks.on_restart,
        Action::OnReload => callbacks.on_reload,
        Action::OnRoleChange => callbacks.on_role_change,
    };
    let creating = world.view().cluster.system_identifier().is_none();
    if let Some(command) = command.filter(|_| !creating) {
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

pub fn stopped(world: &Rc<World>, role: Role) {
    if world.seen.borrow().node_state != "restarting" {
        let switching = world.seen.borrow().node_state == "switching_over";
        let told = if switching && role == Role::Primary { Role::Demoted } else { role };
        call(world, Action::OnStop, told);
    }
}

pub fn reloaded(world: &Rc<World>) {
    let role = world.seen.borrow().role;
    call(world, Action::OnReload, role);
}
