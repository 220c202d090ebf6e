//! How a person begins: from an invite to a profile and a registration.
//!
//! 1. The newcomer opens the invite at the relay and holds its statement against the organisation's fingerprint in the URL.
//! 2. All keys are made here; the person key certifies the device, and the proof under the invite's check key covers everything.
//! 3. With a relay's first invite the organisation's key is made, too, and endorses its first registrar.
//!
//! 4. An invite that links makes no person: one more device of the inviter's, whose certificate is signed later (`linking.rs`).
//!
//! Invariant: the profile is durable before the registration leaves, so that a lost answer can be asked for again.

use crate::cbor;
use crate::device::recover::revocations;
use crate::device::state::{KnownPerson, Profile};
use crate::error::{Error, Malformed, Misuse, PeerMisbehaved, Refused};
use crate::frame::{DeviceRegistration, Founding, Instance, InviteView, Registration};
use crate::identity::{
    DeviceCertificate, Endorsement, Identity, Name, Role, Signed, Verified, check_handle, may_endorse, verify_chain,
};
use crate::ids::{DeviceId, InviteId, MailboxId, PersonId, Timestamp};
use crate::invite::{Claim, Invite, InviteStatement};
use crate::limits;
use crate::recovery::{RecoverySecret, SheetKind};
use crate::secret::Secret;
use crate::suite::{self, Label, PublicKey, SecretKey};

/// What an invite turned out to say, verified.
#[derive(Debug, Clone)]
pub struct Enrolment {
    invite: Invite,
    link_key: SecretKey,
    statement: Option<(Signed, InviteStatement)>,
    organisation: Option<PublicKey>,
    inviter: Option<(PersonId, KnownPerson)>,
    given: Option<Name>,
    /// Who is enrolled anew, as they were.
    replaced: Option<Identity>,
    /// With the first invite: the sheet of the organisation that is to be.
    sheet: Option<RecoverySecret>,
}

impl Enrolment {
    /// Holds what the relay showed against what the invite's URL pins.
    ///
    /// # Errors
    /// [`PeerMisbehaved`] if the relay shows another organisation, inviter or statement.
    pub fn new(
        invite: Invite,
        link_key: SecretKey,
        view: InviteView,
        organisation: Option<PublicKey>,
        now: Timestamp,
    ) -> Result<Self, Error> {
        let Some(pinned) = invite.organisation else {
            let sheet = Some(RecoverySecret::random(SheetKind::Organisation));
            let (statement, organisation, inviter, given, replaced) = (None, None, None, None, None);
            return Ok(Self { invite, link_key, statement, organisation, inviter, given, replaced, sheet });
        };
        let organisation = organisation
            .filter(|key| key.fingerprint() == pinned)
            .ok_or(PeerMisbehaved::WrongKey("the organisation's key"))?;
        let signed = view.statement.ok_or(PeerMisbehaved::Mismatch("the invite"))?;
        let (said, above) = inviter_says(&signed, &view.chain, &organisation, invite.secret.id())?;
        let given = match (&view.name, said.name) {
            (Some(sealed), Some(commitment)) => {
                let name = invite.secret.open_name(&sealed.0)?;
                if name.commitment() != commitment {
                    return Err(PeerMisbehaved::Mismatch("the name in the invite").into());
                }
                Some(name)
            }
            _ => None,
        };
        let replaced = match said.replaces {
            Some(person) => Some(view.replaced.filter(|before| before.person == person).ok_or_else(no_such)?),
            None => None,
        };
        let known = KnownPerson::new(&above, view.chain, None, now);
        let inviter = Some((above.person, known));
        let (statement, organisation) = (Some((signed, said)), Some(organisation));
        Ok(Self { invite, link_key, statement, organisation, inviter, given, replaced, sheet: None })
    }

    /// Whether it enrols somebody anew, who keeps their handle and gets another key; every device that they had is revoked.
    pub fn is_anew(&self) -> bool {
        self.replaced.is_some()
    }

    /// The role that the invite gives, if it is not the newcomer's to say.
    pub fn role(&self) -> Option<Role> {
        self.statement.as_ref().map(|(_, statement)| statement.role)
    }

    /// The handle that the inviter chose, if they did.
    pub fn handle(&self) -> Option<&str> {
        self.statement.as_ref().and_then(|(_, statement)| statement.handle.as_deref())
    }

    /// The name that the inviter gave, if they did.
    pub fn name(&self) -> Option<&str> {
        self.given.as_ref().map(|name| name.name.as_str())
    }

    /// Who invites, as the directory has them.
    pub fn inviter(&self) -> Option<(PersonId, &KnownPerson)> {
        self.inviter.as_ref().map(|(person, known)| (*person, known))
    }

    /// Whether the invite makes no person, but links one more device of the inviter's; see [`Self::link`].
    pub fn links(&self) -> bool {
        self.statement.as_ref().is_some_and(|(_, statement)| statement.links.is_some())
    }

