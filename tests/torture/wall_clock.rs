//! A wall clock for every node, which jumps under its running processes (`wall_clock.c`).
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::disk::{run, text};

/// By how many seconds a clock is set wrong: a moment, a minute, an hour, ten days.
const WRONG_S: [i64; 8] = [-864_000, -3_600, -60, -2, 2, 60, 3_600, 864_000];

/// Which of them a number, drawn by a seed, stands for.
pub fn wrong_s(drawn: u64) -> i64 {
    WRONG_S[(drawn % WRONG_S.len() as u64) as usize]
}

pub struct WallClocks {
    library: PathBuf,
    files: Vec<PathBuf>,
}

impl WallClocks {
    /// All right at first.
    ///
    /// # Errors
    /// Without a C compiler.
    pub fn make(nodes: usize, dir: &Path) -> Result<WallClocks, String> {
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/torture/wall_clock.c");
        let library = dir.join("wall_clock.so");
        run("cc", &["-shared", "-fPIC", "-O1", "-o", text(&library), source])?;
        let files: Vec<PathBuf> = (0..nodes).map(|k| dir.join(format!("wall_clock{k}"))).collect();
        for file in &files {
            fs::write(file, 0_i64.to_ne_bytes()).map_err(|error| error.to_string())?;
        }
        Ok(WallClocks { library, files })
    }

    /// Words before a node's daemon.
    pub fn prefix(&self, k: usize) -> Vec<String> {
        vec![
            String::from("env"),
            format!("LD_PRELOAD={}", self.library.display()),
            format!("MOVED_CLOCK={}", self.files[k].display()),
        ]
    }

    /// The clock of this node is so many seconds from the machine's, from now on.
    pub fn set(&self, k: usize, wrong_s: i64) {
        // In place: the processes have this very file mapped.
        let file = File::options().write(true).open(&self.files[k]).expect("the clock's file");
        file.write_all_at(&wrong_s.to_ne_bytes(), 0).expect("a clock is set");
    }
}

#[test]
fn a_clock_jumps_under_a_running_process() {
    let dir = tempfile::tempdir().expect("a directory");
    let clocks = WallClocks::make(2, dir.path()).expect("a C compiler is there");
    let words = clocks.prefix(1);
    let mut shell = Command::new(&words[0])
        .args(&words[1..])
        .args(["bash", "-c", "while read -r _; do printf '%(%s)T\\n'; done"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("bash");
    let mut ask = shell.stdin.take().expect("piped");
    let mut answers = BufReader::new(shell.stdout.take().expect("piped")).lines();
    let mut told = || -> i64 {
        writeln!(ask).expect("it reads");
        answers.next().expect("it answers").expect("text").parse().expect("a number")
    };
    let right = told();
    clocks.set(0, 86_400);
    assert!((0..60).contains(&(told() - right)), "another node's clock");
    clocks.set(1, -864_000);
    assert!((-864_000..-863_940).contains(&(told() - right)));
    clocks.set(1, 0);
    assert!((0..60).contains(&(told() - right)));
    drop(ask);
    shell.wait().expect("it ends");
}
