//! A matter: one MLS group (RFC 9420) of devices. This file and those in `matter/` are the only ones that use `mls-rs`.
//!
//! 1. Texts are sealed and opened as application messages whose authenticated data is [`Seen`].
//! 2. Commits are built detached: their secrets are the caller's to keep until the Commit is read back from the mailbox.
//! 3. Every Commit, own or foreign, is judged (`judge.rs`) on its bytes, the [`MatterContext`] and certificates named by hash.
//!
//! Invariant: after an error nothing is saved; whoever holds the [`Matter`] throws it away and loads the last saved state.

use std::fmt;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use minicbor::{Decode, Encode};
use mls_rs::client_builder::{
    BaseConfig, WithCryptoProvider, WithGroupStateStorage, WithIdentityProvider, WithKeyPackageRepo, WithMlsRules,
};
use mls_rs::error::{IntoAnyError, MlsError};
use mls_rs::extension::recommended::LastResortKeyPackageExt;
use mls_rs::group::{CommitEffect, CommitSecrets, ContentType, ReceivedMessage, Roster};
use mls_rs::identity::SigningIdentity;
use mls_rs::identity::basic::BasicCredential;
use mls_rs::mls_rs_codec::{MlsDecode, byte_vec};
use mls_rs::time::MlsTime;
use mls_rs::{CipherSuite, Client, Extension, ExtensionList, Group, MlsMessage, MlsMessageDescription};
use mls_rs_core::crypto::SignatureSecretKey;
use mls_rs_core::extension::ExtensionType;
use zeroize::Zeroizing;

use crate::cbor;
use crate::content::Bundle;
use crate::error::{Error, Malformed, Misuse, PeerMisbehaved};
use crate::frame::Blob;
use crate::identity::Role;
use crate::ids::{DeviceId, MailboxId, MatterId, PersonId, Position};
use crate::limits;
use crate::rescue::Fate;
use crate::suite::{CIPHER_SUITE, Digest, PublicKey, SecretKey, Suite, SuiteError};

pub use certificates::Certificates;
use judge::{Credentials, Judge, leaf_credential};
pub use sealed::{Sealed, check_key_package, seal_to};
use store::Saved;
pub use store::{KeyPackages, is_last_resort};

/// The version of the rules by which members judge. A device that meets another says "update" and stops.
pub const RULES: u32 = 1;

/// The GroupContext extension with the [`MatterContext`], and the GroupInfo extension with a newcomer's [`Companion`].
const EXTENSION: u16 = 0xF0A2;

/// Key packages and leaves are judged by bytes, never by a clock: their lifetime says nothing. 136 years, in seconds.
const LIFETIME_S: u64 = 1 << 32;

/// What every member agrees on, inside the GroupContext.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct MatterContext {
    /// [`RULES`].
    #[n(0)]
    pub rules: u32,
    /// Where the matter's envelopes are.
    #[n(1)]
    pub mailbox: MailboxId,
    /// What people call it.
    #[n(2)]
    pub title: String,
    /// The hash of the orders in force; all zeros while there are none.
    #[cbor(n(3), with = "minicbor::bytes")]
    pub orders: [u8; 48],
    /// The people of the matter, sorted.
    #[n(4)]
    pub people: Vec<Participant>,
    /// The matter that this one continues.
    #[n(5)]
    pub continues: Option<Continues>,
}

/// A matter's predecessor: its group, and how far whoever continued it had come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Continues {
    /// The MLS group that ended.
    #[n(0)]
    pub group: MatterId,
    /// The epoch in which its people were counted.
    #[n(1)]
    pub epoch: u64,
}

/// A person of a matter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(array)]
pub struct Participant {
    /// Who.
    #[n(0)]
    pub person: PersonId,
    /// As what.
    #[n(1)]
    pub role: Role,
    /// The hash of the person's key, under which added devices must be certified.
    #[n(2)]
    pub person_key: Digest,
}

impl MatterContext {
    /// The person's entry.
    pub fn participant(&self, person: PersonId) -> Option<&Participant> {
        self.people.iter().find(|participant| participant.person == person)
    }

