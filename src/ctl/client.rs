//! The way to the cluster that the words of a command name.
use std::env;
use std::path::{Path, PathBuf};

use super::args::Arguments;
use super::{Outcome, Stop};
use crate::host::config;
pub use crate::host::rest_client::{
    ACTION_WAIT, Client, Response, base, configured_doors, own_doors, parse,
};
use crate::pure::config::Config;

/// Reads the configuration, or takes the address that was given instead.
pub fn open(arguments: &Arguments) -> Outcome<Client> {
    let config = load(arguments.config_file.as_deref())?;
    let mut doors: Vec<String> = arguments.dcs_url.iter().map(|url| base(url)).collect();
    if let Some(config) = &config {
        doors.extend(configured_doors(config));
    }
    if doors.is_empty() {
        let text = "No way to the cluster: name a configuration file with -c, or a member's \
                    REST address with -d";
        return Err(text.into());
    }
    Ok(Client::new(config, doors))
}

/// The configuration; only the default file may be missing.
fn load(path: Option<&Path>) -> Outcome<Option<Config>> {
    let path = match path {
        Some(path) => path.to_owned(),
        None => match default_path().filter(|path| path.is_file()) {
            Some(path) => path,
            None => return Ok(None),
        },
    };
    load_named(&path).map(Some)
}

/// The configuration at a path.
pub fn load_named(path: &Path) -> Outcome<Config> {
    if std::fs::File::open(path).is_err() {
        return Err(Stop::Error(format!(
            "Provided config file {} not existing or no read rights. \
             Check the -c/--config-file parameter",
            path.display()
        )));
    }
    config::load_file(path).map_err(|faults| {
        let faults: Vec<String> = faults.iter().map(ToString::to_string).collect();
        Stop::Error(faults.join("\n"))
    })
}

fn default_path() -> Option<PathBuf> {
    Some(PathBuf::from(env::var_os("HOME")?).join(".config/patroni/patronictl.yaml"))
}
