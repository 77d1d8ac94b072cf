//! The passfile that libpq programs and walreceivers read.
use super::Server;
use super::conf_files::write_atomic;
use super::inspect::read_optional;
use super::processes::blocking;

impl Server {
    /// Puts `lines` (`host:port:database:user:password`, escaped) into the passfile, replacing
    /// those for the same host, port, database and user; other lines stay, as a walreceiver may
    /// need them at any time. Empty `lines` change nothing.
    pub async fn write_passfile(&self, lines: &str) -> Result<(), String> {
        if lines.trim().is_empty() {
            return Ok(());
        }
        let (path, owner, lines) = (self.pgpass.clone(), self.run_as.clone(), lines.to_owned());
        blocking(move || {
            let present = read_optional(&path)?.unwrap_or_default();
            let merged = merge(&present, &lines);
            if merged == present { Ok(()) } else { write_atomic(&path, &merged, owner.as_ref()) }
        })
        .await?
    }

    /// PGPASSFILE, if the passfile has a line to offer.
    pub fn passfile_env(&self, lines: &str) -> Option<(&'static str, String)> {
        (!lines.trim().is_empty()).then(|| ("PGPASSFILE", self.pgpass.display().to_string()))
    }
}

pub(in crate::host) fn merge(present: &str, new: &str) -> String {
    let new: Vec<&str> = new.lines().filter(|line| !line.trim().is_empty()).collect();
    let replaced = |line: &str| new.iter().any(|other| key(other) == key(line));
    let mut text = String::new();
    for line in present.lines().filter(|line| !replaced(line)).chain(new.iter().copied()) {
        text.push_str(line);
        text.push('\n');
    }
    text
}

/// Everything before the fourth colon that is not escaped.
fn key(line: &str) -> &str {
    let mut colons = 0;
    let mut escaped = false;
    for (index, c) in line.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ':' => colons += 1,
            _ => {}
        }
        if colons == 4 {
            return &line[..index];
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_for_the_same_server_are_replaced() {
        let present = "a:5432:*:rep:old\nb:5432:*:rep:kept\n";
        let merged = merge(present, "a:5432:*:rep:new\n\nc:1:*:u\\:x:p\n");
        assert_eq!(merged, "b:5432:*:rep:kept\na:5432:*:rep:new\nc:1:*:u\\:x:p\n");
        assert_eq!(merge(&merged, "c:1:*:u\\:x:q"), merged.replace("x:p", "x:q"));
    }
}