    /// The sheet of the organisation's key, which is made with a relay's first invite: to be put on paper, for the key is on no other.
    pub fn organisation_sheet(&self) -> Option<&RecoverySecret> {
        self.sheet.as_ref()
    }

    /// Whether this is a relay's first invite, with which the organisation begins.
    pub fn is_first(&self) -> bool {
        self.statement.is_none()
    }

    /// Makes every key, the profile to persist, and the registration to send.
    ///
    /// # Errors
    /// [`Malformed`] for a handle or name that won't do; [`Refused`] for another role or handle than the invite's.
    #[expect(clippy::too_many_lines, reason = "one flat list of all that a newcomer makes")]
    pub fn enrol(
        self,
        now: Timestamp,
        relay: PublicKey,
        firm: &str,
        handle: &str,
        name: &str,
        role: Role,
    ) -> Result<(Profile, Registration), Error> {
        if self.links() {
            return Err(Refused::Invite {
                what: "it is for one more device of somebody who is here already".to_owned(),
            }
            .into());
        }
        self.check(firm, handle, role)?;
        let (name, self_stated) = match &self.given {
            Some(given) if given.name == name.trim() => (given.clone(), false),
            _ => (Name::new(name)?, !self.is_first()),
        };
        let (device, inbox) = (DeviceId::random(), MailboxId::random());
        let (person_key, mls_key) = (SecretKey::generate(), SecretKey::generate());
        let person_public = person_key.public()?;
        let person = self.replaced.as_ref().map_or_else(|| PersonId::of(&person_public), |before| before.person);
        let certificate = DeviceCertificate {
            person,
            device,
            link_key: self.link_key.public()?.digest(),
            mls_key: mls_key.public()?,
            made_at: now,
        };
        let certificate = Signed::make(Label::DeviceCertificate, &person_key, &certificate)?;
        let revocations = self.revocations(&person_key, now)?;
        let claim = Claim {
            invite: self.invite.secret.id(),
            relay: self.invite.relay,
            person,
            device,
            person_key: person_public.digest(),
            certificate: certificate.digest(),
            handle: handle.to_owned(),
            statement: self.statement.as_ref().map(|(signed, _)| signed.digest()),
        };
        let (organisation, organisation_key, founding) = match self.organisation {
            Some(organisation) => (organisation, None, None),
            None => {
                let endorsement = Endorsement {
                    person,
                    person_key: person_public.digest(),
                    role,
                    registrar: true,
                    handle: handle.to_owned(),
                    name: name.commitment(),
                    issuer: None,
                    from: now,
                    until: now.plus_ms(limits::ENDORSEMENT_LIFETIME_MS),
                    confirmed: true,
                    adopted: false,
                    after: None,
                };
                let (key, founding) = found(self.sheet.as_ref(), &endorsement)?;
                (founding.key.clone(), Some(key), Some(founding))
            }
        };
        let registration = Registration {
            invite: self.invite.secret.id(),
            token: self.invite.secret.token(),
            person,
            person_key: person_public,
            certificate: certificate.clone(),
            handle: handle.to_owned(),
            role,
            name: self.invite.secret.seal_name(&name)?,
            proof: self.invite.secret.prove(&claim),
            inbox,
            organisation: founding,
            revocations,
        };
        let profile = Profile {
            person,
            device,
            person_key: Some(person_key),
            link_key: self.link_key,
            mls_key,
            certificate,
            handle: handle.to_owned(),
            name,
            role,
            registrar: organisation_key.is_some(),
            address: self.invite.address.clone(),
            relay,
            organisation,
            organisation_key,
            idem_key: Secret::new(suite::random::<32>().to_vec()),
            inbox,
            firm: firm.to_owned(),
            self_stated,
            instance: Instance::after(None),
            linking: None,
            replacing: None,
            recovery: None,
            filing: None,
            again: self.replaced.is_some(),
            relays_before: Vec::new(),
        };
        Ok((profile, registration))
    }

