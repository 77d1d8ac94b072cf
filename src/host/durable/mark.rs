//! How many commits were acknowledged: sixteen bytes beside the database.
//!
//! Written after a commit is durable and not synced itself, so after a power cut it may be behind,
//! never ahead. A database that is behind its mark has lost something.
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::damaged;

const MAGIC: [u8; 4] = *b"ack1";
const SIZE: usize = 16;

/// The open file and what it says.
pub struct Mark {
    file: File,
    value: u64,
}

impl Mark {
    /// Makes one for a database that holds nothing yet; durable when this returns, its name too.
    pub fn create(path: &Path) -> io::Result<()> {
        let file =
            File::options().read(true).write(true).create(true).truncate(false).open(path)?;
        if file.metadata()?.len() < SIZE as u64 {
            file.write_all_at(&[0; SIZE], 0)?;
            file.sync_all()?;
        }
        path.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all())
    }

    /// Opens what [`Mark::create`] made before the database was: one of zeros is one that a power cut
    /// left unwritten. A missing or cut one says nothing of what was acknowledged, and without it a
    /// database that went back in time would be taken for whole.
    pub fn open(path: &Path) -> io::Result<Mark> {
        let missing = |e: io::Error| match e.kind() {
            io::ErrorKind::NotFound => damaged(
                "the file `acknowledged` is missing, so nobody can tell whether the rest is older \
                 than it was",
            ),
            _ => e,
        };
        let file = File::options().read(true).write(true).open(path).map_err(missing)?;
        if file.metadata()?.len() < SIZE as u64 {
            return Err(damaged("the count of acknowledged writes is cut short"));
        }
        let mut bytes = [0; SIZE];
        file.read_exact_at(&mut bytes, 0)?;
        let value = parse(&bytes)?;
        Ok(Mark { file, value })
    }

    /// Commits that were acknowledged when the database was last open.
    pub fn value(&self) -> u64 {
        self.value
    }

    /// Notes that `value` commits are acknowledged. A single small write: never half of one.
    pub fn write(&mut self, value: u64) -> io::Result<()> {
        self.file.write_all_at(&render(value), 0)?;
        self.value = value;
        Ok(())
    }
}

fn render(value: u64) -> [u8; SIZE] {
    let mut bytes = [0; SIZE];
    bytes[..4].copy_from_slice(&MAGIC);
    bytes[4..12].copy_from_slice(&value.to_be_bytes());
    let sum = crc32fast::hash(&bytes[..12]);
    bytes[12..].copy_from_slice(&sum.to_be_bytes());
    bytes
}

fn parse(bytes: &[u8; SIZE]) -> io::Result<u64> {
    if *bytes == [0; SIZE] {
        return Ok(0);
    }
    let mut value = [0; 8];
    value.copy_from_slice(&bytes[4..12]);
    let value = u64::from_be_bytes(value);
    if render(value) != *bytes {
        return Err(damaged("the count of acknowledged writes is damaged"));
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flipped_bit_is_found() {
        let good = render(0x1234_5678_9abc);
        assert_eq!(parse(&good).ok(), Some(0x1234_5678_9abc));
        for bit in 0..SIZE * 8 {
            let mut bytes = good;
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(parse(&bytes).is_err(), "bit {bit}");
        }
    }
}
