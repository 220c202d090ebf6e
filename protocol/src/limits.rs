//! Every bound of the protocol, each with its reason. Nothing that comes from outside is larger, longer or slower than
//! a constant in this file allows.

/// KiB, for reading the table below.
const KIB: usize = 1024;

/// The sizes that an envelope with padded content comes in: five, so that a size tells little.
pub const BUCKETS: [usize; 5] = [4 * KIB, 16 * KIB, 64 * KIB, 256 * KIB, 1024 * KIB];

/// The largest envelope there is; also what one device may hold up on a shared stream.
pub const ENVELOPE_MAX: usize = 1024 * KIB;

/// What an envelope adds around its padded content: MLS framing, both signatures (3,373), the position (about 70), tags.
/// A test seals at every bucket and compares.
pub const ENVELOPE_OVERHEAD: usize = 3560;

/// The longest text of one message: 256 KiB of UTF-8. Longer things are attachments.
pub const TEXT_MAX: usize = 256 * KIB;

/// The largest frame on a link: a Post with a bundle, a Commit and a Welcome, each at most an envelope.
pub const FRAME_MAX: usize = 4 * 1024 * KIB;

/// The largest frame before admission: a hello (5.5 KB) with room; what a stranger can make the relay buffer.
pub const HELLO_MAX: usize = 16 * KIB;

/// The largest answer to a hello: [`ROTATIONS_MAX`] statements of 5.4 KB, two keys of 2 KB, with room.
pub const ADMITTED_MAX: usize = 64 * KIB;

/// Statements of a relay for its new keys in one answer to a hello. A device that has missed more follows the rest on its next link.
pub const ROTATIONS_MAX: usize = 8;

/// Keys that were the relay's before, as a device remembers them: the newest, one for each year that anybody keeps a profile.
pub const PAST_RELAYS: usize = 32;

/// Parts in one Post: bundle, Commit, and a Grant and a Welcome for each new device.
pub const POST_PARTS_MAX: usize = 256;

/// Requests a device may have unanswered on one link.
pub const IN_FLIGHT_MAX: usize = 256;

/// People in one matter: above this a Welcome with its tree and chains outgrows an envelope.
pub const PEOPLE_MAX: usize = 32;

/// Devices in one matter; see [`PEOPLE_MAX`].
pub const DEVICES_MAX: usize = 48;

/// Devices of one person.
pub const DEVICES_PER_PERSON_MAX: usize = 8;

/// Links in a chain of endorsements: client, staff, registrar, organisation, and one to spare.
pub const CHAIN_MAX: usize = 5;

/// Single-use key packages that a device keeps at the relay.
pub const KEY_PACKAGES: usize = 20;

/// The largest key package: 11.2 KB measured, with room for extensions.
pub const KEY_PACKAGE_MAX: usize = 24 * KIB;

/// Key packages one device may take from the relay in a day.
pub const KEY_PACKAGES_TAKEN_PER_DAY: u32 = 400;

/// Bytes of envelopes that one person may append in a day, to matters and inboxes together: 1 GiB is far above what people write, and
/// bounds how fast one person's devices can fill the relay's disk.
pub const APPENDED_PER_DAY: u64 = 1024 * 1024 * 1024;

/// The largest signed statement (certificate, endorsement, invite), encoded.
pub const STATEMENT_MAX: usize = 16 * KIB;

/// Characters of a handle, at least and at most.
pub const HANDLE_CHARS: std::ops::RangeInclusive<usize> = 2..=32;

/// Bytes of a display name.
pub const NAME_MAX: usize = 128;

/// Bytes of a matter's title.
pub const TITLE_MAX: usize = 256;

/// How long an invite is good: 72 hours, in milliseconds.
pub const INVITE_LIFETIME_MS: u64 = 72 * 3600 * 1000;

/// How long an invite for one more device of one's own is good: both are at hand. 10 minutes, in milliseconds.
pub const LINK_LIFETIME_MS: u64 = 10 * 60 * 1000;

/// The largest pack for a linked device: a sealed name.
pub const PACK_MAX: usize = 1024;

