//! `surus dump`: the running daemon's own account, or what a stopped one left behind.
use std::ffi::OsString;
use std::iter;
use std::path::PathBuf;

use clap::Parser;
use serde_json::{Map, Value, json};

use super::client::{self, Client};
use super::{Outcome, Stop, output};
use crate::host::dump::from_state_dir;
use crate::pure::dump::SCHEMA;
use crate::pure::dump::text::text;
use crate::pure::patroni::json::dumps;

/// Print everything a node knows
#[derive(Parser, Debug)]
#[command(disable_version_flag = true)]
struct Arguments {
    /// The node's configuration file
    #[arg(short = 'c', long = "config-file", value_name = "FILE")]
    config: PathBuf,
    /// JSON of a stable shape
    #[arg(long)]
    json: bool,
    /// Every member's, as far as they answer
    #[arg(long)]
    all: bool,
}

/// Runs `surus dump`; `args` are the words after it. Returns the exit code.
pub fn run(args: Vec<OsString>) -> i32 {
    let words = iter::once(OsString::from("surus dump")).chain(args);
    let arguments = match Arguments::try_parse_from(words) {
        Ok(arguments) => arguments,
        Err(error) => {
            let _ = error.print();
            return error.exit_code();
        }
    };
    super::exit_code(perform(&arguments))
}

fn perform(arguments: &Arguments) -> Outcome {
    let config = client::load_named(&arguments.config)?;
    let client = Client::of(config);
    if arguments.all {
        return print_all(&client, arguments.json);
    }
    let dump = own(&client)?;
    output::line(&if arguments.json { dumps(&dump) } else { text(&dump) });
    Ok(())
}

/// From the daemon if it answers, else from its state directory.
fn own(client: &Client) -> Outcome<Value> {
    let config = client.config.as_ref().ok_or("no configuration")?;
    let mut silence = Vec::new();
    for door in client::own_doors(config) {
        match client.get(&door, "/dump").and_then(client::parse) {
            Ok(dump) if dump["node"] == config.name => return Ok(dump),
            Ok(dump) => silence.push(format!("{door} is {}", dump["node"])),
            Err(error) => silence.push(error),
        }
    }
    from_state_dir(config).map_err(|error| {
        Stop::Error(format!("no daemon answers ({}) and {error}", silence.join("; ")))
    })
}

fn print_all(client: &Client, as_json: bool) -> Outcome {
    let mut dumps_found = Vec::new();
    let mut unreachable = Map::new();
    let own_dump = own(client)?;
    let name = own_dump["node"].clone();
    for member in own_dump["cluster"]["members"].as_object().into_iter().flatten().map(|m| m.1) {
        if member["name"] == name {
            continue;
        }
        let base = client::base(member["api_url"].as_str().unwrap_or_default());
        match client.get(&base, "/dump").and_then(client::parse) {
            Ok(dump) => dumps_found.push(dump),
            Err(error) => {
                let name = member["name"].as_str().unwrap_or_default();
                unreachable.insert(name.to_owned(), error.into());
            }
        }
    }
    dumps_found.insert(0, own_dump);
    if as_json {
        let all = json!({"schema": SCHEMA, "dumps": dumps_found, "unreachable": unreachable});
        output::line(&dumps(&all));
        return Ok(());
    }
    for dump in &dumps_found {
        output::line(&text(dump));
    }
    for (name, error) in &unreachable {
        output::line(&format!("{name} gives no dump: {}", error.as_str().unwrap_or_default()));
    }
    Ok(())
}
