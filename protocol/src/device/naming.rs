//! Names told once more: where whoever let somebody in did not know the name, the device that vouches for them tells it.
//!
//! 1. A Commit or a Welcome brings the chains of people, and the names that its author knows.
//! 2. The device that has signed somebody's endorsement, and knows the name in it, tells the matter where it is missing: a bundle without
//!    chains, posted as a text is.
//! 3. Readers take a name that fits the endorsement by which they know somebody, and nothing else of it.
//!
//! Invariant: a name is told only where the person is, and believed only where their endorsement commits to it.

use crate::content::{Body, Bundle, Content, NamedPerson};
use crate::device::Device;
use crate::device::state::OutItem;
use crate::identity::Endorsement;
use crate::ids::{MatterId, MessageId, PersonId};
use crate::limits;

impl OutItem {
    /// Whether it is something that the user has written; names go beside it.
    pub(super) fn is_text(&self) -> bool {
        Content::decode(&self.content).is_ok_and(|content| matches!(content.body, Body::Text(_)))
    }
}

impl Device {
    /// Tells the names that whoever has made this bundle did not know, of people in the matter for whom this very device vouches.
    pub(super) fn tell_names(&mut self, matter: MatterId, bundle: &Bundle) {
        // Where the user is to be asked before anything is sent, nothing is told, either.
        let Some(room) = self.rooms.get(&matter).filter(|room| !room.row.waits_for_a_word()) else { return };
        if !self.in_doubt(matter).is_empty() {
            return;
        }
        let unnamed = |person: PersonId, said: &Endorsement| {
            let told = |named: &NamedPerson| named.person == person && named.name.commitment() == said.name;
            room.row.people.contains(&person) && !bundle.names.iter().any(told)
        };
        let mut names = Vec::new();
        for identity in &bundle.identities {
            let Ok(said) = identity.endorsement.unverified::<Endorsement>("endorsement") else { continue };
            let by_this = said.issuer.is_some_and(|issuer| issuer.device == self.profile.device);
            if by_this && unnamed(identity.person, &said) {
                let name = self.people.get(&identity.person).and_then(|known| known.name_for(&said)).cloned();
                let named = |name| NamedPerson { person: identity.person, name, self_stated: !said.confirmed };
                names.extend(name.map(named));
            }
        }
        if names.is_empty() || room.outbox.len() >= limits::OUTBOX_MAX {
            return;
        }
        let body = Body::Bundle(Bundle { identities: Vec::new(), names });
        let id = MessageId::random();
        let content = Content { id, sent_at: self.now, body, log: None }.encode();
        // Nobody waits to hear of it.
        let item = OutItem { id, content, digest: None, seq: None, failed: None, again: false, told: true };
        let number = self.next_number();
        self.save_item(matter, number, item);
    }

    /// Takes names that somebody in a matter tells of people in it.
    pub(super) fn take_told_names(&mut self, matter: MatterId, names: Vec<NamedPerson>) {
        let people = self.rooms.get(&matter).map(|room| room.row.people.clone()).unwrap_or_default();
        self.take_names_of(names.into_iter().filter(|named| people.contains(&named.person)));
    }

    /// Takes names that fit what is known of people.
    pub(super) fn take_names_of(&mut self, names: impl Iterator<Item = NamedPerson>) {
        for NamedPerson { person, name, .. } in names {
            let Some(mut known) = self.people.get(&person).cloned() else { continue };
            if person != self.profile.person && known.take_name(name) {
                self.know(person, known);
            }
        }
    }
}
