//! Running a program so that it cannot outlive its purpose.
//!
//! Each runs in its own process group with a mark in its environment, dies when the daemon dies
//! (PDEATHSIG) and when the future that runs it is dropped. What is left of its group when it
//! ends is killed. PDEATHSIG follows the *thread* that starts the program: run this on a reactor
//! thread that lives as long as the daemon, never inside `spawn_blocking`.
use std::collections::VecDeque;
use std::ffi::OsString;
use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, Signal};
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};

use super::account::Account;
use super::held::Hold;
use super::processes;
use crate::host::config::is_withheld;
use crate::host::secrets;

/// Lines kept for the error sentence.
pub const TAIL_LINES: usize = 20;
/// Standard output kept for parsing, in bytes.
const OUTPUT_BYTES_MAX: usize = 1 << 20;
/// How long a program's descendants that left its group may keep its output open.
const PIPES_AFTER_END: Duration = Duration::from_millis(500);

/// A program that is about to run. Secrets belong into files or `env`, never into `args`.
#[derive(Clone, Debug)]
pub struct Program {
    argv: Vec<OsString>,
    env: Vec<(String, String)>,
    run_as: Option<Account>,
    timeout: Option<Duration>,
    mark: String,
    secret: Option<Arc<OwnedFd>>,
}

/// What a program left behind.
#[derive(Clone, Debug, Default)]
pub struct Output {
    /// Zero is success; a negative number is the signal that killed it.
    pub code: i32,
    pub stdout: String,
    /// The last lines: of standard output first, then of standard error; each oldest first.
    pub tail: Vec<String>,
    /// How many of `tail` are of standard error.
    tail_errors: usize,
}

/// Which stream a line came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    Stdout,
    Stderr,
}

/// Called with every line; false keeps it out of the tail.
pub type OnLine<'a> = &'a mut (dyn FnMut(Stream, &str) -> bool + Send);

impl Program {
    /// `mark` is the state directory: by it leftovers are recognised after a crash.
    pub fn new(program: impl Into<OsString>, mark: &Path, run_as: Option<&Account>) -> Program {
        Program {
            argv: vec![program.into()],
            env: Vec::new(),
            run_as: run_as.cloned(),
            timeout: None,
            mark: mark.display().to_string(),
            secret: None,
        }
    }

    /// The words of a shell-like command line, without a shell.
    pub fn from_words(
        command: &str,
        mark: &Path,
        run_as: Option<&Account>,
    ) -> Result<Program, String> {
        let mut words = shlex::split(command)
            .ok_or_else(|| format!("`{command}` has an open quote: close it"))?
            .into_iter();
        let first = words.next().ok_or("a command is empty: name a program")?;
        Ok(Program::new(first, mark, run_as).args(words))
    }

    pub fn arg(mut self, arg: impl Into<OsString>) -> Program {
        self.argv.push(arg.into());
        self
    }

    pub fn args<T: Into<OsString>>(mut self, args: impl IntoIterator<Item = T>) -> Program {
        self.argv.extend(args.into_iter().map(Into::into));
        self
    }

    pub fn env(mut self, name: &str, value: impl Into<String>) -> Program {
        self.env.push((name.to_owned(), value.into()));
        self
    }

    /// Adds `--name=FILE`, where FILE holds `secret` in memory that only this program can open.
    pub fn secret_arg(self, name: &str, secret: &str) -> Result<Program, String> {
        let fd = in_memory(secret).map_err(|error| format!("no memory for --{name}: {error}"))?;
        let mut program = self.arg(format!("--{name}=/proc/self/fd/{}", fd.as_raw_fd()));
        program.secret = Some(Arc::new(fd));
        Ok(program)
    }

    pub fn timeout(mut self, limit: Duration) -> Program {
        self.timeout = Some(limit);
        self
    }

    /// The program, if there is no such file that can be run: a name without a slash is looked for
    /// in PATH, as it will be when it is started.
    pub fn missing(&self) -> Option<String> {
        use std::os::unix::fs::PermissionsExt;
        let runs = |path: &Path| {
            let meta = std::fs::metadata(path);
            meta.is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
        };
        let program = Path::new(&self.argv[0]);
        let found = if program.components().count() > 1 {
            runs(program)
        } else {
            let path = std::env::var_os("PATH").unwrap_or_default();
            std::env::split_paths(&path).any(|dir| runs(&dir.join(program)))
        };
        (!found).then(|| self.shown())
    }

