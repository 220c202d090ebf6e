//! The audit log as a store keeps it: its leaves with their openings, and the hashes of its full tiles.
//!
//! Invariant: a leaf's index, number and predecessor are those of the moment at which it is applied, inside the transaction of its action.

use std::cell::RefCell;
use std::collections::BTreeMap;

use privity_protocol::error::Malformed;
use privity_protocol::ids::PersonId;
use privity_protocol::log::tree::{self, TILE_WIDTH, Tiles};
use privity_protocol::log::{Event, Last, Leaf, Opening, TreeHash};

use super::{Read, StoreError};

/// A leaf of the log, and what it commits to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogRow {
    /// Its index.
    pub index: u64,
    /// Its encoding.
    pub leaf: Vec<u8>,
    /// Its opening.
    pub opening: Opening,
}

/// A leaf about to be kept.
pub(super) struct NewLeaf {
    pub(super) row: LogRow,
    pub(super) last: Last,
}

impl NewLeaf {
    /// The leaf of an event, which has this place in what `store` has applied.
    pub(super) fn next(store: &dyn Read, person: Option<PersonId>, event: &Event) -> Result<Self, StoreError> {
        let (index, last) = (store.log_size()?, store.log_last(person)?);
        let opening = Opening::new(event);
        let leaf = Leaf::after(last.as_ref(), person, &opening);
        Ok(Self { last: leaf.last(), row: LogRow { index, leaf: leaf.encode(), opening } })
    }
}

/// The hash of the tile of `level - 1` that is full with a log of `size` leaves, with its number among those of `level`; none where
/// none has just become full.
pub(super) fn filled(store: &dyn Read, level: u8, size: u64) -> Result<Option<(u64, TreeHash)>, StoreError> {
    let leaves = TILE_WIDTH.checked_pow(u32::from(level));
    let Some(number) = leaves.filter(|leaves| size.is_multiple_of(*leaves)).map(|leaves| size / leaves - 1) else {
        return Ok(None);
    };
    let first = number * TILE_WIDTH;
    Ok(Some((number, tree::fold(store.log_hashes(level - 1, first, first + TILE_WIDTH)?)?)))
}

impl From<Malformed> for StoreError {
    /// Whatever the store has, it has written itself.
    fn from(_: Malformed) -> Self {
        Self::Damaged("audit log")
    }
}

/// A store's log, for making proofs: each tile is read once.
pub struct LogTiles<'a> {
    store: &'a dyn Read,
    size: u64,
    tiles: RefCell<BTreeMap<(u8, u64), Vec<TreeHash>>>,
}

impl std::fmt::Debug for LogTiles<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "LogTiles({})", self.size)
    }
}

impl<'a> LogTiles<'a> {
    /// The log that a store has at this moment.
    ///
    /// # Errors
    /// [`StoreError`] if it can't be read.
    pub fn of(store: &'a dyn Read) -> Result<Self, StoreError> {
        Ok(Self { store, size: store.log_size()?, tiles: RefCell::default() })
    }

    /// How many leaves it has.
    pub fn size(&self) -> u64 {
        self.size
    }
}

impl Tiles for LogTiles<'_> {
    type Error = StoreError;

    fn hashes(&self, level: u8, from: u64, until: u64) -> Result<Vec<TreeHash>, StoreError> {
        let number = from / TILE_WIDTH;
        if until > (number + 1) * TILE_WIDTH {
            return self.store.log_hashes(level, from, until);
        }
        let mut tiles = self.tiles.borrow_mut();
        let tile = match tiles.entry((level, number)) {
            std::collections::btree_map::Entry::Occupied(tile) => tile.into_mut(),
            std::collections::btree_map::Entry::Vacant(place) => {
                let full = TILE_WIDTH.checked_pow(u32::from(level)).map_or(0, |leaves| self.size / leaves);
                let first = number * TILE_WIDTH;
                place.insert(self.store.log_hashes(level, first, full.min(first + TILE_WIDTH))?)
            }
        };
        let place = |at: u64| usize::try_from(at - number * TILE_WIDTH).ok();
        let found = place(from).zip(place(until)).and_then(|(from, until)| tile.get(from..until));
        found.map(<[TreeHash]>::to_vec).ok_or(StoreError::Damaged("audit log"))
    }
}
