//! Identities: who somebody was when this device met them, what the user has compared, and what happens when it changes.
//!
//! 1. The first chain that reaches the organisation's key is believed, and its person key remembered.
//! 2. Renewed statements under that key are taken over. Another key, in a chain or in the list of a matter, is kept beside it and told.
//! 3. Where the key before was verified, texts wait in every matter with that person until the user has accepted the new one.
//!
//! Invariant: a person's key never changes silently here, this person's own not at all.

use crate::device::state::{Changed, KnownPerson, RecordBody, Stage, Verification};
use crate::device::{Asked, Device, Notice};
use crate::error::{Error, Misuse, PeerMisbehaved, Refused};
use crate::frame::{Reply, Request};
use crate::identity::{Endorsement, Identity, Name, SafetyNumber, Signed, Step, Verified, look_of, verify_chain};
use crate::ids::{MatterId, PersonId, Timestamp};
use crate::limits;
use crate::matter::MatterContext;
use crate::suite::{Digest, PublicKey};

impl Device {
    /// Asks the relay for somebody's identity; the answer is [`Notice::Identity`].
    pub fn ask_identity(&mut self, now: Timestamp, person: PersonId) {
        self.ask(Asked::Identity(person), Request::Chain { person });
        self.settle(now);
    }

    /// Everybody whom this device knows, by id.
    pub fn people(&self) -> impl Iterator<Item = (PersonId, &KnownPerson)> {
        self.people.iter().map(|(person, known)| (*person, known))
    }

    pub(super) fn identity_came(&mut self, person: PersonId, reply: Reply) {
        let outcome = self.take_chain(person, reply).map(|_| ());
        self.deliver(Notice::Identity { person, outcome });
    }

    /// The number to compare with somebody.
    ///
    /// # Errors
    /// [`Refused::NotFound`] if they are not known here; [`Misuse`] for this person's own.
    pub fn safety_number(&self, person: PersonId) -> Result<SafetyNumber, Error> {
        self.number_with(person, |known| known.chain.first())
    }

    /// The number to compare with somebody before accepting that they have another key.
    ///
    /// # Errors
    /// As [`Self::safety_number`], and where nothing has changed or the chain has not come.
    pub fn changed_safety_number(&self, person: PersonId) -> Result<SafetyNumber, Error> {
        self.number_with(person, |known| known.changed.as_ref().and_then(|changed| changed.chain.first()))
    }

    fn number_with(
        &self,
        person: PersonId,
        identity: impl FnOnce(&KnownPerson) -> Option<&Identity>,
    ) -> Result<SafetyNumber, Error> {
        if person == self.profile.person {
            return Err(Misuse::Busy("a safety number is compared with somebody else").into());
        }
        let theirs = self.people.get(&person).and_then(identity).ok_or_else(|| Refused::not_found("that identity"))?;
        let own = self.own_key()?;
        Ok(SafetyNumber::between((self.profile.person, &own), (person, &theirs.person_key)))
    }

    /// The user has compared the safety number with somebody.
    ///
    /// # Errors
    /// [`PeerMisbehaved::WrongKey`] if it is another; [`Misuse::IdentityChanged`] where they have another key that nobody has accepted.
    pub fn verify_person(&mut self, now: Timestamp, person: PersonId, number: &SafetyNumber) -> Result<(), Error> {
        let theirs = self.safety_number(person)?;
        let mut known = self.people.get(&person).cloned().ok_or_else(|| Refused::not_found("that person"))?;
        if known.changed.is_some() {
            return Err(Misuse::IdentityChanged.into());
        }
        if theirs != *number {
            return Err(PeerMisbehaved::WrongKey("the safety number").into());
        }
        known.verified = known.key().map(|key| Verification { key, at: now });
        self.know(person, known);
        self.settle(now);
        Ok(())
    }

    /// The user accepts that somebody has another key. What was verified was the key before. False where nothing has changed.
    ///
    /// # Errors
    /// [`Refused::NotFound`] while the relay has not shown the chain; [`PeerMisbehaved`] if it does not hold.
    pub fn trust_person(&mut self, now: Timestamp, person: PersonId) -> Result<bool, Error> {
        let mut known = self.people.get(&person).cloned().ok_or_else(|| Refused::not_found("that person"))?;
        let Some(changed) = known.changed.take() else { return Ok(false) };
        if changed.chain.is_empty() {
            return Err(Refused::not_found("the new identity; the relay has not shown it yet").into());
        }
        let said = verify_chain(&changed.chain, &self.profile.organisation)?;
        let name = changed.name.clone();
        self.know(person, known.replaced(&said, &changed.chain, name, now));
        self.materials.remove(&person);
        self.look_at_devices();
        self.settle(now);
        Ok(true)
    }

