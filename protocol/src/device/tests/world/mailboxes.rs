//! The in-memory relay's mailboxes: who posts and reads what, and how it lies about it.
//!
//! Invariant: a Post is accepted whole or not at all, and one idem stands for one content, as with the real relay.

use super::*;

impl Relay {
    pub(super) fn take(&mut self, person: PersonId, only: Option<DeviceId>) -> Reply {
        let person = *self.swap_packages.get(&person).unwrap_or(&person);
        if self.people[&person].endorsement.is_none() {
            return Reply::Refused(Refused::not_found("key packages"));
        }
        let devices: Vec<(DeviceId, MailboxId)> = self
            .devices
            .iter()
            .filter(|(_, (owner, _))| *owner == person)
            .filter(|(device, _)| only.is_none_or(|only| only == **device))
            .filter(|(device, _)| !self.waits(**device) && self.serves(**device))
            .map(|(d, (_, inbox))| (*d, *inbox))
            .collect();
        let mut packages = Vec::new();
        for (device, inbox) in devices {
            let waiting = self.single_use.entry(device).or_default();
            let package = waiting.pop_front().or_else(|| self.last_resort.get(&device).cloned());
            if waiting.len() < limits::KEY_PACKAGES / 2 {
                self.events.push((person, Event::KeyPackagesLow { left: u32::try_from(waiting.len()).unwrap() }));
            }
            let package = package.map(|Blob(mut bytes)| {
                let last = bytes.last_mut().unwrap();
                *last ^= u8::from(self.spoil_packages);
                Blob(bytes)
            });
            packages.extend(package.map(|package| TakenKeyPackage { device, inbox, package }));
        }
        Reply::KeyPackages { packages }
    }

    pub(super) fn subscribe(&self, device: DeviceId, mailbox: MailboxId, after: Option<Position>) -> Reply {
        let Some((from, until)) = self.readable(device, mailbox) else {
            return Reply::Refused(Refused::not_found("that mailbox"));
        };
        let row = &self.mailboxes[&mailbox];
        let lied_to = self.shown.is_some_and(|(reader, _)| reader == device);
        let start = match after {
            Some(after) if lied_to => after,
            _ => row.at(after.map_or(from, |after| after.seq.min(row.head.seq))),
        };
        Reply::Subscribed { start, head: (self.view(device, mailbox).len() as u64).min(until) }
    }

    /// How many entries a mailbox has.
    pub(in crate::device::tests) fn matter_entries(&self, mailbox: MailboxId) -> usize {
        self.mailboxes[&mailbox].entries.len()
    }

    pub(super) fn readable(&self, device: DeviceId, mailbox: MailboxId) -> Option<(u64, u64)> {
        let row = self.mailboxes.get(&mailbox).filter(|_| self.serves(device))?;
        if row.inbox_of == Some(device) {
            return Some((0, u64::MAX));
        }
        let grant = row.grants.iter().rev().find(|grant| grant.device == device)?;
        let until = grant.until.filter(|_| self.keep_reading != Some(device));
        Some((grant.from, until.unwrap_or(u64::MAX)))
    }

    /// The entries of a mailbox as a device is shown them.
    pub(super) fn view(&self, device: DeviceId, mailbox: MailboxId) -> Vec<Entry> {
        let row = &self.mailboxes[&mailbox];
        let mut entries = row.entries.clone();
        if let Some((_, alter)) = self.shown.filter(|(reader, _)| *reader == device && row.inbox_of.is_none()) {
            alter(&mut entries);
            for (index, entry) in entries.iter_mut().enumerate() {
                entry.seq = index as u64 + 1;
            }
        }
        entries
    }

    pub(super) fn post(&mut self, device: DeviceId, post: &Post) -> Result<Vec<u64>, Refused> {
        self.posts += 1;
        let parts = Post::parts_digest(&post.parts);
        // What was refused counts, too: its keys are used.
        if self.newest.get(&device).is_none_or(|newest| newest.idem < post.idem) {
            self.newest.insert(device, AcceptedIdem { idem: post.idem, parts, mac: post.mac });
        }
        if let Some(refused) = self.refuse_before_idem.take() {
            return Err(refused);
        }
        if let Some((known, mac, seqs)) = self.accepted.get(&(device, post.idem)) {
            if *known == parts {
                return Ok(seqs.clone());
            }
            assert!(self.copies, "an idem stands for two different Posts");
            return Err(Refused::Reused { idem: post.idem, parts: *known, mac: *mac });
        }
        if let Some(refused) = self.refuse.pop_front() {
            return Err(refused);
        }
        let before = self.mailboxes.clone();
        let mut seqs = Vec::new();
        for part in &post.parts {
            if let Err(refused) = self.part(device, part, &mut seqs) {
                self.mailboxes = before;
                return Err(refused);
            }
        }
        for part in &post.parts {
            if let Part::Append { mailbox, envelope, .. } = part
                && self.mailboxes[mailbox].inbox_of.is_none()
            {
                assert!(self.envelopes.insert(Digest::of(&[&envelope.0])), "one envelope stands in a matter twice");
            }
        }
        self.accepted.insert((device, post.idem), (parts, post.mac, seqs.clone()));
        Ok(seqs)
    }

