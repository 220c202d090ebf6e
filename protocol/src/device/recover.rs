//! Beginning again from a recovery sheet: a new device, with a new person key that the recovery key puts in the place of the old one.
//!
//! 1. A link that pins nothing asks the relay for what it keeps for the sheet; only the sheet opens the note in it, which names relay,
//!    firm and person. Everything after goes over a link that pins what the note names.
//! 2. The person's chain and the statement about the recovery key must fit the note and the sheet.
//! 3. New keys are made here. The recovery key signs for the new person key, and that one revokes every device that does not stay.
//!
//! Invariant: nothing that the relay shows is believed but what the sheet's secret opens, and what hybrid signatures up to the organisation
//! that the note names say.

use crate::device::enrol::check_firm;
use crate::device::state::{KnownPerson, Profile};
use crate::error::{Error, Malformed, Misuse, PeerMisbehaved};
use crate::frame::{Instance, Recovery, RecoveryView};
use crate::identity::{
    DeviceCertificate, DeviceRevocation, Identity, RecoveryKey, Replacement, Signed, Step, Verified, verify_chain,
};
use crate::ids::{DeviceId, MailboxId, Timestamp};
use crate::limits;
use crate::recovery::{RecoveryNote, RecoverySecret, SheetKind};
use crate::secret::Secret;
use crate::suite::{self, Fingerprint, Label, PublicKey, SecretKey};

/// A person about to be restored from their sheet.
#[derive(Debug, Clone)]
pub struct Recovering {
    secret: RecoverySecret,
    note: RecoveryNote,
    view: RecoveryView,
    verified: Verified,
    organisation: PublicKey,
}

impl Recovering {
    /// Holds what the relay showed against the sheet.
    ///
    /// # Errors
    /// [`PeerMisbehaved`] if it shows another organisation, person or recovery key than the sheet's; [`Malformed`] if the sheet does not
    /// open what it keeps.
    pub fn new(secret: RecoverySecret, view: RecoveryView, organisation: Option<PublicKey>) -> Result<Self, Error> {
        if secret.kind() != SheetKind::Person {
            return Err(Malformed::Text("recovery code of a person").into());
        }
        if view.note.0.len() > limits::RECOVERY_NOTE_MAX {
            return Err(Malformed::TooLarge { what: "recovery note", limit: limits::RECOVERY_NOTE_MAX }.into());
        }
        let note = secret.open(&view.note.0)?;
        let organisation = organisation
            .filter(|key| key.fingerprint() == note.organisation)
            .ok_or(PeerMisbehaved::WrongKey("the organisation's key"))?;
        let verified = verify_chain(&view.chain, &organisation)?;
        let statement: RecoveryKey =
            view.statement.verify(Label::RecoveryKey, &verified.person_key, "the recovery key's statement")?;
        if verified.person != note.person || statement.person != note.person {
            return Err(PeerMisbehaved::Mismatch("the person whom the sheet restores").into());
        }
        if statement.key != secret.key()?.public()? {
            return Err(PeerMisbehaved::WrongKey("the recovery key").into());
        }
        Ok(Self { secret, note, view, verified, organisation })
    }

    /// The relay to which the sheet belongs: what the next link pins.
    pub fn relay(&self) -> Fingerprint {
        self.note.relay
    }

    /// Who is restored.
    pub fn handle(&self) -> &str {
        &self.verified.endorsement.handle
    }

    /// The devices that the person has so far.
    pub fn devices(&self) -> impl Iterator<Item = &DeviceCertificate> {
        self.verified.devices.iter().map(|(_, certificate)| certificate)
    }

