//! What devices of one person say to each other, in their inboxes: notes, and pieces of what was said in matters before.
//!
//! 1. A [`Note`] is signed by its author's MLS key, padded, and sealed by HPKE to the init key of one key package of its reader's.
//! 2. A [`Note`] of kind [`Body::Transfer`] brings a key, under which [`Piece`]s of history follow.
//! 3. The relay sees who wrote to whom, and the size: one for nearly all notes.
//!
//! Invariant: a note names both devices inside its signature, so it means nothing to any other; what a reader does not know is
//! [`Body::Unknown`], and never makes reading fail.

use minicbor::bytes::ByteArray;
use minicbor::{Decode, Encode};
use zeroize::Zeroizing;

use crate::cbor;
use crate::envelope;
use crate::error::{Error, Malformed, Misuse};
use crate::frame::Blob;
use crate::identity::{Identity, Name, Role, Signed};
use crate::ids::{DeviceId, InviteId, MailboxId, MatterId, PersonId, Timestamp};
use crate::invite::InviteSecret;
use crate::limits;
use crate::secret::Secret;
use crate::suite::{self, Digest, Fingerprint, Label, SecretKey};

/// What an HPKE ciphertext of a note is bound to beside its key.
pub const NOTE_INFO: &[u8] = b"privity/1 device note";

const INVITES: u32 = 1;
const INVITE_GONE: u32 = 2;
const ENDORSED: u32 = 3;
const NAMES: u32 = 4;
/// The kind of [`Body::Transfer`].
pub(crate) const TRANSFER: u32 = 5;
const RECEIVED: u32 = 6;

/// What a piece is bound to beside its key, before its place.
const PIECE_LABEL: &[u8] = b"privity/1 history\0";

/// The payload of an envelope of class 6.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[non_exhaustive]
pub enum Between {
    /// A note, sealed.
    #[n(0)]
    Note(#[n(0)] SealedNote),
    /// A piece of what was said before.
    #[n(1)]
    Piece(#[n(0)] Piece),
}

impl Between {
    /// The payload in an envelope.
    ///
    /// # Errors
    /// [`Malformed`] for anything else.
    pub fn read(payload: &[u8]) -> Result<Self, Malformed> {
        cbor::decode(payload, "note")
    }
}

/// A note as it travels: HPKE (RFC 9180) in base mode, single-shot, to the init key of a key package.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct SealedNote {
    /// The key package's reference (RFC 9420, section 5.2).
    #[n(0)]
    pub reference: Blob,
    /// The KEM's ciphertext.
    #[n(1)]
    pub kem_output: Blob,
    /// The padded, signed note.
    #[n(2)]
    pub ciphertext: Blob,
}

/// A piece of history: some records, in the order in which they were kept.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Piece {
    /// Of which transfer.
    #[n(0)]
    pub transfer: TransferId,
    /// Which piece, from 0.
    #[n(1)]
    pub index: u64,
    /// Whether it is the last.
    #[n(2)]
    pub last: bool,
    /// The padded [`Segment`]s, sealed by AES-256-GCM under the transfer's key, bound to all of the above.
    #[n(3)]
    pub sealed: Blob,
}

/// Records of one matter.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Segment {
    /// The matter, as the device that sends it calls it.
    #[n(0)]
    pub matter: MatterId,
    /// Its MLS group.
    #[n(1)]
    pub group: MatterId,
    /// Its mailbox.
    #[n(2)]
    pub mailbox: MailboxId,
    /// The records, each as it is kept: what a reader does not know it keeps, too.
    #[n(3)]
    pub records: Vec<Blob>,
}

/// What was said before follows in pieces. A secret.
#[derive(Debug, Clone, Encode, Decode)]
#[cbor(map)]
pub struct Transfer {
    /// Which transfer.
    #[n(0)]
    pub id: TransferId,
    /// 32 random bytes: the key of its pieces.
    #[n(1)]
    pub key: Secret,
    /// How many messages there are in it.
    #[n(2)]
    pub messages: u64,
}

