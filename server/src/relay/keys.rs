//! Person keys that are replaced: by a recovery sheet, by their person, or because somebody vouches for another one.
//!
//! 1. A person files a recovery key that their own key has certified, with a note for whoever holds the sheet.
//! 2. Whoever proves the sheet's token is shown the note, and replaces the key by a statement that the recovery key has signed.
//! 3. A person replaces their key by a statement that the key before has signed; every device of theirs stays.
//! 4. Whoever is enrolled anew waits until the new key is endorsed: until then nothing changes for the one before (`joining.rs`).
//!
//! 5. A relay that was restored takes the same again, by every statement on the way from the key that it knows.
//!
//! What somebody endorsed under a key before stays verifiable: their identity of that time is kept for it.
//!
//! Invariant: a person's key is replaced only with every device of theirs named, staying or revoked, and in one step with the leaf that
//! says so.

use privity_protocol::device::{too_many_steps, with_step};
use privity_protocol::error::{Error, Refused};
use privity_protocol::frame::{NewKey, Recovery, RecoveryFiling, RecoveryView, Registration, Reply};
use privity_protocol::identity::{
    DeviceCertificate, DeviceRevocation, Endorsement, Identity, RecoveryKey, Signed, Step, check_handle,
    handle_skeleton, stays_since, verify_line,
};
use privity_protocol::ids::{DeviceId, MailboxId, PersonId, Timestamp};
use privity_protocol::limits;
use privity_protocol::log::Act;
use privity_protocol::recovery::token_hash;
use privity_protocol::suite::{self, Digest, Label, PublicKey};

use super::people::certificates;
use super::statements::{last_instance, tell_those_who_see};
use super::{Outcome, Wake, logged};
use crate::policy::{self, Caller, No};
use crate::store::{DeviceRow, PersonRow, Read, RevokedRow, StoreError, Told, ToldRow, Write};

fn malformed(error: Error) -> No {
    Refused::malformed(error.to_string()).into()
}

pub(super) fn file(store: &dyn Read, caller: Caller, filing: &RecoveryFiling) -> Result<Outcome, No> {
    let mut row = policy::endorsed(store, caller)?;
    if filing.note.0.len() > limits::RECOVERY_NOTE_MAX {
        return Err(Refused::malformed("the note of a recovery sheet is too large").into());
    }
    certified_recovery(&row, &filing.statement, &row.registration.person_key)?;
    row.recovery = Some(filing.clone());
    let writes = vec![Write::Person(Box::new(row))];
    Ok(Outcome { writes, reply: Some(Reply::Done), wakes: Vec::new() })
}

/// A recovery key that this person key has certified.
fn certified_recovery(row: &PersonRow, statement: &Signed, key: &PublicKey) -> Result<RecoveryKey, No> {
    let said: RecoveryKey = statement.verify(Label::RecoveryKey, key, "recovery key").map_err(malformed)?;
    if said.person == row.registration.person {
        Ok(said)
    } else {
        Err(Refused::malformed("the recovery key is somebody else's").into())
    }
}

/// Whose sheet a token proves.
fn proved(store: &dyn Read, handle: &str, token: &[u8; 32]) -> Result<(PersonRow, RecoveryFiling), No> {
    let unknown = || {
        Refused::Invite {
        what: "this relay keeps no such recovery sheet under that handle, or a newer one has taken its place: hold the handle against the paper, too".to_owned(),
    }
    };
    let row = of_handle(store, handle)?.ok_or_else(unknown)?;
    let filing = row.recovery.clone().ok_or_else(unknown)?;
    if !suite::same(filing.token_hash.as_bytes(), token_hash(token).as_bytes()) {
        return Err(unknown().into());
    }
    if row.is_withdrawn() {
        return Err(Refused::not_allowed("the firm has withdrawn that person's endorsement").into());
    }
    Ok((row, filing))
}

fn of_handle(store: &dyn Read, handle: &str) -> Result<Option<PersonRow>, No> {
    if check_handle(handle).is_err() {
        return Ok(None);
    }
    let Some(person) = store.handle_owner(&handle_skeleton(handle))? else { return Ok(None) };
    Ok(store.person(person)?.filter(|row| row.registration.handle == handle))
}

pub(super) fn open(store: &dyn Read, handle: &str, token: &[u8; 32]) -> Result<Reply, No> {
    let (row, filing) = proved(store, handle, token)?;
    let chain = super::people::chain(store, row.registration.person)?;
    let RecoveryFiling { statement, note, .. } = filing;
    Ok(Reply::Recovery(Box::new(RecoveryView { chain, statement, note })))
}

