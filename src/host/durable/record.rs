//! Records: a key, a body, a checksum, cut into pieces that sled keeps in its own file.
//!
//! sled moves a page of more than about 128 KiB into a file of its own, which it does not sync; a
//! page holds some two dozen items, so pieces of 4,000 bytes stay well below.
//!
//! ```text
//! key of a piece    key of the record, number of the piece (u32)
//! value of a piece  CRC-32 over that key and the rest, number of pieces (u32), bytes
//! ```
use std::io;
use std::ops::Bound;

use sled::{Batch, IVec, Tree};

use super::{damaged, from_sled};

/// Bytes of the body in one piece.
const PIECE_BYTES: usize = 4_000;
const HEAD_BYTES: usize = 8;

/// A record as it was put: key and body.
pub type Record = (Vec<u8>, Vec<u8>);

/// Puts a record whose key has never had a longer body, or whose pieces this batch removes.
pub fn put_fresh(batch: &mut Batch, key: &[u8], body: &[u8]) {
    let pieces = body.len().div_ceil(PIECE_BYTES).max(1);
    let total = u32::try_from(pieces).expect("a record is far smaller than 16 TB");
    for number in 0..total {
        let from = number as usize * PIECE_BYTES;
        let piece = &body[from..body.len().min(from + PIECE_BYTES)];
        let key = piece_key(key, number);
        let mut value = [&[0; 4][..], &total.to_be_bytes(), piece].concat();
        let sum = checksum(&key, &value[4..]);
        value[..4].copy_from_slice(&sum.to_be_bytes());
        batch.insert(key, value);
    }
}

/// Puts a record over whatever its key holds.
pub fn put(tree: &Tree, batch: &mut Batch, key: &[u8], body: &[u8]) -> io::Result<()> {
    remove(tree, batch, (Bound::Included(key), Bound::Included(key)))?;
    put_fresh(batch, key, body);
    Ok(())
}

/// Removes all records with keys in the range; all keys of one range must have one length.
pub fn remove(
    tree: &Tree,
    batch: &mut Batch,
    range: (Bound<&[u8]>, Bound<&[u8]>),
) -> io::Result<()> {
    for key in tree.range(piece_range(range)).keys() {
        batch.remove(key.map_err(from_sled)?);
    }
    Ok(())
}

/// The body under a key, checked.
pub fn get(tree: &Tree, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
    let found = scan(tree, (Bound::Included(key), Bound::Included(key)))?;
    Ok(found.into_iter().next().map(|(_, body)| body))
}

/// All records with keys in the range, in order, checked; one length of keys, as in [`remove`].
pub fn scan(tree: &Tree, range: (Bound<&[u8]>, Bound<&[u8]>)) -> io::Result<Vec<Record>> {
    let mut records: Vec<Record> = Vec::new();
    let mut missing = 0u32;
    for item in tree.range(piece_range(range)) {
        let (key, value) = item.map_err(from_sled)?;
        let (name, number, total, piece) = parse(&key, &value)?;
        match records.last_mut() {
            Some((last, body)) if missing > 0 && last == name && number == total - missing => {
                body.extend_from_slice(piece);
                missing -= 1;
            }
            _ if missing == 0 && number == 0 => {
                records.push((name.to_vec(), piece.to_vec()));
                missing = total - 1;
            }
            _ => return Err(damaged(format!("a piece before key {key:02x?} is missing"))),
        }
    }
    if missing > 0 {
        return Err(damaged("the last record is not whole"));
    }
    Ok(records)
}

fn piece_key(key: &[u8], number: u32) -> Vec<u8> {
    [key, &number.to_be_bytes()].concat()
}