impl PartialEq for Transfer {
    fn eq(&self, other: &Self) -> bool {
        cbor::encode(self) == cbor::encode(other)
    }
}

impl Eq for Transfer {}

/// How far a transfer has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Received {
    /// Which transfer.
    #[n(0)]
    pub transfer: TransferId,
    /// How many of its pieces are there.
    #[n(1)]
    pub upto: u64,
    /// Whether a later one came, and the next is missing.
    #[n(2)]
    pub missing: bool,
}

/// What one device says to another of the same person. Signed under [`Label::DeviceNote`] by its author's MLS key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// Who says so.
    pub from: DeviceId,
    /// To whom.
    pub to: DeviceId,
    /// When, by the author's clock.
    pub at: Timestamp,
    /// What.
    pub body: Body,
}

/// What a note says.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Body {
    /// Invites of this person that are open: whoever is online first lets the newcomer in.
    Invites(Vec<SharedInvite>),
    /// An invite is cancelled: its secret is to be forgotten.
    InviteGone(InviteId),
    /// Somebody who has used an invite is endorsed.
    Endorsed(Box<EndorsedNewcomer>),
    /// What this person calls their devices.
    Names(Vec<DeviceName>),
    /// What was said before follows.
    Transfer(Transfer),
    /// How far that has come.
    Received(Received),
    /// Something of a newer version.
    Unknown {
        /// Its number.
        kind: u32,
    },
}

/// An open invite with everything that it takes to judge who uses it. A secret.
#[derive(Debug, Clone, Encode, Decode)]
#[cbor(map)]
pub struct SharedInvite {
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
    /// Whom it enrols anew, if it makes no new person.
    #[n(40)]
    pub replaces: Option<PersonId>,
    /// The key of the relay that its URL pins.
    #[n(60)]
    pub relay: Option<Fingerprint>,
    /// The device that has made it.
    #[n(80)]
    pub by: Option<DeviceId>,
}

impl PartialEq for SharedInvite {
    fn eq(&self, other: &Self) -> bool {
        cbor::encode(self) == cbor::encode(other)
    }
}

impl Eq for SharedInvite {}

/// Who came with an invite, as the device that endorsed them met them.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct EndorsedNewcomer {
    /// The invite.
    #[n(0)]
    pub invite: InviteId,
    /// Who came, with the endorsement.
    #[n(1)]
    pub identity: Identity,
    /// Their name.
    #[n(2)]
    pub name: Option<Name>,
}

/// What a person calls one of their devices. The relay never learns it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct DeviceName {
    /// Which.
    #[n(0)]
    pub device: DeviceId,
    /// The name, at most [`limits::DEVICE_NAME_MAX`] bytes.
    #[n(1)]
    pub name: String,
    /// When it was given, by the clock of the device on which it was: of two the later counts.
    #[n(2)]
    pub at: Timestamp,
}

/// A note's signed bytes. The body has a form of its own for each kind, so that a reader can pass over what it does not know.
#[derive(Encode, Decode)]
#[cbor(map)]
struct Said {
    #[n(0)]
    from: DeviceId,
    #[n(1)]
    to: DeviceId,
    #[n(2)]
    at: Timestamp,
    #[n(3)]
    kind: u32,
    #[cbor(n(4), with = "minicbor::bytes")]
    body: Vec<u8>,
}

impl Body {
    /// Its number, and its bytes: CBOR.
    pub fn encode(&self) -> (u32, Vec<u8>) {
        match self {
            Self::Invites(invites) => (INVITES, cbor::encode(invites)),
            Self::InviteGone(invite) => (INVITE_GONE, cbor::encode(invite)),
            Self::Endorsed(newcomer) => (ENDORSED, cbor::encode(newcomer)),
            Self::Names(names) => (NAMES, cbor::encode(names)),
            Self::Transfer(transfer) => (TRANSFER, cbor::encode(transfer)),
            Self::Received(received) => (RECEIVED, cbor::encode(received)),
            Self::Unknown { kind } => (*kind, Vec::new()),
        }
    }

