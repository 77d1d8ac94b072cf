//! The listing of `wal-e backup-list --detail LATEST`, and whether that backup is worth fetching.
use super::lsn::Lsn;

/// The latest backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backup {
    pub start: Lsn,
    /// What the data directory will hold; a store of plain files does not say.
    pub bytes: Option<u64>,
}

/// Why there is no backup to speak of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The listing is not whole: it may be, next time.
    Unreadable(String),
    /// There is none, or more than one that is the latest.
    NotOne(usize),
}

/// Beyond these the primary's own data is the shorter way.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub wal_megabytes: u64,
    /// Of the backup's size.
    pub wal_percent: u64,
}

impl Limits {
    /// `wal_bytes`: what was written since the backup began.
    pub fn allow(&self, backup: &Backup, wal_bytes: u64) -> bool {
        let part = |bytes: u64| u128::from(bytes) * u128::from(self.wal_percent);
        u128::from(wal_bytes) < u128::from(self.wal_megabytes) << 20
            && backup.bytes.is_none_or(|bytes| u128::from(wal_bytes) * 100 < part(bytes))
    }
}

/// Reads the listing: a header and one line, both with tabs.
pub fn parse(text: &str) -> Result<Backup, Fault> {
    let mut lines = text.lines().filter(|line| !line.trim().is_empty());
    let header: Vec<&str> = lines.next().unwrap_or_default().split('\t').map(str::trim).collect();
    let rows: Vec<&str> = lines.collect();
    let column = |name: &str| {
        let place = header.iter().position(|column| *column == name);
        place.ok_or_else(|| Fault::Unreadable(format!("wal-e lists no column `{name}`")))
    };
    let bytes = column("expanded_size_bytes")?;
    let segment = column("wal_segment_backup_start")?;
    let offset = column("wal_segment_offset_backup_start")?;
    let [row] = rows[..] else { return Err(Fault::NotOne(rows.len())) };
    let fields: Vec<&str> = row.split('\t').map(str::trim).collect();
    let field = |place: usize| fields.get(place).copied().unwrap_or_default();
    let wrong = |place: usize| {
        Fault::Unreadable(format!("wal-e lists `{}` as {}", field(place), header[place]))
    };
    let size = Some(field(bytes)).filter(|text| !text.is_empty());
    Ok(Backup {
        start: position(field(segment), field(offset)).ok_or_else(|| wrong(segment))?,
        bytes: size.map(str::parse).transpose().map_err(|_| wrong(bytes))?,
    })
}

/// A segment of 16 MiB and the offset in it, both in hexadecimal.
fn position(segment: &str, offset: &str) -> Option<Lsn> {
    let hex = |text: &str| u64::from_str_radix(text, 16).ok();
    let whole = segment.len() == 24 && segment.is_ascii();
    let (log, number) = whole.then(|| (&segment[8..16], &segment[16..24]))?;
    let number = hex(number).filter(|number| *number < 1 << 8)?;
    let offset = hex(offset).filter(|offset| *offset < 1 << 24)?;
    Some(Lsn((hex(log)? << 32) + (number << 24) + offset))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTING: &str = "name\tlast_modified\texpanded_size_bytes\twal_segment_backup_start\t\
        wal_segment_offset_backup_start\twal_segment_backup_stop\twal_segment_offset_backup_stop\n\
        base_000000010000000A00000002_00000040\t2026-11-22T20:00:00.000Z\t1000000000\t\
        000000010000000A000000C2\t00000028\t000000010000000A000000C3\t00000100\n";

    /// Spec: WE-2, WE-5.
    #[test]
    fn the_start_keeps_all_its_digits() {
        let backup = parse(LISTING).expect("a backup");
        assert_eq!(backup.start.to_string(), "A/C2000028");
        assert_eq!(backup.bytes, Some(1_000_000_000));
    }

    /// Spec: WE-2.
    #[test]
    fn none_or_several_is_given_up_and_half_a_listing_tried_again() {
        let header = LISTING.lines().next().expect("a header");
        assert_eq!(parse(header), Err(Fault::NotOne(0)));
        let twice = format!("{LISTING}{}\n", LISTING.lines().nth(1).expect("a row"));
        assert_eq!(parse(&twice), Err(Fault::NotOne(2)));
        for half in ["", "name\tlast_modified\nx\ty\n"] {
            assert!(matches!(parse(half), Err(Fault::Unreadable(_))), "{half}");
        }
        let beyond = "\tffffffffffffffff\t";
        for (good, odd) in [("1000000000", "much"), ("\t00000028\t", beyond)] {
            let listing = LISTING.replace(good, odd);
            assert!(matches!(parse(&listing), Err(Fault::Unreadable(_))), "{odd}");
        }
    }

    /// Recorded of WAL-E 1.1.1 with a file:// prefix: it knows no sizes there, nor ends.
    /// Spec: WE-2, WE-3.
    #[test]
    fn without_a_size_only_the_megabytes_count() {
        let row = "base_000000010000000000000015_00000015\t2026-11-23T02:58:49.654707\t\t\
            000000010000000000000015\t00000015\t\t\n";
        let header = LISTING.lines().next().expect("a header");
        let backup = parse(&format!("{header}\r\n{row}")).expect("a backup");
        assert_eq!((backup.start.to_string().as_str(), backup.bytes), ("0/15000015", None));
        let limits = Limits { wal_megabytes: 200, wal_percent: 30 };
        assert!(limits.allow(&backup, (200 << 20) - 1) && !limits.allow(&backup, 200 << 20));
    }

    /// Spec: WE-3, WE-5.
    #[test]
    fn both_limits_count_and_are_exact() {
        let backup = Backup { start: Lsn(0), bytes: Some(1000 << 20) };
        let limits = Limits { wal_megabytes: 200, wal_percent: 30 };
        assert!(limits.allow(&backup, (200 << 20) - 1));
        assert!(!limits.allow(&backup, 200 << 20));
        let wide = Limits { wal_megabytes: 10240, wal_percent: 30 };
        assert!(wide.allow(&backup, (300 << 20) - 1));
        assert!(!wide.allow(&backup, 300 << 20));
    }
}
