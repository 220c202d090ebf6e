//! The transport that devices and the relay share: QUIC (RFC 9000) under TLS 1.3 with one key exchange, raw keys, and frames.
//!
//! - The only key exchange is X25519MLKEM768: a peer without it is refused, never downgraded.
//! - The only TLS suite is AES-256-GCM with SHA-384, and both ends prove a raw ML-DSA-65 key (RFC 7250). No certificates, no tickets
//!   (resumption would skip the proof), no 0-RTT.
//! - A frame is its length (four bytes, big-endian) and CBOR.
//!
//! A relay whose key was replaced has several. A device names the one that it pins as the server name, and is shown that one.
//!
//! Whose key it is, TLS does not judge: [`privity_protocol::link`] does, over the exporter of [`channel`].
//!
//! Invariant: whatever a peer sends, reading a frame allocates no more than the limit it was called with.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::hmac;
use aws_lc_rs::signature::{KeyPair, ML_DSA_65_SIGNING, PqdsaKeyPair};
use privity_protocol::error::Malformed;
use privity_protocol::link::{Channel, EXPORTER_LABEL, EXPORTER_LEN, server_name};
use privity_protocol::suite::{self, SecretKey};
use privity_protocol::{cbor, frame, limits};
use quinn::crypto::rustls::{HandshakeData, QuicClientConfig, QuicServerConfig};
use quinn::{
    Connection, ConnectionId, ConnectionIdGenerator, EndpointConfig, IdleTimeout, RecvStream, SendStream,
    TransportConfig, VarInt,
};
use rustls::client::AlwaysResolvesClientRawPublicKeys;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, aws_lc_rs as provider, verify_tls13_signature_with_raw_key,
};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{DigitallySignedStruct, DistinguishedName, SignatureScheme};

/// The close code of an orderly end.
pub const CLOSE_DONE: VarInt = VarInt::from_u32(0);
/// The close code for a peer that was refused; the reason stands in a frame before it.
pub const CLOSE_REFUSED: VarInt = VarInt::from_u32(1);
/// The close code of a relay that shuts down; devices reconnect.
pub const CLOSE_GOING: VarInt = VarInt::from_u32(2);

/// Bytes before the raw key in an ML-DSA-65 SubjectPublicKeyInfo.
const SPKI_PREFIX: usize = 22;
/// Flow-control window of a stream: what one peer can make the other buffer on it.
const STREAM_WINDOW: u32 = 256 * 1024;
/// Flow-control window of a connection.
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// Streams a peer may open at once: one for frames, the rest for what comes later.
const STREAMS: u32 = 4;

/// Bytes of the relay's connection ids.
const CONNECTION_ID_LEN: usize = 8;
/// How often the relay says that it does not know a connection, at most: a thousand devices within two seconds, each by less than
/// what it has sent.
const RESET_EVERY: Duration = Duration::from_millis(2);

