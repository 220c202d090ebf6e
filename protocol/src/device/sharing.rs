//! What devices of one person tell each other by notes: open invites, who came with them, and what each is called.
//!
//! 1. Whoever makes an invite tells the others: whichever is online first judges the newcomer and endorses them.
//! 2. Whoever endorses or cancels tells the others, which forget the secret.
//!    What is forgotten so is remembered by its id, for as long as somebody could come with it; an invite of a device that was revoked lets
//!    nobody in.
//! 3. The device that holds the person key tells one that it has linked what there is to know.
//!
//! Invariant: of two words about one thing the later counts, whatever the order in which they come.

use crate::between::{Body, DeviceName, EndorsedNewcomer, SharedInvite};
use crate::cbor;
use crate::device::state::{Counters, OwnDevice, OwnInvite, Table};
use crate::device::{Asked, Device};
use crate::error::{Error, Malformed, Refused};
use crate::frame::Request;
use crate::identity::verify_chain;
use crate::ids::{DeviceId, InviteId, PersonId, Timestamp};
use crate::limits;

/// How long a device leaves a newcomer to the one that has made the invite, where both are online.
const TURN_MS: u64 = 3_000;

impl Device {
    /// Whether a newcomer is left to the device that has made the invite: for a moment, unless that has passed.
    pub(super) fn leaves_to_another(&mut self, now: Timestamp, invite: InviteId) -> bool {
        let shared = self.invites.get(&invite).is_some_and(|own| own.shared);
        if !shared || !self.is_caught_up() || self.notes.newcomers_waited {
            return false;
        }
        self.notes.newcomers_at.get_or_insert_with(|| now.plus_ms(TURN_MS));
        true
    }

    /// Asks once more for newcomers who were left to another device.
    pub(super) fn look_again_for_newcomers(&mut self, now: Timestamp) {
        if self.notes.newcomers_at.is_some_and(|at| at <= now) && self.link.is_some() {
            (self.notes.newcomers_at, self.notes.newcomers_waited) = (None, true);
            self.ask_newcomers();
        }
    }

    /// Tells the other devices of an invite that the relay has.
    pub(super) fn share_invite(&mut self, invite: InviteId) {
        let shared = self.invites.get(&invite).filter(|own| !own.links).map(|own| self.shared(own));
        if let Some(shared) = shared {
            self.note_to_others(&Body::Invites(vec![shared]));
        }
    }

    /// Tells the other devices of somebody whom this one has endorsed.
    pub(super) fn share_endorsed(&mut self, person: PersonId, invite: InviteId) {
        let Some(known) = self.people.get(&person) else { return };
        let Some(identity) = known.chain.first().cloned() else { return };
        let told = EndorsedNewcomer { invite, identity, name: known.name.clone() };
        self.note_to_others(&Body::Endorsed(Box::new(told)));
    }

    pub(super) fn take_invites(&mut self, now: Timestamp, from: DeviceId, invites: Vec<SharedInvite>) {
        let mut news = false;
        for SharedInvite { secret, role, statement, name, expires, replaces, relay, by } in invites {
            let (id, by) = (secret.id(), by.filter(|by| *by != from));
            let good = expires.plus_ms(limits::INVITE_KEPT_MS) > now && expires <= now.plus_ms(limits::WAIT_MAX_MS * 4);
            // What was cancelled or used does not come back by a word that was late.
            let known = self.invites.contains_key(&id) || self.notes.gone.contains_key(&id);
            let revoked = by.is_some_and(|by| self.is_revoked(by));
            if !good || known || revoked || self.invites.len() >= limits::INVITES_KEPT {
                continue;
            }
            let from = Some(from);
            let (links, shared) = (false, true);
            let own = OwnInvite { secret, role, statement, name, expires, links, replaces, relay, shared, from, by };
            self.batch.put(Table::Invite, None, id.as_bytes(), &own);
            self.invites.insert(id, own);
            news = true;
        }
        if news && self.ready {
            // Who has used one may wait already.
            self.ask_later(Asked::Newcomers, Request::Newcomers);
        }
    }

    pub(super) fn take_endorsed(&mut self, newcomer: EndorsedNewcomer) -> Result<(), Error> {
        let EndorsedNewcomer { invite, identity, name } = newcomer;
        let own = self.people.get(&self.profile.person).map(|known| known.chain.clone()).unwrap_or_default();
        let chain: Vec<_> = std::iter::once(identity).chain(own).collect();
        let said = verify_chain(&chain, &self.profile.organisation)?;
        self.bury_invite(invite);
        self.meet(&said, &chain, name)
    }

