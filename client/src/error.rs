//! What can go wrong for a user, and the exit code that scripts rely on.
//!
//! Invariant: every error reads as one sentence of what happened and what to do next, and carries no secret.

use privity_protocol::error::{Error as ProtocolError, Malformed, Misuse, PeerMisbehaved, Refused};

/// What a relay says to a device that was revoked.
pub(crate) const REVOKED: &str = "it was revoked by its person or a registrar";

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The user asked for something that makes no sense: exit 1.
    #[error("{0}")]
    Usage(String),
    /// This program or this machine: exit 2.
    #[error("{0}")]
    Machine(String),
    /// The relay can't be reached: exit 3.
    #[error("{0}")]
    Network(String),
    /// A key is not the one it should be: exit 4.
    #[error("{0}")]
    Untrusted(String),
    /// The relay or a rule says no: exit 5.
    #[error("{0}")]
    Refused(String),
    /// Too fast: exit 6.
    #[error("{0}")]
    TooFast(String),
    /// Not yet, or partly: exit 7.
    #[error("{0}")]
    NotYet(String),
    /// Evidence that does not verify: exit 8.
    #[error("{0}")]
    Unverified(String),
    /// Nobody reads the output any more, which is no failure: exit 0, quietly.
    #[error("nobody reads the output")]
    Closed,
}

impl Error {
    /// The process's exit code.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) => 1,
            Self::Machine(_) => 2,
            Self::Network(_) => 3,
            Self::Untrusted(_) => 4,
            Self::Refused(_) => 5,
            Self::TooFast(_) => 6,
            Self::NotYet(_) => 7,
            Self::Unverified(_) => 8,
            Self::Closed => 0,
        }
    }
}

impl From<ProtocolError> for Error {
    fn from(error: ProtocolError) -> Self {
        match error {
            ProtocolError::Malformed(error) => error.into(),
            ProtocolError::Refused(error) => error.into(),
            ProtocolError::PeerMisbehaved(error) => error.into(),
            ProtocolError::Misuse(error) => error.into(),
            other => Self::Machine(other.to_string()),
        }
    }
}

impl From<Malformed> for Error {
    fn from(error: Malformed) -> Self {
        match error {
            Malformed::Text("invite") => Self::Usage(
                "that invite is mangled or incomplete; copy the whole line again, from privity:// on".to_owned(),
            ),
            Malformed::Text("recovery code" | "recovery sheet") => Self::Usage(
                "that is not a recovery code: it has 14 groups of four characters, a to z and 2 to 7, and one of them is not as on the \
                 sheet. Compare group by group"
                    .to_owned(),
            ),
            Malformed::Text("handle") => Self::Usage(
                "that handle won't do: it takes 2 to 32 of a-z, 0-9, dot and dash, with a letter or digit at both ends"
                    .to_owned(),
            ),
            Malformed::Text("safety number") => {
                Self::Usage("a safety number has 60 digits, in groups or not; nothing was compared".to_owned())
            }
            Malformed::Text("title") => Self::Usage("a matter needs a title".to_owned()),
            Malformed::TooLarge { what: "text", limit } => Self::Usage(format!(
                "that message is larger than the limit of {limit} bytes; nothing was sent: send it in parts"
            )),
            other => Self::Usage(other.to_string()),
        }
    }
}

