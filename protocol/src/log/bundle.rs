//! A whole log as files, in the layout of C2SP tlog-tiles, and its verification offline.
//!
//! ```text
//! checkpoint                    the signed note
//! keys                          the verifier keys, the relay's key, its signature over them, and the keys before (`keys.rs`)
//! tile/<level>/<number>         256 hashes of the tree; .p/<width> behind the number of a tile that is not full
//! tile/entries/<number>         256 leaves, each behind its length in two bytes
//! ```
//!
//! Invariant: no byte of a bundle can be changed, and no file left out or added, without [`verify`] finding it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::keys::Ring;
pub use super::keys::{PastKey, keys_file, keys_file_after, read_keys};
use super::tree::{self, TILE_WIDTH, Tiles};
use super::{Checkpoint, Last, Leaf, TreeHash};
use crate::error::Malformed;
use crate::ids::{PersonId, Timestamp};
use crate::limits;
use crate::suite::Fingerprint;
use crate::suite::note::SHA256_LEN;

/// The file of the checkpoint.
pub const CHECKPOINT: &str = "checkpoint";
/// The file of the keys.
pub const KEYS: &str = "keys";
/// Levels of tiles above which there are more leaves than a u64 counts.
const LEVELS: u8 = 8;

/// A file of a log: a tile, or the entries under one of the lowest level.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// Of which level its hashes are; none for entries.
    pub level: Option<u8>,
    /// Which tile of that level.
    pub number: u64,
    /// How many hashes or entries it has.
    pub width: u64,
}

impl Piece {
    /// Where it is found.
    pub fn path(&self) -> String {
        let kind = self.level.map_or_else(|| "entries".to_owned(), |level| level.to_string());
        let (mut rest, last) = (self.number.div_euclid(1000), self.number.rem_euclid(1000));
        let mut number = format!("{last:03}");
        while rest > 0 {
            number = format!("x{:03}/{number}", rest.rem_euclid(1000));
            rest = rest.div_euclid(1000);
        }
        let partial = if self.width < TILE_WIDTH { format!(".p/{}", self.width) } else { String::new() };
        format!("tile/{kind}/{number}{partial}")
    }

    /// The number of its first hash or entry.
    pub fn first(&self) -> u64 {
        self.number.saturating_mul(TILE_WIDTH)
    }

    /// The number after that of its last hash or entry.
    pub fn end(&self) -> u64 {
        self.first().saturating_add(self.width)
    }

    /// The first leaf under its hash number `index`.
    fn leaf(&self, index: u64) -> u64 {
        let below = TILE_WIDTH.saturating_pow(u32::from(self.level.unwrap_or(0)));
        self.first().saturating_add(index).saturating_mul(below)
    }
}

/// The files that a log of `to` leaves has and one of its first `from` does not: entries first, then tiles from the lowest level up.
pub fn pieces(from: u64, to: u64) -> impl Iterator<Item = Piece> {
    let levels = std::iter::once(None).chain((0..LEVELS).map(Some));
    levels.flat_map(move |level| {
        let below = |leaves: u64| leaves.checked_shr(u32::from(level.unwrap_or(0)).saturating_mul(8)).unwrap_or(0);
        let (old, new) = (below(from), below(to));
        let numbers = if old < new { old.div_euclid(TILE_WIDTH)..new.div_ceil(TILE_WIDTH) } else { 0..0 };
        numbers.map(move |number| {
            let width = new.saturating_sub(number.saturating_mul(TILE_WIDTH)).min(TILE_WIDTH);
            Piece { level, number, width }
        })
    })
}

/// Entries as their file has them.
///
/// # Errors
/// [`Malformed::TooLarge`] for an entry above [`limits::LEAF_MAX`].
pub fn pack<'a>(entries: impl IntoIterator<Item = &'a [u8]>) -> Result<Vec<u8>, Malformed> {
    let mut bytes = Vec::new();
    for entry in entries {
        let too_large = Malformed::TooLarge { what: "leaf", limit: limits::LEAF_MAX };
        bytes.extend(u16::try_from(entry.len()).map_err(|_| too_large)?.to_be_bytes());
        bytes.extend(entry);
    }
    Ok(bytes)
}

/// Hashes as their file has them.
pub fn pack_hashes(hashes: &[TreeHash]) -> Vec<u8> {
    hashes.iter().flat_map(|hash| hash.as_bytes()).copied().collect()
}

/// What a bundle that verifies says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// The log and its size and root.
    pub checkpoint: Checkpoint,
    /// When the checkpoint was signed.
    pub at: Timestamp,
    /// Whose log it is: the fingerprint that invites pin.
    pub relay: Fingerprint,
    /// The fingerprints that it had before, oldest first: each key has signed for the next.
    pub before: Vec<Fingerprint>,
    /// The size of the checkpoint that it was held against.
    pub against: Option<u64>,
}

