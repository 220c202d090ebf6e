//! A person as a device knows them: who they said to be first, what was compared since, and what has changed.
//!
//! Invariant: the key by which a person is known changes by a word of the user's alone; another one that turns up is kept beside it.

use minicbor::{Decode, Encode};

use crate::identity::{Endorsement, Identity, Name, Role, Verified};
use crate::ids::Timestamp;
use crate::limits;
use crate::suite::{Digest, PublicKey};

/// A person as this device knows them.
#[derive(Debug, Clone, Encode, Decode)]
#[cbor(map)]
pub struct KnownPerson {
    /// Their handle.
    #[n(0)]
    pub handle: String,
    /// Their role.
    #[n(1)]
    pub role: Role,
    /// Their name, if it was told: the one that fits the endorsement, or, until somebody tells that, the one known before.
    #[n(2)]
    pub name: Option<Name>,
    /// Whether they gave the name themselves, and whoever vouches for them does not state it; true for one that fits no endorsement.
    #[n(3)]
    pub self_stated: bool,
    /// Their identity and the chain above.
    #[n(4)]
    pub chain: Vec<Identity>,
    /// When the key in it was first seen here, or accepted in place of the one before.
    #[n(5)]
    #[cbor(default)]
    pub since: Timestamp,
    /// What the user has compared with them.
    #[n(6)]
    pub verified: Option<Verification>,
    /// Another identity under the same id, which nobody has accepted here.
    #[n(7)]
    pub changed: Option<Changed>,
    /// Keys that were theirs before, the newest last: matters may go on to list them for a while.
    #[n(8)]
    #[cbor(default)]
    pub past: Vec<Digest>,
    /// The chain with the newest of those: whoever comes into a matter that lists that key is shown it.
    #[n(9)]
    #[cbor(default)]
    pub before: Vec<Identity>,
}

/// A comparison of safety numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Verification {
    /// The hash of the person's key.
    #[n(0)]
    pub key: Digest,
    /// When, by this device's clock.
    #[n(1)]
    pub at: Timestamp,
}

/// An identity that is not the one known.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Changed {
    /// The hash of the person's key.
    #[n(0)]
    pub key: Digest,
    /// When it was seen first.
    #[n(1)]
    pub at: Timestamp,
    /// The identity and the chain above; empty while only the list of a matter names the key.
    #[n(2)]
    pub chain: Vec<Identity>,
    /// Their name, if it was told since, and fits the endorsement in it.
    #[n(3)]
    pub name: Option<Name>,
    /// Whether it and another that was shown follow the same key, and neither the other.
    #[cbor(n(90), default)]
    pub forked: bool,
}

impl KnownPerson {
    /// Somebody met for the first time.
    pub fn new(said: &Verified, chain: Vec<Identity>, name: Option<Name>, since: Timestamp) -> Self {
        let Endorsement { handle, role, confirmed, .. } = &said.endorsement;
        let (handle, role, self_stated) = (handle.clone(), *role, !confirmed);
        let (past, before) = (Vec::new(), Vec::new());
        Self { handle, role, name, self_stated, chain, since, verified: None, changed: None, past, before }
    }

    /// Whether the name is the one that their endorsement is about.
    pub fn is_named(&self) -> bool {
        let said = self.endorsements().into_iter().next().map(|said| said.name);
        self.name.as_ref().is_some_and(|name| said == Some(name.commitment()))
    }

    /// A name that was told for one of these statements about them, the newest chain's, if there is one.
    pub(in crate::device) fn name_for(&self, said: &Endorsement) -> Option<&Name> {
        let changed = self.changed.as_ref().and_then(|changed| changed.name.as_ref());
        [self.name.as_ref(), changed].into_iter().flatten().find(|name| name.commitment() == said.name)
    }