impl From<Refused> for Error {
    fn from(error: Refused) -> Self {
        match error {
            Refused::Slow { after_ms } => {
                Self::TooFast(format!("too fast for the relay; try again in {} s", after_ms.div_ceil(1000)))
            }
            Refused::Storage => Self::Machine(
                "the relay could not store it (is its disk full?); nothing was lost, try again later".to_owned(),
            ),
            Refused::Version => Self::Refused(
                "the relay speaks another version; update privity, or ask IT to update the relay".to_owned(),
            ),
            Refused::Malformed { what } => {
                Self::Machine(format!("the relay could not understand this program: {what}"))
            }
            Refused::NotAllowed { what } if what == REVOKED => Self::Refused(
                "the relay refuses this device: it was revoked, by you on another device or by a registrar. What is on it can still be \
                 read here with `privity read`. Go on with another device of yours; `privity device link` there makes one more, which joins \
                 into another folder. If you have none, begin again with your recovery sheet (`privity --home DIR recovery restore`), or \
                 have somebody who invites people at your firm run `privity invite new --for` your handle. If you know nothing of it, call \
                 the firm"
                    .to_owned(),
            ),
            Refused::NotAllowed { what } => Self::Refused(what),
            Refused::Invite { what } => Self::Refused(format!("that invite can't be used: {what}")),
            Refused::Handle { what } => Self::Refused(what),
            Refused::Replaced => Self::Refused(
                "another copy of this profile was opened and has taken its place; this one is admitted no more. Use the other copy, \
                 or have somebody who invites people at your firm run `privity invite new --for` your handle. If you made no copy, somebody else has one: tell \
                 your firm's IT at once"
                    .to_owned(),
            ),
            other => Self::Refused(other.to_string()),
        }
    }
}

impl From<PeerMisbehaved> for Error {
    fn from(error: PeerMisbehaved) -> Self {
        match error {
            PeerMisbehaved::WrongKey("the relay's key") => Self::Untrusted(
                "the relay's key is not the one in your invite: this is another relay, or somebody stands between; nothing was sent. \
                 Ask your firm's IT"
                    .to_owned(),
            ),
            PeerMisbehaved::Fork { .. } => Self::Untrusted(
                "this matter has stopped: the relay shows another history of it than before. Nothing was sent or kept now; what waited \
                 before stays here, marked not sent (`privity read MATTER --pending`). Tell your firm's IT, and talk to the others by \
                 telephone"
                    .to_owned(),
            ),
            PeerMisbehaved::OutOfStep => Self::NotYet(
                "this device missed a change of the matter and has asked the others to let it back in; try again once somebody of \
                 the matter was online"
                    .to_owned(),
            ),
            other => Self::Untrusted(format!("{other}; nothing was accepted. Ask your firm's IT")),
        }
    }
}

impl From<Misuse> for Error {
    fn from(error: Misuse) -> Self {
        match error {
            Misuse::NoMatter => Self::Usage("there is no such matter here; `privity matter ls` lists them".to_owned()),
            Misuse::Busy(what) => Self::Refused(what.to_owned()),
            Misuse::Outdated => {
                Self::Refused("this follows rules of a newer version; update privity, then try again".to_owned())
            }
            Misuse::Disputed => Self::Refused(
                "somebody says to have read something else in this matter than you; nothing was sent. Compare by telephone, then \
                 send it with --anyway"
                    .to_owned(),
            ),
            Misuse::Lapsed => Self::Refused(
                "nobody at the firm vouches any more for somebody in this matter; nothing was sent. `privity matter show` says for whom; \
                 have them removed, or send it with --anyway"
                    .to_owned(),
            ),
            Misuse::IdentityChanged => Self::Untrusted(
                "somebody here has another key than the one this device knows; nothing was done. `privity identity show HANDLE` shows what has \
                 changed, `privity identity trust HANDLE` accepts it"
                    .to_owned(),
            ),
            Misuse::Copied => Self::NotYet(
                "this profile is a copy or was restored from a backup, and is being let back into its matters; try again once \
                 somebody of the matter was online"
                    .to_owned(),
            ),
            other => Self::Machine(other.to_string()),
        }
    }
}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        Self::Machine(error.to_string())
    }
}

impl From<rusqlite::Error> for Error {
    fn from(error: rusqlite::Error) -> Self {
        // Where there is no room for its shared memory, SQLite says "I/O error" (SQLITE_IOERR_SHMSIZE).
        let full = error.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull)
            || error.sqlite_extended_error_code() == Some(rusqlite::ffi::SQLITE_IOERR_SHMSIZE);
        if full {
            Self::Machine("the disk is full: nothing was lost; free some space and try again".to_owned())
        } else {
            Self::Machine(format!("the vault failed: {error}"))
        }
    }
}