/// A signed note from one device to another of the same person, encoded: what the bucket of 64 KiB holds with its padding. Nearly all of them
/// fit the one of 16 KiB.
pub const NOTE_MAX: usize = 60 * KIB;

/// Bytes of invites in one note: with both signatures and the KEM's ciphertext it still fits the bucket of 16 KiB.
pub const NOTE_INVITES_BYTES: usize = 8 * KIB;

/// Notes that wait to be sent to other devices of the same person: eight devices, with all that each may have to be told.
pub const NOTES_MAX: usize = 256;

/// Notes that wait for one other device. One that is dead and not revoked takes no room from the others: what it was told first is dropped, for
/// most of it (invites) ends after three days anyway.
pub const NOTES_PER_DEVICE: usize = NOTES_MAX / 8;

/// Notes that were opened and wait for the certificate of the device that wrote them: one that is linked just now.
pub const NOTES_HELD: usize = 16;

/// Bytes of what a person calls a device.
pub const DEVICE_NAME_MAX: usize = 64;

/// Bytes of records in a piece of history: with padding and seal it fits the bucket of 256 KiB. One record may be larger alone.
pub const PIECE_BYTES: usize = 250 * KIB;

/// Pieces of history that may be on their way to one device unconfirmed: 8 MiB at most, and an eighth of what one person may leave in an
/// inbox ([`INBOX_PER_SENDER`]), so that Welcomes and notes find room beside them.
pub const TRANSFER_WINDOW: u64 = 32;

/// After how many pieces of history a device confirms them: each time uses up a key package.
pub const TRANSFER_CONFIRM: u64 = 8;

/// Transfers of history that a device knows the sender of: eight devices, each of which sends what it has a few times.
pub const TRANSFERS_MAX: usize = 64;

/// Pieces of history that one device sends another in a day: 128 MiB. They count among the bytes that their person may append
/// ([`APPENDED_PER_DAY`]), for the relay does not look inside an envelope; so what goes in the background leaves the most of those to
/// messages, from whichever of eight devices it goes.
pub const PIECES_PER_DAY: u64 = 512;

/// Revocations in one answer, with the chains that they are verified by: at most about 16 times three identities.
pub const REVOCATIONS_MAX: usize = 16;

/// Statements by people who were shut out that a device holds until the log has shown when they were made, and those that it remembers as void:
/// whoever has one revoked device can sign any number.
pub const LATE_MAX: usize = 64;

/// How long a device keeps the secret of its invite behind its expiry, for whoever used it in time: 30 days, in milliseconds.
pub const INVITE_KEPT_MS: u64 = 30 * 24 * 3600 * 1000;

/// Open invites of one person.
pub const INVITES_OPEN_MAX: usize = 64;

/// Invites whose secrets a device keeps: those of all devices of its person, and those whose newcomer may still wait.
pub const INVITES_KEPT: usize = 4 * INVITES_OPEN_MAX;

/// Newcomers who are shown to whoever may take them in: at about 14 KB each they fit into a frame, and nobody looks through more.
pub const ADOPTABLE_MAX: usize = 128;

/// Invites that were cancelled or used, which a device remembers by their ids until nobody could come with them any more: at 30 bytes each they
/// are written anew with each. Those that end first go first.
pub const INVITES_GONE: usize = 2 * INVITES_KEPT;

/// The shortest time that an invite is good for: a minute, in milliseconds.
pub const INVITE_LIFETIME_MIN_MS: u64 = 60 * 1000;

/// Invites that are shown to their inviter, the newest.
pub const INVITES_SHOWN: usize = 256;

/// Chains of people to renew in one answer: about 40 KB each.
pub const RENEWALS_AT_ONCE: usize = 32;

/// How long an envelope is kept: 90 days, in milliseconds.
pub const ENVELOPE_LIFETIME_MS: u64 = 90 * 24 * 3600 * 1000;

/// How long an endorsement is good: two years, in milliseconds; renewed beside the credential.
pub const ENDORSEMENT_LIFETIME_MS: u64 = 2 * 365 * 24 * 3600 * 1000;

