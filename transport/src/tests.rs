//! Over real QUIC on the loopback: who is let in, by which key exchange and which key, and what reading costs.

use std::net::Ipv4Addr;

use privity_protocol::frame::{Request, ToRelay};
use quinn::Endpoint;
use rustls::server::AlwaysResolvesServerRawPublicKeys;
use rustls::sign::SigningKey;

use super::*;

const LIMIT: usize = limits::HELLO_MAX;

fn endpoint(config: Option<quinn::ServerConfig>) -> Endpoint {
    let address = (Ipv4Addr::LOCALHOST, 0).into();
    config.map_or_else(|| Endpoint::client(address), |config| Endpoint::server(config, address)).unwrap()
}

/// Tries to connect and say a frame; what the relay's side made of it, and what the device's side did.
async fn attempt(
    server: quinn::ServerConfig,
    client: quinn::ClientConfig,
) -> (Result<Channel, String>, Result<Channel, String>) {
    let relay = endpoint(Some(server));
    let address = relay.local_addr().unwrap();
    let accepted = tokio::spawn(async move {
        let connection = relay.accept().await.unwrap().await.map_err(|error| error.to_string())?;
        let (_send, mut receive) = connection.accept_bi().await.map_err(|error| error.to_string())?;
        let asked: ToRelay = read(&mut receive, LIMIT).await.map_err(|error| error.to_string())?;
        assert_eq!(asked.request, Request::People);
        let channel = channel(&connection).map_err(|error| error.to_string());
        connection.close(CLOSE_DONE, b"");
        relay.wait_idle().await;
        channel
    });
    let device = endpoint(None);
    let connected = async {
        let connecting = device.connect_with(client, address, "privity").map_err(|error| error.to_string())?;
        let connection = connecting.await.map_err(|error| error.to_string())?;
        let (mut send, _receive) = connection.open_bi().await.map_err(|error| error.to_string())?;
        write(&mut send, &ToRelay { id: 1, request: Request::People }).await.map_err(|error| error.to_string())?;
        let channel = channel(&connection).map_err(|error| error.to_string())?;
        connection.closed().await;
        Ok(channel)
    };
    let connected = connected.await;
    device.close(CLOSE_DONE, b"");
    (accepted.await.unwrap(), connected)
}

/// A device's configuration with another key exchange, key or kind of identity.
fn other_client(
    groups: &[&'static dyn rustls::crypto::SupportedKxGroup],
    key: Option<CertifiedKey>,
) -> quinn::ClientConfig {
    let provider = CryptoProvider { kx_groups: groups.to_vec(), ..provider::default_provider() };
    let builder = rustls::ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(RawKeys(crypto().signature_verification_algorithms)));
    let mut tls = match key {
        Some(key) => builder.with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(Arc::new(key)))),
        None => builder.with_no_client_auth(),
    };
    tls.alpn_protocols = vec![frame::ALPN.to_vec()];
    let quic = QuicClientConfig::with_initial(Arc::new(tls), initial_suite().unwrap()).unwrap();
    quinn::ClientConfig::new(Arc::new(quic))
}

fn hybrid() -> [&'static dyn rustls::crypto::SupportedKxGroup; 1] {
    [provider::kx_group::X25519MLKEM768]
}

fn ed25519() -> CertifiedKey {
    let pair = aws_lc_rs::signature::Ed25519KeyPair::generate().unwrap();
    let pkcs8 = pair.to_pkcs8v1().unwrap();
    let private = PrivatePkcs8KeyDer::from(pkcs8.as_ref().to_vec());
    let signing: Arc<dyn SigningKey> = provider::sign::any_supported_type(&private.into()).unwrap();
    let spki = signing.public_key().unwrap();
    CertifiedKey::new(vec![CertificateDer::from(spki.as_ref().to_vec())], signing)
}

#[tokio::test]
async fn both_ends_see_each_others_key_and_one_exporter() {
    let (relay, device) = (SecretKey::generate(), SecretKey::generate());
    let (accepted, connected) = attempt(server_config(&relay).unwrap(), client_config(&device).unwrap()).await;
    let (accepted, connected) = (accepted.unwrap(), connected.unwrap());
    assert_eq!(accepted.exporter, connected.exporter);
    assert_eq!(accepted.peer_ml_dsa, device.public().unwrap().ml_dsa());
    assert_eq!(connected.peer_ml_dsa, relay.public().unwrap().ml_dsa());
    let (again, _) = attempt(server_config(&relay).unwrap(), client_config(&device).unwrap()).await;
    assert_ne!(again.unwrap().exporter, accepted.exporter, "two connections have one exporter");
}

