//! Checking a proof: that it is whole, who says it, and what the relay's own signatures prove.
//!
//! 1. Every file is the one that the statement names, and nothing else is there.
//! 2. The statement is signed by a device that the chain leads to, up to the firm's key.
//! 3. Every note is opened with the keys that the relay signed, and held against every other of the same log; against one that somebody
//!    else kept; and against the whole log, where an export of it is at hand.
//!
//! Invariant: a contradiction is named only where the relay's signatures on both sides of it were verified.

use std::collections::BTreeMap;

use super::{Claim, DEVICE, README, STATEMENT, Statement, read_device};
use crate::identity::verify_chain;
use crate::ids::Timestamp;
use crate::log::bundle::{AGAINST, Fault, Whole, read_keys};
use crate::log::{Checkpoint, Verifier};
use crate::suite::{Digest, Fingerprint, Label};

/// A proof that is whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proved {
    /// What the device says.
    pub said: Statement,
    /// Under which handle its person is endorsed.
    pub handle: String,
    /// By whose key in the end.
    pub organisation: Fingerprint,
    /// The notes that the relay has signed.
    pub notes: Vec<Note>,
    /// Files that the device was shown as notes, and that the relay has not signed.
    pub unsigned: Vec<String>,
    /// Pairs of which an honest relay signs only one.
    pub contradictions: Vec<Contradiction>,
}

/// A note that a relay has signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// In which file.
    pub file: String,
    /// Whose: the fingerprint that invites pin.
    pub relay: Fingerprint,
    /// What it says.
    pub checkpoint: Checkpoint,
    /// When it was signed, by the relay's clock.
    pub at: Timestamp,
}

/// Two notes that contradict each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contradiction {
    /// The file of the one.
    pub one: String,
    /// The file of the other; [`EXPORT`] for the whole log.
    pub other: String,
    /// How.
    pub how: How,
}

/// How two notes contradict each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// Of one size, with different roots: two histories.
    OtherRoot {
        /// The size.
        size: u64,
    },
    /// The whole log, as the relay has exported it, has another history up to this size.
    NotInExport {
        /// The size.
        size: u64,
    },
}

/// What a [`Contradiction`] calls the exported log.
pub const EXPORT: &str = "the exported log";

/// Verifies a proof: every file by its path. `against` is a note that somebody else kept; `export` the relay's whole log.
///
/// # Errors
/// [`Fault`], naming the place.
pub fn verify(
    files: &BTreeMap<String, Vec<u8>>,
    against: Option<&str>,
    export: Option<&Whole>,
) -> Result<Proved, Fault> {
    let (said, written, signature) =
        Statement::read(text(files, STATEMENT)?).map_err(|error| Fault::of(STATEMENT, error))?;
    only_these(files, &said)?;
    let (organisation, chain) = read_device(text(files, DEVICE)?).map_err(|error| Fault::of(DEVICE, error))?;
    let person = verify_chain(&chain, &organisation).map_err(|error| Fault::of(DEVICE, error))?;
    let device = person.device(said.device).filter(|_| person.person == said.person);
    let device = device.ok_or_else(|| Fault::of(DEVICE, "it is not the device that says so"))?;
    let signed = device.mls_key.verify(Label::Proof, written.as_bytes(), &signature, "the statement");
    signed.map_err(|error| Fault::of(STATEMENT, error))?;

    let mut notes = Notes::default();
    for number in numbers(&said) {
        notes.read(files, &number)?;
    }
    if let Some(against) = against {
        notes.compare(against)?;
    }
    let mut contradictions = notes.contradictions();
    if let Some(export) = export {
        contradictions.extend(notes.not_in(export)?);
    }
    Ok(Proved {
        handle: person.endorsement.handle,
        organisation: organisation.fingerprint(),
        notes: notes.signed.into_iter().map(|(note, _)| note).collect(),
        unsigned: notes.unsigned,
        contradictions,
        said,
    })
}

impl Proved {
    /// Whether a claim stands on the word of the device alone, or of a member: no two notes of the relay's prove it.
    pub fn is_word_alone(&self, claim: &Claim) -> bool {
        let Claim::Log { number, .. } = claim else { return true };
        let of = |file: &str| file.starts_with(&format!("log/{number}/"));
        !self.contradictions.iter().any(|found| of(&found.one) || of(&found.other))
    }
}

fn text<'a>(files: &'a BTreeMap<String, Vec<u8>>, path: &str) -> Result<&'a str, Fault> {
    let bytes = files.get(path).ok_or_else(|| Fault::of(path, "the file is missing"))?;
    std::str::from_utf8(bytes).map_err(|_| Fault::of(path, "it is no text"))
}

