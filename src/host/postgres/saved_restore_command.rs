//! The restore_command that a replica method's tool wrote, kept where its section says so.
//!
//! It does not stay in postgresql.auto.conf, where it would win over our own files for ever, but lies
//! beside the data directory and is written into every standby's settings that name none.
use std::path::PathBuf;

use super::Server;
use super::processes::blocking;
use crate::pure::postgres::recovery::setting_in;

const NAME: &str = "restore_command";

impl Server {
    /// What the tool left in postgresql.auto.conf.
    pub async fn restore_command_of_tool(&self) -> Result<Option<String>, String> {
        let server = self.clone();
        let read = move || server.files().read(&server.data_dir.join("postgresql.auto.conf"));
        let text = blocking(read).await??.unwrap_or_default();
        Ok(setting_in(&text, NAME).filter(|command| !command.is_empty()))
    }

    /// From now on, for as long as this copy lives; nothing forgets what an earlier copy brought.
    pub async fn keep_restore_command(&self, command: Option<String>) -> Result<(), String> {
        let (server, path) = (self.clone(), self.kept());
        blocking(move || match command {
            Some(command) => server.files().write_if_changed(&path, &command),
            None => server.files().remove(&path),
        })
        .await?
    }

    /// What was kept. Blocks, for as long as a small file takes.
    pub fn kept_restore_command(&self) -> Option<String> {
        self.files().read(&self.kept()).ok().flatten()
    }

    fn kept(&self) -> PathBuf {
        self.state_dir.join(NAME)
    }
}
