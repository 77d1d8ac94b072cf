//! A new cluster: initdb or a custom method, and the script that finishes it.
use std::path::Path;
use std::time::Duration;

use super::bootstrap_marker::{BootstrapMarker, Phase};
use super::processes::{self, blocking, kill_all};
use super::program::Output;
use super::{Connection, Server};
use crate::pure::config::option::INITDB_FORBIDDEN;
use crate::pure::config::{CustomMethod, Secret};
use crate::pure::postgres::conninfo::conninfo;

/// Names one run of a method in the environment of all that it starts.
const WORK: &str = "SURUS_WORK";
/// A script that loads data shall not wait for standbys that are not there.
pub const POST_BOOTSTRAP_OPTIONS: &str = "-c synchronous_commit=local -c statement_timeout=0";
const CHILDREN_END: Duration = Duration::from_secs(10);

impl Server {
    /// Creates an empty cluster. The data directory must be empty; until [`Server::seal`] it counts
    /// as unfinished. `options` are ready arguments, `--name` or `--name=value`.
    pub async fn begin_initdb(
        &self,
        options: &[String],
        superuser: &str,
        password: Option<&Secret>,
    ) -> Result<Output, String> {
        let known = self.options_of("initdb").await?;
        for option in options {
            let name = option_name(option);
            if INITDB_FORBIDDEN.contains(&name) || !known.contains(name) {
                return Err(format!(
                    "bootstrap.initdb: initdb cannot be given `--{name}`: remove it"
                ));
            }
        }
        let bootstrap_marker = BootstrapMarker::of_initdb();
        let target = self.begin_fill(&bootstrap_marker.text()).await?;
        let mut program = self.tool("initdb").args(initdb_arguments(options, superuser));
        if let Some(password) = password {
            program = program.secret_arg("pwfile", &format!("{}\n", password.0))?;
        }
        let output = program.arg("-D").arg(&target.path).run().await?;
        self.fill_ended(target, Some(bootstrap_marker.at(Phase::Restored).text())).await?;
        Ok(output)
    }

    /// The same for a cluster that needs nothing more.
    pub async fn initdb(
        &self,
        options: &[String],
        superuser: &str,
        password: Option<&Secret>,
    ) -> Result<(), String> {
        self.begin_initdb(options, superuser, password).await?;
        self.seal().await
    }

    /// Runs a custom bootstrap method; what it made is judged by [`Server::verify_copy`].
    pub async fn custom_bootstrap(
        &self,
        method: &CustomMethod,
        scope: &str,
    ) -> Result<Output, String> {
        let bootstrap_marker = BootstrapMarker::of_method(method);
        let word = format!("bootstrap {}", self.data_dir.display());
        let program = self.script(&method.command)?.env(WORK, &word);
        end_carriers(&word).await?;
        let absent = !self.files().exists(&self.data_dir);
        let target = self.begin_restore(&bootstrap_marker.text()).await?;
        let ended = program.args(bootstrap_arguments(method, scope, &self.data_dir)).run().await;
        end_carriers(&word).await?;
        let output = ended?;
        if absent && self.data_dir.is_symlink() {
            // The guard knows the server by the place where it lives.
            return Err(format!(
                "{} became a symbolic link: make the link before, so that Surus knows what it guards",
                self.data_dir.display()
            ));
        }
        self.fill_ended(target, Some(bootstrap_marker.at(Phase::Restored).text())).await?;
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
        let _lent = self.lend_passfile(passfile).await?;
        let mut program = self.script(command)?.arg(dsn).env("PGOPTIONS", POST_BOOTSTRAP_OPTIONS);
        if let Some((name, path)) = self.passfile_env(passfile) {
            program = program.env(name, path);
        }
        program.run().await
    }
}

/// What the user's options come to, with the superuser's name.
pub fn initdb_arguments(options: &[String], superuser: &str) -> Vec<String> {
    let user = (!superuser.is_empty()).then(|| format!("--username={superuser}"));
    options.iter().cloned().chain(user).collect()
}

/// How post_bootstrap is told of the new cluster; the password is in its PGPASSFILE.
pub fn script_dsn(to: &Connection) -> String {
    let port = to.port.to_string();
    let first = [
        ("dbname", to.database.as_str()),
        ("user", to.user.as_str()),
        ("host", to.host.as_str()),
        ("port", port.as_str()),
    ];
    let own = to.options.iter().map(|(key, value)| (key.as_str(), value.as_str()));
    conninfo(first.into_iter().chain(own.filter(|(key, _)| *key != "sslpassword")))
}

impl Server {
    /// The way to the running server for a program that runs as its account: by the socket where
    /// that is wanted and there is one.
    ///
    /// # Errors
    /// The lock file cannot be read.
    pub async fn script_connection(&self) -> Result<Connection, String> {
        let mut to = self.connection.clone();
        if to.socket.is_some() {
            let server = self.clone();
            let file = blocking(move || server.pid_file()).await??;
            if let Some(dir) = file.and_then(|file| file.socket_dir) {
                to.host = dir;
            }
        }
        Ok(to)
    }
}

/// Children that left the method's group might go on writing.
async fn end_carriers(word: &str) -> Result<usize, String> {
    let left = format!("{WORK}={word}");
    blocking(move || kill_all(|| processes::carriers(&left), false, CHILDREN_END)).await?
}

/// `--scope`, `--datadir` unless `no_params`, then the section's further keys.
pub fn bootstrap_arguments(method: &CustomMethod, scope: &str, data_dir: &Path) -> Vec<String> {
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

    /// Spec: B-11.
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
