//! Records: what happened in a matter, as a device keeps and tells it.
//!
//! Invariant: a record's number and meaning never change; what an older version does not know it shows as unknown.

use minicbor::{Decode, Encode};

use crate::ids::{DeviceId, MatterId, MessageId, PersonId, Position, Timestamp};

/// A thing that happened in a matter, as this device keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Record {
    /// The device's own count over all matters, from 1: the cursor of `recv`.
    #[n(0)]
    pub cursor: u64,
    /// Which matter.
    #[n(1)]
    pub matter: MatterId,
    /// Its seq in the matter's mailbox.
    #[n(2)]
    pub seq: u64,
    /// By whom; none where that can't be known.
    #[n(3)]
    pub from: Option<PersonId>,
    /// By which device.
    #[n(4)]
    pub device: Option<DeviceId>,
    /// When, by the author's clock; for what has no such time, by this device's.
    #[n(5)]
    pub at: Timestamp,
    /// What.
    #[n(6)]
    pub what: RecordBody,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[non_exhaustive]
pub enum RecordBody {
    /// A text, as its author typed it: strip terminal escapes before showing it.
    #[n(0)]
    Text {
        /// Its id.
        #[n(0)]
        id: MessageId,
        /// What it says.
        #[n(1)]
        text: String,
    },
    /// People were added.
    #[n(1)]
    Added {
        /// Who.
        #[n(0)]
        people: Vec<PersonId>,
    },
    /// People were removed.
    #[n(2)]
    Removed {
        /// Who.
        #[n(0)]
        people: Vec<PersonId>,
    },
    /// This device opened or joined the matter here.
    #[n(3)]
    Joined,
    /// A message of a kind that this version does not know.
    #[n(4)]
    Unknown,
    /// Something that could not be opened, or that the rules refuse.
    #[n(5)]
    Void {
        /// Why, a lowercase fact.
        #[n(0)]
        why: String,
        /// Whether its author is known from the relay alone.
        #[n(1)]
        #[cbor(default)]
        claimed: bool,
    },
    /// An envelope that had expired at the relay.
    #[n(6)]
    Gap,
    /// A member says to have read something else than this device: the relay shows two histories, or the member lies.
    #[n(7)]
    Dispute {
        /// What this device read there; none where it has not come as far, or no longer knows.
        #[n(0)]
        read: Option<Position>,
        /// What the member says to have read; none in records of older versions.
        #[n(1)]
        said: Option<Position>,
    },
    /// This device can't follow a change and has asked the others to let it back in.
    #[n(8)]
    OutOfStep,
    /// This device was let back in. What was said from `from` up to `upto` can't be read here.
    #[n(9)]
    Repaired {
        /// The first seq that is missing.
        #[n(0)]
        from: u64,
        /// The last one.
        #[n(1)]
        upto: u64,
    },
    /// A member let somebody's device back in.
    #[n(10)]
    LetBackIn {
        /// Whose.
        #[n(0)]
        person: PersonId,
        /// Which.
        #[n(1)]
        device: DeviceId,
    },
    /// The matter goes on in a new mailbox, opened by the author.
    #[n(11)]
    Continued,
    /// This device has removed people; nobody else has confirmed it yet.
    #[n(12)]
    Requested {
        /// Who.
        #[n(0)]
        people: Vec<PersonId>,
    },
    /// Somebody's device has not been heard for long: whether it should stay is for people to decide.
    #[n(13)]
    Silent {
        /// Whose.
        #[n(0)]
        person: PersonId,
    },
    /// The relay was restored from a backup and has forgotten something; this many messages of this device are sent again.
    #[n(14)]
    Restored {
        /// How many.
        #[n(0)]
        again: u64,
    },
    /// This device's removal was void: the members go on with it.
    #[n(15)]
    Reinstated,
    /// The relay withholds what the next change needs; nothing is skipped.
    #[n(16)]
    Paused,
    /// The matter follows rules of a newer version of this program.
    #[n(17)]
    Outdated,
    /// The relay shows another history than before. The matter has stopped; both positions are kept as proof.
    #[n(18)]
    Forked {
        /// What this device read.
        #[n(0)]
        read: Position,
        /// What the relay shows.
        #[n(1)]
        shown: Position,
    },
    /// A device of somebody who was in the matter already came in.
    #[n(30)]
    DeviceAdded {
        /// Whose.
        #[n(0)]
        person: PersonId,
        /// Which.
        #[n(1)]
        device: DeviceId,
    },
    /// A device of somebody who stays in the matter is out.
    #[n(31)]
    DeviceRemoved {
        /// Whose.
        #[n(0)]
        person: PersonId,
        /// Which.
        #[n(1)]
        device: DeviceId,
    },
    /// Somebody in the matter has another key than before.
    #[n(40)]
    IdentityChanged {
        /// Who.
        #[n(0)]
        person: PersonId,
        /// Whether the key before was verified: nothing is sent here until the user has accepted the new one.
        #[n(1)]
        verified: bool,
    },
    /// The endorsement of somebody in the matter was withdrawn: nothing is sent here until the user has said to go on, or they are out.
    #[n(70)]
    Withdrawn {
        /// Whose.
        #[n(0)]
        person: PersonId,
    },
    /// The relay's audit log says more of somebody in the matter than the relay has told: likewise.
    #[n(72)]
    KeptBack {
        /// Whom.
        #[n(0)]
        person: PersonId,
    },
    /// The endorsement of somebody in the matter has ended, and nobody has renewed it: likewise.
    #[n(71)]
    Expired {
        /// Whose.
        #[n(0)]
        person: PersonId,
    },
}
