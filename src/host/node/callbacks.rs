//! The operator's callbacks: told of starts, stops, reloads and changes of role, never during
//! bootstrap; a change of role takes the place of the start that brought it about.
use std::rc::Rc;

use serde_json::Value;

use super::NodeContext;
use crate::host::postgres::callback::Action;
use crate::pure::cluster::facts::Phase;
use crate::pure::config::Dynamic;
use crate::pure::flow::node::State;
use crate::pure::postgres::state::Role;

fn call(context: &NodeContext, action: Action, role: Role) {
    // Until the cluster exists there is nothing to tell; then one word tells all of it.
    if context.view().cluster.system_identifier().is_some() {
        run(context, action, role);
    }
}

/// The cluster was just created here and its primary is in service.
pub fn created(context: &NodeContext) {
    let (view, file) = (context.view(), context.config());
    let first = file.bootstrap.as_ref().map(|bootstrap| &bootstrap.dcs);
    let role = role_at_creation(view.cluster.config.as_ref().or(first));
    context.seen.borrow_mut().told_role = Some(role);
    run(context, Action::OnStart, role);
}

/// What is in force on the node may be older than the cluster: its first configuration is what
/// counts, from the log where that says it already, else from the file it was taken from.
fn role_at_creation(config: Option<&Value>) -> Role {
    match Dynamic::from_value(config).standby_cluster {
        Some(_) => Role::StandbyLeader,
        None => Role::Primary,
    }
}

fn run(context: &NodeContext, action: Action, role: Role) {
    let callbacks = context.settings().callbacks;
    let command = match action {
        Action::OnStart => callbacks.on_start,
        Action::OnStop => callbacks.on_stop,
        Action::OnRestart => callbacks.on_restart,
        Action::OnReload => callbacks.on_reload,
        Action::OnRoleChange => callbacks.on_role_change,
    };
    if let Some(command) = command {
        let scope = context.config().scope.clone();
        context.callbacks.borrow_mut().call(action, &command, role.text(), &scope);
    }
}

/// PostgreSQL accepts connections in this role.
pub fn started(context: &Rc<NodeContext>, role: Role) {
    let (before, restarting) = {
        let mut seen = context.seen.borrow_mut();
        seen.told_stop = false;
        (seen.told_role.replace(role), seen.phase() == Phase::Restarting)
    };
    call(context, of_start(before, role, restarting), role);
}

fn of_start(before: Option<Role>, role: Role, restarting: bool) -> Action {
    match before {
        Some(old) if old != role => Action::OnRoleChange,
        _ if restarting => Action::OnRestart,
        _ => Action::OnStart,
    }
}

/// The server as it is now: the last look may be older than the lease.
fn role_now(context: &NodeContext) -> Role {
    let standby = context.standby_role();
    let seen = context.seen.borrow();
    let in_recovery = seen.sql.as_ref().map(|sql| sql.in_recovery);
    if in_recovery == Some(true) { standby } else { seen.role }
}

/// At every cycle: a leader whose server is gone, and its lease too, leads no more. Nothing was
/// stopped, so no `on_stop` said it; whoever holds an address for this role must let it go.
pub fn gave_up(context: &NodeContext) {
    let held = context.view().lease.held;
    let over = {
        let seen = context.seen.borrow();
        leads_no_more(seen.told_role, seen.told_stop, seen.postmaster_alive, held)
    };
    if over {
        context.seen.borrow_mut().told_role = Some(Role::Demoted);
        call(context, Action::OnRoleChange, Role::Demoted);
    }
}

fn leads_no_more(told: Option<Role>, told_stop: bool, alive: bool, held: bool) -> bool {
    matches!(told, Some(Role::Primary | Role::StandbyLeader)) && !told_stop && !alive && !held
}

/// A PostgreSQL that ran before this daemon is in service: told as a start, as Patroni does, and
/// so that the next change of role is one.
pub fn adopted(context: &Rc<NodeContext>) {
    let untold = {
        let seen = context.seen.borrow();
        let serves = seen.phase().serves();
        let told = seen.told_role.is_some();
        seen.sql.is_some() && serves && !told
    };
    if untold {
        started(context, role_now(context));
    }
}

pub fn stopped(context: &Rc<NodeContext>, role: Role) {
    let state = context.seen.borrow().node_state;
    if state != Some(State::Restarting) {
        let switching = matches!(state, Some(State::SwitchingOver | State::SteppingDown));
        let told = if switching && role == Role::Primary { Role::Demoted } else { role };
        context.seen.borrow_mut().told_stop = true;
        call(context, Action::OnStop, told);
    }
}

/// PostgreSQL follows somebody else from now on, perhaps in another role.
pub fn pointed(context: &Rc<NodeContext>) {
    let role = context.standby_role();
    if context.seen.borrow().told_role.is_some_and(|told| told != role) {
        started(context, role);
    } else {
        reloaded(context);
    }
}

pub fn reloaded(context: &Rc<NodeContext>) {
    call(context, Action::OnReload, role_now(context));
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Spec: HK-1.
    #[test]
    fn a_crashed_leader_that_lost_its_lease_is_told_once() {
        let (leads, stands) = (Some(Role::Primary), Some(Role::StandbyLeader));
        assert!(leads_no_more(leads, false, false, false));
        assert!(leads_no_more(stands, false, false, false));
        assert!(!leads_no_more(leads, false, false, true), "it is being brought back");
        assert!(!leads_no_more(leads, true, false, false), "on_stop said it");
        assert!(!leads_no_more(leads, false, true, false), "it runs: on_stop comes");
        for told in [None, Some(Role::Demoted), Some(Role::Replica)] {
            assert!(!leads_no_more(told, false, false, false), "{told:?}");
        }
        assert_eq!(of_start(Some(Role::Demoted), Role::Replica, false), Action::OnRoleChange);
        assert_eq!(of_start(Some(Role::Demoted), Role::Primary, false), Action::OnRoleChange);
    }

    #[test]
    fn a_start_that_changes_the_role_is_only_that() {
        assert_eq!(of_start(None, Role::StandbyLeader, false), Action::OnStart);
        assert_eq!(of_start(Some(Role::Primary), Role::Primary, false), Action::OnStart);
        assert_eq!(of_start(Some(Role::Primary), Role::Primary, true), Action::OnRestart);
        let (replica, leads) = (Some(Role::Replica), Role::StandbyLeader);
        assert_eq!(of_start(replica, leads, true), Action::OnRoleChange);
    }

    #[test]
    fn a_cluster_that_follows_another_begins_as_that() {
        let follows = json!({"standby_cluster": {"host": "10.1.0.1", "port": 5432}});
        assert_eq!(role_at_creation(Some(&follows)), Role::StandbyLeader);
        assert_eq!(role_at_creation(Some(&json!({"ttl": 20}))), Role::Primary);
        assert_eq!(role_at_creation(None), Role::Primary);
    }
}
