//! Which display names look alike: Unicode Technical Standard 39, over names without case, spaces and marks.
//!
//! 1. A name is taken in its compatibility form (NFKC), so that a full-width letter is that letter.
//! 2. Its skeleton puts one character for all that look like it; once after folding case, and once before, since a capital I looks like
//!    a small l, and a small i does not.
//! 3. Letters and digits alone are compared, so that spaces, points, accents and what can't be seen make no other name.
//!
//! Invariant: two names that look the same by any of these have a look in common. That only ever warns: it refuses nobody.

use unicode_normalization::UnicodeNormalization as _;
use unicode_security::skeleton;

/// What a name looks like. Two names look alike if [`NameLook::is_like`] says so.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct NameLook {
    folded: String,
    as_written: String,
}

/// The look of a display name.
pub fn look_of(name: &str) -> NameLook {
    let name: String = name.nfkc().collect();
    NameLook { folded: bare(skeleton(&name.to_lowercase())), as_written: bare(skeleton(&name)) }
}

impl NameLook {
    /// Whether the two can be taken for each other.
    pub fn is_like(&self, other: &Self) -> bool {
        self.folded == other.folded || self.as_written == other.as_written
    }
}

/// Letters and digits alone, without case; where there are none, everything.
fn bare(skeleton: impl Iterator<Item = char>) -> String {
    let skeleton = skeleton.collect::<String>().to_lowercase();
    let letters: String = skeleton.chars().filter(|character| character.is_alphanumeric()).collect();
    if letters.is_empty() { skeleton } else { letters }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alike(one: &str, other: &str) -> bool {
        look_of(one).is_like(&look_of(other))
    }

    #[test]
    fn names_that_can_be_taken_for_each_other_are_alike() {
        let pairs = [
            ("Ada Byron", "Ada Byron"),
            ("Ada Byron", "ada  BYRON"),
            ("Ada Byron", "Ada\u{a0}Byron"),
            ("Ada Byron", "Ada B\u{200b}yron"),
            ("Ada Byron", "\u{410}da Byron"),
            ("Ada Byron", "Ada Вуrоn"),
            ("Ada Byron", "Ａｄａ Ｂｙｒｏｎ"),
            ("Ada Byron", "𝐀𝐝𝐚 𝐁𝐲𝐫𝐨𝐧"),
            ("Ada Byron", "Ada Byr0n"),
            ("Ada Byron", "Áda Byrón."),
            ("Bill Jones", "Bi11 Jones"),
            ("Ilya Ott", "llya Ott"),
            ("Jim Cornwall", "Jirn Comwall"),
            ("Zoë", "Zoe\u{308}"),
            ("ΑΒΓ", "ABΓ"),
        ];
        for (one, other) in pairs {
            assert!(alike(one, other) && alike(other, one), "{one:?} {other:?}");
        }
    }

    #[test]
    fn names_of_different_people_are_not() {
        let names = [
            "Ada Byron",
            "Ada Bryon",
            "Anna Byron",
            "Bob Jones",
            "Rob Jones",
            "李小龙",
            "李小明",
            "Åsa",
            "Eva",
            "😀",
            "😁",
        ];
        for (index, one) in names.iter().enumerate() {
            for other in names.iter().skip(index + 1) {
                assert!(!alike(one, other), "{one:?} {other:?}");
            }
        }
    }
}
