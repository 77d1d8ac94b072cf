//! How a replica method of the user's is called.
use std::path::Path;

use crate::pure::config::ReplicaMethod;

/// What every method is told of the cluster, unless it has `no_params`.
#[derive(Clone, Debug)]
pub struct MethodCall<'a> {
    pub scope: &'a str,
    pub data_dir: &'a Path,
    /// libpq keyword/value text without a password; empty without a source.
    pub connstring: &'a str,
}

/// Keys that steer us, and that a method without parameters does not hear of.
const OURS: [&str; 3] = ["no_params", "no_leader", "keep_data"];

/// The command line's words before the arguments: the command, or the method's name itself.
pub fn command(method: &ReplicaMethod) -> &str {
    if method.command.is_empty() { &method.name } else { &method.command }
}

/// `--key=value` for every key in file order, then the four of the cluster; a key of that name
/// keeps its place but not its value.
pub fn arguments(method: &ReplicaMethod, call: &MethodCall<'_>) -> Vec<String> {
    let mut pairs: Vec<(String, String)> = method
        .extra
        .iter()
        .filter(|(key, _)| key != "command" && !(method.no_params && OURS.contains(&key.as_str())))
        .cloned()
        .collect();
    if !method.no_params {
        let cluster = [
            ("scope", call.scope.to_owned()),
            ("role", "replica".to_owned()),
            ("datadir", call.data_dir.display().to_string()),
            ("connstring", call.connstring.to_owned()),
        ];
        for (key, value) in cluster {
            match pairs.iter_mut().find(|(present, _)| present == key) {
                Some(pair) => pair.1 = value,
                None => pairs.push((key.to_owned(), value)),
            }
        }
    }
    pairs.into_iter().map(|(key, value)| format!("--{key}={value}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn method(no_params: bool) -> ReplicaMethod {
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        let flag = if no_params { "True" } else { "False" };
        ReplicaMethod {
            name: "restore".into(),
            no_params,
            extra: vec![
                pair("keep_data", "True"),
                pair("datadir", "/mine"),
                pair("stanza", "demo"),
                pair("no_params", flag),
            ],
            ..ReplicaMethod::default()
        }
    }

    fn call() -> MethodCall<'static> {
        MethodCall { scope: "batman", data_dir: Path::new("/data"), connstring: "user=r" }
    }

    /// Spec: M-10, M-11, M-12.
    #[test]
    fn the_cluster_is_told_and_overrides_in_place() {
        let expected = [
            "--keep_data=True",
            "--datadir=/data",
            "--stanza=demo",
            "--no_params=False",
            "--scope=batman",
            "--role=replica",
            "--connstring=user=r",
        ];
        assert_eq!(arguments(&method(false), &call()), expected);
    }

    /// Spec: M-6, M-11.
    #[test]
    fn without_params_only_the_users_own_keys() {
        assert_eq!(arguments(&method(true), &call()), ["--datadir=/mine", "--stanza=demo"]);
        assert_eq!(command(&method(true)), "restore");
    }
}
