//! The real program, where no relay is needed: exit codes, sentences, and what is left behind.
//!
//! Invariant: whatever is typed wrongly costs nothing but the sentence that says what to do.

#![expect(clippy::unwrap_used, reason = "a test stops where it fails")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Instant;

use privity_protocol::invite::{Invite, InviteSecret};
use privity_protocol::suite::SecretKey;

/// A well-formed invite for a relay that is not there: port 9 discards.
fn nobody() -> String {
    let relay = SecretKey::generate().public().unwrap().fingerprint();
    Invite { address: "127.0.0.1:9".to_owned(), relay, organisation: None, secret: InviteSecret::random() }.url()
}

fn privity(home: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_privity"));
    command.env_remove("PRIVITY_HOME").arg("--home").arg(home).args(arguments);
    command.stdin(Stdio::null()).output().unwrap()
}

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn wrong_use_is_exit_1_with_nothing_on_standard_output() {
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path().join("profile");
    for arguments in [
        &["nonsense"][..],
        &["send", "matter"],
        &["matter"],
        &["unlock", "--for", "soon"],
        &["recv", "--timeout", "-1"],
        &["status"],
        &["recv"],
        &["matter", "ls"],
        &["unlock"],
        &[],
    ] {
        let output = privity(&home, arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {}", told(&output));
        assert!(output.stdout.is_empty(), "{arguments:?}");
        assert!(!told(&output).is_empty(), "{arguments:?}");
    }
    assert!(!home.exists(), "nothing was made");
}

#[test]
fn whoever_has_not_joined_is_told_how() {
    let folder = tempfile::tempdir().unwrap();
    let output = privity(folder.path(), &["status"]);
    assert!(told(&output).contains("privity join"), "{}", told(&output));
}

#[test]
fn a_mangled_invite_is_exit_1_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path().join("profile");
    let nobody = nobody();
    for invite in ["privity://", "https://example.org", &nobody[..nobody.len() - 3], "-"] {
        let output = privity(&home, &["join", "--handle", "ada", "--name", "Ada", invite]);
        assert_eq!(output.status.code(), Some(1), "{invite}: {}", told(&output));
        assert!(told(&output).contains("invite"), "{}", told(&output));
    }
    assert!(!home.exists());
}

#[test]
fn a_relay_that_is_not_there_is_exit_3_within_its_timeout() {
    let folder = tempfile::tempdir().unwrap();
    let began = Instant::now();
    let output = privity(folder.path(), &["join", &nobody(), "--handle", "ada", "--name", "Ada", "--timeout", "1"]);
    assert_eq!(output.status.code(), Some(3), "{}", told(&output));
    assert!(began.elapsed().as_secs() < 5);
    assert!(!folder.path().join("vault.db").exists());
}

#[test]
fn help_names_every_command() {
    let folder = tempfile::tempdir().unwrap();
    let output = privity(folder.path(), &["--help"]);
    assert_eq!(output.status.code(), Some(0));
    let help = String::from_utf8(output.stdout).unwrap();
    let commands: Vec<&str> = help
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| !line.is_empty())
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    let all = [
        "join",
        "invite",
        "people",
        "identity",
        "matter",
        "send",
        "recv",
        "read",
        "chat",
        "status",
        "unlock",
        "lock",
        "passphrase",
        "security",
        "audit",
        "device",
        "recovery",
        "completions",
        "help",
    ];
    assert_eq!(commands, all);
}

#[test]
fn completions_are_printed_for_shells() {
    let folder = tempfile::tempdir().unwrap();
    let output = privity(folder.path(), &["completions", "bash"]);
    assert_eq!(output.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&output.stdout).contains("_privity"));
}

#[test]
fn a_second_process_waits_and_then_names_the_first() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("vault.db"), b"").unwrap();
    let lock = fs::File::create(folder.path().join("lock")).unwrap();
    fs::write(folder.path().join("lock"), "4711\n").unwrap();
    lock.lock().unwrap();
    let output = privity(folder.path(), &["matter", "ls"]);
    assert_eq!(output.status.code(), Some(2), "{}", told(&output));
    assert!(told(&output).contains("process 4711"), "{}", told(&output));
}

#[test]
fn limits_and_defaults_are_in_the_help() {
    let folder = tempfile::tempdir().unwrap();
    for (command, part) in [("join", "64 to 4096"), ("send", "default: 20"), ("send", "was killed or cut off")] {
        let help = String::from_utf8(privity(folder.path(), &[command, "--help"]).stdout).unwrap();
        assert!(help.contains(part), "{command}: {part}: {help}");
    }
    let weak = privity(folder.path(), &["join", &nobody(), "--kdf-memory", "8"]);
    assert_eq!(weak.status.code(), Some(1), "{}", told(&weak));
}
