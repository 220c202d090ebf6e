//! Writing: new matters, texts and changes of membership, each a Post that is persisted before it is sent.
//!
//! 1. A text waits unsealed in the outbox and is sealed at its head, against the newest fence read.
//! 2. Changes of membership wait as intents; all that can be carried out go into one Commit with its bundle, Grants and Welcomes.
//! 3. While a Commit may have been accepted, nothing else is sealed in that matter.
//!
//! Invariant: an idem is persisted with what it stands for before it is sent, and never stands for anything else.

use std::collections::{BTreeMap, BTreeSet};

use crate::content::{Body, Bundle, Content, NamedPerson};
use crate::device::state::{
    Intent, KnownPerson, MatterRow, OutItem, OwnCommit, PendingPost, Purpose, Revoked, Stage, Table,
};
use crate::device::withdrawing::withdrawn_told;
use crate::device::{Device, Material, Notice, Room};
use crate::envelope::{self, Class};
use crate::error::{Error, Malformed, Misuse, PeerMisbehaved, Refused};
use crate::frame::{Blob, Part, Post, Rights, TakenKeyPackage};
use crate::identity::{Endorsement, Identity, verify_chain};
use crate::ids::{DeviceId, MailboxId, MatterId, MessageId, PersonId, Position, Timestamp};
use crate::limits;
use crate::matter::{
    Certificates, Change, Companion, LeafCredential, Matter, MatterContext, Member, Participant, RULES, Seen,
    key_package_owner,
};
use crate::secret::Secret;
use crate::suite::Digest;

/// How long to wait before trying again what the relay could not store or had no room for.
pub(super) const AGAIN_MS: u64 = 5_000;
/// How long to wait before asking again about somebody who was not ready.
const NOT_READY_MS: u64 = 15_000;

impl Device {
    /// Opens a matter. It is at the relay once [`Notice::Opened`] comes.
    ///
    /// # Errors
    /// [`Refused::NotAllowed`] unless this person is an attorney or staff and endorsed; [`Malformed`] for a bad title.
    pub fn open_matter(&mut self, now: Timestamp, title: &str) -> Result<MatterId, Error> {
        let title = title.trim();
        if title.is_empty() {
            return Err(Malformed::Text("title").into());
        }
        if title.len() > limits::TITLE_MAX {
            return Err(Malformed::TooLarge { what: "title", limit: limits::TITLE_MAX }.into());
        }
        if !self.profile.role.manages() {
            return Err(Refused::not_allowed("only attorneys and staff open matters").into());
        }
        let person_key = self.own_person_key()?;
        let participant = Participant { person: self.profile.person, role: self.profile.role, person_key };
        let context = MatterContext {
            rules: RULES,
            mailbox: MailboxId::random(),
            title: title.to_owned(),
            orders: [0; 48],
            people: vec![participant],
            continues: None,
        };
        let id = MatterId::random();
        let group = Matter::create(&self.me, &self.key_packages, id, &context)?;
        let row = MatterRow::new(id, &context, Stage::Opening, group.epoch(), now);
        self.rooms.insert(id, Room::new(row, group));
        self.save_state(id);
        let parts = vec![Part::Create { mailbox: context.mailbox }];
        self.new_post(PendingPost::new(parts, id, Purpose::Open));
        self.settle(now);
        Ok(id)
    }

