//! The commands, each a short conversation with a [`Session`]; what they share is here.
//!
//! Every command that talks to the relay catches up first: it applies what waits, joins, and endorses who waits for this device; and
//! before it ends, it lets go out what can.
//!
//! Invariant: with `--json` only objects go to stdout; everything for people goes to stderr.

use std::cell::Cell;
use std::time::{Duration, Instant};

use privity_protocol::device::{NewPersonInvite, Notice};
use privity_protocol::frame::PersonView;
use privity_protocol::invite::Invite;
use serde_json::Value;

use crate::cli::{
    AuditCommand, Cli, Command, IdentityCommand, InviteCommand, MatterCommand, PassphraseCommand, SecurityCommand,
    TIMEOUT,
};
use crate::error::Error;
use crate::home::{Held, Home};
use crate::session::{Session, Told, now};
use crate::{ask, chat, join, out, view};

pub(crate) mod adopt;
mod audit;
mod device;
mod history;
pub(crate) mod identity;
pub(crate) mod invite;
pub(crate) mod matter;
pub(crate) mod message;
pub(crate) mod people;
mod profile;
mod proof;
pub(crate) mod recovery;
mod security;

/// How long a command that is done lets other things go out.
const SETTLE: Duration = Duration::from_secs(5);

/// Runs one command.
///
/// # Errors
/// [`Error`], with the exit code that it stands for.
pub fn run(cli: Cli) -> Result<(), Error> {
    let home = Home::new(cli.home, cli.passphrase_file)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (json, asked, timeout) = (cli.json, cli.timeout, cli.timeout.unwrap_or(TIMEOUT));
    let run = Run { home, json, asked, timeout, distrust: Cell::new(None) };
    let ended = runtime.block_on(run.command(cli.command));
    // A thread may still wait for a line to be typed.
    runtime.shutdown_background();
    ended
}

/// What all commands share.
pub(crate) struct Run {
    pub(crate) home: Home,
    pub(crate) json: bool,
    pub(crate) asked: Option<Duration>,
    pub(crate) timeout: Duration,
    /// What this command was told that the relay can't be trusted for.
    pub(crate) distrust: Cell<Option<Distrust>>,
}

/// What only a relay that lies, or somebody who has taken it over, can have done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Distrust {
    /// Other keys in a newcomer's place.
    Newcomer,
    /// Two audit logs.
    Log,
}

impl Run {
    async fn command(&self, command: Option<Command>) -> Result<(), Error> {
        let Some(command) = command else { return Box::pin(self.begin()).await };
        match command {
            Command::Join { invite, handle, name, role, kdf_memory } => {
                let wanted = join::Wanted { invite, handle, name, role, kdf_memory };
                let (held, session) = join::join(&self.home, wanted, self.json, self.timeout).await?;
                session.close().await;
                drop(held);
                Ok(())
            }
            Command::Invite(InviteCommand::New { role, handle, name, expires, replaces }) => {
                let wanted = NewPersonInvite { handle, name, ..NewPersonInvite::new(role.into()) };
                self.invite_new(wanted, replaces.as_deref(), expires).await
            }
            Command::Invite(InviteCommand::Ls) => self.invite_ls().await,
            Command::Invite(InviteCommand::Cancel { invite }) => self.invite_cancel(&invite).await,
            Command::People => self.people().await,
            Command::Identity(IdentityCommand::Show { handle, qr }) => self.identity_show(handle.as_deref(), qr).await,
            Command::Identity(IdentityCommand::Verify { handle, number, qr }) => {
                self.identity_verify(&handle, number.as_deref(), qr).await
            }
            Command::Identity(IdentityCommand::Adopt { handle, number, name }) => {
                self.identity_adopt(&handle, number.as_deref(), name.as_deref()).await
            }
            Command::Identity(IdentityCommand::Confirm { handle }) => self.identity_confirm(&handle).await,
            Command::Identity(IdentityCommand::Revoke { handle, yes }) => self.identity_revoke(&handle, yes).await,
            Command::Identity(IdentityCommand::Endorse { handle, yes }) => self.identity_endorse(&handle, yes).await,
            Command::Identity(IdentityCommand::Rotate { yes }) => self.identity_rotate(yes).await,
            Command::Identity(IdentityCommand::Trust { handle, yes }) => self.identity_trust(&handle, yes).await,
            Command::Matter(MatterCommand::New { title }) => self.matter_new(&title).await,
            Command::Matter(MatterCommand::Add { matter, handles }) => self.change(&matter, &handles, true).await,
            Command::Matter(MatterCommand::Remove { matter, handle }) => self.change(&matter, &[handle], false).await,
            Command::Matter(MatterCommand::Continue { matter }) => self.matter_continue(&matter).await,
            Command::Matter(MatterCommand::Ls) => self.matter_ls(),
            Command::Matter(MatterCommand::Show { matter }) => self.matter_show(&matter),
            Command::Send { matter, text, id, anyway } => self.send(&matter, &text, id.as_deref(), anyway).await,
            Command::Recv { follow, after } => self.recv(follow, after).await,
            Command::Read { matter, pending } => self.read(&matter, pending),
            Command::Chat { matter } => Box::pin(chat::chat(self, matter.as_deref(), None)).await,
            Command::Status => self.status().await,
            Command::Unlock { lasts } => self.unlock(lasts),
            Command::Lock => self.lock(),
            Command::Passphrase(PassphraseCommand::Change { new_passphrase_file }) => {
                self.passphrase_change(new_passphrase_file)
            }
            Command::Security(SecurityCommand::Show) => self.security_show(),
            Command::Audit(AuditCommand::Proof { out }) => self.audit_proof(&out),
            Command::Audit(AuditCommand::Verify { bundle, proof, against }) => match (proof, bundle) {
                (Some(proof), bundle) => self.proof_verify(&proof, against.as_deref(), bundle.as_deref()),
                (None, Some(bundle)) => self.audit_verify(&bundle, against.as_deref()),
                (None, None) => Err(Error::Usage("say what to verify: --bundle or --proof".to_owned())),
            },
            Command::Device(command) => self.device(command).await,
            Command::Recovery(command) => Box::pin(self.recovery(command)).await,
            Command::Completions { shell } => profile::completions(shell),
        }
    }

