//! Joining: from an invite to an open profile.
//!
//! 1. The relay, pinned by the invite, shows what the invite says; it is held against the organisation's fingerprint.
//! 2. What is missing is asked for, the keys are made, and the vault is on disk.
//! 3. The registration goes out; if its answer is lost, the next command asks again.
//!
//! Invariant: a registration that the relay itself refuses for its invite or handle leaves no profile behind; whatever else goes
//! wrong leaves one that goes on.

use std::io::BufRead as _;
use std::time::{Duration, Instant};

use privity_protocol::cbor;
use privity_protocol::device::state::Counters;
use privity_protocol::device::state::{Batch, Profile, Table};
use privity_protocol::device::{Enrolment, Recovering, device_fingerprint};
use privity_protocol::error::Refused;
use privity_protocol::frame::{InviteView, Reply, Request};
use privity_protocol::identity::{Name, Role, check_handle};
use privity_protocol::invite::Invite;
use privity_protocol::link::Pin;
use privity_protocol::recovery::Sheet;
use privity_protocol::suite::SecretKey;
use serde_json::json;
use zeroize::Zeroizing;

use crate::cli::FirstRole;
use crate::commands::recovery::{keep_organisation_sheet, organisation_sheet};
use crate::error::Error;
use crate::home::{Held, Home};
use crate::link::{Dialer, Opened};
use crate::session::{Session, now};
use crate::vault::{self, Vault};
use crate::{ask, out, view};

/// The row that holds a registration whose answer has not come, and that of one more device of somebody's.
const REGISTRATION: &[u8] = b"registration";
const DEVICE_REGISTRATION: &[u8] = b"device registration";
/// That of somebody's recovery.
const RECOVERY: &[u8] = b"recovery";
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

/// Why a registration was not accepted.
#[derive(Debug)]
enum Unregistered {
    /// The relay, admitted, refuses this very registration for its invite: it will never be accepted.
    ForGood(Error),
    /// The same for its handle: another one may do.
    Handle(Error),
    /// Anything else: it may be accepted yet, or was.
    NotNow(Error),
}

impl From<Error> for Unregistered {
    fn from(error: Error) -> Self {
        Self::NotNow(error)
    }
}

/// Joins and prints who one is now. The profile is open, its link closed or to be closed.
///
/// # Errors
/// [`Error`], with nothing left behind unless the relay may have accepted.
pub async fn join(home: &Home, wanted: Wanted, json: bool, timeout: Duration) -> Result<(Held, Session), Error> {
    let (held, mut session, first) = joined(home, wanted, !json, timeout).await?;
    let kept = sheet_of_the_firm(&mut session, json);
    let told = kept.and_then(|()| report(session.device.profile(), session.device.is_ready(), first, json));
    if let Err(error) = told {
        session.close().await;
        return Err(error);
    }
    Ok((held, session))
}

/// Puts the sheet of a new firm's key before whoever founded it; where nobody is there, says how it is had.
fn sheet_of_the_firm(session: &mut Session, json: bool) -> Result<(), Error> {
    let Some(secret) = organisation_sheet(&session.vault)? else { return Ok(()) };
    if json || !ask::is_possible() {
        out::note(
            "The firm's key is on this device alone: put its recovery sheet on paper with privity recovery organisation.",
        );
        return Ok(());
    }
    match keep_organisation_sheet(session, &secret, None) {
        Err(Error::Usage(_)) => {
            out::note("Not kept yet: privity recovery organisation shows it again.");
            Ok(())
        }
        kept => kept,
    }
}

