//! One suite for every store: each case runs against memory and SQLite alike.

use privity_protocol::frame::{Blob, EntryBody, Registration};
use privity_protocol::log::tree::{self, Tiles as _};
use privity_protocol::log::{Act, Leaf};
use privity_protocol::suite::SecretKey;

use super::memory::Memory;
use super::sqlite::Sqlite;
use super::*;

/// A store that can be closed and opened again.
trait Bench {
    fn store(&mut self) -> &mut dyn Store;
    fn reopen(&mut self);
}

struct InMemory(Memory);

impl Bench for InMemory {
    fn store(&mut self) -> &mut dyn Store {
        &mut self.0
    }

    fn reopen(&mut self) {
        self.0 = self.0.reopen();
    }
}

struct OnDisk(tempfile::TempDir, Option<Sqlite>);

impl Bench for OnDisk {
    fn store(&mut self) -> &mut dyn Store {
        self.1.as_mut().unwrap()
    }

    fn reopen(&mut self) {
        self.1 = None;
        self.1 = Some(Sqlite::open(self.0.path()).unwrap());
    }
}

fn on_each(case: impl Fn(&mut dyn Bench)) {
    case(&mut InMemory(Memory::new()));
    let folder = tempfile::tempdir().unwrap();
    let store = Sqlite::create(folder.path()).unwrap();
    case(&mut OnDisk(folder, Some(store)));
}

fn write(store: &mut dyn Store, writes: &[Write]) {
    store.begin().unwrap();
    store.apply(writes).unwrap();
    store.commit().unwrap();
}

/// Appends to a mailbox whatever its head is.
fn append(store: &dyn Store, mailbox: MailboxId, fence: bool, len: usize, expires: u64) -> Write {
    let head = store.mailbox(mailbox).unwrap().unwrap().head;
    let envelope = Bytes::from(vec![u8::try_from(head.seq % 250).unwrap(); len]);
    let digest = Digest::of(&[&envelope]);
    let (position, expires) = (head.next(fence, &digest), Timestamp(expires));
    let by = DeviceId::new([9; 16]);
    Write::Append { mailbox, position, fence, kept: fence, digest, envelope, expires, by }
}

fn mailbox_of(store: &mut dyn Store, fences: &[bool]) -> MailboxId {
    let mailbox = MailboxId::random();
    write(store, &[Write::Mailbox { mailbox, inbox_of: None }]);
    for fence in fences {
        let one = append(store, mailbox, *fence, 100, 1000);
        write(store, &[one]);
    }
    mailbox
}

fn grant(mailbox: MailboxId, device: DeviceId, from: u64) -> Write {
    Write::Grant { mailbox, grant: GrantRow { device, rights: Rights::MEMBER, from, until: None } }
}

fn person(handle: &str) -> (PersonRow, DeviceRow) {
    let key = SecretKey::generate();
    let (person, device) = (PersonId::random(), DeviceId::random());
    let certificate = Signed { body: vec![1], signature: vec![2] };
    let registration = Registration {
        invite: InviteId::random(),
        token: [0; 32],
        person,
        person_key: key.public().unwrap(),
        certificate: certificate.clone(),
        handle: handle.to_owned(),
        role: Role::Client,
        name: Vec::new(),
        proof: Digest::of(&[]),
        inbox: MailboxId::random(),
        organisation: None,
        revocations: Vec::new(),
    };
    let row = PersonRow {
        registration,
        role: Role::Client,
        registrar: false,
        endorsement: None,
        inviter: None,
        registered: Timestamp(5),
        withdrawn: None,
        recovery: None,
        line: Vec::new(),
        again: None,
        past: Vec::new(),
    };
    let inbox = row.registration.inbox;
    let device = DeviceRow {
        device,
        person,
        link_key: key.public().unwrap(),
        certificate,
        inbox,
        waiting: None,
        pack: None,
        revoked: None,
        pending: false,
        former: false,
        ended: false,
    };
    (row, device)
}

/// Two people with a device each, the first of them endorsed.
pub(super) fn two_people() -> [(PersonRow, DeviceRow); 2] {
    let (mut ada, adas) = person("ada");
    let said = privity_protocol::identity::Endorsement {
        person: ada.registration.person,
        person_key: ada.registration.person_key.digest(),
        role: Role::Attorney,
        registrar: true,
        handle: "ada".to_owned(),
        name: Digest::of(&[]),
        issuer: None,
        from: Timestamp(0),
        until: Timestamp(9),
        confirmed: false,
        adopted: false,
        after: None,
    };
    ada.endorsement = Some(Signed { body: privity_protocol::cbor::encode(&said), signature: Vec::new() });
    [(ada, adas), person("bob")]
}