    /// The program's own name, for messages.
    pub fn name(&self) -> String {
        let name = Path::new(&self.argv[0]).file_name();
        name.map_or_else(|| "program".into(), |name| name.to_string_lossy().into_owned())
    }

    /// Runs to the end; a non-zero exit is an error with the last lines of output.
    pub async fn run(self) -> Result<Output, String> {
        self.run_with(&mut |_, _| true).await
    }

    /// As [`Program::run`], hearing every line as it comes.
    pub async fn run_with(self, on_line: OnLine<'_>) -> Result<Output, String> {
        let name = self.name();
        let output = self.run_any(on_line).await?;
        if output.code == 0 {
            return Ok(output);
        }
        Err(format!("{name} {}{}", ending(output.code), quoted(&output.tail)))
    }

    /// As [`Program::run_with`], but any exit code is an answer.
    pub async fn run_any(self, on_line: OnLine<'_>) -> Result<Output, String> {
        let (name, timeout) = (self.name(), self.timeout);
        let mut child = self
            .command()
            .spawn()
            .map_err(|error| format!("could not start {}: {error}", self.shown()))?;
        let mut group = Group::of(&child);
        let mut output = Output::default();
        let work = watch(&mut child, &mut group, &mut output, on_line);
        let ended = match timeout {
            None => work.await,
            Some(limit) => match tokio::time::timeout(limit, work).await {
                Ok(ended) => ended,
                Err(_) => {
                    drop(group);
                    let said = quoted(&output.tail);
                    return Err(format!("{name} did not end within {limit:?}{said}"));
                }
            },
        };
        let status = ended.map_err(|error| format!("{name} was lost: {error}"))?;
        output.code = code(status);
        Ok(output)
    }

    fn shown(&self) -> String {
        PathBuf::from(&self.argv[0]).display().to_string()
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.argv[0]);
        command
            .args(&self.argv[1..])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        clean_environment(&mut command, self.run_as.as_ref());
        command
            .env(processes::MARK, &self.mark)
            .env(processes::LIFE, processes::this_life())
            .envs(self.env.iter().map(|(name, value)| (name, value)));
        let (run_as, parent) = (self.run_as.clone(), rustix::process::getpid());
        let secret = self.secret.clone();
        // SAFETY: only async-signal-safe system calls on memory prepared before the fork.
        unsafe {
            command.pre_exec(move || {
                if let Some(account) = &run_as {
                    account.assume()?;
                }
                // After the change of identity, which would clear it.
                rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
                if let Some(fd) = &secret {
                    rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::empty())?;
                }
                if rustix::process::getppid() != Some(parent) {
                    return Err(std::io::ErrorKind::Interrupted.into());
                }
                Ok(())
            });
        }
        command
    }
}

/// Readable by any account that inherits it, as memory files have no owner to check.
fn in_memory(secret: &str) -> std::io::Result<OwnedFd> {
    let fd = rustix::fs::memfd_create("surus-secret", rustix::fs::MemfdFlags::CLOEXEC)?;
    let mut file = std::fs::File::from(fd);
    file.write_all(secret.as_bytes())?;
    Ok(file.into())
}

/// Takes our own configuration (it holds passwords) out, puts the account's home in.
pub fn clean_environment(command: &mut Command, run_as: Option<&Account>) {
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if is_withheld(&text) || text.starts_with("SURUS_") {
            command.env_remove(&name);
        }
    }
    if let Some(account) = run_as {
        command.env("HOME", &account.home);
        command.env("USER", &account.name).env("LOGNAME", &account.name);
    }
}

/// The group dies with this value.
struct Group(Option<Pid>);

impl Group {
    fn of(child: &Child) -> Group {
        Group(child.id().and_then(|pid| Pid::from_raw(pid as i32)))
    }

