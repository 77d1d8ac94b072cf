//! The JSON we accept and every reason to refuse it.
//!
//! The form is a strict subset of XState v5, so a chart also opens in other people's viewers:
//! `id description initial states meta{vocabulary}` at the top; `description type:final tags initial states on after
//! always invoke{src,onDone,onError}` in a state; `target guard actions description` on an edge.
//! A target is a sibling (`copying`), a child of the edge's own state (`.copying`) or a full path
//! (`#replica_build.building.copying`), as XState resolves them.
//!
//! All faults are reported at once, each as a sentence about one state. `build.rs` uses this file
//! too: a broken chart does not compile. The checks themselves are in [`check`].
mod check;
mod form;

use std::borrow::Cow;
use std::fmt;

use super::{Chart, Edge, StateRow, Text, Trigger};
use form::{ChartForm, EdgeForm, StateForm};

/// One reason to refuse a chart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The state it is about; `None` for the chart as a whole.
    pub state: Option<String>,
    /// What is wrong and what to do, as a sentence without its full stop.
    pub problem: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.state {
            Some(state) => write!(out, "{state}: {}", self.problem),
            None => out.write_str(&self.problem),
        }
    }
}

impl Fault {
    fn chart(problem: impl Into<String>) -> Fault {
        Fault { state: None, problem: problem.into() }
    }

    fn state(state: &str, problem: impl Into<String>) -> Fault {
        Fault { state: Some(state.to_owned()), problem: problem.into() }
    }
}

/// See [`Chart::parse`].
pub(super) fn parse(json: &str) -> Result<Chart, Vec<Fault>> {
    let form: ChartForm =
        serde_json::from_str(json).map_err(|error| vec![Fault::chart(error.to_string())])?;
    let mut reader = Reader::new(&form, fingerprint(json));
    reader.states(&form.states, None);
    reader.chart.initial = reader.initial(None, &form.initial, &form.states).unwrap_or_default();
    reader.edges(&form.states);
    let Reader { chart, mut faults } = reader;
    if faults.is_empty() {
        check::all(&chart, &mut faults);
    }
    if faults.is_empty() { Ok(chart) } else { Err(faults) }
}

