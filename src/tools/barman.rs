//! `surus barman recover | config-switch`: asks a Barman server through its pg-backup-api, with the
//! arguments and exit codes of `patroni_barman`. Plain HTTP only: there is no TLS in this program.
use std::fs::File;
use std::io::Write;
use std::thread;
use std::time::Duration;

use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use serde_json::{Value, json};

const NO_COMMAND: i32 = 255;
const API_NOT_OK: i32 = 254;
const SWITCH_POLL: Duration = Duration::from_secs(5);
const ANSWER_WAIT: Duration = Duration::from_secs(30);

/// Recover from, or steer, a Barman server.
#[derive(Parser, Debug)]
#[command(name = "surus barman")]
struct BarmanArgs {
    #[arg(long)]
    api_url: String,
    /// Refused: there is no TLS here
    #[arg(long)]
    cert_file: Option<String>,
    /// Refused: there is no TLS here
    #[arg(long)]
    key_file: Option<String>,
    /// Seconds between two tries
    #[arg(long, default_value_t = 2)]
    retry_wait: u64,
    #[arg(long, default_value_t = 5)]
    max_retries: u32,
    /// Where to write what is said, instead of standard error
    #[arg(long)]
    log_file: Option<String>,
    #[command(subcommand)]
    task: Option<Task>,
}

#[derive(Subcommand, Debug)]
enum Task {
    /// Let Barman restore a backup into a directory of this machine
    Recover(Recover),
    /// Let Barman use another model of its configuration, as a callback
    ConfigSwitch(ConfigSwitch),
}

#[derive(Args, Debug)]
struct Recover {
    #[arg(long)]
    barman_server: String,
    #[arg(long, default_value = "latest")]
    backup_id: String,
    /// How Barman reaches this machine
    #[arg(long)]
    ssh_command: String,
    #[arg(long, visible_alias = "data-directory")]
    datadir: String,
    /// Seconds between two looks
    #[arg(long, default_value_t = 10)]
    loop_wait: u64,
}

#[derive(Args, Debug)]
struct ConfigSwitch {
    action: String,
    role: String,
    cluster: String,
    #[arg(long)]
    barman_server: String,
    #[arg(long, required_unless_present = "reset", conflicts_with = "reset")]
    barman_model: Option<String>,
    #[arg(long)]
    reset: bool,
    #[arg(long, value_enum, default_value_t = When::Promoted)]
    switch_when: When,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum When {
    Promoted,
    Demoted,
    Always,
}

/// How an operation of Barman's ended.
enum End {
    Done,
    Failed,
    /// It could not be asked for, or nobody said how it ended.
    NoAnswer,
}

/// `words` are those after `barman`.
pub fn run(words: &[String]) -> i32 {
    let known = known(words);
    let switches = known.iter().any(|word| word == "config-switch");
    let names = std::iter::once(String::from("surus barman")).chain(known);
    let args = match BarmanArgs::try_parse_from(names) {
        Ok(args) => args,
        Err(error) => {
            let _ = error.print();
            return if switches && error.use_stderr() { 4 } else { error.exit_code() };
        }
    };
    let api = match args.plain_http().and_then(|()| Api::new(&args)) {
        Ok(api) => api,
        Err(problem) => {
            eprintln!("{problem}");
            return if switches { 4 } else { 1 };
        }
    };
    match args.task {
        None => {
            let _ = BarmanArgs::command().print_help();
            NO_COMMAND
        }
        Some(Task::ConfigSwitch(task)) if !task.is_due() => 1,
        Some(task) => api.check().unwrap_or_else(|| api.perform(&task)),
    }
}

impl BarmanArgs {
    /// What would need TLS is refused, not left out: somebody relies on it.
    fn plain_http(&self) -> Result<(), String> {
        let asked = [
            ("--cert-file", self.cert_file.is_some()),
            ("--key-file", self.key_file.is_some()),
            ("an https --api-url", self.api_url.starts_with("https:")),
        ];
        match asked.iter().find(|(_, given)| *given) {
            None => Ok(()),
            Some((what, _)) => Err(format!(
                "{what} needs TLS, which surus barman does not speak: name the http address of \
                 pg-backup-api, or of a tunnel to it"
            )),
        }
    }
}

/// A method and a callback are told more than concerns us: what we do not know is left out.
fn known(words: &[String]) -> Vec<String> {
    let command = BarmanArgs::command();
    let all = std::iter::once(&command).chain(command.get_subcommands());
    let names = all.flat_map(|command| command.get_arguments());
    let names = names.filter_map(|argument| argument.get_long_and_visible_aliases()).flatten();
    let names: Vec<&str> = names.chain(["help"]).collect();
    let ours = |word: &&String| {
        let name = word.split('=').next().unwrap_or_default();
        name.strip_prefix("--").is_none_or(|name| names.contains(&name))
    };
    words.iter().filter(ours).cloned().collect()
}

impl ConfigSwitch {
    fn is_due(&self) -> bool {
        match self.switch_when {
            When::Always => true,
            When::Promoted => matches!(self.role.as_str(), "primary" | "promoted" | "master"),
            When::Demoted => matches!(self.role.as_str(), "replica" | "demoted"),
        }
    }

