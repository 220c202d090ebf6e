//! A member who keeps to no rule, for tests: Commits and messages as only a changed program would make them.
//!
//! The group is the member's own, loaded under rules that allow everything, over a suite that may alter what it signs, hashes and seals.
//! So a forgery is wrong in one thing alone, and right in all others.

use std::convert::Infallible;

use mls_rs::client_builder::PaddingMode;
use mls_rs::mls_rules::{CommitDirection, CommitOptions, CommitSource, EncryptionOptions, ProposalBundle};
use mls_rs::{CipherSuiteProvider, CryptoProvider, MlsRules, ProtocolVersion};
use mls_rs_core::crypto::{HpkeCiphertext, HpkePsk, HpkePublicKey, HpkeSecretKey, SignaturePublicKey};
use mls_rs_core::group::GroupContext;

use super::*;

/// What is altered in the making.
#[derive(Clone, Default)]
pub(crate) struct Spell {
    /// Bytes that are replaced by as many others, in what is signed, hashed and sealed.
    pub(crate) replace: Option<(Vec<u8>, Vec<u8>)>,
    /// The confirmation tag is wrong.
    pub(crate) spoil_tag: bool,
    /// Signs instead of the member's own key.
    pub(crate) signer: Option<SecretKey>,
}

/// A Commit that no honest program makes.
#[derive(Clone, Default)]
pub(crate) struct Wild {
    pub(crate) add: Vec<Vec<u8>>,
    pub(crate) remove: Vec<u32>,
    pub(crate) context: Option<MatterContext>,
    /// With a proposal to end the group.
    pub(crate) reinit: bool,
    /// Without a path, where RFC 9420 allows it.
    pub(crate) no_path: bool,
    /// As a PublicMessage.
    pub(crate) public: bool,
    pub(crate) spell: Spell,
}

/// A Commit out of a member's saved state, which stays as it is.
pub(crate) fn commit(me: &Me, id: MatterId, state: Zeroizing<Vec<u8>>, wild: &Wild, seen: &Seen) -> Vec<u8> {
    let rules = AnyRules { path: !wild.no_path, public: wild.public };
    let mut group = load(me, id, state, rules, wild.spell.clone());
    let mut builder = group.commit_builder().authenticated_data(cbor::encode(seen)).commit_time(MlsTime::from(1));
    for package in &wild.add {
        builder = builder.add_member(MlsMessage::from_bytes(package).unwrap()).unwrap();
    }
    for leaf in &wild.remove {
        builder = builder.remove_member(*leaf).unwrap();
    }
    if let Some(context) = &wild.context {
        builder = builder.set_group_context_ext(context.extensions()).unwrap();
    }
    if wild.reinit {
        let suite = CipherSuite::from(CIPHER_SUITE);
        builder = builder.reinit(None, ProtocolVersion::MLS_10, suite, ExtensionList::new()).unwrap();
    }
    let (output, _) = builder.build_detached().unwrap();
    output.commit_message.to_bytes().unwrap()
}

/// A message out of a member's saved state, which stays as it is.
pub(crate) fn message(
    me: &Me,
    id: MatterId,
    state: Zeroizing<Vec<u8>>,
    padded: &[u8],
    seen: &Seen,
    spell: Spell,
) -> Vec<u8> {
    let mut group = load(me, id, state, AnyRules { path: true, public: false }, spell);
    group.encrypt_application_message(padded, cbor::encode(seen)).unwrap().to_bytes().unwrap()
}

type Stored = WithGroupStateStorage<Saved, WithKeyPackageRepo<KeyPackages, BaseConfig>>;
type Wilderness = WithMlsRules<AnyRules, WithCryptoProvider<Bent, WithIdentityProvider<Credentials, Stored>>>;

