//! Who is who: the directory, the chain above a person, who is in a matter, and endorsing newcomers.
//!
//! Invariant: nobody learns of a person whom they may not see, and an endorsement is kept only if its author may give it.

use privity_protocol::error::Refused;
use privity_protocol::frame::{AdoptionView, Event, Interval, PersonView, Registration, Reply, Rights};
use privity_protocol::identity::{DeviceCertificate, Endorsement, Identity, Issuer, Signed};
use privity_protocol::ids::{DeviceId, MailboxId, PersonId, Timestamp};
use privity_protocol::invite::InviteStatement;
use privity_protocol::limits;
use privity_protocol::log::Act;
use privity_protocol::suite::Label;

use super::keys;
use super::statements::lift;
use super::{Outcome, Wake, logged};
use crate::policy::{self, Caller, No};
use crate::store::{GrantRow, PersonRow, Read, StoreError, Write};

/// A day, in milliseconds.
const DAY_MS: u64 = 24 * 3600 * 1000;

pub(super) fn people(store: &dyn Read, caller: Caller) -> Result<Reply, No> {
    let own = store.person(caller.person)?.ok_or_else(|| Refused::not_found("your registration"))?;
    let mut people = Vec::new();
    for person in store.people()? {
        if policy::may_see(store, &own, &person)? {
            let ready = person.is_endorsed();
            people.push(PersonView {
                person: person.registration.person,
                handle: person.registration.handle,
                role: person.role,
                ready,
                inviter: person.inviter,
            });
        }
    }
    Ok(Reply::People { people })
}

/// A person whom the caller may see.
pub(super) fn seen(store: &dyn Read, caller: Caller, person: PersonId) -> Result<PersonRow, No> {
    let own = store.person(caller.person)?.ok_or_else(|| Refused::not_found("your registration"))?;
    let row = store.person(person)?.ok_or_else(|| Refused::not_found("that person"))?;
    if policy::may_see(store, &own, &row)? { Ok(row) } else { Err(Refused::not_found("that person").into()) }
}

pub(super) fn chain_for(store: &dyn Read, caller: Caller, person: PersonId) -> Result<Reply, No> {
    seen(store, caller, person)?;
    Ok(Reply::Chain { chain: chain(store, person)? })
}

/// Every open interval of a mailbox, to those who read there.
pub(super) fn roster(store: &dyn Read, caller: Caller, mailbox: MailboxId) -> Result<Reply, No> {
    let not_found = || Refused::not_found("that mailbox");
    policy::open_grant(&store.grants(mailbox, caller.device)?, Rights::READ).map_err(|_| not_found())?;
    let fence = store.mailbox(mailbox)?.ok_or_else(not_found)?.fence;
    let open = store.open_grants(mailbox)?.into_iter();
    let mut grants: Vec<Interval> =
        open.map(|GrantRow { device, rights, from, .. }| Interval { device, rights, from }).collect();
    grants.sort();
    Ok(Reply::Roster { grants, fence })
}

/// A person and whoever endorses them, up to one endorsed by the organisation's key.
pub(super) fn chain(store: &dyn Read, person: PersonId) -> Result<Vec<Identity>, No> {
    chain_as_of(store, person, None)
}

/// The same; where a device of theirs is named, the person as they were when that one was theirs.
pub(super) fn chain_as_of(store: &dyn Read, person: PersonId, device: Option<DeviceId>) -> Result<Vec<Identity>, No> {
    let mut chain = Vec::new();
    let mut next = Some((person, device));
    while let Some((person, issuer)) = next {
        if chain.len() >= limits::CHAIN_MAX {
            break;
        }
        let row = store.person(person)?.ok_or_else(|| Refused::not_found("that person"))?;
        let before = match issuer {
            Some(device) => keys::as_of(store, &row, device)?,
            None => None,
        };
        let identity = match before {
            Some(before) => before,
            None => Identity {
                person,
                endorsement: row.endorsement.ok_or_else(|| Refused::not_found("an endorsement of that person"))?,
                person_key: row.registration.person_key,
                certificates: certificates(store, person, issuer)?,
                line: row.line,
            },
        };
        let said: Endorsement =
            identity.endorsement.unverified("endorsement").map_err(|_| StoreError::Damaged("endorsement"))?;
        next = said.issuer.map(|issuer| (issuer.person, Some(issuer.device)));
        chain.push(identity);
    }
    Ok(chain)
}