/// Reads a mailbox to its end and checks every position of it.
fn chain_holds(store: &dyn Read, mailbox: MailboxId) -> u64 {
    let row = store.mailbox(mailbox).unwrap().unwrap();
    let mut position = Position::start(mailbox);
    loop {
        let entries = store.entries(mailbox, position.seq, u64::MAX, 250).unwrap();
        if entries.is_empty() {
            break;
        }
        for entry in entries {
            assert_eq!(entry.seq, position.seq + 1, "contiguous");
            position = position.next(entry.fence, &entry.digest());
            assert_eq!(store.position(mailbox, entry.seq).unwrap(), Some(position));
            assert_eq!(store.fence(mailbox, entry.seq).unwrap(), entry.fence.then_some(position));
        }
    }
    assert_eq!(row.head, position);
    position.seq
}

#[test]
fn seqs_are_contiguous_and_the_chain_is_that_of_the_entries() {
    on_each(|bench| {
        let mailbox = mailbox_of(bench.store(), &[true, false, false, true, false]);
        assert_eq!(chain_holds(bench.store().as_read(), mailbox), 5);
        let row = bench.store().mailbox(mailbox).unwrap().unwrap();
        assert_eq!(row.fence.seq, 4);
        assert_eq!(bench.store().position(mailbox, 6).unwrap(), None);
        assert_eq!(bench.store().position(MailboxId::random(), 1).unwrap(), None);
    });
}

/// A seq beyond 32 bits once reached into the bits of another mailbox's number.
#[test]
fn a_seq_beyond_every_mailbox_is_nowhere() {
    on_each(|bench| {
        let mailbox = mailbox_of(bench.store(), &[true]);
        for seq in [1 << 32, (1 << 32) | 1, u64::MAX] {
            assert_eq!(bench.store().position(mailbox, seq).unwrap(), None);
            assert!(bench.store().entries(mailbox, seq, u64::MAX, 1000).unwrap().is_empty());
        }
    });
}

#[test]
fn entries_keep_to_their_range_and_bytes() {
    on_each(|bench| {
        let mailbox = mailbox_of(bench.store(), &[false; 6]);
        mailbox_of(bench.store(), &[false; 3]);
        let seqs = |after, until, bytes| -> Vec<u64> {
            bench.store().entries(mailbox, after, until, bytes).unwrap().iter().map(|entry| entry.seq).collect()
        };
        let mut seqs = seqs;
        assert_eq!(seqs(2, 4, 1000), [3, 4]);
        assert_eq!(seqs(0, u64::MAX, 250), [1, 2], "two of 100 bytes fit into 250");
        assert_eq!(seqs(4, u64::MAX, 1), [5], "at least one");
        assert!(seqs(6, u64::MAX, 1000).is_empty());
        assert!(seqs(4, 2, 1000).is_empty());
    });
}

#[test]
fn intervals_begin_and_end_where_they_were_told() {
    on_each(|bench| {
        let mailbox = mailbox_of(bench.store(), &[true, false]);
        let (device, other) = (DeviceId::random(), DeviceId::random());
        write(bench.store(), &[grant(mailbox, device, 0), grant(mailbox, other, 1)]);
        write(bench.store(), &[Write::EndGrant { mailbox, device, until: 2 }]);
        write(bench.store(), &[grant(mailbox, device, 2)]);
        let grants = bench.store().grants(mailbox, device).unwrap();
        let spans: Vec<_> = grants.iter().map(|grant| (grant.from, grant.until)).collect();
        assert_eq!(spans, [(0, Some(2)), (2, None)]);
        assert_eq!(bench.store().open_grants(mailbox).unwrap().len(), 2);
        write(bench.store(), &[Write::EndGrant { mailbox, device, until: 9 }]);
        let grants = bench.store().grants(mailbox, device).unwrap();
        assert_eq!(grants.iter().map(|grant| grant.until).collect::<Vec<_>>(), [Some(2), Some(9)]);
        assert_eq!(bench.store().grants(mailbox, other).unwrap()[0].until, None);
    });
}

#[test]
fn acknowledgements_never_go_back() {
    on_each(|bench| {
        let mailbox = mailbox_of(bench.store(), &[false; 5]);
        let device = DeviceId::random();
        assert_eq!(bench.store().acked(mailbox, device).unwrap(), 0);
        for (upto, expected) in [(3, 3), (1, 3), (5, 5)] {
            write(bench.store(), &[Write::Ack { mailbox, device, upto }]);
            assert_eq!(bench.store().acked(mailbox, device).unwrap(), expected);
        }
    });
}

