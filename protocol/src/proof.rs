//! What a device found out about its relay, as files that others can check offline, without a vault.
//!
//! ```text
//! statement               what the device says, over the hashes of all other files, signed by it
//! device                  who it is: the firm's key, and the chain of endorsements up to it
//! README.txt              the same in plain words
//! log/<n>/keys            with which keys the relay signs its log, by the relay's own key (as in a bundle)
//! log/<n>/known           the signed note that the device had verified
//! log/<n>/shown           the one that the relay showed against it, if it was one
//! ```
//!
//! `log/0` has the newest note that the device knows: two devices' may contradict each other. [`verify`] finds out what the relay's own
//! signatures prove; everything else in a proof is the device's signed word. Nothing secret is in it: no text, title, name or secret key.
//!
//! Invariant: no byte of a proof can be changed, and no file left out or added, without [`verify`] finding it.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use data_encoding::{BASE64, HEXLOWER};

use crate::cbor;
use crate::error::{Error, Malformed, Misuse};
use crate::identity::Identity;
use crate::ids::{DeviceId, MatterId, PersonId, Position, Timestamp};
use crate::limits;
use crate::log::TreeHash;
use crate::suite::{Digest, Label, PublicKey, SecretKey};

mod verify;

pub use verify::{Contradiction, EXPORT, How, Note, Proved, verify};

/// The files of a proof that are always there.
pub const STATEMENT: &str = "statement";
/// Who the device is.
pub const DEVICE: &str = "device";
/// The proof in plain words.
pub const README: &str = "README.txt";
const TITLE: &str = "privity/1 proof";

/// What a device says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// When it says so, by its clock.
    pub made: Timestamp,
    /// Whose device it is.
    pub person: PersonId,
    /// Which device.
    pub device: DeviceId,
    /// The other files, by their paths, with the hashes of what is in them.
    pub files: BTreeMap<String, Digest>,
    /// What was found.
    pub claims: Vec<Claim>,
}

/// Something that a device found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claim {
    /// The audit log contradicts what was known of it: the notes are in `log/<number>`.
    Log {
        /// Which.
        number: u64,
        /// When it was found.
        at: Timestamp,
        /// What, a lowercase fact on one line.
        what: String,
        /// Where it stands on a member's word: who they are, and the size and root that they know.
        told: Option<(PersonId, u64, TreeHash)>,
    },
    /// The relay showed another history of a matter's mailbox than before.
    Fork {
        /// When it was found.
        at: Timestamp,
        /// Which matter.
        matter: MatterId,
        /// What the device had read.
        read: Position,
        /// What it was shown then.
        shown: Position,
    },
    /// A member says to have read something else in a matter.
    Dispute {
        /// When it was found.
        at: Timestamp,
        /// Which matter.
        matter: MatterId,
        /// Who says so.
        by: PersonId,
        /// What the device had read there, and what the member says; none where neither was kept.
        positions: Option<(Option<Position>, Position)>,
    },
}

impl Statement {
    /// The file, signed by the device.
    ///
    /// # Errors
    /// [`Misuse::Crypto`] if the library fails.
    pub fn sign(&self, key: &SecretKey) -> Result<Vec<u8>, Misuse> {
        let text = self.text();
        let signature = BASE64.encode(&key.sign(Label::Proof, text.as_bytes())?);
        Ok(format!("{text}signature {signature}\n").into_bytes())
    }

    fn text(&self) -> String {
        let mut text = format!("{TITLE}\nmade {}\nby {} {}\n", self.made.0, self.person, self.device);
        for (path, digest) in &self.files {
            line(&mut text, format_args!("file {} {path}", HEXLOWER.encode(digest.as_bytes())));
        }
        for claim in &self.claims {
            claim.write(&mut text);
        }
        text.push('\n');
        text
    }

    /// What a file says, and its signature; believed by nobody yet.
    fn read(text: &str) -> Result<(Self, String, Vec<u8>), Malformed> {
        let wrong = || Malformed::Text("statement");
        let (said, signature) = text.rsplit_once("\n\nsignature ").ok_or_else(wrong)?;
        let signature = signature.strip_suffix('\n').ok_or_else(wrong)?;
        let signature = BASE64.decode(signature.as_bytes()).map_err(|_| wrong())?;
        let mut lines = said.lines();
        if lines.next() != Some(TITLE) {
            return Err(wrong());
        }
        let made = Words::of(lines.next(), "made").ok_or_else(wrong)?.time().ok_or_else(wrong)?;
        let mut by = Words::of(lines.next(), "by").ok_or_else(wrong)?;
        let (person, device) = by.id().zip(by.id()).ok_or_else(wrong)?;
        let mut statement = Self { made, person, device, files: BTreeMap::new(), claims: Vec::new() };
        for said in lines {
            if let Some(mut file) = Words::of(Some(said), "file") {
                let digest = file.digest().ok_or_else(wrong)?;
                statement.files.insert(file.rest(), digest);
            } else {
                statement.claims.push(Claim::read(said).ok_or_else(wrong)?);
            }
        }
        let written = statement.text();
        // What is written in another way may be read in another way.
        if text.strip_prefix(&written).is_none() || statement.claims.len() > limits::CLAIMS_MAX {
            return Err(wrong());
        }
        Ok((statement, written, signature))
    }
}

