//! What `mls-rs` stores, kept in memory: the vault takes it from here in one batch with everything else.
//!
//! Invariant: nothing here is durable; whoever uses a key package or changes a state persists what [`KeyPackages`] and [`Saved`] then hold.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt;
use std::sync::{Arc, Mutex};

use mls_rs::extension::recommended::LastResortKeyPackageExt;
use mls_rs::{GroupStateStorage, KeyPackageStorage, MlsMessage};
use mls_rs_core::group::{EpochRecord, GroupState};
use mls_rs_core::key_package::KeyPackageData;
use zeroize::Zeroizing;

use super::lock;
use crate::error::Misuse;

/// Whether a key package says of itself that it may be used again and again. Its owner has signed that.
pub fn is_last_resort(package: &[u8]) -> bool {
    let package = MlsMessage::from_bytes(package).ok().and_then(MlsMessage::into_key_package);
    package.is_some_and(|package| matches!(package.extensions.get_as::<LastResortKeyPackageExt>(), Ok(Some(_))))
}

/// The private halves of this device's key packages, in memory; the vault keeps them.
#[derive(Clone, Default)]
pub struct KeyPackages(pub(super) Arc<Mutex<BTreeMap<Vec<u8>, KeyPackageData>>>);

impl KeyPackages {
    /// Puts back what the vault kept.
    ///
    /// # Errors
    /// [`Misuse::State`] if it does not decode.
    pub fn restore(&self, reference: Vec<u8>, secret: &[u8]) -> Result<(), Misuse> {
        use mls_rs::mls_rs_codec::MlsDecode;
        let data = KeyPackageData::mls_decode(&mut &*secret).map_err(|_| Misuse::State("key package"))?;
        lock(&self.0).insert(reference, data);
        Ok(())
    }

    /// The references of all of them.
    pub fn references(&self) -> Vec<Vec<u8>> {
        lock(&self.0).keys().cloned().collect()
    }

    /// Drops one.
    pub(crate) fn forget(&self, reference: &[u8]) {
        lock(&self.0).remove(reference);
    }

    /// All of them, as they are; to be put back by [`Self::reset`] if using one comes to nothing.
    pub(crate) fn snapshot(&self) -> Self {
        Self(Arc::new(Mutex::new(lock(&self.0).clone())))
    }

    /// Puts back what [`Self::snapshot`] took.
    pub(crate) fn reset(&self, snapshot: Self) {
        *lock(&self.0) = std::mem::take(&mut *lock(&snapshot.0));
    }

    /// Replaces the private leaf keys, and gives back all of them.
    #[cfg(test)]
    pub(crate) fn spoil_leaf_keys(&self) -> Vec<(Vec<u8>, Zeroizing<Vec<u8>>)> {
        lock(&self.0).values_mut().for_each(|data| data.leaf_node_key = crate::suite::random::<32>().to_vec().into());
        self.references().into_iter().map(|reference| (reference.clone(), self.secret(&reference).unwrap())).collect()
    }

    pub(super) fn secret(&self, reference: &[u8]) -> Result<Zeroizing<Vec<u8>>, Misuse> {
        use mls_rs::mls_rs_codec::MlsEncode;
        let packages = lock(&self.0);
        let data = packages.get(reference).ok_or(Misuse::State("key package"))?;
        data.mls_encode_to_vec().map(Zeroizing::new).map_err(|_| Misuse::State("key package"))
    }
}

impl fmt::Debug for KeyPackages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyPackages({})", lock(&self.0).len())
    }
}

impl KeyPackageStorage for KeyPackages {
    type Error = Infallible;

    fn delete(&mut self, id: &[u8]) -> Result<(), Infallible> {
        lock(&self.0).remove(id);
        Ok(())
    }

    fn insert(&mut self, id: Vec<u8>, package: KeyPackageData) -> Result<(), Infallible> {
        lock(&self.0).insert(id, package);
        Ok(())
    }

    fn get(&self, id: &[u8]) -> Result<Option<KeyPackageData>, Infallible> {
        Ok(lock(&self.0).get(id).cloned())
    }
}

/// The last saved state of one group.
#[derive(Clone, Default)]
pub(super) struct Saved(pub(super) Arc<Mutex<Option<Zeroizing<Vec<u8>>>>>);

impl GroupStateStorage for Saved {
    type Error = Infallible;

    fn state(&self, _: &[u8]) -> Result<Option<Zeroizing<Vec<u8>>>, Infallible> {
        Ok(lock(&self.0).clone())
    }

    fn epoch(&self, _: &[u8], _: u64) -> Result<Option<Zeroizing<Vec<u8>>>, Infallible> {
        Ok(None)
    }

    fn write(&mut self, state: GroupState, _: Vec<EpochRecord>, _: Vec<EpochRecord>) -> Result<(), Infallible> {
        *lock(&self.0) = Some(state.data);
        Ok(())
    }

    fn max_epoch_id(&self, _: &[u8]) -> Result<Option<u64>, Infallible> {
        Ok(None)
    }
}