/// The certificates of a person's devices: the one that has endorsed whoever comes before in the chain, those in use, and then revoked
/// ones, for matters that they are still in.
pub(super) fn certificates(
    store: &dyn Read,
    person: PersonId,
    issuer: Option<DeviceId>,
) -> Result<Vec<Signed>, StoreError> {
    let mut devices = store.devices_of(person)?;
    devices.retain(|row| !row.waits() && !row.former);
    devices.sort_by_key(|row| (Some(row.device) != issuer, row.revoked.is_some()));
    Ok(devices.into_iter().map(|row| row.certificate).take(limits::DEVICES_PER_PERSON_MAX).collect())
}

pub(super) fn newcomers(store: &dyn Read, caller: Caller) -> Result<Reply, No> {
    let newcomers = store
        .people()?
        .into_iter()
        .filter(|person| person.endorsement.is_none() && person.inviter == Some(caller.person))
        .map(|person| person.registration);
    let mut newcomers: Vec<Registration> = newcomers.collect();
    // Whoever is enrolled anew waits for the one who has invited them this time.
    for again in store.people()?.into_iter().filter_map(|person| person.again) {
        if store.invite(again.invite)?.is_some_and(|invite| invite.inviter == Some(caller.person)) {
            newcomers.push(again);
        }
    }
    newcomers.truncate(limits::INVITES_OPEN_MAX);
    Ok(Reply::Newcomers { newcomers })
}

/// Newcomers whom the caller may take in, the oldest first.
pub(super) fn adoptable(store: &dyn Read, caller: Caller) -> Result<Reply, No> {
    let own = policy::endorsed(store, caller)?;
    let mut waiting = store.people()?;
    waiting.retain(|person| person.endorsement.is_none() && policy::may_take_in(&own, person.role).is_ok());
    waiting.sort_by_key(|person| person.registered);
    let newcomers = waiting.into_iter().map(|person| person.registration).take(limits::ADOPTABLE_MAX).collect();
    Ok(Reply::Adoptable { newcomers })
}

/// One of them, with what their inviter has signed and the chain it is verified by.
pub(super) fn adoption(store: &dyn Read, caller: Caller, person: PersonId) -> Result<Reply, No> {
    let (own, unknown) = (policy::endorsed(store, caller)?, || Refused::not_found("that newcomer"));
    let row = store.person(person)?.filter(|row| row.endorsement.is_none()).ok_or_else(unknown)?;
    policy::may_take_in(&own, row.role).map_err(|_| unknown())?;
    let filed = store.invite(row.registration.invite)?.and_then(|invite| invite.filed);
    let statement = filed.map(|filed| filed.statement).ok_or_else(|| Refused::not_found("their invite"))?;
    let said: InviteStatement = statement.unverified("invite").map_err(|_| StoreError::Damaged("invite"))?;
    let chain = chain_as_of(store, said.issuer.person, Some(said.issuer.device))?;
    Ok(Reply::Adoption(Box::new(AdoptionView { registration: row.registration, statement, chain })))
}

/// Whether the caller may endorse somebody with that statement: the first time as the inviter, or by taking them in and saying so; later as
/// whoever endorsed them before, in the same words.
fn may_endorse(own: &PersonRow, row: &PersonRow, said: &Endorsement) -> Result<(), No> {
    let (caller, before) = (own.registration.person, said_of(row)?);
    if let Some(before) = before {
        if before.adopted != said.adopted {
            return Err(Refused::malformed("an endorsement given once more says how it was given first").into());
        }
        let by = before.issuer.map(|issuer| issuer.person);
        let may = row.inviter == Some(caller) || by == Some(caller) || own.registrar;
        return if may { Ok(()) } else { Err(Refused::not_allowed("you did not endorse that person").into()) };
    }
    if said.adopted {
        policy::may_take_in(own, row.role)?;
    } else if row.inviter != Some(caller) {
        return Err(Refused::not_allowed("you did not invite that person").into());
    }
    Ok(())
}

