//! What the visitor sees: bars while nodes come up, then one table that stays current.
//!
//! On a terminal both are drawn in place. Elsewhere a line or a table is printed when something
//! has changed that a reader would care about.
use std::io::{IsTerminal, Write};

use comfy_table::{ContentArrangement, Table, presets};
use indicatif::{BinaryBytes, MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::fleet::DaemonView;
use super::picture::Row;
use super::plan::Plan;

/// Either way of showing.
pub struct Screen {
    live: Option<Live>,
    /// What was printed last, per node or as a table.
    printed: Vec<String>,
}

struct Live {
    all: MultiProgress,
    nodes: Vec<ProgressBar>,
    table: Option<ProgressBar>,
}

impl Screen {
    pub fn new(plan: &Plan) -> Screen {
        let live = std::io::stdout().is_terminal().then(|| Live::new(&plan.names()));
        Screen { live, printed: Vec::new() }
    }

    /// One line (or a few) that stays.
    pub fn say(&mut self, line: &str) {
        match &self.live {
            Some(live) => drop(live.all.println(line)),
            None => print(line),
        }
    }

    /// `complete`: everything has been up once, so the table takes the place of the bars.
    pub fn show(&mut self, rows: &[Row], complete: bool) {
        match &mut self.live {
            Some(live) if complete => live.table(rows),
            Some(live) => live.progress(rows),
            None => self.print(rows, complete),
        }
    }

    /// Leaves the last table on the screen and draws no more.
    pub fn close(&mut self) {
        if let Some(live) = self.live.take() {
            for bar in live.nodes.iter().chain(&live.table) {
                bar.abandon();
            }
        }
    }

    fn print(&mut self, rows: &[Row], complete: bool) {
        let keys: Vec<String> = rows.iter().map(|row| key(row, complete)).collect();
        if keys == self.printed {
            return;
        }
        if complete {
            print(&table(rows, None));
        } else {
            for (row, key) in rows.iter().zip(&keys) {
                if !self.printed.contains(key) {
                    print(&format!("{}: {}", row.name, progress(row)));
                }
            }
        }
        self.printed = keys;
    }
}

/// Standard output may be gone (a closed terminal, `| head`): the cluster is still to be stopped.
fn print(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// What has to change before something is printed again.
fn key(row: &Row, complete: bool) -> String {
    let phase = row.build.as_ref().map(|build| build.phase.as_str()).unwrap_or_default();
    let runs = matches!(row.daemon, DaemonView::Runs { .. });
    format!("{complete} {} {} {} {:?} {runs} {phase}", row.name, row.role, row.state, row.timeline)
}

impl Live {
    fn new(names: &[String]) -> Live {
        let all = MultiProgress::with_draw_target(ProgressDrawTarget::stdout());
        let bar = |name: &String| all.add(ProgressBar::new(0)).with_prefix(name.clone());
        let nodes = names.iter().map(bar).collect();
        Live { all, nodes, table: None }
    }

    fn progress(&mut self, rows: &[Row]) {
        for (bar, row) in self.nodes.iter().zip(rows) {
            match row.build.as_ref().filter(|build| build.bytes_total > 0) {
                Some(build) => {
                    bar.set_style(style("{prefix} {bar:24} {msg}"));
                    bar.set_length(build.bytes_total);
                    bar.set_position(build.bytes_done.min(build.bytes_total));
                }
                None => bar.set_style(style("{prefix} {spinner} {msg}")),
            }
            bar.set_message(progress(row));
        }
    }

    fn table(&mut self, rows: &[Row]) {
        for bar in self.nodes.drain(..) {
            bar.finish_and_clear();
        }
        let all = &self.all;
        let bar = self
            .table
            .get_or_insert_with(|| all.add(ProgressBar::new_spinner().with_style(style("{msg}"))));
        let text = table(rows, columns());
        if bar.message() != text {
            bar.set_message(text);
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("the templates in this file are well formed")
}

/// `creating replica: 12.0 MiB of 40.0 MiB, 30.0 MiB/s (basebackup, copying)`.
fn progress(row: &Row) -> String {
    let mut words = vec![[row.role.as_str(), row.state.as_str()].join(" ").trim().to_string()];
    match &row.build {
        Some(build) => {
            let done = BinaryBytes(build.bytes_done);
            let speed = BinaryBytes(build.bytes_per_second);
            let how = format!("({}, {})", build.method, build.phase);
            // Before it is known how much there is, nothing is said of it.
            words.push(match (build.bytes_done, build.bytes_total) {
                (0, 0) => how,
                (_, 0) => format!("{done} so far {how}"),
                (_, total) => format!("{done} of {}, {speed}/s {how}", BinaryBytes(total)),
            });
        }
        None if !row.sentence.is_empty() => words.push(row.sentence.clone()),
        None => {}
    }
    words.join(": ")
}

/// Width of the terminal that standard output is.
fn columns() -> Option<u16> {
    // SAFETY: the structure is plain numbers, and the call writes nothing but it.
    let size = unsafe {
        let mut size: libc::winsize = std::mem::zeroed();
        (libc::ioctl(libc::STDOUT_FILENO, libc::TIOCGWINSZ, &mut size) == 0).then_some(size)
    };
    size.map(|size| size.ws_col).filter(|columns| *columns > 0)
}

/// As wide as it needs to be, or folded to `width` columns.
fn table(rows: &[Row], width: Option<u16>) -> String {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    if let Some(width) = width {
        table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width);
    }
    table.set_header(["Member", "Port", "Role", "State", "TL", "Lag", "Daemon", "Doing"]);
    for row in rows {
        let daemon = match row.daemon {
            DaemonView::Runs { pid } => format!("pid {pid}"),
            DaemonView::StartsIn { seconds } => format!("again in {seconds} s"),
        };
        let doing = match &row.build {
            Some(_) => progress(row),
            None => row.sentence.clone(),
        };
        table.add_row([
            row.name.clone(),
            row.port.to_string(),
            row.role.replace('_', " "),
            row.state.clone(),
            row.timeline.map(|timeline| timeline.to_string()).unwrap_or_default(),
            row.lag_bytes.map(|lag| BinaryBytes(lag).to_string()).unwrap_or_default(),
            daemon,
            doing,
        ]);
    }
    table.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::watch::Build;

    fn row() -> Row {
        Row {
            name: "n2".into(),
            port: 5443,
            daemon: DaemonView::Runs { pid: 77 },
            role: String::new(),
            state: "creating replica".into(),
            timeline: None,
            lag_bytes: None,
            sentence: "copying from n1".into(),
            build: Some(Build {
                method: "basebackup".into(),
                phase: "copying".into(),
                bytes_done: 10 << 20,
                bytes_total: 40 << 20,
                bytes_per_second: 5 << 20,
            }),
        }
    }

    #[test]
    fn a_copy_is_shown_in_bytes() {
        let text = progress(&row());
        let expected = "creating replica: 10.00 MiB of 40.00 MiB, 5.00 MiB/s (basebackup, copying)";
        assert_eq!(text, expected);
    }

    #[test]
    fn bytes_alone_print_nothing_new() {
        let (before, mut after) = (row(), row());
        after.build.as_mut().expect("it builds").bytes_done += 1;
        assert_eq!(key(&before, false), key(&after, false));
        after.state = "running".into();
        assert_ne!(key(&before, false), key(&after, false));
    }

    #[test]
    fn the_table_has_every_member_and_its_daemon() {
        let text = table(&[row()], None);
        for word in ["n2", "5443", "creating replica", "pid 77"] {
            assert!(text.contains(word), "{word} is missing in\n{text}");
        }
    }

    #[test]
    fn the_table_fits_a_narrow_terminal() {
        let text = table(&[row()], Some(80));
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    }
}
