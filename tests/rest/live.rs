//! A real server on a port of its own, with a made-up node behind it; also the operator's commands.
use std::ffi::OsString;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use serde_json::{Value, json};
use surus::host::request::{Handle, Request};
use surus::pure::cluster::command::{Command, Outcome};
use surus::pure::config::{Credentials, Secret};
use surus::pure::postgres::state::PgState;
use surus::pure::view::View;
use tokio::sync::{mpsc, watch};

use crate::node::{Node, leader, replica};

/// The server's address and what the made-up node was asked.
struct Live {
    port: u16,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Live {
    fn start(mut node: Node) -> Live {
        let port = TcpListener::bind("127.0.0.1:0")
            .and_then(|socket| socket.local_addr())
            .expect("a free port")
            .port();
        node.config.restapi.listen.port = port;
        node.config.restapi.connect_address.port = port;
        // The made-up clock stands still; a real one would find every view too old.
        let now = surus::host::clock::now();
        node.view.now = now;
        node.view.raft.quorum_at = now;
        node.view.lease.deadline = node.view.lease.deadline.map(|_| now + 3_600_000);
        node.view.facts.values_mut().for_each(|heard| heard.heard_at = now);
        let own = node.view.own_id;
        if let Some(member) = node.view.cluster.members.get_mut(&own) {
            member.api_url = format!("http://127.0.0.1:{port}/patroni");
        }
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (ready, is_ready) = std::sync::mpsc::channel();
        let record = asked.clone();
        std::thread::spawn(move || {
            actix_rt::System::new().block_on(async move {
                let (view, views) = watch::channel(Arc::new(node.view));
                let (requests, queue) = mpsc::channel(8);
                let handle = Handle {
                    config: Arc::new(RwLock::new(Arc::new(node.config))),
                    view: views,
                    local: watch::channel(Arc::new(node.local)).1,
                    dynamic: watch::channel(Arc::new(node.dynamic)).1,
                    requests,
                };
                actix_rt::spawn(answer(queue, view, record));
                let server = surus::host::rest::serve(handle).await.expect("the port is free");
                let server = actix_rt::spawn(server);
                ready.send(()).expect("the test waits");
                let _ = server.await;
            });
        });
        is_ready.recv().expect("the server started");
        Live { port, asked }
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("nobody panics with it").clone()
    }

    /// Status code, head and body of one raw request.
    fn raw(&self, request: &str) -> (u16, String, String) {
        let mut socket = TcpStream::connect(("127.0.0.1", self.port)).expect("it listens");
        socket.set_read_timeout(Some(Duration::from_secs(30))).expect("a timeout");
        socket.write_all(request.as_bytes()).expect("it reads");
        let mut text = String::new();
        socket.read_to_string(&mut text).expect("it answers and closes");
        let (head, body) = text.split_once("\r\n\r\n").expect("a head");
        let code = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a code");
        (code, head.to_owned(), body.to_owned())
    }

    fn get(&self, path: &str) -> (u16, String, String) {
        self.raw(&format!("GET {path} HTTP/1.0\r\n\r\n"))
    }

    fn send(&self, method: &str, path: &str, headers: &str, body: &str) -> (u16, String) {
        let length = body.len();
        let request =
            format!("{method} {path} HTTP/1.0\r\n{headers}Content-Length: {length}\r\n\r\n{body}");
        let (code, _, body) = self.raw(&request);
        (code, body)
    }

    fn ctl(&self, words: &[&str]) -> i32 {
        let address = format!("127.0.0.1:{}", self.port);
        let words = ["-d", &address].into_iter().chain(words.iter().copied());
        surus::ctl::run(words.map(OsString::from).collect(), "patronictl")
    }
}

/// The node that is not there: notes every request, grants it, and switches over when asked to.
async fn answer(
    mut queue: mpsc::Receiver<Request>,
    view: watch::Sender<Arc<View>>,
    asked: Arc<Mutex<Vec<String>>>,
) {
    let note = |text: String| asked.lock().expect("nobody panics with it").push(text);
    while let Some(request) = queue.recv().await {
        match request {
            Request::Propose { command, reply } => {
                note(format!("{command:?}"));
                let _ = reply.send(Ok(Outcome::Done));
                if let Command::SetFailover { request } = command
                    && request.scheduled_at.is_none()
                {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    view.send_modify(|view| {
                        let view = Arc::make_mut(view);
                        view.cluster.lease.as_mut().expect("there is a leader").holder = 2;
                        let next = &mut view.facts.get_mut(&2).expect("it was heard").facts;
                        next.state = PgState::Running;
                        next.sql.get_or_insert_default().in_recovery = false;
                    });
                }
            }
            Request::Vet { change, reply } => {
                let bad = change["postgresql"]["parameters"]["work_mem"] == "abc";
                let _ = reply.send(if bad { Err("work_mem cannot be abc".into()) } else { Ok(()) });
            }
            Request::Restart { timeout_ms, reply } => {
                note(format!("Restart {timeout_ms:?}"));
                let _ = reply.send(Ok(()));
            }
            Request::CancelReinitialize { reply } => {
                note(String::from("CancelReinitialize"));
                reply.send(Ok(true)).ok();
            }
            Request::Reinitialize { force, reinit, reply } => {
                note(format!("Reinitialize {force} {}", reinit.from_leader));
                let _ = reply.send(Ok(()));
            }
            Request::Reload { reply } => {
                note("Reload".into());
                let _ = reply.send(Ok(vec![]));
            }
            Request::ScheduleRestart { schedule, reply } => {
                note(format!("ScheduleRestart {schedule:?}"));
                let _ = reply.send(Ok(schedule.is_some()));
            }
            Request::Dump { reply } => drop(reply),
        }
    }
}

#[test]
fn old_clients_get_old_answers() {
    let live = Live::start(leader());
    let (code, head, body) = live.raw("OPTIONS / HTTP/1.0\r\n\r\n");
    assert_eq!((code, body.as_str()), (200, ""), "{head}");
    assert_eq!(live.raw("HEAD /replica HTTP/1.0\r\n\r\n").0, 503);
    assert_eq!(live.raw("HEAD /liveness HTTP/1.0\r\n\r\n").0, 503);
    let (code, head, body) = live.get("/");
    assert_eq!(code, 200);
    assert!(head.to_lowercase().contains("content-type: application/json"), "{head}");
    assert!(body.starts_with(r#"{"state": "running", "postmaster_start_time": "#), "{body}");
    assert_eq!(live.get("/replica?lag=1MB").0, 503);
    for path in ["/patroni", "/cluster", "/history", "/config", "/metrics"] {
        assert_eq!(live.get(path).0, 200, "{path}");
    }
    for path in ["/liveness", "/readiness"] {
        let (code, _, body) = live.get(path);
        assert_eq!((code, body.as_str()), (200, ""), "{path}");
    }
    assert_eq!(live.get("/nonsense").0, 503);
    assert_eq!(live.get("/failsafe").0, 502);
    assert_eq!(live.get("/dcs/leader").2, "pg0");
    assert_eq!(live.get("/dcs/members/pg9").0, 404);
    assert_eq!(live.send("POST", "/nonsense", "", "").0, 501);
}

#[test]
fn a_dump_needs_no_answer_from_the_node() {
    let live = Live::start(leader());
    let dump: Value = serde_json::from_str(&live.get("/dump").2).expect("JSON");
    assert_eq!((&dump["schema"], &dump["raft"]["commit"]), (&json!(1), &json!(42)));
    assert_eq!(dump["verdict"]["writable"], "pg0");
    let text = surus::pure::dump::text::text(&dump);
    assert!(text.starts_with("pg0 is writable (this node, epoch 1, lease "), "{text}");
    assert!(text.contains("replicas streaming: 2 of 2"), "{text}");
}

#[test]
fn malformed_bodies_change_nothing() {
    let live = Live::start(replica());
    for (method, path) in
        [("POST", "/reinitialize"), ("POST", "/restart"), ("PATCH", "/config"), ("PUT", "/config")]
    {
        for body in ["{", "[1]", "5", "\"x\""] {
            assert_eq!(live.send(method, path, "", body).0, 400, "{method} {path} {body}");
        }
    }
    assert_eq!(live.send("PATCH", "/config", "", "{}").0, 400);
    assert_eq!(live.raw("PATCH /config HTTP/1.0\r\n\r\n").0, 411);
    let huge = format!("{{\"x\": \"{}\"}}", "y".repeat(1 << 20));
    let head = format!("PATCH /config HTTP/1.0\r\nContent-Length: {}\r\n\r\n", huge.len());
    assert_eq!(live.raw(&head).0, 413);
    assert_eq!(live.send("PATCH", "/config", "", r#"{"ttl": "abc"}"#).0, 400);
    let bad = r#"{"postgresql": {"parameters": {"work_mem": "abc"}}}"#;
    assert_eq!(live.send("PATCH", "/config", "", bad).0, 400);
    assert_eq!(live.send("PUT", "/config", "", bad).0, 400);
    assert_eq!(live.send("PATCH", "/config", "", r#"{"pause": true}"#).0, 501);
    assert_eq!(live.asked(), Vec::<String>::new());
    let wanted = (200, "reinitialize started".to_owned());
    assert_eq!(live.send("POST", "/reinitialize", "", ""), wanted);
    assert_eq!(live.asked(), ["Reinitialize false false"]);
}

#[test]
fn changes_go_to_the_node() {
    let live = Live::start(leader());
    let (code, body) = live.send("PATCH", "/config", "", r#"{"loop_wait": 5, "ttl": null}"#);
    let merged = r#"{"postgresql": {"parameters": {"work_mem": "4MB"}}, "loop_wait": 5}"#;
    assert_eq!((code, body.as_str()), (200, merged));
    let (code, body) = live.send("POST", "/restart", "", r#"{"timeout": "1min"}"#);
    assert_eq!((code, body.as_str()), (200, "restarted successfully"));
    let (code, body) = live.send("POST", "/restart", "", r#"{"role": "replica"}"#);
    assert_eq!((code, body.as_str()), (503, "restart conditions are not satisfied"));
    let later = r#"{"schedule": "2230-01-01T00:00Z"}"#;
    assert_eq!(live.send("POST", "/restart", "", later), (202, "Restart scheduled".into()));
    let gone = (404, "no restarts are scheduled".to_owned());
    assert_eq!(live.send("DELETE", "/restart", "", ""), gone);
    assert_eq!(live.send("POST", "/reload", "", ""), (202, "reload scheduled".into()));
    let asked = live.asked();
    assert!(asked[0].starts_with("PatchConfig"), "{asked:?}");
    assert_eq!(asked[1], "Restart Some(60000)");
}

#[test]
fn a_switchover_is_watched_to_its_end() {
    let live = Live::start(leader());
    let body = r#"{"leader": "pg0", "candidate": "pg1"}"#;
    let wanted = (200, "Successfully switched over to \"pg1\"".to_owned());
    assert_eq!(live.send("POST", "/switchover", "", body), wanted);
    let live = Live::start(leader());
    let body = r#"{"leader": "pg0", "scheduled_at": "2230-01-01T00:00Z"}"#;
    assert_eq!(live.send("POST", "/switchover", "", body), (202, "Switchover scheduled".into()));
    let none = (404, "no switchover is scheduled".to_owned());
    assert_eq!(live.send("DELETE", "/switchover", "", ""), none);
}

#[test]
fn changes_need_the_password_and_reads_do_not() {
    let mut node = leader();
    let password = Some(Secret("secret".into()));
    node.config.restapi.authentication = Some(Credentials { username: "admin".into(), password });
    let live = Live::start(node);
    assert_eq!(live.get("/config").0, 200);
    let (code, head, body) = live.raw("POST /reload HTTP/1.0\r\nContent-Length: 0\r\n\r\n");
    assert_eq!((code, body.as_str()), (401, "no auth header received"));
    assert!(head.to_lowercase().contains("www-authenticate: basic realm=\"patroni\""), "{head}");
    let wrong = live.send("POST", "/reload", "Authorization: Basic eDp5\r\n", "");
    assert_eq!(wrong, (401, "not authenticated".into()));
    let right = live.send("POST", "/reload", "Authorization: Basic YWRtaW46c2VjcmV0\r\n", "");
    assert_eq!(right.0, 202);
}

#[test]
fn strangers_are_kept_out() {
    let mut node = leader();
    node.config.restapi.allowlist = vec!["10.0.0.0/8".into()];
    let live = Live::start(node.clone());
    let denied = (403, "Access is denied".to_owned());
    assert_eq!(live.send("POST", "/reload", "", ""), denied);
    assert_eq!(live.get("/patroni").0, 200);
    node.config.restapi.allowlist_include_members = true;
    assert_eq!(Live::start(node.clone()).send("POST", "/reload", "", "").0, 202);
    node.config.restapi.allowlist = vec!["127.0.0.1".into()];
    node.config.restapi.allowlist_include_members = false;
    assert_eq!(Live::start(node).send("POST", "/reload", "", "").0, 202);
}

#[test]
fn a_taken_port_is_a_sentence() {
    let live = Live::start(leader());
    let mut node = leader();
    node.config.restapi.listen.port = live.port;
    let error = actix_rt::System::new().block_on(async move {
        let handle = Handle {
            config: Arc::new(RwLock::new(Arc::new(node.config))),
            view: watch::channel(Arc::new(node.view)).1,
            local: watch::channel(Arc::new(node.local)).1,
            dynamic: watch::channel(Arc::new(node.dynamic)).1,
            requests: mpsc::channel(1).0,
        };
        surus::host::rest::serve(handle).await.err().expect("the port is taken").to_string()
    });
    let start = format!("cannot listen on 127.0.0.1:{} (restapi.listen): ", live.port);
    assert!(error.starts_with(&start), "{error}");
}

#[test]
fn the_operators_commands_reach_the_node() {
    let live = Live::start(leader());
    for words in [
        &["list"][..],
        &["list", "batman", "-f", "json"],
        &["topology"],
        &["show-config"],
        &["history"],
        &["version"],
        &["version", "batman", "pg0"],
        &["dsn"],
        &["dcs-get", "leader"],
    ] {
        assert_eq!(live.ctl(words), 0, "{words:?}");
    }
    assert_eq!(live.ctl(&["dcs-get", "failover"]), 1);
    assert_eq!(live.ctl(&["pause"]), 1);
    assert_eq!(live.ctl(&["dsn", "-m", "pg9"]), 1);
    assert_eq!(live.ctl(&["lisst"]), 2);
    assert_eq!(live.asked(), Vec::<String>::new());
    assert_eq!(live.ctl(&["edit-config", "-s", "loop_wait=5", "--force"]), 0);
    assert_eq!(live.ctl(&["edit-config", "-s", "ttl=30", "--force"]), 0);
    assert_eq!(live.ctl(&["edit-config", "-s", "ttl=never", "--force"]), 1);
    assert_eq!(live.ctl(&["restart", "batman", "pg0", "--force"]), 0);
    assert_eq!(live.ctl(&["restart", "batman", "pg9", "--force"]), 1);
    assert_eq!(live.ctl(&["restart", "nowhere", "--force"]), 1);
    assert_eq!(live.ctl(&["reload", "batman", "pg0", "--force"]), 0);
    assert_eq!(live.ctl(&["flush", "batman", "switchover"]), 0);
    assert_eq!(live.ctl(&["switchover", "--candidate", "pg9", "--force"]), 1);
    assert_eq!(live.ctl(&["switchover", "--leader", "pg0", "--candidate", "pg1", "--force"]), 0);
    let asked = live.asked();
    let starts: Vec<_> = asked.iter().filter_map(|text| text.split([' ', '{']).next()).collect();
    assert_eq!(starts, ["SetConfig", "Restart", "Reload", "SetFailover"], "{asked:?}");
    assert!(asked[0].contains("expected: Some(0)"), "{asked:?}");
}

#[test]
fn without_anybody_the_commands_say_so() {
    let free = TcpListener::bind("127.0.0.1:0").and_then(|s| s.local_addr()).expect("a port");
    let words = ["-d", &free.to_string(), "list"].map(OsString::from).to_vec();
    assert_eq!(surus::ctl::run(words, "patronictl"), 1);
    let words = ["-c", "nowhere.yml", "list"].map(OsString::from).to_vec();
    assert_eq!(surus::ctl::run(words, "patronictl"), 1);
}

/// SEC-8, SEC-41: half-open requests of one address leave places for another.
#[test]
fn a_crowd_at_one_address_leaves_places_for_others() {
    let live = Live::start(leader());
    let crowd: Vec<_> = (0..600).filter_map(|_| half_open(live.port)).collect();
    assert!(crowd.len() > 500, "only {} connected", crowd.len());
    let mut probe = TcpStream::connect(("127.0.0.1", live.port)).expect("it listens");
    probe.set_read_timeout(Some(Duration::from_secs(3))).expect("a timeout");
    probe.write_all(b"GET /primary HTTP/1.1\r\nHost: x\r\n\r\n").expect("it reads");
    let mut head = [0; 12];
    probe.read_exact(&mut head).expect("it answers");
    assert_eq!(&head, b"HTTP/1.1 200");
}

/// From 127.0.0.2, which is an address of its own.
fn half_open(port: u16) -> Option<std::os::fd::OwnedFd> {
    use rustix::net::{AddressFamily, SocketType, bind, connect, send, socket};
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None).ok()?;
    let at = |last: u8, port| std::net::SocketAddrV4::new([127, 0, 0, last].into(), port);
    bind(&socket, &at(2, 0)).ok()?;
    connect(&socket, &at(1, port)).ok()?;
    send(&socket, b"GET /primary HT", rustix::net::SendFlags::NOSIGNAL).ok()?;
    Some(socket)
}
