//! What a device tells its user, beside the records in its matters.
//!
//! Invariant: a notice is delivered only once what it tells is durable.

use crate::device::state::{Cause, Record};
use crate::error::{Error, Refused};
use crate::frame::PersonView;
use crate::ids::{DeviceId, InviteId, MatterId, MessageId, PersonId, Timestamp};
use crate::invite::InviteState;
use crate::log::Act;
use crate::suite::Fingerprint;

/// Something to tell the user.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Notice {
    /// Everything that the relay had when the link came up has been applied.
    CaughtUp,
    /// A new record.
    Recorded(Record),
    /// A text is durable at the relay.
    Stored {
        /// Which matter.
        matter: MatterId,
        /// Which message.
        id: MessageId,
        /// At which seq.
        seq: u64,
    },
    /// A text can't be sent.
    Unsendable {
        /// Which matter.
        matter: MatterId,
        /// Which message.
        id: MessageId,
        /// Why.
        why: Refused,
    },
    /// A recovery sheet is good from now on; the one before is not.
    SheetFiled,
    /// A recovery sheet was refused.
    SheetRefused(Refused),
    /// This person's key was replaced by one made here.
    KeyReplaced,
    /// Replacing this person's key was refused.
    KeyRefused(Refused),
    /// This person's key was replaced elsewhere, and this device stays.
    OwnKeyReplaced {
        /// Whether with a recovery sheet.
        recovered: bool,
    },
    /// A new matter is durable at the relay.
    Opened(MatterId),
    /// A new matter was refused.
    NotOpened(MatterId, Refused),
    /// This device was added to a matter.
    Joined(MatterId),
    /// A change of membership is done.
    Done {
        /// Which matter.
        matter: MatterId,
        /// Whom.
        person: PersonId,
        /// Added or removed.
        add: bool,
    },
    /// A change of membership waits until the person is ready.
    Waits {
        /// Which matter.
        matter: MatterId,
        /// Whom.
        person: PersonId,
    },
    /// A change of membership was refused for good.
    NotDone {
        /// Which matter.
        matter: MatterId,
        /// Whom.
        person: PersonId,
        /// Why.
        why: Error,
    },
    /// Somebody whom this device invited has joined and was endorsed.
    Endorsed {
        /// Their handle.
        handle: String,
    },
    /// Somebody claims an invite of this device and fails its proof.
    Suspicious {
        /// The handle they ask for.
        handle: String,
        /// Why they are not believed.
        why: Error,
    },
    /// This person is endorsed now.
    Ready,
    /// An invite is filed at the relay and may be used.
    InviteFiled,
    /// An invite was refused.
    InviteRefused(Refused),
    /// An own invite is cancelled.
    InviteCancelled(InviteId),
    /// The invites of this person, and what became of each.
    Invites(Vec<InviteState>),
    /// A device waits to be linked, and its proof holds: it knows the invite that this device made.
    DeviceWaits {
        /// Which.
        device: DeviceId,
        /// What its user sees on it.
        fingerprint: Fingerprint,
    },
    /// A device that claims an invite of this device's fails its proof.
    FalseDevice(Error),
    /// Everything that the relay knows of devices that wait was told.
    DevicesAsked,
    /// A device is this person's now.
    DeviceLinked {
        /// Which.
        device: DeviceId,
    },
    /// A device is nobody's any more.
    DeviceRevoked {
        /// Which.
        device: DeviceId,
    },
    /// The relay refused to have a device certified or revoked.
    DeviceRefused {
        /// Which.
        device: DeviceId,
        /// Why.
        why: Refused,
    },
    /// Some more of what was said before is at the relay, on its way to another device.
    HistoryMoved {
        /// To which.
        device: DeviceId,
    },
    /// Another device of this person's has everything that was said before.
    HistorySent {
        /// Which.
        device: DeviceId,
        /// How many messages that were.
        messages: u64,
    },
    /// Everything that was said before has come from another device.
    HistoryCame {
        /// How many messages that were.
        messages: u64,
    },
    /// Whom this device may see.
    People(Vec<PersonView>),
    /// This vault is a copy of another that is in use, or was restored from a backup: it asks to be let back into its matters, and the
    /// other copy is admitted no more.
    Copied,
    /// The relay was restored from a backup: it has forgotten something that this device has read.
    Restored,
    /// Somebody has another key than before. Where the one before was verified, or two keys follow it, nothing is sent in matters with them
    /// until [`super::Device::trust_person`].
    IdentityChanged {
        /// Who.
        person: PersonId,
        /// Their handle, as it was known.
        handle: String,
        /// Whether nothing is sent because of it.
        verified: bool,
        /// Whether nothing but a new endorsement speaks for it: matters follow only once the user has accepted it.
        anew: bool,
    },
    /// The answer to [`super::Device::ask_adoptable`]; [`super::Device::adoptable`] has them.
    Adoptable(Result<(), Refused>),
    /// The answer to [`super::Device::ask_adoption`]; [`super::Device::adoption`] has it.
    Adoption {
        /// Who.
        person: PersonId,
        /// Whether what the relay shows is what their inviter has signed.
        outcome: Result<(), Error>,
    },
    /// The relay's word on a newcomer whom this device took in.
    Adopted {
        /// Who.
        person: PersonId,
        /// Whether it keeps the endorsement.
        outcome: Result<(), Refused>,
    },
    /// An endorsement was given once more: renewed, or with the name confirmed.
    EndorsedAnew {
        /// Whose.
        person: PersonId,
        /// Whether the relay keeps it now.
        outcome: Result<(), Error>,
    },
    /// Nobody vouches any more for somebody in a matter: texts wait there until [`super::Device::go_on`], or until they are out. Recorded, too.
    Lapsed {
        /// Which matter.
        matter: MatterId,
        /// Who.
        person: PersonId,
        /// Why.
        cause: Cause,
        /// What to call them.
        label: String,
    },
    /// Somebody's endorsement is withdrawn.
    Withdrawn {
        /// Whose.
        person: PersonId,
    },
    /// The relay refused to have an endorsement withdrawn.
    NotWithdrawn {
        /// Whose.
        person: PersonId,
        /// Why.
        why: Refused,
    },
    /// Somebody has joined under a name that looks like that of others whom this device knows.
    LooksAlike {
        /// Who has joined.
        person: PersonId,
        /// What to call them.
        label: String,
        /// What to call those whose names it looks like.
        like: Vec<String>,
    },
    /// The answer to [`super::Device::ask_identity`].
    Identity {
        /// Who.
        person: PersonId,
        /// Whether their chain holds.
        outcome: Result<(), Error>,
    },
    /// The relay's audit log contradicts what this device, or a member, knows of it. Kept as proof; see [`super::LogView`].
    Log {
        /// What, a lowercase fact.
        what: String,
        /// Whose word it stands on, if on a member's.
        by: Option<PersonId>,
    },
    /// The audit log says that this was done with this person's identity, and this device knows nothing of it.
    DoneInYourName(Act),
    /// The relay has a new key, for which the one that this device had pinned has signed; it is pinned from now on.
    RelayRotated {
        /// The new one.
        key: Fingerprint,
        /// The one that was pinned.
        before: Fingerprint,
        /// Since when, by the relay's clock.
        since: Timestamp,
    },
    /// A Welcome leads nowhere: it can't be opened, or into a matter that is not as it says. Whoever sent it may take this device for a
    /// member.
    FalseWelcome(Error),
    /// The audit log says that this was done about this person by somebody else who may, and their statement is verified.
    DoneForYou {
        /// What.
        act: Act,
        /// Who has done it; none for this person's own key, on another device.
        by: Option<PersonId>,
        /// What to call them.
        label: Option<String>,
    },
    /// Something the relay or a member did wrong, worth knowing.
    Problem(Error),
}
