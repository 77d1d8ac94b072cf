"""What scripts/sabotage breaks: (name, layer, promises that may catch it, [(file, old, new), ...]).

Where two promises are named, whichever rng shows first is right.
"""
ARBITER, LEASE = "src/pure/consensus/arbiter.rs", "src/pure/cluster/lease.rs"
APPLY, ELIGIBILITY = "src/pure/cluster/apply.rs", "src/pure/cluster/eligibility.rs"
GROUP, FOUNDING = "src/pure/consensus/group.rs", "src/pure/consensus/founding.rs"
MACHINE, SYNC = "src/pure/machine/mod.rs", "src/pure/cluster/sync.rs"
LOG, CORE = "src/pure/consensus/log.rs", "src/pure/consensus/core.rs"
FLOW = "src/pure/flow/"

SABOTAGES = [
    ("a slow primary gives way to nobody", "recovery", "P7", [
        (FLOW + "restart.rs", "Guard::MayFail => !self.is_primary() || self.another_can_lead,",
         "Guard::MayFail => true,")]),
    ("a leader cut off before its record counts for nothing", "timeline", "P2", [
        (ELIGIBILITY, "if let Some(left) = self.left.filter(|_| newer) {",
         "if let Some(left) = self.left.filter(|_| newer && false) {")]),
    ("a grant that was never used empties the synchronous set", "sync", "P7", [
        (ELIGIBILITY, "match sync.before.as_deref().filter(|_| never_led) {",
         "match sync.before.as_deref().filter(|_| never_led && false) {")]),
    ("a switchover that failed is carried out again and again", "switchover", "P7", [
        ("src/pure/cluster/apply.rs", "if carried_out", "if false && carried_out")]),
    ("a copy that is not finished counts as one that led", "sync", "P7", [
        (ELIGIBILITY, "same && (unfinished || recovers", "same && (false && unfinished || recovers")]),
    ("a failed creation known from a snapshot pauses for ever", "bootstrap", "P7", [
        ("src/pure/consensus/initializer.rs", "if self.cluster.initialize_failure.is_some() {",
         "if false {")]),
    # ---- found by the simulator and by torture, and mended since
    ("a late proposal of the synchronous set", "sync", "P2", [
        (FLOW + "node.rs", "filter(|_| !self.sync_settled);", "filter(|_| false);")]),
    ("a copy that is not consistent waits for ever", "recovery", "P7", [
        (FLOW + "node.rs", "runs && s.in_recovery.is_none()",
         "false && runs && s.in_recovery.is_none()"),
        (FLOW + "node.rs", "Guard::AttemptRuns => runs && self.is_an_attempt(s) && !leads,",
         "Guard::AttemptRuns => runs && self.is_an_attempt(s) && !leads && false,")]),
    ("timelines of one number taken for one", "timeline", "P7", [
        ("src/pure/postgres/history.rs", "if timeline > leader.timeline || ours == theirs {",
         "if true {"),
        # Else none has the number of another.
        ("src/pure/consensus/arbiter.rs", "heard.max(newest).max(self.cluster.timeline) + 1",
         "0 * heard.max(newest)")]),
    ("a copy that runs on is never stopped", "copies", "P7", [
        ("statecharts/replica_build.json",
         '{ "target": "stopping", "actions": ["note_failure", "note_refusal"], "description": "An earlier copy',
         '{ "target": "backing_off", "actions": ["note_failure", "note_refusal"], "description": "An earlier copy'),
        (FLOW + "replica_build.rs", "Guard::WasRefusedBefore => self.refused,",
         "Guard::WasRefusedBefore => self.refused && false,"),
        (FLOW + "node.rs", "Guard::AttemptRuns => runs && self.is_an_attempt(s) && !leads,",
         "Guard::AttemptRuns => runs && self.is_an_attempt(s) && !leads && false,")]),
    ("rewound to a standby that is behind", "sites", "P2/P7", [
        (FLOW + "standby_leader.rs", "stands(RemoteRelation::Same) && s.remote_writes,",
         "stands(RemoteRelation::Same),")]),
    ("a section frees from what was acknowledged", "sites", "P2", [
        ("src/pure/cluster/standby.rs", "map_or(led, |old| old.owes_demotion);",
         "map_or(led && false, |old| old.owes_demotion);"),
        ("src/pure/cluster/standby.rs", "self.holds_what_was_acknowledged(own)?;", "")]),
    ("leaving the other site sets no timeline aside", "sites", "P7", [
        ("src/pure/cluster/standby.rs", "on.map_or(0, |on| s.timeline.max(on) + 1);",
         "on.map_or(0, |_| 0);")]),
    ("a promotion asks the log for its timeline", "timeline", "P7", [
        ("src/sim/operations.rs", "Operation::Promote { timeline } => self.promote(at, work, timeline),",
         "Operation::Promote { .. } => {\n                let known = self.nodes[at].daemon.as_ref();\n"
         "                let known = known.map_or(0, |d| d.core.cluster().timeline);\n"
         "                self.promote(at, work, known)\n            }")]),
    ("only the arbiter remembers how far the leader was", "rank", "P2", [
        ("src/pure/consensus/arbiter.rs", 'self.tell(format!("is the arbiter of term {term}"));',
         'self.tell(format!("is the arbiter of term {term}"));\n'
         "            self.leader_seen = LeaderSeen::default();")]),
    ("the remote is not judged again", "sites", "P1", [
        ("src/pure/cluster/standby.rs", "judged_under.is_some_and(|version| version != self.config_version)",
         "judged_under.is_some_and(|_| false)")]),
    ("a lease that was given up counts again", "lease", "P1", [
        ("src/pure/consensus/holder.rs", "self.relinquished_epoch = self.relinquished_epoch.max(Some(*epoch));", "")]),
    ("another copy under a synchronous name", "sync", "P2", [
        (ELIGIBILITY, "Some(known) if Some(*known) != copy => {",
         "Some(known) if false && Some(*known) != copy => {")]),
    ("a copy made anew has been waited for all along", "sync", "P2", [
        (CORE, "                && old.waits_for == copies\n", ""),
        (SYNC, "wanted.retain(|name| !known.contains(name) || is_counted(cluster, name, copies.get(name)));",
         "let _ = is_counted;"),
        (SYNC, "let same = leader.waits_for.get(&standby.name) == Some(&standby.copy);",
         "let same = true;"),
        (SYNC, "sql.position() >= leader.waits_since", "sql.timeline > 0")]),
    ("another cluster's data is a synchronous standby", "sync", "P2", [
        (SYNC, "standby.copy != 0 && cluster.system_identifier() == Some(system_identifier)",
         "!(system_identifier.is_empty() && cluster.applied == 0)")]),
    ("an attempt that still runs is nobody's", "bootstrap", "P7", [
        (FLOW + "node.rs", "Guard::AttemptRuns => runs && self.is_an_attempt(s) && !leads,",
         "Guard::AttemptRuns => runs && self.is_an_attempt(s) && !leads && false,")]),
    ("a vote is given up that the others need", "membership", "P7", [
        ("src/pure/consensus/membership.rs", "if !self.can_spare(id, &voters) {", "if false {")]),
    ("whoever returns leads with what its disk calls committed", "sync", "P2", [
        (CORE, "self.write_deadline(now).filter(|_| self.cluster.applied >= caught_up_at)",
         "self.write_deadline(now).filter(|_| caught_up_at > 0)")]),
    ("a connection is taken for an answer", "membership", "P7", [
        ("src/pure/consensus/membership.rs",
         "self.is_reachable(id) && self.answered.get(&id).is_some_and(lately)",
         "self.is_reachable(id) || self.answered.get(&id).is_some_and(lately)"),
        ("src/pure/consensus/membership.rs", "after && self.answers(*other)",
         "(after || true) && self.answers(*other)")]),
    ("whoever stopped once is leaving for ever", "membership", "P7", [
        (CORE, "            self.leaving = None;\n", "")]),
    ("messages to who we were are ours", "membership", "P7", [
        ("src/pure/consensus/apply.rs", "if message.to != self.id ||", "if")]),
    ("another copy is wanted though nobody leads", "copies", "P7", [
        (FLOW + "replica_build.rs", "nobody_leads && self.permission != WipePermission::OwnLeftovers",
         "nobody_leads && false")]),
    ("a standby leader that was interrupted starts nothing", "sites", "P7", [
        (FLOW + "standby_leader.rs", "Guard::PostmasterIsGone => !s.postmaster_alive,",
         "Guard::PostmasterIsGone => false,"),
        ("statecharts/standby_leader.json",
         '"invoke": { "src": "clear_request", "onDone": "#standby_leader.serving.judging"',
         '"invoke": { "src": "clear_request", "onDone": "#standby_leader.serving.leading_standbys"')]),
    ("a guard is left armed for ever", "guard", "P7", [
        (FLOW + "node.rs", "s.armed.is_some() && s.armed != s.epoch() && !s.guarded",
         "false && s.armed != s.epoch() && !s.guarded")]),
    ("an older look counts as news", "sync", "P2", [
        ("src/pure/cluster/poll_sequence.rs", "let news = number > self.told;", "let news = true;")]),
    ("a restart goes by what SQL said last", "sites", "P1", [
        (FLOW + "node.rs", "self.rules = s.rules.clone();",
         "self.rules = s.rules.clone();\n        self.writes = s.guarded && s.in_recovery != Some(true);"),
        (FLOW + "node.rs", "Action::RestartAsStandby => self.writes = false,",
         "Action::RestartAsStandby => {}")]),
    ("a copy of an old leader is waited for", "copies", "P7", [
        (FLOW + "replica_build.rs", "!same || *epoch != self.epoch", "!same || *epoch == u64::MAX")]),
    ("a build that was called off has pointed its copy", "copies", "P7", [
        ("statecharts/node.json",
         '"onError": { "target": "waiting_to_retry", "actions": ["forget_reinit", "forget_upstream"]',
         '"onError": { "target": "waiting_to_retry", "actions": ["forget_reinit"]')]),
    ("a primary that is not heard yet is a standby leader", "sites", "P1", [
        (FLOW + "node.rs", "(s.in_recovery == Some(false) || primary)",
         "(s.in_recovery == Some(false) || primary && false)")]),
    # ---- lease arithmetic
    ("drift omitted", "lease", "P1", [
        (LEASE, "ttl_ms + (ttl_ms * DRIFT_PERCENT).div_ceil(100)", "ttl_ms")]),
    ("won_at ignored", "lease", "P1", [
        (LEASE, "known.map_or(self.won_at, |(_, at)| at.max(self.won_at)) + ttl_with_drift(ttl_ms)",
         "known.map_or(0, |(_, at)| at + ttl_with_drift(ttl_ms))")]),
    ("a guard's deadline only moves forward", "lease", "P1", [
        ("src/pure/guard.rs", "self.is_of(epoch).then(||",
         "(self.is_of(epoch) && self.deadline() < deadline).then(||")]),
    ("the log knows a shorter ttl before the guard", "lease", "P1", [
        ("src/pure/consensus/holder.rs", "if wanted < lease.ttl_ms && !bound {", "if !bound && false {")]),
    ("ending not checked", "lease", "P1", [(LEASE, "if self.ending == Some(epoch) {", "if false {")]),
    ("deadline from the answer", "lease", "P1", [
        ("src/pure/consensus/holder.rs", "if holder.answered(epoch, serial, nonce, ttl_ms) {",
         "if holder.answered(epoch, serial, nonce, ttl_ms) {\n            let ttl = self.cluster.lease.as_ref()"
         ".map_or(0, |l| l.ttl_ms);\n            holder.deadline = Some(self.now + ttl - 700);")]),
    ("no margin for the guard", "lease", "P1", [
        (LEASE, "ttl_ms.saturating_sub(MARGIN_MS)", "ttl_ms")]),
    ("lease over at once", "lease", "P1", [
        (ARBITER, "if now < over_at {", "if now + lease.ttl_ms / 4 < over_at {")]),
    ("cycles answered without a majority", "lease", "P1", [
        (ARBITER, "            group.read_index(context);\n        }",
         "            group.read_index(context.clone());\n        }\n        self.answer_renewal(&context);")]),
    # ---- epochs
    ("grant without LeaseOver", "epoch", "P1", [
        (ARBITER, "(Some(lease), _) => self.watch_lease(&lease),",
         "(Some(l), _) if self.now < l.ttl_ms / 2 + self.heard.get(&l.holder).map_or(0, |h| "
         "h.heard_at) => {\n                self.watch_lease(&l)\n            }"),
        (ARBITER, "(None, Initialize::Absent) => self", "(_, Initialize::Absent) => self"),
        (ARBITER, "(None, Initialize::Done { .. }) => self", "(_, Initialize::Done { .. }) => self"),
        (APPLY, "if let Some(held) = &self.lease {",
         "if let Some(held) = self.lease.as_ref().filter(|_| false) {")]),
    ("a late release ends the next lease", "epoch", "P1", [
        (APPLY, "        self.with_lease(epoch, |s| {\n            s.lease = None;\n"
         "            if let Some(status) = shutdown {",
         "        let epoch = self.lease.as_ref().map_or(epoch, |lease| lease.epoch);\n"
         "        self.with_lease(epoch, |s| {\n            s.lease = None;\n"
         "            if let Some(status) = shutdown {")]),
    # ---- votes, terms and their disk
    ("a vote is forgotten by a restart", "vote", "P6/P1", [
        (LOG, "hard_state.term = hard_state.term.max(at.1);",
         "hard_state.term = hard_state.term.max(at.1);\n        hard_state.vote = 0;")]),
    ("term and vote are not written", "vote", "P6", [
        (GROUP, "hard_state: Some(bytes(ready.hs().unwrap_or(known))),",
         "hard_state: Some(bytes(known)).filter(|_| false),")]),
    ("messages before the write", "vote", "P6", [
        (GROUP, "if alive && !vote_pending {", "if true {")]),
    ("acknowledged before the write", "vote", "P6", [
        (GROUP, "if alive && !vote_pending {", "if !vote_pending {")]),
    ("a write counts for later ones", "vote", "P6", [
        (GROUP, "if front.number > number && front.wrote {", "if false {")]),
    # ---- membership
    ("the snapshot forgets who votes", "membership", "P7/assertion", [
        (GROUP, "        meta.set_conf_state(log.conf_state.clone());\n", "")]),
    ("the first snapshot forgets a voter", "membership", "P7/assertion/P3/P1", [
        ("src/pure/consensus/message.rs",
         "conf.set_voters(self.voters.iter().map(|(id, _)| *id).collect());",
         "conf.set_voters(self.voters.iter().skip(1).map(|(id, _)| *id).collect());")]),
    ("the arbiter is told nothing of fresh facts", "membership", "P7", [
        (ARBITER, "asking.answered.extend(answers.map(|(id, _)| *id));", "drop(answers);")]),
    # ---- guard and promotion
    ("promotion without a guard", "guard", "P7", [
        (FLOW + "promote.rs", "Operation::ArmGuard { epoch: self.epoch }", "Operation::Checkpoint")]),
    ("guard stands down before the stop", "guard", "P1", [
        (FLOW + "demote.rs", "Activity::StopPostgres => Operation::StopPostgres { mode: self.mode },",
         "Activity::StopPostgres => Operation::DisarmGuard,")]),
    ("a lost lease is no reason to stop", "guard", "P7", [
        (FLOW + "node.rs", "Guard::LeaseIsLost => self.lease_is_lost(s),",
         "Guard::LeaseIsLost => self.lease_is_lost(s) && false,")]),
    ("the lease goes back while PostgreSQL runs", "guard", "P1", [
        (FLOW + "demote.rs", "Activity::StopPostgres => Operation::StopPostgres { mode: self.mode },",
         "Activity::StopPostgres => Operation::Checkpoint,"),
        (FLOW + "demote.rs", "Activity::DisarmGuard => Operation::DisarmGuard,",
         "Activity::DisarmGuard => Operation::Checkpoint,")]),
    ("handed over while PostgreSQL runs", "guard", "P1", [
        (FLOW + "switchover.rs", "Activity::StopPostgres => Operation::StopPostgres { mode: StopMode::Fast },",
         "Activity::StopPostgres => Operation::Checkpoint,"),
        (FLOW + "switchover.rs", "Activity::DisarmGuard => Operation::DisarmGuard,",
         "Activity::DisarmGuard => Operation::Checkpoint,")]),
    # ---- the bootstrap of a cluster
    ("script left out", "bootstrap", "P3", [
        (FLOW + "bootstrap.rs", "Guard::HasScript => self.has_script,", "Guard::HasScript => false,")]),
    ("recovery left out", "bootstrap", "P3", [
        (FLOW + "bootstrap.rs", "Guard::IsRestored => self.method_name() != INITDB,",
         "Guard::IsRestored => false,")]),
    ("seal left out", "bootstrap", "P3", [
        (FLOW + "bootstrap.rs", "Activity::SealCluster => Operation::SealCluster,",
         "Activity::SealCluster => Operation::Checkpoint,")]),
    ("a failed creation gives the lease back while it runs", "bootstrap", "P1", [
        ("statecharts/cluster_init.json",
         '"invoke": { "src": "run_bootstrap_flow", "onDone": "identifying", "onError": { "target": "quarantining"',
         '"invoke": { "src": "run_bootstrap_flow", "onDone": "identifying", "onError": { "target": "giving_up"')]),
    ("two promises given in founding", "bootstrap", "P3", [
        (FOUNDING, "&& (self.founding_record.voted_for.is_none() || yields_to_lower)",
         "&& (true || yields_to_lower)")]),
    ("anybody founds alone", "bootstrap", "P3", [
        (FOUNDING, "self.configured.len() / 2 + 1", "self.configured.len() / 9 + 1")]),
    ("the promise is not written down", "bootstrap", "P3/P7", [
        ("src/pure/consensus/joining.rs",
         "        self.founding_record = founding_record;\n        self.out.push(Output::Keep(self.founding_record.clone()));\n",
         "        self.founding_record = founding_record;\n")]),
    # ---- the machine and its journal
    ("stale visit accepted", "machine", "P5", [
        (MACHINE, "if input.visit().is_some_and(|visit| visit != self.visit) {",
         "if input.visit().is_some_and(|visit| visit > self.visit) {")]),
    ("effects before the record", "machine", "P6", [
        (MACHINE, "journal.append(&self.record, &self.input)?;",
         "let _ = journal.append(&self.record, &self.input);")]),
    ("a resumed machine begins nothing", "machine", "P5", [
        (MACHINE, "        (machine.visit, machine.seq) = (record.visit + 1, record.seq);\n"
         "        let effects = machine.arrival();",
         "        (machine.visit, machine.seq) = (record.visit + 1, record.seq);\n"
         "        let effects = vec![];")]),
    ("a resumed machine begins anew", "machine", "P6", [
        (MACHINE, "        let state = record.state();", "        let state = record.state().filter(|_| false);")]),
    ("timers are lost", "machine", "P7", [
        (MACHINE, "work.map(|operation| Effect::Begin { visit, operation }).into_iter().chain(wakes).collect()",
         "work.map(|operation| Effect::Begin { visit, operation }).into_iter().chain(wakes.take(0)).collect()")]),
    ("what was left goes on", "machine", "P5/P7", [
        (MACHINE, "let mut effects = if busy { vec![Effect::Cancel] } else { vec![] };",
         "let mut effects = if busy { vec![] } else { vec![] };")]),
    # ---- who may lead
    ("rank ignores the synchronous set", "rank", "P2", [
        (ELIGIBILITY, "    synchronous(election, all, candidate)?;\n", "")]),
    ("rank ignores lag", "rank", "P2", [
        (ELIGIBILITY, "if !may_lag && lag_bytes > election.dynamic.maximum_lag_on_failover {", "if false {")]),
    # ---- the synchronous set
    ("the old synchronous set outlives a grant", "sync", "P2", [
        (APPLY, "            self.name_synchronous_leader(copy);\n", "")]),
    ("named before it holds what was acknowledged", "sync", "P2", [
        (SYNC, "w.flush_lsn >= own.waits_since", "true"),
        (SYNC, "sql.position() >= leader.waits_since", "sql.timeline > 0")]),
    ("PostgreSQL stops waiting before the log knows", "sync", "P2", [
        (SYNC, "if kept != known || cluster.sync.as_ref().is_none_or(|s| s.leader != leader) {",
         "if cluster.sync.as_ref().is_none_or(|s| s.leader != leader) {")]),
    # ---- copies and timelines
    ("a diverged copy is removed unasked", "copies", "P4", [
        (FLOW + "rejoin.rs",
         '_ => return Operation::MoveDataDirectoryAside { suffix: String::from("diverged") },',
         '_ => "remove_data_directory_on_diverged_timelines",')]),
    ("histories are not compared", "copies", "P7", [
        (FLOW + "rejoin.rs",
         "matches!(input, Input::Done { report: Report::Diverged { yes: false, .. }, .. })",
         "matches!(input, Input::Done { .. })")]),
    # ---- standby clusters
    ("promoted while the remote writes", "standby", "P1", [
        ("src/pure/cluster/standby.rs",
         "(RemoteRelation::Same, Some(facts)) if facts.accepts_writes != Some(false) => {",
         "(RemoteRelation::Same, Some(facts)) if facts.accepts_writes.is_none() => {")]),
    ("an old look at the remote counts", "standby", "P1", [
        ("src/pure/cluster/standby.rs",
         "let fresh = remote.filter(|facts| facts.config_version == self.config_version);",
         "let fresh = remote;")]),
    ("nobody asks the remote", "standby", "P1", [
        ("src/pure/cluster/standby.rs",
         "if order.even_if_remote_writes || section.host.is_none() {", "if true {")]),
]

