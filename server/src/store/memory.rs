//! A store in memory, for tests: the semantics of the embedded one, and a crash wherever a test wants it.
//!
//! Every applied write is a step, and so are the moments before and after a commit. [`Memory::crash_at`] names one: there the store
//! dies, and [`Memory::reopen`] gives what a machine would find after the power came back.
//!
//! Invariant: what a reopened store holds is what had been committed, no more and no less.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use privity_protocol::frame::{Blob, Entry, EntryBody, Instance};
use privity_protocol::identity::handle_skeleton;
use privity_protocol::ids::{DeviceId, InviteId, MailboxId, PersonId, Position, Timestamp};
use privity_protocol::limits;
use privity_protocol::log::{Event, Last, Leaf, TreeHash};
use privity_protocol::suite::{self, Digest, PublicKey};

use super::log::{NewLeaf, filled};
use super::{
    DeviceRow, GrantRow, IdemRow, InviteRow, KeyPackageRow, LogRow, MailboxRow, OpenReader, PersonRow, Read, Reader,
    ReceivedRow, Store, StoreError, ToldRow, Waiting, Write,
};

/// Everything that a store holds.
#[derive(Debug, Clone, Default)]
struct Data {
    organisation: Option<PublicKey>,
    people: BTreeMap<PersonId, PersonRow>,
    devices: BTreeMap<DeviceId, DeviceRow>,
    told: BTreeMap<u64, ToldRow>,
    instances: BTreeMap<DeviceId, Instance>,
    invites: BTreeMap<InviteId, InviteRow>,
    mailboxes: BTreeMap<MailboxId, Mailbox>,
    idems: BTreeMap<(DeviceId, u64), IdemRow>,
    received: BTreeMap<DeviceId, ReceivedRow>,
    key_packages: BTreeMap<(DeviceId, bool, u64), Vec<u8>>,
    numbers: u64,
    configuration: Option<Digest>,
    rotation: Option<Digest>,
    log: Vec<LogRow>,
    log_last: BTreeMap<Option<PersonId>, Last>,
    log_tiles: BTreeMap<(u8, u64), TreeHash>,
}

#[derive(Debug, Clone)]
struct Mailbox {
    row: MailboxRow,
    entries: Vec<Kept>,
    grants: BTreeMap<(DeviceId, u64), GrantRow>,
    acks: BTreeMap<DeviceId, u64>,
    waiting: BTreeMap<u64, (PersonId, bool)>,
}

#[derive(Debug, Clone)]
struct Kept {
    position: Position,
    fence: bool,
    kept: bool,
    digest: Digest,
    envelope: Option<Bytes>,
    expires: Timestamp,
    by: DeviceId,
}

/// The store.
#[derive(Debug)]
pub struct Memory {
    data: Data,
    inside: bool,
    committed: Arc<Mutex<Data>>,
    incarnation: [u8; 16],
    steps: u64,
    crash_at: Option<u64>,
    disk: Arc<Mutex<Disk>>,
}

/// How the disk under the store does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Disk {
    /// Well.
    #[default]
    Fine,
    /// It has no room.
    Full,
    /// Its syncs fail.
    Broken,
}

impl Memory {
    /// An empty store.
    pub fn new() -> Self {
        Self::over(Arc::default(), suite::random())
    }

    fn over(committed: Arc<Mutex<Data>>, incarnation: [u8; 16]) -> Self {
        let data = lock(&committed).clone();
        Self { data, inside: false, committed, incarnation, steps: 0, crash_at: None, disk: Arc::default() }
    }

    /// What is there after a crash or an end.
    #[must_use]
    pub fn reopen(&self) -> Self {
        Self::over(Arc::clone(&self.committed), self.incarnation)
    }

    /// Dies at this step from now, counted from 1, and at every one after it.
    pub fn crash_at(&mut self, step: u64) {
        (self.steps, self.crash_at) = (0, Some(step));
    }

    /// What commits find under them; a test changes it while the store is in use.
    pub fn disk(&self) -> Arc<Mutex<Disk>> {
        Arc::clone(&self.disk)
    }

