//! `surus demo`: a whole cluster on this machine, to look at and to break.
//!
//! It starts nothing special: every node is this same executable with `run` and a configuration
//! file that could stand on a server of its own. What the demo knows, it asks over REST, as any
//! operator's tool would. All that it makes lies in one directory, and starting again resumes it.
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Args;

pub mod binaries;
pub mod fleet;
pub mod leftover;
pub mod picture;
pub mod place;
pub mod plan;
pub mod show;
pub mod signals;
pub mod watch;

use fleet::Fleet;
use picture::Picture;
use place::Place;
use plan::Plan;
use show::Screen;
use signals::Signals;
use watch::Watch;

/// How often processes are looked after and the screen is drawn.
const TICK: Duration = Duration::from_millis(200);

/// PostgreSQL may have to write a checkpoint before it is down; then the demo stops asking.
const STOP_WAIT: Duration = Duration::from_secs(60);

/// A first start in which a daemon has ended this often is not going to work.
const STARTS_MAX: u32 = 5;

/// What `surus demo` accepts.
#[derive(Args, Clone, Debug, Default)]
pub struct DemoArgs {
    /// Number of nodes, 1 to 9 (3 unless the directory already holds a cluster).
    #[arg(long)]
    pub nodes: Option<u16>,
    /// Where everything lies: configuration, data, logs. [default: /var/lib/surus-demo for root,
    /// else $XDG_STATE_HOME/surus-demo or ~/.local/state/surus-demo]
    #[arg(long)]
    pub dir: Option<PathBuf>,
    /// First PostgreSQL port; REST begins 10 above, Raft 20 above. [default: 5442, 8018, 2390]
    #[arg(long)]
    pub base_port: Option<u16>,
    /// Remove an earlier demo cluster in the directory first.
    #[arg(long)]
    pub fresh: bool,
    /// Directory of initdb, postgres and the others. [default: PATH, then the usual places]
    #[arg(long)]
    pub bin_dir: Option<PathBuf>,
}

/// Runs the demo until it is told to stop; the exit code of the program.
pub fn run(args: DemoArgs) -> i32 {
    let program = std::env::current_exe().context("cannot find this executable again");
    match program.and_then(|program| run_with(args, program)) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("surus demo: {error:#}");
            1
        }
    }
}

/// The same with another daemon in place of this executable: tests use a fake one.
pub fn run_with(args: DemoArgs, program: PathBuf) -> Result<i32> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the event loop")?;
    runtime.block_on(async {
        let mut signals = Signals::listen()?;
        let place = Place::prepare(&args)?;
        let mut demo = Demo::new(place, program)?;
        let verdict = demo.attend(&mut signals).await;
        let stopped = demo.stop(&mut signals).await;
        verdict.and(stopped)
    })
}

/// Everything that is alive while the demo runs.
struct Demo {
    place: Place,
    fleet: Fleet,
    watch: Watch,
    screen: Screen,
    picture: Picture,
    began: Instant,
    writable_told: bool,
    complete_told: bool,
}

impl Demo {
    fn new(place: Place, program: PathBuf) -> Result<Demo> {
        let plan = &place.plan;
        let mut screen = Screen::new(plan);
        for line in &place.notes {
            screen.say(line);
        }
        screen.say(&introduction(plan));
        Ok(Demo {
            fleet: Fleet::new(plan, program),
            watch: Watch::start(plan),
            picture: Picture::new(plan),
            screen,
            place,
            began: Instant::now(),
            writable_told: false,
            complete_told: false,
        })
    }

    /// Until a signal says stop, or the first start has plainly failed.
    async fn attend(&mut self, signals: &mut Signals) -> Result<i32> {
        loop {
            for line in self.fleet.tend(Instant::now()) {
                self.screen.say(&line);
            }
            self.look();
            if let Some(node) = self.fleet.hopeless(STARTS_MAX).filter(|_| !self.writable_told) {
                let log = self.place.plan.log(node);
                anyhow::bail!("{node} does not start; its log is {}", log.display());
            }
            if signals.stop_within(TICK).await {
                return Ok(0);
            }
        }
    }

    fn look(&mut self) {
        for seen in self.watch.news() {
            if let Some(line) = self.picture.take(seen) {
                self.screen.say(&line);
            }
        }
        let rows = self.picture.rows(&self.fleet.daemons(Instant::now()));
        if !self.writable_told && self.picture.leader().is_some() {
            self.writable_told = true;
            self.screen
                .say(&format!("Writable after {:.1} s.", self.began.elapsed().as_secs_f32()));
        }
        if !self.complete_told && self.picture.is_complete() {
            self.complete_told = true;
            let seconds = self.began.elapsed().as_secs_f32();
            self.screen.say(&format!("All {} nodes are up after {seconds:.1} s.", rows.len()));
            self.screen.say(&self.place.plan.invitation());
        }
        self.screen.show(&rows, self.complete_told);
    }

    /// All nodes at once; a second signal, or [`STOP_WAIT`], ends the patience.
    async fn stop(&mut self, signals: &mut Signals) -> Result<i32> {
        self.screen.close();
        self.screen.say(&format!("Stopping {} nodes…", self.place.plan.nodes));
        self.fleet.terminate();
        let began = Instant::now();
        while !self.fleet.all_ended() && began.elapsed() < STOP_WAIT {
            if signals.stop_within(TICK).await {
                self.screen.say("Told twice: ending the daemons at once.");
                break;
            }
        }
        let forced = self.fleet.kill();
        for line in leftover::stop_servers(&self.place.plan) {
            self.screen.say(&line);
        }
        let again = self.place.dir_argument();
        self.screen.say(&format!("Stopped. `surus demo{again}` goes on where this ended."));
        Ok(i32::from(forced))
    }
}

fn introduction(plan: &Plan) -> String {
    format!(
        "{} nodes of PostgreSQL {} in {}; logs are nK/surus.log there. Ctrl-C stops everything.",
        plan.nodes,
        plan.version,
        plan.dir.display()
    )
}
