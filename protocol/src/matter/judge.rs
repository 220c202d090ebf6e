//! Who a leaf is, and what a Commit may do: the rules by which every member judges alike.
//!
//! Invariant: a judgement depends on the Commit's bytes, the [`MatterContext`] before it and certificates named by hash; never on a
//! clock, the network or a directory (so no time is ever passed to `mls-rs`).

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use mls_rs::ExtensionList;
use mls_rs::client_builder::PaddingMode;
use mls_rs::group::Roster;
use mls_rs::identity::{CredentialType, SigningIdentity};
use mls_rs::mls_rules::{CommitDirection, CommitOptions, CommitSource, EncryptionOptions, ProposalBundle};
use mls_rs::time::MlsTime;
use mls_rs::{IdentityProvider, MlsMessage, MlsRules};
use mls_rs_core::group::GroupContext;
use mls_rs_core::identity::MemberValidationContext;

use crate::cbor;
use crate::error::{Error, Misuse};
use crate::ids::PersonId;
use crate::rescue::RepairRequest;
use crate::suite::{Digest, PublicKey};

use super::{Certificates, LeafCredential, MatterContext, NO_PROOF, OUTDATED, Participant, Void, lock};

/// Only whoever manages a matter changes it.
const ROLE: Void = Void("its author's role may not change the matter");

/// Credentials: who a leaf is, and that it never becomes another.
#[derive(Debug, Clone, Default)]
pub(super) struct Credentials {
    /// Set when a Commit has a path: the leaf in it is held against the one before.
    pub(super) path: Arc<AtomicBool>,
}

impl IdentityProvider for Credentials {
    type Error = Void;

    fn validate_member(
        &self,
        signing_identity: &SigningIdentity,
        _: Option<MlsTime>,
        _: MemberValidationContext<'_>,
    ) -> Result<(), Void> {
        leaf_credential(signing_identity)?;
        PublicKey::from_slice(signing_identity.signature_key.as_bytes()).map_err(|_| Void("a leaf's key"))?;
        Ok(())
    }

    fn validate_external_sender(
        &self,
        _: &SigningIdentity,
        _: Option<MlsTime>,
        _: Option<&ExtensionList>,
    ) -> Result<(), Void> {
        Err(Void("there are no external senders"))
    }

    fn identity(&self, signing_identity: &SigningIdentity, _: &ExtensionList) -> Result<Vec<u8>, Void> {
        Ok(leaf_credential(signing_identity)?.device.as_bytes().to_vec())
    }

    fn valid_successor(&self, old: &SigningIdentity, new: &SigningIdentity, _: &ExtensionList) -> Result<bool, Void> {
        self.path.store(true, Ordering::Relaxed);
        Ok(old == new)
    }

    fn supported_types(&self) -> Vec<CredentialType> {
        vec![CredentialType::BASIC]
    }
}

pub(super) fn leaf_credential(identity: &SigningIdentity) -> Result<LeafCredential, Void> {
    let basic = identity.credential.as_basic().ok_or(Void("a credential of another kind"))?;
    cbor::decode(&basic.identifier, "credential").map_err(|_| Void("a credential that does not decode"))
}

/// Decides whether a Commit may do what it does.
#[derive(Debug, Clone, Default)]
pub(super) struct Judge {
    pub(super) certificates: Arc<Mutex<Certificates>>,
    pub(super) path: Arc<AtomicBool>,
}

