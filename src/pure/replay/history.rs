//! A file of recorded transitions: a dump, several dumps, or the history of a simulated run.
use serde_json::{Map, Value};

use super::{Again, again};

/// The shape of [`History::file`].
pub const SCHEMA: u64 = 1;

/// One transition of one machine of one node.
#[derive(Clone, Debug, PartialEq)]
pub struct Transition {
    pub node: String,
    pub flow: String,
    /// When, as the file says it: wall clock, or simulated milliseconds.
    pub at: String,
    pub record: Value,
}

impl Transition {
    /// A field of the record as text; empty where it is absent.
    pub fn text(&self, field: &str) -> &str {
        self.record.get(field).and_then(Value::as_str).unwrap_or_default()
    }

    fn seq(&self) -> Option<u64> {
        self.record.get("seq").and_then(Value::as_u64)
    }

    fn same_machine(&self, other: &Transition) -> bool {
        (&self.node, &self.flow) == (&other.node, &other.flow)
    }

    /// The same move for the same reason, whatever was known.
    pub fn is_like(&self, other: &Transition) -> bool {
        let told = |t: &Transition| {
            [t.text("from").to_owned(), t.text("to").to_owned(), t.text("cause").to_owned()]
        };
        self.same_machine(other) && told(self) == told(other)
    }
}

/// The arbiter's decision about who leads, as the log has it.
pub type Decision = Value;

#[derive(Clone, Debug, Default)]
pub struct History {
    /// In the order in which they happened.
    pub transitions: Vec<Transition>,
    pub decisions: Vec<Decision>,
}

impl History {
    /// Reads a file's text.
    ///
    /// # Errors
    /// One sentence with line and column where the text is no JSON, or what is missing in it.
    pub fn parse(text: &str) -> Result<History, String> {
        let value: Value = serde_json::from_str(text).map_err(|error| {
            let (line, column) = (error.line(), error.column());
            format!("line {line}, column {column}: no JSON, or cut off: {error}")
        })?;
        let mut history = History::default();
        if value.get("surus_history").is_some() {
            history.take_run(&value)?;
        } else if let Some(dumps) = value.get("dumps").and_then(Value::as_array) {
            dumps.iter().try_for_each(|dump| history.take_dump(dump))?;
        } else {
            history.take_dump(&value)?;
        }
        if history.transitions.is_empty() {
            return Err(String::from("it holds no transitions"));
        }
        // Machines of one node are listed one after the other; time puts them in order again.
        history.transitions.sort_by(|a, b| order(&a.at).cmp(&order(&b.at)));
        history.decisions.dedup();
        Ok(history)
    }

    fn take_run(&mut self, value: &Value) -> Result<(), String> {
        let schema = value["surus_history"].as_u64();
        if schema != Some(SCHEMA) {
            return Err(format!("surus_history is {schema:?}: this surus reads {SCHEMA}"));
        }
        let rows = value["transitions"].as_array().ok_or("`transitions` is no list")?;
        for (at, row) in rows.iter().enumerate() {
            let text = |key: &str| {
                let text = row.get(key).and_then(Value::as_str).map(str::to_owned);
                text.ok_or_else(|| format!("transitions[{at}] has no `{key}`"))
            };
            let (node, flow, when) = (text("node")?, text("flow")?, text("at")?);
            self.add(node, flow, when, &row["record"])
                .map_err(|e| format!("transitions[{at}]: {e}"))?;
        }
        Ok(())
    }

    fn take_dump(&mut self, dump: &Value) -> Result<(), String> {
        let node = dump["node"].as_str().ok_or("it is neither a dump nor a history: no `node`")?;
        let machines = dump["machines"].as_array().ok_or("`machines` is no list")?;
        for machine in machines {
            let flow = machine["flow"].as_str().ok_or("a machine without `flow`")?;
            for row in machine["transitions"].as_array().into_iter().flatten() {
                // A running daemon shows the record inside a row; a stopped one's journal is rows.
                let record = row.get("record").filter(|r| !r.is_null()).unwrap_or(row);
                let at = row.get("at_wall").or(row.get("wall")).and_then(Value::as_str);
                let at = at.unwrap_or_default().to_owned();
                self.add(node.into(), flow.into(), at, record)
                    .map_err(|error| format!("machine {flow} of {node}: {error}"))?;
            }
        }
        let decisions = dump["cluster"]["decisions"].as_array();
        self.decisions.extend(decisions.into_iter().flatten().cloned());
        Ok(())
    }

    fn add(
        &mut self,
        node: String,
        flow: String,
        at: String,
        record: &Value,
    ) -> Result<(), String> {
        if record.get("to").is_none_or(|to| !to.is_string()) {
            return Err(String::from("a record has no `to`"));
        }
        self.transitions.push(Transition { node, flow, at, record: record.clone() });
        Ok(())
    }

    /// What today's code makes of the transition at this place.
    pub fn again(&self, place: usize) -> Again {
        let after = &self.transitions[place];
        let earlier = self.transitions[..place].iter().rev();
        let before = earlier.clone().find(|t| t.same_machine(after) && t.seq() < after.seq());
        again(&after.flow, before.map(|before| &before.record), &after.record)
    }

    /// The first place where two histories part; none where one begins like the other and ends.
    pub fn parts_from(&self, other: &History) -> Option<usize> {
        let pairs = self.transitions.iter().zip(&other.transitions);
        let differ = pairs.enumerate().find(|(_, (one, two))| !one.is_like(two)).map(|(at, _)| at);
        let shorter = self.transitions.len().min(other.transitions.len());
        let longer = self.transitions.len().max(other.transitions.len());
        differ.or((shorter < longer).then_some(shorter))
    }

    /// The file of a run: `about` goes beside its transitions.
    pub fn file(about: Map<String, Value>, transitions: &[Transition]) -> Value {
        let row = |t: &Transition| serde_json::json!({"at": t.at, "node": t.node, "flow": t.flow, "record": t.record});
        let mut file = Map::new();
        file.insert("surus_history".into(), SCHEMA.into());
        file.extend(about);
        file.insert("transitions".into(), transitions.iter().map(row).collect());
        file.into()
    }
}

/// Simulated milliseconds by number, wall clock by text.
fn order(at: &str) -> (u64, &str) {
    at.parse().map_or((0, at), |ms| (ms, ""))
}
