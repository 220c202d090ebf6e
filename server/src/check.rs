//! `privity-relay check`: what IT wants to know before it says that the relay runs.
//!
//! Invariant: it changes nothing, and what it prints as ok has been tried.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::net::UdpSocket;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use privity_protocol::ids::Timestamp;
use privity_server::audit::export::View;
use privity_server::config::{self, Config, ConfigError};
use privity_server::keys::KeyView;
use privity_server::store::sqlite::Sqlite;
use privity_server::store::{Read, StoreError};
use privity_server::{RelayError, clock};

/// Below this, the disk counts as nearly full.
const FREE_LOW_MIB: u64 = 1024;
/// No machine with a working clock is before 2025.
const CLOCK_LOWEST: Timestamp = Timestamp(1_735_689_600_000);

/// A line of the report. Whoever reads it may stop reading: that is no failure.
macro_rules! tell {
    ($($part:tt)*) => {{
        let _heard = writeln!(std::io::stdout(), $($part)*);
    }};
}

pub(crate) fn check(data: &Path) -> Result<(), RelayError> {
    let (config, keys) = Config::load(data)?;
    tell!("configuration  ok: {}, for {}", data.join(config::FILE).display(), config.org);
    for (at, KeyView { key, until, served, .. }) in keys.view()?.into_iter().enumerate() {
        match until {
            None if at == 0 => tell!("relay key      {key}"),
            until => {
                let until = until.map_or_else(String::new, |until| format!(", until {}", utc(until)));
                let served = if served { "still served" } else { "served no more: its file is gone" };
                tell!("  before it    {key}{until}; {served}");
            }
        }
    }
    let now = clock::now();
    match Sqlite::open(data) {
        Err(StoreError::Version { found, known }) if found < known => {
            tell!("database       ok; it has version {found}, and is brought up to date when the relay starts");
        }
        opened => {
            tell!("database       ok; {}", founding(&opened?, now)?);
            let (leaves, in_files) = View::of(data)?.sizes(data)?;
            let files = in_files.map_or_else(|| "made at the next start".to_owned(), |size| format!("at {size}"));
            tell!("audit log      ok: {leaves} leaves, its files {files}");
        }
    }
    disk(data)?;
    match UdpSocket::bind(config.listen) {
        Ok(_) => tell!("port           ok: UDP {} is free", config.listen),
        // Whoever holds the folder's lock is this relay, running.
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse && config::is_running(data) => {
            tell!("port           UDP {} is in use by this relay, running", config.listen);
        }
        Err(error) => return Err(RelayError::Listen { listen: config.listen, error }),
    }
    let doubt = if now < CLOCK_LOWEST { "; that is wrong, set it before you start the relay" } else { "" };
    tell!("clock          {}{doubt}; compare it with one you trust", utc(now));
    tell!("firewall       let UDP port {} in, from everywhere your people are; no TCP", config.listen.port());
    tell!("invites carry  {}", config.public);
    Ok(())
}

/// How far the organisation has come.
fn founding(store: &Sqlite, now: Timestamp) -> Result<String, StoreError> {
    if store.organisation()?.is_some() {
        return Ok("the organisation is founded".to_owned());
    }
    Ok(match store.first_invite_expires()? {
        Some(expires) if expires > now => format!("the first invite is unused, and good until {}", utc(expires)),
        _ => "the first invite has expired unused; `privity-relay invite` makes another".to_owned(),
    })
}

fn disk(data: &Path) -> Result<(), RelayError> {
    let path = data.join("check.tmp");
    let write = || {
        let mut probe = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path)?;
        probe.write_all(b"privity").and_then(|()| probe.sync_all())
    };
    let written = write();
    // Where it could not be made, there is nothing to remove.
    let _removed = fs::remove_file(&path);
    written.map_err(|error| ConfigError::Io { path, error })?;
    match rustix::fs::statvfs(data) {
        Ok(space) => {
            let free_mib = space.f_bavail.saturating_mul(space.f_frsize) / (1024 * 1024);
            let low = if free_mib < FREE_LOW_MIB { "; that is little" } else { "" };
            tell!("disk           ok: written and synced; {free_mib} MiB free{low}");
        }
        Err(_) => tell!("disk           ok: written and synced; how much is free, the system does not say"),
    }
    Ok(())
}

/// A time as people read it.
pub(crate) fn utc(time: Timestamp) -> String {
    i64::try_from(time.0)
        .ok()
        .and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok())
        .map_or_else(|| "an unknown time".to_owned(), |time| time.strftime("%Y-%m-%d %H:%M:%S UTC").to_string())
}