#[test]
fn what_waits_in_an_inbox_is_counted_until_acknowledged() {
    on_each(|bench| {
        let (device, ada, bob) = (DeviceId::random(), PersonId::random(), PersonId::random());
        let inbox = MailboxId::random();
        write(bench.store(), &[Write::Mailbox { mailbox: inbox, inbox_of: Some(device) }]);
        for (seq, sender, reserved) in [(1, ada, false), (2, bob, true), (3, ada, false)] {
            let one = append(bench.store(), inbox, false, 10, 1000);
            write(bench.store(), &[one, Write::Waiting { inbox, seq, sender, reserved }]);
        }
        let count = |bench: &mut dyn Bench, sender| bench.store().waiting(inbox, sender).unwrap();
        assert_eq!(count(bench, ada), Waiting { of_sender: 2, unreserved: 2, total: 3 });
        assert_eq!(count(bench, bob), Waiting { of_sender: 1, unreserved: 2, total: 3 });
        write(bench.store(), &[Write::Ack { mailbox: inbox, device, upto: 2 }]);
        assert_eq!(count(bench, ada), Waiting { of_sender: 1, unreserved: 1, total: 1 });
        assert_eq!(count(bench, PersonId::random()), Waiting { of_sender: 0, unreserved: 1, total: 1 });
    });
}

#[test]
fn idems_below_the_window_are_forgotten() {
    on_each(|bench| {
        let (device, other) = (DeviceId::random(), DeviceId::random());
        let row = |idem| IdemRow { idem, parts: Digest::of(&[b"p"]), mac: Digest::of(&[b"m"]), seqs: vec![idem] };
        for (device, idem, keep_from) in [(other, 1, 0), (device, 7, 0), (device, 5, 0), (device, 9, 6)] {
            write(bench.store(), &[Write::Idem { device, row: row(idem), keep_from }]);
        }
        assert_eq!(bench.store().idem(device, 5).unwrap(), None);
        assert_eq!(bench.store().idem(device, 7).unwrap(), Some(row(7)));
        assert_eq!(bench.store().newest_idem(device).unwrap(), Some(row(9)));
        assert_eq!(bench.store().newest_idem(other).unwrap(), Some(row(1)), "each device has its own");
    });
}

fn received(device: DeviceId, idem: u64) -> Write {
    let row = ReceivedRow { idem, parts: Digest::of(&[b"p"]), mac: Digest::of(&[&idem.to_be_bytes()]) };
    Write::Received { device, row }
}

#[test]
fn the_refused_post_noted_last_is_kept_for_each_device_and_is_no_accepted_one() {
    on_each(|bench| {
        let (device, other) = (DeviceId::random(), DeviceId::random());
        assert_eq!(bench.store().received(device).unwrap(), None);
        for one in [received(device, 3), received(other, 1), received(device, 9)] {
            write(bench.store(), &[one]);
        }
        bench.reopen();
        for (device, idem) in [(device, 9), (other, 1)] {
            let Write::Received { row, .. } = received(device, idem) else { unreachable!() };
            assert_eq!(bench.store().received(device).unwrap(), Some(row));
            assert_eq!(bench.store().newest_idem(device).unwrap(), None);
            assert_eq!(bench.store().idem(device, idem).unwrap(), None);
        }
    });
}

#[test]
fn the_oldest_single_use_key_package_goes_first_and_the_last_resort_stays() {
    on_each(|bench| {
        let device = DeviceId::random();
        let package = |last_resort, byte| Write::KeyPackage { device, last_resort, package: vec![byte] };
        write(bench.store(), &[package(true, 9), package(false, 1), package(false, 2), package(true, 8)]);
        for expected in [1, 2] {
            let KeyPackageRow { number, package: taken } = bench.store().key_package(device).unwrap().unwrap();
            assert_eq!(taken, [expected]);
            write(bench.store(), &[Write::DropKeyPackage { device, number: number.unwrap() }]);
        }
        assert_eq!(bench.store().key_packages_left(device).unwrap(), 0);
        for _ in 0..2 {
            assert_eq!(
                bench.store().key_package(device).unwrap(),
                Some(KeyPackageRow { number: None, package: vec![8] }),
                "the newest last resort"
            );
        }
        assert_eq!(bench.store().key_package(DeviceId::random()).unwrap(), None);
    });
}

