//! Time namespaces: every node's own CLOCK_BOOTTIME and CLOCK_MONOTONIC, days apart.
//!
//! An offset can be chosen before the first process enters a namespace, and never again: clocks that
//! jump under running processes are not to be had, reboots with other clocks are.
use std::fs::File;
use std::path::{Path, PathBuf};

use super::disk::{run, text};

const DAY_S: usize = 86_400;

/// One namespace per node, kept by a file; gone when dropped.
pub struct Clocks {
    files: Vec<PathBuf>,
}

impl Clocks {
    /// Empty where the kernel has no time namespaces.
    pub fn make(nodes: usize, dir: &Path) -> Clocks {
        let mut clocks = Clocks { files: Vec::new() };
        for k in 0..nodes {
            let file = dir.join(format!("clock{k}"));
            match make(&file, k) {
                Ok(()) => clocks.files.push(file),
                Err(why) => {
                    eprintln!("all nodes have the same clocks: {why}");
                    return Clocks { files: Vec::new() };
                }
            }
        }
        clocks
    }

    /// Words before a node's daemon.
    pub fn prefix(&self, k: usize) -> Vec<String> {
        let enter =
            |file: &PathBuf| vec![String::from("nsenter"), format!("--time={}", file.display())];
        self.files.get(k).map(enter).unwrap_or_default()
    }
}

fn make(file: &Path, k: usize) -> Result<(), String> {
    File::create(file).map_err(|error| error.to_string())?;
    let (boottime, monotonic) = (((2 * k + 1) * DAY_S).to_string(), (k * DAY_S).to_string());
    let keep = format!("--time={}", text(file));
    run("unshare", &[&keep, "--boottime", &boottime, "--monotonic", &monotonic, "true"]).map(|_| ())
}

impl Drop for Clocks {
    fn drop(&mut self) {
        for file in &self.files {
            run("umount", &[text(file)]).ok();
            std::fs::remove_file(file).ok();
        }
    }
}
