//! The Merkle tree of RFC 9162, section 2, with SHA-256: hashes, inclusion and consistency proofs.
//!
//! Proofs are made from [`Tiles`]: the hashes of every 1, 256, 65,536, … leaves (C2SP tlog-tiles). What lies between is hashed again,
//! at most 255 hashes for each tile, so that a proof costs the same in a log of any size a firm will have.
//!
//! Invariant: a proof that verifies leaves no second leaf at that index, and no second history under that size, short of a collision
//! of SHA-256.

use std::fmt;

use minicbor::bytes::ByteArray;
use minicbor::{Decode, Encode};

use crate::error::{Malformed, PeerMisbehaved};
use crate::suite::note::{SHA256_LEN, sha256};

/// Hashes in a full tile.
pub const TILE_WIDTH: u64 = 256;
/// Levels of a tree that one level of tiles stands for.
const TILE_HEIGHT: u32 = 8;

/// The hash of a leaf or of a node of the tree.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct TreeHash(#[n(0)] ByteArray<SHA256_LEN>);

impl TreeHash {
    /// The hash with these bytes.
    pub fn new(bytes: [u8; SHA256_LEN]) -> Self {
        Self(ByteArray::from(bytes))
    }

    /// The hash of the empty tree.
    pub fn empty() -> Self {
        Self::new(sha256(&[]))
    }

    /// The hash of a leaf.
    pub fn leaf(entry: &[u8]) -> Self {
        Self::new(sha256(&[&[0], entry]))
    }

    /// The hash of a node.
    pub fn node(left: &Self, right: &Self) -> Self {
        Self::new(sha256(&[&[1], left.as_bytes(), right.as_bytes()]))
    }

    /// The 32 bytes.
    pub fn as_bytes(&self) -> &[u8; SHA256_LEN] {
        &self.0
    }

    /// The hash in `bytes`.
    ///
    /// # Errors
    /// [`Malformed`] unless they are 32.
    pub fn from_slice(bytes: &[u8]) -> Result<Self, Malformed> {
        Ok(Self::new(bytes.try_into().map_err(|_| Malformed::Length("hash"))?))
    }
}

impl fmt::Display for TreeHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for TreeHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TreeHash({self})")
    }
}

/// Where hashes of a log are found.
pub trait Tiles {
    /// Why they are not.
    type Error: From<Malformed>;

    /// The hashes of the complete subtrees of `256^level` leaves, from number `from` up to, without, `until`.
    ///
    /// # Errors
    /// Whatever stands in the way.
    fn hashes(&self, level: u8, from: u64, until: u64) -> Result<Vec<TreeHash>, Self::Error>;
}

/// Leaf hashes alone, for small trees: what is above them is hashed when asked for.
impl Tiles for [TreeHash] {
    type Error = Malformed;

    fn hashes(&self, level: u8, from: u64, until: u64) -> Result<Vec<TreeHash>, Malformed> {
        if level == 0 {
            let range = usize::try_from(from).ok().zip(usize::try_from(until).ok());
            let found = range.and_then(|(from, until)| self.get(from..until));
            return found.map(<[TreeHash]>::to_vec).ok_or(Malformed::Length("tile"));
        }
        let below = level.saturating_sub(1);
        (from..until)
            .map(|n| {
                let first = n.saturating_mul(TILE_WIDTH);
                fold(self.hashes(below, first, first.saturating_add(TILE_WIDTH))?)
            })
            .collect()
    }
}

/// The hash of the tree of the first `size` leaves.
///
/// # Errors
/// That of the tiles.
pub fn root<T: Tiles + ?Sized>(tiles: &T, size: u64) -> Result<TreeHash, T::Error> {
    range(tiles, 0, size)
}

/// The proof that leaf `index` is in the tree of the first `size` leaves (RFC 9162, section 2.1.3.1).
///
/// # Errors
/// [`Malformed`] if it is not; that of the tiles.
pub fn inclusion<T: Tiles + ?Sized>(tiles: &T, index: u64, size: u64) -> Result<Vec<TreeHash>, T::Error> {
    if index >= size {
        return Err(Malformed::Length("tree").into());
    }
    let (mut start, mut end) = (0_u64, size);
    let mut proof = Vec::new();
    while let Some(middle) = middle(start, end) {
        if index < middle {
            proof.push(range(tiles, middle, end)?);
            end = middle;
        } else {
            proof.push(range(tiles, start, middle)?);
            start = middle;
        }
    }
    proof.reverse();
    Ok(proof)
}

/// The proof that the tree of the first `from` leaves is a beginning of that of the first `to` (RFC 9162, section 2.1.4.1). Of the
/// empty tree every tree is one; that proof is empty.
///
/// # Errors
/// [`Malformed`] if `to` is less; that of the tiles.
pub fn consistency<T: Tiles + ?Sized>(tiles: &T, from: u64, to: u64) -> Result<Vec<TreeHash>, T::Error> {
    if from > to {
        return Err(Malformed::Length("tree").into());
    }
    let (mut start, mut end) = (0_u64, to);
    let mut proof = Vec::new();
    while from != 0 && from != end {
        let Some(middle) = middle(start, end) else { break };
        if from <= middle {
            proof.push(range(tiles, middle, end)?);
            end = middle;
        } else {
            proof.push(range(tiles, start, middle)?);
            start = middle;
        }
    }
    if start != 0 {
        proof.push(range(tiles, start, end)?);
    }
    proof.reverse();
    Ok(proof)
}