    fn read(extensions: &ExtensionList) -> Result<Self, Error> {
        let extension = extensions.get(ExtensionType::from(EXTENSION)).ok_or(Malformed::Cbor("matter's context"))?;
        let context: Self = cbor::decode(&extension.extension_data, "matter's context")?;
        if context.rules != RULES {
            return Err(Misuse::Outdated.into());
        }
        if context.people.len() > limits::PEOPLE_MAX || context.title.len() > limits::TITLE_MAX {
            return Err(Malformed::TooLarge { what: "matter's context", limit: limits::PEOPLE_MAX }.into());
        }
        // Written in one way alone, so that no two implementations read it differently.
        let sorted = context.people.is_sorted_by(|one, next| one.person < next.person);
        if !sorted || cbor::encode(&context) != extension.extension_data {
            return Err(Malformed::Cbor("matter's context").into());
        }
        Ok(context)
    }

    fn extensions(&self) -> ExtensionList {
        vec![Extension::new(ExtensionType::from(EXTENSION), cbor::encode(self))].into()
    }
}

/// What every sealed message and Commit authenticates, readable by the relay, which knows it anyway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Seen {
    /// The last position that the sender has read.
    #[n(0)]
    pub position: Position,
    /// In a Commit: the hash of its Post's roster parts.
    #[n(1)]
    pub roster: Option<Digest>,
    /// In a Commit that adds people: the hash of its bundle's envelope.
    #[n(2)]
    pub bundle: Option<Digest>,
    /// In a Commit that lets a device back in: the hash of its request's envelope.
    #[n(3)]
    pub repair: Option<Digest>,
}

impl Seen {
    /// What is said of a text: where its sender is.
    pub fn at(position: Position) -> Self {
        Self { position, roster: None, bundle: None, repair: None }
    }
}

impl Seen {
    /// What a PrivateMessage carries in the clear (RFC 9420, section 6.3): authenticated only once the message was opened.
    ///
    /// # Errors
    /// [`Malformed`] if it is no PrivateMessage with a [`Seen`].
    pub fn of_message(payload: &[u8]) -> Result<Self, Malformed> {
        Ok(Self::with_epoch(payload)?.1)
    }

    /// The same, with the epoch that the message names.
    ///
    /// # Errors
    /// As [`Self::of_message`].
    pub fn with_epoch(payload: &[u8]) -> Result<(u64, Self), Malformed> {
        let malformed = |_| Malformed::Cbor("MLS message");
        let mut reader = payload;
        let _version = u16::mls_decode(&mut reader).map_err(malformed)?;
        let _wire_format = u16::mls_decode(&mut reader).map_err(malformed)?;
        let _group = byte_vec::mls_decode::<Vec<u8>>(&mut reader).map_err(malformed)?;
        let epoch = u64::mls_decode(&mut reader).map_err(malformed)?;
        let _content_type = u8::mls_decode(&mut reader).map_err(malformed)?;
        let data: Vec<u8> = byte_vec::mls_decode(&mut reader).map_err(malformed)?;
        Ok((epoch, cbor::decode(&data, "message's position")?))
    }
}

/// The MLS credential: small, and it never changes under a leaf.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(array)]
pub struct LeafCredential {
    /// Whose device.
    #[n(0)]
    pub person: PersonId,
    /// Which device.
    #[n(1)]
    pub device: DeviceId,
    /// The hash of the device's certificate.
    #[n(2)]
    pub certificate: Digest,
}

/// A member device of a matter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member {
    /// Its leaf.
    pub leaf: u32,
    /// Who it is.
    pub credential: LeafCredential,
}

/// What a newcomer gets inside the Welcome: everybody's certificates, chains and names.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Companion {
    /// The members.
    #[n(0)]
    pub bundle: Bundle,
    /// The last position that the author of the Commit had read: the newcomer's start lies after it.
    #[n(1)]
    pub seen: Position,
    /// The [statements](crate::rescue::Successor) by which the group continues others, the newest last, for those who can't read where they
    /// stand: at most [`limits::LINE_MAX`].
    #[n(2)]
    #[cbor(default)]
    pub line: Vec<Blob>,
    /// What became of people who were removed before.
    #[n(3)]
    #[cbor(default)]
    pub fates: Vec<Fate>,
}