    fn step(&mut self) -> Result<(), StoreError> {
        self.steps += 1;
        if self.crash_at.is_some_and(|at| self.steps >= at) { Err(StoreError::Crashed) } else { Ok(()) }
    }
}

impl Default for Memory {
    fn default() -> Self {
        Self::new()
    }
}

impl Data {
    fn mailbox_mut(&mut self, mailbox: MailboxId) -> Result<&mut Mailbox, StoreError> {
        self.mailboxes.get_mut(&mailbox).ok_or(StoreError::Damaged("mailbox"))
    }

    fn log(&mut self, person: Option<PersonId>, event: &Event) -> Result<(), StoreError> {
        let NewLeaf { row, last } = NewLeaf::next(self, person, event)?;
        self.log.push(row);
        self.log_last.insert(person, last);
        for level in 1.. {
            let Some((number, hash)) = filled(self, level, self.log.len() as u64)? else { break };
            self.log_tiles.insert((level, number), hash);
        }
        Ok(())
    }

    fn apply(&mut self, write: &Write) -> Result<(), StoreError> {
        match write {
            Write::Organisation(key) => self.organisation = Some(key.clone()),
            Write::Person(row) => {
                self.people.insert(row.registration.person, (**row).clone());
            }
            Write::Device(row) => {
                self.devices.insert(row.device, (**row).clone());
            }
            Write::Told(row) => {
                self.told.insert(row.number, (**row).clone());
            }
            Write::Instance { device, instance } => {
                self.instances.insert(*device, *instance);
            }
            Write::Invite(row) => {
                self.invites.insert(row.invite, (**row).clone());
            }
            Write::Idem { device, row, keep_from } => {
                self.idems.insert((*device, row.idem), row.clone());
                self.idems.retain(|(of, idem), _| of != device || idem >= keep_from);
            }
            Write::Received { device, row } => {
                self.received.insert(*device, row.clone());
            }
            Write::KeyPackage { device, last_resort, package } => {
                if *last_resort {
                    self.key_packages.retain(|(of, last, _), _| of != device || !last);
                }
                self.numbers += 1;
                self.key_packages.insert((*device, *last_resort, self.numbers), package.clone());
            }
            Write::DropKeyPackage { device, number } => {
                self.key_packages.remove(&(*device, false, *number));
            }
            Write::DropKeyPackages { device } => self.key_packages.retain(|(of, _, _), _| of != device),
            Write::Configuration(digest) => self.configuration = Some(*digest),
            Write::Rotation(digest) => self.rotation = Some(*digest),
            Write::Log { person, event } => self.log(*person, event)?,
            Write::Mailbox { mailbox, inbox_of } => {
                let start = Position::start(*mailbox);
                let row = MailboxRow { mailbox: *mailbox, inbox_of: *inbox_of, head: start, fence: start };
                self.mailboxes.insert(*mailbox, Mailbox::new(row));
            }
            Write::Append { mailbox, .. }
            | Write::Grant { mailbox, .. }
            | Write::EndGrant { mailbox, .. }
            | Write::Ack { mailbox, .. }
            | Write::Waiting { inbox: mailbox, .. } => self.mailbox_mut(*mailbox)?.apply(write)?,
        }
        Ok(())
    }
}

impl Mailbox {
    fn new(row: MailboxRow) -> Self {
        let (grants, acks, waiting) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Self { row, entries: Vec::new(), grants, acks, waiting }
    }