    /// Puts a text into the outbox. It is in the matter once [`Notice::Stored`] comes.
    ///
    /// # Errors
    /// [`Malformed::TooLarge`] with the limit; [`Misuse`] if the matter is not open here or the outbox is full.
    pub fn send_text(&mut self, now: Timestamp, matter: MatterId, id: MessageId, text: &str) -> Result<(), Error> {
        let content = Content::text(id, now, text)?.encode();
        self.find_lapses(now);
        let room = self.rooms.get_mut(&matter).ok_or(Misuse::NoMatter)?;
        if room.row.stage == Stage::Removed {
            return Err(Refused::not_allowed("you are no longer in this matter").into());
        }
        if room.row.stage == Stage::Forked {
            return Err(PeerMisbehaved::Fork { seq: room.row.position.seq }.into());
        }
        if room.row.disputed.is_some() {
            return Err(Misuse::Disputed.into());
        }
        if room.row.waits_for_a_word() {
            // What was found a moment ago is kept, and told.
            self.settle(now);
            return Err(Misuse::Lapsed.into());
        }
        if room.row.people.iter().any(|person| self.people.get(person).is_some_and(KnownPerson::is_in_doubt)) {
            return Err(Misuse::IdentityChanged.into());
        }
        if room.outbox.len() >= limits::OUTBOX_MAX {
            return Err(Misuse::Busy("too many messages wait to be sent").into());
        }
        if room.outbox.values().any(|item| item.id == id) {
            return Ok(());
        }
        let item = OutItem { id, content, digest: None, seq: None, failed: None, again: false, told: false };
        let number = self.next_number();
        self.save_item(matter, number, item);
        self.settle(now);
        Ok(())
    }

    /// The user has seen who says to have read something else, or for whom nobody vouches any more, and goes on: texts are sent again, until
    /// the next time.
    ///
    /// # Errors
    /// [`Misuse::NoMatter`] if there is no such matter here.
    pub fn go_on(&mut self, now: Timestamp, matter: MatterId) -> Result<(), Error> {
        let row = &mut self.rooms.get_mut(&matter).ok_or(Misuse::NoMatter)?.row;
        row.disputed = None;
        row.lapses.iter_mut().for_each(|lapse| lapse.accepted = true);
        self.save_room(matter);
        self.settle(now);
        Ok(())
    }

    /// Wants somebody in a matter. [`Notice::Done`], [`Notice::Waits`] or [`Notice::NotDone`] tells what became of it.
    ///
    /// # Errors
    /// [`Refused::NotAllowed`] unless this person manages the matter; [`Misuse`] if it is not open here.
    pub fn add(&mut self, now: Timestamp, matter: MatterId, person: PersonId, handle: &str) -> Result<(), Error> {
        self.intend(
            now,
            matter,
            Intent { person, handle: handle.to_owned(), add: true, told: false, taken_over: false },
        )
    }

    /// Wants somebody out of a matter.
    ///
    /// # Errors
    /// As [`Self::add`].
    pub fn remove(&mut self, now: Timestamp, matter: MatterId, person: PersonId, handle: &str) -> Result<(), Error> {
        if person == self.profile.person {
            return Err(Misuse::Busy("nobody can remove themselves; ask another attorney or staff member").into());
        }
        self.intend(
            now,
            matter,
            Intent { person, handle: handle.to_owned(), add: false, told: false, taken_over: false },
        )
    }

    fn intend(&mut self, now: Timestamp, matter: MatterId, intent: Intent) -> Result<(), Error> {
        if !self.profile.role.manages() {
            return Err(Refused::not_allowed("only attorneys and staff add and remove people").into());
        }
        let room = self.rooms.get(&matter).ok_or(Misuse::NoMatter)?;
        match room.row.stage {
            Stage::Removed => return Err(Refused::not_allowed("you are no longer in this matter").into()),
            Stage::Forked => return Err(PeerMisbehaved::Fork { seq: room.row.position.seq }.into()),
            _ => {}
        }
        let (person, add) = (intent.person, intent.add);
        // The newest wish counts, a repeated one is told about again.
        let replaced = room.intents.iter().filter(|(_, other)| other.person == person);
        let replaced: Vec<u64> = replaced.map(|(number, _)| *number).collect();
        let room = self.rooms.get_mut(&matter).ok_or(Misuse::NoMatter)?;
        if !room.row.people.contains(&person) && room.row.old.is_some() && room.row.is_out(person) == add {
            // Somebody whom the statement takes over may not be in yet: whoever continues the matter again must know what is wanted.
            room.row.note_fate(person, !add);
        }
        let waits = !add && self.rooms.get(&matter).is_some_and(|room| room.is_yet_to_come(person));
        let room = self.rooms.get(&matter).ok_or(Misuse::NoMatter)?;
        if room.row.people.contains(&person) == add && room.commits.is_empty() && !waits {
            self.drop_intents(matter, &replaced);
            self.deliver(Notice::Done { matter, person, add });
            self.settle(now);
            return Ok(());
        }
        if add && room.row.people.len() >= limits::PEOPLE_MAX {
            return Err(Malformed::TooLarge { what: "matter's list of people", limit: limits::PEOPLE_MAX }.into());
        }
        self.materials.remove(&person);
        self.drop_intents(matter, &replaced);
        self.put_intent(matter, intent);
        self.settle(now);
        Ok(())
    }