pub(super) fn endorse(
    store: &dyn Read,
    caller: Caller,
    person: PersonId,
    endorsement: &Signed,
    now: Timestamp,
) -> Result<Outcome, No> {
    let own = policy::endorsed(store, caller)?;
    let row = store.person(person)?.ok_or_else(|| Refused::not_found("that person"))?;
    let claimed: Endorsement =
        endorsement.unverified("endorsement").map_err(|error| Refused::malformed(error.to_string()))?;
    in_time(claimed.from, now)?;
    if is_newer(&row, &claimed)? {
        return Err(Refused::malformed("a newer endorsement of that person is kept").into());
    }
    if claimed.issuer.is_none() {
        return endorse_registrar(store, caller, &own, row, endorsement, now);
    }
    let said: Endorsement = verified_by_device(store, caller, endorsement, Label::Endorsement)?;
    policy::may_invite(&own, said.role)?;
    if row.registrar {
        return Err(Refused::not_allowed("a registrar is endorsed by the organisation's key alone").into());
    }
    let again = row.again.clone().filter(|again| again.person_key.digest() == said.person_key);
    let (row, mut writes, mut wakes) = match again {
        None => {
            may_endorse(&own, &row, &said)?;
            (row, Vec::new(), Vec::new())
        }
        Some(again) => {
            let invited = store.invite(again.invite)?.is_some_and(|invite| invite.inviter == Some(caller.person));
            if !invited && !own.registrar {
                return Err(Refused::not_allowed("you did not invite that person anew").into());
            }
            policy::may_enrol_anew(&own, &row)?;
            if let Err(No::Refused(why)) = keys::may_enrol_anew(store, row.clone(), &again) {
                // A device was linked or a sheet used meanwhile: what the newcomer has signed never fits again.
                return keys::came_to_nothing(store, row, &again, why);
            }
            keys::enrolled_anew(store, row, again, caller.person, now)?
        }
    };
    let fits = said.person == person
        && said.issuer.is_some_and(|issuer| issuer.person == caller.person && issuer.device == caller.device)
        && said.person_key == row.registration.person_key.digest()
        && said.handle == row.registration.handle
        && said.role == row.role
        && !said.registrar;
    if !fits {
        return Err(Refused::malformed("the endorsement is for somebody else").into());
    }
    let given = given(store, &own, row, endorsement, &said, now)?;
    writes.extend(given.writes);
    wakes.extend(given.wakes);
    Ok(Outcome { writes, wakes, reply: given.reply })
}

/// Somebody's new endorsement is kept.
fn given(
    store: &dyn Read,
    own: &PersonRow,
    mut row: PersonRow,
    endorsement: &Signed,
    said: &Endorsement,
    now: Timestamp,
) -> Result<Outcome, No> {
    let person = row.registration.person;
    let adopts = said.adopted && row.endorsement.is_none();
    let mut writes = lift(store, own, &mut row, said)?;
    row.endorsement = Some(endorsement.clone());
    let act = match (said.issuer.map(|issuer| issuer.person), endorsement.digest()) {
        (Some(by), endorsement) if adopts => Act::Adopted { endorsement, by },
        (by, endorsement) => Act::Endorsed { endorsement, by },
    };
    writes.extend([Write::Person(Box::new(row)), logged(Some(person), now, act)]);
    let wakes = vec![Wake::Person { person, event: Event::Endorsed }];
    Ok(Outcome { writes, reply: Some(Reply::Done), wakes })
}

/// A statement from the future would be the last word until then.
pub(super) fn in_time(said: Timestamp, now: Timestamp) -> Result<(), Refused> {
    if said > now.plus_ms(limits::CLOCK_AHEAD_MS) {
        return Err(Refused::not_allowed(
            "the clock of your device is more than a day ahead of the relay's; set it, and try again",
        ));
    }
    Ok(())
}

/// Whether the endorsement that is kept was made later.
fn is_newer(row: &PersonRow, than: &Endorsement) -> Result<bool, StoreError> {
    Ok(said_of(row)?.is_some_and(|kept| kept.from > than.from))
}

pub(super) fn said_of(row: &PersonRow) -> Result<Option<Endorsement>, StoreError> {
    let said = row.endorsement.as_ref().map(|endorsement| endorsement.unverified("endorsement"));
    said.transpose().map_err(|_| StoreError::Damaged("endorsement"))
}