/// Every file that the statement names is there, as it names it, and no other.
fn only_these(files: &BTreeMap<String, Vec<u8>>, said: &Statement) -> Result<(), Fault> {
    for (path, digest) in &said.files {
        let bytes = files.get(path).ok_or_else(|| Fault::of(path, "the file is missing"))?;
        if Digest::of(&[bytes]) != *digest {
            return Err(Fault::of(path, "it was changed: it is not the file that the device has signed"));
        }
    }
    for path in [README, DEVICE] {
        if !said.files.contains_key(path) {
            return Err(Fault::of(path, "the statement does not name it"));
        }
    }
    match files.keys().find(|path| *path != STATEMENT && !said.files.contains_key(*path)) {
        Some(extra) => Err(Fault::of(extra, "the file does not belong here")),
        None => Ok(()),
    }
}

/// The folders of notes that a statement names.
fn numbers(said: &Statement) -> Vec<String> {
    let folder = |path: &String| path.strip_prefix("log/")?.strip_suffix("/keys").map(str::to_owned);
    let mut numbers: Vec<String> = said.files.keys().filter_map(folder).collect();
    // What was found comes before what is known now.
    numbers.sort_by_key(|number| number == "0");
    numbers
}

#[derive(Default)]
struct Notes {
    signed: Vec<(Note, Verifier)>,
    unsigned: Vec<String>,
}

impl Notes {
    fn read(&mut self, files: &BTreeMap<String, Vec<u8>>, number: &str) -> Result<(), Fault> {
        let keys = format!("log/{number}/keys");
        let (relay, verifier) = read_keys(text(files, &keys)?).map_err(|error| Fault::of(&keys, error))?;
        let known = format!("log/{number}/known");
        let mut take = |file: String, note: &str, must: bool| match verifier.open(note) {
            Ok((checkpoint, at)) => {
                let note = Note { file, relay: relay.fingerprint(), checkpoint, at };
                self.signed.push((note, verifier.clone()));
                Ok(())
            }
            Err(error) if must => Err(Fault::of(&file, error)),
            // That it was shown, the device says; the relay has not signed it.
            Err(_) => {
                self.unsigned.push(file);
                Ok(())
            }
        };
        take(known.clone(), text(files, &known)?, true)?;
        let shown = format!("log/{number}/shown");
        match files.contains_key(&shown) {
            true => take(shown.clone(), text(files, &shown)?, false),
            false => Ok(()),
        }
    }

    /// One more note, that somebody else kept of the same log.
    fn compare(&mut self, note: &str) -> Result<(), Fault> {
        let opened = self.signed.iter().find_map(|(known, verifier)| {
            verifier.open(note).ok().map(|(checkpoint, at)| (known.relay, checkpoint, at, verifier.clone()))
        });
        let other = "it is no note of a log that this proof is about";
        let (relay, checkpoint, at, verifier) = opened.ok_or_else(|| Fault::of(AGAINST, other))?;
        self.signed.push((Note { file: AGAINST.to_owned(), relay, checkpoint, at }, verifier));
        Ok(())
    }

    fn contradictions(&self) -> Vec<Contradiction> {
        let (mut found, mut told) = (Vec::new(), Vec::new());
        for (index, (one, _)) in self.signed.iter().enumerate() {
            for (other, _) in self.signed.iter().skip(index.saturating_add(1)) {
                let Some(how) = contradict(one, other) else { continue };
                // The same two notes may stand in several folders.
                let mut pair = [one, other].map(|note| (note.at, note.checkpoint.size, note.checkpoint.root));
                pair.sort_unstable();
                if !told.contains(&pair) {
                    told.push(pair);
                    found.push(Contradiction { one: one.file.clone(), other: other.file.clone(), how });
                }
            }
        }
        found
    }

    /// The notes of whose log the whole has another history.
    fn not_in(&self, export: &Whole) -> Result<Vec<Contradiction>, Fault> {
        let same = |note: &Note| export.is_of(&note.relay, &note.checkpoint.origin);
        if !self.signed.iter().any(|(note, _)| same(note)) {
            return Err(Fault::of(EXPORT, "it is the log of another relay, or of the time before it was restored"));
        }
        let other = self.signed.iter().filter(|(note, _)| same(note));
        let other = other.filter(|(note, _)| export.holds(&note.checkpoint) == Some(false));
        let name = |(note, _): &(Note, Verifier)| Contradiction {
            one: note.file.clone(),
            other: EXPORT.to_owned(),
            how: How::NotInExport { size: note.checkpoint.size },
        };
        Ok(other.map(name).collect())
    }
}

/// How two notes of one log contradict each other: an honest relay signs one root for each size. That a smaller log was signed later proves
/// nothing: a clock may have been set back, and an export is signed as of when it began.
fn contradict(one: &Note, other: &Note) -> Option<How> {
    let (first, second) = (&one.checkpoint, &other.checkpoint);
    let same = first.origin == second.origin && one.relay == other.relay && first.size == second.size;
    (same && first.root != second.root).then_some(How::OtherRoot { size: first.size })
}
