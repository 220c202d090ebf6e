//! Where a folder is put together that is to appear whole or not at all.
//!
//! 1. It is made beside where it goes, under a name that nothing has, and renamed in one step.
//! 2. Whoever makes it removes it where that fails; after a crash it stays, and the next attempt takes another name.
//!
//! Invariant: nothing that was there before is ever removed or written over.

use std::path::{Path, PathBuf};

use privity_protocol::suite;

use crate::start::RelayError;

/// Where a folder beside `out` may be made: `OUT.unfinished-` and eight random digits.
///
/// # Errors
/// [`RelayError::Exists`] if that is there, against all odds.
pub(crate) fn beside(out: &Path) -> Result<PathBuf, RelayError> {
    let mut name = out.file_name().unwrap_or_default().to_owned();
    name.push(format!(".unfinished-{:08x}", u32::from_be_bytes(suite::random())));
    let folder = out.with_file_name(name);
    if folder.exists() {
        return Err(RelayError::Exists(folder));
    }
    Ok(folder)
}
