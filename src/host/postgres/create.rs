//! A new cluster: initdb or a custom method, and the script that finishes it.
use std::path::Path;

use super::Server;
use super::program::Output;
use crate::pure::config::{CustomMethod, Secret};

/// Options that would break what we promise about the new cluster.
const INITDB_FORBIDDEN: [&str; 5] = ["pgdata", "nosync", "pwfile", "sync-only", "version"];

impl Server {
    /// Creates an empty cluster. The data directory must be empty; until the end it counts as
    /// unfinished. `options` are ready arguments, `--name` or `--name=value`.
    pub async fn initdb(
        &self,
        options: &[String],
        superuser: &str,
        password: Option<&Secret>,
    ) -> Result<(), String> {
        let known = self.options_of("initdb").await?;
        for option in options {
            let name = option_name(option);
            if INITDB_FORBIDDEN.contains(&name) || !known.contains(name) {
                return Err(format!(
                    "bootstrap.initdb: initdb cannot be given `--{name}`: remove it"
                ));
            }
        }
        let target = self.begin_fill("initdb", false).await?;
        let mut program = self.tool("initdb").args(options.iter().cloned());
        if !superuser.is_empty() {
            program = program.arg(format!("--username={superuser}"));
        }
        if let Some(password) = password {
            program = program.secret_arg("pwfile", &format!("{}\n", password.0))?;
        }
        program.arg("-D").arg(&target.path).run().await?;
        self.end_fill(target).await
    }

    /// Runs a custom bootstrap method; what it made is judged by [`Server::verify_copy`].
    pub async fn custom_bootstrap(
        &self,
        method: &CustomMethod,
        scope: &str,
    ) -> Result<Output, String> {
        let target = self.begin_fill(&method.name, true).await?;
        let program = self.script(&method.command)?;
        let output = program.args(bootstrap_arguments(method, scope, &self.data_dir)).run().await?;
        self.end_fill(target).await?;
        Ok(output)
    }

    /// Runs the user's script against the new cluster. `dsn` is keyword/value text without a
    /// password; `passfile` the line that holds it.
    pub async fn post_bootstrap(
        &self,
        command: &str,
        dsn: &str,
        passfile: &str,
    ) -> Result<Output, String> {
        self.write_passfile(passfile).await?;
        let mut program = self
            .script(command)?
            .arg(dsn)
            .env("PGOPTIONS", "-c synchronous_commit=local -c statement_timeout=0");
        if let Some((name, path)) = self.passfile_env(passfile) {
            program = program.env(name, path);
        }
        program.run().await
    }
}

/// `--scope`, `--datadir` unless `no_params`, then the section's further keys.
fn bootstrap_arguments(method: &CustomMethod, scope: &str, data_dir: &Path) -> Vec<String> {
    let mut arguments = Vec::new();
    if !method.no_params {
        arguments.push(format!("--scope={scope}"));
        arguments.push(format!("--datadir={}", data_dir.display()));
    }
    let ours = |key: &str| {
        matches!(
            key,
            "command"
                | "no_params"
                | "keep_existing_recovery_conf"
                | "recovery_conf"
                | "scope"
                | "datadir"
        )
    };
    let extra = method.extra.iter().filter(|(key, _)| !ours(key));
    arguments.extend(extra.map(|(key, value)| format!("--{key}={value}")));
    arguments
}

/// `name` of `--name=value`.
pub fn option_name(option: &str) -> &str {
    let name = option.trim_start_matches('-');
    name.split('=').next().unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn custom_bootstrap_gets_scope_and_datadir_first() {
        let mut method = CustomMethod {
            extra: vec![("target".into(), "True".into()), ("scope".into(), "x".into())],
            ..CustomMethod::default()
        };
        let arguments = bootstrap_arguments(&method, "demo", Path::new("/data/pg"));
        assert_eq!(arguments, ["--scope=demo", "--datadir=/data/pg", "--target=True"]);
        method.no_params = true;
        let arguments = bootstrap_arguments(&method, "demo", Path::new("/data/pg"));
        assert_eq!(arguments, ["--target=True"]);
    }

    #[test]
    fn option_names() {
        assert_eq!(option_name("--data-checksums"), "data-checksums");
        assert_eq!(option_name("--encoding=UTF8"), "encoding");
    }
}
