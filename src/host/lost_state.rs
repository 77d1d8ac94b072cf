//! A state directory that cannot be gone on from: what to do depends on what the others say now.
//!
//! Moved aside on one node, nothing is lost; on a majority of them the cluster's state is. So nobody is told to
//! move it aside before the others were asked.
use serde_json::Value;

use super::rest_client::Client;
use crate::pure::config::Config;

/// What to do about this node's `raft.data_dir`; asks the other nodes over REST, which takes seconds.
pub fn advice(config: &Config) -> String {
    let client = Client::of(config.clone());
    let asked = client.doors().join(", ");
    let answer = client.cluster().ok();
    in_words(answer.as_ref(), &asked, &config.raft.data_dir.display().to_string())
}

fn in_words(answer: Option<&Value>, asked: &str, dir: &str) -> String {
    let node = |body: &Value| body["surus"]["node"].as_str().unwrap_or("another node").to_owned();
    match answer {
        Some(body) if body["surus"]["quorum"] == true => format!(
            "{} says that the others have a majority without this node: move {dir} aside and start again, then \
             it comes back under a new id",
            node(body)
        ),
        Some(body) => format!(
            "{} answers and has no majority: leave {dir} where it is and start the others first; if their \
             majority is lost for good, `surus recover` on one that still has its raft.data_dir",
            node(body)
        ),
        None => format!(
            "no other node answers at {asked}: leave {dir} where it is, start the others first, then this one again; it \
             may be moved aside only while they have a majority without it, for on a majority of the nodes \
             it is the cluster's only memory (`surus recover` on one that still has its own)"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn nobody_moves_anything_aside_before_the_others_have_a_majority() {
        let said = |quorum: bool| {
            in_words(Some(&json!({"surus": {"node": "n2", "quorum": quorum}})), "a:8008", "/r")
        };
        assert!(said(true).contains("n2 says") && said(true).contains("move /r aside"));
        for text in [said(false), in_words(None, "a:8008", "/r")] {
            assert!(
                text.contains("leave /r where it is") && text.contains("surus recover"),
                "{text}"
            );
        }
    }
}