    fn apply(&mut self, write: &Write) -> Result<(), StoreError> {
        match write {
            Write::Append { position, fence, kept, digest, envelope, expires, by, .. } => {
                if position.seq != self.entries.len() as u64 + 1 {
                    return Err(StoreError::Damaged("seq"));
                }
                self.row.head = *position;
                if *fence {
                    self.row.fence = *position;
                }
                let (position, fence, kept) = (*position, *fence, *kept);
                let (digest, envelope, expires, by) = (*digest, Some(envelope.clone()), *expires, *by);
                self.entries.push(Kept { position, fence, kept, digest, envelope, expires, by });
            }
            Write::Waiting { seq, sender, reserved, .. } => {
                self.waiting.insert(*seq, (*sender, *reserved));
            }
            Write::Grant { grant, .. } => {
                self.grants.insert((grant.device, grant.from), *grant);
            }
            Write::EndGrant { device, until, .. } => {
                for grant in self.grants.values_mut().filter(|grant| grant.device == *device) {
                    grant.until.get_or_insert(*until);
                }
            }
            Write::Ack { device, upto, .. } => {
                let acked = self.acks.entry(*device).or_default();
                *acked = (*acked).max(*upto);
                self.waiting.retain(|seq, _| seq > upto);
            }
            _ => return Err(StoreError::Damaged("write")),
        }
        Ok(())
    }

    fn entry(&self, seq: u64) -> Option<&Kept> {
        let index = usize::try_from(seq.checked_sub(1)?).ok()?;
        self.entries.get(index)
    }

    /// Whether somebody may still need what must be kept for everybody.
    fn awaited(&self, seq: u64) -> bool {
        let acked = |device: DeviceId| self.acks.get(&device).copied().unwrap_or(0) >= seq;
        let open = self.grants.values().filter(|grant| grant.until.is_none() && grant.from < seq);
        open.map(|grant| grant.device).chain(self.row.inbox_of).any(|device| !acked(device))
    }
}

impl Read for Data {
    fn organisation(&self) -> Result<Option<PublicKey>, StoreError> {
        Ok(self.organisation.clone())
    }

    fn person(&self, person: PersonId) -> Result<Option<PersonRow>, StoreError> {
        Ok(self.people.get(&person).cloned())
    }

    fn handle_owner(&self, skeleton: &str) -> Result<Option<PersonId>, StoreError> {
        let same = |row: &&PersonRow| handle_skeleton(&row.registration.handle) == skeleton;
        Ok(self.people.values().find(same).map(|row| row.registration.person))
    }

    fn people(&self) -> Result<Vec<PersonRow>, StoreError> {
        let mut people: Vec<PersonRow> = self.people.values().cloned().collect();
        people.sort_by(|a, b| a.registration.handle.cmp(&b.registration.handle));
        Ok(people)
    }

    fn device(&self, device: DeviceId) -> Result<Option<DeviceRow>, StoreError> {
        Ok(self.devices.get(&device).cloned())
    }

    fn instance(&self, device: DeviceId) -> Result<Option<Instance>, StoreError> {
        Ok(self.instances.get(&device).copied())
    }

    fn devices_of(&self, person: PersonId) -> Result<Vec<DeviceRow>, StoreError> {
        Ok(self.devices.values().filter(|row| row.person == person).cloned().collect())
    }

    fn told(&self, of: Option<PersonId>, after: u64, limit: usize) -> Result<Vec<ToldRow>, StoreError> {
        let behind = (std::ops::Bound::Excluded(after), std::ops::Bound::Unbounded);
        let rows = self.told.range(behind).map(|(_, row)| row).filter(|row| of.is_none_or(|of| row.person == of));
        Ok(rows.take(limit).cloned().collect())
    }

    fn newest_told(&self) -> Result<u64, StoreError> {
        Ok(self.told.keys().next_back().copied().unwrap_or(0))
    }

    fn invite(&self, invite: InviteId) -> Result<Option<InviteRow>, StoreError> {
        Ok(self.invites.get(&invite).cloned())
    }

    fn invites_of(&self, inviter: PersonId, limit: usize) -> Result<Vec<InviteRow>, StoreError> {
        let mut invites: Vec<InviteRow> =
            self.invites.values().filter(|row| row.inviter == Some(inviter)).cloned().collect();
        invites.sort_by_key(|row| (std::cmp::Reverse(row.expires), row.invite));
        invites.truncate(limit);
        Ok(invites)
    }

    fn open_invites(&self, inviter: PersonId, now: Timestamp) -> Result<usize, StoreError> {
        let open = |row: &&InviteRow| row.inviter == Some(inviter) && !row.is_closed() && row.expires > now;
        Ok(self.invites.values().filter(open).count())
    }

