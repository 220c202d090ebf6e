//! Privity's protocol.
#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::arithmetic_side_effects))]

pub mod cbor;
pub mod content;
pub mod device;
pub mod envelope;
pub mod error;
pub mod frame;
pub mod identity;
pub mod ids;
pub mod invite;
pub mod limits;
pub mod link;
pub mod matter;
pub mod suite;