impl Judge {
    fn judge(
        &self,
        source: &CommitSource,
        roster: &Roster<'_>,
        context: &GroupContext,
        proposals: &ProposalBundle,
    ) -> Result<(), Void> {
        let CommitSource::ExistingMember(committer) = source else {
            return Err(Void("only members commit"));
        };
        let author = leaf_credential(&committer.signing_identity)?;
        let before = read(&context.extensions)?;
        let role = before.participant(author.person).ok_or(Void("its author is not listed"))?.role;

        let adds = proposals.add_proposals();
        let removes = proposals.remove_proposals();
        let contexts = proposals.group_context_ext_proposals();
        let counted = adds.len().saturating_add(removes.len()).saturating_add(contexts.len());
        if proposals.length() != counted || contexts.len() > 1 {
            return Err(Void("it carries a proposal that is not allowed"));
        }
        let certificates = lock(&self.certificates);
        if let Some(request) = &certificates.repair {
            return judge_repair(request, roster, proposals, counted);
        }
        let after = match contexts.first() {
            Some(proposal) => {
                if proposal.proposal.len() != 1 {
                    return Err(Void("it carries an extension that is not allowed"));
                }
                match read(&proposal.proposal) {
                    // Nobody stops for rules that a client makes up.
                    Err(_) if !role.manages() => return Err(ROLE),
                    context => context?,
                }
            }
            None => before.clone(),
        };
        if after.mailbox != before.mailbox || after.continues != before.continues {
            return Err(Void("it changes what never changes"));
        }
        let replaced = replaced(&before, &after, &certificates);
        if !role.manages() && after != with_keys(&before, &replaced) {
            return Err(ROLE);
        }
        if !role.manages() && replaced.iter().any(|key| key.stays.is_none()) {
            // Before anything that hangs on it is judged: the statements may be in a bundle that the relay withholds.
            return Err(Void(NO_PROOF));
        }
        // Whoever manages nothing adds and removes devices of their own, and of those whose new key is proved to follow the one listed.
        let stays =
            |person: PersonId| replaced.iter().find(|key| key.person == person).and_then(|key| key.stays.as_ref());
        let may_add = |person: PersonId| role.manages() || person == author.person || stays(person).is_some();
        for add in adds {
            let identity = add.proposal.signing_identity();
            let added = leaf_credential(identity)?;
            if !may_add(added.person) {
                return Err(Void("its author's role may not add"));
            }
            certificates.check(&added, identity.signature_key.as_bytes(), &after)?;
        }
        let mut gone = Vec::new();
        for remove in removes {
            let member = roster.member_with_index(remove.proposal.to_remove()).map_err(|_| Void("no such leaf"))?;
            let removed = leaf_credential(&member.signing_identity)?;
            let left_out = stays(removed.person).is_some_and(|stays| !stays.contains(&removed.certificate));
            if !role.manages() && removed.person != author.person && !left_out {
                return Err(Void("its author's role may not remove"));
            }
            gone.push(member.index);
        }
        let stay = roster.members_iter().filter(|member| !gone.contains(&member.index));
        let stay = stay.map(|member| leaf_credential(&member.signing_identity));
        let stay: Vec<LeafCredential> = stay.collect::<Result<_, Void>>()?;
        judge_replaced(&replaced, &stay, role.manages())?;
        let added = adds.iter().map(|add| leaf_credential(add.proposal.signing_identity()).map(|leaf| leaf.person));
        let mut people = added.collect::<Result<BTreeSet<PersonId>, Void>>()?;
        people.extend(stay.iter().map(|leaf| leaf.person));
        judge_list(&before, &after, &people)
    }
}

/// Somebody whom a Commit lists with another key than before.
struct Replaced {
    person: PersonId,
    key: Digest,
    /// The devices that stay, where the new key is proved to follow the one listed.
    stays: Option<Vec<Digest>>,
}

/// Whose keys a Commit changes.
fn replaced(before: &MatterContext, after: &MatterContext, proofs: &Certificates) -> Vec<Replaced> {
    let both = after.people.iter().filter_map(|new| Some((before.participant(new.person)?, new)));
    let changed = both.filter(|(old, new)| old.person_key != new.person_key);
    let replaced = changed.map(|(old, new)| Replaced {
        person: new.person,
        key: new.person_key,
        stays: proofs.stays(new.person, old.person_key, new.person_key),
    });
    replaced.collect()
}

/// The context with these keys, and otherwise as it was.
fn with_keys(before: &MatterContext, replaced: &[Replaced]) -> MatterContext {
    let mut context = before.clone();
    for participant in &mut context.people {
        if let Some(key) = replaced.iter().find(|key| key.person == participant.person) {
            participant.person_key = key.key;
        }
    }
    context
}

