//! The log: Patroni's levels, to standard error or to files of its own; a reload changes all of it.
use std::fs::{Metadata, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use file_rotate::compression::Compression;
use file_rotate::suffix::AppendCount;
use file_rotate::{ContentLimit, FileRotate};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Layer, Layered, SubscriberExt};
use tracing_subscriber::registry::Registry;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, fmt};

use crate::pure::config::Log;

/// The variable that overrides the configured level by a filter of targets.
const FILTER: &str = "SURUS_LOG";

type Filtered = Layered<reload::Layer<EnvFilter, Registry>, Registry>;
type Lines = Box<dyn Layer<Filtered> + Send + Sync>;

/// What a reload exchanges.
struct Controls {
    output: Output,
    filter: reload::Handle<EnvFilter, Registry>,
    lines: reload::Handle<Lines, Filtered>,
}

static CONTROLS: OnceLock<Controls> = OnceLock::new();

/// Begins logging.
///
/// # Errors
/// The log directory cannot be written to, or logging has begun before.
pub fn begin(config: &Log) -> Result<(), String> {
    let output = Output(Arc::new(Mutex::new(sink(config)?)));
    let (filter, filter_handle) = reload::Layer::new(filter(config));
    let (lines, lines_handle) = reload::Layer::new(lines(config, output.clone()));
    let subscriber = tracing_subscriber::registry().with(filter).with(lines);
    subscriber.try_init().map_err(|error| format!("log: {error}"))?;
    let controls = Controls { output, filter: filter_handle, lines: lines_handle };
    CONTROLS.set(controls).map_err(|_| String::from("log: it has begun already"))
}

/// Goes on as `config` says; where logging never began, nothing happens.
///
/// # Errors
/// The log directory cannot be written to: the log goes on as it was.
pub fn change(config: &Log) -> Result<(), String> {
    let Some(controls) = CONTROLS.get() else { return Ok(()) };
    let fresh = sink(config)?;
    let wrong = |error: reload::Error| format!("log: {error}");
    controls.filter.reload(filter(config)).map_err(wrong)?;
    controls.lines.reload(lines(config, controls.output.clone())).map_err(wrong)?;
    *controls.output.lock() = fresh;
    Ok(())
}

fn filter(config: &Log) -> EnvFilter {
    let level = match config.level.as_str() {
        "DEBUG" => "debug",
        "WARNING" => "warn",
        "ERROR" | "CRITICAL" => "error",
        _ => "info",
    };
    let others = if level == "error" { "error" } else { "warn" };
    let fallback = format!("{others},surus={level}");
    EnvFilter::try_from_env(FILTER).unwrap_or_else(|_| EnvFilter::new(fallback))
}

fn lines(config: &Log, output: Output) -> Lines {
    let layer = fmt::layer().with_writer(output).with_ansi(false);
    if config.kind == "json" { layer.json().boxed() } else { layer.with_target(false).boxed() }
}

type Sink = Box<dyn Write + Send>;

/// Where lines go now. One lock per line, so that no line is torn.
#[derive(Clone)]
struct Output(Arc<Mutex<Sink>>);

impl Output {
    fn lock(&self) -> MutexGuard<'_, Sink> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.lock().write(bytes)
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.lock().write_all(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.lock().flush()
    }
}

impl<'a> MakeWriter<'a> for Output {
    type Writer = Output;

    fn make_writer(&'a self) -> Output {
        self.clone()
    }
}

fn sink(config: &Log) -> Result<Sink, String> {
    match &config.dir {
        None => Ok(Box::new(io::stderr())),
        Some(dir) => Ok(Box::new(files(config, dir)?)),
    }
}

/// `surus.log`, with the permission bits of `log.mode` whatever the umask says.
struct Files {
    rotating: FileRotate<AppendCount>,
    path: PathBuf,
    mode: Option<u32>,
}

