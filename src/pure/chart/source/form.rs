//! The JSON's shape, before anything is known to be right.
//!
//! Own visitors instead of `untagged`, so that a stray key is named together with its line; own
//! maps, so that order and repeated keys are kept.
use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChartForm {
    pub id: String,
    pub description: Option<String>,
    pub initial: String,
    pub states: Ordered<StateForm>,
    #[serde(default)]
    pub meta: MetaForm,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub struct MetaForm {
    /// A sentence for every name.
    #[serde(default)]
    pub vocabulary: Ordered<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StateForm {
    pub description: Option<String>,
    #[serde(rename = "type")]
    pub kind: Option<Kind>,
    /// `success` or `failure`, of a final state.
    #[serde(default)]
    pub tags: Vec<String>,
    pub initial: Option<String>,
    pub states: Option<Ordered<StateForm>>,
    #[serde(default)]
    pub on: Ordered<Edges>,
    #[serde(default)]
    pub after: Ordered<Edges>,
    pub always: Option<Edges>,
    pub invoke: Option<InvokeForm>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    Final,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InvokeForm {
    pub src: String,
    #[serde(rename = "onDone")]
    pub on_done: Option<Edges>,
    #[serde(rename = "onError")]
    pub on_error: Option<Edges>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EdgeForm {
    pub target: Option<String>,
    pub guard: Option<String>,
    #[serde(default)]
    pub actions: Vec<String>,
    pub description: Option<String>,
}

/// One edge or several: `"copying"`, `{ … }` or `[ … ]`.
pub struct Edges(pub Vec<EdgeForm>);

impl<'de> Deserialize<'de> for Edges {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Edges, D::Error> {
        from.deserialize_any(EdgesVisitor)
    }
}

struct EdgesVisitor;

impl<'de> Visitor<'de> for EdgesVisitor {
    type Value = Edges;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a target, an edge or a list of edges")
    }

    fn visit_str<E>(self, target: &str) -> Result<Edges, E> {
        let target = Some(target.to_owned());
        Ok(Edges(vec![EdgeForm { target, guard: None, actions: vec![], description: None }]))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Edges, A::Error> {
        Ok(Edges(vec![EdgeForm::deserialize(MapAccessDeserializer::new(map))?]))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Edges, A::Error> {
        let mut edges = vec![];
        while let Some(Edges(more)) = list.next_element()? {
            edges.extend(more);
        }
        Ok(Edges(edges))
    }
}

/// A JSON object in the file's order, repeated keys included.
pub struct Ordered<T>(pub Vec<(String, T)>);

impl<T> Default for Ordered<T> {
    fn default() -> Self {
        Ordered(vec![])
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Ordered<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_map(OrderedVisitor(PhantomData))
    }
}

struct OrderedVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for OrderedVisitor<T> {
    type Value = Ordered<T>;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Ordered<T>, A::Error> {
        let mut entries = vec![];
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Ordered(entries))
    }
}