    /// What bytes of a kind say.
    ///
    /// # Errors
    /// [`Malformed`] if they are not what the kind says.
    pub fn decode(kind: u32, bytes: &[u8]) -> Result<Self, Malformed> {
        const WHAT: &str = "note's body";
        Ok(match kind {
            INVITES => Self::Invites(cbor::decode(bytes, WHAT)?),
            INVITE_GONE => Self::InviteGone(cbor::decode(bytes, WHAT)?),
            ENDORSED => Self::Endorsed(Box::new(cbor::decode(bytes, WHAT)?)),
            NAMES => Self::Names(cbor::decode(bytes, WHAT)?),
            TRANSFER => Self::Transfer(cbor::decode(bytes, WHAT)?),
            RECEIVED => Self::Received(cbor::decode(bytes, WHAT)?),
            kind => Self::Unknown { kind },
        })
    }
}

impl Note {
    /// The note, signed.
    ///
    /// # Errors
    /// [`Misuse::Crypto`] if the library fails.
    pub fn sign(&self, key: &SecretKey) -> Result<Signed, Misuse> {
        let (kind, body) = self.body.encode();
        Signed::make(Label::DeviceNote, key, &Said { from: self.from, to: self.to, at: self.at, kind, body })
    }

    /// What a signed note says, believed by nobody yet.
    ///
    /// # Errors
    /// [`Malformed`] if it is none.
    pub fn unverified(signed: &Signed) -> Result<Self, Malformed> {
        let Said { from, to, at, kind, body } = cbor::decode(&signed.body, "note")?;
        Ok(Self { from, to, at, body: Body::decode(kind, &body)? })
    }
}

/// A signed note as it is sealed: padded, so that its size tells little.
///
/// # Errors
/// [`Malformed::TooLarge`] above [`limits::NOTE_MAX`].
pub fn pad(signed: &Signed) -> Result<Vec<u8>, Malformed> {
    let bytes = cbor::encode(signed);
    if bytes.len() > limits::NOTE_MAX {
        return Err(Malformed::TooLarge { what: "note", limit: limits::NOTE_MAX });
    }
    envelope::pad(&bytes)
}

/// The signed note inside a padding.
///
/// # Errors
/// [`Malformed`] if there is none, or one that nobody who keeps to the rules writes.
pub fn unpad(padded: &[u8]) -> Result<Signed, Error> {
    let bytes = envelope::unpad(padded)?;
    if bytes.len() > limits::NOTE_MAX {
        return Err(Malformed::TooLarge { what: "note", limit: limits::NOTE_MAX }.into());
    }
    Ok(cbor::decode(bytes, "note")?)
}

/// Seals a piece, whose place is its transfer, its index, and whether it is the last.
///
/// # Errors
/// [`Malformed::TooLarge`] for more than an envelope holds; [`Misuse::Crypto`] if the library fails.
pub fn seal_piece(key: &[u8], place: (&TransferId, u64, bool), segments: &[Segment]) -> Result<Vec<u8>, Error> {
    let key = key.try_into().map_err(|_| Misuse::Crypto)?;
    let padded = Zeroizing::new(envelope::pad(&Zeroizing::new(cbor::encode(&segments)))?);
    Ok(suite::seal(key, &bound(place), &padded)?)
}

/// Opens what [`seal_piece`] sealed.
///
/// # Errors
/// [`Malformed`] if it is of another place, was sealed under another key, or holds something else.
pub fn open_piece(key: &[u8], place: (&TransferId, u64, bool), sealed: &[u8]) -> Result<Vec<Segment>, Malformed> {
    let key = key.try_into().map_err(|_| Malformed::Length("key of a piece of history"))?;
    let padded = suite::open(key, &bound(place), sealed)?;
    cbor::decode(envelope::unpad(&padded)?, "piece of history")
}

