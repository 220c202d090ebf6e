//! What newcomers and their inviters say: invites as they are filed and shown, and registrations of people and devices.
//!
//! Invariant: a registration carries everything that its proof covers; nothing about a newcomer is taken from elsewhere.

use minicbor::{Decode, Encode};

use super::Blob;
use crate::identity::{Identity, Role, Signed};
use crate::ids::{InviteId, MailboxId, PersonId};
use crate::suite::{Digest, PublicKey};

/// What makes a newcomer a person with a device.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Registration {
    /// The invite.
    #[n(0)]
    pub invite: InviteId,
    /// Its token.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub token: [u8; 32],
    /// The new person.
    #[n(2)]
    pub person: PersonId,
    /// The person's key.
    #[n(3)]
    pub person_key: PublicKey,
    /// The certificate of the first device.
    #[n(4)]
    pub certificate: Signed,
    /// The handle asked for.
    #[n(5)]
    pub handle: String,
    /// The role, which the invite must allow.
    #[n(6)]
    pub role: Role,
    /// The name, sealed to the inviter.
    #[cbor(n(7), with = "minicbor::bytes")]
    pub name: Vec<u8>,
    /// The proof over the [`crate::invite::Claim`].
    #[n(8)]
    pub proof: Digest,
    /// The device's inbox, chosen by the device.
    #[n(9)]
    pub inbox: MailboxId,
    /// With the first invite: the organisation's key and its endorsement of this person.
    #[n(10)]
    pub organisation: Option<Founding>,
    /// Where somebody is enrolled anew: revocations of every device that they had, signed by the new key.
    #[cbor(n(40), default, skip_if = "Vec::is_empty")]
    pub revocations: Vec<Signed>,
}

/// The organisation begins: its key, and the first registrar.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Founding {
    /// The organisation's key.
    #[n(0)]
    pub key: PublicKey,
    /// Its endorsement of the first registrar.
    #[n(1)]
    pub endorsement: Signed,
}

/// An invite as the relay files it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct NewInvite {
    /// The hash of its token.
    #[n(0)]
    pub token_hash: Digest,
    /// The inviter's [`crate::invite::InviteStatement`].
    #[n(1)]
    pub statement: Signed,
    /// The name that the inviter gave, sealed to the newcomer.
    #[n(2)]
    pub name: Option<Blob>,
}

/// What makes a device that knows an invite of its person one that waits to be certified.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct DeviceRegistration {
    /// The invite.
    #[n(0)]
    pub invite: InviteId,
    /// Its token.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub token: [u8; 32],
    /// The person.
    #[n(2)]
    pub person: PersonId,
    /// The device's certificate, without its signature.
    #[n(3)]
    pub certificate: Signed,
    /// The proof over the [`crate::invite::Claim`].
    #[n(4)]
    pub proof: Digest,
    /// The device's inbox, chosen by the device.
    #[n(5)]
    pub inbox: MailboxId,
}

/// An invite, shown to who proved it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct InviteView {
    /// The inviter's statement; none in the first invite.
    #[n(0)]
    pub statement: Option<Signed>,
    /// The name that the inviter gave, sealed.
    #[n(1)]
    pub name: Option<Blob>,
    /// The inviter and the chain above.
    #[n(2)]
    pub chain: Vec<Identity>,
    /// Who is to be enrolled anew, as they are now.
    #[n(40)]
    pub replaced: Option<Identity>,
}
