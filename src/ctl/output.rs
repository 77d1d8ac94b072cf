//! Tables as `patronictl` draws them, and the same rows as tsv, JSON and YAML.
use std::io::{self, Write};

use comfy_table::{Cell, CellAlignment, ContentLineStyle, LineStyle, Table, TableStyle};
use serde_json::{Map, Value};

use super::args::Format;
use crate::pure::patroni::json;

/// One column: its key in the rows, its heading in a drawn table, and its side.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    pub key: &'static str,
    pub heading: &'static str,
    pub right: bool,
}

impl Column {
    pub const fn left(key: &'static str) -> Column {
        Column { key, heading: key, right: false }
    }

    pub const fn right(key: &'static str) -> Column {
        Column { key, heading: key, right: true }
    }

    pub const fn headed(self, heading: &'static str) -> Column {
        Column { heading, ..self }
    }
}

pub type Row = Map<String, Value>;

/// One line to standard output; a reader that went away is no error worth a message.
pub fn line(text: &str) {
    let _ = writeln!(io::stdout(), "{text}");
}

/// The rows in the wanted format, without the last newline.
pub fn render(format: Format, title: Option<&str>, columns: &[Column], rows: &[Row]) -> String {
    match format {
        Format::Pretty => pretty(title, columns, rows),
        Format::Tsv => tsv(columns, rows),
        Format::Json => json::dumps(&filled(columns, rows)),
        Format::Yaml => yaml(&filled(columns, rows)),
    }
}

/// Rows as objects without their empty values.
fn filled(columns: &[Column], rows: &[Row]) -> Value {
    let object = |row: &Row| -> Value {
        let cells = columns.iter().filter_map(|column| {
            let value = row.get(column.key).filter(|value| !is_empty(value))?;
            Some((column.key.to_owned(), value.clone()))
        });
        Value::Object(cells.collect())
    };
    rows.iter().map(object).collect()
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Object(object) => object.is_empty(),
        _ => false,
    }
}

/// YAML in block style.
pub fn yaml(value: &Value) -> String {
    let text = serde_saphyr::to_string(value).unwrap_or_else(|error| error.to_string());
    text.trim_end().to_owned()
}

/// YAML in flow style, for a single line.
pub fn flow(value: &Value) -> String {
    match value {
        Value::Object(object) => {
            let pairs: Vec<_> = object.iter().map(|(k, v)| format!("{k}: {}", flow(v))).collect();
            format!("{{{}}}", pairs.join(", "))
        }
        Value::Array(items) => {
            format!("[{}]", items.iter().map(flow).collect::<Vec<_>>().join(", "))
        }
        scalar => yaml(scalar),
    }
}

fn cell(value: Option<&Value>, multi_line: bool) -> String {
    match value {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Object(object)) if object.is_empty() => String::new(),
        Some(value @ (Value::Object(_) | Value::Array(_))) => {
            if multi_line {
                yaml(value)
            } else {
                flow(value)
            }
        }
        Some(other) => other.to_string(),
    }
}

fn tsv(columns: &[Column], rows: &[Row]) -> String {
    let heading = columns.iter().map(|column| column.key.to_owned()).collect::<Vec<_>>().join("\t");
    let lines = rows.iter().map(|row| {
        let cells = columns.iter().map(|column| cell(row.get(column.key), false));
        cells.map(|text| text.replace('\n', "\\n")).collect::<Vec<_>>().join("\t")
    });
    std::iter::once(heading).chain(lines).collect::<Vec<_>>().join("\n")
}

fn pretty(title: Option<&str>, columns: &[Column], rows: &[Row]) -> String {
    let cells: Vec<Vec<String>> = rows
        .iter()
        .map(|row| columns.iter().map(|column| cell(row.get(column.key), true)).collect())
        .collect();
    let tall = cells.iter().flatten().any(|text| text.contains('\n'));
    let mut table = Table::new();
    table.load_style(style(tall));
    table.set_header(columns.iter().map(|column| column.heading));
    for row in cells {
        table.add_row(row.into_iter().map(Cell::new));
    }
    for (index, column) in columns.iter().enumerate().filter(|(_, column)| column.right) {
        let _ = column;
        if let Some(column) = table.column_mut(index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    titled(title, table.to_string())
}

fn style(tall: bool) -> TableStyle {
    let rule = LineStyle::new('+', '-', '+', '+');
    let content = ContentLineStyle::new('|', '|', '|');
    let style = TableStyle::new()
        .top_border(rule)
        .header_lines(content)
        .header_separator(rule)
        .content_lines(content)
        .bottom_border(rule);
    if tall { style.row_separator(rule) } else { style }
}

/// Writes the title into the top rule, cut where the table is too narrow for it.
fn titled(title: Option<&str>, drawn: String) -> String {
    let Some(title) = title else {
        return drawn;
    };
    let (rule, rest) = drawn.split_once('\n').unwrap_or((&drawn, ""));
    let room = rule.chars().count().saturating_sub(2);
    let title: String = title.chars().take(room).collect();
    let used = title.chars().count() + 1;
    let right: String = rule.chars().skip(used).collect();
    format!("+{title}{right}\n{rest}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const COLUMNS: [Column; 3] =
        [Column::left("Member"), Column::right("TL"), Column::right("Replay Lag").headed("Lag")];

    fn rows() -> Vec<Row> {
        let row = |value: Value| value.as_object().cloned().expect("an object");
        vec![
            row(json!({"Member": "pg0", "TL": 1, "Replay Lag": null})),
            row(json!({"Member": "pg1", "TL": 12, "Replay Lag": 0})),
        ]
    }

    #[test]
    fn a_table_carries_its_title_in_the_rule() {
        let drawn = render(Format::Pretty, Some(" Cluster: x "), &COLUMNS, &rows());
        let wanted = "\
+ Cluster: x -+-----+
| Member | TL | Lag |
+--------+----+-----+
| pg0    |  1 |     |
| pg1    | 12 |   0 |
+--------+----+-----+";
        assert_eq!(drawn, wanted);
    }

    #[test]
    fn a_title_never_widens_the_table() {
        let drawn = render(Format::Pretty, Some(&"x".repeat(80)), &COLUMNS, &[]);
        let widths: Vec<_> = drawn.lines().map(|line| line.chars().count()).collect();
        assert!(widths.iter().all(|width| *width == widths[0]), "{drawn}");
    }

    #[test]
    fn machines_get_full_names_and_no_empty_values() {
        let drawn = render(Format::Json, None, &COLUMNS, &rows());
        let wanted =
            r#"[{"Member": "pg0", "TL": 1}, {"Member": "pg1", "TL": 12, "Replay Lag": 0}]"#;
        assert_eq!(drawn, wanted);
        let drawn = render(Format::Tsv, None, &COLUMNS, &rows());
        assert_eq!(drawn, "Member\tTL\tReplay Lag\npg0\t1\t\npg1\t12\t0");
    }

    #[test]
    fn tags_are_a_block_or_a_flow() {
        let mut row = Row::new();
        row.insert("Member".into(), json!({"clonefrom": true, "rack": "a"}));
        let drawn = render(Format::Pretty, None, &COLUMNS[..1], &[row.clone(), row.clone()]);
        assert!(drawn.contains("| clonefrom: true |\n| rack: a         |\n+---"), "{drawn}");
        let drawn = render(Format::Tsv, None, &COLUMNS[..1], &[row]);
        assert_eq!(drawn, "Member\n{clonefrom: true, rack: a}");
    }
}