impl Files {
    /// A new file has the bits that the umask left; fchmod(2) gives it the rest, and never to what
    /// somebody who may write to the directory linked here.
    fn keep_mode(&self) {
        let Some(mode) = self.mode else { return };
        let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
        let Ok(file) = OpenOptions::new().read(true).custom_flags(flags).open(&self.path) else {
            return;
        };
        let is_other =
            |meta: &Metadata| meta.is_file() && meta.permissions().mode() & 0o777 != mode;
        if file.metadata().is_ok_and(|meta| is_other(&meta)) {
            file.set_permissions(Permissions::from_mode(mode)).ok();
        }
    }
}

impl Write for Files {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.rotating.write(bytes);
        self.keep_mode();
        written
    }

    fn flush(&mut self) -> io::Result<()> {
        self.rotating.flush()
    }
}

/// `surus.log`, and behind it `surus.log.1` and so on; a line is never torn apart. A symbolic link
/// in its place is refused: the directory may be one that PostgreSQL's account writes to.
fn files(config: &Log, dir: &Path) -> Result<Files, String> {
    let path = dir.join("surus.log");
    let mut options = OpenOptions::new();
    options.create(true).append(true).custom_flags(libc::O_NOFOLLOW);
    if let Some(mode) = config.mode {
        options.mode(mode);
    }
    std::fs::create_dir_all(dir).and_then(|()| options.open(&path)).map_err(|error| match path
        .is_symlink()
    {
        true => format!("log.dir: {} is a symbolic link: remove it", path.display()),
        false => format!("log.dir: {}: {error}", path.display()),
    })?;
    let limit = ContentLimit::BytesSurpassed(config.file_size_bytes);
    let kept = AppendCount::new(config.file_num);
    let rotating = FileRotate::new(&path, kept, limit, Compression::None, Some(options));
    let files = Files { rotating, path, mode: config.mode };
    files.keep_mode();
    Ok(files)
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

    /// PostgreSQL's account may write to /var/log/postgresql, and Surus may be root.
    #[test]
    fn link_in_place_of_the_log_is_neither_written_to_nor_opened_up() {
        let dir = tempfile::tempdir().expect("a directory");
        let (theirs, path) = (dir.path().join("theirs"), dir.path().join("surus.log"));
        std::fs::write(&theirs, "").expect("it writes");
        std::fs::set_permissions(&theirs, Permissions::from_mode(0o600)).expect("chmod");
        let config = Log { file_size_bytes: 100, mode: Some(0o666), ..Log::default() };
        let log = files(&config, dir.path()).expect("it opens");
        std::fs::remove_file(&path).expect("it is removed");
        std::os::unix::fs::symlink(&theirs, &path).expect("a link");
        log.keep_mode();
        let meta = std::fs::metadata(&theirs).expect("it is there");
        assert_eq!(meta.permissions().mode() & 0o777, 0o600);
        let problem = files(&config, dir.path()).err().expect("refused");
        assert!(problem.contains("surus.log is a symbolic link: remove it"), "{problem}");
    }

    /// The umask of a service is 022 or stricter: what open(2) is told is cut by it.
    #[test]
    fn files_have_the_mode_that_is_written_new_and_old_ones() {
        let dir = tempfile::tempdir().expect("a directory");
        let mode = |name: &str| {
            let meta = std::fs::metadata(dir.path().join(name)).expect("it is there");
            meta.permissions().mode() & 0o777
        };
        std::fs::write(dir.path().join("surus.log"), "old\n").expect("it writes");
        let config = Log { file_size_bytes: 20, file_num: 1, mode: Some(0o666), ..Log::default() };
        let mut log = files(&config, dir.path()).expect("it opens");
        assert_eq!(mode("surus.log"), 0o666);
        (0..4).for_each(|n| writeln!(log, "line {n} of some length").expect("it writes"));
        assert_eq!((mode("surus.log"), mode("surus.log.1")), (0o666, 0o666));
    }
}
