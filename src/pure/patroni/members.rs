//! `GET /members`: who votes, who is dead and still counts, and what may still fail; and who may be removed.
use serde_json::{Value, json};

use super::Answer;
use super::snapshot::Snapshot;
use crate::pure::cluster::facts::SqlFacts;
use crate::pure::cluster::state::Member;
use crate::pure::cluster::{Millis, RaftId};
use crate::pure::view::View;

/// Nobody is taken for dead who was silent for less than this.
const SILENCE_MS_MIN: Millis = 10_000;

/// The body of `/members`.
pub fn body(snapshot: &Snapshot) -> Value {
    let mut rows: Vec<_> = snapshot.view.cluster.members.iter().collect();
    rows.sort_by(|a, b| a.1.name.cmp(&b.1.name));
    let rows: Vec<Value> =
        rows.into_iter().map(|(id, member)| row(snapshot, *id, member)).collect();
    let mut body = votes(snapshot);
    body["members"] = rows.into();
    body["quorum"] = snapshot.fresh().into();
    let age = |at: Millis| snapshot.now.saturating_sub(at) / 1000;
    let seen = snapshot.view.raft.quorum_at;
    body["quorum_age_s"] = (seen > 0).then(|| age(seen)).into();
    body["node"] = snapshot.config.name.as_str().into();
    body["scope"] = snapshot.config.scope.as_str().into();
    body
}

fn row(snapshot: &Snapshot, id: RaftId, member: &Member) -> Value {
    let view = snapshot.view;
    let heard = view.facts.get(&id);
    let own = id == view.own_id;
    let peer = view.raft.peers.iter().find(|peer| peer.id == id);
    let log = if own { Some(view.raft.last_index) } else { peer.and_then(|peer| peer.matched) };
    let position = heard.and_then(|h| h.facts.sql.as_ref()).map(SqlFacts::position);
    let leads = snapshot.leader() == Some(member.name.as_str());
    let lag = position.filter(|_| !leads).map(|at| snapshot.leader_lsn().since(at));
    let heard_s = heard.map(|heard| snapshot.now.saturating_sub(heard.heard_at) / 1000);
    json!({
        "name": member.name,
        "raft_id": format!("{id:016x}"),
        "address": member.raft_addr,
        "vote": vote(view, id, member),
        "role": match (leads, member.witness) {
            (true, _) => "leader",
            (_, true) => "witness",
            _ => "replica",
        },
        "arbiter": view.raft.leader == id,
        "answers": answers(snapshot, id),
        "heard_s_ago": if own { Some(0) } else { heard_s },
        "lag": lag,
        "log_index": log,
        "log_trails_by": log.map(|log| view.raft.last_index.saturating_sub(log)),
        "version": member.version,
        "removing": view.cluster.removing.contains_key(&id),
    })
}

/// `voter`, `witness` (a voter without data), `learner`, or `left` (its vote was given up).
fn vote(view: &View, id: RaftId, member: &Member) -> &'static str {
    match (view.raft.voters.contains(&id), member.witness) {
        (true, true) => "witness",
        (true, false) => "voter",
        (false, _) if member.left => "left",
        (false, _) => "learner",
    }
}

/// Connected, and heard not long ago; we ourselves always.
fn answers(snapshot: &Snapshot, id: RaftId) -> bool {
    if id == snapshot.view.own_id {
        return true;
    }
    let connected = snapshot.view.raft.peers.iter().any(|peer| peer.id == id && peer.connected);
    let bound = (3 * snapshot.dynamic.loop_wait_ms).max(SILENCE_MS_MIN);
    let heard = snapshot.view.facts.get(&id).is_some_and(|h| snapshot.now <= h.heard_at + bound);
    connected && heard
}

/// What may still fail: voters, how many of them a majority needs, who is dead, and a sentence.
pub fn votes(snapshot: &Snapshot) -> Value {
    let voters = &snapshot.view.raft.voters;
    let (alive, dead): (Vec<RaftId>, Vec<RaftId>) =
        voters.iter().copied().partition(|id| answers(snapshot, *id));
    let majority = voters.len() / 2 + 1;
    let dead: Vec<String> = dead.into_iter().map(|id| name_of(snapshot.view, id)).collect();
    let can_lose = alive.len() as i64 - majority as i64;
    json!({
        "voters": voters.len(),
        "majority": majority,
        "can_lose": can_lose.max(0),
        "dead": dead,
        "sentence": sentence(snapshot, &alive, majority, &dead),
    })
}

