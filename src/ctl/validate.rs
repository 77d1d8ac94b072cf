//! `validate`: everything that is wrong with a configuration, before anything depends on it.
use std::path::Path;

use crate::host::config::{check_host, check_ports, examine};

/// Prints every fault and warning with its key and line; answers the exit code: 1 if there are
/// faults, else 0. `ignore_listen_port` is for a node that is running already.
pub fn run(path: &Path, ignore_listen_port: bool) -> i32 {
    let reading = examine(path);
    let mut faults = reading.faults;
    if let Some(config) = &reading.config {
        faults.extend(check_host(config));
        if !ignore_listen_port {
            faults.extend(check_ports(config));
        }
    }
    for fault in &faults {
        println!("{fault}");
    }
    for warning in &reading.warnings {
        println!("warning: {warning}");
    }
    i32::from(!faults.is_empty())
}
