//! The restore_command that a replica method's tool wrote, kept where its section says so.
//!
//! It does not stay in postgresql.auto.conf, where it would win over our own files for ever, but lies
//! beside the data directory and is written into every standby's settings that name none.
use std::path::PathBuf;

use super::Server;
use super::conf_files::write_if_changed;
use super::inspect::{read_optional, remove_optional};
use super::processes::blocking;
use crate::pure::postgres::recovery::setting_in;

const NAME: &str = "restore_command";

impl Server {
    /// What the tool left in postgresql.auto.conf.
    pub async fn restore_command_of_tool(&self) -> Result<Option<String>, String> {
        let path = self.data_dir.join("postgresql.auto.conf");
        let text = blocking(move || read_optional(&path)).await??.unwrap_or_default();
        Ok(setting_in(&text, NAME).filter(|command| !command.is_empty()))
    }

    /// From now on, for as long as this copy lives; nothing forgets what an earlier copy brought.
    pub async fn keep_restore_command(&self, command: Option<String>) -> Result<(), String> {
        let (path, owner) = (self.kept(), self.run_as.clone());
        blocking(move || match command {
            Some(command) => write_if_changed(&path, &command, owner.as_ref()),
            None => remove_optional(&path),
        })
        .await?
    }

    /// What was kept. Blocks, for as long as a small file takes.
    pub fn kept_restore_command(&self) -> Option<String> {
        read_optional(&self.kept()).ok().flatten()
    }

    fn kept(&self) -> PathBuf {
        self.state_dir.join(NAME)
    }
}