pub(super) fn recover(store: &dyn Read, link_key: &PublicKey, asked: &Recovery, now: Timestamp) -> Result<Outcome, No> {
    if is_done(store, link_key, asked)? {
        return Ok(Outcome::reply(Reply::Done));
    }
    let (row, filing) = proved(store, &asked.handle, &asked.token)?;
    let step = Step {
        key: row.registration.person_key.clone(),
        statement: asked.statement.clone(),
        recovery: Some(filing.statement),
    };
    let act = Act::Recovered { person_key: asked.person_key.digest(), statement: asked.statement.digest() };
    let mut change = Change::new(store, row, &asked.person_key)?;
    change.step(step, &asked.stays)?;
    change.takes(&asked.revocations)?;
    change.newcomer(&asked.certificate, asked.inbox, link_key)?;
    // The sheet is used up: what is typed into a machine is on paper alone no more.
    change.row.recovery = None;
    // So is an enrolment anew that somebody has begun: the person is here.
    let again = change.row.again.take();
    change.reaches(limits::KEY_STEPS_MAX)?;
    let mut outcome = change.done(act, now)?;
    if let Some(again) = again {
        end(store, &again, &mut outcome.writes, &mut outcome.wakes)?;
    }
    Ok(outcome)
}

/// The answer to this very request was lost.
fn is_done(store: &dyn Read, link_key: &PublicKey, asked: &Recovery) -> Result<bool, No> {
    let said: DeviceCertificate =
        asked.certificate.unverified("device certificate").map_err(|error| malformed(error.into()))?;
    let row = of_handle(store, &asked.handle)?.filter(|row| row.registration.person_key == asked.person_key);
    let device = store.device(said.device)?.filter(|device| device.link_key == *link_key && device.revoked.is_none());
    Ok(row.is_some_and(|row| device.is_some_and(|device| device.person == row.registration.person)))
}

pub(super) fn replace(store: &dyn Read, caller: Caller, asked: &NewKey, now: Timestamp) -> Result<Outcome, No> {
    let row = policy::endorsed(store, caller)?;
    if row.registration.person_key == asked.person_key {
        return Ok(Outcome::reply(Reply::Done));
    }
    let recovery = match (&row.recovery, &asked.recovery) {
        (Some(filed), Some(statement)) => {
            let said = certified_recovery(&row, statement, &asked.person_key)?;
            let before = certified_recovery(&row, &filed.statement, &row.registration.person_key)?;
            // The sheet on paper stays good under the new key.
            (said.key == before.key).then(|| RecoveryFiling { statement: statement.clone(), ..filed.clone() })
        }
        _ => None,
    };
    if asked.line.is_empty() && row.recovery.is_some() && recovery.is_none() {
        // Nobody loses their sheet in silence: neither by an answer that got lost, nor by whoever holds the device.
        let what = "the newest recovery sheet is not the one that this device knows: make a new one first";
        return Err(Refused::not_allowed(what).into());
    }
    let key = row.registration.person_key.clone();
    let act = Act::KeyRotated { key: asked.person_key.digest(), statement: asked.statement.digest() };
    let mut change = Change::new(store, row, &asked.person_key)?;
    if asked.line.is_empty() {
        let step = Step { key, statement: asked.statement.clone(), recovery: None };
        change.step(step, &asked.certificates)?;
    } else {
        change.again(&asked.line, &asked.certificates, &asked.revocations)?;
    }
    change.row.recovery = recovery;
    let again = !asked.line.is_empty();
    change.reaches(if again { limits::KEY_STEPS_MAX } else { limits::ROTATIONS_UNENDORSED })?;
    change.done(act, now)
}

/// Whether somebody may be enrolled anew with these devices revoked.
pub(super) fn may_enrol_anew(store: &dyn Read, row: PersonRow, again: &Registration) -> Result<(), No> {
    let mut change = Change::new(store, row, &again.person_key)?;
    change.takes(&again.revocations)?;
    change.all_named()
}