# What was thought of and is not in the list, and which rule or test holds it instead.
COVERED = [
    ("LeaseOver ends any lease",
     "only a settled arbiter proposes it, into its own log, for the lease it has applied last, and every "
     "grant stands behind it there; the same rule (with_lease) is broken by `a late release ends the "
     "next lease`, where a holder's word can really come late"),
    ("named before PostgreSQL calls it synchronous",
     "in the simulator a setting that is shown is in force, so flush_lsn >= since says more; the walsender "
     "that has not reloaded yet exists only in a real PostgreSQL"),
    ("raft ids used twice", "the made-up nodes draw an id with every state directory, as the host does, which "
     "is not part of the package; tests/cluster_postgres/wiped.rs holds it"),
    ("recovery with survivors", "`surus recover` runs on a stopped node; tests/recover.rs and "
     "tests/consensus.rs hold it"),
    ("replica build verification", "a made-up copy is whole or absent; tests/replica_build.rs and "
     "tests/postgres_server/copies.rs hold it"),
    ("timelines of one number taken for one", "the made-up histories are compared record by record; "
     "tests of pure/postgres/history.rs hold it"),
    ("who we were is taken for another", "whoever streams from its former self is stopped by a later rule now, in the "
     "simulator; `nobody_leads_under_our_own_name` in pure/situation/tests.rs was seen red"),
    ("whoever loses its data by order may lead", "it resigns, and another leads; "
     "`whoever_is_about_to_lose_its_data_may_not_lead` in pure/cluster/rank.rs was seen red"),
    ("nobody waits longer for a slow PostgreSQL", "in the simulator none is slow once the faults have ended; "
     "`a_slow_postgresql_leads_in_the_end` in tests/consensus.rs was seen red"),
]
