//! Statements about people: endorsements withdrawn, and everything of the kind told to those who may see the person.
//!
//! 1. A registrar's device withdraws anybody's endorsement but a registrar's, a device of an endorser those that its person gave, and the
//!    organisation's key a registrar's. Anybody may bring it who may see whom it is about: a relay that was restored learns so what others
//!    hold. The leaf is durable with it.
//! 2. From then on nobody serves that person's devices: their links end, they are admitted no more, and no key package of theirs is given.
//! 3. A later endorsement that names the statement makes the person whole again, under the instances that were admitted before.
//! 4. What is told of people has one counter for all kinds: who asks is told what came behind the number they name: people whose key was replaced (`keys.rs`), too.
//!
//! Invariant: what a person has endorsed stays in the directory; nobody withdraws their own endorsement.

use minicbor::bytes::ByteArray;
use privity_protocol::cbor;
use privity_protocol::error::{Error, Refused};
use privity_protocol::frame::{Event, Instance, Reply};
use privity_protocol::identity::{DeviceRevocation, Endorsement, EndorsementRevocation, Identity, Signed};
use privity_protocol::ids::{DeviceId, PersonId, Timestamp};
use privity_protocol::limits;
use privity_protocol::log::Act;
use privity_protocol::suite::Label;

use super::people::{chain_as_of, in_time, said_of, verified_by, who_said};
use super::{Outcome, Wake, logged};
use crate::policy::{self, Caller, No};
use crate::store::{PersonRow, Read, StoreError, Told, ToldRow, WithdrawnRow, Write};

/// Bytes of identities in one answer; one more chain than fits is at most 5 identities of 8 devices.
const IDENTITIES_BYTES: usize = 1024 * 1024;

/// The instance of a device that is served no more: none comes after it, so what any link of it still asks is refused.
pub(super) fn last_instance() -> Instance {
    Instance { number: u64::MAX, nonce: ByteArray::from([0; 16]) }
}

pub(super) fn withdraw(store: &dyn Read, caller: Caller, statement: &Signed, now: Timestamp) -> Result<Outcome, No> {
    let own = policy::endorsed(store, caller)?;
    let malformed = |error: Error| Refused::malformed(error.to_string());
    let said: EndorsementRevocation = statement.unverified("withdrawal").map_err(|error| malformed(error.into()))?;
    let row = store.person(said.person)?.ok_or_else(|| Refused::not_found("that person"))?;
    let kept = said_of(&row)?.ok_or_else(|| Refused::not_found("an endorsement of that person"))?;
    in_time(said.at, now)?;
    if !policy::may_see(store, &own, &row)? {
        return Err(Refused::not_found("that person").into());
    }
    if said.person == caller.person {
        return Err(Refused::not_allowed("nobody withdraws their own endorsement").into());
    }
    let by = said.issuer.map(|issuer| who_said(store, issuer)).transpose()?;
    may_withdraw(by.as_ref(), &row, &kept, &said)?;
    match said.issuer {
        None => {
            let organisation = store.organisation()?.ok_or_else(|| Refused::not_found("the organisation's key"))?;
            let _said: EndorsementRevocation =
                statement.verify(Label::EndorsementRevocation, &organisation, "withdrawal").map_err(malformed)?;
        }
        Some(issuer) => {
            let _said: EndorsementRevocation =
                verified_by(store, issuer.device, statement, Label::EndorsementRevocation)?;
        }
    }
    if let Some(known) = withdrawal_of(&row)?.filter(|known| known.at >= said.at) {
        // An older one, or this one: whoever files it again after a restore, or twice, has nothing to add.
        let same = known == said || row.is_withdrawn();
        return if same { Ok(Outcome::reply(Reply::Done)) } else { Err(newer().into()) };
    }
    if kept.from > said.at {
        return Err(newer().into());
    }
    withdrawn(store, row, &said, statement, now)
}