/// As [`join`], without a word on standard output; `greets` says on standard error who invites. True if this is the firm's first person.
///
/// # Errors
/// As [`join`].
pub(crate) async fn joined(
    home: &Home,
    wanted: Wanted,
    greets: bool,
    timeout: Duration,
) -> Result<(Held, Session, bool), Error> {
    let invite: Invite = read_invite(&wanted.invite)?.parse()?;
    // What will not do is told before anything is asked, of the relay or of the person.
    wanted.handle.as_deref().map(check_handle).transpose()?;
    wanted.name.as_deref().map(good_name).transpose()?;
    let deadline = Instant::now() + timeout;
    let held = home.hold()?;
    if vault::is_leftover(home.folder()) {
        vault::remove(home.folder());
    }
    let (vault, first) = if home.is_joined() {
        let mut vault = home.open_vault()?;
        if unanswered(&vault)?.is_none() {
            return Err(Error::Usage(format!(
                "{} is a profile already; use `privity --home ANOTHER-FOLDER join …` for a second one",
                home.folder().display()
            )));
        }
        finish(home, &mut vault, deadline).await?;
        (vault, false)
    } else {
        enrol(home, &invite, wanted, greets, deadline).await?
    };
    let mut session = Session::open(vault)?;
    match session.catch_up(deadline).await {
        // Joined is joined: what is missing comes with the next command.
        Ok(_) | Err(Error::Network(_)) => Ok((held, session, first)),
        Err(error) => {
            session.close().await;
            Err(error)
        }
    }
}

/// Everything up to the relay's yes. True if this is the firm's first person. Somebody who typed a handle that the relay refuses is asked
/// for another, and for nothing else again.
async fn enrol(
    home: &Home,
    invite: &Invite,
    mut wanted: Wanted,
    mut greets: bool,
    mut deadline: Instant,
) -> Result<(Vault, bool), Error> {
    let chosen = wanted.handle.is_none();
    let mut passphrase = None;
    loop {
        let attempt = enrol_as(home, invite, &mut wanted, &mut passphrase, greets, deadline).await;
        match attempt {
            Ok(enrolled) => return Ok(enrolled),
            Err(Unregistered::Handle(error)) if chosen && ask::is_possible() => {
                out::note(&view::plain(
                    &format!("{error}; all else stays as you have typed it, the passphrase, too"),
                    false,
                ));
                wanted.handle = None;
                greets = false;
                deadline = Instant::now() + ANSWER;
            }
            Err(Unregistered::Handle(error) | Unregistered::ForGood(error) | Unregistered::NotNow(error)) => {
                return Err(error);
            }
        }
    }
}

/// One attempt of [`enrol`]; what was asked for is kept in `wanted` and `passphrase`.
async fn enrol_as(
    home: &Home,
    invite: &Invite,
    wanted: &mut Wanted,
    passphrase: &mut Option<Zeroizing<Vec<u8>>>,
    greets: bool,
    deadline: Instant,
) -> Result<(Vault, bool), Unregistered> {
    let link_key = SecretKey::generate();
    let dialer = Dialer {
        address: invite.address.clone(),
        pin: Pin::Fingerprint(invite.relay),
        device: None,
        link_key: link_key.clone(),
    };
    let mut opened = dialer.open_until(deadline).await?;
    let view = open_invite(&mut opened, invite).await?;
    let admitted = opened.admitted.clone();
    opened.close().await;

    let enrolment =
        Enrolment::new(invite.clone(), link_key, view, admitted.organisation, now()).map_err(Error::from)?;
    if greets {
        greet(&enrolment, &admitted.firm);
    }
    let inviter = enrolment.inviter().map(|(person, known)| (person, known.clone()));
    let (first, links) = (enrolment.is_first(), enrolment.links());
    let changeable = enrolment.handle().is_none();
    let sheet = enrolment.organisation_sheet().map(|secret| Zeroizing::new(secret.as_bytes().to_vec()));
    let mut batch = Batch::default();
    if links {
        nothing_to_say(wanted)?;
        let linked = enrolment.link(now(), admitted.relay_key, &admitted.firm);
        let mut linked = linked.map_err(Error::from)?;
        linked.0.follow(&admitted.rotations).map_err(Error::from)?;
        batch.put(Table::Profile, None, &[], &linked.0);
        batch.put(Table::Counter, None, DEVICE_REGISTRATION, &linked.1);
    } else {
        let (handle, name, role) = settle(&enrolment, wanted)?;
        let enrolled = enrolment.enrol(now(), admitted.relay_key, &admitted.firm, &handle, &name, role);
        let mut enrolled = enrolled.map_err(Error::from)?;
        enrolled.0.follow(&admitted.rotations).map_err(Error::from)?;
        batch.put(Table::Profile, None, &[], &enrolled.0);
        batch.put(Table::Counter, None, REGISTRATION, &enrolled.1);
        if let Some(bytes) = sheet {
            // Kept until somebody has it on paper, whatever happens in between.
            batch.put_bytes(Table::Counter, None, Counters::ORGANISATION_SHEET, bytes);
        }
    }
    let passphrase = match passphrase {
        Some(passphrase) => passphrase,
        none => none.insert(home.new_passphrase()?),
    };
    let mut vault = Vault::create(home.folder(), passphrase, wanted.kdf_memory)?;
    if let Some((person, known)) = inviter {
        batch.put(Table::Person, None, person.as_bytes(), &known);
    }
    vault.apply(batch)?;
    // The person has typed; the relay gets its full time.
    let deadline = deadline.max(Instant::now() + ANSWER);
    match finish_or_why(home, &mut vault, deadline).await {
        Ok(()) => Ok((vault, first)),
        Err(Unregistered::Handle(error)) if !changeable => Err(Unregistered::ForGood(error)),
        Err(error) => Err(error),
    }
}

