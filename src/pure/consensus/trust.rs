//! Whose words count (SEC-5, SEC-9). Inside a group only members are heard; a node outside may ask to be
//! let in. The host has checked that a sender is who answers at the address that it is dialled at.
//!
//! A node that was away may not know the members of today, the arbiter among them. So members tell their
//! book to whoever connects, and whom a member of ours names is heard too: of addresses that the
//! configuration or our own book names, never of whoever comes by.
use std::collections::BTreeMap;

use super::core::Core;
use super::message::PeerMessage;
use crate::pure::cluster::RaftId;

/// Ids and raft addresses of members.
pub type Book = BTreeMap<RaftId, String>;

impl Core {
    /// Whether this id is a member, or may be one that we have not heard of.
    pub(super) fn is_known(&self, id: RaftId) -> bool {
        self.is_named(id) || self.vouched().any(|(other, _)| *other == id)
    }

    /// By our own book, or by the configuration's addresses.
    fn is_named(&self, id: RaftId) -> bool {
        let addr = self.greetings.get(&id).map(|greeting| &greeting.addr);
        self.cluster.members.contains_key(&id)
            || addr.is_some_and(|addr| self.partners.contains(addr))
    }

    /// Members by the books of those whom we know ourselves.
    pub(super) fn vouched(&self) -> impl Iterator<Item = (&RaftId, &String)> {
        let books = self.books.iter().filter(|(id, _)| self.is_named(**id));
        books.flat_map(|(_, book)| book)
    }

    /// Whether this message may be looked at. Outside a group nothing is at stake yet.
    pub(super) fn may_say(&self, from: RaftId, message: &PeerMessage) -> bool {
        self.group.is_none() || self.is_known(from) || message.is_of_strangers(from)
    }

    /// Our own book, for whoever connects.
    pub(super) fn book(&self) -> Book {
        let members = self.cluster.members.iter();
        members.map(|(id, member)| (*id, member.raft_addr.clone())).collect()
    }

    /// A member told its book.
    pub(super) fn note_book(&mut self, from: RaftId, book: Book) {
        if self.books.get(&from) != Some(&book) {
            self.books.insert(from, book);
            self.targets_of = None;
        }
    }

    /// The arbiter's answer to a renewal counts only from whom Raft calls leader in this term.
    pub(super) fn is_arbiter(&self, id: RaftId) -> bool {
        self.group.as_ref().is_some_and(|group| group.leader() == id)
    }
}