    fn mailbox(&self, mailbox: MailboxId) -> Result<Option<MailboxRow>, StoreError> {
        Ok(self.mailboxes.get(&mailbox).map(|mailbox| mailbox.row))
    }

    fn position(&self, mailbox: MailboxId, seq: u64) -> Result<Option<Position>, StoreError> {
        if seq == 0 {
            return Ok(Some(Position::start(mailbox)));
        }
        Ok(self.mailboxes.get(&mailbox).and_then(|mailbox| mailbox.entry(seq)).map(|entry| entry.position))
    }

    fn fence(&self, mailbox: MailboxId, seq: u64) -> Result<Option<Position>, StoreError> {
        if seq == 0 {
            return Ok(Some(Position::start(mailbox)));
        }
        let entry = self.mailboxes.get(&mailbox).and_then(|mailbox| mailbox.entry(seq));
        Ok(entry.filter(|entry| entry.fence).map(|entry| entry.position))
    }

    fn entries(&self, mailbox: MailboxId, after: u64, until: u64, bytes: usize) -> Result<Vec<Entry>, StoreError> {
        let Some(mailbox) = self.mailboxes.get(&mailbox) else { return Ok(Vec::new()) };
        let wanted = mailbox.entries.iter().filter(|entry| entry.position.seq > after && entry.position.seq <= until);
        let (mut entries, mut total) = (Vec::new(), 0_usize);
        for entry in wanted.take(limits::ENTRIES_MAX) {
            total = total.saturating_add(entry.envelope.as_ref().map_or(64, Bytes::len));
            if total > bytes && !entries.is_empty() {
                break;
            }
            let body = match &entry.envelope {
                Some(envelope) => EntryBody::Envelope(Blob(envelope.to_vec())),
                None => EntryBody::Expired(entry.digest),
            };
            entries.push(Entry { seq: entry.position.seq, fence: entry.fence, body, by: Some(entry.by) });
        }
        Ok(entries)
    }

    fn grants(&self, mailbox: MailboxId, device: DeviceId) -> Result<Vec<GrantRow>, StoreError> {
        let Some(mailbox) = self.mailboxes.get(&mailbox) else { return Ok(Vec::new()) };
        Ok(mailbox.grants.values().filter(|grant| grant.device == device).copied().collect())
    }

    fn open_grants(&self, mailbox: MailboxId) -> Result<Vec<GrantRow>, StoreError> {
        let Some(mailbox) = self.mailboxes.get(&mailbox) else { return Ok(Vec::new()) };
        Ok(mailbox.grants.values().filter(|grant| grant.until.is_none()).copied().collect())
    }

    fn waiting(&self, inbox: MailboxId, sender: PersonId) -> Result<Waiting, StoreError> {
        let mut counts = Waiting::default();
        for (from, reserved) in self.mailboxes.get(&inbox).into_iter().flat_map(|mailbox| mailbox.waiting.values()) {
            counts.of_sender += u64::from(*from == sender);
            counts.unreserved += u64::from(!reserved);
            counts.total += 1;
        }
        Ok(counts)
    }

    fn share_mailbox(&self, one: PersonId, other: PersonId) -> Result<bool, StoreError> {
        let owner = |device: &DeviceId| self.devices.get(device).map(|row| row.person);
        let has = |mailbox: &Mailbox, person: PersonId| {
            mailbox.grants.values().any(|grant| grant.until.is_none() && owner(&grant.device) == Some(person))
        };
        Ok(self.mailboxes.values().any(|mailbox| has(mailbox, one) && has(mailbox, other)))
    }

    fn acked(&self, mailbox: MailboxId, device: DeviceId) -> Result<u64, StoreError> {
        Ok(self.mailboxes.get(&mailbox).and_then(|mailbox| mailbox.acks.get(&device)).copied().unwrap_or(0))
    }

    fn idem(&self, device: DeviceId, idem: u64) -> Result<Option<IdemRow>, StoreError> {
        Ok(self.idems.get(&(device, idem)).cloned())
    }