/// This device, as it signs inside matters.
#[derive(Debug, Clone)]
pub struct Me {
    /// The credential of every leaf of this device.
    pub credential: LeafCredential,
    /// The device's MLS key.
    pub key: SecretKey,
}

/// A change of membership, to be built into a Commit.
#[derive(Debug, Clone, Default)]
pub struct Change {
    /// Key packages of the devices to add.
    pub add: Vec<Vec<u8>>,
    /// Leaves to remove.
    pub remove: Vec<u32>,
    /// The context afterwards, if it changes.
    pub context: Option<MatterContext>,
    /// What the newcomers get.
    pub companion: Option<Companion>,
}

/// A Commit that was built and not applied.
pub struct Built {
    /// The Commit, an MLS message.
    pub commit: Vec<u8>,
    /// The Welcome for all newcomers.
    pub welcome: Option<Vec<u8>>,
    /// Secrets to apply it with; see [`Matter::apply_own`].
    pub secrets: Zeroizing<Vec<u8>>,
    /// The epoch it was built in.
    pub epoch: u64,
}

impl fmt::Debug for Built {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Built").field("epoch", &self.epoch).finish_non_exhaustive()
    }
}

/// An opened message.
#[derive(Debug, Clone)]
pub struct Opened {
    /// Its author.
    pub sender: Member,
    /// What its author had read.
    pub seen: Seen,
    /// The padded content.
    pub plaintext: Vec<u8>,
}

/// An applied Commit.
#[derive(Debug, Clone)]
pub struct Applied {
    /// Its author.
    pub committer: Member,
    /// What its author had read, and promised.
    pub seen: Seen,
    /// Leaves that are new.
    pub added: Vec<Member>,
    /// Leaves that are gone.
    pub removed: Vec<Member>,
    /// Whether this device is among them.
    pub removed_me: bool,
}