#[test]
fn people_devices_handles_and_invites_are_found() {
    on_each(|bench| {
        let (ada, adas) = person("ada");
        let (bob, bobs) = person("bob");
        let key = SecretKey::generate().public().unwrap();
        let invite = InviteRow {
            invite: InviteId::random(),
            token_hash: Digest::of(&[b"t"]),
            filed: Some(NewInvite {
                token_hash: Digest::of(&[b"t"]),
                statement: Signed { body: vec![1], signature: vec![2] },
                name: Some(Blob(vec![3])),
            }),
            inviter: Some(ada.registration.person),
            role: Some(Role::Client),
            handle: None,
            expires: Timestamp(100),
            used_by: None,
            expired: false,
            refusals: 0,
            cancelled: false,
        };
        let people = [bob.clone(), ada.clone()].map(|row| Write::Person(Box::new(row)));
        let devices = [adas.clone(), bobs.clone()].map(|row| Write::Device(Box::new(row)));
        write(bench.store(), &people);
        write(bench.store(), &devices);
        write(bench.store(), &[Write::Organisation(key.clone()), Write::Invite(Box::new(invite.clone()))]);
        let store = bench.store();
        assert_eq!(store.organisation().unwrap(), Some(key));
        assert_eq!(store.people().unwrap(), [ada.clone(), bob.clone()], "by handle");
        assert_eq!(store.handle_owner("ada").unwrap(), Some(ada.registration.person));
        assert_eq!(store.handle_owner("eve").unwrap(), None);
        assert_eq!(store.device(adas.device).unwrap(), Some(adas.clone()));
        assert_eq!(store.devices_of(ada.registration.person).unwrap(), std::slice::from_ref(&adas));
        assert_eq!(store.invite(invite.invite).unwrap(), Some(invite.clone()));
        assert_eq!(store.open_invites(ada.registration.person, Timestamp(99)).unwrap(), 1);
        assert_eq!(store.open_invites(ada.registration.person, Timestamp(100)).unwrap(), 0, "expired");
        let later =
            InviteRow { invite: InviteId::random(), expires: Timestamp(200), cancelled: true, ..invite.clone() };
        write(store, &[Write::Invite(Box::new(later.clone()))]);
        assert_eq!(
            store.open_invites(ada.registration.person, Timestamp(99)).unwrap(),
            1,
            "a cancelled one is not open"
        );
        assert_eq!(store.overdue_invites(Timestamp(999), 9).unwrap(), std::slice::from_ref(&invite), "nor overdue");
        let of = |inviter, limit| store.invites_of(inviter, limit).unwrap();
        assert_eq!(of(ada.registration.person, 9), [later.clone(), invite.clone()]);
        assert_eq!(of(ada.registration.person, 1), [later]);
        assert_eq!(of(bob.registration.person, 9), []);
        let used = InviteRow { used_by: Some(bob.registration.person), ..invite };
        let endorsed = PersonRow { endorsement: Some(Signed { body: vec![4], signature: vec![5] }), ..ada };
        write(store, &[Write::Invite(Box::new(used)), Write::Person(Box::new(endorsed.clone()))]);
        assert_eq!(store.open_invites(endorsed.registration.person, Timestamp(0)).unwrap(), 0, "used");
        assert_eq!(store.person(endorsed.registration.person).unwrap(), Some(endorsed.clone()));
        let (one, other) = (endorsed.registration.person, bob.registration.person);
        let mailbox = mailbox_of(store, &[]);
        write(store, &[grant(mailbox, adas.device, 0), grant(mailbox, bobs.device, 0)]);
        assert!(store.share_mailbox(one, other).unwrap());
        write(store, &[Write::EndGrant { mailbox, device: bobs.device, until: 0 }]);
        assert!(!store.share_mailbox(one, other).unwrap());
    });
}

#[test]
fn an_expired_body_goes_and_its_hash_stays() {
    on_each(|bench| {
        let mailbox = mailbox_of(bench.store(), &[true, false, false]);
        let store = bench.store();
        assert_eq!(store.expire(Timestamp(999), 100).unwrap(), 0, "not yet");
        assert_eq!(store.expire(Timestamp(1000), 2).unwrap(), 2, "no more than asked for");
        assert_eq!(store.expire(Timestamp(1000), 100).unwrap(), 1);
        assert_eq!(store.expire(Timestamp(1000), 100).unwrap(), 0);
        let entries = store.entries(mailbox, 0, 9, 10_000).unwrap();
        assert!(entries.iter().all(|entry| matches!(entry.body, EntryBody::Expired(_))));
        assert_eq!(entries.iter().map(|entry| entry.fence).collect::<Vec<_>>(), [true, false, false]);
        assert_eq!(chain_holds(store.as_read(), mailbox), 3);
    });
}

