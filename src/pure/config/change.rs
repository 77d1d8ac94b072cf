//! What a changed file means for a running node: for each key that differs, whether it comes into
//! force, waits for a restart, or is refused.
//!
//! This is the one place where an old configuration becomes a new one. A value that waits for a
//! restart of Surus stays the old one in the result, so that no two parts of the daemon work with
//! different values.
//!
//! Invariant: every field of [`Config`] and of its sections has a row here; one without does not
//! compile.
use std::fmt;

use super::{Config, Ctl, Log, PostgresSettings, Postgresql, Raft, RestApi, Watchdog};

/// What becomes of a changed key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// In force.
    Now,
    /// Written; PostgreSQL reads it at its next start.
    RestartPostgresql,
    /// The old value stays until Surus is started again.
    RestartSurus,
    /// The old value stays: why the new one cannot be.
    Refused(String),
}

/// One reload: the keys that differ, each with its effect, in the order of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change(pub Vec<(&'static str, Effect)>);

impl Change {
    /// Whether `key`, or a key below it, differs.
    pub fn touches(&self, key: &str) -> bool {
        self.0.iter().any(|(changed, _)| {
            changed.strip_prefix(key).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        })
    }

    /// The new value of `key` and of all below it turned out to be impossible.
    pub fn refuse(&mut self, key: &str, why: &str) {
        for (changed, effect) in &mut self.0 {
            let below = changed.strip_prefix(key).is_some_and(|rest| !rest.starts_with('_'));
            if below {
                *effect = Effect::Refused(why.to_owned());
            }
        }
    }

    fn keys(&self, wanted: &Effect) -> Vec<&'static str> {
        self.0.iter().filter(|(_, effect)| effect == wanted).map(|(key, _)| *key).collect()
    }

    /// What is not in force although the file says it; one sentence each.
    pub fn pending(&self) -> Vec<String> {
        let mut told = Vec::new();
        for (effect, whose) in
            [(Effect::RestartSurus, "Surus"), (Effect::RestartPostgresql, "PostgreSQL")]
        {
            let keys = self.keys(&effect);
            if !keys.is_empty() {
                told.push(format!("needs a restart of {whose}: {}", keys.join(", ")));
            }
        }
        for (key, effect) in &self.0 {
            if let Effect::Refused(why) = effect {
                told.push(format!("refused: {key}: {why}"));
            }
        }
        told
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("nothing in it has changed");
        }
        let now = self.keys(&Effect::Now);
        let now = (!now.is_empty()).then(|| format!("in force: {}", now.join(", ")));
        let all: Vec<String> = now.into_iter().chain(self.pending()).collect();
        f.write_str(&all.join("; "))
    }
}

/// Compares two values of one type field by field. `Inside` has rows of its own, `Unseen` is no
/// key; a field that waits for a restart of Surus is put back.
macro_rules! compare {
    ($keys:ident, $type:ident, $old:expr, $new:expr, $($field:ident $key:literal $effect:ident,)*)
    => {
        let $type { $($field: _),* } = $old;
        $(compare!(@ $keys, $old.$field, $new.$field, $key, $effect);)*
    };
    (@ $keys:ident, $old:expr, $new:expr, $key:literal, Inside) => {};
    (@ $keys:ident, $old:expr, $new:expr, $key:literal, Unseen) => {};
    (@ $keys:ident, $old:expr, $new:expr, $key:literal, RestartSurus) => {
        if $old != $new {
            $keys.push(($key, Effect::RestartSurus));
            $new = $old.clone();
        }
    };
    (@ $keys:ident, $old:expr, $new:expr, $key:literal, $effect:ident) => {
        if $old != $new {
            $keys.push(($key, Effect::$effect));
        }
    };
}

