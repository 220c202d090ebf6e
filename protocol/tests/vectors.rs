//! Known answers, so that another implementation can be held against this one: `vectors/*.json`, each reproduced here, or, where
//! something in it is random, opened and verified.
//!
//! `PRIVITY_BLESS=1` rewrites what is computed, and makes what is recorded where the file is missing: delete it to have another.

#![expect(clippy::unwrap_used, clippy::panic, reason = "used by tests alone")]

use std::sync::{Mutex, PoisonError};

use privity_protocol::suite::SecretKey;
use serde::Serialize;
use serde::de::DeserializeOwned;

#[path = "vectors/by_hand.rs"]
mod by_hand;
#[path = "vectors/identity.rs"]
mod identity;
#[path = "common/json.rs"]
mod json;
#[path = "vectors/log.rs"]
mod log;
#[path = "vectors/matter.rs"]
mod matter;
#[path = "vectors/note.rs"]
mod note;
#[path = "vectors/record.rs"]
mod record;
#[path = "vectors/rotation.rs"]
mod rotation;
#[path = "vectors/suite.rs"]
mod suite;
#[path = "vectors/wire.rs"]
mod wire;

const SCHEMA: &str = include_str!("../privity.cddl");

/// A private key that says which one it is in every byte, and its halves apart.
fn secret(number: u8) -> SecretKey {
    SecretKey::from_slice(&[[number; 32], [0x80 | number; 32]].concat()).unwrap()
}

/// The file of that name, which holds what is random; made if it is missing.
fn recorded<T: Serialize + DeserializeOwned>(name: &str, make: impl FnOnce() -> T) -> T {
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    if json::blessing() && !json::path(name).exists() {
        json::write(name, &make());
    }
    json::read(name)
}

/// Whether the bytes are what the schema's rule says.
fn follows(rule: &str, bytes: &[u8]) -> bool {
    cddl_cat::validate_cbor_bytes(rule, SCHEMA, bytes).is_ok()
}