/// Begins again from a sheet. The profile is open, its link closed or to be closed.
///
/// # Errors
/// As [`join`].
pub(crate) async fn recover(
    home: &Home,
    sheet: Sheet,
    kdf_memory: u32,
    timeout: Duration,
) -> Result<(Held, Session), Error> {
    let deadline = Instant::now() + timeout;
    let held = home.hold()?;
    if vault::is_leftover(home.folder()) {
        vault::remove(home.folder());
    }
    let link_key = SecretKey::generate();
    let dial = |pin| Dialer { address: sheet.address.clone(), pin, device: None, link_key: link_key.clone() };
    // Whoever answers is believed for nothing but what the sheet's secret opens.
    let mut opened = dial(Pin::Unknown).open_until(deadline).await?;
    let request = Request::OpenRecovery { handle: sheet.handle.clone(), token: sheet.secret.token() };
    let answer = opened.answer(1, request).await;
    let organisation = opened.admitted.organisation.clone();
    opened.close().await;
    let shown = match answer? {
        Reply::Recovery(view) => *view,
        Reply::Refused(Refused::Invite { what }) => {
            return Err(Error::Refused(format!(
                "{what}: each restores once, and only the newest is good. Without a good one, have somebody who invites people at your \
                 firm run `privity invite new --for {}`",
                view::plain(&sheet.handle, false)
            )));
        }
        Reply::Refused(refused) => return Err(refused.into()),
        _ => return Err(Error::Untrusted("the relay does not follow the protocol".to_owned())),
    };
    let recovering = Recovering::new(sheet.secret.clone(), shown, organisation).map_err(|error| {
        Error::Untrusted(format!("the relay does not show what belongs to this sheet: {error}; nothing was done"))
    })?;
    let opened = dial(Pin::Fingerprint(recovering.relay())).open_until(deadline).await?;
    let admitted = opened.admitted.clone();
    opened.close().await;
    let passphrase = home.new_passphrase()?;
    let made = recovering.recover(now(), link_key.clone(), admitted.relay_key, &sheet.address, &admitted.firm)?;
    let (mut profile, known, request) = made;
    profile.follow(&admitted.rotations)?;
    let mut vault = Vault::create(home.folder(), &passphrase, kdf_memory)?;
    let mut batch = Batch::default();
    batch.put(Table::Profile, None, &[], &profile);
    batch.put(Table::Person, None, profile.person.as_bytes(), &known);
    batch.put(Table::Counter, None, RECOVERY, &request);
    vault.apply(batch)?;
    // The person has typed; the relay gets its full time.
    finish(home, &mut vault, deadline.max(Instant::now() + ANSWER)).await?;
    let mut session = Session::open(vault)?;
    match session.catch_up(deadline.max(Instant::now() + ANSWER)).await {
        Ok(_) | Err(Error::Network(_)) => Ok((held, session)),
        Err(error) => {
            session.close().await;
            Err(error)
        }
    }
}

