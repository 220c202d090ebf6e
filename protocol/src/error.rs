//! Errors, sorted by who is at fault, so that a caller knows what to do without reading a message.
//!
//! - [`Malformed`]: bytes that are not what they claim to be. Whoever sent them is broken or hostile.
//! - [`Refused`]: the relay understood and said no. What to do stands in the variant.
//! - [`PeerMisbehaved`]: well-formed bytes that break a rule; evidence against their author.
//! - [`Misuse`]: this program called something it should not have.
//!
//! Invariant: no error carries content, names or keys; ids and sizes only.

use minicbor::{Decode, Encode};

use crate::suite::Digest;

/// Bytes or text that do not follow their format.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Malformed {
    /// A value of a fixed length had another one.
    #[error("{0} has the wrong length")]
    Length(&'static str),
    /// Text could not be parsed.
    #[error("{0} is mangled or incomplete")]
    Text(&'static str),
    /// CBOR did not decode to the expected shape.
    #[error("{0} does not decode")]
    Cbor(&'static str),
    /// Something was larger than its bound in [`crate::limits`].
    #[error("{what} is larger than the limit of {limit} bytes")]
    TooLarge {
        /// What was too large.
        what: &'static str,
        /// The bound, bytes or elements.
        limit: usize,
    },
    /// A key is not a valid public key of its kind.
    #[error("{0} is not a valid key")]
    Key(&'static str),
}

/// What the relay answers instead of doing what it was asked. On the wire.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Encode, Decode)]
#[non_exhaustive]
pub enum Refused {
    /// A fence stands after the `base` named; read up to `latest`, seal again and resend.
    #[n(0)]
    #[error("a newer fence stands at {latest}")]
    Stale {
        /// The seq of the newest fence.
        #[n(0)]
        latest: u64,
    },
    /// Too fast; try again after that many milliseconds.
    #[n(1)]
    #[error("too fast; try again in {after_ms} ms")]
    Slow {
        /// Milliseconds to wait.
        #[n(0)]
        after_ms: u64,
    },
    /// This device or person may not do that.
    #[n(2)]
    #[error("not allowed: {what}")]
    NotAllowed {
        /// A lowercase fact in the relay's words.
        #[n(0)]
        what: String,
    },
    /// The idem is too old to tell; settle it by reading the mailbox.
    #[n(3)]
    #[error("too old to tell whether it was accepted")]
    Unknown,
    /// No such thing, or none that this device may see.
    #[n(4)]
    #[error("not found: {what}")]
    NotFound {
        /// A lowercase fact in the relay's words.
        #[n(0)]
        what: String,
    },
    /// The request breaks the format or a rule of consistency.
    #[n(5)]
    #[error("malformed: {what}")]
    Malformed {
        /// A lowercase fact in the relay's words.
        #[n(0)]
        what: String,
    },
    /// An invite that was used, has expired or was voided.
    #[n(6)]
    #[error("invite: {what}")]
    Invite {
        /// A lowercase fact in the relay's words.
        #[n(0)]
        what: String,
    },
    /// A handle that is taken, or looks like one that is.
    #[n(7)]
    #[error("handle: {what}")]
    Handle {
        /// A lowercase fact in the relay's words.
        #[n(0)]
        what: String,
    },
    /// Something is full.
    #[n(8)]
    #[error("full: {what}")]
    Full {
        /// A lowercase fact in the relay's words.
        #[n(0)]
        what: String,
    },
    /// No common version of the protocol.
    #[n(9)]
    #[error("no common version of the protocol")]
    Version,
    /// The relay could not make it durable; nothing was done.
    #[n(10)]
    #[error("the relay could not store it")]
    Storage,
    /// A newer copy of this profile has taken over; this one is admitted no more.
    #[n(11)]
    #[error("another copy of this profile has taken its place")]
    Replaced,
    /// The idem was accepted for another Post. What was accepted, with the device's own MAC: proof that there is a copy.
    #[n(12)]
    #[error("another copy of this profile has sent something in its place")]
    Reused {
        /// The counter.
        #[n(0)]
        idem: u64,
        /// The hash of the accepted Post's parts.
        #[n(1)]
        parts: Digest,
        /// The device's MAC over both.
        #[n(2)]
        mac: Digest,
    },
}

impl Refused {
    /// Shorthand for [`Refused::NotAllowed`].
    pub fn not_allowed(what: impl Into<String>) -> Self {
        Self::NotAllowed { what: what.into() }
    }

    /// Shorthand for [`Refused::Malformed`].
    pub fn malformed(what: impl Into<String>) -> Self {
        Self::Malformed { what: what.into() }
    }

    /// Shorthand for [`Refused::NotFound`].
    pub fn not_found(what: impl Into<String>) -> Self {
        Self::NotFound { what: what.into() }
    }
}

/// Well-formed bytes that break a rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PeerMisbehaved {
    /// A signature does not verify.
    #[error("the signature on {0} does not verify")]
    Signature(&'static str),
    /// A key is not the one that was pinned or promised.
    #[error("{0} is not the one expected")]
    WrongKey(&'static str),
    /// Two statements that must agree do not.
    #[error("{0} does not match what was said before")]
    Mismatch(&'static str),
    /// Somebody did what their role forbids.
    #[error("{0} is not allowed by that role")]
    Role(&'static str),
    /// A chain of endorsements does not reach the organisation's key.
    #[error("nobody whom the organisation endorses vouches for this person")]
    NotEndorsed,
    /// A person's keys, or those of whoever vouches for them, are not in the relay's audit log.
    #[error("that person's keys are not in the relay's audit log")]
    Unlogged,
    /// The relay has served a single-use key package twice.
    #[error("the relay hands out a key of that person's that was used before")]
    ServedTwice,
    /// A person was endorsed by a device after it was revoked, or by somebody after their own endorsement was withdrawn.
    #[error("that person was endorsed by somebody whom the firm had shut out before")]
    EndorsedLate,
    /// An invite was made by a device that was revoked since: whoever has that device may have read it.
    #[error("their invite is from a device that was revoked since, and whoever has that one may have read it")]
    InviterGone,
    /// Somebody said of others that they are shut out, after they were shut out themselves.
    #[error("somebody whom the firm had shut out before has said so")]
    SaidLate,
    /// The relay shows another history than before.
    #[error("the relay shows another history of a mailbox than before, at {seq}")]
    Fork {
        /// The seq at which it differs.
        seq: u64,
    },
    /// An MLS message that this matter's rules or RFC 9420 do not accept.
    #[error("a message in the matter is void: {0}")]
    Void(String),
    /// A Commit that is good for others, but whose secrets this device can't recover (RFC 9420, section 7.5).
    #[error("a change of the matter can't be followed on this device")]
    OutOfStep,
}

/// This program asked for what makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Misuse {
    /// There is no such matter here.
    #[error("no such matter")]
    NoMatter,
    /// The state that was saved does not load.
    #[error("saved state does not load: {0}")]
    State(&'static str),
    /// The cryptographic library failed on good input.
    #[error("internal cryptographic failure")]
    Crypto,
    /// Something else is under way that must end first.
    #[error("{0}")]
    Busy(&'static str),
    /// A matter or a message follows rules that this version does not know.
    #[error("this needs a newer version of this program")]
    Outdated,
    /// A member says to have read something else in this matter: sending waits until the user has said to go on.
    #[error("somebody says to have read something else in this matter")]
    Disputed,
    /// Nobody vouches any more for somebody in this matter: sending waits until the user has said to go on, or they are out.
    #[error("nobody at the firm vouches any more for somebody in this matter")]
    Lapsed,
    /// Somebody whose safety number was compared has another key: sending waits until the user has accepted it.
    #[error("the identity of somebody in this matter has changed")]
    IdentityChanged,
    /// This vault is a copy of another that is in use, or was restored from a backup: it is being let back in.
    #[error("this profile is a copy or was restored from a backup; it is being let back into its matters")]
    Copied,
}

/// Any error of this crate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Bytes or text that do not follow their format.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// The relay said no.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// A peer broke a rule.
    #[error(transparent)]
    PeerMisbehaved(#[from] PeerMisbehaved),
    /// This program is at fault.
    #[error(transparent)]
    Misuse(#[from] Misuse),
}
