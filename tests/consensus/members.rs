//! Who belongs to the cluster: removal, names, later versions, lost state, and the pause of its creation.
use std::collections::BTreeMap;

use surus::pure::consensus::founding::HeardOf;

use super::*;

impl Net {
    /// From the beginning this one is not there.
    fn without(mut self, absent: usize) -> Net {
        self.up[absent] = false;
        self.queue.clear();
        for i in (0..self.cores.len()).filter(|i| *i != absent) {
            self.queue.push_back((i, Input::Local(Box::new(facts(i)))));
            self.greet(i);
        }
        self
    }

    /// It is off for good, and the others notice.
    fn dies(&mut self, gone: usize) {
        self.up[gone] = false;
        for i in (0..self.cores.len()).filter(|i| *i != gone) {
            let addr = format!("127.0.0.1:{}", 9000 + gone);
            self.queue.push_back((i, Input::Gone { addr, id: 100 + gone as u64 }));
        }
    }

    fn voters(&self, of: usize) -> usize {
        self.cores[of].group().map_or(0, |group| group.voters().len())
    }

    fn order_removal(&mut self, by: usize, whom: usize) {
        let command = Command::RemoveMember { id: 100 + whom as u64 };
        self.queue.push_back((by, Input::Propose { ticket: 20, command }));
        self.run(2000);
    }
}

/// Spec: CON-1, CON-6.
/// Four voters on three machines: the next failure would stop everything.
#[test]
fn a_dead_voter_is_removed_and_the_next_failure_is_borne() {
    let mut net = Net::new(4);
    let holder = net.born();
    let others: Vec<usize> = (0..4).filter(|i| *i != holder).collect();
    net.order_removal(holder, others[0]);
    assert_eq!(net.voters(holder), 4, "it is heard, and stays");
    let kept = net.cores[holder].cluster().kept.clone().expect("it is said why");
    assert!(kept.reason.contains("answers: stop its daemon first"), "{}", kept.reason);
    net.dies(others[0]);
    net.run(1000);
    net.order_removal(others[1], others[0]);
    assert_eq!(net.voters(holder), 3);
    assert_eq!(net.cores[holder].cluster().removed, [100 + others[0] as u64]);
    net.dies(others[1]);
    net.run(8000);
    assert_eq!(net.holder(), Some(holder));
    assert!(net.deadlines[holder].is_some_and(|at| at > net.now), "two of three keep it writing");
}

/// Of three two are gone: without the one, the other would be no majority of what is left. The order
/// cannot even be agreed on, and when one is back it is looked at anew.
#[test]
fn a_removal_never_costs_the_majority_and_the_removed_stays_out() {
    let mut net = Net::new(3);
    let holder = net.born();
    let others: Vec<usize> = (0..3).filter(|i| *i != holder).collect();
    net.dies(others[0]);
    net.dies(others[1]);
    net.order_removal(holder, others[0]);
    assert_eq!((net.voters(holder), net.cores[holder].cluster().removing.len()), (3, 0));
    net.up[others[1]] = true;
    (0..3).for_each(|i| net.greet(i));
    net.run(6000);
    net.order_removal(others[1], others[0]);
    assert_eq!(net.voters(others[1]), 2);
    net.up[others[0]] = true;
    (0..3).for_each(|i| net.greet(i));
    net.run(6000);
    assert_eq!(net.voters(others[1]), 2, "it stays out");
    let waits = net.cores[others[0]].view(net.now).joining.expect("it is told why");
    assert!(waits.contains("was removed from the cluster: move its raft.data_dir"), "{waits}");
}

/// The arbiter, of another version, has this entry agreed on, and tells the follower `to`.
fn append_foreign(net: &mut Net, to: usize, data: &serde_json::Value) {
    let group = net.cores[to].group().expect("it is in");
    let (from, term, (last, last_term)) = (group.leader(), group.term(), group.log().last());
    let mut message = raft::eraftpb::Message::default();
    message.set_msg_type(raft::eraftpb::MessageType::MsgAppend);
    (message.from, message.to, message.term) = (from, 100 + to as u64, term);
    (message.index, message.log_term, message.commit) = (last, last_term, last + 1);
    let data = serde_json::to_vec(data).expect("plain data").into();
    let entry = raft::eraftpb::Entry { index: last + 1, term, data, ..Default::default() };
    message.mut_entries().push(entry);
    net.queue.push_back((to, Input::Raft { from, message: Box::new(message) }));
    net.run(100);
}