#[test]
fn a_fence_is_kept_until_everyone_granted_before_it_has_it() {
    on_each(|bench| {
        let mailbox = mailbox_of(bench.store(), &[true, false, true]);
        let (reader, gone, late) = (DeviceId::random(), DeviceId::random(), DeviceId::random());
        write(bench.store(), &[grant(mailbox, reader, 0), grant(mailbox, gone, 0), grant(mailbox, late, 3)]);
        let store = bench.store();
        let expired = |store: &mut dyn Store| {
            store.begin().unwrap();
            store.expire(Timestamp(5000), 100).unwrap();
            store.commit().unwrap();
            let entries = store.entries(mailbox, 0, 9, 10_000).unwrap();
            entries.iter().map(|entry| matches!(entry.body, EntryBody::Expired(_))).collect::<Vec<_>>()
        };
        assert_eq!(expired(store), [false, true, false], "only what is no fence");
        write(store, &[Write::EndGrant { mailbox, device: gone, until: 3 }]);
        write(store, &[Write::Ack { mailbox, device: reader, upto: 1 }]);
        assert_eq!(expired(store), [true, true, false], "the first fence has been acknowledged by all who stay");
        write(store, &[Write::Ack { mailbox, device: reader, upto: 3 }]);
        assert_eq!(expired(store), [true, true, true], "whoever was granted later is not waited for");
    });
}

#[test]
fn an_interval_that_goes_on_is_waited_for_again() {
    on_each(|bench| {
        let mailbox = mailbox_of(bench.store(), &[true, true, true]);
        let device = DeviceId::random();
        let store = bench.store();
        write(store, &[grant(mailbox, device, 0), Write::Ack { mailbox, device, upto: 1 }]);
        write(store, &[Write::EndGrant { mailbox, device, until: 2 }]);
        write(store, &[grant(mailbox, device, 0)]);
        let grants = store.grants(mailbox, device).unwrap();
        assert_eq!(grants, [GrantRow { device, rights: Rights::MEMBER, from: 0, until: None }]);
        assert_eq!(store.open_grants(mailbox).unwrap(), grants);
        assert_eq!(store.expire(Timestamp(5000), 100).unwrap(), 1, "only what it has acknowledged");
    });
}

#[test]
fn the_newest_instance_is_kept_and_takes_all_key_packages_of_its_device_along() {
    on_each(|bench| {
        let (device, other) = (DeviceId::random(), DeviceId::random());
        let first = Instance { number: u64::MAX - 1, ..Instance::after(None) };
        let second = Instance::after(Some(first));
        let package = |device, last_resort| Write::KeyPackage { device, last_resort, package: vec![1] };
        assert_eq!(bench.store().instance(device).unwrap(), None);
        write(bench.store(), &[Write::Instance { device, instance: first }]);
        for device in [device, other] {
            write(bench.store(), &[package(device, true), package(device, false), package(device, false)]);
        }
        bench.reopen();
        assert_eq!(bench.store().instance(device).unwrap(), Some(first));
        write(bench.store(), &[Write::Instance { device, instance: second }, Write::DropKeyPackages { device }]);
        bench.reopen();
        let store = bench.store();
        assert_eq!(store.instance(device).unwrap(), Some(second));
        assert_eq!(store.instance(other).unwrap(), None);
        assert_eq!((store.key_packages_left(device).unwrap(), store.last_resort(device).unwrap()), (0, None));
        assert_eq!((store.key_packages_left(other).unwrap(), store.last_resort(other).unwrap()), (2, Some(vec![1])));
    });
}

#[test]
fn an_entry_knows_its_author_before_and_after_it_expires() {
    on_each(|bench| {
        let mailbox = mailbox_of(bench.store(), &[true, false]);
        let store = bench.store();
        for _ in 0..2 {
            let entries = store.entries(mailbox, 0, 9, 10_000).unwrap();
            assert!(entries.iter().all(|entry| entry.by == Some(DeviceId::new([9; 16]))));
            assert_eq!(entries.len(), 2);
            store.expire(Timestamp(5000), 100).unwrap();
        }
    });
}

#[test]
fn a_held_reader_answers_from_one_moment() {
    on_each(|bench| {
        let mailbox = mailbox_of(bench.store(), &[true]);
        let mut reader = bench.store().readers()().unwrap();
        let head = |reader: &dyn Reader| reader.mailbox(mailbox).unwrap().unwrap().head.seq;
        reader.hold().unwrap();
        assert_eq!(head(reader.as_ref()), 1);
        let one = append(bench.store(), mailbox, false, 10, 1000);
        write(bench.store(), &[one]);
        assert_eq!(head(reader.as_ref()), 1);
        reader.release().unwrap();
        reader.hold().unwrap();
        assert_eq!(head(reader.as_ref()), 2);
    });
}

