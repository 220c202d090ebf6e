//! The link's opening, both sides: hello → admitted → live.
//!
//! ```text
//!  device                                             relay
//!    │── TLS 1.3: X25519MLKEM768, raw ML-DSA-65 keys ───│   quantum-safe half of both proofs
//!    │── Hello { link key, Ed25519 over exporter } ────▶│   Claimed::read, then looked up in the directory
//!    │◀── Admitted { relay key, Ed25519 over exporter } ─│   Claimed::admit
//!    │   Opening::admitted: checks pin, then live       │
//! ```
//!
//! Each state is consumed by the next. Invariant: both ends prove both halves of a hybrid key over this very connection (the TLS
//! exporter, RFC 8446 section 7.5), and a device that knows its relay's key sends nothing before TLS has
//! proved its ML-DSA-65 half; the Ed25519 half is checked before anything after the hello is believed.

use crate::cbor;
use crate::error::{Error, Malformed, Misuse, PeerMisbehaved, Refused};
use crate::frame::{Admitted, AdmittedBody, Hello, HelloBody, Instance, VERSION, VERSION_LOWEST};
use crate::ids::{DeviceId, base32};
use crate::suite::{Fingerprint, Label, PublicKey, SecretKey};

/// The exporter's label.
pub const EXPORTER_LABEL: &[u8] = b"EXPORTER-privity/1 hello";
/// Bytes of the exporter.
pub const EXPORTER_LEN: usize = 48;

/// What a connection gives: its exporter, and the ML-DSA-65 key of the other end.
#[derive(Debug, Clone)]
pub struct Channel {
    /// [`EXPORTER_LEN`] bytes under [`EXPORTER_LABEL`], empty context.
    pub exporter: [u8; EXPORTER_LEN],
    /// The raw public key (FIPS 204) that the other end proved in TLS.
    pub peer_ml_dsa: Vec<u8>,
}

/// What a device expects of a relay.
#[derive(Debug, Clone)]
pub enum Pin {
    /// An invite's fingerprint.
    Fingerprint(Fingerprint),
    /// The whole key, from the vault.
    Key(PublicKey),
    /// None yet: what the relay shows is believed for nothing but what a recovery sheet's secret opens.
    Unknown,
}

impl Pin {
    /// What a device calls the relay in TLS, so that one whose key has been replaced shows the pinned one.
    pub fn server_name(&self) -> String {
        match self {
            Self::Fingerprint(fingerprint) => server_name(fingerprint),
            Self::Key(key) => server_name(&key.fingerprint()),
            // A relay shows its newest to whoever names none of its keys.
            Self::Unknown => "newest.privity".to_owned(),
        }
    }
}

/// The TLS server name (RFC 6066) by which a device asks for the relay's key with this fingerprint.
pub fn server_name(relay: &Fingerprint) -> String {
    format!("{}.privity", base32().encode(relay.as_bytes()))
}

/// A device that has sent its hello.
#[derive(Debug)]
pub struct Opening {
    channel: Channel,
    pin: Pin,
}

impl Opening {
    /// The device's first frame. `device`, with its instance, is none for a newcomer.
    ///
    /// # Errors
    /// [`Misuse::Crypto`] if the library fails.
    pub fn hello(
        channel: Channel,
        pin: Pin,
        device: Option<(DeviceId, Instance)>,
        link_key: &SecretKey,
        agent: &str,
    ) -> Result<(Self, Hello), Misuse> {
        let body = cbor::encode(&HelloBody {
            newest: VERSION,
            lowest: VERSION_LOWEST,
            device: device.map(|(device, _)| device),
            link_key: link_key.public()?,
            agent: agent.to_owned(),
            instance: device.map(|(_, instance)| instance),
        });
        let signature = link_key.sign_ed25519(Label::HelloDevice, &bound(&channel, &body))?;
        Ok((Self { channel, pin }, Hello { body, signature }))
    }

    /// The relay's answer, if it is the relay that was pinned.
    ///
    /// # Errors
    /// [`PeerMisbehaved::WrongKey`] for another relay, [`PeerMisbehaved::Signature`] for a proof of another connection.
    pub fn admitted(self, admitted: &Admitted) -> Result<AdmittedBody, Error> {
        let body: AdmittedBody = cbor::decode(&admitted.body, "relay's answer")?;
        let pinned = match &self.pin {
            Pin::Fingerprint(fingerprint) => body.relay_key.fingerprint() == *fingerprint,
            Pin::Key(key) => body.relay_key == *key,
            Pin::Unknown => true,
        };
        if !pinned || body.relay_key.ml_dsa() != self.channel.peer_ml_dsa {
            return Err(PeerMisbehaved::WrongKey("the relay's key").into());
        }
        let message = bound(&self.channel, &admitted.body);
        body.relay_key.verify_ed25519(Label::HelloRelay, &message, &admitted.signature, "relay's answer")?;
        if body.version < VERSION_LOWEST || body.version > VERSION {
            return Err(Refused::Version.into());
        }
        Ok(body)
    }
}

/// A hello whose proofs hold; whether the device is known is the relay's to look up.
#[derive(Debug)]
pub struct Claimed {
    channel: Channel,
    /// What the hello says.
    pub body: HelloBody,
    /// The version both speak.
    pub version: u16,
}

impl Claimed {
    /// Reads and verifies a hello.
    ///
    /// # Errors
    /// [`Malformed`]; [`PeerMisbehaved`] for a proof of another connection or key; [`Refused::Version`].
    pub fn read(channel: Channel, hello: &Hello) -> Result<Self, Error> {
        let body: HelloBody = cbor::decode(&hello.body, "hello")?;
        if body.agent.len() > 64 {
            return Err(Malformed::TooLarge { what: "agent", limit: 64 }.into());
        }
        if body.link_key.ml_dsa() != channel.peer_ml_dsa {
            return Err(PeerMisbehaved::WrongKey("the link key").into());
        }
        let message = bound(&channel, &hello.body);
        body.link_key.verify_ed25519(Label::HelloDevice, &message, &hello.signature, "hello")?;
        let version = body.newest.min(VERSION);
        if version < body.lowest || version < VERSION_LOWEST {
            return Err(Refused::Version.into());
        }
        Ok(Self { channel, body, version })
    }

    /// The relay's answer, signed.
    ///
    /// # Errors
    /// [`Misuse::Crypto`] if the library fails.
    pub fn admit(self, body: &AdmittedBody, relay_key: &SecretKey) -> Result<Admitted, Misuse> {
        let body = cbor::encode(body);
        let signature = relay_key.sign_ed25519(Label::HelloRelay, &bound(&self.channel, &body))?;
        Ok(Admitted { body, signature })
    }
}

fn bound(channel: &Channel, body: &[u8]) -> Vec<u8> {
    [&channel.exporter[..], body].concat()
}

#[cfg(test)]
#[path = "link/tests.rs"]
mod tests;
