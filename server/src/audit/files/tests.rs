//! What is on disk after every kind of start: whole, grown, cut short, put back in time.

use std::collections::BTreeMap;

use privity_protocol::ids::{InviteId, PersonId};
use privity_protocol::log::bundle::Verified;
use privity_protocol::log::{Act, Event};
use privity_protocol::suite::SecretKey;

use super::*;
use crate::keys::Keys;
use crate::store::memory::Memory;
use crate::store::{Store as _, Write};

struct Relay {
    data: tempfile::TempDir,
    keys: Keys,
    store: Memory,
}

impl Relay {
    fn new() -> Self {
        Self { data: tempfile::tempdir().unwrap(), keys: SecretKey::generate().into(), store: Memory::new() }
    }

    fn signer(&self) -> Signer {
        Signer::new(&self.keys, &self.store.incarnation()).unwrap()
    }

    fn log(&mut self, count: u64) {
        let event = Event { at: Timestamp(1), act: Act::InviteExpired { invite: InviteId::new([7; 16]) } };
        let leaf = |number: u64| Write::Log {
            person: number.is_multiple_of(2).then(|| PersonId::new([3; 16])),
            event: event.clone(),
        };
        let writes: Vec<Write> = (0..count).map(leaf).collect();
        self.store.begin().unwrap();
        self.store.apply(&writes).unwrap();
        self.store.commit().unwrap();
    }

    fn open(&self) -> Result<Folder, RelayError> {
        Folder::open(self.data.path(), &self.signer(), &self.store)
    }

    /// A start, and what it writes.
    fn start(&self) -> Result<Folder, RelayError> {
        let mut folder = self.open()?;
        folder.update(&self.signer(), &self.store, Timestamp(1_800_000_000_000))?;
        Ok(folder)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.data.path().join(FOLDER).join(name)
    }

    /// The files that belong to the checkpoint on disk, verified; those of earlier checkpoints are left out.
    fn verified(&self) -> Verified {
        let note = fs::read_to_string(self.path("checkpoint")).unwrap();
        let size: u64 = note.lines().nth(1).unwrap().parse().unwrap();
        let names =
            ["checkpoint", "keys"].map(str::to_owned).into_iter().chain(pieces(0, size).map(|piece| piece.path()));
        let files: BTreeMap<String, Vec<u8>> =
            names.map(|name| (name.clone(), fs::read(self.path(&name)).unwrap())).collect();
        bundle::verify(&files, None, &mut |_, _| {}).unwrap()
    }
}

#[test]
fn the_files_are_those_of_the_log_at_every_size_it_grows_to() {
    let mut relay = Relay::new();
    let mut folder = relay.start().unwrap();
    assert_eq!(relay.verified().checkpoint.size, 0);
    for more in [1, 254, 1, 1, 255, 3, 600] {
        relay.log(more);
        folder.update(&relay.signer(), &relay.store, Timestamp(1_800_000_000_000)).unwrap();
        assert_eq!(relay.verified().checkpoint.size, relay.store.log_size().unwrap());
    }
    assert!(relay.path("tile/1/000.p/1").exists(), "an earlier checkpoint needs it");
    assert!(!relay.path("tile/0/000.p").exists(), "the full tile is there");
    assert!(!relay.path("tile/entries/000.p").exists());
}

#[test]
fn a_start_goes_on_where_the_checkpoint_on_disk_ends_and_makes_anew_what_is_gone() {
    let mut relay = Relay::new();
    relay.log(300);
    drop(relay.start().unwrap());
    relay.log(300);
    // Cut off while it was writing.
    fs::write(relay.path("tile/0/001"), b"half").unwrap();
    fs::write(relay.path("tile/0/001.tmp"), b"half").unwrap();
    drop(relay.start().unwrap());
    assert_eq!(relay.verified().checkpoint.size, 600);
    fs::remove_dir_all(relay.path("")).unwrap();
    drop(relay.start().unwrap());
    assert_eq!(relay.verified().checkpoint.size, 600);
}

#[test]
fn a_database_older_than_the_checkpoint_on_disk_is_not_served() {
    let mut relay = Relay::new();
    relay.log(8);
    drop(relay.start().unwrap());
    let (note, signer) = (fs::read(relay.path("checkpoint")).unwrap(), relay.signer());
    let newest = std::mem::take(&mut relay.store);
    // Less, another of the same length, and another that is longer.
    for count in [5, 3, 4] {
        relay.log(count);
        let refused = Folder::open(relay.data.path(), &signer, &relay.store).unwrap_err();
        assert!(matches!(refused, RelayError::RolledBack { there: 8, .. }), "{refused}");
        assert!(refused.is_wrong_use(), "starting again does not help");
        assert_eq!(fs::read(relay.path("checkpoint")).unwrap(), note, "it stays as the witness of that");
    }
    Folder::open(relay.data.path(), &signer, &newest).unwrap();
}

#[test]
fn the_log_of_an_incarnation_before_is_set_aside_each_time() {
    let mut relay = Relay::new();
    for kept in ["audit.before-restore", "audit.before-restore-2"] {
        relay.log(5);
        drop(relay.start().unwrap());
        let note = fs::read(relay.path("checkpoint")).unwrap();
        relay.store = Memory::new();
        relay.log(2);
        drop(relay.start().unwrap());
        assert_eq!(relay.verified().checkpoint.size, 2);
        assert_eq!(fs::read(relay.data.path().join(kept).join("checkpoint")).unwrap(), note);
    }
}

#[test]
fn a_damaged_checkpoint_is_named_and_not_taken_for_none() {
    let mut relay = Relay::new();
    relay.log(5);
    drop(relay.start().unwrap());
    let mut note = fs::read_to_string(relay.path("checkpoint")).unwrap();
    note.truncate(note.len() - 10);
    fs::write(relay.path("checkpoint"), note).unwrap();
    let refused = relay.open().unwrap_err();
    assert!(refused.to_string().contains("checkpoint: it is damaged"), "{refused}");
}

#[test]
fn the_same_log_is_not_signed_anew_and_a_lesser_never_after_a_greater() {
    let mut relay = Relay::new();
    let signer = relay.signer();
    let mut states = Vec::new();
    for _ in 0..3 {
        relay.log(1);
        states.push(crate::relay::history::state(&relay.store).unwrap());
    }
    let now = Timestamp(1_800_000_000_000);
    let (size, note) = signer.note(states[1], now).unwrap();
    assert_eq!(size, 2);
    assert_eq!(signer.note(states[1], now.plus_ms(900)).unwrap().1, note);
    assert_eq!(signer.note(states[0], now).unwrap(), (2, note.clone()));
    assert_ne!(signer.note(states[1], now.plus_ms(61_000)).unwrap().1, note, "a newer time");
    assert_eq!(signer.note(states[2], now).unwrap().0, 3);
}