#[test]
fn what_was_posted_with_a_fence_waits_in_an_inbox_until_it_is_acknowledged() {
    on_each(|bench| {
        let (device, inbox) = (DeviceId::random(), MailboxId::random());
        let store = bench.store();
        write(store, &[Write::Mailbox { mailbox: inbox, inbox_of: Some(device) }]);
        let Write::Append { mailbox, position, fence, digest, envelope, expires, by, .. } =
            append(store, inbox, false, 10, 1000)
        else {
            unreachable!()
        };
        write(store, &[Write::Append { mailbox, position, fence, kept: true, digest, envelope, expires, by }]);
        assert_eq!(store.expire(Timestamp(5000), 100).unwrap(), 0);
        write(store, &[Write::Ack { mailbox: inbox, device, upto: 1 }]);
        assert_eq!(store.expire(Timestamp(5000), 100).unwrap(), 1);
    });
}

#[test]
fn a_rollback_leaves_nothing() {
    on_each(|bench| {
        let mailbox = mailbox_of(bench.store(), &[true]);
        let store = bench.store();
        let one = append(store, mailbox, true, 10, 1000);
        store.begin().unwrap();
        store.apply(&[one, grant(mailbox, DeviceId::random(), 0)]).unwrap();
        assert_eq!(store.mailbox(mailbox).unwrap().unwrap().head.seq, 2, "applied is seen inside");
        store.rollback().unwrap();
        assert_eq!(chain_holds(store.as_read(), mailbox), 1);
        assert!(store.open_grants(mailbox).unwrap().is_empty());
        write(store, &[]);
        assert_eq!(chain_holds(store.as_read(), mailbox), 1);
    });
}

#[test]
fn a_reopened_store_has_what_was_committed_and_nothing_else() {
    on_each(|bench| {
        let mailbox = mailbox_of(bench.store(), &[true, false]);
        let incarnation = bench.store().incarnation();
        let one = append(bench.store(), mailbox, false, 10, 1000);
        bench.store().begin().unwrap();
        bench.store().apply(&[one]).unwrap();
        bench.reopen();
        assert_eq!(chain_holds(bench.store().as_read(), mailbox), 2);
        assert_eq!(bench.store().incarnation(), incarnation);
    });
}

#[test]
fn a_reader_sees_only_what_is_committed() {
    on_each(|bench| {
        let mailbox = mailbox_of(bench.store(), &[true]);
        let open = bench.store().readers();
        let one = append(bench.store(), mailbox, false, 10, 1000);
        bench.store().begin().unwrap();
        bench.store().apply(&[one]).unwrap();
        assert_eq!(chain_holds(open().unwrap().as_ref(), mailbox), 1);
        bench.store().commit().unwrap();
        assert_eq!(chain_holds(open().unwrap().as_ref(), mailbox), 2);
    });
}

/// Every step at which the store can die, swept.
#[test]
fn a_crash_at_any_step_loses_exactly_what_was_not_committed() {
    for step in 1.. {
        let mut store = Memory::new();
        let (mailbox, device) = (mailbox_of(&mut store, &[true]), DeviceId::random());
        store.crash_at(step);
        let mut acknowledged = 1;
        let crashed = (0..3).any(|_| {
            let (one, note) = (append(&store, mailbox, true, 10, 1000), received(device, acknowledged));
            let writes = [log(None, 7), one, grant(mailbox, DeviceId::random(), 0), note];
            let done = store.begin().and_then(|()| store.apply(&writes)).and_then(|()| store.commit());
            acknowledged += u64::from(done.is_ok());
            done.is_err()
        });
        let found = store.reopen();
        let head = chain_holds(&found, mailbox);
        assert!(head == acknowledged || (crashed && head == acknowledged + 1), "at step {step}: {head}");
        assert_eq!(found.open_grants(mailbox).unwrap().len() as u64, head - 1, "all of a transaction or nothing");
        let noted = found.received(device).unwrap().map_or(0, |row| row.idem);
        assert_eq!(noted, head - 1, "at step {step}");
        assert_eq!(found.log_size().unwrap(), head - 1, "a leaf is there exactly where its action is");
        if !crashed {
            assert!(step > 15, "the sweep went through every step");
            return;
        }
    }
}

fn log(person: Option<PersonId>, number: u64) -> Write {
    let event = Event { at: Timestamp(number), act: Act::InviteExpired { invite: InviteId::new([7; 16]) } };
    Write::Log { person, event }
}

