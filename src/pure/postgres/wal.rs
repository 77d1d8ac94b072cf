//! Names of WAL files, and the commands that carry them.
use super::lsn::Lsn;

/// The file that holds `lsn`: timeline, then the number of the segment in two halves.
pub fn file_name(timeline: u32, lsn: Lsn, segment_bytes: u64) -> String {
    let segment_bytes = segment_bytes.max(1);
    let per_half = (1_u64 << 32) / segment_bytes;
    let number = lsn.0 / segment_bytes;
    format!("{timeline:08X}{:08X}{:08X}", number / per_half.max(1), number % per_half.max(1))
}

/// `archive_command` for one file at `path`, with PostgreSQL's own placeholders.
pub fn archive_words(command: &str, path: &str, file: &str) -> String {
    let mut text = String::new();
    let mut chars = command.chars().peekable();
    while let Some(c) = chars.next() {
        match (c, chars.peek()) {
            ('%', Some('p')) => text.push_str(path),
            ('%', Some('f')) => text.push_str(file),
            ('%', Some('%')) => text.push('%'),
            _ => {
                text.push(c);
                continue;
            }
        }
        chars.next();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Spec: SC-32.
    #[test]
    fn a_wal_file_is_named_as_postgresql_names_it() {
        let mib16 = 16 << 20;
        assert_eq!(file_name(1, Lsn(0x300_0148), mib16), "000000010000000000000003");
        assert_eq!(file_name(0x1F, Lsn(0x16_B374_D848), mib16), "0000001F00000016000000B3");
        assert_eq!(file_name(2, Lsn(0x1_0010_0000), 1 << 20), "000000020000000100000001");
    }

    #[test]
    fn placeholders_are_replaced_once() {
        assert_eq!(
            archive_words("cp %p /a/%f # 100%%", "pg_wal/F", "F"),
            "cp pg_wal/F /a/F # 100%"
        );
        assert_eq!(archive_words("x %d %", "p", "F"), "x %d %");
    }
}
