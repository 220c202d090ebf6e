//! Bad input and bad days: one clear sentence, the right exit code, nothing lost.

use std::fs;
use std::process::Command;

use privity_tests::{Firm, KDF_MEMORY, Person, Ran, Relay, binaries};

fn refused(ran: &Ran, code: i32) {
    assert_eq!(ran.code, Some(code), "{ran:?}");
    assert_eq!(
        ran.stderr.lines().filter(|line| line.starts_with("privity")).count(),
        1,
        "not one sentence: {}",
        ran.stderr
    );
}

#[test]
fn a_wrong_passphrase_is_exit_1_and_harms_nothing() {
    let firm = Firm::found().unwrap();
    let good = fs::read(&firm.attorney.passphrase).unwrap();
    fs::write(&firm.attorney.passphrase, "not it").unwrap();
    for _ in 0..3 {
        refused(&firm.attorney.run(&["matter", "ls"]).unwrap(), 1);
    }
    fs::write(&firm.attorney.passphrase, good).unwrap();
    firm.attorney.ok(&["status"]).unwrap();
}

#[test]
fn a_mangled_used_or_foreign_invite_is_refused_and_leaves_no_profile() {
    let firm = Firm::found().unwrap();
    let bob = Person::new(firm.folder(), "bob").unwrap();
    let told = firm.attorney.ok(&["invite", "new"]).unwrap();
    let url = told[0]["url"].as_str().unwrap();
    let join = |person: &Person, url: &str| {
        person.run(&["join", url, "--handle", &person.handle, "--name", "N", "--kdf-memory", KDF_MEMORY]).unwrap()
    };
    refused(&join(&bob, &url[..url.len() - 3]), 1);
    refused(&join(&bob, "privity://nonsense"), 1);
    assert_eq!(join(&bob, url).code, Some(0));
    let eve = Person::new(firm.folder(), "eve").unwrap();
    refused(&join(&eve, url), 5);
    refused(&join(&eve, &firm.relay.invite), 5);
    assert!(!eve.home.join("vault.db").exists(), "a refused registration left a profile behind");

    let other = tempfile::tempdir().unwrap();
    let stranger = Relay::start(other.path()).unwrap();
    let told = firm.attorney.ok(&["invite", "new"]).unwrap();
    let url = told[0]["url"].as_str().unwrap();
    // The same invite, sent to another relay: its key is not the one pinned. The checksum covers the address, so it is mangled first.
    let moved = url.replace(&firm.relay.address, &stranger.address);
    refused(&join(&eve, &moved), 1);
}

#[test]
fn a_relay_with_another_key_is_exit_4() {
    let mut firm = Firm::found().unwrap();
    firm.relay.stop().unwrap();
    fs::write(firm.relay.folder().join("relay.key"), [7; 64]).unwrap();
    firm.relay.run().unwrap();
    refused(&firm.attorney.run(&["people"]).unwrap(), 4);
}

#[test]
fn a_relay_that_is_not_there_is_exit_3() {
    let mut firm = Firm::found().unwrap();
    firm.relay.kill();
    refused(&firm.attorney.run(&["--timeout", "1", "people"]).unwrap(), 3);
}

#[test]
fn a_handle_that_is_taken_or_looks_like_one_is_refused() {
    let firm = Firm::found().unwrap();
    firm.bring("bill", "Bill", "client").unwrap();
    for handle in ["bill", "bi11", "b.ill", "Bill", "b", "-bill"] {
        let told = firm.attorney.ok(&["invite", "new"]).unwrap();
        let url = told[0]["url"].as_str().unwrap();
        let other = Person::new(firm.folder(), "other").unwrap();
        let ran = other
            .run(&["join", url, &format!("--handle={handle}"), "--name", "N", "--kdf-memory", KDF_MEMORY])
            .unwrap();
        assert!(matches!(ran.code, Some(1 | 5)), "{handle}: {ran:?}");
    }
}

#[test]
fn a_configuration_with_an_unknown_key_is_refused_by_name() {
    let mut firm = Firm::found().unwrap();
    firm.relay.stop().unwrap();
    let path = firm.relay.folder().join("relay.toml");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, format!("{text}\nretries = 3\n")).unwrap();
    let ran: Ran = Command::new(binaries().unwrap().join("privity-relay"))
        .args(["run", "--data"])
        .arg(firm.relay.folder())
        .output()
        .unwrap()
        .into();
    refused(&ran, 1);
    assert!(ran.stderr.contains("retries"), "{}", ran.stderr);
}

#[test]
fn a_port_that_is_taken_is_exit_2_and_says_what_to_do() {
    let mut firm = Firm::found().unwrap();
    firm.relay.stop().unwrap();
    let _taken = std::net::UdpSocket::bind(&firm.relay.address).unwrap();
    let ran: Ran = Command::new(binaries().unwrap().join("privity-relay"))
        .args(["run", "--data"])
        .arg(firm.relay.folder())
        .output()
        .unwrap()
        .into();
    assert_eq!(ran.code, Some(2), "{ran:?}");
    assert!(ran.stderr.contains("listen"), "{}", ran.stderr);
}

#[test]
fn init_refuses_a_used_folder_and_an_address_no_invite_can_carry() {
    let firm = Firm::found().unwrap();
    let init = |folder: &std::path::Path, listen: &str| -> Ran {
        Command::new(binaries().unwrap().join("privity-relay"))
            .args(["init", "--listen", listen, "--org", "X", "--data"])
            .arg(folder)
            .output()
            .unwrap()
            .into()
    };
    refused(&init(firm.relay.folder(), "127.0.0.1:4433"), 1);
    let empty = tempfile::tempdir().unwrap();
    refused(&init(&empty.path().join("relay"), "0.0.0.0:4433"), 1);
}
