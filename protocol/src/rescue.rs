//! The two statements that stand in a matter's mailbox signed but not sealed: whoever needs them can't seal.
//!
//! - [`RepairRequest`]: a device that can't follow the matter asks to be let back in, with a key package for the way.
//! - [`Successor`]: an attorney's or staff's device continues a matter, whose group nobody can save, in a new mailbox.
//!
//! Invariant: each names the group and the place where it stands, so that a copy of it means nothing anywhere else.

use minicbor::{Decode, Encode};

use crate::cbor;
use crate::error::{Error, Malformed};
use crate::frame::Blob;
use crate::identity::Signed;
use crate::ids::{DeviceId, MailboxId, MatterId, PersonId, Position};
use crate::limits;
use crate::suite::{Label, PublicKey, SecretKey};

/// A device asks the members to remove and re-add its leaf. Single use: it counts only right where it stands, between the fence that
/// it names and the next.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct RepairRequest {
    /// The MLS group.
    #[n(0)]
    pub group: MatterId,
    /// Who asks.
    #[n(1)]
    pub device: DeviceId,
    /// The last epoch that it applied.
    #[n(2)]
    pub epoch: u64,
    /// The last fence before the request.
    #[n(3)]
    pub fence: Position,
    /// Its key package, an MLS message with the same credential and signature key as its leaf.
    #[n(4)]
    pub package: Blob,
    /// Where the Welcome goes.
    #[n(5)]
    pub inbox: MailboxId,
}

/// A matter goes on in another mailbox, with another group.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Successor {
    /// The MLS group that ends.
    #[n(0)]
    pub group: MatterId,
    /// Who continues it.
    #[n(1)]
    pub device: DeviceId,
    /// The highest epoch of the old group that its author, or whoever it overrules, applied.
    #[n(2)]
    pub epoch: u64,
    /// The last position that it has read.
    #[n(3)]
    pub position: Position,
    /// The new mailbox.
    #[n(4)]
    pub mailbox: MailboxId,
    /// The new MLS group.
    #[n(5)]
    pub successor: MatterId,
    /// How many statements from this epoch it overrules.
    #[n(6)]
    pub turn: u32,
    /// Whom its author takes over into the new group: at most [`limits::PEOPLE_MAX`].
    #[n(7)]
    pub people: Vec<PersonId>,
    /// What became of people who were ever removed, as far as its author knows: at most [`limits::FATES_MAX`].
    #[n(8)]
    pub fates: Vec<Fate>,
}

/// What became of somebody who was removed from a matter, and added again, and so on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(array)]
pub struct Fate {
    /// Who.
    #[n(0)]
    pub person: PersonId,
    /// How many changes there were; the greater number is the later one.
    #[n(1)]
    pub number: u32,
    /// Whether they are out by now; of two with one number, out counts.
    #[n(2)]
    pub out: bool,
}

impl RepairRequest {
    /// The request's payload, signed by the device's MLS key.
    ///
    /// # Errors
    /// [`crate::error::Misuse::Crypto`] if the library fails.
    pub fn sign(&self, key: &SecretKey) -> Result<Vec<u8>, Error> {
        Ok(cbor::encode(&Signed::make(Label::Repair, key, self)?))
    }

    /// The request in a payload, believed by nobody yet, with its statement to [verify](Self::verify).
    ///
    /// # Errors
    /// [`Malformed`] if it does not decode, or its key package is too large.
    pub fn read(payload: &[u8]) -> Result<(Self, Signed), Malformed> {
        let signed: Signed = cbor::decode(payload, "repair request")?;
        let request: Self = signed.unverified("repair request")?;
        if request.package.0.len() > limits::KEY_PACKAGE_MAX {
            return Err(Malformed::TooLarge { what: "key package", limit: limits::KEY_PACKAGE_MAX });
        }
        Ok((request, signed))
    }

    /// Whether the leaf's key signed it.
    ///
    /// # Errors
    /// [`crate::error::PeerMisbehaved::Signature`] if not.
    pub fn verify(signed: &Signed, key: &PublicKey) -> Result<Self, Error> {
        signed.verify(Label::Repair, key, "repair request")
    }
}

impl Successor {
    /// The statement's payload, signed by the device's MLS key.
    ///
    /// # Errors
    /// [`crate::error::Misuse::Crypto`] if the library fails.
    pub fn sign(&self, key: &SecretKey) -> Result<Vec<u8>, Error> {
        Ok(cbor::encode(&Signed::make(Label::Successor, key, self)?))
    }

    /// The statement in a payload, believed by nobody yet, with what to [verify](Self::verify).
    ///
    /// # Errors
    /// [`Malformed`] if it does not decode, or names too many.
    pub fn read(payload: &[u8]) -> Result<(Self, Signed), Malformed> {
        let signed: Signed = cbor::decode(payload, "successor")?;
        let said: Self = signed.unverified("successor")?;
        for (count, limit) in [(said.people.len(), limits::PEOPLE_MAX), (said.fates.len(), limits::FATES_MAX)] {
            if count > limit {
                return Err(Malformed::TooLarge { what: "list of people", limit });
            }
        }
        Ok((said, signed))
    }

    /// Whether it says to stand in a mailbox; one that does not names no place in it.
    pub fn stands(&self) -> bool {
        self.position.seq > 0
    }

    /// Of two statements about one group the one of the higher rank counts, and of one rank the first.
    pub fn rank(&self) -> (u64, u32) {
        (self.epoch, self.turn)
    }

    /// Whether the leaf's key signed it.
    ///
    /// # Errors
    /// [`crate::error::PeerMisbehaved::Signature`] if not.
    pub fn verify(signed: &Signed, key: &PublicKey) -> Result<Self, Error> {
        signed.verify(Label::Successor, key, "successor")
    }
}
