//! Commands that only print: `history`, `dsn`, `version`, `dcs-get`.
use serde_json::Value;

use super::Outcome;
use super::args::{DcsGet, Dsn, History, RoleChoice, Version};
use super::client::{Client, parse};
use super::members::{self, Member};
use super::output::{self, Column, Row, line};
use crate::pure::patroni::PATRONI_VERSION;

const HISTORY: [Column; 5] = [
    Column::right("TL"),
    Column::right("LSN"),
    Column::left("Reason"),
    Column::left("Timestamp"),
    Column::left("New Leader"),
];

pub fn history(client: &Client, task: &History) -> Outcome {
    members::cluster(client, task.cluster.as_deref())?;
    let body = client.any("/history").and_then(parse)?;
    let rows: Vec<Row> = body.as_array().into_iter().flatten().map(history_row).collect();
    line(&output::render(task.format, None, &HISTORY, &rows));
    Ok(())
}

fn history_row(row: &Value) -> Row {
    HISTORY.iter().enumerate().map(|(i, column)| (column.key.to_owned(), row[i].clone())).collect()
}

pub fn dsn(client: &Client, task: &Dsn) -> Outcome {
    if task.role.is_some() && task.member.is_some() {
        return Err("--role and --member are mutually exclusive options".into());
    }
    let (_, body) = members::cluster(client, task.cluster.as_deref())?;
    let role = task.role.unwrap_or(RoleChoice::Leader);
    let fits = |member: &Member| match &task.member {
        Some(name) => member.name == *name,
        None => members::has_role(member, role),
    };
    let found = members::all(&body).into_iter().find(|member| fits(member));
    let row = found.map(|member| member.row).ok_or("Can not find a suitable member")?;
    match (row["host"].as_str(), row["port"].as_u64()) {
        (Some(host), Some(port)) => line(&format!("host={host} port={port}")),
        _ => return Err("Can not find a suitable member".into()),
    }
    Ok(())
}

pub fn version(client: &Client, task: &Version) -> Outcome {
    line(&format!("patronictl version {PATRONI_VERSION}"));
    let (scope, body) = members::cluster(client, task.cluster.as_deref())?;
    line("");
    for member in members::choose(&scope, &body, &task.members, None)? {
        let name = &member.name;
        line(&match client.get(&member.base, "/patroni").and_then(parse) {
            Err(error) => format!("{name}: failed to get version: {error}"),
            Ok(status) => {
                let patroni = status["patroni"]["version"].as_str().unwrap_or("unknown");
                let own = status["surus"]["version"].as_str();
                let own = own.map(|own| format!(" Surus {own}")).unwrap_or_default();
                let server = status["server_version"].as_u64();
                let server = server.map(|n| format!(" PostgreSQL {}", release(n)));
                format!("{name}: Patroni {patroni}{own}{}", server.unwrap_or_default())
            }
        });
    }
    Ok(())
}

/// `150018` as `15.18`, `90602` as `9.6.2`.
fn release(number: u64) -> String {
    let major = number / 10_000;
    if major >= 10 {
        format!("{major}.{}", number % 10_000)
    } else {
        format!("{major}.{}.{}", number / 100 % 100, number % 100)
    }
}

pub fn dcs_get(client: &Client, task: &DcsGet) -> Outcome {
    let answer = client.any(&format!("/dcs/{}", task.key.trim_matches('/')))?;
    match answer.code {
        200 => line(&answer.body),
        _ => return Err(answer.body.trim().into()),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn server_versions_are_releases() {
        assert_eq!(release(150_018), "15.18");
        assert_eq!(release(90_602), "9.6.2");
    }

    #[test]
    fn history_rows_have_names() {
        let row = history_row(&json!([1, 67_417_112, "no reason", "then", "pg1"]));
        assert_eq!((&row["TL"], &row["New Leader"]), (&json!(1), &json!("pg1")));
        let old = history_row(&json!([1, 2, "x"]));
        assert_eq!(old["Timestamp"], Value::Null);
    }
}
