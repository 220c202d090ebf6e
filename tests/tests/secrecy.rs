//! What people write is nowhere on a disk in clear: not at the relay, not in its log, not in a locked profile.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use privity_tests::{Firm, KDF_MEMORY, Person, binaries};

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
    assert!(
        shown.contains(TEXT) && shown.contains(TITLE) && shown.contains(NAME),
        "the test looks for the wrong words"
    );

    let places = |firm: &Firm| {
        for folder in [firm.relay.folder(), &firm.attorney.home, &bob.home] {
            nowhere(folder);
        }
        let log = fs::read(firm.relay.log()).unwrap();
        assert!(!log.is_empty());
        assert!([TEXT, TITLE, NAME].iter().all(|needle| !contains(&log, needle)));
    };
    // While a client runs, too, with its history printed and its vault open.
    let mut running =
        bob.command(&["recv", "--follow", "--after", "0"]).unwrap().stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(running.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains(TEXT)), "the running client printed nothing");
    places(&firm);
    running.kill().unwrap();
    running.wait().unwrap();
    places(&firm);
    assert_eq!(firm.relay.stop().unwrap(), Some(0), "the relay does not end in order");
    places(&firm);
}

#[test]
fn every_file_is_its_owners_alone_whatever_the_umask() {
    let firm = Firm::found().unwrap();
    let bob = firm.bring("bob", "Bob Jones", "client").unwrap();
    firm.matter("Lease", &[&bob]).unwrap();
    let told = firm.attorney.ok(&["invite", "new"]).unwrap();
    let eve = Person::new(firm.folder(), "eve").unwrap();
    let invite = told[0]["url"].as_str().unwrap();
    let join = eve.command(&["join", invite, "--handle", "eve", "--name", "Eve", "--kdf-memory", KDF_MEMORY]).unwrap();
    let careless = Command::new("sh")
        .args(["-c", "umask 0; exec \"$@\"", "sh"])
        .arg(join.get_program())
        .args(join.get_args())
        .output()
        .unwrap();
    assert!(careless.status.success(), "{}", String::from_utf8_lossy(&careless.stderr));
    let relay = tempfile::tempdir().unwrap();
    let made = Command::new("sh")
        .args(["-c", "umask 0; exec \"$@\"", "sh"])
        .arg(binaries().unwrap().join("privity-relay"))
        .args(["init", "--listen", "127.0.0.1:4433", "--org", "X", "--data"])
        .arg(relay.path().join("relay"))
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let made = relay.path().join("relay");
    for folder in [firm.relay.folder(), &firm.attorney.home, &bob.home, &eve.home, &made] {
        assert_eq!(fs::metadata(folder).unwrap().permissions().mode() & 0o777, 0o700, "{}", folder.display());
        for path in files(folder) {
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600, "{}", path.display());
        }
    }
}
