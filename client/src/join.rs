//! Joining: from an invite to an open profile.
//!
//! 1. The relay, pinned by the invite, shows what the invite says; it is held against the organisation's fingerprint.
//! 2. What is missing is asked for, the keys are made, and the vault is on disk.
//! 3. The registration goes out; if its answer is lost, the next command asks again.
//!
//! Invariant: a refused registration leaves no profile behind, a lost answer leaves one that goes on.

use std::fs;
use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use privity_protocol::cbor;
use privity_protocol::device::Enrolment;
use privity_protocol::device::state::{Batch, Profile, Table};
use privity_protocol::frame::{InviteView, Registration, Reply, Request};
use privity_protocol::identity::Role;
use privity_protocol::invite::Invite;
use privity_protocol::link::Pin;
use privity_protocol::suite::SecretKey;
use serde_json::json;

use crate::cli::FirstRole;
use crate::error::Error;
use crate::home::Home;
use crate::link::{Dialer, Opened};
use crate::session::{Session, now};
use crate::vault::{self, Vault};
use crate::view;

/// The row that holds a registration whose answer has not come.
const REGISTRATION: &[u8] = b"registration";
const INVITE_MAX: u64 = 4096;

/// What `privity join` was told.
#[derive(Debug)]
pub struct Wanted {
    /// The invite, or `-`.
    pub invite: String,
    /// The handle.
    pub handle: Option<String>,
    /// The display name.
    pub name: Option<String>,
    /// The role, with the first invite.
    pub role: Option<FirstRole>,
    /// Argon2id memory.
    pub kdf_memory: u32,
}

/// Joins and prints who one is now.
///
/// # Errors
/// [`Error`], with nothing left behind unless the relay may have accepted.
pub async fn join(home: &Home, wanted: Wanted, json: bool, timeout: Duration) -> Result<(), Error> {
    let invite: Invite = read_invite(&wanted.invite)?.parse()?;
    let _held = home.hold()?;
    if home.is_joined() {
        return Err(Error::Usage(format!(
            "{} is a profile already; use `privity --home ANOTHER-FOLDER join …` for a second one",
            home.folder().display()
        )));
    }
    let link_key = SecretKey::generate();
    let dialer = Dialer {
        address: invite.address.clone(),
        pin: Pin::Fingerprint(invite.relay),
        device: None,
        link_key: link_key.clone(),
    };
    let mut opened = dialer.open().await?;
    let view = open_invite(&mut opened, &invite).await?;
    let admitted = opened.admitted.clone();
    opened.close().await;

    let enrolment = Enrolment::new(invite, link_key, view, admitted.organisation)?;
    if !json {
        greet(&enrolment, &admitted.firm);
    }
    let role = match (enrolment.role(), wanted.role) {
        (None, first) => first.map_or(Role::Attorney, Role::from),
        (Some(given), None) => given,
        (Some(given), Some(asked)) if Role::from(asked) == given => given,
        (Some(given), Some(_)) => {
            return Err(Error::Refused(format!("this invite is for a {}; leave --role out", given.word())));
        }
    };
    let handle = match (enrolment.handle(), wanted.handle) {
        (Some(given), _) => given.to_owned(),
        (None, Some(handle)) => handle,
        (None, None) => ask("Your handle (short, of a-z, 0-9, dot and dash): ", "--handle HANDLE")?,
    };
    let name = match (enrolment.name(), wanted.name) {
        (_, Some(name)) => name,
        (Some(given), None) => given.to_owned(),
        (None, None) => ask("Your name, as others see it: ", "--name NAME")?,
    };
    let inviter = enrolment.inviter().map(|(person, known)| (person, known.clone()));
    let first = enrolment.is_first();
    let (profile, registration) = enrolment.enrol(now(), admitted.relay_key, &admitted.firm, &handle, &name, role)?;
    let passphrase = home.new_passphrase()?;
    let mut vault = Vault::create(home.folder(), &passphrase, wanted.kdf_memory)?;
    let mut batch = Batch::default();
    batch.put(Table::Profile, None, &[], &profile);
    batch.put(Table::Counter, None, REGISTRATION, &registration);
    if let Some((person, known)) = inviter {
        batch.put(Table::Person, None, person.as_bytes(), &known);
    }
    vault.apply(batch)?;
    if let Err(error) = register(&mut vault, &profile, registration).await {
        // Only a lost answer may have been accepted; anything else was refused and leaves nothing.
        if !matches!(error, Error::Network(_)) {
            drop(vault);
            for suffix in ["", "-wal", "-shm"] {
                let _gone = fs::remove_file(home.folder().join(format!("{}{suffix}", vault::FILE)));
            }
        }
        return Err(error);
    }
    let mut session = Session::open(vault)?;
    let caught_up = session.catch_up(Instant::now() + timeout).await;
    let ready = session.device.is_ready();
    let profile = session.device.profile().clone();
    session.close().await;
    caught_up?;
    report(&profile, ready, first, json);
    Ok(())
}

