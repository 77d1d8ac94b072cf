//! `list` and `topology`: the members of `/cluster` as a table.
use std::thread;
use std::time::Duration;

use jiff::Zoned;
use serde_json::{Map, Value};

use super::Outcome;
use super::args::{Format, List, Topology, Watch};
use super::client::Client;
use super::footer::footers;
use super::output::{self, Column, Row, line};
use super::row::row;
use super::tree::tree;

/// Where the optional columns begin.
const ALWAYS: usize = 10;
/// Ours, and only there while somebody builds.
const BUILD: &str = "Build";

const COLUMNS: [Column; 15] = [
    Column::left("Cluster"),
    Column::left("Member"),
    Column::left("Host"),
    Column::left("Role"),
    Column::left("State"),
    Column::right("TL"),
    Column::right("Receive LSN"),
    Column::right("Receive Lag").headed("Lag"),
    Column::right("Replay LSN"),
    Column::right("Replay Lag").headed("Lag"),
    Column::left("Pending restart"),
    Column::left("Pending restart reason"),
    Column::left("Scheduled restart"),
    Column::left("Tags"),
    Column::left(BUILD),
];

/// How a listing is to look.
#[derive(Clone, Copy, Debug, Default)]
pub struct Look {
    pub format: Format,
    pub extended: bool,
    pub tree: bool,
}

pub fn list(client: &Client, task: &List) -> Outcome {
    let look = Look { format: task.format, extended: task.extended, tree: false };
    watched(client, &task.clusters, look, task.timestamp, &task.watch)
}

pub fn topology(client: &Client, task: &Topology) -> Outcome {
    let look = Look { tree: true, ..Look::default() };
    watched(client, &task.clusters, look, false, &task.watch)
}

fn watched(
    client: &Client,
    clusters: &[String],
    look: Look,
    timestamp: bool,
    watch: &Watch,
) -> Outcome {
    let every = watch.watch.or(watch.watch_two.then_some(2.0)).filter(|s| *s > 0.0);
    loop {
        let shown = once(client, clusters, look, timestamp || every.is_some());
        let Some(seconds) = every else {
            return shown;
        };
        if let Err(super::Stop::Error(text)) = shown {
            line(&format!("Error: {text}"));
        }
        thread::sleep(Duration::from_secs_f64(seconds.min(86_400.0)));
        line("\u{1b}[2J\u{1b}[H");
    }
}

fn once(client: &Client, clusters: &[String], look: Look, timestamp: bool) -> Outcome {
    let body = client.cluster()?;
    let scope = client.scope(&body);
    let own = [scope.clone()];
    let wanted = if clusters.is_empty() { &own[..] } else { clusters };
    for cluster in wanted {
        if timestamp && look.format == Format::Pretty {
            line(&now());
        }
        let known = *cluster == scope;
        let nobody = Value::Object(Map::new());
        line(&text(cluster, if known { &body } else { &nobody }, look));
    }
    Ok(())
}

/// The local time as messages carry it.
pub fn now() -> String {
    Zoned::now().strftime("%Y-%m-%d %H:%M:%S.%6f").to_string()
}

/// The whole listing of one cluster, footer included.
pub fn text(cluster: &str, body: &Value, look: Look) -> String {
    let mut members = body["members"].as_array().cloned().unwrap_or_default();
    for member in &mut members {
        let name = member["name"].as_str().unwrap_or_default();
        let build = body["surus"]["members"][name]["build"].clone();
        member["build"] = build;
    }
    let members = if look.tree { tree(members) } else { members };
    let rows: Vec<Row> =
        members.iter().map(|member| row(cluster, member, &members, look)).collect();
    let columns = columns(&rows, look);
    let title = format!(" Cluster: {cluster} ({}) ", identity(body));
    let mut text = output::render(look.format, Some(&title), &columns, &rows);
    if look.format == Format::Pretty {
        for footer in footers(body) {
            text.push('\n');
            text.push_str(&footer);
        }
    }
    text
}

fn identity(body: &Value) -> &str {
    match body["surus"]["initialize"].as_str() {
        None => "uninitialized",
        Some("") => "initializing",
        Some(system_identifier) => system_identifier,
    }
}