fn newer() -> Refused {
    Refused::malformed("that person was endorsed anew since; look at them again")
}

/// Whether the author of a withdrawal may say so, none being the organisation's key.
fn may_withdraw(
    by: Option<&PersonRow>,
    row: &PersonRow,
    kept: &Endorsement,
    said: &EndorsementRevocation,
) -> Result<(), Refused> {
    let may = match by.map(|by| (by.registration.person, by.registrar)) {
        Some((person, _)) if person == said.person => {
            return Err(Refused::not_allowed("nobody withdraws their own endorsement"));
        }
        None => row.registrar,
        Some((_, true)) => !row.registrar,
        Some((person, false)) => kept.issuer.is_some_and(|issuer| issuer.person == person),
    };
    if may {
        return Ok(());
    }
    Err(Refused::not_allowed(
        "only whoever endorsed that person, or a registrar, withdraws it; of a registrar the organisation's key alone",
    ))
}

/// What is to be written, and who is to hear of it.
fn withdrawn(
    store: &dyn Read,
    row: PersonRow,
    said: &EndorsementRevocation,
    statement: &Signed,
    now: Timestamp,
) -> Result<Outcome, No> {
    let person = row.registration.person;
    let mut instances = row.withdrawn.as_ref().filter(|_| row.is_withdrawn()).map(|before| before.instances.clone());
    let mut writes = Vec::new();
    let mut wakes = Vec::new();
    for device in store.devices_of(person)?.into_iter().filter(|device| device.revoked.is_none()) {
        let device = device.device;
        if let Some(instance) = store.instance(device)?.filter(|instance| *instance != last_instance()) {
            instances.get_or_insert_default().push((device, instance));
            writes.push(Write::Instance { device, instance: last_instance() });
        }
        wakes.push(Wake::Withdrawn { device });
    }
    let number = store.newest_told()?.saturating_add(1);
    writes.push(Write::Told(Box::new(ToldRow { number, person, what: Told::Withdrawn(statement.clone()) })));
    let by = said.issuer.map(|issuer| issuer.person);
    writes.push(logged(Some(person), now, Act::EndorsementRevoked { endorsement: said.endorsement, by }));
    wakes.extend(tell_those_who_see(store, &row)?);
    let withdrawn =
        WithdrawnRow { statement: statement.clone(), lifted: false, instances: instances.unwrap_or_default() };
    writes.push(Write::Person(Box::new(PersonRow { withdrawn: Some(withdrawn), ..row })));
    Ok(Outcome { writes, reply: Some(Reply::Done), wakes })
}

/// The newest withdrawal about somebody.
pub(super) fn withdrawal_of(row: &PersonRow) -> Result<Option<EndorsementRevocation>, StoreError> {
    let said = row.withdrawn.as_ref().map(|withdrawn| withdrawn.statement.unverified("withdrawal"));
    said.transpose().map_err(|_| StoreError::Damaged("withdrawal"))
}

/// A new endorsement of somebody: where the one before was withdrawn it names that statement, and comes from whoever had withdrawn it, or
/// a registrar. Their devices are admitted again, but those that were revoked since.
///
/// # Errors
/// [`Refused::NotAllowed`] for any other.
pub(super) fn lift(
    store: &dyn Read,
    own: &PersonRow,
    row: &mut PersonRow,
    anew: &Endorsement,
) -> Result<Vec<Write>, No> {
    let before = withdrawal_of(row)?;
    let Some(withdrawn) = row.withdrawn.as_mut() else {
        return match anew.after {
            None => Ok(Vec::new()),
            Some(_) => Err(Refused::malformed("the endorsement comes after what was never said").into()),
        };
    };
    if anew.after != Some(withdrawn.statement.digest()) {
        return Err(Refused::not_allowed("that person's endorsement was withdrawn").into());
    }
    if std::mem::replace(&mut withdrawn.lifted, true) {
        return Ok(Vec::new());
    }
    let issuer = before.and_then(|before| before.issuer).map(|issuer| issuer.person);
    if !own.registrar && issuer != Some(own.registration.person) {
        return Err(
            Refused::not_allowed("a registrar has withdrawn it, and a registrar endorses that person again").into()
        );
    }
    let mut again = Vec::new();
    for (device, instance) in std::mem::take(&mut withdrawn.instances) {
        // What was shut out by itself meanwhile stays so.
        if store.device(device)?.is_some_and(|device| device.revoked.is_none() && !device.former) {
            again.push(Write::Instance { device, instance });
        }
    }
    Ok(again)
}

