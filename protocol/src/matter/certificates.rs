//! What Commits and Welcomes are judged by beside the matter's context: certificates, how keys were replaced, and a repair request.
//!
//! Invariant: everything here was verified by signatures of the people whom it is about; nothing depends on what one device knows.

use std::collections::BTreeMap;

use super::{LeafCredential, MatterContext, NO_CERTIFICATE, Void};
use crate::error::Error;
use crate::identity::{DeviceCertificate, Identity, KeyStep, stays_since, verify_devices, verify_line};
use crate::ids::PersonId;
use crate::rescue::RepairRequest;
use crate::suite::Digest;

/// What a Commit is judged by beside the [`MatterContext`]: certificates by hash, each checked against a person's key, how keys were
/// replaced, and the repair request that it answers.
#[derive(Debug, Clone, Default)]
pub struct Certificates {
    /// Each with the keys that have signed it: of somebody whose key was replaced, both.
    by_hash: BTreeMap<Digest, (DeviceCertificate, Vec<Digest>)>,
    lines: Vec<(PersonId, Vec<KeyStep>)>,
    pub(super) repair: Option<RepairRequest>,
}

impl Certificates {
    /// The certificates of these identities, their signatures verified.
    ///
    /// # Errors
    /// [`PeerMisbehaved`](crate::error::PeerMisbehaved) if one is not signed by its person.
    pub fn of(identities: &[Identity]) -> Result<Self, Error> {
        let (mut by_hash, mut lines) = (BTreeMap::new(), Vec::new());
        for identity in identities {
            for (digest, certificate) in verify_devices(identity)? {
                let (_, keys) = by_hash.entry(digest).or_insert_with(|| (certificate, Vec::new()));
                keys.push(identity.person_key.digest());
            }
            lines.push((identity.person, verify_line(identity)?));
        }
        Ok(Self { by_hash, lines, repair: None })
    }

    /// None, but a request of a member, its signature checked, to be let back in.
    pub fn repair(request: RepairRequest) -> Self {
        Self { repair: Some(request), ..Self::default() }
    }

    /// The devices that stay where somebody's key is replaced by another, by the hash of their certificates; none where nothing here leads
    /// from the one to the other.
    pub(super) fn stays(&self, person: PersonId, from: Digest, to: Digest) -> Option<Vec<Digest>> {
        let mut lines = self.lines.iter().filter(|(of, _)| *of == person);
        lines.find_map(|(_, line)| {
            let upto = line.iter().position(|step| step.said.to == to)?;
            stays_since(line.get(..=upto)?, from)
        })
    }

    /// Whether a member's leaf is what its certificate says, under the key that the matter lists, or under one that has replaced it since.
    pub(super) fn check_member(
        &self,
        credential: &LeafCredential,
        key: &[u8],
        context: &MatterContext,
    ) -> Result<(), Void> {
        let listed = context.participant(credential.person).map(|listed| listed.person_key);
        let keys = self.by_hash.get(&credential.certificate).map(|(_, keys)| keys.as_slice()).unwrap_or_default();
        let replaced = listed.and_then(|listed| {
            let stays = |now: &Digest| self.stays(credential.person, listed, *now);
            keys.iter().copied().find(|now| stays(now).is_some_and(|stays| stays.contains(&credential.certificate)))
        });
        let listed_itself = listed.is_some_and(|listed| keys.contains(&listed));
        self.check_under(credential, key, context, replaced.filter(|_| !listed_itself))
    }

    /// Whether a leaf is what its certificate says, under the key that the matter lists for the person.
    pub(super) fn check(&self, credential: &LeafCredential, key: &[u8], context: &MatterContext) -> Result<(), Void> {
        self.check_under(credential, key, context, None)
    }

    fn check_under(
        &self,
        credential: &LeafCredential,
        key: &[u8],
        context: &MatterContext,
        replaced: Option<Digest>,
    ) -> Result<(), Void> {
        let (certificate, keys) = self.by_hash.get(&credential.certificate).ok_or(Void(NO_CERTIFICATE))?;
        let listed = context.participant(credential.person).ok_or(Void("an added person is not listed"))?;
        let good = certificate.person == credential.person
            && certificate.device == credential.device
            && certificate.mls_key.as_bytes() == key
            && keys.contains(&replaced.unwrap_or(listed.person_key));
        if good { Ok(()) } else { Err(Void("an added device is not certified by the listed person key")) }
    }
}
