//! The cluster does not exist yet: who may create it, or adopt the data it has.
use super::core::Core;
use crate::pure::cluster::eligibility::{Ineligible, may_create};
use crate::pure::cluster::facts::{DataDirectory, Facts};
use crate::pure::cluster::state::{Decision, Purpose, Verdict};
use crate::pure::cluster::{Millis, RaftId};
use crate::pure::postgres::lsn::Lsn;

/// How long a new arbiter waits to hear what lies in everybody's data directory.
const SURVEY_MS: Millis = 3000;

impl Core {
    /// Grants the lease for the creation, once it is known what lies everywhere.
    pub(super) fn choose_creator(&mut self) {
        let Some(arbitration) = &self.arbitration else { return };
        if self.cluster.initialize_failure.is_some() {
            // A snapshot tells of the failure without its entry: the pause counts from here.
            self.failure_seen_at.get_or_insert(self.now);
        }
        let waited = self.now >= arbitration.lease.won_at + SURVEY_MS;
        let members: Vec<RaftId> =
            self.cluster.members.iter().filter(|(_, m)| !m.witness).map(|(id, _)| *id).collect();
        let surveyed = members
            .iter()
            .all(|id| self.recent(*id).is_some_and(|f| f.data != DataDirectory::Unknown));
        if !surveyed && !waited {
            return;
        }
        let verdicts = members.iter().map(|id| self.judge_creator(*id)).collect::<Vec<_>>();
        let best = verdicts.iter().filter_map(|(score, _)| *score).max();
        let decision = |winner: Option<String>, reason: &str| Decision {
            epoch: self.cluster.epoch + 1,
            winner,
            reason: reason.to_string(),
            verdicts: verdicts.iter().map(|(_, v)| v.clone()).collect(),
            at: self.wall.clone(),
        };
        match best {
            None => self.nobody(decision(None, "no member can create the cluster")),
            Some(score) => {
                let holder = score.3;
                let name = self.cluster.name_of(holder).map(str::to_string);
                let reason = if score.0 { "adopts the data it has" } else { "creates the cluster" };
                let ttl_ms = self.recent(holder).and_then(|f| f.bootstrap_ttl_ms);
                let ttl_ms = ttl_ms.unwrap_or(self.first_ttl_ms);
                let decision = decision(name, reason);
                self.grant(holder, ttl_ms, Purpose::Initialise, decision);
            }
        }
    }

    /// (has data, timeline and position, preference, id): the greatest creates. Whoever restored
    /// a backup and was cut short goes on with it before anybody begins anew.
    #[allow(clippy::type_complexity)]
    fn judge_creator(
        &self,
        id: RaftId,
    ) -> (Option<(bool, (u32, Lsn), (bool, bool, bool), RaftId)>, Verdict) {
        let name = self.cluster.name_of(id).unwrap_or("?").to_string();
        let no = |rule: &str| {
            let verdict = Verdict {
                member: name.clone(),
                outcome: "refused".into(),
                rule: rule.into(),
                inputs: String::new(),
            };
            (None, verdict)
        };
        let member = self.cluster.members.get(&id).ok_or(Ineligible::NotHeard);
        let facts = match member.and_then(|member| may_create(member, self.recent(id))) {
            Ok(facts) => facts,
            Err(why) => return no(&why.to_string()),
        };
        let failed_last = self.cluster.initialize_failure.as_ref().is_some_and(|f| f.node == name);
        if !self.backed_off() {
            return no(match failed_last {
                true => "failed to create the cluster; the next attempt waits",
                false => "waits: the last attempt to create the cluster failed on another node",
            });
        }
        let lowest_first = self.member.raft_addr.as_str()
            >= self.cluster.members.get(&id).map_or("", |m| m.raft_addr.as_str());
        let preference = (!failed_last, facts.restored, lowest_first);
        let (has_data, at) = match self.data_to_begin_with(facts) {
            Ok(found) => found,
            Err(rule) => return no(&rule),
        };
        let verdict = Verdict {
            member: name,
            outcome: "eligible".into(),
            rule: match (has_data, facts.restored) {
                (true, _) => "has data",
                (false, true) => "has restored a backup and may go on",
                (false, false) => "is empty and may create",
            }
            .into(),
            inputs: format!("timeline={} lsn={}", at.0, at.1),
        };
        (Some((has_data, at, preference, id)), verdict)
    }

    /// Does the cluster begin with what lies there, and where does that end?
    ///
    /// # Errors
    /// Why it may not begin there.
    fn data_to_begin_with(&self, facts: &Facts) -> Result<(bool, (u32, Lsn)), String> {
        let no = |rule: &str| Err(rule.to_owned());
        match &facts.data {
            DataDirectory::Present { .. } if facts.postmaster_alive && facts.sql.is_none() => {
                no("PostgreSQL runs there and does not let Surus in: what it is, is unknown")
            }
            DataDirectory::Present { timeline, lsn, was_primary: true, .. } => {
                Ok((true, (*timeline, *lsn)))
            }
            DataDirectory::Present { timeline, lsn, .. }
                if facts.begins_as_standby && !facts.postmaster_alive =>
            {
                Ok((true, (*timeline, *lsn)))
            }
            DataDirectory::Present { .. } => {
                no("its data directory was a standby's: start the primary's node first")
            }
            DataDirectory::Empty | DataDirectory::Incomplete
                if facts.bootstrap_ttl_ms.is_some() =>
            {
                self.holds_data().map_or(Ok((false, (0, Lsn(0)))), |other| {
                    Err(format!(
                        "is empty, and {other} holds data: start the node of its primary first, or \
                         remove that data"
                    ))
                })
            }
            DataDirectory::Empty | DataDirectory::Incomplete => {
                no("its file has no bootstrap section")
            }
            DataDirectory::Broken { problem } => no(problem),
            DataDirectory::Unknown => no("has not looked at its data directory yet"),
        }
    }

    /// Somebody has a copy of a cluster that is there already: nobody makes a new one beside it.
    fn holds_data(&self) -> Option<&str> {
        let with_data = |id: &&RaftId| {
            self.recent(**id).is_some_and(|f| matches!(f.data, DataDirectory::Present { .. }))
        };
        let holder = self.cluster.members.keys().find(with_data)?;
        self.cluster.name_of(*holder)
    }

    /// Attempts to create the cluster are spaced out: 2, 4, 8 … 60 s, whoever made the last one. Nodes
    /// that take turns would else never pause.
    fn backed_off(&self) -> bool {
        let Some(failure) = &self.cluster.initialize_failure else { return true };
        let attempts = failure.attempts;
        let wait = (1000 << attempts.min(6)).min(60_000);
        let since = self.failure_seen_at.unwrap_or(self.now);
        self.now >= since + wait
    }
}
