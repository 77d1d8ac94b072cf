//! The arbiter carries out what the operator ordered: a lost member goes, or stays with the reason why.
use raft::eraftpb::ConfChangeType;

use super::core::{Core, Output};
use super::message::{Greeting, PeerMessage};
use crate::pure::cluster::RaftId;
use crate::pure::cluster::command::Command;

impl Core {
    /// One removal at a time; whether something was proposed.
    pub(super) fn carry_out_removal(&mut self) -> bool {
        let Some((id, name)) = self.cluster.removing.first_key_value() else { return false };
        let (id, name) = (*id, name.clone());
        match self.objection_to_removal(id, &name) {
            Some(reason) => self.put(Command::KeepMember { id, reason }),
            None => {
                self.tell(format!("removes {name} ({id:016x}), as the operator ordered"));
                self.change(ConfChangeType::RemoveNode, id, Vec::new());
            }
        }
        true
    }

    /// What the state does not know: whether it is alive, and what would be left.
    fn objection_to_removal(&self, id: RaftId, name: &str) -> Option<String> {
        if let Some(rejection) = self.cluster.objection_to_removal(id) {
            return Some(rejection);
        }
        if self.answers(id) || self.recent(id).is_some() {
            return Some(format!(
                "{name} answers: stop its daemon first, if it is to go (a member that is heard is not \
                 removed)"
            ));
        }
        let rest: Vec<RaftId> =
            self.group.as_ref()?.voters().into_iter().filter(|voter| *voter != id).collect();
        let answer = rest.iter().filter(|voter| self.answers(**voter)).count();
        (answer * 2 <= rest.len()).then(|| {
            format!(
                "without {name} only {answer} of {} voters would answer, which is no majority: start \
                 others first",
                rest.len()
            )
        })
    }

    /// Whoever was removed and comes back with its old state directory hears what to do.
    pub(super) fn turn_away(&mut self, greeting: &Greeting) -> bool {
        let removed = self.cluster.removed.contains(&greeting.id);
        if removed {
            let reason = format!(
                "{} ({:016x}) was removed from the cluster: move its raft.data_dir aside and start it \
                 again, then it joins as a new member",
                greeting.name, greeting.id
            );
            self.say_once(&reason);
            let message = PeerMessage::JoinRefused { reason };
            self.out.push(Output::SendPeer { addr: greeting.addr.clone(), message });
        }
        removed
    }
}
