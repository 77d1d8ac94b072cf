//! Asks every node over REST how it is, one thread per node, and reads the answers.
//!
//! A frozen node holds up nobody but its own thread. Only what Patroni's clients also see is
//! needed; the `surus` object beside it says more where it is there.
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use serde_json::Value;

use super::plan::Plan;

const PAUSE: Duration = Duration::from_millis(400);
const ANSWER_WAIT: Duration = Duration::from_secs(2);
/// A `/cluster` of nine members has about 4 kB.
const ANSWER_BYTES_MAX: u64 = 1 << 20;

/// One look at one node.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Seen {
    /// Position in the plan, from 0.
    pub node: usize,
    /// What it says of itself; `None` when it did not answer.
    pub own: Option<Own>,
    /// What it says of everybody.
    pub members: Vec<Member>,
}

/// Out of `GET /patroni`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Own {
    pub state: String,
    pub role: String,
    pub timeline: Option<u64>,
    pub replication_state: Option<String>,
    /// What its flow is in, and the HA cycle's one sentence.
    pub node_state: String,
    pub sentence: String,
    pub build: Option<Build>,
}

/// How far a replica's copy is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Build {
    pub method: String,
    pub phase: String,
    pub bytes_done: u64,
    pub bytes_total: u64,
    pub bytes_per_second: u64,
}

/// Out of `GET /cluster`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Member {
    pub name: String,
    pub role: String,
    pub state: String,
    pub timeline: Option<u64>,
    /// `None` for a leader and where it is unknown.
    pub lag_bytes: Option<u64>,
}

/// The receiving end of all the looking; the threads end when this does.
pub struct Watch {
    news: Receiver<Seen>,
}

impl Watch {
    pub fn start(plan: &Plan) -> Watch {
        let (sender, news) = channel();
        for k in 0..plan.nodes {
            let base = format!("http://127.0.0.1:{}", plan.ports_of(k).rest);
            let sender = sender.clone();
            std::thread::spawn(move || keep_polling(usize::from(k), &base, &sender));
        }
        Watch { news }
    }

    /// Whatever has arrived since the last time, oldest first; never waits.
    pub fn news(&self) -> Vec<Seen> {
        self.news.try_iter().collect()
    }
}

fn keep_polling(node: usize, base: &str, sender: &Sender<Seen>) {
    let config = ureq::Agent::config_builder()
        .timeout_global(Some(ANSWER_WAIT))
        .http_status_as_error(false)
        .proxy(None)
        .build();
    let agent = ureq::Agent::from(config);
    while sender.send(look(node, base, &agent)).is_ok() {
        std::thread::sleep(PAUSE);
    }
}

fn look(node: usize, base: &str, agent: &ureq::Agent) -> Seen {
    let own = ask(agent, &format!("{base}/patroni")).map(|body| own(&body));
    let cluster = own.is_some().then(|| ask(agent, &format!("{base}/cluster"))).flatten();
    Seen { node, own, members: cluster.map(|body| members(&body)).unwrap_or_default() }
}

fn ask(agent: &ureq::Agent, url: &str) -> Option<Value> {
    let mut response = agent.get(url).call().ok()?;
    let body = response.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_string().ok()?;
    serde_json::from_str(&body).ok()
}

fn own(body: &Value) -> Own {
    let surus = &body["surus"];
    Own {
        state: text(&body["state"]),
        role: text(&body["role"]),
        timeline: body["timeline"].as_u64(),
        replication_state: body["replication_state"].as_str().map(str::to_string),
        node_state: text(&surus["node_state"]),
        sentence: text(&surus["sentence"]),
        build: surus["build"].is_object().then(|| build(&surus["build"])),
    }
}

fn build(object: &Value) -> Build {
    let number = |key: &str| object[key].as_u64().unwrap_or_default();
    Build {
        method: text(&object["method"]),
        phase: text(&object["phase"]),
        bytes_done: number("bytes_done"),
        bytes_total: number("bytes_total"),
        bytes_per_second: number("bytes_per_second"),
    }
}

fn members(body: &Value) -> Vec<Member> {
    let member = |object: &Value| Member {
        name: text(&object["name"]),
        role: text(&object["role"]),
        state: text(&object["state"]),
        timeline: object["timeline"].as_u64(),
        lag_bytes: object["lag"].as_u64(),
    };
    body["members"].as_array().map(|all| all.iter().map(member).collect()).unwrap_or_default()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::TcpListener;

    const LEADER: &str = r#"{"state": "running", "role": "primary", "server_version": 150018,
        "xlog": {"location": 67108960}, "timeline": 2, "dcs_last_seen": 1795332278}"#;
    const CREATING: &str = r#"{"state": "creating replica", "role": "uninitialized", "surus":
        {"node_state": "building", "sentence": "copying from n1", "build": {"method": "basebackup",
        "phase": "copying", "bytes_done": 10, "bytes_total": 40, "bytes_per_second": 5}}}"#;
    const CLUSTER: &str = r#"{"members": [
        {"name": "n1", "role": "leader", "state": "running", "timeline": 2},
        {"name": "n2", "role": "replica", "state": "streaming", "timeline": 2, "lag": 0},
        {"name": "n3", "role": "replica", "state": "creating replica", "lag": "unknown"}],
        "scope": "demo"}"#;

    /// Answers as Patroni does: HTTP/1.0, no length, the end is the end of the connection.
    fn serve(patroni: &'static str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let mut stream = stream;
                let mut request = [0; 2048];
                let length = stream.read(&mut request).unwrap_or(0);
                let cluster = request[..length].starts_with(b"GET /cluster ");
                let body = if cluster { CLUSTER } else { patroni };
                let head = "HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n";
                let _ = write!(stream, "{head}{body}");
            }
        });
        format!("http://{address}")
    }

    #[test]
    fn a_node_that_copies_tells_how_far_it_is() {
        let seen = look(2, &serve(CREATING), &ureq::Agent::new_with_defaults());
        let own = seen.own.expect("it answered");
        assert_eq!(
            (own.state.as_str(), own.sentence.as_str()),
            ("creating replica", "copying from n1")
        );
        let build = own.build.expect("it builds");
        assert_eq!((build.bytes_done, build.bytes_total, build.bytes_per_second), (10, 40, 5));
        assert_eq!(seen.members[1].lag_bytes, Some(0));
        assert_eq!(seen.members[2].lag_bytes, None);
    }

    #[test]
    fn a_daemon_without_our_own_object_is_understood() {
        let seen = look(0, &serve(LEADER), &ureq::Agent::new_with_defaults());
        let own = seen.own.expect("it answered");
        assert_eq!((own.role.as_str(), own.timeline, own.build), ("primary", Some(2), None));
    }

    #[test]
    fn nobody_there_is_no_answer() {
        let seen = look(1, "http://127.0.0.1:1", &ureq::Agent::new_with_defaults());
        assert_eq!(seen, Seen { node: 1, ..Seen::default() });
    }
}
