//! The log: Patroni's levels, to standard error or to files of its own.
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Mutex;

use file_rotate::compression::Compression;
use file_rotate::suffix::AppendCount;
use file_rotate::{ContentLimit, FileRotate};

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
        Some(dir) => BoxMakeWriter::new(Mutex::new(files(config, dir)?)),
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

/// `surus.log`, and behind it `surus.log.1` and so on; a line is never torn apart.
fn files(config: &Log, dir: &Path) -> Result<FileRotate<AppendCount>, String> {
    let path = dir.join("surus.log");
    let mut options = OpenOptions::new();
    options.create(true).append(true);
    if let Some(mode) = config.mode {
        options.mode(mode);
    }
    std::fs::create_dir_all(dir)
        .and_then(|()| options.open(&path))
        .map_err(|error| format!("log.dir: {}: {error}", path.display()))?;
    let limit = ContentLimit::BytesSurpassed(config.file_size_bytes);
    let kept = AppendCount::new(config.file_num);
    Ok(FileRotate::new(path, kept, limit, Compression::None, Some(options)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn old_files_are_kept_up_to_their_number() {
        let dir = tempfile::tempdir().expect("a directory");
        let config = Log { file_size_bytes: 100, file_num: 2, ..Log::default() };
        let mut log = files(&config, dir.path()).expect("it opens");
        (0..43).for_each(|n| writeln!(log, "line {n} of some length").expect("it writes"));
        drop(log);
        let mut names: Vec<String> = std::fs::read_dir(dir.path())
            .expect("it is there")
            .map(|entry| entry.expect("it reads").file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        assert_eq!(names, ["surus.log", "surus.log.1", "surus.log.2"]);
        let newest = std::fs::read_to_string(dir.path().join("surus.log")).expect("it reads");
        let before = std::fs::read_to_string(dir.path().join("surus.log.1")).expect("it reads");
        assert!((before + &newest).ends_with("line 42 of some length\n"));
        // A daemon that is started again goes on where it was.
        let mut log = files(&config, dir.path()).expect("it opens");
        writeln!(log, "again").expect("it writes");
        let after = std::fs::read_to_string(dir.path().join("surus.log")).expect("it reads");
        assert_eq!(after, newest + "again\n");
    }
}