type Keys = Vec<(&'static str, Effect)>;

/// What the node runs with after the file `new` was read over `old`, and what of it differs.
pub fn change(old: &Config, mut new: Config) -> (Config, Change) {
    let mut keys = Keys::new();
    compare!(keys, Config, old, new,
        path "" Unseen,
        scope "scope" RestartSurus,
        namespace "namespace" RestartSurus,
        name "name" RestartSurus,
        log "log" Inside,
        restapi "restapi" Inside,
        ctl "ctl" Inside,
        raft "raft" Inside,
        bootstrap "bootstrap" Now,
        postgresql "postgresql" Inside,
        tags "tags" Now,
        watchdog "watchdog" Inside,
        warnings "" Unseen,
    );
    log(&mut keys, &old.log, &new.log);
    restapi(&mut keys, &old.restapi, &new.restapi);
    ctl(&mut keys, &old.ctl, &new.ctl);
    raft(&mut keys, &old.raft, &mut new.raft);
    match (&old.postgresql, &mut new.postgresql) {
        (Some(old), Some(new)) => {
            postgresql(&mut keys, old, new);
            settings(&mut keys, &old.settings, &new.settings);
        }
        (None, None) => {}
        _ => {
            keys.push(("postgresql", Effect::RestartSurus));
            new.postgresql = old.postgresql.clone();
        }
    }
    watchdog(&mut keys, &old.watchdog, &new.watchdog);
    keys.dedup();
    (new, Change(keys))
}

fn log(keys: &mut Keys, old: &Log, new: &Log) {
    compare!(keys, Log, old, new,
        level "log.level" Now,
        kind "log.type" Now,
        dir "log.dir" Now,
        file_size_bytes "log.file_size" Now,
        file_num "log.file_num" Now,
        mode "log.mode" Now,
    );
}

fn restapi(keys: &mut Keys, old: &RestApi, new: &RestApi) {
    compare!(keys, RestApi, old, new,
        listen "restapi.listen" Now,
        connect_address "restapi.connect_address" Now,
        authentication "restapi.authentication" Now,
        http_extra_headers "restapi.http_extra_headers" Now,
        allowlist "restapi.allowlist" Now,
        allowlist_include_members "restapi.allowlist_include_members" Now,
        server_tokens "restapi.server_tokens" Now,
    );
}

fn ctl(keys: &mut Keys, old: &Ctl, new: &Ctl) {
    compare!(keys, Ctl, old, new,
        authentication "ctl.authentication" Now,
        insecure "ctl.insecure" Now,
    );
}

fn raft(keys: &mut Keys, old: &Raft, new: &mut Raft) {
    compare!(keys, Raft, old, new,
        data_dir "raft.data_dir" RestartSurus,
        self_addr "raft.self_addr" RestartSurus,
        bind_addr "raft.bind_addr" RestartSurus,
        partner_addrs "raft.partner_addrs" RestartSurus,
        password "raft.password" RestartSurus,
        voters_max "raft.voters_max" RestartSurus,
        insecure "raft.insecure" RestartSurus,
    );
}

fn postgresql(keys: &mut Keys, old: &Postgresql, new: &mut Postgresql) {
    compare!(keys, Postgresql, old, new,
        listen_addresses "postgresql.listen" RestartPostgresql,
        port "postgresql.listen" RestartPostgresql,
        connect_address "postgresql.connect_address" Now,
        data_dir "postgresql.data_dir" RestartSurus,
        bin_dir "postgresql.bin_dir" RestartSurus,
        config_dir "postgresql.config_dir" RestartSurus,
        database "postgresql.database" Now,
        pgpass "postgresql.pgpass" Now,
        superuser "postgresql.authentication.superuser" Now,
        replication "postgresql.authentication.replication" Now,
        rewind "postgresql.authentication.rewind" Now,
        settings "postgresql" Inside,
        use_unix_socket "postgresql.use_unix_socket" Now,
        custom_conf "postgresql.custom_conf" Now,
        basebackup "postgresql.basebackup" Now,
        rewind_options "postgresql.rewind" Now,
        create_replica_methods "postgresql.create_replica_methods" Now,
        spare_methods "postgresql (replica methods)" Now,
    );
}

fn settings(keys: &mut Keys, old: &PostgresSettings, new: &PostgresSettings) {
    compare!(keys, PostgresSettings, old, new,
        parameters "postgresql.parameters" Now,
        pg_hba "postgresql.pg_hba" Now,
        pg_ident "postgresql.pg_ident" Now,
        recovery_conf "postgresql.recovery_conf" Now,
        use_pg_rewind "postgresql.use_pg_rewind" Now,
        use_slots "postgresql.use_slots" Now,
        remove_data_directory_on_rewind_failure
            "postgresql.remove_data_directory_on_rewind_failure" Now,
        remove_data_directory_on_diverged_timelines
            "postgresql.remove_data_directory_on_diverged_timelines" Now,
        callbacks "postgresql.callbacks" Now,
        pre_promote "postgresql.pre_promote" Now,
        before_stop "postgresql.before_stop" Now,
        pg_ctl_timeout "postgresql.pg_ctl_timeout" Now,
    );
}

fn watchdog(keys: &mut Keys, old: &Watchdog, new: &Watchdog) {
    compare!(keys, Watchdog, old, new,
        mode "watchdog.mode" Now,
        device "watchdog.device" Now,
        safety_margin_s "watchdog.safety_margin" Now,
    );
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use super::super::load;
    use super::*;

    const FILE: &str = "
scope: batman
name: n1
log: {level: INFO}
restapi: {listen: '10.0.0.1:8008', authentication: {username: a, password: old-rest}}
raft: {data_dir: /d, self_addr: '10.0.0.1:2380', password: old-raft}
postgresql:
  listen: 10.0.0.1:5432
  data_dir: /data
  authentication:
    superuser: {username: postgres, password: old-super}
    replication: {username: rep, password: old-repl}
";

    fn read(text: &str) -> Config {
        load(Path::new("f"), text, &BTreeMap::new()).expect("a good file")
    }

    fn changed(from: &str, to: &str) -> (Config, Change) {
        change(&read(FILE), read(&FILE.replace(from, to)))
    }

    #[test]
    fn a_reload_says_per_key_what_becomes_of_it() {
        assert_eq!(changed("", "").1.to_string(), "nothing in it has changed");
        let told = |from: &str, to: &str| changed(from, to).1.to_string();
        assert_eq!(told("INFO", "DEBUG"), "in force: log.level");
        assert_eq!(told("old-super", "x"), "in force: postgresql.authentication.superuser");
        assert_eq!(told("old-raft", "x"), "needs a restart of Surus: raft.password");
        assert_eq!(
            told("10.0.0.1:5432", "10.0.0.1:6432"),
            "in force: postgresql.connect_address; needs a restart of PostgreSQL: \
             postgresql.listen"
        );
    }

    #[test]
    fn what_waits_for_a_restart_of_surus_keeps_its_old_value() {
        let (config, change) = changed("/d,", "/elsewhere,");
        assert_eq!(config.raft.data_dir, Path::new("/d"));
        assert_eq!(change.pending(), ["needs a restart of Surus: raft.data_dir"]);
        let (config, _) = changed("n1", "n2");
        assert_eq!(config.name, "n1");
        let witness = &FILE[..FILE.find("postgresql:").expect("it has the section")];
        let (config, change) = change_of(FILE, witness);
        assert!(config.postgresql.is_some());
        assert_eq!(change.to_string(), "needs a restart of Surus: postgresql");
    }

    fn change_of(old: &str, new: &str) -> (Config, Change) {
        change(&read(old), read(new))
    }

    #[test]
    fn secrets_are_compared_and_never_said() {
        for (from, to) in [("old-rest", "n"), ("old-raft", "n"), ("old-repl", "n")] {
            let (_, change) = changed(from, to);
            assert!(!change.0.is_empty(), "{from}");
            assert!(!change.to_string().contains("old-"), "{change}");
        }
    }

    #[test]
    fn a_value_that_turns_out_to_be_impossible_is_refused_with_its_reason() {
        let (_, mut change) = changed("8008", "8009");
        assert!(change.touches("restapi") && change.touches("restapi.listen"));
        assert!(!change.touches("rest") && !change.touches("log"));
        change.refuse("restapi.listen", "the port is in use");
        assert_eq!(change.pending(), ["refused: restapi.listen: the port is in use"]);
    }
}
