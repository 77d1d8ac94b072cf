//! JSON the way Python writes it: `", "` and `": "` between things, ASCII only.
//!
//! Clients of Patroni compare bodies as text more often than they should.
use std::io;

use serde::Serialize;
use serde_json::Value;
use serde_json::ser::{Formatter, Serializer};

struct Python;

impl Formatter for Python {
    fn begin_array_value<W: io::Write + ?Sized>(
        &mut self,
        w: &mut W,
        first: bool,
    ) -> io::Result<()> {
        if first { Ok(()) } else { w.write_all(b", ") }
    }

    fn begin_object_key<W: io::Write + ?Sized>(
        &mut self,
        w: &mut W,
        first: bool,
    ) -> io::Result<()> {
        if first { Ok(()) } else { w.write_all(b", ") }
    }

    fn begin_object_value<W: io::Write + ?Sized>(&mut self, w: &mut W) -> io::Result<()> {
        w.write_all(b": ")
    }

    fn write_string_fragment<W: io::Write + ?Sized>(
        &mut self,
        w: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        let mut units = [0u16; 2];
        for c in fragment.chars() {
            if c.is_ascii() {
                w.write_all(&[c as u8])?;
                continue;
            }
            for unit in c.encode_utf16(&mut units) {
                write!(w, "\\u{unit:04x}")?;
            }
        }
        Ok(())
    }
}

/// The value in one line, as Python's `json.dumps` prints it.
pub fn dumps(value: &Value) -> String {
    let mut out = Vec::new();
    value
        .serialize(&mut Serializer::with_formatter(&mut out, Python))
        .expect("a JSON value always serializes into memory");
    String::from_utf8(out).expect("the formatter writes ASCII only")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn separators_are_pythons() {
        let value = json!({"a": [1, 2, {"b": null}], "c": {}, "d": [], "e": 1.4});
        assert_eq!(dumps(&value), r#"{"a": [1, 2, {"b": null}], "c": {}, "d": [], "e": 1.4}"#);
    }

    #[test]
    fn other_alphabets_are_escaped() {
        assert_eq!(dumps(&json!("é😀\n")), r#""\u00e9\ud83d\ude00\n""#);
    }

    proptest! {
        #[test]
        fn any_text_reads_back(text in ".*", key in ".*") {
            let value = json!({ key: [text] });
            let read: Value = serde_json::from_str(&dumps(&value)).expect("valid JSON");
            prop_assert_eq!(read, value);
        }
    }
}