fn load(me: &Me, id: MatterId, state: Zeroizing<Vec<u8>>, rules: AnyRules, spell: Spell) -> Group<Wilderness> {
    let credential = BasicCredential::new(cbor::encode(&me.credential)).into_credential();
    let identity = SigningIdentity::new(credential, me.key.public().unwrap().as_bytes().to_vec().into());
    let client: Client<Wilderness> = Client::builder()
        .key_package_repo(KeyPackages::default())
        .group_state_storage(Saved(Arc::new(Mutex::new(Some(state)))))
        .identity_provider(Credentials::default())
        .crypto_provider(Bent { suite: Suite::new(), spell })
        .mls_rules(rules)
        .extension_type(ExtensionType::from(EXTENSION))
        .signing_identity(
            identity,
            SignatureSecretKey::from(me.key.as_bytes().to_vec()),
            CipherSuite::from(CIPHER_SUITE),
        )
        .build();
    client.load_group(id.as_bytes()).unwrap()
}

#[derive(Clone, Copy)]
struct AnyRules {
    path: bool,
    public: bool,
}

impl MlsRules for AnyRules {
    type Error = Infallible;

    fn filter_proposals(
        &self,
        _: CommitDirection,
        _: CommitSource,
        _: &Roster<'_>,
        _: &GroupContext,
        proposals: ProposalBundle,
    ) -> Result<ProposalBundle, Infallible> {
        Ok(proposals)
    }

    fn commit_options(
        &self,
        _: &Roster<'_>,
        _: &GroupContext,
        _: &ProposalBundle,
    ) -> Result<CommitOptions, Infallible> {
        Ok(CommitOptions::new().with_path_required(self.path).with_ratchet_tree_extension(true))
    }

    fn encryption_options(&self, _: &Roster<'_>, _: &GroupContext) -> Result<EncryptionOptions, Infallible> {
        Ok(EncryptionOptions::new(!self.public, PaddingMode::None))
    }
}

/// The suite, under a spell.
#[derive(Clone)]
struct Bent {
    suite: Suite,
    spell: Spell,
}

impl Bent {
    fn altered(&self, data: &[u8]) -> Vec<u8> {
        let mut data = data.to_vec();
        if let Some((old, new)) = &self.spell.replace {
            assert_eq!(old.len(), new.len());
            if let Some(at) = data.windows(old.len()).position(|window| window == old) {
                data[at..at + old.len()].copy_from_slice(new);
            }
        }
        data
    }
}

impl CryptoProvider for Bent {
    type CipherSuiteProvider = Self;

    fn supported_cipher_suites(&self) -> Vec<CipherSuite> {
        self.suite.supported_cipher_suites()
    }

    fn cipher_suite_provider(&self, suite: CipherSuite) -> Option<Self> {
        self.suite.cipher_suite_provider(suite).map(|suite| Self { suite, spell: self.spell.clone() })
    }
}

impl CipherSuiteProvider for Bent {
    type Error = SuiteError;
    type HpkeContextS = <Suite as CipherSuiteProvider>::HpkeContextS;
    type HpkeContextR = <Suite as CipherSuiteProvider>::HpkeContextR;

    fn cipher_suite(&self) -> CipherSuite {
        self.suite.cipher_suite()
    }

    fn hash(&self, data: &[u8]) -> Result<Vec<u8>, SuiteError> {
        self.suite.hash(&self.altered(data))
    }

    fn mac(&self, key: &[u8], data: &[u8]) -> Result<Vec<u8>, SuiteError> {
        let mut tag = self.suite.mac(key, data)?;
        tag[0] ^= u8::from(self.spell.spoil_tag);
        Ok(tag)
    }

    fn aead_seal(&self, key: &[u8], data: &[u8], aad: Option<&[u8]>, nonce: &[u8]) -> Result<Vec<u8>, SuiteError> {
        self.suite.aead_seal(key, &self.altered(data), aad, nonce)
    }