fn columns(rows: &[Row], look: Look) -> Vec<Column> {
    let filled =
        |key: &str| rows.iter().any(|row| row.get(key).is_some_and(|value| *value != Value::Null));
    let skip = usize::from(look.format == Format::Pretty);
    let shown = COLUMNS.iter().enumerate().skip(skip);
    shown
        .filter(|(index, column)| {
            *index < ALWAYS || (look.extended && column.key != BUILD) || filled(column.key)
        })
        .map(|(_, column)| *column)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn body() -> Value {
        let replica = |name: &str, port: u16, behind: u64| {
            json!({"name": name, "role": "replica", "state": "streaming", "host": "127.0.0.1",
                "port": port, "timeline": 1, "receive_lag": behind, "receive_lsn": "0/4000060",
                "replay_lag": behind, "replay_lsn": "0/4000060", "lag": behind})
        };
        json!({"members": [
            {"name": "pg0", "role": "leader", "state": "running", "host": "127.0.0.1",
                "port": 15432, "timeline": 1},
            replica("pg1", 15433, 0), replica("pg2", 15434, 1_600_000)],
            "scope": "batman", "surus": {"initialize": "771", "quorum": true, "node": "pg0"}})
    }

    fn drawn(body: &Value, format: Format, tree: bool) -> String {
        text("batman", body, Look { format, extended: false, tree })
    }

    #[test]
    fn the_table_is_patronis() {
        let wanted = "\
+ Cluster: batman (771) ----+-----------+----+-------------+-----+------------+-----+
| Member | Host            | Role    | State     | TL | Receive LSN | Lag | Replay LSN | Lag |
+--------+-----------------+---------+-----------+----+-------------+-----+------------+-----+
| pg0    | 127.0.0.1:15432 | Leader  | running   |  1 |             |     |            |     |
| pg1    | 127.0.0.1:15433 | Replica | streaming |  1 |   0/4000060 |   0 |  0/4000060 |   0 |
| pg2    | 127.0.0.1:15434 | Replica | streaming |  1 |   0/4000060 |   2 |  0/4000060 |   2 |
+--------+-----------------+---------+-----------+----+-------------+-----+------------+-----+";
        let drawn = drawn(&body(), Format::Pretty, false);
        let lines: Vec<_> = drawn.lines().skip(1).collect();
        assert_eq!(lines, wanted.lines().skip(1).collect::<Vec<_>>());
        assert!(drawn.starts_with("+ Cluster: batman (771) -"), "{drawn}");
    }

    #[test]
    fn machine_formats_name_both_lags() {
        let json: Value = serde_json::from_str(&drawn(&body(), Format::Json, false)).expect("JSON");
        let leader = json!({"Cluster": "batman", "Member": "pg0", "Host": "127.0.0.1:15432",
            "Role": "Leader", "State": "running", "TL": 1});
        assert_eq!(json[0], leader);
        assert_eq!((&json[2]["Receive Lag"], &json[2]["Replay Lag"]), (&json!(2), &json!(2)));
        let tsv = drawn(&body(), Format::Tsv, false);
        assert!(
            tsv.starts_with("Cluster\tMember\tHost\tRole\tState\tTL\tReceive LSN\tReceive Lag")
        );
        let yaml = drawn(&body(), Format::Yaml, false);
        assert!(yaml.contains("- Cluster: batman\n  Member: pg0\n"), "{yaml}");
    }

    #[test]
    fn optional_columns_come_with_their_values() {
        let mut body = body();
        let long = "x".repeat(60);
        body["members"][1]["pending_restart"] = true.into();
        body["members"][1]["pending_restart_reason"] = json!({
            "max_connections": {"old_value": "45", "new_value": "100"},
            "archive_command": {"old_value": "", "new_value": long}});
        body["members"][0]["scheduled_restart"] =
            json!({"schedule": "2030-01-01T00:00:00+00:00", "postgres_version": "15.99"});
        body["members"][0]["tags"] = json!({"clonefrom": true});
        let drawn = drawn(&body, Format::Pretty, false);
        for wanted in [
            "| Pending restart |",
            "| max_connections: 45->100 ",
            "| archive_command: [hidden - too long] ",
            "| 2030-01-01T00:00:00+00:00 if version < 15.99 |",
            "| clonefrom: true |",
        ] {
            assert!(drawn.contains(wanted), "{wanted}\n{drawn}");
        }
        let extended = text("b", &self::body(), Look { extended: true, ..Look::default() });
        assert!(extended.contains("Scheduled restart | Tags"), "{extended}");
    }

    #[test]
    fn nobody_is_an_uninitialized_cluster() {
        let drawn = drawn(&json!({}), Format::Pretty, false);
        assert!(drawn.starts_with("+ Cluster: batman (uninitialized) "), "{drawn}");
        let mut body = body();
        body["surus"]["initialize"] = "".into();
        assert!(self::drawn(&body, Format::Pretty, false).contains("(initializing)"));
    }

    #[test]
    fn below_the_table_stands_what_to_know() {
        let mut body = body();
        body["scheduled_switchover"] = json!({"at": "2030-01-01T00:00:00+00:00", "from": "pg0"});
        body["surus"]["quorum"] = false.into();
        body["surus"]["quorum_age_s"] = 42.into();
        body["surus"]["members"] = json!({"pg2": {"build": {"method": "basebackup",
            "source": "pg0", "phase": "copying", "bytes_done": 45, "bytes_total": 100}}});
        let drawn = drawn(&body, Format::Pretty, false);
        let below: Vec<_> = drawn.lines().skip_while(|line| line.starts_with(['+', '|'])).collect();
        assert_eq!(
            below,
            [
                " Switchover scheduled at: 2030-01-01T00:00:00+00:00",
                "                    from: pg0",
                " No quorum: shown is what member pg0 knew 42 s ago",
                " Building pg2: basebackup from pg0, copying, 45 %",
            ]
        );
    }

    #[test]
    fn the_topology_hangs_replicas_below_their_upstream() {
        let mut body = body();
        body["members"][1]["tags"] = json!({"replicatefrom": "pg2"});
        let drawn = drawn(&body, Format::Pretty, true);
        let members: Vec<_> =
            drawn.lines().filter_map(|line| line.split('|').nth(1)).map(str::trim_end).collect();
        assert_eq!(members, [" Member", " pg0", " + pg2", "   + pg1"]);
    }

    #[test]
    fn a_circle_of_upstreams_still_is_drawn() {
        let mut body = body();
        body["members"][1]["tags"] = json!({"replicatefrom": "pg2"});
        body["members"][2]["tags"] = json!({"replicatefrom": "pg1"});
        let drawn = drawn(&body, Format::Pretty, true);
        assert!(drawn.contains("pg1") && drawn.contains("pg2"), "{drawn}");
    }
}