    pub(super) fn put_intent(&mut self, matter: MatterId, intent: Intent) {
        let number = self.next_number();
        self.batch.put(Table::Intent, Some(matter), &number.to_be_bytes(), &intent);
        if let Some(room) = self.rooms.get_mut(&matter) {
            room.intents.insert(number, intent);
        }
    }

    pub(super) fn drop_intents(&mut self, matter: MatterId, numbers: &[u64]) {
        for number in numbers {
            self.batch.delete(Table::Intent, Some(matter), &number.to_be_bytes());
            if let Some(room) = self.rooms.get_mut(&matter) {
                room.intents.remove(number);
            }
        }
    }

    /// Posts whatever can be posted now.
    pub(super) fn pump(&mut self, now: Timestamp) {
        self.ask_again(now);
        let Some(link) = self.link.as_ref().filter(|link| link.caught_up) else { return };
        // Nothing is posted to a mailbox that this link does not read, or has not read to the end.
        let matters: Vec<MatterId> = self
            .rooms
            .iter()
            .filter(|(_, room)| {
                let head = link.heads.get(&room.row.mailbox).or_else(|| room.row.gone.then_some(&0));
                head.is_some_and(|head| room.may_post(*head, now))
            })
            .map(|(matter, _)| *matter)
            .collect();
        for matter in matters {
            if self.posts.values().any(|post| post.matter == Some(matter)) {
                continue;
            }
            if let Err(error) = self.post_next(now, matter) {
                self.drop_group(matter);
                self.deliver(Notice::Problem(error));
                if let Some(room) = self.rooms.get_mut(&matter) {
                    room.not_before = now.plus_ms(AGAIN_MS);
                }
            }
        }
        self.post_notes(now);
        self.post_history(now);
        self.send_posts(now);
    }

    /// People who were not ready are asked about again after a while: nobody tells this device when they are.
    fn ask_again(&mut self, now: Timestamp) {
        for material in self.materials.values_mut().filter(|material| material.waits) {
            let at = *material.again_at.get_or_insert_with(|| now.plus_ms(NOT_READY_MS));
            if at <= now {
                *material = Material::default();
            }
        }
    }

    /// After an error, only what was saved counts.
    pub(super) fn drop_group(&mut self, matter: MatterId) {
        if let Some(room) = self.rooms.get_mut(&matter) {
            room.group = None;
        }
    }