/// Everybody who may see somebody is told that there is something new of them.
pub(super) fn tell_those_who_see(store: &dyn Read, target: &PersonRow) -> Result<Vec<Wake>, No> {
    let person = target.registration.person;
    let mut wakes = vec![Wake::Person { person, event: Event::Revoked }];
    for other in store.people()? {
        let who = other.registration.person;
        if who != person && policy::may_see(store, &other, target)? {
            wakes.push(Wake::Person { person: who, event: Event::Revoked });
        }
    }
    Ok(wakes)
}

/// What is told of people whom the caller may see, behind a number: of all, or of one of them; with what it is verified by.
pub(super) fn statements(store: &dyn Read, caller: Caller, of: Option<PersonId>, after: u64) -> Result<Reply, No> {
    let own = policy::endorsed(store, caller)?;
    let rows = store.told(of, after, limits::REVOCATIONS_MAX)?;
    let mut more = rows.len() == limits::REVOCATIONS_MAX;
    let mut upto = after;
    let (mut revocations, mut withdrawn, mut replaced) = (Vec::new(), Vec::new(), Vec::new());
    let mut verified_by = VerifiedBy::default();
    for ToldRow { number, person, what } in rows {
        let Some(row) = store.person(person)? else { continue };
        if policy::may_see(store, &own, &row)? {
            if verified_by.bytes > IDENTITIES_BYTES {
                more = true;
                break;
            }
            let (author, device) = author(person, &what)?;
            verified_by.add(store, author, device)?;
            match what {
                Told::Revoked(statement) => revocations.push(statement),
                Told::Withdrawn(statement) => {
                    verified_by.add(store, person, None)?;
                    withdrawn.push(statement);
                }
                Told::Replaced => replaced.push(person),
            }
        }
        upto = number;
    }
    let identities = verified_by.identities;
    Ok(Reply::Revocations { revocations, identities, upto, more, withdrawn, replaced })
}

/// Whose identity verifies what is told of somebody, with the device that has signed, where one has.
fn author(person: PersonId, what: &Told) -> Result<(PersonId, Option<DeviceId>), StoreError> {
    let issuer = match what {
        Told::Revoked(statement) => {
            let said: DeviceRevocation =
                statement.unverified("revocation").map_err(|_| StoreError::Damaged("revocation"))?;
            said.issuer
        }
        Told::Withdrawn(statement) => {
            let said: EndorsementRevocation =
                statement.unverified("withdrawal").map_err(|_| StoreError::Damaged("withdrawal"))?;
            said.issuer
        }
        Told::Replaced => None,
    };
    Ok(issuer.map_or((person, None), |issuer| (issuer.person, Some(issuer.device))))
}

/// Identities, each once.
#[derive(Default)]
struct VerifiedBy {
    identities: Vec<Identity>,
    bytes: usize,
}

impl VerifiedBy {
    fn add(&mut self, store: &dyn Read, person: PersonId, device: Option<DeviceId>) -> Result<(), StoreError> {
        for identity in policy::refusal(chain_as_of(store, person, device))?.unwrap_or_default() {
            let same = |known: &Identity| known.person == identity.person && known.person_key == identity.person_key;
            if !self.identities.iter().any(same) {
                self.bytes += cbor::encode(&identity).len();
                self.identities.push(identity);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