/// Somebody who was enrolled anew is vouched for: the new key takes the place of the old one. What else is to be written, and the person
/// as they are then.
pub(super) fn enrolled_anew(
    store: &dyn Read,
    row: PersonRow,
    again: Registration,
    by: PersonId,
    now: Timestamp,
) -> Result<(PersonRow, Vec<Write>, Vec<Wake>), No> {
    let said: DeviceCertificate =
        again.certificate.unverified("device certificate").map_err(|error| malformed(error.into()))?;
    let waits = store.device(said.device)?.ok_or_else(|| Refused::not_found("the new device"))?;
    let act = Act::Replaced { person_key: again.person_key.digest(), by };
    let mut change = Change::new(store, row, &again.person_key)?;
    change.takes(&again.revocations)?;
    change.come = Some(DeviceRow { pending: false, ..waits });
    change.row.recovery = None;
    change.row.line = Vec::new();
    change.row.again = None;
    let (Outcome { writes, wakes, .. }, mut row) = change.decided(act, now)?;
    row.registration = again;
    Ok((row, writes, wakes))
}

/// An enrolment anew that can't end well any more: its device is nobody's.
pub(super) fn end(
    store: &dyn Read,
    again: &Registration,
    writes: &mut Vec<Write>,
    wakes: &mut Vec<Wake>,
) -> Result<(), No> {
    let said: DeviceCertificate =
        again.certificate.unverified("device certificate").map_err(|error| malformed(error.into()))?;
    if let Some(row) = store.device(said.device)?.filter(|row| row.pending) {
        writes.push(Write::DropKeyPackages { device: row.device });
        wakes.push(Wake::Revoked { device: row.device });
        writes.push(Write::Device(Box::new(DeviceRow { pending: false, former: true, ended: true, ..row })));
    }
    Ok(())
}

/// Whoever enrols somebody anew is refused for good: the person is free to be enrolled once more.
pub(super) fn came_to_nothing(
    store: &dyn Read,
    row: PersonRow,
    again: &Registration,
    why: Refused,
) -> Result<Outcome, No> {
    let mut outcome = Outcome::default();
    end(store, again, &mut outcome.writes, &mut outcome.wakes)?;
    outcome.writes.push(Write::Person(Box::new(PersonRow { again: None, ..row })));
    outcome.reply = Some(Reply::Refused(why));
    Ok(outcome)
}

/// A person's key about to be replaced.
struct Change<'a> {
    store: &'a dyn Read,
    row: PersonRow,
    before: Identity,
    key: PublicKey,
    devices: Vec<DeviceRow>,
    stays: Vec<Signed>,
    revoked: Vec<(DeviceId, Signed)>,
    come: Option<DeviceRow>,
}

impl<'a> Change<'a> {
    fn new(store: &'a dyn Read, row: PersonRow, key: &PublicKey) -> Result<Self, No> {
        let person = row.registration.person;
        let endorsement = row.endorsement.clone().ok_or_else(|| Refused::not_found("an endorsement of that person"))?;
        let before = Identity {
            person,
            person_key: row.registration.person_key.clone(),
            certificates: certificates(store, person, None)?,
            endorsement,
            line: row.line.clone(),
        };
        let devices = store.devices_of(person)?;
        let (stays, revoked, come) = (Vec::new(), Vec::new(), None);
        Ok(Self { store, row, before, key: key.clone(), devices, stays, revoked, come })
    }

    /// A statement leads from the key before to the new one, which has signed the certificates of those that stay.
    fn step(&mut self, step: Step, stays: &[Signed]) -> Result<(), No> {
        let said = step.verify(self.before.person).map_err(malformed)?.said;
        let mut named: Vec<Digest> = Vec::new();
        for certificate in stays {
            if !self.is_in_use(certificate)? {
                return Err(Refused::malformed("a device stays that is none of that person's").into());
            }
            named.push(certificate.digest());
        }
        named.sort();
        if said.to != self.key.digest() || said.stays != named {
            return Err(Refused::malformed("the statement is about other keys or devices").into());
        }
        self.row.line = with_step(&self.row.line, step);
        self.stays = stays.to_vec();
        Ok(())
    }

    /// Whether no more steps than that lead from the key that somebody was endorsed with: whoever is shown fewer verifies nothing.
    fn reaches(&self, most: usize) -> Result<(), No> {
        let said: Endorsement =
            self.before.endorsement.unverified("endorsement").map_err(|_| StoreError::Damaged("endorsement"))?;
        let now = Identity { person_key: self.key.clone(), line: self.row.line.clone(), ..self.before.clone() };
        match now.steps_since(said.person_key) {
            Some(steps) if steps <= most => Ok(()),
            _ => Err(too_many_steps().into()),
        }
    }