    /// Makes this device's keys, the profile to persist, and the registration to send, where the invite [links](Self::links). The
    /// certificate is not signed yet, and so the profile's is not: what names it by its hash need not change when it is.
    ///
    /// # Errors
    /// [`Refused`] for another invite; [`Malformed`] for a firm whose name won't do.
    pub fn link(self, now: Timestamp, relay: PublicKey, firm: &str) -> Result<(Profile, DeviceRegistration), Error> {
        let wrong = || Refused::Invite { what: "it is not for one more device".to_owned() };
        let (Some((signed, _)), Some((person, known)), Some(organisation), true) =
            (&self.statement, &self.inviter, &self.organisation, self.links())
        else {
            return Err(wrong().into());
        };
        check_firm(firm)?;
        let verified = verify_chain(&known.chain, organisation)?;
        let (device, inbox, mls_key) = (DeviceId::random(), MailboxId::random(), SecretKey::generate());
        let certificate = DeviceCertificate {
            person: *person,
            device,
            link_key: self.link_key.public()?.digest(),
            mls_key: mls_key.public()?,
            made_at: now,
        };
        let certificate = Signed { body: cbor::encode(&certificate), signature: Vec::new() };
        let claim = Claim {
            invite: self.invite.secret.id(),
            relay: self.invite.relay,
            person: *person,
            device,
            person_key: verified.person_key.digest(),
            certificate: certificate.digest(),
            handle: known.handle.clone(),
            statement: Some(signed.digest()),
        };
        let registration = DeviceRegistration {
            invite: self.invite.secret.id(),
            token: self.invite.secret.token(),
            person: *person,
            certificate: certificate.clone(),
            proof: self.invite.secret.prove(&claim),
            inbox,
        };
        let profile = Profile {
            person: *person,
            device,
            person_key: None,
            link_key: self.link_key,
            mls_key,
            certificate,
            handle: known.handle.clone(),
            // Until the pack tells it.
            name: Name { name: known.handle.clone(), salt: [0; 16] },
            role: known.role,
            registrar: verified.endorsement.registrar,
            address: self.invite.address.clone(),
            relay,
            organisation: organisation.clone(),
            organisation_key: None,
            idem_key: Secret::new(suite::random::<32>().to_vec()),
            inbox,
            firm: firm.to_owned(),
            self_stated: true,
            instance: Instance::after(None),
            linking: Some(self.invite.secret.clone()),
            replacing: None,
            recovery: None,
            filing: None,
            again: false,
            relays_before: Vec::new(),
        };
        Ok((profile, registration))
    }

    /// The new key revokes every device that the person had: the relay shows them, and takes no registration that leaves one out.
    fn revocations(&self, key: &SecretKey, now: Timestamp) -> Result<Vec<Signed>, Error> {
        let Some(before) = &self.replaced else { return Ok(Vec::new()) };
        let said = before.certificates.iter().map(|signed| signed.unverified("device certificate"));
        let devices = said.collect::<Result<Vec<DeviceCertificate>, Malformed>>()?;
        Ok(revocations(key, devices.iter().filter(|gone| gone.person == before.person), now)?)
    }

    /// Whether the invite allows what the newcomer wants to be.
    fn check(&self, firm: &str, handle: &str, role: Role) -> Result<(), Error> {
        check_handle(handle)?;
        let fits = match self.role() {
            Some(given) => given == role,
            None => role.manages(),
        };
        if !fits {
            return Err(Refused::Invite { what: "it is for another role".to_owned() }.into());
        }
        if self.handle().is_some_and(|given| given != handle) {
            return Err(Refused::Invite { what: "it is for another handle".to_owned() }.into());
        }
        check_firm(firm)
    }
}

/// What an invite's statement says, and who has said it: somebody of the firm, by a device of theirs, who may invite in that role.
pub(super) fn inviter_says(
    signed: &Signed,
    chain: &[Identity],
    organisation: &PublicKey,
    invite: InviteId,
) -> Result<(InviteStatement, Verified), Error> {
    let above = verify_chain(chain, organisation)?;
    let said: InviteStatement = signed.unverified("invite")?;
    let device = above.device(said.issuer.device).ok_or(PeerMisbehaved::NotEndorsed)?;
    let said: InviteStatement = signed.verify(Label::Invite, &device.mls_key, "invite")?;
    if said.invite != invite || said.issuer.person != above.person {
        return Err(PeerMisbehaved::Mismatch("the invite").into());
    }
    let endorsement = &above.endorsement;
    let may = match said.links {
        Some(person) => person == above.person && said.role == endorsement.role,
        None => may_endorse(endorsement.role, endorsement.registrar, said.role),
    };
    if may { Ok((said, above)) } else { Err(PeerMisbehaved::Role("inviting").into()) }
}

fn no_such() -> PeerMisbehaved {
    PeerMisbehaved::Mismatch("whom the invite enrols anew")
}

pub(super) fn check_firm(firm: &str) -> Result<(), Error> {
    if firm.len() > limits::NAME_MAX * 2 {
        return Err(Malformed::TooLarge { what: "the firm's name", limit: limits::NAME_MAX * 2 }.into());
    }
    Ok(())
}

/// A new organisation, whose key endorses its first registrar.
fn found(sheet: Option<&RecoverySecret>, registrar: &Endorsement) -> Result<(SecretKey, Founding), Error> {
    let key = sheet.ok_or(Misuse::State("organisation's sheet"))?.key()?;
    let endorsement = Signed::make(Label::Endorsement, &key, registrar)?;
    let founding = Founding { key: key.public()?, endorsement };
    Ok((key, founding))
}

/// The identity of a person who is their own first link in a chain.
pub(super) fn identity_of(registration: &Registration, endorsement: Signed) -> Identity {
    Identity {
        person: registration.person,
        person_key: registration.person_key.clone(),
        certificates: vec![registration.certificate.clone()],
        endorsement,
        line: Vec::new(),
    }
}