/// The handle, name and role: as the invite says, as told, or asked for, and then kept in `wanted`.
fn settle(enrolment: &Enrolment, wanted: &mut Wanted) -> Result<(String, String, Role), Error> {
    let role = match (enrolment.role(), wanted.role) {
        (None, Some(first)) => first.into(),
        (None, None) if ask::is_possible() => {
            let asked = ask::until("You are (attorney or staff) [attorney]: ", "--role ROLE", first_role)?;
            wanted.role.insert(asked).to_owned().into()
        }
        (None, None) => Role::Attorney,
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
        (None, None) => {
            let asked = ask::until(
                "Your handle, by which others add you (2 to 32 of a-z, 0-9, dot and dash): ",
                "--handle HANDLE",
                |handle| check_handle(handle).map(|()| handle.to_owned()).map_err(Error::from),
            )?;
            wanted.handle.insert(asked).clone()
        }
    };
    let name = match (enrolment.name(), &wanted.name) {
        (_, Some(name)) => name.clone(),
        (Some(given), None) => given.to_owned(),
        (None, None) => {
            let asked = ask::until("Your name, as others see it: ", "--name NAME", good_name)?;
            wanted.name.insert(asked).clone()
        }
    };
    Ok((handle, name, role))
}

fn first_role(answer: &str) -> Result<FirstRole, Error> {
    match answer.to_lowercase().as_str() {
        "" | "attorney" => Ok(FirstRole::Attorney),
        "staff" => Ok(FirstRole::Staff),
        _ => Err(Error::Usage("attorney or staff, please; Enter alone means attorney".to_owned())),
    }
}

fn good_name(name: &str) -> Result<String, Error> {
    if name.is_empty() {
        return Err(Error::Usage("a name, please: others see it beside what you write".to_owned()));
    }
    Ok(Name::new(name)?.name)
}

/// Sends a registration whose answer has not come, if there is one. If the relay refuses it for good, the profile is of no use and goes.
///
/// # Errors
/// [`Error`] as the relay answers.
pub async fn finish(home: &Home, vault: &mut Vault, deadline: Instant) -> Result<(), Error> {
    finish_or_why(home, vault, deadline).await.map_err(|unregistered| match unregistered {
        Unregistered::ForGood(error) | Unregistered::Handle(error) | Unregistered::NotNow(error) => error,
    })
}

async fn finish_or_why(home: &Home, vault: &mut Vault, deadline: Instant) -> Result<(), Unregistered> {
    let Some(request) = unanswered(vault)? else { return Ok(()) };
    match register(&Session::profile(vault)?, request, deadline).await {
        Ok(()) => {
            let mut batch = Batch::default();
            batch.delete(Table::Counter, None, REGISTRATION);
            batch.delete(Table::Counter, None, DEVICE_REGISTRATION);
            batch.delete(Table::Counter, None, RECOVERY);
            Ok(vault.apply(batch)?)
        }
        Err(error @ (Unregistered::ForGood(_) | Unregistered::Handle(_))) => {
            vault::remove(home.folder());
            Err(error)
        }
        Err(Unregistered::NotNow(Error::Network(why))) => {
            let why = format!("{why}; your profile is kept, and `privity status` goes on with joining");
            Err(Error::Network(why).into())
        }
        Err(error) => Err(error),
    }
}

/// What was asked of the relay and not answered yet.
fn unanswered(vault: &Vault) -> Result<Option<Request>, Error> {
    if let Some(bytes) = vault.get(Table::Counter, None, REGISTRATION)? {
        return Ok(Some(Request::Register(Box::new(cbor::decode(&bytes, "registration")?))));
    }
    if let Some(bytes) = vault.get(Table::Counter, None, RECOVERY)? {
        return Ok(Some(Request::Recover(Box::new(cbor::decode(&bytes, "recovery")?))));
    }
    let bytes = vault.get(Table::Counter, None, DEVICE_REGISTRATION)?;
    let registration = bytes.map(|bytes| cbor::decode(&bytes, "registration")).transpose()?;
    Ok(registration.map(|registration| Request::RegisterDevice(Box::new(registration))))
}

async fn register(profile: &Profile, request: Request, deadline: Instant) -> Result<(), Unregistered> {
    let dialer = Dialer {
        address: profile.address.clone(),
        pin: Pin::Key(profile.relay.clone()),
        device: None,
        link_key: profile.link_key.clone(),
    };
    // What names the devices that its person had is signed for those alone.
    let names_devices = match &request {
        Request::Recover(_) => true,
        Request::Register(asked) => !asked.revocations.is_empty(),
        _ => false,
    };
    let mut opened = dialer.open_until(deadline).await?;
    let answer = opened.answer(1, request).await;
    opened.close().await;
    match answer? {
        Reply::Done => Ok(()),
        Reply::Refused(refused) => Err(unregistered(refused, names_devices)),
        _ => Err(Unregistered::NotNow(Error::Untrusted("the relay does not follow the protocol".to_owned()))),
    }
}

