//! Privity's protocol: everything that devices and relays share, and what integrators build on.
//!
//! Pure: no sockets, no disk, no clock. Whoever uses it brings these; time is an argument.
//!
//! # A tour
//!
//! - [`device`] is the whole endpoint. A [`Device`] reads and writes matters over one link; its driver drains [`Output`]s: each
//!   [`Output::Persist`] is made durable before the next [`Output::Send`] leaves. Start here to build a client, a bot or an archive.
//! - [`link`] opens a link, both sides; [`frame`] is what is said on it, and `privity.cddl` the same for other languages.
//! - [`matter`] is one MLS group (RFC 9420) with Privity's rules: who may do what is judged by every member alike.
//! - [`identity`] says who is who: a chain of hybrid signatures up to the organisation's key. [`invite`] is how somebody begins, and [`recovery`] how
//!   they begin again with what is on paper.
//! - [`rescue`] is how a device that lost its way comes back, and how a matter goes on when nobody can save its group.
//! - [`content`] is what a message says, [`envelope`] how it is padded and wrapped, [`ids`] who, what and where.
//! - [`log`] is the relay's audit log: what it did with people, devices and rosters, and the proofs that it can't take back.
//! - [`suite`] is the cryptography: X-Wing, AES-256-GCM, HKDF-SHA-384, Ed25519 and ML-DSA-65, both required.
//! - [`limits`] bounds everything; [`error`] sorts failures by who is at fault.
//!
//! # Two people in a matter
//!
//! What [`Device`] does with a relay between, done by hand: an attorney opens a matter, adds a client and reads what they say.
//!
//! ```
//! use privity_protocol::content::{Body, Bundle, Content};
//! use privity_protocol::envelope;
//! use privity_protocol::identity::{DeviceCertificate, Endorsement, Identity, Name, Role, Signed};
//! use privity_protocol::ids::{DeviceId, MailboxId, MatterId, MessageId, PersonId, Position, Timestamp};
//! use privity_protocol::matter::{
//!     Certificates, Change, Companion, KeyPackages, LeafCredential, Matter, MatterContext, Me, Participant, RULES, Seen,
//!     key_package,
//! };
//! use privity_protocol::suite::{Digest, Label, SecretKey};
//!
//! /// A person with one device, certified by the person's key and endorsed by the organisation's.
//! fn person(organisation: &SecretKey, role: Role) -> Result<(Me, Identity, Participant), privity_protocol::Error> {
//!     let (person, device) = (PersonId::random(), DeviceId::random());
//!     let (person_key, link_key, key) = (SecretKey::generate(), SecretKey::generate(), SecretKey::generate());
//!     let certificate = DeviceCertificate {
//!         person,
//!         device,
//!         link_key: link_key.public()?.digest(),
//!         mls_key: key.public()?,
//!         made_at: Timestamp(0),
//!     };
//!     let certificate = Signed::make(Label::DeviceCertificate, &person_key, &certificate)?;
//!     let endorsement = Endorsement {
//!         person,
//!         person_key: person_key.public()?.digest(),
//!         role,
//!         registrar: false,
//!         handle: "someone".to_owned(),
//!         name: Name::new("Someone")?.commitment(),
//!         issuer: None,
//!         from: Timestamp(0),
//!         until: Timestamp(u64::MAX),
//!         confirmed: false,
//!         adopted: false,
//!         after: None,
//!     };
//!     let credential = LeafCredential { person, device, certificate: certificate.digest() };
//!     let identity = Identity {
//!         person,
//!         person_key: person_key.public()?,
//!         certificates: vec![certificate],
//!         endorsement: Signed::make(Label::Endorsement, organisation, &endorsement)?,
//!         line: Vec::new(),
//!     };
//!     let participant = Participant { person, role, person_key: person_key.public()?.digest() };
//!     Ok((Me { credential, key }, identity, participant))
//! }
//!
//! # fn main() -> Result<(), privity_protocol::Error> {
//! let organisation = SecretKey::generate();
//! let (ada, ada_is, ada_in) = person(&organisation, Role::Attorney)?;
//! let (bob, bob_is, bob_in) = person(&organisation, Role::Client)?;
//! let (adas, bobs) = (KeyPackages::default(), KeyPackages::default());
//!
//! // Ada opens a matter with herself in it.
//! let mailbox = MailboxId::random();
//! let alone = MatterContext { rules: RULES, mailbox, title: "Smith v Jones".to_owned(), orders: [0; 48], people: vec![ada_in], continues: None };
//! let mut hers = Matter::create(&ada, &adas, MatterId::random(), &alone)?;
//!
//! // She adds Bob with a key package of his; every member judges that by the certificates in the bundle.
//! let (package, _, _) = key_package(&bob, &bobs, false)?;
//! let mut people = vec![ada_in, bob_in];
//! people.sort();
//! let bundle = Bundle { identities: vec![ada_is, bob_is], names: Vec::new() };
//! let certificates = Certificates::of(&bundle.identities)?;
//! let seen = Seen { position: Position::start(mailbox), roster: None, bundle: None, repair: None };
//! let change = Change {
//!     add: vec![package],
//!     context: Some(MatterContext { people, ..alone }),
//!     companion: Some(Companion { bundle, seen: seen.position, line: Vec::new(), fates: Vec::new() }),
//!     ..Change::default()
//! };
//! let built = hers.build(change, &seen, certificates)?;
//!
//! // The Commit goes to the matter's mailbox, the Welcome to Bob. Ada applies hers once she reads it there.
//! let position = seen.position.next(true, &Digest::of(&[&built.commit]));
//! hers.apply_own(&built.secrets, built.epoch)?;
//! let (mut his, _) = Matter::join(&bob, &bobs, &built.welcome.unwrap_or_default())?;
//!
//! // Bob says something, with what he has read; Ada opens it.
//! let said = Content::text(MessageId::random(), Timestamp(0), "Good morning")?;
//! let sealed = his.seal(&envelope::pad(&said.encode())?, &Seen { position, roster: None, bundle: None, repair: None })?;
//! let opened = hers.open(&sealed)?;
//! assert_eq!(opened.sender.credential, bob.credential);
//! assert_eq!(opened.seen.position, position);
//! assert_eq!(Content::decode(envelope::unpad(&opened.plaintext)?)?.body, Body::Text("Good morning".to_owned()));
//! # Ok(())
//! # }
//! ```

#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::arithmetic_side_effects))]

pub mod between;
pub mod cbor;
pub mod content;
pub mod device;
pub mod envelope;
pub mod error;
pub mod frame;
pub mod identity;
pub mod ids;
pub mod invite;
pub mod limits;
pub mod link;
pub mod log;
pub mod matter;
pub mod proof;
pub mod recovery;
pub mod rescue;
pub mod rotation;
pub mod secret;
pub mod suite;

pub use device::{Device, Notice, Output};
pub use error::Error;
