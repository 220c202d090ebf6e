//! What a device keeps of history on its way: to a device that was linked, and from the one that linked it.
//!
//! Invariant: what was received stands under a key that says which transfer and piece it came with, so that nothing is there twice.

use minicbor::{Decode, Encode};

use super::{Record, RecordBody, Rows};
use crate::between::TransferId;
use crate::cbor;
use crate::ids::{DeviceId, MailboxId, MatterId, PersonId, Timestamp};
use crate::secret::Secret;

/// History on its way to another device. A secret while it lasts.
#[derive(Debug, Clone, Encode, Decode)]
#[cbor(map)]
pub struct Sending {
    /// Which transfer.
    #[n(0)]
    pub transfer: TransferId,
    /// Its key; empty once it is done.
    #[n(1)]
    pub key: Secret,
    /// What goes, matter by matter, as it was when it began.
    #[n(2)]
    pub plan: Vec<Planned>,
    /// How many messages that is.
    #[n(3)]
    pub messages: u64,
    /// Where the next piece begins.
    #[n(4)]
    pub next: Mark,
    /// Where each piece began that was sent, and that the other device has not confirmed yet.
    #[n(5)]
    pub marks: Vec<Mark>,
    /// How many pieces the other device has confirmed.
    #[n(6)]
    pub confirmed: u64,
    /// How many there are, once the last was sent.
    #[n(7)]
    pub pieces: Option<u64>,
    /// The other device's inbox, once the key has gone there.
    #[n(8)]
    pub inbox: Option<MailboxId>,
    /// The matters of which the other device has, or gets, what was said before.
    #[n(9)]
    pub covered: Vec<MatterId>,
    /// Whether the other device has everything.
    #[n(10)]
    #[cbor(default)]
    pub done: bool,
    /// Since when pieces are counted.
    #[n(80)]
    #[cbor(default)]
    pub since: Timestamp,
    /// How many have gone since then.
    #[n(81)]
    #[cbor(default)]
    pub today: u64,
}

/// What goes of one matter.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Planned {
    /// The matter, as it is called here.
    #[n(0)]
    pub matter: MatterId,
    /// Its MLS group.
    #[n(1)]
    pub group: MatterId,
    /// Its mailbox.
    #[n(2)]
    pub mailbox: MailboxId,
    /// What this device has received itself: up to this key, with it.
    #[n(3)]
    pub past: Option<Past>,
    /// The cursor of the last record.
    #[n(4)]
    pub upto: u64,
}

/// What was received of one matter with one transfer: its first key and its last.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Past {
    /// Before the first.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub from: Vec<u8>,
    /// The last.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub upto: Vec<u8>,
}

/// A place between two records of a transfer.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode)]
#[cbor(map)]
pub struct Mark {
    /// The index of the piece that begins here.
    #[n(0)]
    pub index: u64,
    /// In which matter of the plan.
    #[n(1)]
    pub planned: u64,
    /// Whether among this device's own records; before that among what it has received itself.
    #[n(2)]
    pub own: bool,
    /// After which key; none for the first.
    #[cbor(n(3), with = "minicbor::bytes")]
    pub after: Option<Vec<u8>>,
    /// How many messages come before.
    #[n(4)]
    pub messages: u64,
}

/// History on its way from another device. A secret while it lasts.
#[derive(Debug, Clone, Encode, Decode)]
#[cbor(map)]
pub struct Receiving {
    /// From which device.
    #[n(0)]
    pub from: DeviceId,
    /// The key; empty once everything is here.
    #[n(1)]
    pub key: Secret,
    /// How many messages there are.
    #[n(2)]
    pub messages: u64,
    /// The index of the piece that comes next.
    #[n(3)]
    pub next: u64,
    /// How many messages are here.
    #[n(4)]
    pub received: u64,
    /// How many pieces were confirmed.
    #[n(5)]
    pub confirmed: u64,
    /// Whether everything is here.
    #[n(6)]
    pub done: bool,
    /// When it began, by this device's clock.
    #[n(7)]
    pub at: Timestamp,
    /// Whether a piece could not be read, so that nothing more of it is taken.
    #[n(80)]
    #[cbor(default)]
    pub broken: bool,
    /// Whether the other device was revoked since: what came from there is shown where nothing else is.
    #[n(81)]
    #[cbor(default)]
    pub revoked: bool,
}

impl Receiving {
    /// The transfers among these rows whose device was revoked since.
    pub fn of_the_revoked(rows: &Rows) -> Vec<Vec<u8>> {
        let revoked = |bytes: &[u8]| cbor::decode::<Self>(bytes, "history").is_ok_and(|receiving| receiving.revoked);
        rows.iter().filter(|(_, bytes)| revoked(bytes)).map(|(transfer, _)| transfer.clone()).collect()
    }
}

