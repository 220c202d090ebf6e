//! Joining: from an invite to an open profile.
//!
//! 1. The relay, pinned by the invite, shows what the invite says; it is held against the organisation's fingerprint.
//! 2. What is missing is asked for, the keys are made, and the vault is on disk.
//! 3. The registration goes out; if its answer is lost, the next command asks again.
//!
//! Invariant: a refused registration leaves no profile behind, a lost answer leaves one that goes on.

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
use crate::{out, view};

/// The row that holds a registration whose answer has not come.
const REGISTRATION: &[u8] = b"registration";
const INVITE_MAX: u64 = 4096;
/// The least time that the relay has for its answer.
const ANSWER: Duration = Duration::from_secs(10);

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
    let deadline = Instant::now() + timeout;
    let held = home.hold()?;
    if vault::is_leftover(home.folder()) {
        vault::remove(home.folder());
    }
    let (vault, first) = if home.is_joined() {
        let mut vault = home.open_vault()?;
        if vault.get(Table::Counter, None, REGISTRATION)?.is_none() {
            return Err(Error::Usage(format!(
                "{} is a profile already; use `privity --home ANOTHER-FOLDER join …` for a second one",
                home.folder().display()
            )));
        }
        finish(home, &mut vault, deadline).await?;
        (vault, false)
    } else {
        enrol(home, invite, wanted, json, deadline).await?
    };
    let mut session = Session::open(vault)?;
    let caught_up = session.catch_up(deadline).await;
    let ready = session.device.is_ready();
    let profile = session.device.profile().clone();
    session.close().await;
    drop(held);
    match caught_up {
        // Joined is joined: what is missing comes with the next command.
        Ok(_) | Err(Error::Network(_)) => report(&profile, ready, first, json),
        Err(error) => Err(error),
    }
}

/// Everything up to the relay's yes. True if this is the firm's first person.
async fn enrol(
    home: &Home,
    invite: Invite,
    wanted: Wanted,
    json: bool,
    deadline: Instant,
) -> Result<(Vault, bool), Error> {
    let link_key = SecretKey::generate();
    let dialer = Dialer {
        address: invite.address.clone(),
        pin: Pin::Fingerprint(invite.relay),
        device: None,
        link_key: link_key.clone(),
    };
    let mut opened = dialer.open_until(deadline).await?;
    let view = open_invite(&mut opened, &invite).await?;
    let admitted = opened.admitted.clone();
    opened.close().await;

    let enrolment = Enrolment::new(invite, link_key, view, admitted.organisation)?;
    if !json {
        greet(&enrolment, &admitted.firm);
    }
    let (handle, name, role) = settle(&enrolment, &wanted)?;
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
    // The person has typed; the relay gets its full time.
    let deadline = deadline.max(Instant::now() + ANSWER);
    finish(home, &mut vault, deadline).await?;
    Ok((vault, first))
}

/// The handle, name and role: as the invite says, as told, or asked for.
fn settle(enrolment: &Enrolment, wanted: &Wanted) -> Result<(String, String, Role), Error> {
    let role = match (enrolment.role(), wanted.role) {
        (None, first) => first.map_or(Role::Attorney, Role::from),
        (Some(given), None) => given,
        (Some(given), Some(asked)) if Role::from(asked) == given => given,
        (Some(given), Some(_)) => {
            return Err(Error::Refused(format!("this invite is for a {}; leave --role out", given.word())));
        }
    };
    let handle = match (enrolment.handle(), &wanted.handle) {
        (Some(given), Some(asked)) if given != asked => {
            return Err(Error::Refused(format!("this invite is for the handle {given}; leave --handle out")));
        }
        (Some(given), _) => given.to_owned(),
        (None, Some(handle)) => handle.clone(),
        (None, None) => ask("Your handle (short, of a-z, 0-9, dot and dash): ", "--handle HANDLE")?,
    };
    let name = match (enrolment.name(), &wanted.name) {
        (_, Some(name)) => name.clone(),
        (Some(given), None) => given.to_owned(),
        (None, None) => ask("Your name, as others see it: ", "--name NAME")?,
    };
    Ok((handle, name, role))
}