    /// Whether a certificate by the new key is of a device that this relay serves.
    fn is_in_use(&self, certificate: &Signed) -> Result<bool, No> {
        let of: DeviceCertificate =
            certificate.verify(Label::DeviceCertificate, &self.key, "device certificate").map_err(malformed)?;
        let is =
            |row: &DeviceRow| row.device == of.device && row.is_in_use() && row.certificate.body == certificate.body;
        Ok(self.devices.iter().any(is))
    }

    /// What was done before this relay was restored: steps that lead to the new key, with the devices that stayed and those that were
    /// revoked on the way. A device that came since is not known here any more.
    fn again(&mut self, line: &[Step], stayed: &[Signed], revocations: &[Signed]) -> Result<(), No> {
        let person = self.before.person;
        let from = line.iter().position(|step| step.key == self.before.person_key);
        let line = from.and_then(|from| line.get(from..)).unwrap_or_default();
        let identity = Identity { person_key: self.key.clone(), line: line.to_vec(), ..self.before.clone() };
        let steps = verify_line(&identity).map_err(malformed)?;
        let stays = stays_since(&steps, self.before.person_key.digest())
            .ok_or_else(|| Refused::malformed("the statements begin at another key"))?;
        for certificate in stayed.iter().take(limits::DEVICES_PER_PERSON_MAX) {
            if stays.contains(&certificate.digest()) && self.is_in_use(certificate)? {
                self.stays.push(certificate.clone());
            }
        }
        for statement in revocations.iter().take(limits::DEVICES_PER_PERSON_MAX) {
            let of: DeviceRevocation = statement.unverified("revocation").map_err(|error| malformed(error.into()))?;
            if !self.devices.iter().any(|row| row.device == of.device && row.is_in_use()) {
                // Gone already, or forgotten: who has signed it may be nobody that is known here any more.
                continue;
            }
            let verify = |key| statement.verify::<DeviceRevocation>(Label::DeviceRevocation, key, "revocation").ok();
            let said = identity.keys().find_map(verify).filter(|said| said.person == person && said.issuer.is_none());
            let said = said.ok_or_else(|| Refused::malformed("a revocation of somebody else's device"))?;
            self.revoked.push((said.device, statement.clone()));
        }
        for step in line {
            self.row.line = with_step(&self.row.line, step.clone());
        }
        Ok(())
    }

    /// Revocations by the new key.
    fn takes(&mut self, revocations: &[Signed]) -> Result<(), No> {
        for statement in revocations.iter().take(limits::DEVICES_PER_PERSON_MAX) {
            let said: DeviceRevocation =
                statement.verify(Label::DeviceRevocation, &self.key, "revocation").map_err(malformed)?;
            if said.person != self.before.person || said.issuer.is_some() {
                return Err(Refused::malformed("a revocation of somebody else's device").into());
            }
            self.revoked.push((said.device, statement.clone()));
        }
        Ok(())
    }

    fn newcomer(&mut self, certificate: &Signed, inbox: MailboxId, link_key: &PublicKey) -> Result<(), No> {
        let said: DeviceCertificate =
            certificate.verify(Label::DeviceCertificate, &self.key, "device certificate").map_err(malformed)?;
        if said.person != self.before.person || said.link_key != link_key.digest() {
            return Err(Refused::malformed("the device certificate is for another device").into());
        }
        if self.store.device(said.device)?.is_some() || self.store.mailbox(inbox)?.is_some() {
            return Err(Refused::malformed("an id is in use").into());
        }
        self.come = Some(DeviceRow {
            device: said.device,
            person: said.person,
            link_key: link_key.clone(),
            certificate: certificate.clone(),
            inbox,
            waiting: None,
            pack: None,
            revoked: None,
            pending: false,
            former: false,
            ended: false,
        });
        Ok(())
    }

    /// Whether every device in use stays or is revoked: none is forgotten.
    fn all_named(&self) -> Result<(), No> {
        let stays: Vec<Digest> = self.stays.iter().map(Signed::digest).collect();
        let named = |row: &DeviceRow| {
            stays.contains(&row.certificate.digest()) || self.revoked.iter().any(|(device, _)| *device == row.device)
        };
        if self.devices.iter().filter(|row| row.is_in_use()).all(named) {
            return Ok(());
        }
        Err(Refused::malformed("a device of that person is left out; somebody has linked one meanwhile: begin again")
            .into())
    }