    /// Whose names look like somebody's, of all whom this device knows.
    pub fn look_alikes(&self, person: PersonId) -> Vec<PersonId> {
        let look = |known: &KnownPerson| known.name.as_ref().map(|name| look_of(&name.name));
        let Some(own) = self.people.get(&person).and_then(look) else { return Vec::new() };
        let others = self.people.iter().filter(|(other, _)| **other != person);
        let alike = others.filter(|(_, known)| look(known).is_some_and(|theirs| theirs.is_like(&own)));
        alike.map(|(other, _)| *other).collect()
    }

    /// Tells whose name a newcomer's looks like.
    pub(super) fn warn_of_look_alikes(&mut self, person: PersonId) {
        let like = self.look_alikes(person);
        let like: Vec<String> =
            like.iter().filter_map(|other| self.people.get(other)).map(KnownPerson::label).collect();
        if let Some(known) = self.people.get(&person).filter(|_| !like.is_empty()) {
            let label = known.label();
            self.deliver(Notice::LooksAlike { person, label, like });
        }
    }

    /// Whose changed key keeps texts from being sent in a matter.
    pub fn in_doubt(&self, matter: MatterId) -> Vec<PersonId> {
        let people = self.rooms.get(&matter).map(|room| room.row.people.as_slice()).unwrap_or_default();
        people.iter().copied().filter(|person| self.is_in_doubt(*person)).collect()
    }

    pub(super) fn is_in_doubt(&self, person: PersonId) -> bool {
        self.people.get(&person).is_some_and(KnownPerson::is_in_doubt)
    }

    /// This person's key: made here, or as the directory has it.
    pub(super) fn own_key(&self) -> Result<PublicKey, Error> {
        if let Some(key) = &self.profile.person_key {
            return Ok(key.public()?);
        }
        let known = self.people.get(&self.profile.person).and_then(|known| known.chain.first());
        let identity = known.ok_or_else(|| Refused::not_allowed("nobody has endorsed you yet"))?;
        Ok(identity.person_key.clone())
    }

    /// The chain that the relay shows of somebody, verified and remembered.
    pub(super) fn take_chain(&mut self, person: PersonId, reply: Reply) -> Result<Vec<Identity>, Error> {
        let chain = match reply {
            Reply::Chain { chain } => chain,
            Reply::Refused(refused) => return Err(refused.into()),
            _ => return Err(PeerMisbehaved::Mismatch("the relay's answer").into()),
        };
        let said = verify_chain(&chain, &self.profile.organisation)?;
        if said.person != person {
            return Err(PeerMisbehaved::Mismatch("a chain of endorsements").into());
        }
        let own = (person == self.profile.person).then(|| self.profile.name.clone());
        self.meet(&said, &chain, own)?;
        // What this device knows may be newer than what the relay shows.
        let known = self.people.get(&person).map(|known| known.chain_with(said.person_key.digest()).to_vec());
        Ok(known.unwrap_or(chain))
    }

    /// What a chain that reaches the organisation says of somebody, with a name where one was told.
    ///
    /// # Errors
    /// [`PeerMisbehaved`] for this person's own id with another key, and for an old statement that shows another key.
    pub(super) fn meet(&mut self, said: &Verified, chain: &[Identity], told: Option<Name>) -> Result<(), Error> {
        let (person, key) = (said.person, said.person_key.digest());
        if person == self.profile.person && self.own_key().is_ok_and(|own| own != said.person_key) {
            if self.file_line_again(key)? {
                return Err(PeerMisbehaved::Mismatch("an old statement about that person").into());
            }
            return self.follow_own_key(said, chain);
        }
        let told = told.filter(|name| name.commitment() == said.endorsement.name);
        let Some(known) = self.people.get(&person).filter(|known| !known.chain.is_empty()) else {
            let known = KnownPerson::new(said, chain.to_vec(), told, self.now);
            self.know(person, known);
            return Ok(());
        };
        let before = known.endorsements().first().map(|before| before.from);
        let older = before.is_some_and(|before| before > said.endorsement.from);
        if known.key() == Some(key) {
            // Of an older statement nothing counts but the devices: they are as good as the key that certifies them.
            let known = if older { with_devices(known, chain) } else { renewed(known, said, chain, told) };
            self.know(person, known);
            return Ok(());
        }
        let past = known.past.contains(&key) || (!known.shows(key) && known.has_had(key));
        if older || past {
            return Err(PeerMisbehaved::Mismatch("an old statement about that person").into());
        }
        if self.vouched_for(said) {
            let accepted = known.clone().replaced(said, chain, told, self.now);
            self.know(person, accepted);
        } else {
            self.changed(person, key, chain, told);
            self.note_confirmed(said);
        }
        self.look_at_devices();
        Ok(())
    }