    /// What comes next in a matter: removals and additions first, then answers to requests, texts, and keys that are owed.
    fn post_next(&mut self, now: Timestamp, matter: MatterId) -> Result<(), Error> {
        let Some(room) = self.rooms.get(&matter) else { return Ok(()) };
        match room.row.stage {
            Stage::OutOfStep | Stage::Open | Stage::Moving if room.row.continue_at.is_some_and(|at| at <= now) => {
                return self.post_successor(matter);
            }
            Stage::OutOfStep if room.asks_back(now) => return self.ask_back(matter),
            Stage::Paused if room.row.paused_at.is_some_and(|at| at.plus_ms(limits::PAUSE_MS) <= now) => {
                // It may never come: a member can name as a bundle what has long expired.
                self.lose_way(now, matter);
                self.read_again(matter);
                return Ok(());
            }
            Stage::Paused => {
                self.fetch_withheld(now, matter);
                return Ok(());
            }
            Stage::Open if room.welcome_was_false(now) => {
                self.lose_way(now, matter);
                return Ok(());
            }
            Stage::Open if room.row.lost.is_none() => {}
            _ => return Ok(()),
        }
        let changes = self.post_stale(matter) || self.wants_material(matter) || self.post_commit(now, matter)?;
        if changes || self.post_tidy(now, matter)? {
            return Ok(());
        }
        let worn = self.rooms.get(&matter).is_some_and(Room::is_worn);
        if self.answer_request(now, matter)? || (worn && self.post_update(now, matter, true)?) {
            return Ok(());
        }
        if self.post_text(matter)? {
            return Ok(());
        }
        self.post_update(now, matter, false)?;
        Ok(())
    }

    /// A Commit that was refused behind a fence which turned out void is posted again, the same bytes with the new base.
    fn post_stale(&mut self, matter: MatterId) -> bool {
        let Some(room) = self.rooms.get_mut(&matter) else { return false };
        let (fence, mailbox, epoch) = (room.row.fence, room.row.mailbox, room.row.epoch);
        let Some((digest, own)) = room.commits.iter_mut().find(|(_, own)| !own.stale.is_empty() && own.epoch == epoch)
        else {
            return false;
        };
        let (digest, mut parts) = (*digest, std::mem::take(&mut own.stale));
        self.batch.put(Table::Commit, Some(matter), digest.as_bytes(), &*own);
        for part in &mut parts {
            if let Part::Append { mailbox: of, base, .. } = part
                && *of == mailbox
            {
                *base = fence;
            }
        }
        self.new_post(PendingPost::new(parts, matter, Purpose::Commit(digest)));
        true
    }

    /// The oldest text that was not sealed yet. False if there is none, or it has to wait.
    fn post_text(&mut self, matter: MatterId) -> Result<bool, Error> {
        // While somebody says to have read something else, is somebody else than was verified, or has nobody who vouches for them, the user
        // is asked first.
        let doubt = !self.in_doubt(matter).is_empty();
        let Some(room) = self.rooms.get(&matter).filter(|room| !room.is_worn()) else { return Ok(false) };
        // A name that was to be told before goes out, and blocks nothing.
        let waits = doubt || room.row.waits_for_a_word();
        let may = |item: &OutItem| item.digest.is_none() && item.failed.is_none() && !(waits && item.is_text());
        let next = room.outbox.iter().find(|(_, item)| may(item));
        let Some((number, item)) = next.map(|(number, item)| (*number, item.clone())) else { return Ok(false) };
        let seen = Seen::at(room.row.position);
        let part = match self.sealed(matter, &self.with_log(&item.content), &seen) {
            Ok(part) => part,
            // It will never fit; whatever else went wrong may pass.
            Err(Error::Malformed(malformed)) => {
                let why = Refused::malformed(malformed.to_string());
                self.deliver(Notice::Unsendable { matter, id: item.id, why: why.clone() });
                self.save_item(matter, number, OutItem { failed: Some(why.to_string()), ..item });
                return Ok(true);
            }
            Err(error) => return Err(error),
        };
        let digest = part_digest(&part);
        self.save_item(matter, number, OutItem { digest: Some(digest), ..item });
        self.new_post(PendingPost::new(vec![part], matter, Purpose::Text(number)));
        Ok(true)
    }

    /// Seals a content; the new state is in the batch that the Post will be in.
    pub(super) fn sealed(&mut self, matter: MatterId, content: &[u8], seen: &Seen) -> Result<Part, Error> {
        let padded = envelope::pad(content)?;
        let sealed = self.group(matter)?.seal(&padded, seen)?;
        self.count_sealed(matter);
        self.save_state(matter);
        self.append(matter, &envelope::wrap(Class::Message, &sealed)?, false)
    }