    pub(super) fn part(&mut self, by: DeviceId, part: &Part, seqs: &mut Vec<u64>) -> Result<(), Refused> {
        match part {
            Part::Create { mailbox: id } => {
                let mut created = mailbox(*id, None);
                created.grants.push(Grant { device: by, rights: Rights::MANAGER, from: 0, until: None });
                if self.mailboxes.insert(*id, created).is_some() {
                    return Err(Refused::malformed("that mailbox exists"));
                }
            }
            Part::Append { mailbox, base, fence, envelope, .. } => {
                let row = self.mailboxes.get_mut(mailbox).ok_or_else(|| Refused::not_found("that mailbox"))?;
                if row.inbox_of.is_some() && row.inbox_of == self.full {
                    return Err(Refused::Full { what: "that inbox".to_owned() });
                }
                if row.inbox_of.is_none() {
                    row.may(by, Rights::MEMBER)?;
                    if *base != row.fence {
                        assert_eq!(row.at(base.seq), *base, "a base that is no position");
                        return Err(Refused::Stale { latest: row.fence.seq });
                    }
                }
                let body = EntryBody::Envelope(envelope.clone());
                let entry = Entry { seq: row.head.seq + 1, fence: *fence, body, by: Some(by) };
                row.head = row.head.next(*fence, &entry.digest());
                row.positions.push(row.head);
                if *fence {
                    row.fence = row.head;
                }
                seqs.push(entry.seq);
                row.entries.push(entry);
            }
            Part::Grant { mailbox, device, rights, resume } => {
                let own = self.owner(*device) == self.owner(by);
                let theirs = self.has_one_like(*mailbox, *device, *rights);
                let row = self.mailboxes.get_mut(mailbox).ok_or_else(|| Refused::not_found("that mailbox"))?;
                row.may(
                    by,
                    if own {
                        *rights
                    } else if theirs {
                        Rights::MEMBER
                    } else {
                        Rights::MANAGER
                    },
                )?;
                if row.grants.iter().any(|grant| grant.device == *device && grant.until.is_none()) {
                    return Ok(());
                }
                let last = row.grants.iter_mut().rev().find(|grant| grant.device == *device && *resume);
                if let Some(last) = last {
                    last.until = None;
                    return Ok(());
                }
                row.grants.push(Grant { device: *device, rights: *rights, from: row.head.seq, until: None });
            }
            Part::Revoke { mailbox, device } => {
                let own = self.owner(*device) == self.owner(by) || self.is_revoked(*device);
                let row = self.mailboxes.get_mut(mailbox).ok_or_else(|| Refused::not_found("that mailbox"))?;
                row.may(by, if own { Rights::MEMBER } else { Rights::MANAGER })?;
                let until = row.head.seq;
                let mut open = row.grants.iter_mut().filter(|grant| grant.device == *device && grant.until.is_none());
                if let Some(open) = open.next() {
                    open.until = Some(until);
                }
            }
        }
        Ok(())
    }
}

impl Mailbox {
    pub(super) fn at(&self, seq: u64) -> Position {
        self.positions[usize::try_from(seq).unwrap()]
    }

    pub(super) fn may(&self, device: DeviceId, rights: Rights) -> Result<(), Refused> {
        let open = |grant: &&Grant| grant.device == device && grant.until.is_none() && grant.rights.include(rights);
        self.grants.iter().find(open).map(|_| ()).ok_or_else(|| Refused::not_allowed("you may not do that there"))
    }
}

pub(super) fn mailbox(id: MailboxId, inbox_of: Option<DeviceId>) -> Mailbox {
    let start = Position::start(id);
    Mailbox { entries: Vec::new(), head: start, fence: start, positions: vec![start], grants: Vec::new(), inbox_of }
}

impl Relay {
    /// Whose reading of a mailbox has no end.
    pub(in crate::device::tests) fn readers(&self, mailbox: MailboxId) -> BTreeSet<DeviceId> {
        let open = self.mailboxes[&mailbox].grants.iter().filter(|grant| grant.until.is_none());
        open.map(|grant| grant.device).collect()
    }

    /// The entries of a mailbox, as they stand.
    pub(in crate::device::tests) fn entries(&self, mailbox: MailboxId) -> &[Entry] {
        &self.mailboxes[&mailbox].entries
    }

    /// How many Posts were not accepted, or came again.
    pub(in crate::device::tests) fn refused(&self) -> usize {
        self.posts - self.accepted.len()
    }

    /// Of this device there are no key packages any more, or the last-resort one alone.
    pub(in crate::device::tests) fn forget_packages(&mut self, device: DeviceId, all: bool) {
        self.single_use.remove(&device);
        if all {
            self.last_resort.remove(&device);
        }
    }
}
