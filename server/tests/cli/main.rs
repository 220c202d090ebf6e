//! The program as IT meets it: exit codes, what it prints, and what it leaves on disk.

#![expect(clippy::unwrap_used, reason = "a test stops where it fails")]

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::{SocketAddr, UdpSocket};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

mod audit;
mod restore;

fn relay(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_privity-relay"));
    command.args(arguments);
    command
}

fn output(arguments: &[&str]) -> Output {
    relay(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Runs it, and expects this exit code and this in its message.
fn fails(arguments: &[&str], code: i32, saying: &str) {
    let output = output(arguments);
    let message = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {message}");
    assert!(message.contains(saying), "{arguments:?}: {message}");
    assert!(output.stdout.is_empty());
}

fn free_address() -> String {
    let address: SocketAddr = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    address.to_string()
}

/// A relay's folder with its address.
fn made() -> (TempDir, String, String) {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("relay").to_str().unwrap().to_owned();
    let address = free_address();
    let output = output(&["init", "--data", &folder, "--listen", &address, "--org", "Smith & Partners"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    (parent, folder, address)
}

/// A running relay; killed if the test fails.
struct Running(Child, BufReader<std::process::ChildStderr>);

impl Running {
    fn start(folder: &str) -> Self {
        let mut child = relay(&["run", "--data", folder]).stderr(Stdio::piped()).spawn().unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        while !line.contains("listening") {
            line.clear();
            assert!(stderr.read_line(&mut line).unwrap() > 0, "it ended");
        }
        Self(child, stderr)
    }

    fn end(mut self, signal: &str) -> (Option<i32>, Duration) {
        let at = Instant::now();
        let sent = Command::new("kill").args([signal, &self.0.id().to_string()]).status().unwrap();
        assert!(sent.success());
        (self.0.wait().unwrap().code(), at.elapsed())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ended = self.0.kill();
        let _reaped = self.0.wait();
        let _closed = &self.1;
    }
}

fn modes(folder: &Path) -> Vec<(String, u32)> {
    let files = fs::read_dir(folder).unwrap().map(|file| file.unwrap());
    let mut modes: Vec<_> = files
        .map(|file| (file.file_name().into_string().unwrap(), file.metadata().unwrap().permissions().mode() & 0o777))
        .collect();
    modes.sort();
    modes
}

#[test]
fn init_prints_an_invite_and_json_on_demand() {
    let (_parent, folder, address) = made();
    let plain = output(&["invite", "--data", &folder]);
    assert!(text(&plain.stdout).starts_with(&format!("privity://{address}/")));
    assert!(text(&plain.stderr).contains(" UTC"));
    let json = output(&["invite", "--data", &folder, "--json"]);
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert!(json["invite"].as_str().unwrap().parse::<privity_protocol::invite::Invite>().is_ok());
    assert!(json["expires"].as_u64().unwrap() > 1_700_000_000_000);
    assert_eq!(json.as_object().unwrap().len(), 2);
}

#[test]
fn wrong_use_is_exit_code_1_and_says_what_to_do() {
    let (parent, folder, address) = made();
    let new = parent.path().join("new").to_str().unwrap().to_owned();
    let init = |listen: &str, org: &str, more: &[&str], saying: &str| {
        let mut arguments = vec!["init", "--data", &new, "--listen", listen, "--org", org];
        arguments.extend(more);
        fails(&arguments, 1, saying);
        assert!(!Path::new(&new).exists(), "nothing is left");
    };
    init("0.0.0.0:4433", "A", &[], "--public HOST:PORT");
    init("[::]:4433", "A", &[], "--public HOST:PORT");
    init("127.0.0.1:0", "A", &[], "port");
    init("127.0.0.1:4433", " ", &[], "name");
    init("127.0.0.1:4433", "A", &["--public", "relay.example.com"], "HOST:PORT");
    init("nonsense", "A", &[], "--listen");
    fails(&["init", "--data", &folder, "--listen", &address, "--org", "A"], 1, "has a relay already");
    fails(&["run", "--data", &new], 1, "has no relay; make one with");
    fails(&["check", "--data", &new], 1, "has no relay");
    fails(&["run", "--folder", &new], 1, "--folder");
    fails(&["frobnicate"], 1, "frobnicate");
}

#[test]
fn a_setting_that_is_wrong_or_unknown_is_named() {
    let (_parent, folder, _) = made();
    let path = Path::new(&folder).join("relay.toml");
    let good = fs::read_to_string(&path).unwrap();
    for (line, saying) in [
        ("colour = true", "colour"),
        ("connections_max = 0", "connections_max"),
        ("log = \"=,=\"", "log"),
        ("org = ", "relay.toml"),
    ] {
        let other: String = good
            .lines()
            .filter(|old| old.split(' ').next() != line.split(' ').next())
            .map(|old| format!("{old}\n"))
            .collect();
        fs::write(&path, format!("{other}{line}\n")).unwrap();
        fails(&["run", "--data", &folder], 1, saying);
    }
}

#[test]
fn an_init_that_failed_half_way_does_not_block_the_next() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("relay");
    fs::create_dir_all(folder.join(".unfinished")).unwrap();
    fs::write(folder.join(".unfinished/relay.key"), b"half").unwrap();
    let (folder, address) = (folder.to_str().unwrap(), free_address());
    let arguments = ["init", "--data", folder, "--listen", &address, "--org", "A"];
    assert!(output(&arguments).status.success());
    assert!(!Path::new(folder).join(".unfinished").exists());
}

#[test]
fn every_file_is_its_owners_alone_whatever_the_umask() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("relay").to_str().unwrap().to_owned();
    let address = free_address();
    let program = env!("CARGO_BIN_EXE_privity-relay");
    let script = format!("umask 000; exec {program} init --data {folder} --listen {address} --org A");
    assert!(Command::new("sh").args(["-c", &script]).output().unwrap().status.success());
    let running = Running::start(&folder);
    let found = modes(Path::new(&folder));
    let names: Vec<&str> = found.iter().map(|(name, _)| name.as_str()).collect();
    for name in ["relay.db", "relay.db-shm", "relay.db-wal", "relay.key", "relay.lock", "relay.toml"] {
        assert!(names.contains(&name), "{name} in {names:?}");
    }
    assert!(found.iter().all(|(name, mode)| *mode == if name == "audit" { 0o700 } else { 0o600 }), "{found:?}");
    assert_eq!(fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700);
    assert_eq!(running.end("-TERM").0, Some(0));
}

#[test]
fn signals_end_it_with_0_and_the_log_folded_into_the_database() {
    let (_parent, folder, _) = made();
    for signal in ["-TERM", "-INT"] {
        let (code, took) = Running::start(&folder).end(signal);
        assert_eq!(code, Some(0));
        assert!(took < Duration::from_secs(10), "{took:?}");
        let wal = Path::new(&folder).join("relay.db-wal");
        assert!(fs::metadata(wal).map_or(0, |wal| wal.len()) == 0);
    }
}

#[test]
fn only_one_process_runs_on_a_folder_and_the_second_names_the_first() {
    let (_parent, folder, _) = made();
    let running = Running::start(&folder);
    fails(&["run", "--data", &folder], 2, &format!("id {}", running.0.id()));
    let check = output(&["check", "--data", &folder]);
    assert!(check.status.success());
    assert!(text(&check.stdout).contains("in use"));
    assert_eq!(running.end("-TERM").0, Some(0));
    assert_eq!(Running::start(&folder).end("-TERM").0, Some(0), "the lock went with its holder");
}

#[test]
fn a_taken_port_is_exit_code_2() {
    let (_parent, folder, address) = made();
    let _taken = UdpSocket::bind(&address).unwrap();
    fails(&["run", "--data", &folder], 2, "can't listen on UDP");
}

#[test]
fn check_tells_what_it_wants_to_know() {
    let (_parent, folder, address) = made();
    let before = modes(Path::new(&folder)).len();
    let check = output(&["check", "--data", &folder]);
    assert!(check.status.success());
    let said = text(&check.stdout);
    let port = address.rsplit(':').next().unwrap();
    for expected in ["configuration  ok", "MiB free", " UTC", "is free", &format!("UDP port {port}"), &address] {
        assert!(said.contains(expected), "{expected} in {said}");
    }
    assert!(modes(Path::new(&folder)).len() <= before + 2, "only what SQLite keeps beside its file");
}

#[test]
fn check_tells_whether_the_first_invite_is_still_good() {
    let (_parent, folder, _) = made();
    let said = || text(&output(&["check", "--data", &folder]).stdout);
    assert!(said().contains("the first invite is unused, and good until"));
    let database = rusqlite::Connection::open(Path::new(&folder).join("relay.db")).unwrap();
    database.execute("UPDATE invites SET expires = 1", []).unwrap();
    assert!(said().contains("the first invite has expired unused"));
    let another = output(&["invite", "--data", &folder]);
    assert!(another.status.success());
    assert!(said().contains("the first invite is unused, and good until"));
}

#[test]
fn help_and_completions_are_there() {
    let help = output(&["--help"]);
    assert!(help.status.success());
    assert!(text(&help.stdout).contains("First steps"));
    for shell in ["bash", "zsh", "fish"] {
        let completions = output(&["completions", shell]);
        assert!(completions.status.success() && text(&completions.stdout).contains("privity-relay"));
    }
}