/// A record without what happened: of one that a newer version keeps, this much can be read.
#[derive(Decode)]
#[cbor(map)]
struct Head {
    #[n(0)]
    cursor: u64,
    #[n(2)]
    seq: u64,
    #[n(3)]
    from: Option<PersonId>,
    #[n(4)]
    device: Option<DeviceId>,
    #[n(5)]
    at: Timestamp,
}

impl Record {
    /// A record of another device, or of this one, as it is kept: of a kind that this version does not know, with nothing in it. Its cursor is
    /// that of the device that has made it.
    ///
    /// # Errors
    /// [`crate::error::Malformed`] if it is none.
    pub fn kept(bytes: &[u8], matter: MatterId) -> Result<Self, crate::error::Malformed> {
        if let Ok(record) = cbor::decode::<Self>(bytes, "record") {
            return Ok(Self { matter, ..record });
        }
        let Head { cursor, seq, from, device, at } = cbor::decode(bytes, "record")?;
        Ok(Self { cursor, matter, seq, from, device, at, what: RecordBody::Unknown })
    }

    /// Whether it is what somebody said.
    pub fn is_text(&self) -> bool {
        matches!(self.what, RecordBody::Text { .. })
    }
}

/// Bytes of the transfer's id at the beginning of a key of what was received.
pub const TRANSFER_LEN: usize = 16;

/// Of what was received of one matter with several transfers, that of the largest one, by key: others say the same, or less. One whose device
/// was revoked since counts where there is no other.
pub fn largest(mut rows: Rows, revoked: &[Vec<u8>]) -> Rows {
    let of = |key: &[u8]| key.get(..TRANSFER_LEN).unwrap_or_default().to_vec();
    let mut counts: std::collections::BTreeMap<Vec<u8>, usize> = std::collections::BTreeMap::new();
    for (key, _) in &rows {
        let count = counts.entry(of(key)).or_default();
        *count = count.saturating_add(1);
    }
    let rank = |(transfer, count): &(Vec<u8>, usize)| (!revoked.contains(transfer), *count);
    let largest = counts.into_iter().max_by_key(rank).map(|(transfer, _)| transfer);
    rows.retain(|(key, _)| Some(of(key)) == largest);
    rows
}

#[cfg(test)]
mod tests {
    use zeroize::Zeroizing;

    use super::*;
    use crate::ids::MessageId;

    #[test]
    fn a_record_of_a_newer_version_is_shown_as_unknown_at_its_place() {
        let matter = MatterId::new([7; 16]);
        let what = RecordBody::Text { id: MessageId::new([1; 16]), text: "hello".to_owned() };
        let record = Record {
            cursor: 5,
            matter: MatterId::new([8; 16]),
            seq: 4,
            from: None,
            device: None,
            at: Timestamp(9),
            what,
        };
        let bytes = cbor::encode(&record);
        assert_eq!(Record::kept(&bytes, matter).unwrap(), Record { matter, ..record.clone() });
        // The body is the map's last: [0, [id, text]] becomes [120, [id, text]].
        let body = cbor::encode(&record.what);
        let at = bytes.windows(body.len()).position(|window| window == body).unwrap();
        let newer = [&bytes[..at], &[0x82, 0x18, 120], &bytes[at + 2..]].concat();
        assert_eq!(Record::kept(&newer, matter).unwrap(), Record { matter, what: RecordBody::Unknown, ..record });
        assert!(Record::kept(b"garbage", matter).is_err());
    }

    #[test]
    fn of_several_transfers_the_largest_is_read() {
        let row = |transfer: u8, piece: u8| ([&[transfer; 16][..], &[piece]].concat(), Zeroizing::new(Vec::new()));
        let rows = vec![row(1, 0), row(2, 0), row(2, 1), row(3, 0)];
        assert_eq!(largest(rows.clone(), &[]), vec![row(2, 0), row(2, 1)]);
        assert!(largest(Vec::new(), &[]).is_empty());
        // One of a device that was revoked is read where there is no other.
        let revoked = |transfers: &[u8]| transfers.iter().map(|transfer| vec![*transfer; 16]).collect::<Vec<_>>();
        assert_eq!(largest(rows.clone(), &revoked(&[2, 3])), vec![row(1, 0)]);
        assert_eq!(largest(rows, &revoked(&[1, 2, 3])), vec![row(2, 0), row(2, 1)]);
    }
}