fn piece_range(range: (Bound<&[u8]>, Bound<&[u8]>)) -> (Bound<Vec<u8>>, Bound<Vec<u8>>) {
    let from = match range.0 {
        Bound::Included(key) => Bound::Included(piece_key(key, 0)),
        Bound::Excluded(key) => Bound::Excluded(piece_key(key, u32::MAX)),
        Bound::Unbounded => Bound::Unbounded,
    };
    let to = match range.1 {
        Bound::Included(key) => Bound::Included(piece_key(key, u32::MAX)),
        Bound::Excluded(key) => Bound::Excluded(piece_key(key, 0)),
        Bound::Unbounded => Bound::Unbounded,
    };
    (from, to)
}

fn parse<'a>(key: &'a IVec, value: &'a IVec) -> io::Result<(&'a [u8], u32, u32, &'a [u8])> {
    let broken = || damaged(format!("the checksum of key {key:02x?} does not match"));
    if value.len() < HEAD_BYTES || key.len() < 4 {
        return Err(broken());
    }
    if word(&value[..4]) != checksum(key, &value[4..]) {
        return Err(broken());
    }
    let (name, number) = key.split_at(key.len() - 4);
    let (number, total) = (word(number), word(&value[4..8]));
    if number >= total {
        return Err(damaged(format!("key {key:02x?} has too high a number")));
    }
    Ok((name, number, total, &value[HEAD_BYTES..]))
}

fn word(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0, |word, byte| word << 8 | u32::from(*byte))
}

fn checksum(key: &[u8], rest: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&(key.len() as u64).to_be_bytes());
    hasher.update(key);
    hasher.update(rest);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored() -> Tree {
        let db = sled::Config::new().temporary(true).open().expect("a database opens");
        let mut batch = Batch::default();
        put_fresh(&mut batch, b"a", &[1; 3 * PIECE_BYTES]);
        put_fresh(&mut batch, b"b", &[2; 3 * PIECE_BYTES]);
        put_fresh(&mut batch, b"c", b"");
        db.apply_batch(batch).expect("it writes");
        db.open_tree("__sled__default").expect("it is there")
    }

    fn all(tree: &Tree) -> io::Result<Vec<Record>> {
        scan(tree, (Bound::Unbounded, Bound::Unbounded))
    }

    #[test]
    fn records_come_back_whole_and_shorter_ones_leave_nothing_behind() {
        let tree = stored();
        let bodies: Vec<usize> = all(&tree).expect("it reads").iter().map(|r| r.1.len()).collect();
        assert_eq!(bodies, [3 * PIECE_BYTES, 3 * PIECE_BYTES, 0]);
        let mut batch = Batch::default();
        put(&tree, &mut batch, b"b", b"short").expect("it reads");
        tree.apply_batch(batch).expect("it writes");
        assert_eq!(get(&tree, b"b").expect("it reads"), Some(b"short".to_vec()));
        assert_eq!((tree.len(), get(&tree, b"d").expect("it reads")), (5, None));
    }

    #[test]
    fn what_was_not_put_like_this_is_found() {
        let spoilings: [fn(&Tree, Vec<u8>); 4] = [
            |tree, key| {
                let mut value = tree.get(&key).expect("reads").expect("is there").to_vec();
                let at = value.len() - 1;
                value[at] ^= 1;
                tree.insert(key, value).expect("it writes");
            },
            |tree, key| drop(tree.remove(key)),
            |tree, key| drop(tree.insert(key, b"short")),
            // A good piece in the place of another record's.
            |tree, key| {
                let other = piece_key(if key[0] == b'a' { b"b" } else { b"a" }, 1);
                let value = tree.get(other).expect("reads").expect("is there");
                tree.insert(key, value).expect("it writes");
            },
        ];
        for (number, spoil) in spoilings.iter().enumerate() {
            for (key, piece) in [(b"a", 0), (b"a", 1), (b"a", 2), (b"b", 0), (b"b", 2)] {
                let tree = stored();
                spoil(&tree, piece_key(key, piece));
                let e = all(&tree).expect_err("it is found");
                assert_eq!(e.kind(), io::ErrorKind::InvalidData, "{number}, {piece} of {key:?}");
            }
        }
    }
}
