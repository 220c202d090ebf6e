//! What people write is nowhere on a disk in clear: not at the relay, not in its log, not in a locked profile.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use privity_tests::Firm;

const TEXT: &str = "zanzibar-quince-text-7141";
const TITLE: &str = "zanzibar-quince-title-7142";
const NAME: &str = "zanzibar-quince-name-7143";

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found
}

fn contains(bytes: &[u8], needle: &str) -> bool {
    bytes.windows(needle.len()).any(|window| window == needle.as_bytes())
}

fn nowhere(folder: &Path) {
    for path in files(folder) {
        let bytes = fs::read(&path).unwrap();
        for needle in [TEXT, TITLE, NAME] {
            assert!(!contains(&bytes, needle), "{needle} stands in {}", path.display());
        }
    }
}

#[test]
fn unique_strings_are_found_nowhere_at_the_relay_or_in_a_locked_profile() {
    let mut firm = Firm::found().unwrap();
    let bob = firm.bring("bob", NAME, "client").unwrap();
    firm.matter(TITLE, &[&bob]).unwrap();
    bob.ok(&["recv"]).unwrap();
    for _ in 0..5 {
        firm.attorney.ok(&["send", TITLE, TEXT]).unwrap();
        bob.ok(&["send", TITLE, TEXT]).unwrap();
    }
    let shown = firm.attorney.run(&["recv"]).unwrap().stdout;
    assert!(shown.contains(TEXT) && shown.contains(TITLE) && shown.contains(NAME), "the test looks for the wrong words");

    let places = |firm: &Firm| {
        for folder in [firm.relay.folder(), &firm.attorney.home, &bob.home] {
            nowhere(folder);
        }
        let log = fs::read(firm.relay.log()).unwrap();
        assert!(!log.is_empty());
        assert!([TEXT, TITLE, NAME].iter().all(|needle| !contains(&log, needle)));
    };
    places(&firm);
    assert_eq!(firm.relay.stop().unwrap(), Some(0), "the relay does not end in order");
    places(&firm);
}

#[test]
fn every_file_is_its_owners_alone_whatever_the_umask() {
    let firm = Firm::found().unwrap();
    let bob = firm.bring("bob", "Bob Jones", "client").unwrap();
    firm.matter("Lease", &[&bob]).unwrap();
    for folder in [firm.relay.folder(), &firm.attorney.home, &bob.home] {
        assert_eq!(fs::metadata(folder).unwrap().permissions().mode() & 0o777, 0o700, "{}", folder.display());
        for path in files(folder) {
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600, "{}", path.display());
        }
    }
}