    /// Whoever vouches for somebody has stated their name, too, and their key has followed on since: the name is what it is.
    fn note_confirmed(&mut self, said: &Verified) {
        let Some(known) = self.people.get(&said.person).filter(|known| known.self_stated && !known.is_forked()) else {
            return;
        };
        let same = known.name.as_ref().is_some_and(|name| name.commitment() == said.endorsement.name);
        if same && said.endorsement.confirmed && known.key().is_some_and(|before| said.is_listed_as(before)) {
            let confirmed = KnownPerson { self_stated: false, ..known.clone() };
            self.know(said.person, confirmed);
        }
    }

    /// Holds the people that a matter lists against those known.
    pub(super) fn watch_people(&mut self, context: &MatterContext) {
        self.look_for_lapses();
        for participant in &context.people {
            let Some(known) = self.people.get(&participant.person) else { continue };
            let listed = participant.person_key;
            let expected = known.key().is_none() || known.has_had(listed);
            if !expected && participant.person != self.profile.person {
                self.changed(participant.person, listed, &[], None);
            }
        }
    }

    /// Another key under the id of somebody known: kept beside, and told once.
    fn changed(&mut self, person: PersonId, key: Digest, chain: &[Identity], name: Option<Name>) {
        let Some(mut known) = self.people.get(&person).cloned() else { return };
        let before = known.changed.take();
        if chain.is_empty() && before.as_ref().is_some_and(|before| before.key != key && !before.chain.is_empty()) {
            // A list is no proof, and what was shown is one: whose key it is now is asked for.
            self.ask_later(Asked::Chain(person), Request::Chain { person });
            return;
        }
        let shown = before.as_ref().map(|before| before.chain.as_slice()).unwrap_or_default();
        let forked = before.as_ref().is_some_and(|before| before.forked)
            || [known.chain.as_slice(), shown].into_iter().any(|other| part_ways(other, chain));
        let same = before.filter(|changed| changed.key == key);
        let told = same.is_some();
        let fresh = Changed { key, at: self.now, chain: Vec::new(), name: None, forked };
        let mut changed = same.unwrap_or(fresh);
        changed.forked = forked;
        if !chain.is_empty() {
            changed.chain = chain.to_vec();
        }
        // An older name stays only until another fits.
        changed.name = name.or(changed.name);
        known.changed = Some(changed);
        let (handle, verified, in_doubt) = (known.handle.clone(), known.verified.is_some(), known.is_in_doubt());
        self.know(person, known);
        if told {
            return;
        }
        let anew = self.is_anew(person);
        self.deliver(Notice::IdentityChanged { person, handle, verified: in_doubt, anew });
        let shared = self.rooms.iter().filter(|(_, room)| {
            room.row.people.contains(&person) && !matches!(room.row.stage, Stage::Removed | Stage::Forked)
        });
        let shared: Vec<(MatterId, u64)> = shared.map(|(matter, room)| (*matter, room.row.position.seq)).collect();
        for (matter, seq) in shared {
            self.record(self.now, matter, seq, None, self.now, RecordBody::IdentityChanged { person, verified });
        }
    }
}

/// Whether two chains show keys of somebody that follow one and the same key, and neither the other: of the two statements one is a thief's.
fn part_ways(known: &[Identity], shown: &[Identity]) -> bool {
    let (Some(known), Some(shown)) = (known.first(), shown.first()) else { return false };
    let earlier = |step: &Step| known.line.iter().any(|known| known.key == step.key);
    shown.line.iter().any(earlier) && !shown.keys().any(|key| *key == known.person_key)
}

/// Somebody known, with certificates under the same key that are new here.
fn with_devices(known: &KnownPerson, chain: &[Identity]) -> KnownPerson {
    let mut known = known.clone();
    if let (Some(own), Some(shown)) = (known.chain.first_mut(), chain.first()) {
        let news: Vec<Digest> = own.certificates.iter().map(Signed::digest).collect();
        own.certificates.extend(shown.certificates.iter().filter(|signed| !news.contains(&signed.digest())).cloned());
        own.certificates.truncate(limits::DEVICES_PER_PERSON_MAX);
    }
    known
}

/// Somebody known, as a newer statement about the same key says.
fn renewed(known: &KnownPerson, said: &Verified, chain: &[Identity], told: Option<Name>) -> KnownPerson {
    let Endorsement { handle, role, name: commitment, confirmed, .. } = &said.endorsement;
    let fits = |name: &Name| name.commitment() == *commitment;
    let name = known.name.clone().filter(fits).or(told).or_else(|| known.name.clone());
    let self_stated = !confirmed || !name.as_ref().is_none_or(fits);
    let (handle, role, chain) = (handle.clone(), *role, chain.to_vec());
    KnownPerson { handle, role, name, self_stated, chain, ..known.clone() }
}