fn name_of(view: &View, id: RaftId) -> String {
    view.cluster.name_of(id).map_or_else(|| format!("{id:016x}"), str::to_owned)
}

fn sentence(snapshot: &Snapshot, alive: &[RaftId], majority: usize, dead: &[String]) -> String {
    let voters = snapshot.view.raft.voters.len();
    if voters == 0 {
        return String::from("this node is not part of a cluster yet");
    }
    let head = format!("{}, majority {majority}", counted(voters, "voter"));
    let mut text = match alive.len().checked_sub(majority) {
        None => format!(
            "{head}: only {} of them answer here, and without a majority nothing is decided; start the \
             others (`surus recover` if they are lost for good)",
            alive.len()
        ),
        Some(0) if voters == 1 => format!("{head}: there is no other that could take over"),
        Some(0) => format!("{head}: you can lose no further voter"),
        Some(more) => format!("{head}: you can lose {more} more"),
    };
    if let Some(only) = only_copy(snapshot, alive) {
        text.push_str(&format!("; of those that answer only {only} holds data"));
    }
    if !dead.is_empty() {
        let (names, are) = (dead.join(", "), if dead.len() == 1 { "is" } else { "are" });
        let count = if dead.len() == 1 { "counts" } else { "count" };
        text.push_str(&format!(
            "; {names} {are} dead and still {count}: start it, or remove it with `surus ctl members \
             remove NAME`"
        ));
    }
    text
}

