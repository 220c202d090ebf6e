//! A full disk, at the client and at the relay: said in one sentence, nothing lost, and it goes on once there is room.
//!
//! A small tmpfs stands in for the disk; mounting one needs root, so elsewhere these tests say that they were left out.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use privity_tests::{Firm, Person, Relay};

/// A file system of a few megabytes.
struct Disk(PathBuf);

impl Disk {
    fn mount(parent: &Path, megabytes: u32) -> Option<Self> {
        let folder = parent.join("disk");
        fs::create_dir(&folder).unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={megabytes}m"), "tmpfs"])
            .arg(&folder)
            .output()
            .is_ok_and(|mounted| mounted.status.success());
        if !mounted {
            eprintln!("left out: mounting a tmpfs needs root");
        }
        mounted.then_some(Self(folder))
    }

    /// Takes every byte that is left.
    fn fill(&self) -> PathBuf {
        let path = self.0.join("filler");
        let mut size = 4 * 1024 * 1024;
        let mut filler = Vec::new();
        while size > 0 {
            filler.resize(filler.len() + size, 0);
            if fs::write(&path, &filler).is_err() {
                filler.truncate(filler.len() - size);
                size /= 2;
            }
        }
        // What a failed write left behind stays: not a byte is free.
        path
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _unmounted = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_at_the_client_is_exit_2_and_loses_nothing() {
    let firm = Firm::found().unwrap();
    let Some(disk) = Disk::mount(firm.folder(), 8) else { return };
    let told = firm.attorney.ok(&["invite", "new"]).unwrap();
    let bob = Person { home: disk.0.join("bob"), ..Person::new(firm.folder(), "bob").unwrap() };
    bob.join(told[0]["url"].as_str().unwrap(), "Bob Jones").unwrap();
    firm.attorney.ok(&["people"]).unwrap();
    firm.matter("Lease", &[&bob]).unwrap();
    bob.ok(&["send", "Lease", "before"]).unwrap();

    let filler = disk.fill();
    let long = "x".repeat(60_000);
    let refused = bob.run(&["send", "Lease", &long]).unwrap();
    assert_eq!(refused.code, Some(2), "{refused:?}");
    assert!(refused.stderr.contains("disk is full"), "{}", refused.stderr);
    fs::remove_file(filler).unwrap();
    bob.ok(&["send", "Lease", "after"]).unwrap();
    firm.attorney.ok(&["recv"]).unwrap();
    let texts: Vec<String> = firm.attorney.texts("Lease").unwrap().into_iter().map(|(_, text)| text).collect();
    assert_eq!(texts, ["before", "after"]);
}

#[test]
fn a_full_disk_at_the_relay_acknowledges_nothing_and_goes_on_once_there_is_room() {
    let folder = tempfile::tempdir().unwrap();
    let Some(disk) = Disk::mount(folder.path(), 16) else { return };
    let relay = Relay::start(&disk.0).unwrap();
    let ada = Person::new(folder.path(), "ada").unwrap();
    ada.join(&relay.invite, "Ada Byron").unwrap();
    ada.ok(&["matter", "new", "Lease"]).unwrap();
    ada.ok(&["send", "Lease", "before"]).unwrap();

    let filler = disk.fill();
    let long = "x".repeat(100_000);
    let refused = ada.run(&["--json", "--timeout", "2", "send", "Lease", &long]).unwrap();
    assert!(matches!(refused.code, Some(2 | 3)), "{:?} {}", refused.code, refused.stderr);
    fs::remove_file(filler).unwrap();
    ada.ok(&["--timeout", "20", "send", "Lease", "after"]).unwrap();
    ada.ok(&["recv"]).unwrap();
    let texts: Vec<String> = ada.texts("Lease").unwrap().into_iter().map(|(_, text)| text).collect();
    assert!(texts == ["before", &long, "after"], "{} texts", texts.len());
}