    fn done(self, act: Act, now: Timestamp) -> Result<Outcome, No> {
        let (mut outcome, row) = self.decided(act, now)?;
        outcome.writes.push(Write::Person(Box::new(row)));
        outcome.reply = Some(Reply::Done);
        Ok(outcome)
    }

    fn decided(mut self, act: Act, now: Timestamp) -> Result<(Outcome, PersonRow), No> {
        self.all_named()?;
        let person = self.before.person;
        let mut number = self.store.newest_told()?.saturating_add(1);
        let mut outcome = Outcome::default();
        outcome.writes.push(Write::Told(Box::new(ToldRow { number, person, what: Told::Replaced })));
        outcome.writes.push(logged(Some(person), now, act));
        for row in std::mem::take(&mut self.devices) {
            let (device, certificate) = (row.device, row.certificate.digest());
            let signed = self.stays.iter().find(|signed| signed.digest() == certificate);
            let revoked = self.revoked.iter().find(|(gone, _)| *gone == device && row.is_in_use());
            let row = match (signed, revoked) {
                (Some(signed), _) => DeviceRow { certificate: signed.clone(), ..row },
                (None, Some((_, statement))) => {
                    number = number.saturating_add(1);
                    let told = ToldRow { number, person, what: Told::Revoked(statement.clone()) };
                    outcome.writes.push(Write::Told(Box::new(told)));
                    outcome.writes.push(Write::DropKeyPackages { device });
                    outcome.writes.push(Write::Instance { device, instance: last_instance() });
                    let gone = Act::DeviceRevoked { device, certificate, by: None };
                    outcome.writes.push(logged(Some(person), now, gone));
                    outcome.wakes.push(Wake::Revoked { device });
                    let revoked = Some(RevokedRow { number, statement: statement.clone() });
                    DeviceRow { pack: None, former: true, revoked, ..row }
                }
                // Revoked before, or one that waits and that the new key has yet to certify.
                (None, None) => DeviceRow { former: row.revoked.is_some(), ..row },
            };
            if self.come.as_ref().is_none_or(|come| come.device != row.device) {
                outcome.writes.push(Write::Device(Box::new(row)));
            }
        }
        if let Some(come) = self.come.take() {
            let (device, inbox) = (come.device, come.inbox);
            let added = Act::DeviceAdded { device, certificate: come.certificate.digest() };
            outcome.writes.push(logged(Some(person), now, added));
            if self.store.mailbox(inbox)?.is_none() {
                outcome.writes.push(Write::Mailbox { mailbox: inbox, inbox_of: Some(device) });
            }
            outcome.writes.push(Write::Device(Box::new(come)));
        }
        outcome.wakes.extend(tell_those_who_see(self.store, &self.row)?);
        let mut row = self.row;
        row.registration.person_key = self.key;
        row.past.push(self.before);
        drop_past(self.store, &mut row)?;
        Ok((outcome, row))
    }
}

/// Of who somebody was before, what no endorsement needs goes, the oldest first; in the end what one needs, too.
fn drop_past(store: &dyn Read, row: &mut PersonRow) -> Result<(), No> {
    if row.past.len() > limits::PAST_IDENTITIES {
        let person = row.registration.person;
        let mut by: Vec<DeviceId> = Vec::new();
        for other in store.people()? {
            let issuer = super::people::said_of(&other)?.and_then(|said| said.issuer);
            by.extend(issuer.filter(|issuer| issuer.person == person).map(|issuer| issuer.device));
        }
        let needed = |past: &[Identity], at: usize| {
            let newest = |device: &&DeviceId| past.iter().rposition(|past| past.certifies(**device)) == Some(at);
            by.iter().any(|device| newest(&device))
        };
        while row.past.len() > limits::PAST_IDENTITIES {
            let Some(at) = (0..row.past.len().saturating_sub(1)).find(|at| !needed(&row.past, *at)) else { break };
            row.past.remove(at);
        }
    }
    let surplus = row.past.len().saturating_sub(limits::PAST_IDENTITIES_NEEDED);
    row.past.drain(..surplus);
    Ok(())
}

/// Somebody as they were when a device of theirs endorsed: before their key was replaced, if that device was of then.
pub(super) fn as_of(store: &dyn Read, row: &PersonRow, device: DeviceId) -> Result<Option<Identity>, StoreError> {
    let now = store.device(device)?.is_some_and(|row| !row.former);
    Ok(row.past.iter().rev().find(|past| !now && past.certifies(device)).cloned())
}

#[cfg(test)]
#[path = "keys/tests.rs"]
mod tests;
