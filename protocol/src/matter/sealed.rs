//! Key packages used outside a group: what one device seals to another by HPKE (RFC 9180), to the init key of one of its key packages.
//!
//! 1. [`check_key_package`] holds a key package against everything that RFC 9420, section 10.1 asks of it but the credential.
//! 2. [`seal_to`] seals to its init key, and names it by its reference.
//! 3. [`KeyPackages::open_sealed`] opens with the private half, which the reader then drops if it is for one use.
//!
//! Invariant: nothing is sealed to a key package whose own signature does not verify.

use mls_rs::external_client::ExternalClient;
use mls_rs::mls_rs_codec::MlsDecode;
use mls_rs::time::MlsTime;
use mls_rs::{KeyPackage, MlsMessage};
use mls_rs_core::crypto::{CipherSuiteProvider, HpkeCiphertext};
use zeroize::Zeroizing;

use super::judge::{Credentials, leaf_credential};
use super::{EXTENSION, ExtensionType, KeyPackages, LeafCredential, lock, void, void_message};
use crate::error::{Error, Malformed, Misuse, PeerMisbehaved};
use crate::limits;
use crate::suite::{PublicKey, Suite};

/// What was sealed to a key package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    /// The key package's reference.
    pub reference: Vec<u8>,
    /// The KEM's ciphertext.
    pub kem_output: Vec<u8>,
    /// The ciphertext.
    pub ciphertext: Vec<u8>,
}

/// The owner of a key package, and its signature key, once both of its signatures verify and its keys are what this suite takes. Whether the
/// owner is who they say is for the caller to find out.
///
/// # Errors
/// [`Malformed`] if it is none; [`PeerMisbehaved::Void`] if it is not as it should be.
pub fn check_key_package(package: &[u8]) -> Result<(LeafCredential, PublicKey), Error> {
    let checked = checked(package)?;
    let identity = checked.signing_identity();
    let key = PublicKey::from_slice(identity.signature_key.as_bytes())?;
    Ok((leaf_credential(identity).map_err(void)?, key))
}

fn checked(package: &[u8]) -> Result<KeyPackage, Error> {
    if package.len() > limits::KEY_PACKAGE_MAX {
        return Err(Malformed::TooLarge { what: "key package", limit: limits::KEY_PACKAGE_MAX }.into());
    }
    let message = MlsMessage::from_bytes(package).map_err(|_| Malformed::Cbor("key package"))?;
    ExternalClient::builder()
        .crypto_provider(Suite::new())
        .identity_provider(Credentials::default())
        .extension_type(ExtensionType::from(EXTENSION))
        .build()
        .validate_key_package(message, Some(MlsTime::from(1)))
        .map_err(|error| void_message(&error))
}

/// Seals to the init key of a key package.
///
/// # Errors
/// As [`check_key_package`]; [`Misuse::Crypto`] if the library fails.
pub fn seal_to(package: &[u8], info: &[u8], plaintext: &[u8]) -> Result<Sealed, Error> {
    let checked = checked(package)?;
    let suite = Suite::new();
    let reference = checked.to_reference(&suite).map_err(|_| Misuse::Crypto)?.to_vec();
    let sealed =
        suite.hpke_seal(&checked.hpke_init_key, info, Some(&reference), plaintext).map_err(|_| Misuse::Crypto)?;
    Ok(Sealed { reference, kem_output: sealed.kem_output, ciphertext: sealed.ciphertext })
}

impl KeyPackages {
    /// Opens what was sealed to one of these key packages. Its private half stays: whoever reads drops it.
    ///
    /// # Errors
    /// [`PeerMisbehaved::Void`] if there is no such key package any more, or it was not sealed to it.
    pub fn open_sealed(&self, sealed: &Sealed, info: &[u8]) -> Result<Zeroizing<Vec<u8>>, Error> {
        let unopened = || PeerMisbehaved::Void("a note is sealed to no key of this device".to_owned());
        let data = lock(&self.0).get(&sealed.reference).cloned().ok_or_else(unopened)?;
        let package =
            KeyPackage::mls_decode(&mut &*data.key_package_bytes).map_err(|_| Misuse::State("key package"))?;
        let ciphertext =
            HpkeCiphertext { kem_output: sealed.kem_output.clone(), ciphertext: sealed.ciphertext.clone() };
        let opened =
            Suite::new().hpke_open(&ciphertext, &data.init_key, &package.hpke_init_key, info, Some(&sealed.reference));
        Ok(opened.map_err(|_| unopened())?)
    }
}