/// Spec: CON-3, CON-23.
/// A command of a later version, and a known one that says more than is known.
#[test]
fn an_entry_of_a_later_version_stops_a_member_and_is_never_skipped() {
    let later =
        serde_json::json!({"origin": 1, "ticket": 0, "command": {"SetQuorum": {"size": 3}}});
    let more = serde_json::json!({"origin": 1, "ticket": 0,
        "command": {"ClearFailover": {"expected": null, "because": "of this"}}});
    for entry in [later, more] {
        let mut net = Net::new(3);
        let holder = net.born();
        let before = net.cores[holder].cluster().applied;
        assert!(net.deadlines[holder].is_some());
        append_foreign(&mut net, holder, &entry);
        assert!(net.halted.len() == 1 && net.halted[0].0 == holder, "{:?}", net.halted);
        let said = &net.halted[0].1;
        let wanted = format!("entry {} of the log was written by another version", before + 1);
        assert!(said.starts_with(&wanted) && said.contains("never skipped"), "{said}");
        assert_eq!(net.cores[holder].cluster().applied, before, "nothing behind it is applied");
        assert_eq!(net.deadlines[holder], None, "the lease is not counted on any more");
    }
}

/// A snapshot with parts that are not known is not taken in without them.
#[test]
fn a_snapshot_of_a_later_version_stops_a_member() {
    let mut net = Net::new(3);
    let holder = net.born();
    let mut state = serde_json::to_value(net.cores[holder].cluster()).expect("plain data");
    state["quorum_rule"] = 3.into();
    let leader = net.cores[holder].group().expect("it is in").leader();
    let term = net.cores[holder].group().expect("it is in").term();
    let data = serde_json::to_vec(&state).expect("plain data").into();
    let mut snapshot = raft::eraftpb::Snapshot { data, ..Default::default() };
    let meta = snapshot.mut_metadata();
    (meta.index, meta.term) = (5000, term);
    meta.mut_conf_state().set_voters(vec![100, 101, 102]);
    let mut message = raft::eraftpb::Message::default();
    message.set_msg_type(raft::eraftpb::MessageType::MsgSnapshot);
    (message.from, message.to, message.term) = (leader, 100 + holder as u64, term);
    message.set_snapshot(snapshot);
    net.queue.push_back((holder, Input::Raft { from: leader, message: Box::new(message) }));
    net.run(100);
    let said = &net.halted.first().expect("it stops").1;
    assert!(said.contains("snapshot") && said.contains("quorum_rule"), "{said}");
}

/// Spec: I-15, CON-6.
/// Whoever comes second under a name, or one that PostgreSQL takes for it, is told so and
/// stays out, also while the first is down: until that is removed.
#[test]
fn the_second_of_a_name_is_refused_on_both_sides_while_the_first_counts() {
    for name in ["n2", "N2", "n.2"] {
        let first = if name == "n.2" { "n-2" } else { "n2" };
        let mut net = Net::named(&["n0", "n1", first, name]).without(3);
        net.run(8000);
        assert_eq!(net.voters(0), 3);
        net.up[3] = true;
        (0..4).for_each(|i| net.greet(i));
        net.run(3000);
        assert_eq!(net.cores[0].cluster().members.len(), 3, "{name} is let in");
        let waits = net.cores[3].view(net.now).joining.unwrap_or_default();
        assert!(waits.contains("is not let in; give it another name"), "{waits}");
        let told = net.told.iter().filter(|(i, text)| *i < 3 && text.contains("is not let in"));
        assert!(told.count() > 0, "the members say nothing of {name}");
        net.dies(2);
        net.run(8000);
        assert_eq!(net.cores[0].cluster().members.len(), 3, "{name} is let in later");
        net.order_removal(0, 2);
        net.run(3000);
        assert!(
            net.cores[0].cluster().members.values().any(|m| m.name == name),
            "{name} may come now"
        );
    }
}

/// Two of one name found nothing together.
#[test]
fn two_of_one_name_do_not_found_a_cluster() {
    let mut net = Net::named(&["x-y", "n1", "x.y"]);
    net.run(8000);
    assert!(net.cores.iter().all(|core| core.founding_record().cluster_id.is_none()));
    let waits = net.cores[0].view(net.now).joining.unwrap_or_default();
    assert!(waits.contains("x-y at") && waits.contains("x.y at"), "{waits}");
}