    /// Forgets an invite for good: until nobody could come with it any more, no other device's word brings it back.
    pub(super) fn bury_invite(&mut self, invite: InviteId) {
        let now = self.now;
        let longest = now.plus_ms(limits::INVITE_LIFETIME_MS);
        let until = self.invites.get(&invite).map_or(longest, |own| own.expires).plus_ms(limits::INVITE_KEPT_MS);
        self.forget_invite(invite);
        let gone = &mut self.notes.gone;
        gone.retain(|_, until| *until > now);
        gone.insert(invite, until);
        while gone.len() > limits::INVITES_GONE {
            let first = gone.iter().min_by_key(|(_, until)| **until).map(|(invite, _)| *invite);
            let Some(first) = first else { break };
            gone.remove(&first);
        }
        let gone: Vec<(InviteId, Timestamp)> = gone.iter().map(|(invite, until)| (*invite, *until)).collect();
        self.batch.put(Table::Counter, None, Counters::INVITES_GONE, &gone);
    }

    /// Tells a device that was linked what there is to know: open invites, and what the devices are called. Once for each device, and by
    /// the one that links them.
    pub(super) fn greet(&mut self) {
        if self.profile.person_key.is_none() {
            return;
        }
        for device in self.other_devices() {
            let known = self.notes.devices.get(&device).cloned().unwrap_or_default();
            if known.greeted {
                continue;
            }
            self.put_device(device, OwnDevice { greeted: true, ..known });
            let invites: Vec<SharedInvite> =
                self.invites.values().filter(|own| self.is_shared(own)).map(|own| self.shared(own)).collect();
            let mut some = Vec::new();
            let mut bytes = 0_usize;
            for invite in invites {
                let more = cbor::encode(&invite).len();
                if bytes.saturating_add(more) > limits::NOTE_INVITES_BYTES {
                    self.note_to(device, &Body::Invites(std::mem::take(&mut some)));
                    bytes = 0;
                }
                bytes = bytes.saturating_add(more);
                some.push(invite);
            }
            if !some.is_empty() {
                self.note_to(device, &Body::Invites(some));
            }
            let names = self.names();
            if !names.is_empty() {
                self.note_to(device, &Body::Names(names));
            }
        }
    }

    /// Whether other devices are told of an invite: of none that links a device, and of none of a device that was revoked.
    fn is_shared(&self, own: &OwnInvite) -> bool {
        !own.links && ![own.from, own.by].into_iter().flatten().any(|device| self.is_revoked(device))
    }

    fn shared(&self, own: &OwnInvite) -> SharedInvite {
        let relay = Some(self.relay_of(own));
        let by = own.by.or(own.from).or(Some(self.profile.device));
        let OwnInvite { secret, role, statement, name, expires, replaces, .. } = own.clone();
        SharedInvite { secret, role, statement, name, expires, replaces, relay, by }
    }

    fn put_device(&mut self, device: DeviceId, known: OwnDevice) {
        self.batch.put(Table::OwnDevice, None, device.as_bytes(), &known);
        self.notes.devices.insert(device, known);
    }

    fn names(&self) -> Vec<DeviceName> {
        let named = self.notes.devices.iter().filter_map(|(device, known)| {
            let name = known.name.clone()?;
            Some(DeviceName { device: *device, name, at: known.named })
        });
        named.collect()
    }

    /// Calls a device of this person something, here and on the others. The relay never learns it.
    ///
    /// # Errors
    /// [`Refused::NotFound`] if it is none of this person's; [`Malformed`] for a name that won't do.
    pub fn rename_device(&mut self, now: Timestamp, device: DeviceId, name: &str) -> Result<(), Error> {
        let name = good_name(name)?;
        if !self.devices_of(self.profile.person).iter().any(|own| own.device == device) {
            return Err(Refused::not_found("that device among yours").into());
        }
        let before = self.notes.devices.get(&device).cloned().unwrap_or_default();
        // A clock that went back must not make this word count less than the one before.
        let at = now.max(before.named.plus_ms(1));
        self.put_device(device, OwnDevice { name: Some(name.clone()), named: at, ..before });
        self.note_to_others(&Body::Names(vec![DeviceName { device, name, at }]));
        self.settle(now);
        Ok(())
    }

    /// What this person calls one of their devices.
    pub fn device_name(&self, device: DeviceId) -> Option<&str> {
        self.notes.devices.get(&device).and_then(|known| known.name.as_deref())
    }

    pub(super) fn take_names(&mut self, now: Timestamp, names: Vec<DeviceName>) {
        for DeviceName { device, name, at } in names.into_iter().take(limits::NOTES_MAX) {
            let Ok(name) = good_name(&name) else { continue };
            let known = self.notes.devices.get(&device).cloned();
            let room = known.is_some() || self.notes.devices.len() < limits::NOTES_MAX;
            let before = known.unwrap_or_default();
            let later = (at, Some(&name)) > (before.named, before.name.as_ref());
            if room && later && at <= now.plus_ms(limits::CLOCK_AHEAD_MS) {
                self.put_device(device, OwnDevice { name: Some(name), named: at, ..before });
            }
        }
    }
}

fn good_name(name: &str) -> Result<String, Malformed> {
    let name = name.trim();
    if name.is_empty() {
        return Err(Malformed::Text("name of a device"));
    }
    if name.len() > limits::DEVICE_NAME_MAX {
        return Err(Malformed::TooLarge { what: "name of a device", limit: limits::DEVICE_NAME_MAX });
    }
    Ok(name.to_owned())
}
