//! Safety numbers: what two people compare, by telephone or with a camera, to know that nobody stands between them.
//!
//! The number of two people is made of both ids and both person keys, and of nothing else: neither relay nor firm. The bytes:
//!
//! ```text
//! side   = person id (16) ‖ fingerprint of the person's key (32)
//! hash   = SHA-384("privity/1 safety number" ‖ 0x00 ‖ the smaller side ‖ the greater side)
//! digits = for each of the twelve 4-byte big-endian numbers in hash: that number mod 100,000, as five digits
//! ```
//!
//! 60 digits carry 199 bits; a group's bias is below 2^-15. Whoever stands between two people shows each of them another key for the
//! other, and has to find two keys that give one number: a collision, 2^99 hashes. Signal hashes each side on its own, 5,200 times,
//! since there a second preimage of 100 bits is looked for, where a quantum computer helps most. One hash over both sides asks for a
//! collision, and at 2^99 iterating adds nothing.
//!
//! Somebody who takes in a newcomer in the place of their inviter compares another number with them, in which everything stands that the
//! endorsement will say of them but the name:
//!
//! ```text
//! hash   = SHA-384("privity/1 firm number" ‖ 0x00 ‖ the newcomer's side ‖ fingerprint of the organisation's key (32) ‖ CBOR [role, handle])
//! ```
//!
//! Invariant: both people compute the same number, and any other key, on either side, gives another.

use std::fmt;
use std::str::FromStr;

use crate::cbor;
use crate::error::Malformed;
use crate::identity::Role;
use crate::ids::PersonId;
use crate::suite::{Digest, PublicKey};

const LABEL: &[u8] = b"privity/1 safety number\0";
const FIRM_LABEL: &[u8] = b"privity/1 firm number\0";
const GROUPS: usize = 12;
const GROUP_DIGITS: usize = 5;
const GROUP_BELOW: u32 = 100_000;

/// The number of two people, as [`fmt::Display`] shows it: twelve groups of five digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SafetyNumber([u32; GROUPS]);

impl SafetyNumber {
    /// The number of two people with these keys, in either order.
    pub fn between(one: (PersonId, &PublicKey), other: (PersonId, &PublicKey)) -> Self {
        let mut sides = [side(one), side(other)];
        sides.sort();
        let [smaller, greater] = &sides;
        Self::of(&Digest::of(&[LABEL, smaller, greater]))
    }

    fn of(digest: &Digest) -> Self {
        let mut groups = [0; GROUPS];
        for (group, bytes) in groups.iter_mut().zip(digest.as_bytes().as_chunks::<4>().0) {
            *group = u32::from_be_bytes(*bytes).checked_rem(GROUP_BELOW).unwrap_or_default();
        }
        Self(groups)
    }

    /// The number of a newcomer and the firm, with the handle and the role that the newcomer is to have: compared where somebody takes them in
    /// in the place of their inviter.
    pub fn with_firm(newcomer: (PersonId, &PublicKey), handle: &str, role: Role, organisation: &PublicKey) -> Self {
        let firm = organisation.fingerprint();
        Self::of(&Digest::of(&[FIRM_LABEL, &side(newcomer), firm.as_bytes(), &cbor::encode(&(role, handle))]))
    }

    /// The 60 digits without spaces, as a code for cameras holds them.
    pub fn digits(&self) -> String {
        self.to_string().replace(' ', "")
    }
}

impl fmt::Display for SafetyNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let groups: Vec<String> = self.0.iter().map(|group| format!("{group:05}")).collect();
        f.write_str(&groups.join(" "))
    }
}

/// What a person puts into a number.
fn side((person, key): (PersonId, &PublicKey)) -> Vec<u8> {
    [&person.as_bytes()[..], key.fingerprint().as_bytes().as_slice()].concat()
}

/// Digits, in groups or not: white space is passed over.
impl FromStr for SafetyNumber {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        const MANGLED: Malformed = Malformed::Text("safety number");
        let digits: Vec<u32> = text
            .chars()
            .filter(|character| !character.is_whitespace())
            .map(|character| character.to_digit(10).ok_or(MANGLED))
            .collect::<Result<_, _>>()?;
        let mut groups = [0; GROUPS];
        let (read, rest) = digits.as_chunks::<GROUP_DIGITS>();
        if read.len() != GROUPS || !rest.is_empty() {
            return Err(MANGLED);
        }
        for (group, digits) in groups.iter_mut().zip(read) {
            *group = digits.iter().fold(0_u32, |number, digit| number.saturating_mul(10).saturating_add(*digit));
        }
        Ok(Self(groups))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::suite::SecretKey;

    fn key(number: u8) -> PublicKey {
        SecretKey::from_slice(&[number; 64]).unwrap().public().unwrap()
    }

    #[test]
    fn both_people_see_one_number_and_any_other_key_or_person_gives_another() {
        let (ada, bob) = (PersonId::new([1; 16]), PersonId::new([2; 16]));
        let (adas, bobs, eves) = (key(1), key(2), key(3));
        let number = SafetyNumber::between((ada, &adas), (bob, &bobs));
        assert_eq!(SafetyNumber::between((bob, &bobs), (ada, &adas)), number);
        let others = [
            SafetyNumber::between((ada, &adas), (bob, &eves)),
            SafetyNumber::between((ada, &eves), (bob, &bobs)),
            SafetyNumber::between((ada, &bobs), (bob, &adas)),
            SafetyNumber::between((PersonId::new([3; 16]), &adas), (bob, &bobs)),
            SafetyNumber::between((ada, &adas), (PersonId::new([3; 16]), &bobs)),
        ];
        assert!(others.iter().all(|other| *other != number));
        let firms = SafetyNumber::with_firm((ada, &adas), "ada", Role::Client, &bobs);
        let others = [
            number,
            SafetyNumber::with_firm((bob, &adas), "ada", Role::Client, &bobs),
            SafetyNumber::with_firm((ada, &eves), "ada", Role::Client, &bobs),
            SafetyNumber::with_firm((ada, &adas), "eve", Role::Client, &bobs),
            SafetyNumber::with_firm((ada, &adas), "ada", Role::Attorney, &bobs),
            SafetyNumber::with_firm((ada, &adas), "ada", Role::Client, &eves),
        ];
        assert!(others.iter().all(|other| *other != firms));
    }

    #[test]
    fn a_number_is_read_with_and_without_spaces_and_nothing_else_is_one() {
        let number = SafetyNumber::between((PersonId::new([1; 16]), &key(1)), (PersonId::new([2; 16]), &key(2)));
        let (shown, digits) = (number.to_string(), number.digits());
        assert_eq!((shown.len(), digits.len()), (71, 60));
        assert!(shown.split(' ').all(|group| group.len() == 5 && group.chars().all(|c| c.is_ascii_digit())));
        for text in [shown.clone(), digits.clone(), format!("\n{} ", shown.replace(' ', "\t"))] {
            assert_eq!(text.parse::<SafetyNumber>().unwrap(), number);
        }
        for wrong in ["", "12345", &digits[1..], &format!("{digits}0"), &format!("x{}", &digits[1..]), "٣"] {
            assert!(wrong.parse::<SafetyNumber>().is_err(), "{wrong}");
        }
    }
}
