//! Endorsements taken back: who may, and what makes an endorsement good again.
//!
//! 1. A registrar's device says so of anybody but registrars, a device of the endorser of those whom they endorsed, and the organisation's
//!    key of registrars.
//! 2. From then on nobody is to build on that person's endorsement, whichever it is.
//! 3. A later endorsement that names the statement it comes after makes the person whole again; one that was under way meanwhile does not.
//!
//! Invariant: what the person has endorsed and signed before stays what it was.

use minicbor::{Decode, Encode};

use crate::identity::{Endorsement, Identity, Issuer};
use crate::ids::{PersonId, Timestamp};
use crate::suite::Digest;

/// Nobody vouches for a person any more. Signed under [`Label::EndorsementRevocation`](crate::suite::Label::EndorsementRevocation): by the
/// organisation's key, or, where it names an issuer, by the MLS key of that device.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct EndorsementRevocation {
    /// Whose endorsement.
    #[n(0)]
    pub person: PersonId,
    /// The hash of the endorsement, as its author knew it.
    #[n(1)]
    pub endorsement: Digest,
    /// The device that says so; none for the organisation's key.
    #[n(2)]
    pub issuer: Option<Issuer>,
    /// When, by the author's clock, and later than whatever it takes back.
    #[n(3)]
    pub at: Timestamp,
}

/// Whether a chain makes its first person whole again after a withdrawal: their endorsement names it, and comes from whoever had taken
/// the one before back, or from a registrar, or from the organisation's key.
pub fn is_lifted(chain: &[Identity], statement: Digest, said: &EndorsementRevocation) -> bool {
    let of = |identity: &Identity| identity.endorsement.unverified::<Endorsement>("endorsement").ok();
    let Some(endorsement) = chain.first().and_then(of).filter(|anew| anew.after == Some(statement)) else {
        return false;
    };
    let Some(issuer) = endorsement.issuer else { return true };
    let registrar = chain.get(1).and_then(of).is_some_and(|above| above.registrar);
    registrar || said.issuer.is_some_and(|before| before.person == issuer.person)
}