fn bound((transfer, index, last): (&TransferId, u64, bool)) -> Vec<u8> {
    [PIECE_LABEL, &transfer[..], &index.to_be_bytes(), &[u8::from(last)]].concat()
}

/// Sixteen random bytes that name one transfer of history.
pub type TransferId = ByteArray<16>;

#[cfg(test)]
mod tests {
    use super::*;

    fn note(body: Body) -> Note {
        Note { from: DeviceId::new([1; 16]), to: DeviceId::new([2; 16]), at: Timestamp(7), body }
    }

    #[test]
    fn what_is_unknown_is_passed_over_and_what_is_garbled_is_not() {
        let key = SecretKey::generate();
        let said = Said {
            from: DeviceId::new([1; 16]),
            to: DeviceId::new([2; 16]),
            at: Timestamp(7),
            kind: 99,
            body: vec![1, 2],
        };
        let signed = Signed::make(Label::DeviceNote, &key, &said).unwrap();
        assert_eq!(Note::unverified(&signed).unwrap(), note(Body::Unknown { kind: 99 }));
        let garbled = Said { kind: NAMES, ..said };
        let garbled = Signed::make(Label::DeviceNote, &key, &garbled).unwrap();
        assert!(Note::unverified(&garbled).is_err());
    }

    #[test]
    fn notes_of_all_sizes_look_alike_up_to_a_bucket() {
        let key = SecretKey::generate();
        let name = |length| DeviceName { device: DeviceId::new([3; 16]), name: "x".repeat(length), at: Timestamp(1) };
        let sizes =
            [0, 1, 64].map(|length| pad(&note(Body::Names(vec![name(length)])).sign(&key).unwrap()).unwrap().len());
        assert_eq!(sizes, [sizes[0]; 3]);
        assert_eq!(pad(&note(Body::InviteGone(InviteId::new([9; 16]))).sign(&key).unwrap()).unwrap().len(), sizes[0]);
        let large = note(Body::Names(vec![name(limits::NOTE_MAX)]));
        let large = large.sign(&key).unwrap();
        assert!(pad(&large).is_err());
        assert!(unpad(&envelope::pad(&cbor::encode(&large)).unwrap()).is_err(), "nor is it read");
        let signed = note(Body::InviteGone(InviteId::new([9; 16]))).sign(&key).unwrap();
        assert_eq!(unpad(&pad(&signed).unwrap()).unwrap(), signed);
    }

    #[test]
    fn a_piece_opens_at_its_place_alone() {
        let (key, id) = ([7; 32], TransferId::from([1; 16]));
        let segments = vec![Segment {
            matter: MatterId::new([2; 16]),
            group: MatterId::new([3; 16]),
            mailbox: MailboxId::new([4; 16]),
            records: vec![Blob(vec![1, 2, 3])],
        }];
        let sealed = seal_piece(&key, (&id, 5, false), &segments).unwrap();
        assert_eq!(open_piece(&key, (&id, 5, false), &sealed).unwrap(), segments);
        let other = TransferId::from([9; 16]);
        for place in [(&other, 5, false), (&id, 6, false), (&id, 5, true)] {
            assert!(open_piece(&key, place, &sealed).is_err(), "{place:?}");
        }
        assert!(open_piece(&[8; 32], (&id, 5, false), &sealed).is_err());
        assert!(open_piece(&[], (&id, 5, false), &sealed).is_err());
    }

    #[test]
    fn secrets_in_notes_never_print() {
        let invite = SharedInvite {
            secret: InviteSecret::new([0xab; 16]),
            role: Role::Client,
            statement: Digest::of(&[b"statement"]),
            name: None,
            expires: Timestamp(1),
            replaces: None,
            relay: None,
            by: None,
        };
        assert!(format!("{invite:?}").contains("redacted"));
        let transfer = Transfer { id: TransferId::from([1; 16]), key: Secret::new(vec![222; 32]), messages: 7 };
        assert!(!format!("{transfer:?}").contains("222"));
    }
}