fn counted(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

/// Several vote, and one alone could lead.
fn only_copy(snapshot: &Snapshot, alive: &[RaftId]) -> Option<String> {
    let members = &snapshot.view.cluster.members;
    let holds = |id: &&RaftId| members.get(id).is_some_and(|member| !member.witness);
    let mut copies = members.keys().filter(holds).filter(|id| answers(snapshot, **id));
    let only = copies.next().filter(|_| alive.len() > 1 && copies.next().is_none())?;
    Some(name_of(snapshot.view, *only))
}

/// The member of this name that may be removed, as far as this node knows.
///
/// # Errors
/// Why not, in one sentence; 404 where there is none of that name.
pub fn may_be_removed(snapshot: &Snapshot, name: &str) -> Result<RaftId, Answer> {
    let cluster = &snapshot.view.cluster;
    let named = cluster.members.iter().filter(|(_, member)| member.name == name);
    let mut ids: Vec<RaftId> = named.map(|(id, _)| *id).collect();
    ids.sort_by_key(|id| answers(snapshot, *id));
    let Some(id) = ids.first().copied() else {
        return Err(Answer::new(404, format!("{name} is no member of the cluster")));
    };
    if id == snapshot.view.own_id {
        return Err(Answer::new(409, format!("{name} is this very node, which runs")));
    }
    if let Some(rejection) = cluster.objection_to_removal(id) {
        return Err(Answer::new(409, rejection));
    }
    if answers(snapshot, id) {
        let text = format!(
            "{name} answers: stop its daemon first, if it is to go (a member that is heard is not removed)"
        );
        return Err(Answer::new(409, text));
    }
    if !snapshot.fresh() {
        let text = "no quorum: no majority of the voters answers, so nothing can be changed; start the \
                    others (`surus recover` if they are lost for good)";
        return Err(Answer::new(503, text));
    }
    Ok(id)
}

/// What became of the order to remove `id`, which was given after the entry `since`; nothing while
/// it is on its way.
pub fn outcome(view: &View, id: RaftId, name: &str, since: u64) -> Option<Answer> {
    let cluster = &view.cluster;
    if !cluster.members.contains_key(&id) {
        return Some(Answer::new(200, format!("{name} is no longer a member")));
    }
    let kept = cluster.kept.as_ref().filter(|kept| kept.id == id && kept.index > since)?;
    Some(Answer::new(409, kept.reason.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pure::cluster::facts::Facts;
    use crate::pure::config::{Dynamic, load};
    use crate::pure::view::{Heard, LocalView, PeerView};

    /// Four voters, the last of which was last heard `silent_ms` ago.
    fn view(silent_ms: u64, connected: bool) -> View {
        let mut view = View { now: 100_000, own_id: 1, own_name: "n1".into(), ..View::default() };
        for id in 1..=4u64 {
            let member = Member { name: format!("n{id}"), ..Member::default() };
            view.cluster.members.insert(id, member);
            let heard_at = if id == 4 { 100_000 - silent_ms } else { 100_000 };
            view.facts.insert(id, Heard { facts: Facts::default(), heard_at });
            let connected = id != 4 || connected;
            let peer = PeerView { id, connected, ..PeerView::default() };
            view.raft.peers.extend((id != 1).then_some(peer));
        }
        (view.raft.voters, view.raft.quorum_at) = (vec![1, 2, 3, 4], 100_000);
        view
    }

    fn with<T>(view: &View, read: impl FnOnce(&Snapshot) -> T) -> T {
        let (local, dynamic) = (LocalView::default(), Dynamic::default());
        let text = "scope: s\nname: n1\nraft: {data_dir: /r, self_addr: 127.0.0.1:2380}\n\
                    restapi: {listen: 127.0.0.1:8008, connect_address: 127.0.0.1:8008}\n";
        let config = load("surus.yml".as_ref(), text, &Default::default()).expect("it is sound");
        let now = view.now;
        read(&Snapshot { view, local: &local, dynamic: &dynamic, config: &config, now })
    }

    /// Spec: CON-1, CON-5.
    #[test]
    fn a_dead_voter_is_named_and_what_may_still_fail_is_said() {
        let said =
            |view: &View| with(view, votes)["sentence"].as_str().unwrap_or_default().to_owned();
        assert_eq!(said(&view(0, true)), "4 voters, majority 3: you can lose 1 more");
        let wanted = "4 voters, majority 3: you can lose no further voter; n4 is dead and still counts: \
                      start it, or remove it with `surus ctl members remove NAME`";
        assert_eq!(said(&view(90_000, false)), wanted);
        assert_eq!(said(&view(90_000, true)), wanted, "a connection outlives its other end");
        let mut alone = view(90_000, false);
        alone.raft.peers.clear();
        assert!(said(&alone).contains("only 1 of them answer here"), "{}", said(&alone));
        alone.raft.voters = vec![1];
        assert!(said(&alone).starts_with("1 voter, majority 1: there is no other"));
        let mut witnesses = view(0, true);
        for id in 2..=4 {
            witnesses.cluster.members.get_mut(&id).expect("it is there").witness = true;
        }
        assert!(said(&witnesses).ends_with("only n1 holds data"), "{}", said(&witnesses));
    }

    /// Spec: CON-6.
    #[test]
    fn who_is_heard_is_not_removed_and_nothing_is_without_a_quorum() {
        let asked = |view: &View, name: &str| {
            with(view, |snapshot| may_be_removed(snapshot, name))
                .map_err(|answer| (answer.code, answer.text))
        };
        assert_eq!(asked(&view(90_000, false), "n4"), Ok(4));
        let (code, said) = asked(&view(0, true), "n4").expect_err("it answers");
        assert!(code == 409 && said.starts_with("n4 answers: stop its daemon"), "{said}");
        assert_eq!(asked(&view(0, true), "n9").map_err(|(code, _)| code), Err(404));
        assert_eq!(asked(&view(0, true), "n1").map_err(|(code, _)| code), Err(409));
        let mut alone = view(90_000, false);
        alone.raft.quorum_at = 1;
        let (code, said) = asked(&alone, "n4").expect_err("no quorum");
        assert!(code == 503 && said.starts_with("no quorum"), "{said}");
    }

    #[test]
    fn the_outcome_is_what_the_log_says() {
        use crate::pure::cluster::state::Kept;
        let mut view = view(90_000, false);
        assert_eq!(outcome(&view, 4, "n4", 7), None);
        view.cluster.kept = Some(Kept { id: 4, index: 7, reason: "an earlier order".into() });
        assert_eq!(outcome(&view, 4, "n4", 7), None);
        view.cluster.kept = Some(Kept { id: 4, index: 8, reason: "n4 answers".into() });
        assert_eq!(outcome(&view, 4, "n4", 7), Some(Answer::new(409, "n4 answers")));
        view.cluster.members.remove(&4);
        assert_eq!(outcome(&view, 4, "n4", 7).map(|answer| answer.code), Some(200));
    }
}