    fn aead_open(
        &self,
        key: &[u8],
        ciphertext: &[u8],
        aad: Option<&[u8]>,
        nonce: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, SuiteError> {
        self.suite.aead_open(key, ciphertext, aad, nonce)
    }

    fn aead_key_size(&self) -> usize {
        self.suite.aead_key_size()
    }

    fn aead_nonce_size(&self) -> usize {
        self.suite.aead_nonce_size()
    }

    fn kdf_extract(&self, salt: &[u8], ikm: &[u8]) -> Result<Zeroizing<Vec<u8>>, SuiteError> {
        self.suite.kdf_extract(salt, ikm)
    }

    fn kdf_expand(&self, prk: &[u8], info: &[u8], len: usize) -> Result<Zeroizing<Vec<u8>>, SuiteError> {
        self.suite.kdf_expand(prk, info, len)
    }

    fn kdf_extract_size(&self) -> usize {
        self.suite.kdf_extract_size()
    }

    fn hpke_seal(
        &self,
        remote_key: &HpkePublicKey,
        info: &[u8],
        aad: Option<&[u8]>,
        pt: &[u8],
    ) -> Result<HpkeCiphertext, SuiteError> {
        self.suite.hpke_seal(remote_key, info, aad, pt)
    }

    fn hpke_seal_psk(
        &self,
        remote_key: &HpkePublicKey,
        info: &[u8],
        aad: Option<&[u8]>,
        pt: &[u8],
        psk: HpkePsk<'_>,
    ) -> Result<HpkeCiphertext, SuiteError> {
        self.suite.hpke_seal_psk(remote_key, info, aad, pt, psk)
    }

    fn hpke_open(
        &self,
        ciphertext: &HpkeCiphertext,
        local_secret: &HpkeSecretKey,
        local_public: &HpkePublicKey,
        info: &[u8],
        aad: Option<&[u8]>,
    ) -> Result<Zeroizing<Vec<u8>>, SuiteError> {
        self.suite.hpke_open(ciphertext, local_secret, local_public, info, aad)
    }

    fn hpke_open_psk(
        &self,
        ciphertext: &HpkeCiphertext,
        local_secret: &HpkeSecretKey,
        local_public: &HpkePublicKey,
        info: &[u8],
        aad: Option<&[u8]>,
        psk: HpkePsk<'_>,
    ) -> Result<Zeroizing<Vec<u8>>, SuiteError> {
        self.suite.hpke_open_psk(ciphertext, local_secret, local_public, info, aad, psk)
    }

    fn hpke_setup_s(
        &self,
        remote_key: &HpkePublicKey,
        info: &[u8],
    ) -> Result<(Vec<u8>, Self::HpkeContextS), SuiteError> {
        self.suite.hpke_setup_s(remote_key, info)
    }

    fn hpke_setup_r(
        &self,
        kem_output: &[u8],
        local_secret: &HpkeSecretKey,
        local_public: &HpkePublicKey,
        info: &[u8],
    ) -> Result<Self::HpkeContextR, SuiteError> {
        self.suite.hpke_setup_r(kem_output, local_secret, local_public, info)
    }

    fn kem_derive(&self, ikm: &[u8]) -> Result<(HpkeSecretKey, HpkePublicKey), SuiteError> {
        self.suite.kem_derive(ikm)
    }

    fn kem_generate(&self) -> Result<(HpkeSecretKey, HpkePublicKey), SuiteError> {
        self.suite.kem_generate()
    }

    fn kem_public_key_validate(&self, key: &HpkePublicKey) -> Result<(), SuiteError> {
        self.suite.kem_public_key_validate(key)
    }

    fn random_bytes(&self, out: &mut [u8]) -> Result<(), SuiteError> {
        self.suite.random_bytes(out)
    }

    fn signature_key_generate(&self) -> Result<(SignatureSecretKey, SignaturePublicKey), SuiteError> {
        self.suite.signature_key_generate()
    }

    fn signature_key_derive_public(&self, secret_key: &SignatureSecretKey) -> Result<SignaturePublicKey, SuiteError> {
        self.suite.signature_key_derive_public(secret_key)
    }

    fn sign(&self, secret_key: &SignatureSecretKey, data: &[u8]) -> Result<Vec<u8>, SuiteError> {
        let other = self.spell.signer.as_ref().map(|key| SignatureSecretKey::from(key.as_bytes().to_vec()));
        self.suite.sign(other.as_ref().unwrap_or(secret_key), &self.altered(data))
    }

    fn verify(&self, public_key: &SignaturePublicKey, signature: &[u8], data: &[u8]) -> Result<(), SuiteError> {
        self.suite.verify(public_key, signature, data)
    }
}