#[tokio::test]
async fn a_device_that_offers_only_classical_key_exchange_is_refused() {
    let relay = SecretKey::generate();
    let key = certified(&SecretKey::generate()).unwrap();
    let key = || CertifiedKey::new(key.cert.clone(), Arc::clone(&key.key));
    for group in [provider::kx_group::X25519, provider::kx_group::SECP256R1, provider::kx_group::MLKEM768] {
        let (accepted, connected) = attempt(server_config(&relay).unwrap(), other_client(&[group], Some(key()))).await;
        assert!(accepted.is_err() && connected.is_err(), "{group:?}: {accepted:?}");
    }
    let (accepted, _) = attempt(server_config(&relay).unwrap(), other_client(&hybrid(), Some(key()))).await;
    accepted.expect("the same device with the hybrid exchange");
}

#[tokio::test]
async fn a_relay_that_offers_only_classical_key_exchange_is_refused() {
    let key = certified(&SecretKey::generate()).unwrap();
    let provider = CryptoProvider { kx_groups: vec![provider::kx_group::X25519], ..provider::default_provider() };
    let mut tls = rustls::ServerConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_client_cert_verifier(Arc::new(RawKeys(crypto().signature_verification_algorithms)))
        .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(key)));
    tls.alpn_protocols = vec![frame::ALPN.to_vec()];
    let quic = QuicServerConfig::with_initial(Arc::new(tls), initial_suite().unwrap()).unwrap();
    let classical = quinn::ServerConfig::with_crypto(Arc::new(quic));
    let (accepted, connected) = attempt(classical, client_config(&SecretKey::generate()).unwrap()).await;
    assert!(accepted.is_err() && connected.is_err());
}

#[tokio::test]
async fn a_device_with_another_kind_of_key_or_none_is_refused() {
    let relay = SecretKey::generate();
    for key in [Some(ed25519()), None] {
        let named = key.is_some();
        let (accepted, _) = attempt(server_config(&relay).unwrap(), other_client(&hybrid(), key)).await;
        assert!(accepted.is_err(), "with a key: {named}");
    }
}

/// A key that is shown, but whose owner is somebody else.
#[tokio::test]
async fn a_device_that_shows_a_key_it_does_not_hold_is_refused() {
    let relay = SecretKey::generate();
    let shown = certified(&SecretKey::generate()).unwrap();
    let held = certified(&SecretKey::generate()).unwrap();
    let stolen = CertifiedKey::new(shown.cert.clone(), Arc::clone(&held.key));
    let (accepted, _) = attempt(server_config(&relay).unwrap(), other_client(&hybrid(), Some(stolen))).await;
    assert!(accepted.is_err());
}

/// X.509 (RFC 5280) instead of a raw key: the relay neither asks for it nor takes it.
#[tokio::test]
async fn a_device_with_a_certificate_is_refused() {
    let relay = SecretKey::generate();
    let provider = CryptoProvider { kx_groups: hybrid().to_vec(), ..provider::default_provider() };
    let key = certified(&SecretKey::generate()).unwrap();
    let key = CertifiedKey::new(key.cert.clone(), Arc::clone(&key.key));
    let mut tls = rustls::ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(RawKeys(crypto().signature_verification_algorithms)))
        .with_client_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(key)));
    tls.alpn_protocols = vec![frame::ALPN.to_vec()];
    let quic = QuicClientConfig::with_initial(Arc::new(tls), initial_suite().unwrap()).unwrap();
    let (accepted, _) = attempt(server_config(&relay).unwrap(), quinn::ClientConfig::new(Arc::new(quic))).await;
    assert!(accepted.is_err());
}

#[tokio::test]
async fn a_device_of_another_protocol_is_refused() {
    let relay = SecretKey::generate();
    let key = certified(&SecretKey::generate()).unwrap();
    let mut tls = rustls::ClientConfig::builder_with_provider(Arc::new(crypto()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(RawKeys(crypto().signature_verification_algorithms)))
        .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(key)));
    tls.alpn_protocols = vec![b"privity/2".to_vec()];
    let quic = QuicClientConfig::with_initial(Arc::new(tls), initial_suite().unwrap()).unwrap();
    let (accepted, connected) = attempt(server_config(&relay).unwrap(), quinn::ClientConfig::new(Arc::new(quic))).await;
    assert!(accepted.is_err() && connected.is_err());
}

/// Writes bytes on a stream of a good connection and reads a frame of them.
async fn read_of(bytes: Vec<u8>, limit: usize) -> Result<ToRelay, TransportError> {
    let relay = endpoint(Some(server_config(&SecretKey::generate()).unwrap()));
    let address = relay.local_addr().unwrap();
    let reading = tokio::spawn(async move {
        let connection = relay.accept().await.unwrap().await.unwrap();
        let (_send, mut receive) = connection.accept_bi().await.unwrap();
        read::<ToRelay>(&mut receive, limit).await
    });
    let device = endpoint(None);
    let config = client_config(&SecretKey::generate()).unwrap();
    let connection = device.connect_with(config, address, "privity").unwrap().await.unwrap();
    let (mut send, _receive) = connection.open_bi().await.unwrap();
    send.write_all(&bytes).await.unwrap();
    send.finish().unwrap();
    reading.await.unwrap()
}

