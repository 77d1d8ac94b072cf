//! Questions to the operator. Nobody there to answer is the same as no.
use std::io::{self, BufRead, Write};

use super::{Outcome, Stop};

/// Asks for a text; an empty answer takes the default.
pub fn ask(question: &str, default: Option<&str>) -> Outcome<String> {
    let shown = default.map(|default| format!(" [{default}]")).unwrap_or_default();
    let answer = read(&format!("{question}{shown}: "))?;
    match (answer.is_empty(), default) {
        (false, _) => Ok(answer),
        (true, Some(default)) => Ok(default.to_owned()),
        (true, None) => ask(question, default),
    }
}

/// Asks for a yes; anything else aborts the command.
pub fn confirm(question: &str) -> Outcome {
    if yes(question)? { Ok(()) } else { Err(Stop::Aborted) }
}

/// Asks until the answer is yes or no; nothing is no.
pub fn yes(question: &str) -> Outcome<bool> {
    loop {
        match read(&format!("{question} [y/N]: "))?.to_lowercase().as_str() {
            "y" | "yes" => return Ok(true),
            "" | "n" | "no" => return Ok(false),
            _ => super::output::line("Error: invalid input"),
        }
    }
}

fn read(question: &str) -> Outcome<String> {
    let mut out = io::stdout();
    let _ = write!(out, "{question}");
    let _ = out.flush();
    let mut answer = String::new();
    match io::stdin().lock().read_line(&mut answer) {
        Ok(0) | Err(_) => {
            let _ = writeln!(out);
            Err(Stop::Aborted)
        }
        Ok(_) => Ok(answer.trim().to_owned()),
    }
}