/// What is wrong with a bundle, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Which file; [`AGAINST`] for the checkpoint that it was held against.
    pub file: String,
    /// Which leaf, where it can be told.
    pub leaf: Option<u64>,
    /// What.
    pub what: String,
}

/// What a [`Fault`] calls the checkpoint that a bundle is held against.
pub const AGAINST: &str = "the checkpoint to compare with";

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file)?;
        if let Some(leaf) = self.leaf {
            write!(f, ", leaf {leaf}")?;
        }
        write!(f, ": {}", self.what)
    }
}

impl std::error::Error for Fault {}

impl Fault {
    /// A fault of a whole file.
    pub(crate) fn of(file: &str, what: impl fmt::Display) -> Self {
        fault(file, what)
    }
}

fn fault(file: impl Into<String>, what: impl fmt::Display) -> Fault {
    Fault { file: file.into(), leaf: None, what: what.to_string() }
}

fn fault_at(file: String, leaf: u64, what: &str) -> Fault {
    Fault { file, leaf: Some(leaf), what: what.to_owned() }
}

/// A whole log that verifies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Whole {
    /// What it says.
    pub verified: Verified,
    ring: Ring,
    hashes: Vec<TreeHash>,
}

impl Whole {
    /// Whether a checkpoint is of a beginning of this log; none where it is of a longer one.
    pub fn holds(&self, checkpoint: &Checkpoint) -> Option<bool> {
        let is_longer = checkpoint.size > self.verified.checkpoint.size;
        (!is_longer).then(|| tree::root(&self.hashes[..], checkpoint.size).ok() == Some(checkpoint.root))
    }

    /// Whether a log of that name, by the relay's key with that fingerprint, is this one: under its newest key, or one before.
    pub fn is_of(&self, relay: &Fingerprint, origin: &str) -> bool {
        self.ring.has(relay, origin)
    }

    /// Holds it against a checkpoint that was kept before.
    fn compare(&self, note: &str) -> Result<u64, Fault> {
        let (known, _) = self.ring.verifier_of(note).open(note).map_err(|error| fault(AGAINST, error))?;
        match self.holds(&known) {
            Some(true) => Ok(known.size),
            Some(false) => Err(fault(AGAINST, "the bundle has another history than the one that it says")),
            None => Err(fault(AGAINST, "it is newer than the bundle; export the log again")),
        }
    }
}

/// Verifies a bundle: every file by its path, and nothing else. `progress` hears how many leaves are done, and of how many.
///
/// With a checkpoint to compare with, which may be older, the bundle's log must be one that has grown from it.
///
/// # Errors
/// [`Fault`], naming the place.
pub fn verify(
    files: &BTreeMap<String, Vec<u8>>,
    against: Option<&str>,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Verified, Fault> {
    let whole = read(files, progress)?;
    let against = against.map(|note| whole.compare(note)).transpose()?;
    Ok(Verified { against, ..whole.verified })
}

/// As [`verify`], for holding other checkpoints against it.
///
/// # Errors
/// [`Fault`], naming the place.
pub fn read(files: &BTreeMap<String, Vec<u8>>, progress: &mut dyn FnMut(u64, u64)) -> Result<Whole, Fault> {
    let ring = Ring::read(text(files, KEYS)?).map_err(|error| fault(KEYS, error))?;
    let note = text(files, CHECKPOINT)?;
    let (checkpoint, at) = ring.verifier().open_exactly(note).map_err(|error| fault(CHECKPOINT, error))?;
    only_these(files, checkpoint.size)?;
    let mut leaves = Leaves::default();
    for piece in pieces(0, checkpoint.size).filter(|piece| piece.level.is_none()) {
        leaves.read(files, &piece)?;
        progress(piece.end(), checkpoint.size);
    }
    if tree::root(&leaves.hashes[..], checkpoint.size).ok() != Some(checkpoint.root) {
        return Err(blame(files, &leaves, checkpoint.size));
    }
    if let Some(fault) = leaves.unchained {
        return Err(fault);
    }
    for piece in pieces(0, checkpoint.size) {
        if let Some(index) = other_hash(files, &leaves.hashes, &piece) {
            return Err(fault_at(piece.path(), piece.leaf(index), "the hash is not that of what is below it"));
        }
    }
    let verified = Verified { checkpoint, at, relay: ring.relay(), before: ring.before(), against: None };
    Ok(Whole { verified, ring, hashes: leaves.hashes })
}

fn text<'a>(files: &'a BTreeMap<String, Vec<u8>>, path: &str) -> Result<&'a str, Fault> {
    let bytes = files.get(path).ok_or_else(|| fault(path, "the file is missing"))?;
    std::str::from_utf8(bytes).map_err(|_| fault(path, "it is no text"))
}