    fn kill(&mut self) {
        if let Some(group) = self.0.take() {
            let _ = rustix::process::kill_process_group(group, Signal::KILL);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}

async fn watch(
    child: &mut Child,
    group: &mut Group,
    output: &mut Output,
    on_line: OnLine<'_>,
) -> std::io::Result<ExitStatus> {
    let mut stdout = Lines::new(child.stdout.take());
    let mut stderr = Lines::new(child.stderr.take());
    let hold = child.id().and_then(|pid| Hold::open(pid as i32).ok().flatten());
    let mut ended = false;
    while !(stdout.done && stderr.done) {
        let (stream, line) = tokio::select! {
            line = stdout.next(), if !stdout.done => (Stream::Stdout, line),
            line = stderr.next(), if !stderr.done => (Stream::Stderr, line),
            () = gone(hold.as_ref()), if !ended => {
                // Not reaped yet, so the group's number is still its own. Descendants go too.
                group.kill();
                ended = true;
                continue;
            }
            () = tokio::time::sleep(PIPES_AFTER_END), if ended => break,
        };
        if let Some(line) = line {
            output.take(stream, &line, on_line);
        }
    }
    if !ended && hold.is_some() {
        gone(hold.as_ref()).await;
        group.kill();
    }
    let status = child.wait().await;
    group.kill();
    status
}

/// Never, where the kernel gave us no hold: the end of the output has to do then.
async fn gone(hold: Option<&Hold>) {
    match hold {
        Some(hold) => hold.ended().await,
        None => std::future::pending().await,
    }
}

impl Output {
    fn take(&mut self, stream: Stream, line: &str, on_line: OnLine<'_>) {
        if stream == Stream::Stdout && self.stdout.len() < OUTPUT_BYTES_MAX {
            self.stdout.push_str(line);
            self.stdout.push('\n');
        }
        if !on_line(stream, line) || line.trim().is_empty() {
            return;
        }
        // What is kept is stored in the log and shown to whoever asks.
        let Some(line) = secrets::shown(line) else { return };
        // A flood on standard output must not wash away what went wrong.
        let at = match stream {
            Stream::Stdout => self.tail.len() - self.tail_errors,
            Stream::Stderr => self.tail.len(),
        };
        self.tail.insert(at, line.chars().take(500).collect());
        self.tail_errors += usize::from(stream == Stream::Stderr);
        if self.tail.len() > TAIL_LINES {
            self.tail.remove(0);
            self.tail_errors = self.tail_errors.min(TAIL_LINES);
        }
    }
}

/// Lines of a pipe, ended by `\n` or `\r`.
struct Lines<R> {
    reader: Option<BufReader<R>>,
    partial: Vec<u8>,
    ready: VecDeque<String>,
    done: bool,
}

impl<R: AsyncRead + Unpin> Lines<R> {
    fn new(pipe: Option<R>) -> Self {
        let done = pipe.is_none();
        Lines { reader: pipe.map(BufReader::new), partial: vec![], ready: VecDeque::new(), done }
    }

    /// The next line; `None` when there is none yet or no more. Safe to cancel.
    async fn next(&mut self) -> Option<String> {
        if let Some(line) = self.ready.pop_front() {
            return Some(line);
        }
        let reader = self.reader.as_mut()?;
        let bytes = match reader.fill_buf().await {
            Ok(bytes) if !bytes.is_empty() => bytes,
            _ => {
                self.done = true;
                let rest = std::mem::take(&mut self.partial);
                return (!rest.is_empty()).then(|| text(&rest));
            }
        };
        for byte in bytes {
            if matches!(byte, b'\n' | b'\r') {
                self.ready.push_back(text(&self.partial));
                self.partial.clear();
            } else if self.partial.len() < OUTPUT_BYTES_MAX {
                self.partial.push(*byte);
            }
        }
        let len = bytes.len();
        reader.consume(len);
        self.ready.pop_front()
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn code(status: ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    status.code().or_else(|| status.signal().map(|signal| -signal)).unwrap_or(-1)
}

fn ending(code: i32) -> String {
    if code < 0 {
        format!("was killed by signal {}", -code)
    } else {
        format!("ended with exit code {code}")
    }
}

/// The tail as the second half of a sentence.
pub fn quoted(tail: &[String]) -> String {
    if tail.is_empty() { " and said nothing".into() } else { format!(": {}", tail.join(" | ")) }
}