/// Accepted Posts that the relay remembers for each device.
pub const IDEM_WINDOW: u64 = 1024;

/// Fences a device may append to one mailbox a minute, and at once.
pub const FENCES_PER_MINUTE: u32 = 10;
/// See [`FENCES_PER_MINUTE`].
pub const FENCE_BURST: u32 = 20;

/// Envelopes from one person that may wait unread in another's inbox, and the total for everyone who is neither attorney
/// nor staff: the rest is their reserve.
pub const INBOX_PER_SENDER: u64 = 256;
/// See [`INBOX_PER_SENDER`].
pub const INBOX_CLIENTS_TOTAL: u64 = 4096;

/// Bytes queued for a reader before the relay stops pushing and the device reads again from its cursor.
pub const PUSH_QUEUE_BYTES: usize = 2 * 1024 * KIB;

/// Bytes of entries in one event.
pub const ENTRIES_BYTES: usize = 1024 * KIB + 64 * KIB;

/// Entries in one event.
pub const ENTRIES_MAX: usize = 256;

/// Mailboxes one device may subscribe to.
pub const SUBSCRIPTIONS_MAX: usize = 4096;

/// How long a connection may live without being admitted, in milliseconds.
pub const ADMISSION_MS: u64 = 10_000;

/// How long a newcomer's link may hold its place once it is admitted, in milliseconds: programs ask and answer at once, and people who
/// take their time hold no link meanwhile.
pub const NEWCOMER_MS: u64 = 10_000;

/// How long a write to a stalled reader may take, in milliseconds.
pub const WRITE_MS: u64 = 30_000;

/// A device asks for nothing and hears nothing for this long: the link is dead, in milliseconds.
pub const IDLE_MS: u64 = 60_000;

/// Text messages waiting in one matter's outbox.
pub const OUTBOX_MAX: usize = 10_000;

/// Messages after which a device owes a matter fresh keys.
pub const HEAL_MESSAGES: u32 = 100;

/// Messages that a device seals in one epoch before it waits for a Commit: receivers skip at most 1,024.
pub const GENERATIONS_MAX: u32 = 900;

/// After how long without a sign of a device those who manage the matter are told: 90 days, in milliseconds.
pub const SILENT_MS: u64 = 90 * 24 * 3600 * 1000;

/// How far a successor's statement may be ahead of the epoch that its reader knows: far beyond any matter's, and far below what could
/// not be counted on from.
pub const SUCCESSOR_AHEAD: u64 = 1 << 32;

/// How many turns a successor's statement may be ahead of those that its reader knows.
pub const SUCCESSOR_TURNS: u32 = 1024;

/// People of one matter of whom a device remembers that they were removed, to keep them out of what continues it.
pub const FATES_MAX: usize = 256;

/// How many changes a fate may be ahead of what its reader knows: more than anybody is ever removed and added again.
pub const FATE_AHEAD: u32 = 1024;

/// Statements, one continuing the other, that a Welcome brings along for whoever missed them.
pub const LINE_MAX: usize = 4;

/// How long a device that was removed keeps its old keys, should the removal turn out void: 24 hours, in milliseconds.
pub const REMOVAL_MS: u64 = 24 * 3600 * 1000;

/// How long a device asks the relay for what it withholds before it asks the members to let it back in instead: ten minutes, in milliseconds.
pub const PAUSE_MS: u64 = 10 * 60 * 1000;

/// Refused Commits of one epoch that a device keeps the secrets of, should one have been accepted nevertheless.
pub const REFUSED_COMMITS: usize = 8;

/// Envelopes read since the last fence that the relay gives the hash of alone, and that a device remembers: one may be a bundle.
pub const WITHHELD_MAX: usize = 64;

/// Statements of others that a device files with a relay that was restored and has not told them: more than people are shut out of a firm in
/// the time between backups.
pub const FILED_AGAIN: usize = 64;

/// How far ahead of the relay's clock a statement may be dated: clocks differ, and none may have the last word for years.
pub const CLOCK_AHEAD_MS: u64 = 24 * 3600 * 1000;