/// Sends a registration whose answer was lost, if there is one.
///
/// # Errors
/// [`Error`] as the relay answers.
pub async fn finish(vault: &mut Vault, profile: &Profile) -> Result<(), Error> {
    let Some(bytes) = vault.get(Table::Counter, None, REGISTRATION)? else { return Ok(()) };
    let registration: Registration = cbor::decode(&bytes, "registration")?;
    register(vault, profile, registration).await
}

async fn register(vault: &mut Vault, profile: &Profile, registration: Registration) -> Result<(), Error> {
    let dialer = Dialer {
        address: profile.address.clone(),
        pin: Pin::Key(profile.relay.clone()),
        device: None,
        link_key: profile.link_key.clone(),
    };
    let mut opened = dialer.open().await?;
    let answer = opened.ask(1, Request::Register(Box::new(registration))).await;
    opened.close().await;
    answer?;
    let mut batch = Batch::default();
    batch.delete(Table::Counter, None, REGISTRATION);
    vault.apply(batch)
}

async fn open_invite(opened: &mut Opened, invite: &Invite) -> Result<InviteView, Error> {
    let request = Request::OpenInvite { invite: invite.secret.id(), token: invite.secret.token() };
    match opened.ask(0, request).await? {
        Reply::Invite(view) => Ok(*view),
        _ => Err(Error::Untrusted("the relay does not follow the protocol".to_owned())),
    }
}

fn read_invite(asked: &str) -> Result<String, Error> {
    if asked != "-" {
        return Ok(asked.to_owned());
    }
    let mut line = String::new();
    std::io::Read::take(std::io::stdin().lock(), INVITE_MAX).read_line(&mut line)?;
    Ok(line)
}

fn ask(prompt: &str, flag: &str) -> Result<String, Error> {
    if !std::io::stdin().is_terminal() {
        return Err(Error::Usage(format!("{flag} is missing")));
    }
    eprint!("{prompt}");
    std::io::stderr().flush()?;
    let mut line = String::new();
    std::io::stdin().read_line(&mut line)?;
    Ok(line.trim().to_owned())
}

fn greet(enrolment: &Enrolment, firm: &str) {
    let firm = view::plain(firm, false);
    match (enrolment.inviter(), enrolment.role()) {
        (Some((_, inviter)), Some(role)) => {
            eprintln!("{} invites you to {firm} as {}.", view::plain(&inviter.label(), false), role.word());
        }
        _ => eprintln!("You are the first at {firm}: its organisation key is made on this device now."),
    }
}

fn report(profile: &Profile, ready: bool, first: bool, json: bool) {
    let state = if ready { "ready" } else { "waiting" };
    if json {
        let told = json!({
            "v": view::SCHEMA, "handle": profile.handle, "person": profile.person.to_string(),
            "device": profile.device.to_string(), "role": profile.role.word(), "state": state,
        });
        println!("{told}");
        return;
    }
    println!(
        "You are {} ({}), {} at {}.",
        profile.name.name,
        profile.handle,
        profile.role.word(),
        view::plain(&profile.firm, false)
    );
    if first {
        println!("Keep this on paper, it is the firm's fingerprint: {}", profile.organisation.fingerprint());
        println!("Next: privity invite new, and privity matter new TITLE");
    } else if ready {
        println!("You are ready. Next: privity recv --follow");
    } else {
        println!("The person who invited you still has to be online once; then you can be added to matters.");
    }
}
