//! What the tree is built from: no version below the one that mended a known hole, no crate that was decided against.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::process::Command;

use toml::Table;

fn packages() -> Vec<(String, Vec<u64>)> {
    let lock: Table = include_str!("../../Cargo.lock").parse().unwrap();
    let packages =
        lock["package"].as_array().unwrap().iter().map(|package| {
            (package["name"].as_str().unwrap().to_owned(), numbers(package["version"].as_str().unwrap()))
        });
    packages.collect()
}

fn numbers(version: &str) -> Vec<u64> {
    let plain = version.split(['-', '+']).next().unwrap();
    plain.split('.').map(|number| number.parse().unwrap()).collect()
}

#[test]
fn no_dependency_is_older_than_the_version_that_mended_it() {
    let floors = [
        ("quinn-proto", "0.11.15"),
        ("rustls-webpki", "0.103.13"),
        ("rustls", "0.23.46"),
        ("tracing-subscriber", "0.3.20"),
        ("aws-lc-rs", "1.19.0"),
        ("mls-rs", "0.57.0"),
    ];
    let packages = packages();
    for (name, floor) in floors {
        let found: Vec<_> = packages.iter().filter(|(other, _)| other == name).collect();
        assert!(!found.is_empty(), "{name} is no longer used: take it out of this list");
        for (_, version) in found {
            assert!(*version >= numbers(floor), "{name} {version:?} is below {floor}");
        }
    }
    assert!(numbers(rusqlite::version()) >= numbers("3.51.3"), "SQLite {}", rusqlite::version());
}

#[test]
fn no_crate_that_was_decided_against_is_built() {
    let banned = ["ring", "openssl", "openssl-sys", "native-tls", "sled", "rayon", "bincode"];
    let tree = Command::new(env!("CARGO"))
        .args(["tree", "--workspace", "--edges", "normal,build", "--prefix", "none", "--format", "{p}"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(tree.status.success(), "{}", String::from_utf8_lossy(&tree.stderr));
    let tree = String::from_utf8(tree.stdout).unwrap();
    let names: BTreeSet<&str> = tree.lines().filter_map(|line| line.split(' ').next()).collect();
    assert!(names.contains("mls-rs"), "the tree was not read");
    for name in names {
        assert!(!banned.contains(&name) && !name.starts_with("pqcrypto"), "{name}");
    }
}