impl Claim {
    fn write(&self, text: &mut String) {
        match self {
            Self::Log { number, at, what, told } => {
                let (person, size, root) = told.map_or_else(
                    || ("-".to_owned(), "-".to_owned(), "-".to_owned()),
                    |(person, size, root)| (person.to_string(), size.to_string(), root.to_string()),
                );
                line(text, format_args!("log {number} {} {person} {size} {root} {what}", at.0));
            }
            Self::Fork { at, matter, read, shown } => {
                line(text, format_args!("fork {} {matter} {} {}", at.0, place(Some(read)), place(Some(shown))));
            }
            Self::Dispute { at, matter, by, positions } => {
                let (read, said) = match positions {
                    Some((read, said)) => (place(read.as_ref()), place(Some(said))),
                    None => (place(None), place(None)),
                };
                line(text, format_args!("dispute {} {matter} {by} {read} {said}", at.0));
            }
        }
    }

    fn read(said: &str) -> Option<Self> {
        if let Some(mut words) = Words::of(Some(said), "log") {
            let (number, at) = (words.number()?, words.time()?);
            let [person, size, root] = [words.next()?, words.next()?, words.next()?];
            let told = match person {
                "-" => None,
                person => Some((person.parse().ok()?, size.parse().ok()?, tree_hash(root)?)),
            };
            return Some(Self::Log { number, at, what: words.rest(), told });
        }
        if let Some(mut words) = Words::of(Some(said), "fork") {
            let (at, matter) = (words.time()?, words.id()?);
            return Some(Self::Fork { at, matter, read: words.place()??, shown: words.place()?? });
        }
        let mut words = Words::of(Some(said), "dispute")?;
        let (at, matter, by) = (words.time()?, words.id()?, words.id()?);
        let (read, said) = (words.place()?, words.place()?);
        Some(Self::Dispute { at, matter, by, positions: said.map(|said| (read, said)) })
    }
}

/// The file that says who a device is.
pub fn device_file(organisation: &PublicKey, chain: &[Identity]) -> Vec<u8> {
    let mut text = format!("organisation {}\n", BASE64.encode(organisation.as_bytes()));
    for identity in chain {
        line(&mut text, format_args!("identity {}", BASE64.encode(&cbor::encode(identity))));
    }
    text.into_bytes()
}

/// The firm's key and the chain, believed by nobody yet.
fn read_device(text: &str) -> Result<(PublicKey, Vec<Identity>), Error> {
    let wrong = || Malformed::Text("device");
    let bytes = |said: &str| BASE64.decode(said.as_bytes()).map_err(|_| wrong());
    let mut lines = text.lines();
    let organisation = lines.next().and_then(|line| line.strip_prefix("organisation ")).ok_or_else(wrong)?;
    let organisation = PublicKey::from_slice(&bytes(organisation)?)?;
    let identity = |line: &str| {
        let said = bytes(line.strip_prefix("identity ").ok_or_else(wrong)?)?;
        cbor::decode(&said, "identity")
    };
    let chain = lines.take(limits::CHAIN_MAX.saturating_add(1)).map(identity).collect::<Result<Vec<_>, _>>()?;
    Ok((organisation, chain))
}

fn line(text: &mut String, said: std::fmt::Arguments<'_>) {
    // A String takes whatever it is given.
    let _written = writeln!(text, "{said}");
}

fn place(position: Option<&Position>) -> String {
    position.map_or_else(
        || "- -".to_owned(),
        |position| format!("{} {}", position.seq, HEXLOWER.encode(position.chain.as_bytes())),
    )
}

fn tree_hash(text: &str) -> Option<TreeHash> {
    TreeHash::from_slice(&HEXLOWER.decode(text.as_bytes()).ok()?).ok()
}

/// The words of a line, from left to right.
struct Words<'a>(&'a str);

impl<'a> Words<'a> {
    fn of(line: Option<&'a str>, kind: &str) -> Option<Self> {
        line?.strip_prefix(kind)?.strip_prefix(' ').map(Self)
    }

    fn next(&mut self) -> Option<&'a str> {
        let (word, rest) = self.0.split_once(' ').unwrap_or((self.0, ""));
        self.0 = rest;
        (!word.is_empty()).then_some(word)
    }

    fn rest(self) -> String {
        self.0.to_owned()
    }

    fn number(&mut self) -> Option<u64> {
        self.next()?.parse().ok()
    }

    fn time(&mut self) -> Option<Timestamp> {
        self.number().map(Timestamp)
    }

    fn id<T: std::str::FromStr>(&mut self) -> Option<T> {
        self.next()?.parse().ok()
    }

    fn digest(&mut self) -> Option<Digest> {
        Digest::from_slice(&HEXLOWER.decode(self.next()?.as_bytes()).ok()?).ok()
    }

    /// A position, or that there is none.
    fn place(&mut self) -> Option<Option<Position>> {
        if self.0.starts_with("- -") {
            self.next()?;
            self.next()?;
            return Some(None);
        }
        Some(Some(Position { seq: self.number()?, chain: self.digest()? }))
    }
}