#[test]
fn leaves_follow_each_other_and_are_found_by_index_and_person() {
    on_each(|bench| {
        let people = [None, Some(PersonId::random()), Some(PersonId::random())];
        assert_eq!(bench.store().log_size().unwrap(), 0);
        assert_eq!(bench.store().log_last(None).unwrap(), None);
        for number in 0..7 {
            write(bench.store(), &[log(people[0], number), log(people[1], number)]);
        }
        write(bench.store(), &[log(people[2], 99)]);
        bench.reopen();
        let store = bench.store();
        assert_eq!(store.log_size().unwrap(), 15);
        let rows = store.log_rows(0, u64::MAX).unwrap();
        assert_eq!(rows.iter().map(|row| row.index).collect::<Vec<_>>(), (0..15).collect::<Vec<_>>());
        for person in people {
            let mut last: Option<Last> = None;
            for row in &rows {
                let leaf = Leaf::decode(&row.leaf).unwrap();
                leaf.open(&row.opening).unwrap();
                if leaf.person == person {
                    assert!(leaf.follows(last.as_ref()), "{leaf:?}");
                    last = Some(leaf.last());
                }
            }
            assert_eq!(store.log_last(person).unwrap(), last);
        }
        let indices = |rows: Vec<LogRow>| rows.iter().map(|row| row.index).collect::<Vec<_>>();
        let of = |after, size, limit| indices(store.log_of(people[1].unwrap(), after, size, limit).unwrap());
        assert_eq!(of(0, 15, 99), [1, 3, 5, 7, 9, 11, 13]);
        assert_eq!(of(2, 12, 99), [5, 7, 9, 11]);
        assert_eq!(of(2, 12, 2), [5, 7]);
        assert_eq!(of(7, u64::MAX, 9), [0; 0]);
        assert_eq!(indices(store.log_rows(3, 5).unwrap()), [3, 4]);
        let hashes: Vec<TreeHash> = rows.iter().map(|row| TreeHash::leaf(&row.leaf)).collect();
        assert_eq!(store.log_hashes(0, 2, 9).unwrap(), hashes[2..9]);
    });
}

#[test]
fn a_log_over_several_tiles_has_the_root_and_proofs_of_its_leaves() {
    on_each(|bench| {
        let store = bench.store();
        let writes: Vec<Write> = (0..600).map(|number| log(None, number)).collect();
        write(store, &writes);
        let leaves = store.log_hashes(0, 0, 600).unwrap();
        assert_eq!(store.log_hashes(1, 0, 9).unwrap(), leaves[..].hashes(1, 0, 2).unwrap());
        assert!(store.log_hashes(2, 0, 9).unwrap().is_empty());
        let read = store.as_read();
        let tiles = LogTiles::of(read).unwrap();
        for size in [0, 1, 255, 256, 257, 512, 599, 600] {
            assert_eq!(tree::root(&tiles, size).unwrap(), tree::root(&leaves[..], size).unwrap());
            for index in [0, 255, 256, 511, 598].into_iter().filter(|index| *index < size) {
                let proof = tree::inclusion(&tiles, index, size).unwrap();
                assert_eq!(proof, tree::inclusion(&leaves[..], index, size).unwrap());
            }
        }
        assert!(tree::root(&tiles, 601).is_err());
    });
}

#[test]
fn what_is_rolled_back_leaves_no_leaf_and_no_number() {
    on_each(|bench| {
        let store = bench.store();
        write(store, &[log(None, 1)]);
        let last = store.log_last(None).unwrap();
        store.begin().unwrap();
        store.apply(&[log(None, 2)]).unwrap();
        assert_eq!(store.log_size().unwrap(), 2);
        store.rollback().unwrap();
        assert_eq!((store.log_size().unwrap(), store.log_last(None).unwrap()), (1, last));
    });
}