    pub(super) fn append(&self, matter: MatterId, envelope: &[u8], fence: bool) -> Result<Part, Error> {
        let row = &self.rooms.get(&matter).ok_or(Misuse::NoMatter)?.row;
        Ok(Part::Append {
            mailbox: row.mailbox,
            base: row.fence,
            fence,
            envelope: Blob(envelope.to_vec()),
            keep_ms: limits::ENVELOPE_LIFETIME_MS,
        })
    }

    /// Asks for what is missing about people to be added. True while answers are on their way.
    fn wants_material(&mut self, matter: MatterId) -> bool {
        let Some(room) = self.rooms.get(&matter) else { return false };
        let people: Vec<PersonId> =
            room.intents.values().filter(|intent| intent.add).map(|intent| intent.person).collect();
        let mut waiting = false;
        for person in people {
            let material = self.materials.entry(person).or_default();
            if !material.asked {
                material.asked = true;
                self.ask_about(person);
                waiting = true;
            } else if !material.waits && (material.chain.is_none() || material.packages.is_none()) {
                waiting = true;
            } else if let Some(chain) = material.chain.clone().filter(|_| !material.waits) {
                waiting |= !self.is_proved(&chain);
            }
        }
        waiting
    }

    /// Builds and posts one Commit for every intent that can be carried out. False if there is none.
    fn post_commit(&mut self, now: Timestamp, matter: MatterId) -> Result<bool, Error> {
        let room = self.rooms.get(&matter).ok_or(Misuse::NoMatter)?;
        let (row, intents) = (room.row.clone(), room.intents.clone());
        let mut wanted = Wanted::default();
        for (number, intent) in &intents {
            if row.people.contains(&intent.person) == intent.add {
                if !intent.add && self.rooms.get(&matter).is_some_and(|room| room.is_yet_to_come(intent.person)) {
                    continue;
                }
                self.drop_intents(matter, &[*number]);
                self.deliver(Notice::Done { matter, person: intent.person, add: intent.add });
                continue;
            }
            let refused =
                if intent.add && wanted.participants.len().saturating_add(row.people.len()) >= limits::PEOPLE_MAX {
                    let limit = limits::PEOPLE_MAX;
                    Some(Malformed::TooLarge { what: "matter's list of people", limit }.into())
                } else if intent.add && self.is_withdrawn(intent.person) {
                    Some(withdrawn_told())
                } else if intent.add {
                    let Some(material) = self.materials.get(&intent.person).filter(|material| !material.waits) else {
                        continue;
                    };
                    let awaits = self.awaits_word(intent.person);
                    if intent.taken_over && awaits {
                        continue;
                    }
                    let doubt = awaits.then(|| Misuse::IdentityChanged.into());
                    let organisation = &self.profile.organisation;
                    doubt.or_else(|| wanted.add(intent, material, organisation, &self.revoked, now).err())
                } else {
                    wanted.remove.push(intent.person);
                    None
                };
            match refused {
                Some(why) => self.not_done(matter, *number, why),
                None => wanted.intents.push(*number),
            }
        }
        if wanted.intents.is_empty() {
            return Ok(false);
        }
        let numbers = wanted.intents.clone();
        if let Err(why) = self.commit_post(matter, &row, wanted) {
            // What the rules or the library refuse now they refuse again: it is told, and blocks nothing else.
            // A removal does not fail with an addition beside it: it is tried again alone.
            self.drop_group(matter);
            let adds = |number: &u64| intents.get(number).is_some_and(|intent| intent.add);
            let adding = numbers.iter().any(adds);
            for number in numbers.into_iter().filter(|number| !adding || adds(number)) {
                self.not_done(matter, number, why.clone());
            }
            return Ok(false);
        }
        Ok(true)
    }

