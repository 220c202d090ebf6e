//! Several devices of one person: one registers with an invite of its person and waits, the person's key certifies it, and it may be
//! revoked.
//!
//! 1. A device that proves the token of a link invite becomes one that waits: it may publish key packages, and ask whether it is certified.
//! 2. A certificate makes it whole if the person's own key signed it, over the very body that it registered with.
//! 3. A revocation by the person's key, or by a registrar's device, ends it: nothing of it is served, and it is admitted no more.
//!
//! Invariant: a device is served like its person's others only with a certificate that their key signed, and never again once it is
//! revoked.

use privity_protocol::error::Refused;
use privity_protocol::frame::{Blob, DeviceRegistration, Event, Reply, Request};
use privity_protocol::identity::{DeviceCertificate, DeviceRevocation, Signed};
use privity_protocol::ids::Timestamp;
use privity_protocol::limits;
use privity_protocol::log::Act;
use privity_protocol::suite::{Label, PublicKey};

use super::joining::{links, proved_invite, refused_use, standing, unusable, used};
use super::people::{verified_by, who_said};
use super::statements::{last_instance, tell_those_who_see};
use super::{Outcome, Wake, logged};
use crate::policy::{self, Caller, No};
use crate::store::{DeviceRow, InviteRow, Read, RevokedRow, Told, ToldRow, Write};

/// What a device that waits to be certified is served.
pub(super) fn may_ask(store: &dyn Read, caller: Caller, request: &Request) -> Result<(), No> {
    if matches!(request, Request::PublishKeyPackages { .. } | Request::Ack { .. } | Request::Certified) {
        return Ok(());
    }
    if store.device(caller.device)?.is_some_and(|row| row.waits()) {
        return Err(Refused::not_allowed("this device waits to be let in").into());
    }
    Ok(())
}

/// A registration as it is kept: nobody needs the token any more.
fn without_token(registration: &DeviceRegistration) -> DeviceRegistration {
    DeviceRegistration { token: [0; 32], ..registration.clone() }
}

pub(super) fn register(
    store: &dyn Read,
    link_key: &PublicKey,
    asked: &DeviceRegistration,
    now: Timestamp,
) -> Result<Outcome, No> {
    let invite = proved_invite(store, asked.invite, &asked.token)?;
    match enter(store, invite.clone(), link_key, asked, now) {
        Err(No::Refused(refused)) => Ok(refused_use(invite, refused, now)),
        entered => entered,
    }
}

fn enter(
    store: &dyn Read,
    mut invite: InviteRow,
    link_key: &PublicKey,
    asked: &DeviceRegistration,
    now: Timestamp,
) -> Result<Outcome, No> {
    let registration = without_token(asked);
    let certificate: DeviceCertificate =
        asked.certificate.unverified("device certificate").map_err(|error| Refused::malformed(error.to_string()))?;
    if invite.used_by.is_some() {
        let known = store.device(certificate.device)?;
        let body = |row: &DeviceRow| row.certificate.body == asked.certificate.body && row.link_key == *link_key;
        let same = known.is_some_and(|row| row.person == asked.person && row.revoked.is_none() && body(&row));
        return if same { Ok(Outcome::reply(Reply::Done)) } else { Err(used().into()) };
    }
    if let Some(refused) = unusable(&standing(store, &invite, now)?) {
        return Err(refused.into());
    }
    if links(&invite)? != Some(asked.person) {
        return Err(Refused::Invite { what: "it is not for one more device of that person".to_owned() }.into());
    }
    if asked.certificate.body.len() > limits::STATEMENT_MAX || !asked.certificate.signature.is_empty() {
        return Err(Refused::malformed("a device registers with a certificate that is not signed yet").into());
    }
    if certificate.person != asked.person || certificate.link_key != link_key.digest() {
        return Err(Refused::malformed("the device certificate is for another device").into());
    }
    if store.device(certificate.device)?.is_some() || store.mailbox(asked.inbox)?.is_some() {
        return Err(Refused::malformed("an id is in use").into());
    }
    room_for_one_more(store, asked)?;
    invite.used_by = Some(asked.person);
    let row = DeviceRow {
        device: certificate.device,
        person: asked.person,
        link_key: link_key.clone(),
        certificate: asked.certificate.clone(),
        inbox: asked.inbox,
        waiting: Some(registration),
        pack: None,
        revoked: None,
        pending: false,
        former: false,
        ended: false,
    };
    let writes = vec![
        Write::Mailbox { mailbox: asked.inbox, inbox_of: Some(certificate.device) },
        Write::Device(Box::new(row)),
        logged(Some(asked.person), now, Act::InviteUsed { invite: invite.invite, by: asked.person }),
        Write::Invite(Box::new(invite)),
    ];
    let wakes = vec![Wake::Person { person: asked.person, event: Event::Devices }];
    Ok(Outcome { writes, reply: Some(Reply::Done), wakes })
}

fn room_for_one_more(store: &dyn Read, asked: &DeviceRegistration) -> Result<(), No> {
    let in_use = store.devices_of(asked.person)?.iter().filter(|row| row.revoked.is_none()).count();
    if in_use >= limits::DEVICES_PER_PERSON_MAX {
        return Err(Refused::Full { what: "your devices; revoke one first".to_owned() }.into());
    }
    Ok(())
}