/// Why a Commit or a member is void for everyone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
struct Void(&'static str);

/// Void, unless the relay withholds the bundle that the Commit names.
pub(crate) const NO_CERTIFICATE: &str = "an added device has no certificate here";

/// Likewise.
pub(crate) const NO_PROOF: &str = "it changes who somebody is, and nothing here proves it";

/// Not void: this version can't tell.
const OUTDATED: Void = Void("it needs a newer version of this program");

impl IntoAnyError for Void {
    fn into_dyn_error(self) -> Result<Box<dyn std::error::Error + Send + Sync>, Self> {
        Ok(Box::new(self))
    }
}

type Stored = WithGroupStateStorage<Saved, WithKeyPackageRepo<KeyPackages, BaseConfig>>;
type Config = WithMlsRules<Judge, WithCryptoProvider<Suite, WithIdentityProvider<Credentials, Stored>>>;

fn client(me: &Me, packages: &KeyPackages, saved: Saved, judge: Judge) -> Result<Client<Config>, Error> {
    let credential = BasicCredential::new(cbor::encode(&me.credential)).into_credential();
    let identity = SigningIdentity::new(credential, me.key.public()?.as_bytes().to_vec().into());
    Ok(Client::builder()
        .key_package_repo(packages.clone())
        .group_state_storage(saved)
        .identity_provider(Credentials { path: Arc::clone(&judge.path) })
        .crypto_provider(Suite::new())
        .mls_rules(judge)
        .extension_type(ExtensionType::from(EXTENSION))
        .key_package_lifetime(Duration::from_secs(LIFETIME_S))
        .signing_identity(
            identity,
            SignatureSecretKey::from(me.key.as_bytes().to_vec()),
            CipherSuite::from(CIPHER_SUITE),
        )
        .build())
}

/// A fresh key package: its public message, its reference, and its secret for the vault.
///
/// # Errors
/// [`Misuse`] if the library fails.
#[expect(clippy::type_complexity, reason = "message, reference and secret, as the summary names them")]
pub fn key_package(
    me: &Me,
    packages: &KeyPackages,
    last_resort: bool,
) -> Result<(Vec<u8>, Vec<u8>, Zeroizing<Vec<u8>>), Error> {
    let before = packages.references();
    let client = client(me, packages, Saved::default(), Judge::default())?;
    let mut extensions = ExtensionList::new();
    if last_resort {
        extensions.set_from(LastResortKeyPackageExt).map_err(|_| Misuse::Crypto)?;
    }
    let message = client
        .generate_key_package_message(extensions, ExtensionList::new(), Some(MlsTime::from(0)))
        .and_then(|message| message.to_bytes())
        .map_err(|_| Misuse::Crypto)?;
    let reference =
        packages.references().into_iter().find(|reference| !before.contains(reference)).ok_or(Misuse::Crypto)?;
    let secret = packages.secret(&reference)?;
    Ok((message, reference, secret))
}

/// Who a key package would add.
///
/// # Errors
/// [`Malformed`] if it is none.
pub fn key_package_owner(package: &[u8]) -> Result<LeafCredential, Error> {
    let malformed = Malformed::Cbor("key package");
    if package.len() > limits::KEY_PACKAGE_MAX {
        return Err(Malformed::TooLarge { what: "key package", limit: limits::KEY_PACKAGE_MAX }.into());
    }
    let message = MlsMessage::from_bytes(package).map_err(|_| malformed.clone())?;
    let package = message.into_key_package().ok_or(malformed)?;
    Ok(leaf_credential(package.signing_identity()).map_err(void)?)
}

/// Whether a key package is of this very leaf: the same credential and signature key.
///
/// # Errors
/// [`Malformed`] if it is no key package, [`PeerMisbehaved::WrongKey`] if it is of another.
pub fn is_of_leaf(package: &[u8], credential: &LeafCredential, key: &PublicKey) -> Result<(), Error> {
    if key_package_owner(package)? != *credential || package_key(package)? != *key {
        return Err(PeerMisbehaved::WrongKey("a key package").into());
    }
    Ok(())
}

/// One MLS group, loaded.
pub struct Matter {
    group: Group<Config>,
    saved: Saved,
    judge: Judge,
    welcomed_by: Option<LeafCredential>,
}

impl Matter {
    /// A new matter with this device as its only member.
    ///
    /// # Errors
    /// [`Misuse`] if the library fails.
    pub fn create(me: &Me, packages: &KeyPackages, id: MatterId, context: &MatterContext) -> Result<Self, Error> {
        let (saved, judge) = (Saved::default(), Judge::default());
        let group = client(me, packages, saved.clone(), judge.clone())?
            .create_group_with_id(
                id.as_bytes().to_vec(),
                context.extensions(),
                ExtensionList::new(),
                Some(MlsTime::from(0)),
            )
            .map_err(|_| Misuse::Crypto)?;
        Self { group, saved, judge, welcomed_by: None }.save()
    }

    /// The matter that a Welcome leads into. Every member's leaf is held against its certificate and the listed person key.
    ///
    /// # Errors
    /// [`PeerMisbehaved`] or [`Malformed`] if anything about it is not as the rules say.
    pub fn join(me: &Me, packages: &KeyPackages, welcome: &[u8]) -> Result<(Self, Companion), Error> {
        let (saved, judge) = (Saved::default(), Judge::default());
        let message = MlsMessage::from_bytes(welcome).map_err(|_| Malformed::Cbor("welcome"))?;
        let (group, info) = client(me, packages, saved.clone(), judge.clone())?
            .join_group(None, &message, None)
            .map_err(|error| PeerMisbehaved::Void(format!("a Welcome: {error}")))?;
        let extension = info
            .group_info_extensions()
            .get(ExtensionType::from(EXTENSION))
            .ok_or(Malformed::Cbor("welcome's companion"))?;
        let companion: Companion = cbor::decode(&extension.extension_data, "welcome's companion")?;
        let welcomed_by = group.roster().member_with_index(info.sender).ok();
        let welcomed_by = welcomed_by.and_then(|member| leaf_credential(&member.signing_identity).ok());
        let matter = Self { group, saved, judge, welcomed_by };
        let context = matter.context()?;
        let certificates = Certificates::of(&companion.bundle.identities)?;
        for member in matter.group.roster().members_iter() {
            let credential = leaf_credential(&member.signing_identity).map_err(void)?;
            if credential != me.credential {
                certificates
                    .check_member(&credential, member.signing_identity.signature_key.as_bytes(), &context)
                    .map_err(void)?;
            }
        }
        Ok((matter.save()?, companion))
    }

    /// The matter in a saved state.
    ///
    /// # Errors
    /// [`Misuse::State`] if it does not load.
    pub fn load(me: &Me, packages: &KeyPackages, id: MatterId, state: Zeroizing<Vec<u8>>) -> Result<Self, Error> {
        let saved = Saved(Arc::new(Mutex::new(Some(state))));
        let judge = Judge::default();
        let group = client(me, packages, saved.clone(), judge.clone())?
            .load_group(id.as_bytes())
            .map_err(|_| Misuse::State("matter"))?;
        Ok(Self { group, saved, judge, welcomed_by: None })
    }

    /// Whose Welcome led into this group, while it was not loaded again.
    pub fn welcomed_by(&self) -> Option<PersonId> {
        self.welcomed_by.as_ref().map(|credential| credential.person)
    }

    /// The state to persist: a secret.
    pub fn state(&self) -> Zeroizing<Vec<u8>> {
        lock(&self.saved.0).clone().unwrap_or_default()
    }

    /// The matter's id.
    ///
    /// # Errors
    /// [`Malformed`] if a peer made a group with another kind of id.
    pub fn id(&self) -> Result<MatterId, Malformed> {
        MatterId::from_slice(self.group.group_id())
    }

    /// The epoch.
    pub fn epoch(&self) -> u64 {
        self.group.current_epoch()
    }

    /// The member that a device is, with its key.
    ///
    /// # Errors
    /// [`PeerMisbehaved::Void`] if it is none.
    pub fn member_of(&self, device: DeviceId) -> Result<(Member, PublicKey), Error> {
        let roster = self.group.roster();
        for member in roster.members_iter() {
            let credential = leaf_credential(&member.signing_identity).map_err(void)?;
            if credential.device == device {
                let key = PublicKey::from_slice(member.signing_identity.signature_key.as_bytes())?;
                return Ok((Member { leaf: member.index, credential }, key));
            }
        }
        Err(void(Void("it is of no member")).into())
    }

    /// This device's leaf.
    pub fn own_leaf(&self) -> u32 {
        self.group.current_member_index()
    }

    /// What all members agree on.
    ///
    /// # Errors
    /// [`PeerMisbehaved`] if the rules are of another version.
    pub fn context(&self) -> Result<MatterContext, Error> {
        MatterContext::read(&self.group.context().extensions)
    }

    /// The member devices.
    pub fn members(&self) -> Vec<Member> {
        members(&self.group.roster())
    }

    /// Seals a padded content. The new state is saved in memory; persist [`Self::state`] before sending.
    ///
    /// # Errors
    /// [`Misuse`] if the library fails.
    pub fn seal(&mut self, padded: &[u8], seen: &Seen) -> Result<Vec<u8>, Error> {
        let message = self
            .group
            .encrypt_application_message(padded, cbor::encode(seen))
            .and_then(|message| message.to_bytes())
            .map_err(|_| Misuse::Crypto)?;
        self.write()?;
        Ok(message)
    }

    /// Opens somebody else's message.
    ///
    /// # Errors
    /// [`PeerMisbehaved::Void`] or [`Malformed`]; the matter must then be loaded again.
    pub fn open(&mut self, payload: &[u8]) -> Result<Opened, Error> {
        let message = self.private(payload, ContentType::Application)?;
        let received = self.group.process_incoming_message(message).map_err(|error| void_message(&error))?;
        let ReceivedMessage::ApplicationMessage(opened) = received else {
            return Err(Malformed::Cbor("message").into());
        };
        let sender = self.member(opened.sender_index)?;
        let seen = cbor::decode(&opened.authenticated_data, "message's position")?;
        let plaintext = opened.data().to_vec();
        self.write()?;
        Ok(Opened { sender, seen, plaintext })
    }

    /// Builds a Commit without applying it. The epoch stays, but a key is used up: persist [`Self::state`] before sending.
    ///
    /// # Errors
    /// [`PeerMisbehaved::Void`] if the rules forbid it, or a key package is not what it should be.
    pub fn build(&mut self, change: Change, seen: &Seen, certificates: Certificates) -> Result<Built, Error> {
        *lock(&self.judge.certificates) = certificates;
        let epoch = self.epoch();
        let mut builder =
            self.group.commit_builder().authenticated_data(cbor::encode(seen)).commit_time(MlsTime::from(1));
        for package in &change.add {
            let package = MlsMessage::from_bytes(package).map_err(|_| Malformed::Cbor("key package"))?;
            builder = builder.add_member(package).map_err(|error| void_message(&error))?;
        }
        for leaf in change.remove {
            builder = builder.remove_member(leaf).map_err(|error| void_message(&error))?;
        }
        if let Some(context) = &change.context {
            builder = builder.set_group_context_ext(context.extensions()).map_err(|error| void_message(&error))?;
        }
        if let Some(companion) = &change.companion {
            let extension = Extension::new(ExtensionType::from(EXTENSION), cbor::encode(companion));
            builder = builder.set_group_info_ext(vec![extension].into());
        }
        let (output, secrets) = builder.build_detached().map_err(|error| void_message(&error))?;
        let commit = output.commit_message.to_bytes().map_err(|_| Misuse::Crypto)?;
        let welcome = match output.welcome_messages.first() {
            Some(welcome) => Some(welcome.to_bytes().map_err(|_| Misuse::Crypto)?),
            None => None,
        };
        let secrets = Zeroizing::new(secrets.to_bytes().map_err(|_| Misuse::Crypto)?);
        self.write()?;
        Ok(Built { commit, welcome, secrets, epoch })
    }

    /// Applies somebody else's Commit. One that removes this device leaves the state as it was.
    ///
    /// # Errors
    /// [`PeerMisbehaved::Void`] if every member refuses it, [`PeerMisbehaved::OutOfStep`] if this device alone can't follow it,
    /// [`Misuse::Outdated`] if it makes rules that this version does not know; the matter must then be loaded again.
    pub fn apply(&mut self, payload: &[u8], certificates: Certificates) -> Result<Applied, Error> {
        *lock(&self.judge.certificates) = certificates;
        self.judge.path.store(false, Ordering::Relaxed);
        let message = self.private(payload, ContentType::Commit)?;
        let before = self.members();
        let received = self.group.process_incoming_message(message).map_err(|error| judged(&error))?;
        let ReceivedMessage::Commit(commit) = received else {
            return Err(Malformed::Cbor("commit").into());
        };
        // RFC 9420, section 12.4 lets one that only adds come without; here, each brings fresh keys.
        if !self.judge.path.load(Ordering::Relaxed) {
            return Err(PeerMisbehaved::Void("it has no path".to_owned()).into());
        }
        let removed_me = match commit.effect {
            CommitEffect::NewEpoch(_) => false,
            CommitEffect::Removed { .. } => true,
            CommitEffect::ReInit(_) => return Err(PeerMisbehaved::Void("it ends the group".to_owned()).into()),
        };
        self.applied(&before, commit.committer, &commit.authenticated_data, removed_me)
    }

    /// Applies an own Commit, read back from the mailbox, with the secrets it was built with.
    ///
    /// # Errors
    /// [`Misuse::Busy`] if it was built in another epoch: applying it would fork this device.
    pub fn apply_own(&mut self, secrets: &[u8], epoch: u64) -> Result<Applied, Error> {
        if epoch != self.epoch() {
            return Err(Misuse::Busy("the commit belongs to another epoch").into());
        }
        let before = self.members();
        let secrets = CommitSecrets::from_bytes(secrets).map_err(|_| Misuse::State("commit"))?;
        let commit = self.group.apply_detached_commit(secrets).map_err(|error| void_message(&error))?;
        self.applied(&before, commit.committer, &commit.authenticated_data, false)
    }

    fn applied(&mut self, before: &[Member], leaf: u32, data: &[u8], removed_me: bool) -> Result<Applied, Error> {
        let seen = cbor::decode(data, "commit's position")?;
        let committer = before
            .iter()
            .find(|member| member.leaf == leaf)
            .copied()
            .ok_or_else(|| PeerMisbehaved::Void("its author is no member".to_owned()))?;
        let after = if removed_me { before.to_vec() } else { self.members() };
        if !removed_me {
            let context = self.context()?;
            if after.iter().any(|member| context.participant(member.credential.person).is_none()) {
                return Err(PeerMisbehaved::Void("a member is not listed".to_owned()).into());
            }
        }
        let gone = |a: &[Member], b: &[Member]| a.iter().filter(|member| !b.contains(member)).copied().collect();
        let (added, removed) = (gone(&after, before), gone(before, &after));
        if !removed_me {
            self.write()?;
        }
        Ok(Applied { committer, seen, added, removed, removed_me })
    }

    /// An MLS PrivateMessage of this group, epoch and content type.
    fn private(&self, payload: &[u8], expected: ContentType) -> Result<MlsMessage, Error> {
        let message = MlsMessage::from_bytes(payload).map_err(|_| Malformed::Cbor("MLS message"))?;
        match message.description() {
            MlsMessageDescription::PrivateProtocolMessage { group_id, epoch_id, content_type }
                if group_id == self.group.group_id() && content_type == expected =>
            {
                if epoch_id != self.epoch() {
                    return Err(PeerMisbehaved::Void(format!("it belongs to epoch {epoch_id}")).into());
                }
            }
            _ => return Err(PeerMisbehaved::Void("it is of another kind than it says".to_owned()).into()),
        }
        Ok(message)
    }

    fn member(&self, leaf: u32) -> Result<Member, Error> {
        let member = self.group.member_at_index(leaf).ok_or_else(|| PeerMisbehaved::Void("no such leaf".to_owned()))?;
        Ok(Member { leaf, credential: leaf_credential(&member.signing_identity).map_err(void)? })
    }

    fn write(&mut self) -> Result<(), Error> {
        self.group.write_to_storage().map_err(|_| Misuse::State("matter"))?;
        Ok(())
    }

    fn save(mut self) -> Result<Self, Error> {
        self.write()?;
        Ok(self)
    }
}

impl fmt::Debug for Matter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Matter").field("epoch", &self.epoch()).finish_non_exhaustive()
    }
}