    /// Plain `privity`: joins where nobody has, and chats.
    async fn begin(&self) -> Result<(), Error> {
        let mut joined = None;
        if !self.home.is_joined() {
            if !ask::is_possible() {
                return Err(self.home.not_joined());
            }
            out::note("Welcome to Privity. You need an invite from your lawyer or your firm: a line that begins with");
            out::note("privity:// — paste it here.");
            let invite = ask::until("Invite: ", "the invite", |typed| {
                let typed = join::invite_in(typed);
                typed.parse::<Invite>().map(|_| typed.to_owned()).map_err(Error::from)
            })?;
            let kdf_memory = crate::vault::KDF_MEMORY_MIB;
            let wanted = join::Wanted { invite, handle: None, name: None, role: None, kdf_memory };
            joined = Some(join::join(&self.home, wanted, self.json, self.timeout).await?);
        }
        Box::pin(chat::chat(self, None, joined)).await
    }

    pub(crate) fn deadline(&self) -> Instant {
        Instant::now() + self.timeout
    }

    /// Prints an object, or what it says as text.
    pub(crate) fn print(&self, object: &Value, text: impl FnOnce() -> String) -> Result<(), Error> {
        if self.json { out::line(&view::compact(object)) } else { out::text(&text()) }
    }

    /// The profile, without the relay.
    fn open(&self) -> Result<(Held, Session), Error> {
        let held = self.home.hold_joined()?;
        Ok((held, Session::open(self.home.open_vault()?)?))
    }

    /// The profile, its registration finished.
    pub(crate) async fn online(&self) -> Result<(Held, Session), Error> {
        let held = self.home.hold_joined()?;
        let mut vault = self.home.open_vault()?;
        join::finish(&self.home, &mut vault, self.deadline()).await?;
        Ok((held, Session::open(vault)?))
    }

    /// An open session that has applied everything that waited.
    async fn caught_up(&self) -> Result<(Held, Session), Error> {
        let (held, mut session) = self.online().await?;
        let notices = session.catch_up(self.deadline()).await?;
        self.heed(&notices);
        if session.device.profile().linking.is_some() {
            session.close().await;
            let what = "this device waits to be linked: say yes on the device that made the invite, then try again";
            return Err(Error::NotYet(what.to_owned()));
        }
        Ok((held, session))
    }

    /// Lets go out what can, and ends the link.
    pub(crate) async fn done(&self, mut session: Session) -> Result<(), Error> {
        let notices = session.settle(Instant::now() + SETTLE.min(self.timeout)).await;
        session.close().await;
        self.heed(&notices?);
        Ok(())
    }

    /// Drives the session until `answer` finds what it looks for.
    async fn until<T>(
        &self,
        session: &mut Session,
        mut answer: impl FnMut(&Notice) -> Option<Result<T, Error>>,
    ) -> Result<T, Error> {
        let deadline = self.deadline();
        loop {
            match session.next(deadline).await? {
                Told::Notice(notice) => match answer(&notice) {
                    Some(answer) => return answer,
                    None => self.heed(std::slice::from_ref(&*notice)),
                },
                Told::Quiet => return Err(Error::Network("the relay did not answer in time".to_owned())),
                _ => {}
            }
        }
    }

    /// Tells what was not asked for, and keeps in mind what the command's exit code is to say.
    pub(crate) fn heed(&self, notices: &[Notice]) {
        for notice in notices {
            match notice {
                Notice::Suspicious { .. } => self.distrust.set(Some(Distrust::Newcomer)),
                Notice::Log { .. } => self.distrust.set(self.distrust.get().or(Some(Distrust::Log))),
                _ => {}
            }
        }
        warn(notices);
    }

    async fn directory(&self, session: &mut Session) -> Result<Vec<PersonView>, Error> {
        session.device.ask_people(now());
        self.until(session, |notice| match notice {
            Notice::People(people) => Some(Ok(people.clone())),
            _ => None,
        })
        .await
    }
}

/// Tells the user what went wrong, or well, beside what they asked for.
pub(crate) fn warn(notices: &[Notice]) {
    for text in notices.iter().filter_map(view::notice) {
        out::note(&format!("privity: {text}"));
    }
}