pub(super) fn waiting(store: &dyn Read, caller: Caller) -> Result<Reply, No> {
    let rows = store.devices_of(caller.person)?.into_iter().filter(|row| row.revoked.is_none());
    Ok(Reply::WaitingDevices { devices: rows.filter_map(|row| row.waiting).collect() })
}

pub(super) fn certify(
    store: &dyn Read,
    caller: Caller,
    certificate: &Signed,
    pack: &Blob,
    now: Timestamp,
) -> Result<Outcome, No> {
    let owner = policy::endorsed(store, caller)?;
    if pack.0.len() > limits::PACK_MAX {
        return Err(Refused::malformed("the pack is too large").into());
    }
    let said: DeviceCertificate = certificate
        .verify(Label::DeviceCertificate, &owner.registration.person_key, "device certificate")
        .map_err(|error| Refused::malformed(error.to_string()))?;
    let not_found = || Refused::not_found("a device of yours that waits under that id");
    let mut row = store.device(said.device)?.filter(|row| row.person == caller.person).ok_or_else(not_found)?;
    if row.revoked.is_some() || row.certificate.body != certificate.body {
        return Err(not_found().into());
    }
    if row.waiting.is_none() {
        return Ok(Outcome::reply(Reply::Done));
    }
    (row.certificate, row.waiting, row.pack) = (certificate.clone(), None, Some(pack.clone()));
    let added = Act::DeviceAdded { device: row.device, certificate: certificate.digest() };
    let writes = vec![Write::Device(Box::new(row)), logged(Some(caller.person), now, added)];
    let wakes = vec![Wake::Person { person: caller.person, event: Event::Devices }];
    Ok(Outcome { writes, reply: Some(Reply::Done), wakes })
}

/// The certificate and pack of a device that waited.
pub(super) fn certified(store: &dyn Read, caller: Caller) -> Result<Reply, No> {
    let row = store.device(caller.device)?.filter(|row| row.waiting.is_none());
    match row.and_then(|row| Some((row.certificate, row.pack?))) {
        Some((certificate, pack)) => {
            let chain = match super::people::chain(store, caller.person) {
                Err(No::Refused(_)) => Vec::new(),
                chain => chain?,
            };
            Ok(Reply::Certified { certificate, pack, chain })
        }
        None => Err(Refused::not_found("a certificate of this device's").into()),
    }
}

/// The device has its pack; the relay forgets it.
pub(super) fn linked(store: &dyn Read, caller: Caller) -> Result<Outcome, No> {
    let mut outcome = Outcome::reply(Reply::Done);
    if let Some(row) = store.device(caller.device)?.filter(|row| row.pack.is_some()) {
        outcome.writes.push(Write::Device(Box::new(DeviceRow { pack: None, ..row })));
    }
    Ok(outcome)
}

/// Keeps a revocation that verifies, whoever brings it and may see whom it is about: a relay that was restored learns so what others hold.
pub(super) fn revoke(store: &dyn Read, caller: Caller, statement: &Signed, now: Timestamp) -> Result<Outcome, No> {
    let own = policy::endorsed(store, caller)?;
    let malformed = |error: privity_protocol::error::Error| Refused::malformed(error.to_string());
    let said: DeviceRevocation = statement.unverified("revocation").map_err(|error| malformed(error.into()))?;
    let not_found = || Refused::not_found("that device");
    let row = store.device(said.device)?.filter(|row| row.person == said.person).ok_or_else(not_found)?;
    let target = store.person(said.person)?.ok_or_else(not_found)?;
    if !policy::may_see(store, &own, &target)? {
        return Err(not_found().into());
    }
    if row.revoked.as_ref().is_some_and(|known| known.statement == *statement) {
        // The very same, once more: the key that signed it may have been replaced since.
        return Ok(Outcome::reply(Reply::Done));
    }
    match said.issuer {
        None => {
            let key = &target.registration.person_key;
            let _said: DeviceRevocation =
                statement.verify(Label::DeviceRevocation, key, "revocation").map_err(malformed)?;
        }
        Some(issuer) => {
            if !who_said(store, issuer)?.registrar {
                return Err(Refused::not_allowed("only its person's key or a registrar revokes a device").into());
            }
            let _said: DeviceRevocation = verified_by(store, issuer.device, statement, Label::DeviceRevocation)?;
        }
    }
    if row.revoked.is_some() {
        return Ok(Outcome::reply(Reply::Done));
    }
    let (person, device) = (row.person, row.device);
    let by = said.issuer.map(|issuer| issuer.person);
    let gone = Act::DeviceRevoked { device, certificate: row.certificate.digest(), by };
    let number = store.newest_told()?.saturating_add(1);
    let revoked = Some(RevokedRow { number, statement: statement.clone() });
    // One that waited is none of its person's: its certificate was never signed, and stays out of their chain.
    let row = DeviceRow { pack: None, revoked, ..row };
    let writes = vec![
        Write::Device(Box::new(row)),
        Write::Told(Box::new(ToldRow { number, person, what: Told::Revoked(statement.clone()) })),
        Write::DropKeyPackages { device },
        Write::Instance { device, instance: last_instance() },
        logged(Some(person), now, gone),
    ];
    let mut wakes = vec![Wake::Revoked { device }];
    wakes.extend(tell_those_who_see(store, &target)?);
    Ok(Outcome { writes, reply: Some(Reply::Done), wakes })
}

#[cfg(test)]
mod tests;