#[tokio::test]
async fn a_frame_above_its_limit_is_refused_by_its_length_alone() {
    let over = u32::try_from(LIMIT + 1).unwrap();
    for length in [over, u32::MAX] {
        // Nothing follows the length: were it believed, reading would wait for more and end otherwise.
        let refused = read_of(length.to_be_bytes().to_vec(), LIMIT).await.unwrap_err();
        assert!(matches!(refused, TransportError::Malformed(Malformed::TooLarge { .. })), "{refused}");
    }
    let good = frame::to_wire(&ToRelay { id: 1, request: Request::People }).unwrap();
    assert_eq!(read_of(good.clone(), good.len() - 4).await.unwrap().id, 1);
    assert!(read_of(good.clone(), good.len() - 5).await.is_err());
    let cut = read_of(good[..good.len() - 1].to_vec(), LIMIT).await.unwrap_err();
    assert!(matches!(cut, TransportError::Read(_)), "{cut}");
    let nonsense = read_of([&1_u32.to_be_bytes()[..], &[0xff]].concat(), LIMIT).await.unwrap_err();
    assert!(matches!(nonsense, TransportError::Malformed(Malformed::Cbor(_))), "{nonsense}");
}

/// The key that a relay with these shows to a device that asks for that name.
async fn shown(keys: &[SecretKey], name: &str) -> (Vec<u8>, Option<String>) {
    let relay = endpoint(Some(server_config_of(keys).unwrap()));
    let address = relay.local_addr().unwrap();
    let accepting = tokio::spawn(async move {
        let connection = relay.accept().await.unwrap().await.unwrap();
        let asked = asked_for(&connection);
        connection.closed().await;
        asked
    });
    let device = endpoint(None);
    let config = client_config(&SecretKey::generate()).unwrap();
    let connection = device.connect_with(config, address, name).unwrap().await.unwrap();
    let key = channel(&connection).unwrap().peer_ml_dsa;
    connection.close(CLOSE_DONE, b"");
    device.wait_idle().await;
    (key, accepting.await.unwrap())
}

#[tokio::test]
async fn a_relay_shows_the_key_that_a_device_asks_for_and_else_its_newest() {
    let keys = [SecretKey::generate(), SecretKey::generate(), SecretKey::generate()];
    let public = keys.each_ref().map(|key| key.public().unwrap());
    for key in &public {
        let name = server_name(&key.fingerprint());
        let (shown, asked) = shown(&keys, &name).await;
        assert_eq!(shown, key.ml_dsa());
        assert_eq!(asked, Some(name), "the relay knows which it has shown");
    }
    let stranger = server_name(&SecretKey::generate().public().unwrap().fingerprint());
    for (name, asked) in
        [(stranger.as_str(), Some(stranger.clone())), ("privity", Some("privity".to_owned())), ("127.0.0.1", None)]
    {
        assert_eq!(shown(&keys, name).await, (public[0].ml_dsa().to_vec(), asked), "{name}");
    }
    assert!(server_config_of(&[]).is_err());
}

/// Without one key for both processes the device hears of it a minute later, when the connection has been idle for too long.
#[tokio::test]
async fn a_device_hears_at_its_next_packet_that_the_relay_was_killed() {
    let key = SecretKey::generate();
    let listen = |key: &SecretKey, socket| {
        Endpoint::new(endpoint_config(key), Some(server_config(key).unwrap()), socket, Arc::new(quinn::TokioRuntime))
    };
    let socket = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let (address, kept) = (socket.local_addr().unwrap(), socket.try_clone().unwrap());
    // A process that is killed says nothing any more: its runtime goes with everything in it.
    let killed = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let before = key.clone();
    let accepting = killed.spawn(async move {
        let relay = listen(&before, socket).unwrap();
        let connection = relay.accept().await.unwrap().await.unwrap();
        (relay, connection)
    });
    let device = endpoint(None);
    let config = client_config(&SecretKey::generate()).unwrap();
    let connection = device.connect_with(config, address, "privity").unwrap().await.unwrap();
    let accepted = accepting.await.unwrap();
    killed.shutdown_background();
    std::mem::forget(accepted);
    let _relay = listen(&key, kept).unwrap();
    let (mut send, _receive) = connection.open_bi().await.unwrap();
    send.write_all(b"anybody there?").await.unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(20), connection.closed()).await.unwrap();
    assert_eq!(ended, quinn::ConnectionError::Reset);
}