    pub(super) fn commit_post(&mut self, matter: MatterId, row: &MatterRow, mut wanted: Wanted) -> Result<(), Error> {
        let group = self.group(matter)?;
        let before = group.context()?;
        let mut context = before.clone();
        let (leaves, stay): (Vec<Member>, Vec<Member>) =
            group.members().into_iter().partition(|member| wanted.removes(member));
        // Whoever has no device left in the matter is not in it.
        let has = |leaves: &[Member], person| leaves.iter().any(|member| member.credential.person == person);
        context.people.retain(|one| has(&stay, one.person) || !has(&leaves, one.person));
        context.people.retain(|one| !wanted.participants.iter().any(|new| new.person == one.person));
        context.people.extend(&wanted.participants);
        context.people.sort();

        let mut roster: Vec<Part> = Vec::new();
        for (credential, rights, _) in &wanted.devices {
            let device = credential.device;
            roster.push(Part::Grant { mailbox: row.mailbox, device, rights: *rights, resume: false });
        }
        for member in &leaves {
            roster.push(Part::Revoke { mailbox: row.mailbox, device: member.credential.device });
        }
        let mut seen =
            Seen { position: row.position, roster: Some(Post::roster_digest(&roster)), bundle: None, repair: None };
        let mut parts = Vec::new();
        let mut bundle = None;
        let told = wanted.people_told();
        if !told.is_empty() {
            let told = self.bundle_of(told.into_iter(), &wanted.chains);
            let id = MessageId::random();
            let content = Content { id, sent_at: Timestamp(0), body: Body::Bundle(told.clone()), log: None }.encode();
            let part = self.sealed(matter, &content, &Seen { roster: None, ..seen })?;
            seen.bundle = Some(part_digest(&part));
            bundle = Some((part_digest(&part), told));
            parts.push(part);
        }
        let companion = (!wanted.devices.is_empty()).then(|| Companion {
            bundle: self.bundle_of_listed(&context, &wanted.chains),
            seen: row.position,
            line: row.line.clone(),
            fates: row.fates.clone(),
        });
        let certificates = Certificates::of(bundle.as_ref().map_or(&[][..], |(_, told)| &told.identities))?;
        let change = Change {
            add: wanted.devices.iter().map(|(_, _, taken)| taken.package.0.clone()).collect(),
            remove: leaves.iter().map(|member| member.leaf).collect(),
            // Whoever may not change the matter carries no context at all.
            context: (context != before).then_some(context),
            companion,
        };
        wanted.bundle = bundle;
        (wanted.parts, wanted.roster) = (parts, roster);
        // A key package goes into one Welcome: another matter asks for its own.
        for participant in &wanted.participants {
            self.materials.remove(&participant.person);
        }
        self.post_change(matter, wanted, change, &seen, certificates)
    }

    /// Builds a Commit and posts it, with what goes before it, the roster's changes, and a Welcome for whoever comes in.
    pub(super) fn post_change(
        &mut self,
        matter: MatterId,
        wanted: Wanted,
        change: Change,
        seen: &Seen,
        certificates: Certificates,
    ) -> Result<(), Error> {
        let built = self.group(matter)?.build(change, seen, certificates)?;
        self.save_state(matter);
        let commit = envelope::wrap(Class::Commit, &built.commit)?;
        let digest = Digest::of(&[&commit]);
        let mut parts = wanted.parts;
        parts.push(self.append(matter, &commit, true)?);
        parts.extend(wanted.roster);
        let inboxes = wanted.devices.iter().map(|(_, _, taken)| taken.inbox);
        let inboxes: Vec<MailboxId> = inboxes.chain(wanted.repair.map(|(_, inbox)| inbox)).collect();
        if let Some(welcome) = &built.welcome {
            let welcome = envelope::wrap(Class::Welcome, welcome)?;
            for mailbox in inboxes {
                parts.push(Part::Append {
                    mailbox,
                    base: Position::start(mailbox),
                    fence: false,
                    envelope: Blob(welcome.clone()),
                    keep_ms: limits::ENVELOPE_LIFETIME_MS,
                });
            }
        }
        let own = OwnCommit {
            epoch: built.epoch,
            secrets: Secret::new(built.secrets.to_vec()),
            intents: wanted.intents,
            bundle: wanted.bundle,
            repair: wanted.repair.map(|(digest, _)| digest),
            stale: Vec::new(),
            refused: false,
        };
        self.batch.put(Table::Commit, Some(matter), digest.as_bytes(), &own);
        if let Some(room) = self.rooms.get_mut(&matter) {
            room.commits.insert(digest, own);
        }
        self.new_post(PendingPost::new(parts, matter, Purpose::Commit(digest)));
        Ok(())
    }