    /// Makes new keys, the profile to persist with what it knows of its own person, and the request to send. No other device stays.
    ///
    /// # Errors
    /// [`Misuse::Crypto`] if the library fails; [`Malformed`] for a firm whose name won't do.
    pub fn recover(
        self,
        now: Timestamp,
        link_key: SecretKey,
        relay: PublicKey,
        address: &str,
        firm: &str,
    ) -> Result<(Profile, KnownPerson, Recovery), Error> {
        check_firm(firm)?;
        let (person, device, inbox) = (self.note.person, DeviceId::random(), MailboxId::random());
        let (person_key, mls_key) = (SecretKey::generate(), SecretKey::generate());
        let certificate = DeviceCertificate {
            person,
            device,
            link_key: link_key.public()?.digest(),
            mls_key: mls_key.public()?,
            made_at: now,
        };
        let certificate = Signed::make(Label::DeviceCertificate, &person_key, &certificate)?;
        let before = &self.verified.person_key;
        let replacement = Replacement::new(person, before, &person_key, Vec::new(), now)?;
        let statement = Signed::make(Label::Replacement, &self.secret.key()?, &replacement)?;
        let revocations = revocations(&person_key, self.devices(), now)?;
        let recovery = Recovery {
            handle: self.handle().to_owned(),
            token: self.secret.token(),
            person_key: person_key.public()?,
            statement: statement.clone(),
            certificate: certificate.clone(),
            stays: Vec::new(),
            revocations,
            inbox,
        };
        let step = Step { key: before.clone(), statement, recovery: Some(self.view.statement.clone()) };
        let chain = self.chain(&person_key.public()?, &certificate, step)?;
        let endorsement = &self.verified.endorsement;
        let known_name = self.note.name.commitment() == endorsement.name;
        // What this person calls themselves stays, even where whoever vouches for them has stated another name.
        let name = self.note.name.clone();
        let said = verify_chain(&chain, &self.organisation)?;
        let known = KnownPerson::new(&said, chain, known_name.then(|| name.clone()), now);
        let profile = Profile {
            person,
            device,
            person_key: Some(person_key),
            link_key,
            mls_key,
            certificate,
            handle: endorsement.handle.clone(),
            name,
            role: endorsement.role,
            registrar: endorsement.registrar,
            address: address.to_owned(),
            relay,
            organisation: self.organisation.clone(),
            organisation_key: None,
            idem_key: Secret::new(suite::random::<32>().to_vec()),
            inbox,
            firm: firm.to_owned(),
            self_stated: self.note.self_stated,
            instance: Instance::after(None),
            linking: None,
            replacing: None,
            recovery: None,
            filing: None,
            again: true,
            relays_before: Vec::new(),
        };
        Ok((profile, known, recovery))
    }

    /// The person's chain as it will be: the endorsement is of the key before, which leads to the new one.
    fn chain(&self, key: &PublicKey, certificate: &Signed, step: Step) -> Result<Vec<Identity>, Error> {
        let (first, above) = self.view.chain.split_first().ok_or(Misuse::State("chain"))?;
        let identity = Identity {
            person_key: key.clone(),
            certificates: vec![certificate.clone()],
            line: with_step(&first.line, step),
            ..first.clone()
        };
        Ok(std::iter::once(identity).chain(above.iter().cloned()).collect())
    }
}

/// Steps with one more; the oldest go where there are too many.
pub fn with_step(line: &[Step], step: Step) -> Vec<Step> {
    let kept = line.len().saturating_sub(limits::KEY_STEPS_MAX.saturating_sub(1));
    line.iter().skip(kept).cloned().chain(std::iter::once(step)).collect()
}

/// The new key revokes these devices of its person's.
pub(super) fn revocations<'a>(
    key: &SecretKey,
    devices: impl Iterator<Item = &'a DeviceCertificate>,
    at: Timestamp,
) -> Result<Vec<Signed>, Misuse> {
    let said =
        |gone: &DeviceCertificate| DeviceRevocation { person: gone.person, device: gone.device, issuer: None, at };
    devices.map(|gone| Signed::make(Label::DeviceRevocation, key, &said(gone))).collect()
}
