//! Recovery sheets: 256 bits on paper, from which a key is derived that outlives every device.
//!
//! 1. The sheet of a person holds the key that may replace the person's key ([`RecoveryKey`](crate::identity::RecoveryKey)); that of an
//!    organisation holds the organisation's key itself.
//! 2. From a person's secret follow, beside the recovery key, a token that proves to the relay who may ask, and a key under which the relay
//!    keeps a [`RecoveryNote`]: it tells the restoring device which relay, which firm and which person it is, in words that only
//!    the sheet's holder can have written. So a code and an address are all that has to be typed.
//! 3. A code is written in groups of four characters, and says itself whether it was mistyped, and which kind it is.
//!
//! ```text
//! offset  bytes  what
//! 0       1      kind: 1 a person's, 2 an organisation's
//! 1       32     secret
//! 33      2      checksum: the first bytes of SHA-384("privity/1 sheet" ‖ 0x00 ‖ the 33 bytes before)
//! ```
//!
//! Invariant: what the relay keeps (a hash, a public key, sealed bytes) tells it nothing of the secret.

use std::fmt;
use std::str::FromStr;

use minicbor::{Decode, Encode};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::cbor;
use crate::error::{Malformed, Misuse};
use crate::identity::{Name, check_handle};
use crate::ids::{PersonId, base32};
use crate::suite::{self, Digest, Fingerprint, SecretKey};

const SCHEME: &str = "privity-recovery://";
const SECRET_LEN: usize = 32;
const CHECKSUM_LEN: usize = 2;
const CODE_LEN: usize = 1 + SECRET_LEN + CHECKSUM_LEN;
const GROUP: usize = 4;

/// Whose sheet a code is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SheetKind {
    /// A person's.
    Person,
    /// An organisation's.
    Organisation,
}

/// The 256 secret bits of a recovery sheet. [`Self::code`] is how they are written.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct RecoverySecret {
    bytes: [u8; SECRET_LEN],
    #[zeroize(skip)]
    kind: SheetKind,
}

/// What a restoring device needs to know, sealed under the sheet's secret.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct RecoveryNote {
    /// Who is to be restored.
    #[n(0)]
    pub person: PersonId,
    /// The relay's key.
    #[n(1)]
    pub relay: Fingerprint,
    /// The organisation's key.
    #[n(2)]
    pub organisation: Fingerprint,
    /// The person's display name, with the salt of its commitment.
    #[n(3)]
    pub name: Name,
    /// Whether nobody but the person gave that name.
    #[n(4)]
    pub self_stated: bool,
}

impl RecoverySecret {
    /// A fresh secret.
    pub fn random(kind: SheetKind) -> Self {
        Self { bytes: suite::random(), kind }
    }

    /// Whose sheet it is.
    pub fn kind(&self) -> SheetKind {
        self.kind
    }

    /// The 32 bytes: a secret.
    pub fn as_bytes(&self) -> &[u8; SECRET_LEN] {
        &self.bytes
    }

    /// The secret with these bytes.
    pub fn new(bytes: [u8; SECRET_LEN], kind: SheetKind) -> Self {
        Self { bytes, kind }
    }

    /// The key that it holds: of a person the recovery key, of an organisation its own.
    ///
    /// # Errors
    /// [`Malformed`] never, in practice: 64 bytes are a key.
    pub fn key(&self) -> Result<SecretKey, Malformed> {
        let info: &[u8] = match self.kind {
            SheetKind::Person => b"privity/1 recovery key",
            SheetKind::Organisation => b"privity/1 organisation key",
        };
        SecretKey::from_slice(suite::derive::<64>(&self.bytes, info).as_slice())
    }

    /// Proves to the relay the right to ask for what it keeps for this sheet.
    pub fn token(&self) -> [u8; 32] {
        *suite::derive(&self.bytes, b"privity/1 recovery token")
    }

    /// What the relay keeps of the token.
    pub fn token_hash(&self) -> Digest {
        token_hash(&self.token())
    }