    /// The chains and names of some people, as far as this device knows them.
    pub(super) fn bundle_of(&self, people: impl Iterator<Item = PersonId>, chains: &[Vec<Identity>]) -> Bundle {
        self.bundle(people.map(|person| (person, None)), chains)
    }

    /// The chains and names of everybody in a matter, with the keys that it lists.
    pub(super) fn bundle_of_listed(&self, context: &MatterContext, chains: &[Vec<Identity>]) -> Bundle {
        self.bundle(context.people.iter().map(|listed| (listed.person, Some(listed.person_key))), chains)
    }

    fn bundle(&self, people: impl Iterator<Item = (PersonId, Option<Digest>)>, chains: &[Vec<Identity>]) -> Bundle {
        let mut bundle = Bundle::default();
        for (person, key) in people {
            let fresh = chains.iter().find(|chain| chain.first().is_some_and(|identity| identity.person == person));
            let known = self.people.get(&person);
            let chain = fresh
                .map(Vec::as_slice)
                .or_else(|| known.map(|known| key.map_or(known.chain.as_slice(), |key| known.chain_with(key))));
            for identity in chain.into_iter().flatten() {
                let same =
                    |other: &Identity| other.person == identity.person && other.person_key == identity.person_key;
                if !bundle.identities.iter().any(same) {
                    bundle.identities.push(identity.clone());
                }
            }
            let said = chain.and_then(|chain| chain.first()?.endorsement.unverified::<Endorsement>("endorsement").ok());
            if let Some(said) = said
                && let Some(name) = known.and_then(|known| known.name_for(&said))
            {
                bundle.names.push(NamedPerson { person, name: name.clone(), self_stated: !said.confirmed });
            }
        }
        bundle
    }

    pub(super) fn save_item(&mut self, matter: MatterId, number: u64, item: OutItem) {
        self.batch.put(Table::Outbox, Some(matter), &number.to_be_bytes(), &item);
        if let Some(room) = self.rooms.get_mut(&matter) {
            room.outbox.insert(number, item);
        }
    }
}

impl Room {
    fn may_post(&self, head: u64, now: Timestamp) -> bool {
        let read = self.row.position.seq >= self.read_first.max(head) || self.row.stage == Stage::Paused;
        let answers = self.row.stage == Stage::Open && self.row.requests.iter().any(|held| held.answer_at <= now);
        let lost = self.asks_back(now) || self.welcome_was_false(now) || self.row.stage == Stage::Paused;
        let continues = self.row.continue_at.is_some_and(|at| at <= now);
        let keys = self.tidy_due(now) || self.owes_keys(now) || self.commits.values().any(|own| !own.stale.is_empty());
        read && self.not_before <= now
            && self.row.before.is_none()
            && (self.wants_to_post() || answers || lost || continues || keys)
    }
}

/// What one Commit is to do.
#[derive(Default)]
pub(super) struct Wanted {
    intents: Vec<u64>,
    participants: Vec<Participant>,
    /// The chains above them.
    chains: Vec<Vec<Identity>>,
    devices: Vec<(LeafCredential, Rights, TakenKeyPackage)>,
    remove: Vec<PersonId>,
    /// Devices that go, whoever of their person stays.
    put_out: Vec<DeviceId>,
    /// The bundle, by the hash of its envelope.
    bundle: Option<(Digest, Bundle)>,
    /// What is posted before the Commit, and behind it.
    parts: Vec<Part>,
    roster: Vec<Part>,
    /// The request that it answers, and where its Welcome goes.
    repair: Option<(Digest, MailboxId)>,
}