/// Every file that belongs to a log of this size is there, and no other.
fn only_these(files: &BTreeMap<String, Vec<u8>>, size: u64) -> Result<(), Fault> {
    let mut known: BTreeSet<String> = [CHECKPOINT, KEYS].map(str::to_owned).into();
    for piece in pieces(0, size) {
        let path = piece.path();
        if !files.contains_key(&path) {
            return Err(Fault { leaf: Some(piece.leaf(0)), ..fault(path, "the file is missing") });
        }
        known.insert(path);
    }
    match files.keys().find(|path| !known.contains(*path)) {
        Some(extra) => Err(fault(extra.clone(), "the file does not belong here")),
        None => Ok(()),
    }
}

/// The leaves of a bundle, as they are read.
#[derive(Default)]
struct Leaves {
    hashes: Vec<TreeHash>,
    last: BTreeMap<Option<PersonId>, Last>,
    /// The first leaf that is none, or does not follow the one of its person before it.
    unchained: Option<Fault>,
}

impl Leaves {
    fn read(&mut self, files: &BTreeMap<String, Vec<u8>>, piece: &Piece) -> Result<(), Fault> {
        let mut rest = files.get(&piece.path()).map(Vec::as_slice).unwrap_or_default();
        for index in piece.first()..piece.end() {
            let Some((entry, after)) = next_entry(rest) else {
                return Err(self.broken(files, piece, index, "the file ends before this leaf does"));
            };
            rest = after;
            self.hashes.push(TreeHash::leaf(entry));
            self.chain(entry, piece, index);
        }
        match rest {
            [] => Ok(()),
            _ => Err(self.broken(files, piece, piece.end(), "the file goes on after its last leaf")),
        }
    }

    fn chain(&mut self, entry: &[u8], piece: &Piece, index: u64) {
        let what = match Leaf::decode(entry) {
            Ok(leaf) if leaf.follows(self.last.get(&leaf.person)) => {
                self.last.insert(leaf.person, Last { number: leaf.number, hash: TreeHash::leaf(entry) });
                return;
            }
            Ok(_) => "it does not follow the leaf before it of the same person",
            Err(_) => "it is no leaf",
        };
        self.unchained.get_or_insert_with(|| fault_at(piece.path(), index, what));
    }

    /// A file that does not divide into its leaves: the first that is not the one in the tree is to blame.
    fn broken(&self, files: &BTreeMap<String, Vec<u8>>, piece: &Piece, index: u64, what: &str) -> Fault {
        let tile = Piece { level: Some(0), ..*piece };
        let other = other_hash(files, &self.hashes, &tile).and_then(|at| tile.first().checked_add(at));
        fault_at(piece.path(), other.unwrap_or(index).min(index), what)
    }
}

fn next_entry(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk()?;
    rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))
}

/// The first hash of a tile that is not that of the leaves below it, by its place in the tile.
fn other_hash(files: &BTreeMap<String, Vec<u8>>, leaves: &[TreeHash], piece: &Piece) -> Option<u64> {
    let level = piece.level?;
    let bytes = files.get(&piece.path()).map(Vec::as_slice).unwrap_or_default();
    let mut stored = bytes.chunks(SHA256_LEN);
    for (index, number) in (0..).zip(piece.first()..piece.end()) {
        let after = number.saturating_add(1);
        let expected = leaves.hashes(level, number, after).ok()?;
        if stored.next() != expected.first().map(|hash| &hash.as_bytes()[..]) {
            return Some(index);
        }
    }
    // What is left belongs to no leaf; the last is the nearest.
    stored.next().map(|_| piece.width.saturating_sub(1))
}

/// Which file is to blame where the leaves do not give the root that was signed.
fn blame(files: &BTreeMap<String, Vec<u8>>, leaves: &Leaves, size: u64) -> Fault {
    for entries in pieces(0, size).filter(|piece| piece.level.is_none()) {
        let tile = Piece { level: Some(0), ..entries };
        if let Some(index) = other_hash(files, &leaves.hashes, &tile) {
            return fault_at(entries.path(), tile.leaf(index), "the leaf is not the one in the tree");
        }
    }
    // Leaves and tiles were changed alike: the numbers of a person's leaves, or a tile above, may tell where.
    if let Some(fault) = &leaves.unchained {
        return fault.clone();
    }
    let above = pieces(0, size).find_map(|piece| other_hash(files, &leaves.hashes, &piece).map(|index| (piece, index)));
    match above {
        Some((piece, index)) => fault_at(piece.path(), piece.leaf(index), "the hash is not that of what is below it"),
        None => fault(CHECKPOINT, "the root is not that of the leaves"),
    }
}
