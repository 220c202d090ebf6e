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
use crate::suite::PublicKey;

use super::{Certificates, LeafCredential, MatterContext, OUTDATED, Void, lock};

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
            Some(_) if !role.manages() => return Err(Void("its author's role may not change the matter")),
            Some(proposal) => {
                if proposal.proposal.len() != 1 {
                    return Err(Void("it carries an extension that is not allowed"));
                }
                read(&proposal.proposal)?
            }
            None => before.clone(),
        };
        if after.mailbox != before.mailbox || after.continues != before.continues {
            return Err(Void("it changes what never changes"));
        }
        for add in adds {
            let identity = add.proposal.signing_identity();
            let added = leaf_credential(identity)?;
            if !role.manages() && added.person != author.person {
                return Err(Void("its author's role may not add"));
            }
            certificates.check(&added, identity.signature_key.as_bytes(), &after)?;
        }
        let mut gone = Vec::new();
        for remove in removes {
            let member = roster.member_with_index(remove.proposal.to_remove()).map_err(|_| Void("no such leaf"))?;
            let removed = leaf_credential(&member.signing_identity)?;
            if !role.manages() && removed.person != author.person {
                return Err(Void("its author's role may not remove"));
            }
            gone.push(member.index);
        }
        let stay = roster.members_iter().filter(|member| !gone.contains(&member.index));
        let identities = stay.map(|member| member.signing_identity);
        let identities = identities.chain(adds.iter().map(|add| add.proposal.signing_identity().clone()));
        let people = identities.map(|identity| leaf_credential(&identity).map(|leaf| leaf.person));
        judge_list(&before, &after, &people.collect::<Result<BTreeSet<PersonId>, Void>>()?)
    }
}

/// Who is listed has a leaf, and who has a leaf is listed, once; who stays, stays who they are. A newcomer's device holds a Welcome
/// against the same.
fn judge_list(before: &MatterContext, after: &MatterContext, leaves: &BTreeSet<PersonId>) -> Result<(), Void> {
    let listed: BTreeSet<PersonId> = after.people.iter().map(|participant| participant.person).collect();
    if !listed.is_superset(leaves) {
        return Err(Void("a member is not listed"));
    }
    if listed.len() != after.people.len() || listed != *leaves {
        return Err(Void("it lists somebody who has no device in the matter"));
    }
    let changed = after.people.iter().any(|new| before.participant(new.person).is_some_and(|old| old != new));
    if changed { Err(Void("it changes who somebody is")) } else { Ok(()) }
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
