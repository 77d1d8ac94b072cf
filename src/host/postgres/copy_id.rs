//! Which copy of the cluster lies here: a number in a file beside the data, drawn when it was made.
//!
//! Synchronous standbys are counted on by name, and what lies under a name may be another copy today. The
//! file is in the data directory, so that it goes where the data goes; whoever copies that copies the
//! number, too, and draws its own before a server runs on it.
use super::Server;
use super::processes::blocking;
use crate::host::rng::random_id;
use crate::pure::cluster::state::CopyId;

const FILE: &str = "surus.copy";
/// The same number in the state directory: this node, in this life of its state, knows the copy as its own.
const NOTE: &str = "copy";

impl Server {
    /// This is a copy of its own from now on; its number.
    pub async fn name_copy(&self) -> Result<CopyId, String> {
        let (server, id) = (self.clone(), random_id());
        blocking(move || {
            let text = format!("{id:016x}\n");
            server.files().write_note(&server.state_dir.join(NOTE), &text)?;
            server.files().write(&server.data_dir.join(FILE), &text)
        })
        .await??;
        Ok(id)
    }

    /// Its number, drawn now where it has none of ours.
    pub async fn number_copy(&self) -> Result<CopyId, String> {
        match self.copy_id().await {
            0 => self.name_copy().await,
            known if self.knows_copy(known).await? => Ok(known),
            _ => self.name_copy().await,
        }
    }

    /// This state directory saw that number given. One that an earlier cluster, an earlier state directory or
    /// the server that was copied from left in the data directory says nothing about us.
    ///
    /// # Errors
    /// The note cannot be read.
    pub async fn knows_copy(&self, id: CopyId) -> Result<bool, String> {
        let server = self.clone();
        let read = move || server.files().read(&server.state_dir.join(NOTE));
        let noted = blocking(read).await??;
        let noted = noted.and_then(|text| CopyId::from_str_radix(text.trim(), 16).ok());
        Ok(id != 0 && noted == Some(id))
    }

    /// 0 where none was drawn.
    pub async fn copy_id(&self) -> CopyId {
        let server = self.clone();
        let read = move || server.files().read(&server.data_dir.join(FILE));
        let text = blocking(read).await.ok().and_then(Result::ok).flatten();
        text.and_then(|text| CopyId::from_str_radix(text.trim(), 16).ok()).unwrap_or_default()
    }
}