/// Checks that the leaf with this hash is at `index` in the tree of `size` leaves with this root (RFC 9162, section 2.1.3.2).
///
/// # Errors
/// [`PeerMisbehaved::Mismatch`] if it is not.
pub fn verify_inclusion(
    leaf: &TreeHash,
    index: u64,
    size: u64,
    proof: &[TreeHash],
    root: &TreeHash,
) -> Result<(), PeerMisbehaved> {
    let wrong = PeerMisbehaved::Mismatch("the inclusion proof");
    if index >= size {
        return Err(wrong);
    }
    let (mut at, mut last, mut hash) = (index, size.saturating_sub(1), *leaf);
    for beside in proof {
        if last == 0 {
            return Err(wrong);
        }
        if at & 1 == 1 || at == last {
            hash = TreeHash::node(beside, &hash);
            while at & 1 == 0 && at != 0 {
                (at, last) = (at >> 1, last >> 1);
            }
        } else {
            hash = TreeHash::node(&hash, beside);
        }
        (at, last) = (at >> 1, last >> 1);
    }
    if last == 0 && hash == *root { Ok(()) } else { Err(wrong) }
}

/// Checks that the tree of `from` leaves with the one root is a beginning of that of `to` leaves with the other (RFC 9162, section
/// 2.1.4.2).
///
/// # Errors
/// [`PeerMisbehaved::Mismatch`] if it is not.
pub fn verify_consistency(
    (from, from_root): (u64, &TreeHash),
    (to, to_root): (u64, &TreeHash),
    proof: &[TreeHash],
) -> Result<(), PeerMisbehaved> {
    let wrong = PeerMisbehaved::Mismatch("the consistency proof");
    if from == 0 || from == to {
        let same = if from == to { from_root == to_root } else { *from_root == TreeHash::empty() };
        return if same && proof.is_empty() { Ok(()) } else { Err(wrong) };
    }
    if from > to {
        return Err(wrong);
    }
    // A tree of a power of two is a node of the greater one, and is left out of the proof.
    let first = if from.is_power_of_two() { Some(from_root) } else { None };
    let mut proof = first.into_iter().chain(proof);
    let Some(start) = proof.next() else { return Err(wrong) };
    let (mut at, mut last) = (from.saturating_sub(1), to.saturating_sub(1));
    while at & 1 == 1 {
        (at, last) = (at >> 1, last >> 1);
    }
    let (mut old, mut new) = (*start, *start);
    for beside in proof {
        if last == 0 {
            return Err(wrong);
        }
        if at & 1 == 1 || at == last {
            old = TreeHash::node(beside, &old);
            new = TreeHash::node(beside, &new);
            while at & 1 == 0 && at != 0 {
                (at, last) = (at >> 1, last >> 1);
            }
        } else {
            new = TreeHash::node(&new, beside);
        }
        (at, last) = (at >> 1, last >> 1);
    }
    if last == 0 && old == *from_root && new == *to_root { Ok(()) } else { Err(wrong) }
}

/// Where a tree of more than one leaf divides: after the largest power of two below its size.
fn middle(start: u64, end: u64) -> Option<u64> {
    let below = end.checked_sub(start)?.checked_sub(1)?.checked_ilog2()?;
    start.checked_add(1_u64.checked_shl(below)?)
}

/// The hash of the leaves from `start` up to, without, `end`; `start` is where a tree has divided.
fn range<T: Tiles + ?Sized>(tiles: &T, start: u64, end: u64) -> Result<TreeHash, T::Error> {
    let mut whole = Vec::new();
    let (mut at, mut left) = (start, end.saturating_sub(start));
    // From left to right: complete subtrees, each smaller than the one before.
    while let Some(height) = left.checked_ilog2() {
        whole.push(complete(tiles, at, height)?);
        let leaves = 1_u64.checked_shl(height).unwrap_or_default();
        (at, left) = (at.saturating_add(leaves), left.saturating_sub(leaves));
    }
    let last = whole.pop();
    let joined = last.map(|last| whole.iter().rev().fold(last, |right, left| TreeHash::node(left, &right)));
    Ok(joined.unwrap_or_else(TreeHash::empty))
}

/// The hash of the complete subtree of `2^height` leaves that begins at `start`.
fn complete<T: Tiles + ?Sized>(tiles: &T, start: u64, height: u32) -> Result<TreeHash, T::Error> {
    let (level, rest) = (height.div_euclid(TILE_HEIGHT), height.rem_euclid(TILE_HEIGHT));
    let first = start.checked_shr(level.saturating_mul(TILE_HEIGHT)).unwrap_or_default();
    let count = 1_u64.checked_shl(rest).unwrap_or_default();
    let level = u8::try_from(level).map_err(|_| Malformed::Length("tree"))?;
    let hashes = tiles.hashes(level, first, first.saturating_add(count))?;
    if hashes.len() as u64 != count {
        return Err(Malformed::Length("tile").into());
    }
    Ok(fold(hashes)?)
}

/// The hash over a power of two of hashes that stand side by side.
///
/// # Errors
/// [`Malformed`] if there are none, or not a power of two.
pub fn fold(mut hashes: Vec<TreeHash>) -> Result<TreeHash, Malformed> {
    while hashes.len() > 1 {
        let pair = |pair: &[TreeHash]| match pair {
            [left, right] => Ok(TreeHash::node(left, right)),
            _ => Err(Malformed::Length("tile")),
        };
        hashes = hashes.chunks(2).map(pair).collect::<Result<_, _>>()?;
    }
    hashes.first().copied().ok_or(Malformed::Length("tile"))
}