/// The organisation's key endorses a registrar of its own once more.
fn endorse_registrar(
    store: &dyn Read,
    caller: Caller,
    own: &PersonRow,
    row: PersonRow,
    endorsement: &Signed,
    now: Timestamp,
) -> Result<Outcome, No> {
    let organisation = store.organisation()?.ok_or_else(|| Refused::not_found("the organisation's key"))?;
    let said: Endorsement = endorsement
        .verify(Label::Endorsement, &organisation, "endorsement")
        .map_err(|error| Refused::malformed(error.to_string()))?;
    let person = row.registration.person;
    let fits = said.person == person
        && said.person_key == row.registration.person_key.digest()
        && said.handle == row.registration.handle
        && (said.role, said.registrar, row.registrar) == (row.role, true, true);
    // Of itself in time; of another once it has withdrawn theirs.
    if !fits || (caller.person != person && !(own.registrar && row.withdrawn.is_some())) {
        return Err(Refused::malformed("the endorsement is for somebody else").into());
    }
    given(store, own, row, endorsement, &said, now)
}

/// Chains of those whose endorsement the caller may renew, and that are due: a registrar everybody's, others those that they gave.
pub(super) fn renewals(store: &dyn Read, caller: Caller, now: Timestamp) -> Result<Reply, No> {
    let own = policy::endorsed(store, caller)?;
    let mut due_now: Vec<PersonId> = Vec::new();
    for row in store.people()? {
        let person = row.registration.person;
        // What was withdrawn is not renewed by itself.
        let key = row.registration.person_key.digest();
        // An endorsement of a key that was replaced since is given once more, for the new one.
        let due = |said: &Endorsement| said.is_due(now) || said.person_key != key;
        let Some(said) = said_of(&row)?.filter(|_| !row.is_withdrawn()) else { continue };
        // What a device gave that its person has no more is given once more, by one that they have.
        let by_former = match said.issuer.filter(|issuer| issuer.person == caller.person) {
            Some(issuer) => store.device(issuer.device)?.is_some_and(|device| device.former),
            None => false,
        };
        if !due(&said) && !by_former {
            continue;
        }
        let may = match said.issuer {
            Some(issuer) => own.registrar || issuer.person == caller.person,
            None => person == caller.person,
        };
        if may {
            due_now.push(person);
        }
    }
    // Each day begins with others: who can't be renewed keeps nobody from being so.
    let day = usize::try_from(now.0 / DAY_MS).unwrap_or_default();
    let first = day.wrapping_mul(limits::RENEWALS_AT_ONCE).checked_rem(due_now.len()).unwrap_or_default();
    let from_there = due_now.iter().cycle().skip(first).take(due_now.len().min(limits::RENEWALS_AT_ONCE));
    let chains = from_there.map(|person| chain(store, *person)).collect::<Result<_, No>>()?;
    Ok(Reply::Chains { chains })
}

/// A statement that the calling device's MLS key signed.
pub(super) fn verified_by_device<T: for<'b> minicbor::Decode<'b, ()>>(
    store: &dyn Read,
    caller: Caller,
    signed: &Signed,
    label: Label,
) -> Result<T, No> {
    verified_by(store, caller.device, signed, label)
}

/// The author of a statement about somebody, where it comes from a device that the relay serves, whoever brings it.
pub(super) fn who_said(store: &dyn Read, issuer: Issuer) -> Result<PersonRow, No> {
    let gone = || Refused::not_allowed("whoever has said so is not served here any more");
    let device = store.device(issuer.device)?.filter(|row| row.person == issuer.person).ok_or_else(gone)?;
    let person = store.person(issuer.person)?.filter(PersonRow::is_endorsed).ok_or_else(gone)?;
    if device.waits() || device.former || device.revoked.is_some() {
        return Err(gone().into());
    }
    Ok(person)
}

/// A statement that a device's MLS key signed.
pub(super) fn verified_by<T: for<'b> minicbor::Decode<'b, ()>>(
    store: &dyn Read,
    device: DeviceId,
    signed: &Signed,
    label: Label,
) -> Result<T, No> {
    let device = store.device(device)?.ok_or_else(|| Refused::not_found("that device"))?;
    let certificate: DeviceCertificate =
        device.certificate.unverified("device certificate").map_err(|_| StoreError::Damaged("certificate"))?;
    signed
        .verify(label, &certificate.mls_key, "statement")
        .map_err(|error| Refused::malformed(error.to_string()).into())
}

#[cfg(test)]
mod tests;