    /// Seals what the restoring device needs to know.
    ///
    /// # Errors
    /// [`Misuse::Crypto`] if the library fails.
    pub fn seal(&self, note: &RecoveryNote) -> Result<Vec<u8>, Misuse> {
        let key = suite::derive(&self.bytes, b"privity/1 recovery note");
        suite::seal(&key, b"recovery", &cbor::encode(note))
    }

    /// Opens what [`Self::seal`] sealed.
    ///
    /// # Errors
    /// [`Malformed`] if it was sealed for another sheet.
    pub fn open(&self, sealed: &[u8]) -> Result<RecoveryNote, Malformed> {
        let key = suite::derive(&self.bytes, b"privity/1 recovery note");
        cbor::decode(&suite::open(&key, b"recovery", sealed)?, "recovery note")
    }

    /// The code, as a sheet prints it: 14 groups of four characters. A secret.
    pub fn code(&self) -> Zeroizing<String> {
        let mut payload = Zeroizing::new(Vec::with_capacity(CODE_LEN));
        payload.push(match self.kind {
            SheetKind::Person => 1,
            SheetKind::Organisation => 2,
        });
        payload.extend_from_slice(&self.bytes);
        let sum = checksum(&payload);
        payload.extend_from_slice(&sum);
        let encoded = Zeroizing::new(base32().encode(&payload));
        let mut code = Zeroizing::new(String::with_capacity(encoded.len().saturating_mul(2)));
        for (index, character) in encoded.chars().enumerate() {
            if index > 0 && index.is_multiple_of(GROUP) {
                code.push(' ');
            }
            code.push(character);
        }
        code
    }
}

impl FromStr for RecoverySecret {
    type Err = Malformed;

    /// Reads a code as people type it: in any case, with or without spaces and dashes, and with digits for the letters they look like.
    fn from_str(text: &str) -> Result<Self, Malformed> {
        const MANGLED: Malformed = Malformed::Text("recovery code");
        let mut typed = Zeroizing::new(String::with_capacity(text.len()));
        for character in text.chars().filter(|character| !character.is_whitespace() && *character != '-') {
            typed.push(match character.to_ascii_lowercase() {
                '0' => 'o',
                '1' => 'l',
                '8' => 'b',
                other => other,
            });
        }
        let payload = Zeroizing::new(base32().decode(typed.as_bytes()).map_err(|_| MANGLED)?);
        if payload.len() != CODE_LEN {
            return Err(MANGLED);
        }
        let (body, sum) = payload.split_at_checked(1 + SECRET_LEN).ok_or(MANGLED)?;
        if sum != checksum(body) {
            return Err(MANGLED);
        }
        let (kind, bytes) = body.split_first().ok_or(MANGLED)?;
        let kind = match kind {
            1 => SheetKind::Person,
            2 => SheetKind::Organisation,
            _ => return Err(Malformed::Text("recovery code of a newer version")),
        };
        Ok(Self { bytes: bytes.try_into().map_err(|_| MANGLED)?, kind })
    }
}

/// A person's sheet as one line, for a camera or a file: `privity-recovery://HOST:PORT/HANDLE/CODE`. A secret.
#[derive(Clone)]
pub struct Sheet {
    /// Where the relay listens.
    pub address: String,
    /// The person's handle.
    pub handle: String,
    /// The secret.
    pub secret: RecoverySecret,
}

impl Sheet {
    /// The line. A secret.
    pub fn line(&self) -> Zeroizing<String> {
        let code = Zeroizing::new(self.secret.code().replace(' ', ""));
        Zeroizing::new(format!("{SCHEME}{}/{}/{}", self.address, self.handle, *code))
    }
}

impl FromStr for Sheet {
    type Err = Malformed;

    fn from_str(line: &str) -> Result<Self, Malformed> {
        const MANGLED: Malformed = Malformed::Text("recovery sheet");
        let rest = line.trim().strip_prefix(SCHEME).ok_or(MANGLED)?;
        let (address, rest) = rest.split_once('/').ok_or(MANGLED)?;
        let (handle, code) = rest.split_once('/').ok_or(MANGLED)?;
        let (host, port) = address.rsplit_once(':').ok_or(MANGLED)?;
        if host.is_empty() || port.parse::<u16>().map_or(true, |port| port == 0) || check_handle(handle).is_err() {
            return Err(MANGLED);
        }
        Ok(Self { address: address.to_owned(), handle: handle.to_owned(), secret: code.parse()? })
    }
}

