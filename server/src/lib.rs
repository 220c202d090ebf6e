//! The relay: stores and forwards envelopes, and keeps the directory. Never sees plaintext or keys.
//!
//! `main → start, setup, restore → quic, config → relay, policy → store → protocol`. The rules ([`relay`], [`policy`]) are pure; `writer` makes
//! what they decide durable; `audit` signs and publishes the log of it; `quic` carries frames.
//!
//! A relay in a few lines, for a test or a program of one's own:
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! # let data = folder.path();
//! # let free = std::net::UdpSocket::bind("127.0.0.1:0")?.local_addr()?;
//! use privity_server::{Relay, config::Config, setup};
//!
//! let invite = setup::init(data, &Config::new("Smith & Partners", free, None)?)?;
//! let relay = Relay::start(data)?;
//! println!("{} listens at {}", invite.url, relay.address());
//! relay.stop()?;
//! # Ok(())
//! # }
//! ```

pub mod audit;
pub mod backup;
pub mod clock;
pub mod config;
mod hub;
pub mod keys;
pub mod policy;
mod quic;
pub mod relay;
pub mod restore;
pub mod setup;
mod start;
pub mod store;
mod unfinished;
mod writer;

pub use start::{Relay, RelayError};