/// Why a link could not be set up or went down.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TransportError {
    /// The TLS library refused the configuration.
    #[error("TLS configuration: {0}")]
    Tls(#[from] rustls::Error),
    /// A key does not work.
    #[error("the device's key does not load")]
    Key,
    /// The connection ended.
    #[error("the connection ended: {0}")]
    Connection(#[from] quinn::ConnectionError),
    /// Reading ended.
    #[error("the connection ended while reading: {0}")]
    Read(#[from] quinn::ReadExactError),
    /// Writing ended.
    #[error("the connection ended while writing: {0}")]
    Write(#[from] quinn::WriteError),
    /// A frame broke its format.
    #[error(transparent)]
    Malformed(#[from] Malformed),
}

/// The provider: aws-lc-rs with one key exchange and one suite.
fn crypto() -> CryptoProvider {
    CryptoProvider {
        cipher_suites: vec![provider::cipher_suite::TLS13_AES_256_GCM_SHA384],
        kx_groups: vec![provider::kx_group::X25519MLKEM768],
        ..provider::default_provider()
    }
}

/// A device's side of a connection.
///
/// # Errors
/// [`TransportError`] if the key or the configuration does not work.
pub fn client_config(link_key: &SecretKey) -> Result<quinn::ClientConfig, TransportError> {
    let crypto = Arc::new(crypto());
    let key = certified(link_key)?;
    let mut tls = rustls::ClientConfig::builder_with_provider(Arc::clone(&crypto))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(RawKeys(crypto.signature_verification_algorithms)))
        .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(key)));
    tls.alpn_protocols = vec![frame::ALPN.to_vec()];
    tls.resumption = rustls::client::Resumption::disabled();
    let quic = QuicClientConfig::with_initial(Arc::new(tls), initial_suite()?).map_err(|_| TransportError::Key)?;
    let mut config = quinn::ClientConfig::new(Arc::new(quic));
    let mut transport = transport_config();
    transport.keep_alive_interval(Some(Duration::from_millis(limits::IDLE_MS / 4)));
    config.transport_config(Arc::new(transport));
    Ok(config)
}

/// The relay's side of a connection.
///
/// # Errors
/// [`TransportError`] if the key or the configuration does not work.
pub fn server_config(relay_key: &SecretKey) -> Result<quinn::ServerConfig, TransportError> {
    server_config_of(std::slice::from_ref(relay_key))
}

/// The relay's side of a connection, with every key that devices may have pinned. The first is shown to whoever names none of them.
///
/// # Errors
/// [`TransportError`] if a key or the configuration does not work, or there is none.
pub fn server_config_of(relay_keys: &[SecretKey]) -> Result<quinn::ServerConfig, TransportError> {
    let crypto = Arc::new(crypto());
    let keys = RelayKeys::new(relay_keys)?;
    let mut tls = rustls::ServerConfig::builder_with_provider(Arc::clone(&crypto))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(Arc::new(RawKeys(crypto.signature_verification_algorithms)))
        .with_cert_resolver(Arc::new(keys));
    tls.alpn_protocols = vec![frame::ALPN.to_vec()];
    tls.send_tls13_tickets = 0;
    tls.max_early_data_size = 0;
    let quic = QuicServerConfig::with_initial(Arc::new(tls), initial_suite()?).map_err(|_| TransportError::Key)?;
    let mut config = quinn::ServerConfig::with_crypto(Arc::new(quic));
    config.transport_config(Arc::new(transport_config()));
    config.migration(true);
    Ok(config)
}

/// The relay's end of its socket. Stateless resets (RFC 9000, section 10.3) are made with a key that outlives the process: a device whose
/// connection is gone with one that was killed hears so at its next packet, and comes back at once.
pub fn endpoint_config(relay_key: &SecretKey) -> EndpointConfig {
    let seed = suite::derive::<64>(relay_key.as_bytes(), b"privity/1 stateless reset");
    let mut config = EndpointConfig::new(Arc::new(hmac::Key::new(hmac::HMAC_SHA256, &*seed)));
    config.cid_generator(|| Box::new(RandomIds)).min_reset_interval(RESET_EVERY);
    config
}

/// Connection ids that are random and nothing else: those of the process before are no less good for a reset than one's own.
#[derive(Debug)]
struct RandomIds;

impl ConnectionIdGenerator for RandomIds {
    fn generate_cid(&mut self) -> ConnectionId {
        ConnectionId::new(&suite::random::<CONNECTION_ID_LEN>())
    }

    fn cid_len(&self) -> usize {
        CONNECTION_ID_LEN
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

/// Bounded windows and streams: what a peer that withholds can pin.
fn transport_config() -> TransportConfig {
    let mut transport = TransportConfig::default();
    transport.stream_receive_window(VarInt::from_u32(STREAM_WINDOW));
    transport.receive_window(VarInt::from_u32(CONNECTION_WINDOW));
    transport.send_window(u64::from(CONNECTION_WINDOW));
    transport.max_concurrent_bidi_streams(VarInt::from_u32(STREAMS));
    transport.max_concurrent_uni_streams(VarInt::from_u32(0));
    transport.datagram_receive_buffer_size(None);
    let idle = VarInt::from_u32(u32::try_from(limits::IDLE_MS).unwrap_or(u32::MAX));
    transport.max_idle_timeout(Some(IdleTimeout::from(idle)));
    transport
}

/// QUIC's Initial packets are always AES-128-GCM (RFC 9001, section 5.2); nothing secret travels in them.
fn initial_suite() -> Result<rustls::quic::Suite, TransportError> {
    provider::cipher_suite::TLS13_AES_128_GCM_SHA256
        .tls13()
        .and_then(rustls::Tls13CipherSuite::quic_suite)
        .ok_or(TransportError::Key)
}

/// The ML-DSA-65 half of a link key as a raw public key.
fn certified(key: &SecretKey) -> Result<Arc<CertifiedKey>, TransportError> {
    let pair = PqdsaKeyPair::from_seed(&ML_DSA_65_SIGNING, key.ml_dsa_seed()).map_err(|_| TransportError::Key)?;
    let spki = pair.public_key().as_der().map_err(|_| TransportError::Key)?;
    let pkcs8 = pair.to_pkcs8v1().map_err(|_| TransportError::Key)?;
    let private = PrivatePkcs8KeyDer::from(pkcs8.as_ref().to_vec());
    let signing = provider::sign::any_supported_type(&private.into())?;
    Ok(Arc::new(CertifiedKey::new(vec![CertificateDer::from(spki.as_ref().to_vec())], signing)))
}

/// The server name that a device has asked for.
pub fn asked_for(connection: &Connection) -> Option<String> {
    let data = connection.handshake_data()?.downcast::<HandshakeData>().ok()?;
    data.server_name
}

/// What a connection proved: its exporter and the other end's raw key.
///
/// # Errors
/// [`TransportError::Key`] if the other end proved no raw ML-DSA-65 key.
pub fn channel(connection: &Connection) -> Result<Channel, TransportError> {
    let mut exporter = [0; EXPORTER_LEN];
    connection.export_keying_material(&mut exporter, EXPORTER_LABEL, b"").map_err(|_| TransportError::Key)?;
    let identity = connection.peer_identity().ok_or(TransportError::Key)?;
    let keys = identity.downcast::<Vec<CertificateDer<'static>>>().map_err(|_| TransportError::Key)?;
    let spki = keys.first().ok_or(TransportError::Key)?;
    let peer_ml_dsa = spki.get(SPKI_PREFIX..).ok_or(TransportError::Key)?.to_vec();
    Ok(Channel { exporter, peer_ml_dsa })
}

/// Writes one frame.
///
/// # Errors
/// [`TransportError`] if it is too large or the connection ends.
pub async fn write<T: minicbor::Encode<()>>(stream: &mut SendStream, frame: &T) -> Result<(), TransportError> {
    stream.write_all(&frame::to_wire(frame)?).await?;
    Ok(())
}

/// Reads one frame of at most `limit` bytes.
///
/// # Errors
/// [`TransportError`] if it is larger, does not decode, or the connection ends.
pub async fn read<T: for<'b> minicbor::Decode<'b, ()>>(
    stream: &mut RecvStream,
    limit: usize,
) -> Result<T, TransportError> {
    let mut length = [0; frame::LENGTH_LEN];
    stream.read_exact(&mut length).await?;
    let length = frame::announced(length, limit)?;
    let mut bytes = Vec::new();
    while bytes.len() < length {
        let step = (length - bytes.len()).min(64 * 1024);
        let from = bytes.len();
        bytes.resize(from + step, 0);
        stream.read_exact(&mut bytes[from..]).await?;
    }
    Ok(cbor::decode(&bytes, "frame")?)
}

/// The relay's keys by the names that devices ask for.
#[derive(Debug)]
struct RelayKeys {
    newest: Arc<CertifiedKey>,
    by_name: BTreeMap<String, Arc<CertifiedKey>>,
}

impl RelayKeys {
    fn new(keys: &[SecretKey]) -> Result<Self, TransportError> {
        let named = |key: &SecretKey| {
            let public = key.public().map_err(|_| TransportError::Key)?;
            Ok::<_, TransportError>((server_name(&public.fingerprint()), certified(key)?))
        };
        let newest = certified(keys.first().ok_or(TransportError::Key)?)?;
        Ok(Self { newest, by_name: keys.iter().map(named).collect::<Result<_, _>>()? })
    }
}

impl ResolvesServerCert for RelayKeys {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let named = hello.server_name().and_then(|name| self.by_name.get(name));
        Some(Arc::clone(named.unwrap_or(&self.newest)))
    }

    fn only_raw_public_keys(&self) -> bool {
        true
    }
}

/// Accepts any raw ML-DSA-65 key that signs the handshake: whose it is, the hello tells.
#[derive(Debug)]
struct RawKeys(WebPkiSupportedAlgorithms);

impl RawKeys {
    fn shape(key: &CertificateDer<'_>) -> Result<(), rustls::Error> {
        let refused = rustls::Error::General("not a raw ML-DSA-65 key".to_owned());
        if key.len() == SPKI_PREFIX + 1952 { Ok(()) } else { Err(refused) }
    }

    fn signed(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        if signature.scheme != SignatureScheme::ML_DSA_65 {
            return Err(rustls::Error::General("not signed with ML-DSA-65".to_owned()));
        }
        let spki = SubjectPublicKeyInfoDer::from(key.as_ref());
        verify_tls13_signature_with_raw_key(message, &spki, signature, &self.0)
    }

    fn never() -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.3 only".to_owned()))
    }
}

impl ServerCertVerifier for RawKeys {
    fn verify_server_cert(
        &self,
        key: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Self::shape(key)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Self::never()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.signed(message, key, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ML_DSA_65]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

impl ClientCertVerifier for RawKeys {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        key: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Self::shape(key)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Self::never()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.signed(message, key, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ML_DSA_65]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests;