    fn operation(&self) -> Value {
        match &self.barman_model {
            Some(model) => json!({"type": "config_switch", "model_name": model}),
            None => json!({"type": "config_switch", "reset": true}),
        }
    }
}

struct Api {
    agent: ureq::Agent,
    base: String,
    retries: u32,
    pause: Duration,
    log: Option<File>,
}

impl Api {
    fn new(args: &BarmanArgs) -> Result<Api, String> {
        let open = |path: &String| {
            let file = File::options().create(true).append(true).open(path);
            file.map_err(|error| format!("--log-file {path}: {error}"))
        };
        let log = args.log_file.as_ref().map(open).transpose()?;
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(ANSWER_WAIT))
            .http_status_as_error(true)
            .build();
        Ok(Api {
            agent: config.into(),
            base: args.api_url.trim_end_matches('/').to_owned(),
            retries: args.max_retries,
            pause: Duration::from_secs(args.retry_wait),
            log,
        })
    }

    /// A line to the log file, with its time; to standard error without one, or when the disk is full.
    fn say(&self, sentence: &str) {
        let line = format!("{} {sentence}\n", crate::host::clock::wall());
        let written = self.log.as_ref().map(|mut file| file.write_all(line.as_bytes()));
        if !matches!(written, Some(Ok(()))) {
            eprintln!("{sentence}");
        }
    }

    /// The exit code where the API is not there or not well.
    fn check(&self) -> Option<i32> {
        match self.get("status") {
            Ok(text) if text.trim().trim_matches('"') == "OK" => None,
            Ok(text) => {
                self.say(&format!("pg-backup-api says `{}` instead of OK", text.trim()));
                Some(API_NOT_OK)
            }
            Err(problem) => {
                self.say(&format!("pg-backup-api at {} does not answer: {problem}", self.base));
                Some(1)
            }
        }
    }

    fn perform(&self, task: &Task) -> i32 {
        match task {
            Task::Recover(task) => {
                let operation = json!({"type": "recovery", "backup_id": task.backup_id,
                    "remote_ssh_command": task.ssh_command,
                    "destination_directory": task.datadir});
                let poll = Duration::from_secs(task.loop_wait);
                match self.operate(&task.barman_server, &operation, poll) {
                    End::Done => 0,
                    End::Failed => 1,
                    End::NoAnswer => 2,
                }
            }
            Task::ConfigSwitch(task) => {
                match self.operate(&task.barman_server, &task.operation(), SWITCH_POLL) {
                    End::Done => 0,
                    End::Failed => 2,
                    End::NoAnswer => 3,
                }
            }
        }
    }

    /// Asks for it and waits for its end.
    fn operate(&self, server: &str, operation: &Value, poll: Duration) -> End {
        let path = format!("servers/{server}/operations");
        let begun = self.patiently(|| {
            let answer = self.post(&path, operation)?;
            answer["operation_id"].as_str().map(str::to_owned).ok_or("no operation_id".into())
        });
        let Some(id) = begun else { return End::NoAnswer };
        loop {
            let asked = self.patiently(|| {
                let answer: Value = serde_json::from_str(&self.get(&format!("{path}/{id}"))?)
                    .map_err(|error| error.to_string())?;
                match answer["status"].as_str() {
                    Some(status @ ("IN_PROGRESS" | "DONE" | "FAILED")) => Ok(status.to_owned()),
                    _ => Err(format!("no status in {answer}")),
                }
            });
            match asked.as_deref() {
                None => return End::NoAnswer,
                Some("DONE") => {
                    self.say(&format!("Barman's operation {id} is done"));
                    return End::Done;
                }
                Some("FAILED") => {
                    self.say(&format!("Barman's operation {id} failed; its own log says why"));
                    return End::Failed;
                }
                Some(_) => thread::sleep(poll),
            }
        }
    }

    fn patiently<T>(&self, ask: impl Fn() -> Result<T, String>) -> Option<T> {
        for round in 0..=self.retries {
            if round > 0 {
                thread::sleep(self.pause);
            }
            match ask() {
                Ok(answer) => return Some(answer),
                Err(problem) => self.say(&format!("pg-backup-api: {problem}")),
            }
        }
        None
    }

    fn get(&self, path: &str) -> Result<String, String> {
        let answer = self.agent.get(format!("{}/{path}", self.base)).call();
        let mut answer = answer.map_err(|error| error.to_string())?;
        answer.body_mut().read_to_string().map_err(|error| error.to_string())
    }

    fn post(&self, path: &str, body: &Value) -> Result<Value, String> {
        let request = self.agent.post(format!("{}/{path}", self.base));
        let request = request.header("Content-Type", "application/json");
        let mut answer = request.send(body.to_string()).map_err(|error| error.to_string())?;
        let text = answer.body_mut().read_to_string().map_err(|error| error.to_string())?;
        serde_json::from_str(&text).map_err(|error| error.to_string())
    }
}
