//! What PostgreSQL runs with: the dynamic configuration and, over it, the node's own file.

use serde_json::{Map, Value};

use super::{Callbacks, Dynamic, PgUser, PostgresSettings, Postgresql};
use crate::pure::postgres::owned::is_owned;

/// Merges key by key: the local file wins, except for the parameters that must be equal on all
/// nodes, which only the dynamic configuration sets. `use_slots` is dynamic alone.
pub fn effective(config: &Postgresql, dynamic: &Dynamic) -> PostgresSettings {
    let (local, all) = (&config.settings, &dynamic.postgresql);
    PostgresSettings {
        parameters: parameters(&local.parameters, &all.parameters),
        pg_hba: over(&local.pg_hba, &all.pg_hba),
        pg_ident: over(&local.pg_ident, &all.pg_ident),
        recovery_conf: maps(&local.recovery_conf, &all.recovery_conf),
        use_pg_rewind: local.use_pg_rewind.or(all.use_pg_rewind),
        use_slots: all.use_slots,
        remove_data_directory_on_rewind_failure: local
            .remove_data_directory_on_rewind_failure
            .or(all.remove_data_directory_on_rewind_failure),
        remove_data_directory_on_diverged_timelines: local
            .remove_data_directory_on_diverged_timelines
            .or(all.remove_data_directory_on_diverged_timelines),
        callbacks: callbacks(&local.callbacks, &all.callbacks),
        pre_promote: over(&local.pre_promote, &all.pre_promote),
        before_stop: over(&local.before_stop, &all.before_stop),
        pg_ctl_timeout: local.pg_ctl_timeout.or(all.pg_ctl_timeout),
    }
}

impl Postgresql {
    /// Who runs pg_rewind's queries: the rewind user, else the superuser.
    pub fn rewind_user(&self) -> &PgUser {
        self.rewind.as_ref().unwrap_or(&self.superuser)
    }
}

fn over<T: Clone>(local: &Option<T>, all: &Option<T>) -> Option<T> {
    local.clone().or_else(|| all.clone())
}

fn maps(local: &Map<String, Value>, all: &Map<String, Value>) -> Map<String, Value> {
    let mut merged = all.clone();
    merged.extend(local.clone());
    merged
}

/// Names of parameters are equal in any case, so a local one replaces all its spellings.
fn parameters(local: &Map<String, Value>, all: &Map<String, Value>) -> Map<String, Value> {
    let local = local.iter().filter(|(name, _)| !is_owned(name));
    let mut merged = all.clone();
    for (name, value) in local {
        merged.retain(|other, _| !other.eq_ignore_ascii_case(name));
        merged.insert(name.clone(), value.clone());
    }
    merged
}

fn callbacks(local: &Callbacks, all: &Callbacks) -> Callbacks {
    Callbacks {
        on_start: over(&local.on_start, &all.on_start),
        on_stop: over(&local.on_stop, &all.on_stop),
        on_restart: over(&local.on_restart, &all.on_restart),
        on_reload: over(&local.on_reload, &all.on_reload),
        on_role_change: over(&local.on_role_change, &all.on_role_change),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn map(value: Value) -> Map<String, Value> {
        value.as_object().cloned().expect("a map")
    }

    #[test]
    fn local_wins_except_for_what_must_be_equal_everywhere() {
        let local = map(json!({"Work_Mem": "2MB", "max_connections": 7, "MAX_WAL_SENDERS": 1}));
        let all = map(json!({"work_mem": "1MB", "max_connections": 200, "a.b": 1}));
        let expected = map(json!({"max_connections": 200, "a.b": 1, "Work_Mem": "2MB"}));
        assert_eq!(parameters(&local, &all), expected);
    }

    #[test]
    fn callbacks_merge_one_by_one() {
        let local = Callbacks { on_start: Some("a".into()), ..Callbacks::default() };
        let all = Callbacks {
            on_start: Some("b".into()),
            on_stop: Some("c".into()),
            ..Callbacks::default()
        };
        let merged = callbacks(&local, &all);
        assert_eq!((merged.on_start.as_deref(), merged.on_stop.as_deref()), (Some("a"), Some("c")));
    }
}