    fn newest_idem(&self, device: DeviceId) -> Result<Option<IdemRow>, StoreError> {
        Ok(self.idems.range((device, 0)..=(device, u64::MAX)).next_back().map(|(_, row)| row.clone()))
    }

    fn received(&self, device: DeviceId) -> Result<Option<ReceivedRow>, StoreError> {
        Ok(self.received.get(&device).cloned())
    }

    fn key_package(&self, device: DeviceId) -> Result<Option<KeyPackageRow>, StoreError> {
        let first = self.key_packages.range((device, false, 0)..=(device, true, u64::MAX)).next();
        Ok(first.map(|((_, last, number), package)| KeyPackageRow {
            number: (!last).then_some(*number),
            package: package.clone(),
        }))
    }

    fn last_resort(&self, device: DeviceId) -> Result<Option<Vec<u8>>, StoreError> {
        let last = self.key_packages.range((device, true, 0)..=(device, true, u64::MAX)).next();
        Ok(last.map(|(_, package)| package.clone()))
    }

    fn key_packages_left(&self, device: DeviceId) -> Result<u32, StoreError> {
        let left = self.key_packages.range((device, false, 0)..=(device, false, u64::MAX)).count();
        Ok(u32::try_from(left).unwrap_or(u32::MAX))
    }

    fn overdue_invites(&self, now: Timestamp, limit: usize) -> Result<Vec<InviteRow>, StoreError> {
        let overdue = |row: &&InviteRow| !row.is_closed() && row.expires <= now;
        Ok(self.invites.values().filter(overdue).take(limit).cloned().collect())
    }

    fn configuration(&self) -> Result<Option<Digest>, StoreError> {
        Ok(self.configuration)
    }

    fn rotation(&self) -> Result<Option<Digest>, StoreError> {
        Ok(self.rotation)
    }

    fn log_size(&self) -> Result<u64, StoreError> {
        Ok(self.log.len() as u64)
    }

    fn log_last(&self, person: Option<PersonId>) -> Result<Option<Last>, StoreError> {
        Ok(self.log_last.get(&person).copied())
    }

    fn log_rows(&self, from: u64, until: u64) -> Result<Vec<LogRow>, StoreError> {
        Ok(self.log.iter().filter(|row| (from..until).contains(&row.index)).cloned().collect())
    }

    fn log_of(&self, person: PersonId, after: u64, size: u64, limit: usize) -> Result<Vec<LogRow>, StoreError> {
        let wanted = |row: &&LogRow| {
            let leaf = Leaf::decode(&row.leaf);
            row.index < size && leaf.is_ok_and(|leaf| leaf.person == Some(person) && leaf.number > after)
        };
        Ok(self.log.iter().filter(wanted).take(limit).cloned().collect())
    }

    fn log_hashes(&self, level: u8, from: u64, until: u64) -> Result<Vec<TreeHash>, StoreError> {
        if level == 0 {
            return Ok(self.log_rows(from, until)?.iter().map(|row| TreeHash::leaf(&row.leaf)).collect());
        }
        Ok(self.log_tiles.range((level, from)..(level, until)).map(|(_, hash)| *hash).collect())
    }
}

/// Passes every question on: a `Memory` answers what has been applied.
macro_rules! answer_from_data {
    ($($name:ident($($argument:ident: $type:ty),*) -> $answer:ty;)*) => {
        impl Read for Memory {
            $(fn $name(&self, $($argument: $type),*) -> Result<$answer, StoreError> { self.data.$name($($argument),*) })*
        }
    };
}

