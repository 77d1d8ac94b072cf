//! `surus barman` against a small recorded pg-backup-api: what it asks for and how it ends. The real one
//! is on none of the registries that tests install from (only in its makers' own repositories and as
//! source), so it does not take part here. Its version 2.2.0 was tried by hand beside Barman 3.4: a recovery
//! was asked for, waited for and brought a cluster (0), an unknown server was answered by 404 (2), a
//! recovery that Barman could not do ended `FAILED` (1), a switch that Barman 3.4 does not know too (2).
use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::Command;
use std::sync::mpsc::{Receiver, channel};

/// Answers one request after another with these statuses and bodies; what was asked comes back.
fn api(answers: Vec<(u16, &'static str)>) -> (String, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("it is bound"));
    let (told, asked) = channel();
    std::thread::spawn(move || {
        for (code, body) in answers {
            let Ok((mut stream, _)) = listener.accept() else { return };
            let mut bytes = [0; 4096];
            let mut text = String::new();
            loop {
                let length = stream.read(&mut bytes).unwrap_or(0);
                text.push_str(&String::from_utf8_lossy(&bytes[..length]));
                let wanted = text
                    .to_lowercase()
                    .lines()
                    .find_map(|line| line.strip_prefix("content-length: ")?.trim().parse().ok())
                    .unwrap_or(0_usize);
                let body = text.split_once("\r\n\r\n").map_or(0, |(_, body)| body.len());
                if length == 0 || (text.contains("\r\n\r\n") && body >= wanted) {
                    break;
                }
            }
            let _ = told.send(text);
            let length = body.len();
            let _ = write!(
                stream,
                "HTTP/1.1 {code} x\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
            );
        }
    });
    (url, asked)
}

fn run(url: &str, words: &[&str]) -> i32 {
    told(url, words).0
}

fn told(url: &str, words: &[&str]) -> (i32, String) {
    let mut surus = Command::new(env!("CARGO_BIN_EXE_surus"));
    surus.args(["barman", &format!("--api-url={url}"), "--retry-wait=0"]);
    let output = surus.args(words).output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code().expect("it ended by itself"), said)
}

const RECOVER: [&str; 8] = [
    "--max-retries=1",
    "recover",
    "--barman-server=main",
    "--ssh-command=ssh postgres@here",
    "--datadir=/data",
    "--loop-wait=0",
    "--scope=demo",
    "--connstring=user=r",
];
const BEGUN: (u16, &str) = (202, r#"{"operation_id": "7"}"#);
const OK: (u16, &str) = (200, "\"OK\"");

/// Spec: BA-1, BA-2.
#[test]
fn a_recovery_is_asked_for_and_waited_for() {
    let going = (200, r#"{"status": "IN_PROGRESS"}"#);
    let (url, asked) = api(vec![OK, BEGUN, going, (200, r#"{"status": "DONE"}"#)]);
    assert_eq!(run(&url, &RECOVER), 0);
    let asked: Vec<String> = asked.iter().collect();
    assert!(asked[0].starts_with("GET /status "), "{asked:?}");
    assert!(asked[1].starts_with("POST /servers/main/operations "), "{asked:?}");
    let body = asked[1].split("\r\n\r\n").nth(1).expect("a body");
    let body: serde_json::Value = serde_json::from_str(body).expect("JSON");
    let wanted = serde_json::json!({"type": "recovery", "backup_id": "latest",
        "remote_ssh_command": "ssh postgres@here", "destination_directory": "/data"});
    assert_eq!(body, wanted);
    assert!(asked[3].starts_with("GET /servers/main/operations/7 "), "{asked:?}");
    let (url, _asked) = api(vec![OK, BEGUN, (200, r#"{"status": "FAILED"}"#)]);
    assert_eq!(run(&url, &RECOVER), 1);
    let (url, _asked) = api(vec![OK, BEGUN, (500, ""), (200, "{}")]);
    assert_eq!(run(&url, &RECOVER), 2, "nobody says how it ended");
    let (url, _asked) = api(vec![OK, (500, ""), BEGUN, (500, ""), (200, r#"{"status": "DONE"}"#)]);
    assert_eq!(run(&url, &RECOVER), 0, "it is asked again, once");
    let (url, _asked) = api(vec![(200, "\"starting\"")]);
    assert_eq!(run(&url, &RECOVER), 254);
    assert_eq!(run("http://127.0.0.1:1", &RECOVER), 1);
    assert_eq!(run("http://127.0.0.1:1", &[]), 255);
}

/// Spec: BA-3.
#[test]
fn a_switch_of_the_configuration_is_for_its_role() {
    let switch = |url: &str, role: &str, more: &[&str]| {
        let mut words = vec!["--max-retries=1", "config-switch", "on_role_change", role, "demo"];
        words.push("--barman-server=main");
        words.extend(more);
        run(url, &words)
    };
    let done = || api(vec![OK, BEGUN, (200, r#"{"status": "DONE"}"#)]);
    let (url, asked) = done();
    assert_eq!(switch(&url, "primary", &["--barman-model=m", "--switch-when=promoted"]), 0);
    let asked: Vec<String> = asked.iter().collect();
    assert!(asked[1].contains(r#"{"type":"config_switch","model_name":"m"}"#), "{asked:?}");
    let (url, asked) = done();
    assert_eq!(switch(&url, "replica", &["--reset", "--switch-when=always"]), 0);
    assert!(asked.iter().any(|text| text.contains(r#""reset":true"#)));
    let nobody = "http://127.0.0.1:1";
    assert_eq!(
        switch(nobody, "replica", &["--reset", "--switch-when=promoted"]),
        1,
        "not its role"
    );
    assert_eq!(switch(nobody, "replica", &["--switch-when=always"]), 4, "neither model nor reset");
    let (url, _asked) = api(vec![OK, BEGUN, (200, r#"{"status": "FAILED"}"#)]);
    assert_eq!(switch(&url, "replica", &["--reset", "--switch-when=demoted"]), 2);
    let (url, _asked) = api(vec![OK, (500, ""), (500, "")]);
    assert_eq!(switch(&url, "replica", &["--reset", "--switch-when=demoted"]), 3);
}

/// Spec: BA-1.
#[test]
fn what_is_said_goes_to_the_log_file_and_what_needs_tls_is_refused() {
    let place = tempfile::tempdir().expect("a directory");
    let log = place.path().join("barman.log");
    let words =
        [&[format!("--log-file={}", log.display())], &RECOVER.map(str::to_owned)[..]].concat();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let (url, _asked) = api(vec![OK, BEGUN, (200, r#"{"status": "DONE"}"#)]);
    assert_eq!(run(&url, &words), 0);
    assert_eq!(run("http://127.0.0.1:1", &words), 1);
    let said = std::fs::read_to_string(&log).expect("it was written");
    let lines: Vec<&str> = said.lines().collect();
    assert!(lines[0].contains("operation 7 is done") && lines[1].contains("does not answer"));
    let (code, said) = told(&url, &[&["--log-file=/nowhere/at/all"], &RECOVER[..]].concat());
    assert!(code == 1 && said.contains("--log-file /nowhere/at/all"), "{code} {said}");
    for (option, url) in [
        ("--cert-file=/c.pem", "http://127.0.0.1:1"),
        ("--key-file=/k.pem", "http://127.0.0.1:1"),
        ("--scope=demo", "https://127.0.0.1:1"),
    ] {
        let (code, said) = told(url, &[&[option], &RECOVER[..]].concat());
        assert!(code == 1 && said.contains("needs TLS"), "{option}: {code} {said}");
    }
}