    /// Takes a name that was told, where it fits what is said of them under a key that is theirs. Whether anything is new.
    pub(in crate::device) fn take_name(&mut self, name: Name) -> bool {
        let fits = |chain: &[Identity]| {
            let said: Endorsement = chain.first()?.endorsement.unverified("endorsement").ok()?;
            (said.name == name.commitment()).then_some(said)
        };
        if let Some(said) = fits(&self.chain) {
            let news = self.name.as_ref() != Some(&name);
            (self.name, self.self_stated) = (Some(name), !said.confirmed);
            return news;
        }
        match &mut self.changed {
            Some(changed) if fits(&changed.chain).is_some() => changed.name.replace(name).is_none(),
            _ => false,
        }
    }

    /// What to call them: name and handle, or the handle alone.
    pub fn label(&self) -> String {
        match &self.name {
            Some(name) => format!("{} ({})", name.name, self.handle),
            None => self.handle.clone(),
        }
    }

    /// The hash of their key.
    pub fn key(&self) -> Option<Digest> {
        self.chain.first().map(|identity| identity.person_key.digest())
    }

    /// Whether this key is theirs, as they are known or as somebody has shown since.
    pub(in crate::device) fn shows(&self, key: Digest) -> bool {
        self.key() == Some(key) || self.changed.as_ref().is_some_and(|changed| changed.key == key)
    }

    /// Whether this key is theirs, or was.
    pub(in crate::device) fn has_had(&self, key: Digest) -> bool {
        self.shows(key) || self.past.contains(&key) || self.keys().any(|known| known.digest() == key)
    }

    /// The key at which the statements of the newest chain begin, where there were more of them once than an identity shows.
    pub(in crate::device) fn oldest_shown(&self) -> Option<Digest> {
        let changed = self.changed.as_ref().and_then(|changed| changed.chain.first());
        let newest =
            changed.or_else(|| self.chain.first()).filter(|first| first.line.len() >= limits::KEY_STEPS_MAX)?;
        newest.line.first().map(|step| step.key.digest())
    }

    /// Who they are, as this device knows them and as somebody has shown since: the newest first.
    pub(in crate::device) fn shown(&self) -> impl Iterator<Item = &Identity> {
        let changed = self.changed.as_ref().and_then(|changed| changed.chain.first());
        [changed, self.chain.first()].into_iter().flatten()
    }

    /// Their keys, as far as they are here: of each chain that was shown, with those that statements lead on from.
    pub(in crate::device) fn keys(&self) -> impl Iterator<Item = &PublicKey> {
        self.shown().chain(self.before.first()).flat_map(Identity::keys)
    }

    /// When the user has compared the safety number with them, if they have.
    pub fn verified_at(&self) -> Option<Timestamp> {
        self.verified.map(|verified| verified.at)
    }

    /// Whether they were verified and are somebody else now, or their key has two that follow it: nothing is sent where they are until the
    /// user has accepted it.
    pub fn is_in_doubt(&self) -> bool {
        self.changed.as_ref().is_some_and(|changed| changed.forked || self.verified.is_some())
    }

    /// Whether two keys follow one of theirs, and neither the other: a key of theirs was stolen.
    pub fn is_forked(&self) -> bool {
        self.changed.as_ref().is_some_and(|changed| changed.forked)
    }

    /// Who vouches for them, from their own endorsement up to the organisation's.
    pub fn endorsements(&self) -> Vec<Endorsement> {
        self.chain.iter().filter_map(|identity| identity.endorsement.unverified("endorsement").ok()).collect()
    }

    /// The chain with that key, of the one known, the one before and the one that nobody has accepted; else the one whose statements lead
    /// on from it.
    pub(in crate::device) fn chain_with(&self, key: Digest) -> &[Identity] {
        let changed = self.changed.as_ref().map(|changed| changed.chain.as_slice()).unwrap_or_default();
        let chains: [&[Identity]; 3] = [&self.chain, changed, &self.before];
        let with = |chain: &&[Identity]| chain.first().is_some_and(|first| first.person_key.digest() == key);
        let leads = |chain: &&[Identity]| {
            chain.first().is_some_and(|first| first.line.iter().any(|step| step.key.digest() == key))
        };
        let found =
            chains.into_iter().find(with).or_else(|| [changed, &self.chain, &self.before].into_iter().find(leads));
        found.unwrap_or(&self.chain)
    }
}