impl fmt::Debug for Sheet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sheet").field("handle", &self.handle).finish_non_exhaustive()
    }
}

impl fmt::Debug for RecoverySecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RecoverySecret(redacted)")
    }
}

/// The relay's record of a token.
pub fn token_hash(token: &[u8; 32]) -> Digest {
    Digest::of(&[b"privity/1 recovery token hash\0", token])
}

/// Finds a character mistyped; no protection against anybody.
fn checksum(body: &[u8]) -> [u8; CHECKSUM_LEN] {
    let digest = Digest::of(&[b"privity/1 sheet\0", body]);
    let mut sum = [0; CHECKSUM_LEN];
    for (to, from) in sum.iter_mut().zip(digest.as_bytes()) {
        *to = *from;
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_survives_being_written_down_and_typed_again() {
        for kind in [SheetKind::Person, SheetKind::Organisation] {
            let secret = RecoverySecret::random(kind);
            let code = secret.code();
            assert_eq!(code.split(' ').count(), 14);
            assert!(code.split(' ').all(|group| group.len() == 4), "{}", code.len());
            let typed = code.to_uppercase().replace(' ', "-").replace('O', "0").replace('L', "1").replace('B', "8");
            for text in [code.as_str(), &typed, &code.replace(' ', ""), &format!("  {}\n", *code)] {
                assert!(text.parse::<RecoverySecret>().unwrap() == secret);
            }
        }
    }

    #[test]
    fn almost_every_character_mistyped_is_noticed_and_a_lost_one_always() {
        let code = RecoverySecret::random(SheetKind::Person).code().replace(' ', "");
        let mut unnoticed = 0;
        for index in 0..code.len() {
            let mut shorter = code.clone();
            shorter.remove(index);
            assert!(shorter.parse::<RecoverySecret>().is_err());
            let mut other = code.clone().into_bytes();
            other[index] = if other[index] == b'a' { b'c' } else { b'a' };
            unnoticed += usize::from(String::from_utf8(other).unwrap().parse::<RecoverySecret>().is_ok());
        }
        // One in 65,536 slips through.
        assert!(unnoticed <= 1);
    }

    #[test]
    fn a_sheet_survives_its_line() {
        let secret = RecoverySecret::random(SheetKind::Person);
        let sheet = Sheet { address: "[::1]:4433".to_owned(), handle: "ada".to_owned(), secret };
        let read: Sheet = sheet.line().parse().unwrap();
        assert!(read.secret == sheet.secret && read.handle == "ada" && read.address == "[::1]:4433");
        assert!(!format!("{sheet:?}").contains(&*sheet.secret.code().replace(' ', "")));
        for mangled in
            ["", "privity-recovery://relay:1/ada", "privity-recovery://relay/ada/x", "privity://relay:1/ada/x"]
        {
            assert!(mangled.parse::<Sheet>().is_err(), "{mangled}");
        }
    }

    #[test]
    fn a_note_opens_only_with_its_sheet() {
        let secret = RecoverySecret::random(SheetKind::Person);
        let note = RecoveryNote {
            person: PersonId::random(),
            relay: Fingerprint::new([1; 32]),
            organisation: Fingerprint::new([2; 32]),
            name: Name::new("Ada Byron").unwrap(),
            self_stated: false,
        };
        let sealed = secret.seal(&note).unwrap();
        assert_eq!(secret.open(&sealed).unwrap(), note);
        assert!(RecoverySecret::random(SheetKind::Person).open(&sealed).is_err());
    }

    #[test]
    fn keys_of_persons_and_organisations_differ_and_secrets_never_print() {
        let person = RecoverySecret { bytes: [7; 32], kind: SheetKind::Person };
        let organisation = RecoverySecret { bytes: [7; 32], kind: SheetKind::Organisation };
        assert_ne!(person.key().unwrap().as_bytes(), organisation.key().unwrap().as_bytes());
        assert_eq!(format!("{person:?}"), "RecoverySecret(redacted)");
    }
}
