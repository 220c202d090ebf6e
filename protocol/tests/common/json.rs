//! Vectors as files: JSON, bytes in hex. `PRIVITY_BLESS=1` writes what is computed again; run the tests once more after it.

use std::fmt;
use std::path::PathBuf;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Bytes, written in hex.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct Hex(pub(crate) Vec<u8>);

/// These bytes, to be written in hex.
pub(crate) fn hex(bytes: impl AsRef<[u8]>) -> Hex {
    Hex(bytes.as_ref().to_vec())
}

impl TryFrom<String> for Hex {
    type Error = data_encoding::DecodeError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        data_encoding::HEXLOWER.decode(text.as_bytes()).map(Self)
    }
}

impl From<Hex> for String {
    fn from(hex: Hex) -> Self {
        data_encoding::HEXLOWER.encode(&hex.0)
    }
}

impl fmt::Debug for Hex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&data_encoding::HEXLOWER.encode(&self.0))
    }
}

/// The file of that name, which must hold exactly `made`.
pub(crate) fn computed<T: Serialize + DeserializeOwned + PartialEq>(name: &str, made: &T) {
    if blessing() {
        write(name, made);
    }
    assert!(read::<T>(name) == *made, "the wire has changed: {name} holds something else");
}

/// The file of that name.
pub(crate) fn read<T: DeserializeOwned>(name: &str) -> T {
    let text = std::fs::read_to_string(path(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Makes the file of that name hold these vectors.
pub(crate) fn write<T: Serialize>(name: &str, vectors: &T) {
    let text = serde_json::to_string_pretty(vectors).unwrap();
    std::fs::write(path(name), text + "\n").unwrap();
}

/// Whether the vectors are to be written.
pub(crate) fn blessing() -> bool {
    std::env::var_os("PRIVITY_BLESS").is_some()
}

/// Where the file of that name is.
pub(crate) fn path(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "vectors", name].iter().collect()
}