impl Wanted {
    /// An answer to a request.
    pub(super) fn answer(request: Digest, inbox: MailboxId) -> Self {
        Self { repair: Some((request, inbox)), ..Self::default() }
    }

    /// One more device of this person, who is in the matter.
    pub(super) fn own_device(&mut self, owner: LeafCredential, rights: Rights, taken: TakenKeyPackage) {
        self.devices.push((owner, rights, taken));
    }

    /// Somebody who is listed under another key from now on, and the devices of theirs that go.
    pub(super) fn rekey(&mut self, listed: Participant, chain: Vec<Identity>, gone: impl Iterator<Item = DeviceId>) {
        self.participants.push(listed);
        self.chains.push(chain);
        self.put_out.extend(gone);
    }

    /// Devices to put out.
    pub(super) fn put_out(&mut self, devices: impl Iterator<Item = DeviceId>) {
        self.put_out.extend(devices);
    }

    /// Whether there is nothing to do.
    pub(super) fn is_empty(&self) -> bool {
        self.devices.is_empty() && self.remove.is_empty() && self.put_out.is_empty() && self.participants.is_empty()
    }

    fn removes(&self, member: &Member) -> bool {
        self.remove.contains(&member.credential.person) || self.put_out.contains(&member.credential.device)
    }

    /// Of whom the members are told beside it: whose devices come in, and who is listed with another key.
    fn people_told(&self) -> BTreeSet<PersonId> {
        let listed = self.participants.iter().map(|participant| participant.person);
        self.devices.iter().map(|(owner, _, _)| owner.person).chain(listed).collect()
    }

    /// Somebody to add: their chain must reach the organisation, name the handle that was asked for, their endorsement be in force, and
    /// every key package be that of a device they certified.
    fn add(
        &mut self,
        intent: &Intent,
        material: &Material,
        organisation: &crate::suite::PublicKey,
        revoked: &BTreeMap<DeviceId, Revoked>,
        now: Timestamp,
    ) -> Result<(), Error> {
        let (Some(chain), Some(packages)) = (&material.chain, &material.packages) else {
            return Err(Misuse::Busy("the person's keys have not come").into());
        };
        let verified = verify_chain(chain, organisation)?;
        let person = intent.person;
        if verified.person != person {
            return Err(PeerMisbehaved::Mismatch("a chain of endorsements").into());
        }
        if !intent.taken_over && verified.endorsement.handle != intent.handle {
            return Err(PeerMisbehaved::Mismatch("the relay's directory of handles").into());
        }
        if verified.endorsement.until <= now {
            return Err(Refused::not_allowed("that person's endorsement has expired").into());
        }
        let packages: Vec<_> = packages.iter().filter(|taken| !revoked.contains_key(&taken.device)).collect();
        if packages.is_empty() {
            return Err(Refused::not_found("a key package of that person").into());
        }
        let role = verified.endorsement.role;
        let rights = if role.manages() { Rights::MANAGER } else { Rights::MEMBER };
        let mut devices = Vec::new();
        for taken in packages {
            let owner = key_package_owner(&taken.package.0)?;
            let certified = verified.devices.iter().any(|(digest, certificate)| {
                *digest == owner.certificate && certificate.device == owner.device && owner.device == taken.device
            });
            if owner.person != person || !certified {
                return Err(PeerMisbehaved::WrongKey("a key package").into());
            }
            devices.push((owner, rights, taken.clone()));
        }
        self.devices.extend(devices);
        self.participants.push(Participant { person, role, person_key: verified.person_key.digest() });
        self.chains.push(chain.clone());
        Ok(())
    }
}

fn part_digest(part: &Part) -> Digest {
    match part {
        Part::Append { envelope, .. } => Digest::of(&[&envelope.0]),
        _ => Digest::of(&[]),
    }
}