answer_from_data! {
    organisation() -> Option<PublicKey>;
    person(person: PersonId) -> Option<PersonRow>;
    handle_owner(skeleton: &str) -> Option<PersonId>;
    people() -> Vec<PersonRow>;
    device(device: DeviceId) -> Option<DeviceRow>;
    instance(device: DeviceId) -> Option<Instance>;
    devices_of(person: PersonId) -> Vec<DeviceRow>;
    told(of: Option<PersonId>, after: u64, limit: usize) -> Vec<ToldRow>;
    newest_told() -> u64;
    invite(invite: InviteId) -> Option<InviteRow>;
    invites_of(inviter: PersonId, limit: usize) -> Vec<InviteRow>;
    open_invites(inviter: PersonId, now: Timestamp) -> usize;
    mailbox(mailbox: MailboxId) -> Option<MailboxRow>;
    position(mailbox: MailboxId, seq: u64) -> Option<Position>;
    fence(mailbox: MailboxId, seq: u64) -> Option<Position>;
    entries(mailbox: MailboxId, after: u64, until: u64, bytes: usize) -> Vec<Entry>;
    grants(mailbox: MailboxId, device: DeviceId) -> Vec<GrantRow>;
    open_grants(mailbox: MailboxId) -> Vec<GrantRow>;
    waiting(inbox: MailboxId, sender: PersonId) -> Waiting;
    share_mailbox(one: PersonId, other: PersonId) -> bool;
    acked(mailbox: MailboxId, device: DeviceId) -> u64;
    idem(device: DeviceId, idem: u64) -> Option<IdemRow>;
    newest_idem(device: DeviceId) -> Option<IdemRow>;
    received(device: DeviceId) -> Option<ReceivedRow>;
    key_package(device: DeviceId) -> Option<KeyPackageRow>;
    last_resort(device: DeviceId) -> Option<Vec<u8>>;
    key_packages_left(device: DeviceId) -> u32;
    overdue_invites(now: Timestamp, limit: usize) -> Vec<InviteRow>;
    configuration() -> Option<Digest>;
    rotation() -> Option<Digest>;
    log_size() -> u64;
    log_last(person: Option<PersonId>) -> Option<Last>;
    log_rows(from: u64, until: u64) -> Vec<LogRow>;
    log_of(person: PersonId, after: u64, size: u64, limit: usize) -> Vec<LogRow>;
    log_hashes(level: u8, from: u64, until: u64) -> Vec<TreeHash>;
}

impl Store for Memory {
    fn begin(&mut self) -> Result<(), StoreError> {
        self.inside = true;
        Ok(())
    }

    fn apply(&mut self, writes: &[Write]) -> Result<(), StoreError> {
        if !self.inside {
            return Err(StoreError::Damaged("transaction"));
        }
        for write in writes {
            self.step()?;
            self.data.apply(write)?;
        }
        Ok(())
    }

    fn commit(&mut self) -> Result<(), StoreError> {
        self.step()?;
        match *lock(&self.disk) {
            Disk::Fine => {}
            Disk::Full => return Err(std::io::Error::from(std::io::ErrorKind::StorageFull).into()),
            Disk::Broken => return Err(std::io::Error::other("sync failed").into()),
        }
        lock(&self.committed).clone_from(&self.data);
        self.inside = false;
        self.step()
    }

    fn rollback(&mut self) -> Result<(), StoreError> {
        self.data = lock(&self.committed).clone();
        self.inside = false;
        Ok(())
    }

    fn as_read(&self) -> &dyn Read {
        self
    }

    fn readers(&self) -> OpenReader {
        let (committed, incarnation) = (Arc::clone(&self.committed), self.incarnation);
        let open = move || Self::over(Arc::clone(&committed), incarnation);
        Box::new(move || Ok(Box::new(open())))
    }

    fn expire(&mut self, now: Timestamp, limit: usize) -> Result<usize, StoreError> {
        let mut dropped = 0;
        for mailbox in self.data.mailboxes.values_mut() {
            for index in 0..mailbox.entries.len() {
                let entry = &mailbox.entries[index];
                let due = entry.envelope.is_some() && entry.expires <= now && dropped < limit;
                if due && !(entry.kept && mailbox.awaited(entry.position.seq)) {
                    mailbox.entries[index].envelope = None;
                    dropped += 1;
                }
            }
        }
        Ok(dropped)
    }

    fn incarnation(&self) -> [u8; 16] {
        self.incarnation
    }
}

impl Reader for Memory {
    fn hold(&mut self) -> Result<(), StoreError> {
        self.data = lock(&self.committed).clone();
        Ok(())
    }

    fn release(&mut self) -> Result<(), StoreError> {
        Ok(())
    }
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