/// Nothing that a device has put off waits longer than this, whatever its clock once said: a day and an hour, in milliseconds.
pub const WAIT_MAX_MS: u64 = 25 * 3600 * 1000;

/// How long a device waits to be let into a successor before one that may continues the matter anew: 15 minutes, in milliseconds.
pub const MOVING_MS: u64 = 15 * 60 * 1000;

/// Messages of the mailbox before that are remembered where a matter was continued: a repeat is dropped.
pub const KNOWN_MAX: usize = 256;

/// Last-resort key packages of which a device keeps the private halves: the newest, and those that a Welcome may be on its way to.
pub const LAST_RESORTS: usize = 3;

/// How long a last-resort key package is offered before another takes its place: a week, in milliseconds.
pub const LAST_RESORT_MS: u64 = 7 * 24 * 3600 * 1000;

/// Heads of the relay's log that a device remembers to be of one log, or holds against its own at once.
pub const LOG_HEADS_MAX: usize = 16;

/// Key packages of others that a device remembers to have been served: more than anybody adds in weeks, and 12 KiB.
pub const SERVED_NOTED: usize = 256;

/// Contradictions in the relay's log that a device keeps as proof: the first ones tell all.
pub const LOG_FAULTS_MAX: usize = 8;

/// What a proof claims at most: [`LOG_FAULTS_MAX`] of the log, and the newest of mailboxes, so that a member who disputes everything
/// makes no proof that nobody reads.
pub const CLAIMS_MAX: usize = 64;

/// What says who somebody is, of what the audit log says of them, as a device keeps it: devices and endorsements of decades.
pub const HISTORY_ACTS: usize = 256;

/// People whose histories are read in one round, the least recently read first: a round is done in a second or two.
pub const HISTORIES_A_ROUND: usize = 64;

/// Histories that are asked for at once: far below what may be [unanswered](IN_FLIGHT_MAX).
pub const HISTORIES_AT_ONCE: usize = 16;

/// Rounds on one link in a while, for heads that members tell of one after the other.
pub const HISTORY_ROUNDS: u32 = 4;

/// How long that while is: five minutes, in milliseconds.
pub const HISTORY_ROUND_MS: u64 = 5 * 60 * 1000;

/// Leaves of the audit log in one answer, each with its proof.
pub const HISTORY_MAX: usize = 32;

/// Bytes of a checkpoint's note: at least 16 signatures of a size that post-quantum ones have (C2SP signed-note).
pub const CHECKPOINT_MAX: usize = 128 * KIB;

/// Bytes of the name of a log: it stands behind a length of one byte in what is cosigned.
pub const ORIGIN_MAX: usize = 255;

/// Bytes of a leaf, which stands behind a length of two; the largest has about 130.
pub const LEAF_MAX: usize = 65_535;

/// Bytes of a file of an exported log: 256 of the largest leaves, each with its length.
pub const BUNDLE_FILE_MAX: u64 = 256 * (65_535 + 2);

/// Keys that were somebody's before, as a device remembers them.
pub const PAST_KEYS: usize = 8;

/// Refused uses of one invite that the audit log tells: more say nothing new, and would let who has it fill the log.
pub const REFUSALS_LOGGED: u8 = 8;

/// Replaced keys that an identity shows on the way to its key: a matter that has listed one of them goes on, and more is a person who
/// replaces keys faster than matters follow.
pub const KEY_STEPS_MAX: usize = 4;

/// Steps from the key that somebody was endorsed with, from which on no rotation is taken: one is kept for a recovery.
pub const ROTATIONS_UNENDORSED: usize = KEY_STEPS_MAX - 1;

/// Identities of somebody that the relay keeps from before their key was replaced, for those whom they endorsed then.
pub const PAST_IDENTITIES: usize = 4;

/// The same, where all of them are needed by endorsements that devices of then gave: a row stays below a megabyte.
pub const PAST_IDENTITIES_NEEDED: usize = 16;

/// The largest note for a restoring device: ids, fingerprints and a name, sealed.
pub const RECOVERY_NOTE_MAX: usize = 1024;
