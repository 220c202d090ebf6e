//! The relay: stores and forwards envelopes, and keeps the directory. Never sees plaintext or keys.
//!
//! `main → quic, config → relay, policy → store → protocol`. The rules ([`relay`], [`policy`]) are pure; [`writer`] makes what they
//! decide durable; [`quic`] carries frames.

pub mod clock;
pub mod config;
pub mod hub;
pub mod policy;
pub mod quic;
pub mod relay;
pub mod store;
pub mod writer;