/// Three nodes that fail in turns: the pause between attempts is the cluster's, and grows.
#[test]
fn nodes_that_take_turns_do_not_defeat_the_pause() {
    let mut net = Net::new(3);
    let mut failed = BTreeMap::new();
    while net.now < 100_000 {
        net.run(100);
        let Some(holder) = net.holder() else { continue };
        let epoch = net.cores[holder].cluster().epoch;
        if failed.contains_key(&epoch) {
            continue;
        }
        failed.insert(epoch, net.now);
        let (node, reason, at) = (format!("n{holder}"), "initdb failed".into(), String::new());
        let command = Command::InitialiseFailed { epoch, node, reason, at };
        net.queue.push_back((holder, Input::Propose { ticket: 30, command }));
        // What a node says is heard again and again, as it is in production.
        (0..3).for_each(|i| net.queue.push_back((i, Input::Local(Box::new(facts(i))))));
    }
    assert!((4..=7).contains(&failed.len()), "{} attempts in 100 s", failed.len());
}

/// What a node whose state directory was moved aside begins with.
fn without_state(i: usize, founding_record: FoundingRecord, now: u64) -> Core {
    let addr = |i: usize| format!("127.0.0.1:{}", 9000 + i);
    let member = Member { name: format!("n{i}"), raft_addr: addr(i), ..Member::default() };
    let partners = (0..3).filter(|j| *j != i).map(addr).collect();
    let (id, seed) = (100 + i as u64, 77 + i as u64);
    Core::new(Options {
        id,
        member,
        partners,
        voters_max: 5,
        ttl_ms: 2000,
        seed,
        founding_record,
        log: None,
        now,
    })
}

/// "Move it aside, the node comes back" was followed on two of three while the third was down: their data, or
/// what they once heard, says that there was a cluster, and they found no other.
#[test]
fn two_of_three_without_their_state_found_no_second_cluster() {
    let heard_of =
        HeardOf { cluster_id: "c".into(), name: "n2".into(), addr: "127.0.0.1:9002".into() };
    for (copy, heard_of) in [(7, None), (0, Some(heard_of)), (0, None)] {
        let fresh = copy == 0 && heard_of.is_none();
        let mut net = Net::new(3);
        net.up[2] = false;
        net.queue.clear();
        for i in 0..2 {
            let heard_of = heard_of.clone().filter(|_| i == 1);
            net.cores[i] =
                without_state(i, FoundingRecord { heard_of, ..FoundingRecord::default() }, 0);
            let facts = Facts { copy: if i == 1 { copy } else { 0 }, ..facts(i) };
            net.queue.push_back((i, Input::Local(Box::new(facts))));
            net.greet(i);
        }
        net.run(20_000);
        let founded = net.cores[0].founding_record().cluster_id.is_some();
        assert_eq!(founded, fresh, "copy {copy}");
        let waits = net.cores[0].view(net.now).joining.unwrap_or_default();
        assert!(fresh || waits.contains("`surus recover`"), "{waits}");
        assert!(
            fresh || net.told.iter().any(|(_, text)| text.contains("does not found a cluster"))
        );
        if fresh {
            continue;
        }
        // All three are there, and none belongs to a cluster: nothing is left that could be doubled.
        net.up[2] = true;
        net.queue.push_back((2, Input::Local(Box::new(facts(2)))));
        (0..3).for_each(|i| net.greet(i));
        net.run(6000);
        assert!(net.cores[0].founding_record().cluster_id.is_some(), "copy {copy}");
    }
}

/// Who was heard once is remembered, on disk too, and told to the others.
#[test]
fn a_member_of_a_cluster_that_was_heard_once_is_not_forgotten() {
    let mut net = Net::new(3).without(2);
    let mut greeting = net.greeting(2);
    greeting.standing.cluster_id = Some("c".into());
    net.queue.push_back((1, Input::Greeted(greeting)));
    net.queue.push_back((1, Input::Gone { addr: "127.0.0.1:9002".into(), id: 102 }));
    net.run(20_000);
    assert_eq!(
        net.cores[1].founding_record().heard_of.as_ref().map(|h| h.name.as_str()),
        Some("n2")
    );
    assert!(net.cores.iter().all(|core| core.founding_record().cluster_id.is_none()));
    let waits = net.cores[0].view(net.now).joining.unwrap_or_default();
    assert!(
        waits.contains("n2 at 127.0.0.1:9002, a member of the cluster c that exists"),
        "{waits}"
    );
}
