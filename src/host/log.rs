//! The log: Patroni's levels, to standard error or to a file of its own.
use std::fs::OpenOptions;
use std::sync::Mutex;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::writer::BoxMakeWriter;

use crate::pure::config::Log;

/// Begins logging; `SURUS_LOG` overrides the configured level by a filter of targets.
///
/// # Errors
/// The log directory cannot be written to.
pub fn begin(config: &Log) -> Result<(), String> {
    let level = match config.level.as_str() {
        "DEBUG" => "debug",
        "WARNING" => "warn",
        "ERROR" | "CRITICAL" => "error",
        _ => "info",
    };
    let fallback = format!("warn,surus={level}");
    let filter = EnvFilter::try_from_env("SURUS_LOG").unwrap_or_else(|_| EnvFilter::new(fallback));
    let writer = match &config.dir {
        None => BoxMakeWriter::new(std::io::stderr),
        Some(dir) => {
            let path = dir.join("surus.log");
            let file = std::fs::create_dir_all(dir)
                .and_then(|()| OpenOptions::new().create(true).append(true).open(&path))
                .map_err(|error| format!("log.dir: {}: {error}", path.display()))?;
            BoxMakeWriter::new(Mutex::new(file))
        }
    };
    let subscriber =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer).with_ansi(false);
    let begun = if config.kind == "json" {
        subscriber.json().try_init()
    } else {
        subscriber.with_target(false).try_init()
    };
    begun.map_err(|error| format!("log: {error}"))
}