#[test]
fn an_invite_is_overdue_once_it_has_expired_unused_and_until_that_is_logged() {
    on_each(|bench| {
        let store = bench.store();
        let row = |byte, expires| InviteRow {
            invite: InviteId::new([byte; 16]),
            token_hash: Digest::of(&[]),
            filed: None,
            inviter: None,
            role: None,
            handle: None,
            expires: Timestamp(expires),
            used_by: None,
            expired: false,
            refusals: 0,
            cancelled: false,
        };
        let used = InviteRow { used_by: Some(PersonId::random()), ..row(3, 5) };
        write(store, &[row(1, 5), row(2, 9), used].map(|row| Write::Invite(Box::new(row))));
        assert_eq!(store.overdue_invites(Timestamp(4), 9).unwrap(), []);
        assert_eq!(store.overdue_invites(Timestamp(5), 9).unwrap(), [row(1, 5)]);
        assert_eq!(store.overdue_invites(Timestamp(9), 1).unwrap().len(), 1);
        write(store, &[Write::Invite(Box::new(InviteRow { expired: true, ..row(1, 5) }))]);
        assert_eq!(store.overdue_invites(Timestamp(9), 9).unwrap(), [row(2, 9)]);
        assert_eq!((store.configuration().unwrap(), store.rotation().unwrap()), (None, None));
        for digest in [Digest::of(&[b"one"]), Digest::of(&[b"two"])] {
            write(store, &[Write::Configuration(digest)]);
            assert_eq!(store.configuration().unwrap(), Some(digest));
            let rotation = Digest::of(&[digest.as_bytes()]);
            write(store, &[Write::Rotation(rotation)]);
            assert_eq!(store.rotation().unwrap(), Some(rotation));
        }
    });
}

/// What the version before wrote of an invite: without the words that came with the log.
#[test]
fn an_invite_of_the_version_before_is_neither_expired_nor_refused_nor_cancelled() {
    let row = InviteRow {
        invite: InviteId::random(),
        token_hash: Digest::of(&[]),
        filed: None,
        inviter: None,
        role: None,
        handle: None,
        expires: Timestamp(5),
        used_by: None,
        expired: false,
        refusals: 0,
        cancelled: false,
    };
    let mut bytes = privity_protocol::cbor::encode(&row);
    let words = bytes.len() - 6;
    assert_eq!((bytes[0], &bytes[words..]), (0xa6, &[8, 0xf4, 9, 0, 10, 0xf4][..]));
    bytes.truncate(words);
    bytes[0] = 0xa3;
    assert_eq!(privity_protocol::cbor::decode::<InviteRow>(&bytes, "invite").unwrap(), row);
}

#[test]
fn a_device_is_changed_in_place_and_revocations_are_told_in_their_order() {
    on_each(|bench| {
        let (row, device) = person("dan");
        let owner = row.registration.person;
        let others: Vec<DeviceRow> =
            (0..4).map(|_| DeviceRow { device: DeviceId::random(), person: owner, ..device.clone() }).collect();
        let waiting = DeviceRegistration {
            invite: InviteId::random(),
            token: [0; 32],
            person: owner,
            certificate: device.certificate.clone(),
            proof: Digest::of(&[]),
            inbox: MailboxId::random(),
        };
        let mut changed = DeviceRow { waiting: Some(waiting), ..device.clone() };
        write(bench.store(), &[Write::Person(Box::new(row)), Write::Device(Box::new(changed.clone()))]);
        (changed.waiting, changed.pack) = (None, Some(Blob(vec![1, 2])));
        write(bench.store(), &[Write::Device(Box::new(changed.clone()))]);
        assert_eq!(bench.store().newest_told().unwrap(), 0);
        let statement = || Signed { body: vec![7], signature: vec![8] };
        let revoked = |row: &DeviceRow, number| DeviceRow {
            revoked: Some(RevokedRow { number, statement: statement() }),
            ..row.clone()
        };
        let other = PersonId::random();
        let all: Vec<ToldRow> = (1..5)
            .map(|number| {
                let (person, what) = match number {
                    2 => (other, Told::Withdrawn(statement())),
                    _ => (owner, Told::Revoked(statement())),
                };
                ToldRow { number, person, what }
            })
            .collect();
        for (row, told) in others.iter().zip(&all) {
            write(bench.store(), &[Write::Device(Box::new(row.clone()))]);
            let row = revoked(row, told.number);
            write(bench.store(), &[Write::Device(Box::new(row)), Write::Told(Box::new(told.clone()))]);
        }
        bench.reopen();
        let store = bench.store();
        assert_eq!(store.device(changed.device).unwrap(), Some(changed.clone()));
        assert_eq!(store.devices_of(owner).unwrap().len(), 5);
        assert_eq!(store.newest_told().unwrap(), 4);
        let told = |after, limit| store.told(None, after, limit).unwrap();
        assert_eq!(told(0, 9), all);
        assert_eq!(told(1, 2), all[1..3]);
        assert_eq!(store.told(Some(other), 0, 9).unwrap(), all[1..2]);
        assert_eq!(store.told(Some(owner), 1, 1).unwrap(), all[2..3]);
        assert!(store.told(Some(other), 2, 9).unwrap().is_empty());
        assert!(told(4, 9).is_empty() && told(u64::MAX, 9).is_empty());
    });
}