/// Sends a registration whose answer has not come, if there is one. If the relay refuses it, the profile is of no use and goes.
///
/// # Errors
/// [`Error`] as the relay answers.
pub async fn finish(home: &Home, vault: &mut Vault, deadline: Instant) -> Result<(), Error> {
    let Some(bytes) = vault.get(Table::Counter, None, REGISTRATION)? else { return Ok(()) };
    let registration: Registration = cbor::decode(&bytes, "registration")?;
    match register(&Session::profile(vault)?, registration, deadline).await {
        Ok(()) => {
            let mut batch = Batch::default();
            batch.delete(Table::Counter, None, REGISTRATION);
            vault.apply(batch)
        }
        Err(error @ (Error::Refused(_) | Error::Usage(_))) => {
            vault::remove(home.folder());
            Err(error)
        }
        Err(Error::Network(why)) => {
            Err(Error::Network(format!("{why}; your profile is kept, and `privity status` goes on with joining")))
        }
        Err(error) => Err(error),
    }
}

async fn register(profile: &Profile, registration: Registration, deadline: Instant) -> Result<(), Error> {
    let dialer = Dialer {
        address: profile.address.clone(),
        pin: Pin::Key(profile.relay.clone()),
        device: None,
        link_key: profile.link_key.clone(),
    };
    let mut opened = dialer.open_until(deadline).await?;
    let answer = opened.ask(1, Request::Register(Box::new(registration))).await;
    opened.close().await;
    answer.map(|_| ())
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

/// Asks for what is missing, where there is somebody to ask.
pub(crate) fn ask(prompt: &str, flag: &str) -> Result<String, Error> {
    if !std::io::stdin().is_terminal() {
        return Err(Error::Usage(format!("{flag} is missing")));
    }
    let mut stderr = std::io::stderr();
    stderr.write_all(prompt.as_bytes())?;
    stderr.flush()?;
    let mut line = String::new();
    std::io::stdin().read_line(&mut line)?;
    let line = line.trim();
    if line.is_empty() {
        Err(Error::Usage(format!("{flag} is missing; nothing was done")))
    } else {
        Ok(line.to_owned())
    }
}

fn greet(enrolment: &Enrolment, firm: &str) {
    let firm = view::plain(firm, false);
    match (enrolment.inviter(), enrolment.role()) {
        (Some((_, inviter)), Some(role)) => {
            out::note(&format!("{} invites you to {firm} as {}.", view::plain(&inviter.label(), false), role.word()));
        }
        _ => out::note(&format!("You are the first at {firm}: its organisation key is made on this device now.")),
    }
}

fn report(profile: &Profile, ready: bool, first: bool, json: bool) -> Result<(), Error> {
    let state = if ready { "ready" } else { "waiting" };
    if json {
        return out::line(&view::compact(&json!({
            "v": view::SCHEMA, "handle": profile.handle, "person": profile.person.to_string(),
            "device": profile.device.to_string(), "role": profile.role.word(), "state": state,
        })));
    }
    let (name, firm) = (view::plain(&profile.name.name, false), view::plain(&profile.firm, false));
    out::line(&format!("You are {name} ({}), {} at {firm}.", profile.handle, profile.role.word()))?;
    if first {
        out::line(&format!(
            "Keep this on paper, it is the firm's fingerprint: {}",
            profile.organisation.fingerprint()
        ))?;
        out::line("Next: privity matter new TITLE, and privity invite new; or just privity, to chat.")
    } else if ready {
        out::line("You are ready. Next: privity, to chat.")
    } else {
        out::line("The person who invited you still has to be online once; then you can be added to matters.")
    }
}
