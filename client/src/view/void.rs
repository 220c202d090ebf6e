//! Why something in a matter is not accepted, in words for people who know no protocol. The exact reason stands in the JSON.
//!
//! Invariant: every reason has plain words, known here or not.

use crate::view::plain;

/// What a reason says contains one of these words, and what that means. The first that fits counts.
const WORDS: [(&[&str], &str); 7] = [
    (
        &["of no member", "is no member", "no such leaf", "only members", "external"],
        "it comes from a device that is not in this matter",
    ),
    (&["signature"], "its signature is not that of whom it names"),
    (&["by that role", "role may not", "no role"], "its author may not do that here"),
    (
        &["epoch", "another statement", "from before its last change"],
        "it was made before the last change here and came too late",
    ),
    (
        &["certif", "vouches", "not listed", "not the one expected", "credential"],
        "it is about somebody whom nobody at the firm vouches for",
    ),
    (
        &["let back in", "lets somebody", "the request it names", "let a device"],
        "a device was to be let back in, but not in the way that is allowed",
    ),
    (&["decode", "mangled", "larger than", "wrong length", "another kind"], "it is garbled"),
];

/// What the user reads: what it means, who it came from as far as that is known, and what to do.
pub(super) fn told(from: Option<String>, why: &str, claimed: bool) -> String {
    let why = reason(why);
    match from {
        Some(from) if claimed => format!(
            "— something here is not accepted: {why}. The relay says that it came from {}. It changes nothing, and everybody skips it. \
             Nothing to do",
            plain(&from, false)
        ),
        Some(from) => format!(
            "— something from {} is not accepted: {why}. Everybody skips it. If they meant to say something here, ask them by another way",
            plain(&from, false)
        ),
        None => {
            format!(
                "— something here is not accepted: {why}. It changes nothing, and everybody skips it. Nothing to do"
            )
        }
    }
}

fn reason(why: &str) -> &'static str {
    let known = WORDS.iter().find(|(words, _)| words.iter().any(|word| why.contains(word)));
    known.map_or("it is not what the rules of this matter allow", |(_, plain)| plain)
}

#[cfg(test)]
mod tests {
    use privity_protocol::error::{Malformed, PeerMisbehaved};

    use super::*;

    #[test]
    fn reasons_are_told_in_plain_words() {
        let void = |why: &str| PeerMisbehaved::Void(why.to_owned()).to_string();
        for (why, part) in [
            (void("it is of no member"), "not in this matter"),
            (void("it belongs to epoch 3"), "came too late"),
            (void("its author's role may not add"), "may not do that"),
            (PeerMisbehaved::Role("continuing a matter").to_string(), "may not do that"),
            (PeerMisbehaved::Signature("a statement").to_string(), "signature"),
            (PeerMisbehaved::NotEndorsed.to_string(), "nobody at the firm vouches"),
            (void("an added device is not certified by the listed person key"), "nobody at the firm vouches"),
            (Malformed::Cbor("MLS message").to_string(), "garbled"),
            (void("invalid confirmation tag"), "rules of this matter"),
        ] {
            let told = told(Some("Eve".to_owned()), &why, true);
            assert!(told.contains(part), "{why}: {told}");
            for word in ["member", "epoch", "leaf", "MLS", "void"] {
                assert!(!told.contains(word), "{word}: {told}");
            }
        }
    }
}