/// A key changes where the statements in the bundle prove it, and every leaf that stays is one that they name; or where whoever manages
/// the matter takes the person out with every leaf, and in again under another key, as two Commits could.
fn judge_replaced(replaced: &[Replaced], stay: &[LeafCredential], manages: bool) -> Result<(), Void> {
    for key in replaced {
        let leaves: Vec<&LeafCredential> = stay.iter().filter(|leaf| leaf.person == key.person).collect();
        match &key.stays {
            Some(named) if leaves.iter().all(|leaf| named.contains(&leaf.certificate)) => {}
            Some(_) => return Err(Void("a device stays that the new key does not name")),
            None if manages && leaves.is_empty() => {}
            // The statements may be in a bundle that the relay withholds.
            None => return Err(Void(NO_PROOF)),
        }
    }
    Ok(())
}

/// Who is listed has a leaf, and who has a leaf is listed, once; whoever stays keeps their role. A newcomer's device holds a Welcome against
/// the same.
fn judge_list(before: &MatterContext, after: &MatterContext, leaves: &BTreeSet<PersonId>) -> Result<(), Void> {
    let listed: BTreeSet<PersonId> = after.people.iter().map(|participant| participant.person).collect();
    if !listed.is_superset(leaves) {
        return Err(Void("a member is not listed"));
    }
    if listed.len() != after.people.len() || listed != *leaves {
        return Err(Void("it lists somebody who has no device in the matter"));
    }
    let role = |new: &Participant| before.participant(new.person).is_some_and(|old| old.role != new.role);
    if after.people.iter().any(role) { Err(Void("it changes who somebody is")) } else { Ok(()) }
}

/// Whoever answers a request does nothing but remove and re-add the leaf that asks, with the key package that it gave.
fn judge_repair(
    request: &RepairRequest,
    roster: &Roster<'_>,
    proposals: &ProposalBundle,
    counted: usize,
) -> Result<(), Void> {
    let (adds, removes) = (proposals.add_proposals(), proposals.remove_proposals());
    let ([add], [remove], 2) = (adds, removes, counted) else {
        return Err(Void("it does more than to let a device back in"));
    };
    let member = roster.member_with_index(remove.proposal.to_remove()).map_err(|_| Void("no such leaf"))?;
    let removed = leaf_credential(&member.signing_identity)?;
    let asked = MlsMessage::from_bytes(&request.package.0).ok().and_then(MlsMessage::into_key_package);
    let as_asked = removed.device == request.device
        && asked.is_some_and(|package| package == *add.proposal.key_package())
        && *add.proposal.signing_identity() == member.signing_identity;
    if as_asked { Ok(()) } else { Err(Void("it lets somebody else in than who asked")) }
}

fn read(extensions: &ExtensionList) -> Result<MatterContext, Void> {
    MatterContext::read(extensions).map_err(|error| match error {
        Error::Misuse(Misuse::Outdated) => OUTDATED,
        _ => Void("the matter's context"),
    })
}

impl MlsRules for Judge {
    type Error = Void;

    fn filter_proposals(
        &self,
        _: CommitDirection,
        source: CommitSource,
        current_roster: &Roster<'_>,
        current_context: &GroupContext,
        proposals: ProposalBundle,
    ) -> Result<ProposalBundle, Void> {
        self.judge(&source, current_roster, current_context, &proposals)?;
        Ok(proposals)
    }

    fn commit_options(&self, _: &Roster<'_>, _: &GroupContext, _: &ProposalBundle) -> Result<CommitOptions, Void> {
        Ok(CommitOptions::new()
            .with_path_required(true)
            .with_ratchet_tree_extension(true)
            .with_single_welcome_message(true)
            .with_allow_external_commit(false))
    }

    fn encryption_options(&self, _: &Roster<'_>, _: &GroupContext) -> Result<EncryptionOptions, Void> {
        Ok(EncryptionOptions::new(true, PaddingMode::None))
    }
}
