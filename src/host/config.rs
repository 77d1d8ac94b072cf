//! Loading the configuration file. Stands in for the loader that is written elsewhere.
use std::path::Path;

use crate::pure::config::{Config, load};
use crate::pure::config::faults::{Fault, Place};

/// Reads a file with the environment laid over it.
///
/// # Errors
/// Every fault that was found.
pub fn load_file(path: &Path) -> Result<Config, Vec<Fault>> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        let place = Place::new(&path.display().to_string().as_str().into(), None);
        vec![Fault::new(&place, "", format!("cannot be read: {error}"))]
    })?;
    load(path, &text, &std::env::vars().filter(|(k, _)| k.starts_with("PATRONI_")).collect())
}