fn members(roster: &Roster<'_>) -> Vec<Member> {
    roster
        .members_iter()
        .filter_map(|member| {
            let credential = leaf_credential(&member.signing_identity).ok()?;
            Some(Member { leaf: member.index, credential })
        })
        .collect()
}

fn void(reason: Void) -> PeerMisbehaved {
    PeerMisbehaved::Void(reason.to_string())
}

fn void_message(error: &MlsError) -> Error {
    PeerMisbehaved::Void(error.to_string()).into()
}

/// Whether a Commit is void for everyone, or this device alone can't follow it. What every member checks comes first in `mls-rs`: opening
/// the message, its signature, the rules, the tree. Then each decrypts a path secret of its own (RFC 9420, section 7.5).
/// The confirmation tag comes last, and fails for all who got that far.
fn judged(error: &MlsError) -> Error {
    match error {
        MlsError::PubKeyMismatch | MlsError::UpdateErrorNoSecretKey | MlsError::LcaNotFoundInDirectPath => {
            PeerMisbehaved::OutOfStep.into()
        }
        MlsError::CryptoProviderError(inner)
            if matches!(inner.inner_dyn_error().downcast_ref(), Some(SuiteError::Unopened)) =>
        {
            PeerMisbehaved::OutOfStep.into()
        }
        MlsError::MlsRulesError(inner) if inner.inner_dyn_error().downcast_ref() == Some(&OUTDATED) => {
            Misuse::Outdated.into()
        }
        _ => void_message(error),
    }
}

/// A key package's signature key.
fn package_key(package: &[u8]) -> Result<PublicKey, Error> {
    let message = MlsMessage::from_bytes(package).map_err(|_| Malformed::Cbor("key package"))?;
    let package = message.into_key_package().ok_or(Malformed::Cbor("key package"))?;
    Ok(PublicKey::from_slice(package.signing_identity().signature_key.as_bytes())?)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

mod certificates;
#[cfg(test)]
pub(crate) mod forge;
mod judge;
mod sealed;
mod store;
#[cfg(test)]
mod tests;
