//! What devices of one person keep of each other: notes to them, notes of them that wait, what they are called, and the invites of all.
//!
//! Invariant: a note stays until the relay has it, and is sealed anew for each Post that carries it.

use minicbor::{Decode, Encode};

use crate::frame::{Blob, Part};
use crate::identity::{Name, Role, Signed};
use crate::ids::{DeviceId, PersonId, Timestamp};
use crate::invite::InviteSecret;
use crate::limits;
use crate::secret::Secret;
use crate::suite::{Digest, Fingerprint};

/// A note that the relay does not have yet. A secret.
#[derive(Debug, Clone, Encode, Decode)]
#[cbor(map)]
pub struct OutNote {
    /// To which device.
    #[n(0)]
    pub to: DeviceId,
    /// Of which kind.
    #[n(1)]
    pub kind: u32,
    /// What it says, encoded.
    #[n(2)]
    pub body: Secret,
    /// Whether a Post carries it.
    #[n(3)]
    #[cbor(default)]
    pub sealed: bool,
    /// What the relay had no room for, to be posted as it is: it is sealed already, and uses up no other key package.
    #[n(80)]
    pub part: Option<Part>,
}

/// A note that was opened, and whose author's certificate is not known here yet.
#[derive(Debug, Clone, Encode, Decode)]
#[cbor(map)]
pub struct HeldNote {
    /// As it was signed.
    #[n(0)]
    pub note: Signed,
    /// The key package that it was sealed to, which goes once it is believed.
    #[n(80)]
    pub reference: Option<Blob>,
}

/// Another device of the same person, or this one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct OwnDevice {
    /// What its person calls it.
    #[n(0)]
    pub name: Option<String>,
    /// When that was said.
    #[n(1)]
    #[cbor(default)]
    pub named: Timestamp,
    /// Whether this device has told it what there was to know when it was linked.
    #[n(2)]
    #[cbor(default)]
    pub greeted: bool,
}

/// An invite that a device of this person has made. A secret until it is used.
#[derive(Debug, Clone, Encode, Decode)]
#[cbor(map)]
pub struct OwnInvite {
    /// Its secret.
    #[n(0)]
    pub secret: InviteSecret,
    /// As what.
    #[n(1)]
    pub role: Role,
    /// The hash of its statement.
    #[n(2)]
    pub statement: Digest,
    /// The name that the inviter gave, if any.
    #[n(3)]
    pub name: Option<Name>,
    /// Until when.
    #[n(4)]
    pub expires: Timestamp,
    /// Whether it is for one more device of one's own, and makes no person.
    #[n(10)]
    #[cbor(default)]
    pub links: bool,
    /// Whom it enrols anew, if it makes no new person.
    #[n(40)]
    pub replaces: Option<PersonId>,
    /// The key of the relay that its URL pins; none where that is the one that the profile has.
    #[n(60)]
    pub relay: Option<Fingerprint>,
    /// Whether another device of this person has made it: that one goes first, where both are online.
    #[n(50)]
    #[cbor(default)]
    pub shared: bool,
    /// The device of this person that has told of it; none where it was made here.
    #[n(80)]
    pub from: Option<DeviceId>,
    /// The device that has made it, as that one says, where it is a third.
    #[n(81)]
    pub by: Option<DeviceId>,
}

impl OwnInvite {
    /// Whether nobody who used it in time needs to wait any more.
    pub(in crate::device) fn is_over(&self, now: Timestamp) -> bool {
        self.expires.plus_ms(limits::INVITE_KEPT_MS) <= now
    }
}