/// FNV-1a over the chart without its layout and its sentences. Not for secrecy: it tells one chart from another.
fn fingerprint(json: &str) -> u64 {
    let mut value: serde_json::Value = serde_json::from_str(json).unwrap_or_default();
    value.as_object_mut().map(|chart| chart.shift_remove("meta"));
    value.to_string().bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

fn owned((name, sentence): &(String, String)) -> (Text, Text) {
    (Cow::Owned(name.clone()), Cow::Owned(sentence.clone()))
}

/// Turns forms into tables and collects what is wrong with the words.
struct Reader {
    chart: Chart,
    faults: Vec<Fault>,
}

impl Reader {
    fn new(form: &ChartForm, fingerprint: u64) -> Reader {
        let chart = Chart {
            id: Cow::Owned(form.id.clone()),
            description: Cow::Owned(form.description.clone().unwrap_or_default()),
            fingerprint,
            initial: 0,
            states: Cow::Owned(vec![]),
            edges: Cow::Owned(vec![]),
            events: Cow::Owned(vec![]),
            guards: Cow::Owned(vec![]),
            actions: Cow::Owned(vec![]),
            activities: Cow::Owned(vec![]),
            delays: Cow::Owned(vec![]),
            vocabulary: form.meta.vocabulary.0.iter().map(owned).collect(),
        };
        let mut reader = Reader { chart, faults: vec![] };
        reader.spelled(None, "the chart's id", &form.id);
        if form.description.as_deref().is_none_or(|text| text.trim().is_empty()) {
            reader.faults.push(Fault::chart("the chart has no description: say what it does"));
        }
        if form.states.0.is_empty() {
            reader.faults.push(Fault::chart("the chart has no states"));
        }
        reader
    }

    /// First pass: rows for all states, parents before children.
    fn states(&mut self, forms: &form::Ordered<StateForm>, parent: Option<usize>) {
        for (name, form) in &forms.0 {
            let place = self.state(name, form, parent);
            if let Some(children) = &form.states {
                self.states(children, Some(place));
            }
        }
        for (name, form) in &forms.0 {
            self.initial_child(name, form);
        }
    }

    fn state(&mut self, name: &str, form: &StateForm, parent: Option<usize>) -> usize {
        self.spelled(Some(name), "the name", name);
        if self.chart.state(name).is_some() {
            self.fault(name, "two states share this name; names are unique in a chart");
        }
        if form.description.as_deref().is_none_or(|text| text.trim().is_empty()) {
            self.fault(name, "has no description: say what is going on while we are here");
        }
        self.tags(name, form);
        let activity = form.invoke.as_ref().map(|invoke| {
            let state = Some(name);
            self.word(state, "activity", &invoke.src, |chart| &mut chart.activities)
        });
        let row = StateRow {
            name: Cow::Owned(name.to_owned()),
            description: Cow::Owned(form.description.clone().unwrap_or_default()),
            parent,
            initial: None,
            is_final: form.kind.is_some(),
            is_failure: form.tags == ["failure"],
            activity,
        };
        self.chart.states.to_mut().push(row);
        self.chart.states.len() - 1
    }

    /// How a flow ended is said by the chart.
    fn tags(&mut self, name: &str, form: &StateForm) {
        let tags: Vec<&str> = form.tags.iter().map(String::as_str).collect();
        match (form.kind.is_some(), &tags[..]) {
            (true, ["success"] | ["failure"]) | (false, []) => {}
            (true, _) => self.fault(
                name,
                "is final and needs `tags` with either `success` or `failure`: its parent goes by it",
            ),
            (false, _) => self.fault(name, "has `tags`, which only a final state may have"),
        }
    }

    fn initial_child(&mut self, name: &str, form: &StateForm) {
        match (&form.initial, &form.states) {
            (None, None) => {}
            (Some(_), None) => self.fault(name, "has `initial` but no `states`"),
            (_, Some(children)) if children.0.is_empty() => {
                self.fault(name, "has `states` with nothing in it");
            }
            (None, Some(_)) => self.fault(name, "has `states` but no `initial` among them"),
            (Some(initial), Some(children)) => {
                let initial = self.initial(Some(name), initial, children);
                if let Some(place) = self.chart.state(name) {
                    self.chart.states.to_mut()[place].initial = initial;
                }
            }
        }
    }

    fn initial(
        &mut self,
        state: Option<&str>,
        initial: &str,
        children: &form::Ordered<StateForm>,
    ) -> Option<usize> {
        let child = children.0.iter().any(|(name, _)| name == initial);
        if !child {
            let problem = format!("`initial` names no state of its own: `{initial}`");
            self.faults.push(Fault { state: state.map(str::to_owned), problem });
            return None;
        }
        self.chart.state(initial)
    }

    /// Second pass: all edges, now that every target can be known.
    fn edges(&mut self, forms: &form::Ordered<StateForm>) {
        for (name, form) in &forms.0 {
            self.edges_of(name, form);
            if let Some(children) = &form.states {
                self.edges(children);
            }
        }
    }

    fn edges_of(&mut self, name: &str, form: &StateForm) {
        let state = Some(name);
        self.twice(name, "event", &form.on);
        self.twice(name, "delay", &form.after);
        for edge in form.always.iter().flat_map(|edges| &edges.0) {
            self.edge(name, Trigger::Always, edge);
        }
        for (event, edges) in &form.on.0 {
            let event = self.word(state, "event", event, |chart| &mut chart.events);
            edges.0.iter().for_each(|edge| self.edge(name, Trigger::Event(event), edge));
        }
        if let Some(invoke) = &form.invoke {
            invoke.on_done.iter().flat_map(|edges| &edges.0).for_each(|edge| {
                self.edge(name, Trigger::Done, edge);
            });
            invoke.on_error.iter().flat_map(|edges| &edges.0).for_each(|edge| {
                self.edge(name, Trigger::Error, edge);
            });
        }
        for (delay, edges) in &form.after.0 {
            if !delay.ends_with("_timeout") && !delay.ends_with("_delay") {
                let problem = format!("the delay `{delay}` must end in `_timeout` or `_delay`");
                self.fault(name, problem);
            }
            let delay = self.word(state, "delay", delay, |chart| &mut chart.delays);
            edges.0.iter().for_each(|edge| self.edge(name, Trigger::After(delay), edge));
        }
    }

    fn edge(&mut self, source: &str, trigger: Trigger, form: &EdgeForm) {
        let Some(place) = self.chart.state(source) else { return };
        let guard = form
            .guard
            .as_deref()
            .map(|guard| self.word(Some(source), "guard", guard, |chart| &mut chart.guards));
        let actions = form
            .actions
            .iter()
            .map(|action| self.word(Some(source), "action", action, |chart| &mut chart.actions));
        let actions = Cow::Owned(actions.collect());
        let target = form.target.as_deref().and_then(|target| {
            let found = self.target(place, target);
            if found.is_none() {
                let problem = format!(
                    "{} leads to no state: `{target}` (write a sibling's name, `.child`, or the \
                     full path `#{}.…`)",
                    self.chart.trigger_text(trigger),
                    self.chart.id
                );
                self.fault(source, problem.trim_start());
            }
            found
        });
        let description = form.description.clone().map(Cow::Owned);
        let edge = Edge { source: place, trigger, guard, target, actions, description };
        self.chart.edges.to_mut().push(edge);
    }

    /// Resolves a target as XState does.
    fn target(&self, source: usize, target: &str) -> Option<usize> {
        let (from, path) = if let Some(path) = target.strip_prefix('#') {
            (None, path.strip_prefix(self.chart.id.as_ref())?.strip_prefix('.')?)
        } else if let Some(path) = target.strip_prefix('.') {
            (Some(source), path)
        } else {
            (self.chart.states[source].parent, target)
        };
        path.split('.').try_fold(from, |parent, name| {
            let place = self.chart.state(name)?;
            (self.chart.states[place].parent == parent).then_some(Some(place))
        })?
    }

    /// The place of a word in its table, where it is put when it is new.
    fn word(
        &mut self,
        state: Option<&str>,
        kind: &str,
        word: &str,
        table: impl Fn(&mut Chart) -> &mut Cow<'static, [Text]>,
    ) -> usize {
        if let Some(place) = table(&mut self.chart).iter().position(|known| known == word) {
            return place;
        }
        self.spelled(state, &format!("the {kind}"), word);
        let words = table(&mut self.chart).to_mut();
        words.push(Cow::Owned(word.to_owned()));
        words.len() - 1
    }

    /// Names become Rust's names and back, so only one spelling is possible.
    fn spelled(&mut self, state: Option<&str>, what: &str, name: &str) {
        let segment = |part: &str| {
            part.starts_with(|first: char| first.is_ascii_lowercase())
                && part.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit())
        };
        if name == "self" || name.len() > 80 || !name.split('_').all(segment) {
            let problem = format!(
                "{what} `{name}` is not snake_case (lower-case words that begin with a letter, \
                 joined by `_`; not `self`)"
            );
            self.faults.push(Fault { state: state.map(str::to_owned), problem });
        }
    }

    fn twice<T>(&mut self, state: &str, kind: &str, forms: &form::Ordered<T>) {
        for (place, (name, _)) in forms.0.iter().enumerate() {
            if forms.0[..place].iter().any(|(earlier, _)| earlier == name) {
                self.fault(state, format!("the {kind} `{name}` is listed twice"));
            }
        }
    }

    fn fault(&mut self, state: &str, problem: impl Into<String>) {
        self.faults.push(Fault::state(state, problem));
    }
}
