//! pg_rewind: a diverged cluster made to follow another one.
use super::Server;
use super::conf_files::Signal;
use super::create::option_name;
use super::processes::blocking;
use super::replica::Remote;
use crate::pure::config::option::REWIND_FORBIDDEN;

/// pg_rewind says this just before it changes the first file.
const FIRST_CHANGE: &str = "need to copy";

impl Server {
    /// Rewinds the stopped data directory to where the source's history leaves ours.
    ///
    /// While it runs the directory counts as unfinished (`rewind`). A failure before the first
    /// change takes that mark away again; a failure after it leaves it, as the data is mixed then.
    pub async fn rewind(&self, from: &Remote, options: &[String]) -> Result<(), String> {
        let known = self.options_of("pg_rewind").await?;
        for option in options {
            let name = option_name(option);
            if REWIND_FORBIDDEN.contains(&name) || !known.contains(name) {
                return Err(format!("postgresql.rewind: pg_rewind cannot be given `--{name}`"));
            }
        }
        let missing_wal = self.missing_wal().await?;
        self.write_passfile(&from.passfile).await?;
        let mut program = self
            .tool("pg_rewind")
            .arg(format!("--target-pgdata={}", self.data_dir.display()))
            .arg(format!("--source-server={}", from.conninfo))
            .arg("--progress")
            .args(options.iter().cloned().chain(missing_wal));
        if let Some((name, path)) = self.passfile_env(&from.passfile) {
            program = program.env(name, path);
        }
        let control = self.control().await?;
        let crashed = control.out_of_recovery() && !control.clean();
        let server = self.clone();
        blocking(move || server.begin_rewind(crashed)).await??;
        let mut changing = false;
        let ended = program
            .run_with(&mut |_, line| {
                changing |= line.contains(FIRST_CHANGE);
                !line.contains(" kB (")
            })
            .await;
        if ended.is_ok() || !changing {
            let server = self.clone();
            blocking(move || server.mark_finished()).await??;
        }
        ended.map(|_| ())
    }

    /// WAL that is gone here is fetched by restore_command, where the files name one. Before
    /// PostgreSQL 15 pg_rewind looks for them in the data directory only.
    async fn missing_wal(&self) -> Result<Vec<String>, String> {
        let named = self.major().await? >= 15;
        if !named && self.config_dir() != self.data_dir.as_path() {
            return Ok(Vec::new());
        }
        let file = self.config_dir().join("postgresql.conf").display().to_string();
        let data_dir = self.data_dir.display().to_string();
        let ask = ["-D", &data_dir, "-C", "restore_command", "-c", &format!("config_file={file}")];
        let answer = self.tool("postgres").args(ask).run().await?.stdout;
        if answer.trim().is_empty() {
            return Ok(Vec::new());
        }
        let own_file = named.then(|| format!("--config-file={file}"));
        Ok(std::iter::once(String::from("--restore-target-wal")).chain(own_file).collect())
    }

    fn begin_rewind(&self, crashed: bool) -> Result<(), String> {
        if let Some(pid) = self.presence()?.postmaster {
            return Err(format!("PostgreSQL runs as process {pid}: stop it before rewinding"));
        }
        if let Some(work) = self.unfinished()? {
            return Err(format!("an unfinished {work} cannot be rewound: copy the cluster anew"));
        }
        if self.files().is_there(&self.data_dir.join("backup_label"))? {
            return Err(String::from(
                "a backup_label lies here: this is a backup that has not been recovered yet, which \
                 needs its primary's WAL and no crash recovery: copy the cluster anew",
            ));
        }
        self.end_orphans()?;
        if crashed {
            // pg_rewind runs crash recovery first, which no standby can do.
            self.write_signal(Signal::None)?;
        }
        self.mark_unfinished("rewind")
    }
}