/// What a refusal means. Where a device was linked while somebody began again, no repeating of the same request helps: they begin anew, with
/// the sheet or invite that is as good as before.
fn unregistered(refused: Refused, names_devices: bool) -> Unregistered {
    match refused {
        Refused::Invite { .. } => Unregistered::ForGood(refused.into()),
        Refused::Malformed { .. } if names_devices => Unregistered::ForGood(refused.into()),
        Refused::Handle { .. } => Unregistered::Handle(refused.into()),
        _ => Unregistered::NotNow(refused.into()),
    }
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
        return Ok(invite_in(asked).to_owned());
    }
    let mut line = String::new();
    std::io::Read::take(std::io::stdin().lock(), INVITE_MAX).read_line(&mut line)?;
    Ok(invite_in(&line).to_owned())
}

/// The invite in what somebody has pasted: a whole command line, say, or with quotes around it.
pub(crate) fn invite_in(pasted: &str) -> &str {
    let begins = pasted.find("privity://").and_then(|at| pasted.get(at..)).unwrap_or_else(|| pasted.trim());
    let ends = begins.find(|character: char| character.is_whitespace() || "'\"’”<>".contains(character));
    ends.and_then(|end| begins.get(..end)).unwrap_or(begins)
}

/// One more device of somebody's has their handle, name and role.
fn nothing_to_say(wanted: &Wanted) -> Result<(), Error> {
    if wanted.handle.is_some() || wanted.name.is_some() || wanted.role.is_some() {
        let what = "this invite is for one more device of yours; leave --handle, --name and --role out";
        return Err(Error::Usage(what.to_owned()));
    }
    Ok(())
}

fn greet(enrolment: &Enrolment, firm: &str) {
    let firm = view::plain(firm, false);
    if let Some((_, own)) = enrolment.inviter().filter(|_| enrolment.links()) {
        out::note(&format!("This makes one more device of {} at {firm}.", view::plain(&own.label(), false)));
        return;
    }
    match (enrolment.inviter(), enrolment.role()) {
        (Some((_, inviter)), Some(role)) => {
            out::note(&format!("{} invites you to {firm} as {}.", view::plain(&inviter.label(), false), role.word()));
        }
        _ => out::note(&format!("You are the first at {firm}: its organisation key is made on this device now.")),
    }
}

