//! CBOR in and out (RFC 8949): one way to encode, one way to decode, both bounded.
//!
//! Invariant: a value decodes only if its bytes hold nothing after it.

use minicbor::{Decode, Encode};

use crate::error::Malformed;

/// The value's encoding. Writing to memory does not fail.
pub fn encode<T: Encode<()>>(value: &T) -> Vec<u8> {
    minicbor::to_vec(value).unwrap_or_default()
}

/// The value that `bytes` encode, and nothing but it.
///
/// # Errors
/// [`Malformed::Cbor`], naming `what`, if they are anything else.
pub fn decode<'b, T: Decode<'b, ()>>(bytes: &'b [u8], what: &'static str) -> Result<T, Malformed> {
    let mut decoder = minicbor::Decoder::new(bytes);
    let value = decoder.decode().map_err(|_| Malformed::Cbor(what))?;
    if decoder.position() == bytes.len() { Ok(value) } else { Err(Malformed::Cbor(what)) }
}