fn report(profile: &Profile, ready: bool, first: bool, json: bool) -> Result<(), Error> {
    let state = if ready { "ready" } else { "waiting" };
    let fingerprint = device_fingerprint(&profile.certificate.digest()).to_string();
    if json {
        return out::line(&view::compact(&json!({
            "v": view::SCHEMA, "handle": profile.handle, "person": profile.person.to_string(),
            "device": profile.device.to_string(), "role": profile.role.word(), "state": state,
            "fingerprint": fingerprint,
        })));
    }
    if profile.linking.is_some() {
        out::text(&format!("This device waits to be linked as one more of {}'s. Its fingerprint:", profile.handle))?;
        out::text(&fingerprint)?;
        return out::text(
            "On the device that made the invite, compare it and say yes. Your matters come then. Next: privity, to chat.",
        );
    }
    let (name, firm) = (view::plain(&profile.name.name, false), view::plain(&profile.firm, false));
    out::text(&format!("You are {name} ({}), {} at {firm}.", profile.handle, profile.role.word()))?;
    if first {
        out::text(&format!(
            "Keep this on paper, it is the firm's fingerprint: {}",
            profile.organisation.fingerprint()
        ))?;
        out::text("Next: privity matter new TITLE, and privity invite new; or just privity, to chat.")
    } else if ready {
        out::text("You are ready. Next: privity, to chat.")
    } else {
        out::text(
            "The person who invited you still has to be online once; then you can be added to matters. If they are away, `privity status` \
             says how somebody else lets you in.",
        )
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use privity_protocol::invite::InviteSecret;

    use super::*;

    /// A recovery that was refused so left a profile that could neither go on nor begin again.
    #[test]
    fn a_recovery_whose_devices_have_changed_leaves_the_folder_free_for_another() {
        let malformed = || Refused::malformed("a device of that person is left out");
        assert!(matches!(unregistered(malformed(), true), Unregistered::ForGood(_)));
        assert!(matches!(unregistered(malformed(), false), Unregistered::NotNow(_)));
        assert!(matches!(unregistered(Refused::Storage, true), Unregistered::NotNow(_)));
    }
    use crate::link::tests::{Says, StandIn};

    fn view() -> InviteView {
        InviteView { statement: None, name: None, chain: Vec::new(), replaced: None }
    }

    #[test]
    fn an_invite_is_found_in_the_line_that_it_was_pasted_with() {
        for pasted in [
            "privity://a:1/xyz",
            " privity://a:1/xyz\n",
            "privity join privity://a:1/xyz",
            "privity join 'privity://a:1/xyz'",
            "$ privity join \"privity://a:1/xyz\" --handle bob",
            "<privity://a:1/xyz>",
        ] {
            assert_eq!(invite_in(pasted), "privity://a:1/xyz", "{pasted:?}");
        }
        assert_eq!(invite_in("nothing"), "nothing");
    }

    /// A profile whose registration was never answered.
    pub(crate) fn begun(relay: &SecretKey, address: &str) -> (tempfile::TempDir, Vault) {
        let relay = relay.public().unwrap();
        let (address, secret) = (address.to_owned(), InviteSecret::random());
        let invite = Invite { address, relay: relay.fingerprint(), organisation: None, secret };
        let enrolment = Enrolment::new(invite, SecretKey::generate(), view(), None, now()).unwrap();
        let enrolled = enrolment.enrol(now(), relay, "Firm", "ada", "Ada", Role::Attorney);
        let (profile, registration) = enrolled.unwrap();

        let folder = tempfile::tempdir().unwrap();
        let mut vault =
            Vault::create(folder.path(), b"correct horse battery staple", vault::KDF_MEMORY_MIB_MIN).unwrap();
        let mut batch = Batch::default();
        batch.put(Table::Profile, None, &[], &profile);
        batch.put(Table::Counter, None, REGISTRATION, &registration);
        vault.apply(batch).unwrap();
        (folder, vault)
    }

    /// Finishes a registration against somebody with `key`, where the relay's is `relay`. How it ends, and whether a profile is left.
    async fn finished(relay: &SecretKey, key: &SecretKey, says: Says) -> (Result<(), Error>, bool) {
        let stand_in = StandIn::start(key, says);
        let (folder, mut vault) = begun(relay, &stand_in.address);
        let home = Home::new(Some(folder.path().to_owned()), None).unwrap();
        let ended = finish(&home, &mut vault, Instant::now() + ANSWER).await;
        (ended, home.is_joined())
    }

    #[tokio::test]
    async fn only_the_relays_answer_to_the_registration_ends_a_profile() {
        let (relay, impostor) = (SecretKey::generate(), SecretKey::generate());
        let no = |what: &str| Refused::Invite { what: what.to_owned() };
        let taken = Refused::Handle { what: "it is taken".to_owned() };
        for refused in [no("it has expired"), taken] {
            let (ended, left) = finished(&relay, &relay, Says::Yes(Reply::Refused(refused))).await;
            assert!(matches!(ended, Err(Error::Refused(_))) && !left, "{ended:?}");
        }
        for (key, says) in [
            (&relay, Says::Yes(Reply::Done)),
            (&relay, Says::Yes(Reply::Refused(Refused::not_allowed("not now")))),
            (&relay, Says::Yes(Reply::Refused(Refused::malformed("an id is in use")))),
            (&relay, Says::Yes(Reply::Refused(Refused::Storage))),
            (&relay, Says::No(no("it has expired"))),
            (&relay, Says::No(Refused::not_allowed("not now"))),
            (&relay, Says::No(Refused::Version)),
            (&relay, Says::Garbled),
            (&impostor, Says::No(no("it has expired"))),
            (&impostor, Says::Yes(Reply::Refused(no("it has expired")))),
        ] {
            let is_done = matches!(says, Says::Yes(Reply::Done));
            let (ended, left) = finished(&relay, key, says.clone()).await;
            assert!(left, "{says:?}: {ended:?}");
            assert_eq!(ended.is_ok(), is_done, "{says:?}: {ended:?}");
        }
    }
}
