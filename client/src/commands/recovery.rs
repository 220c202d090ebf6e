//! `recovery create`, `restore` and `organisation`: sheets of paper that outlive every device.
//!
//! 1. A sheet is shown, or written to a file of its owner's alone, and is filed only once somebody has typed a part of it back, or a script
//!    has said where it went.
//! 2. Whoever restores types the relay, a handle and the code, or the whole line of the sheet; never on the command line.
//!
//! Invariant: a code is shown on a terminal or in a file that was asked for, and nowhere else; none is an argument of a program.

use std::fs::OpenOptions;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use privity_protocol::device::{Notice, state::Counters, state::Table};
use privity_protocol::identity::check_handle;
use privity_protocol::recovery::{RecoverySecret, Sheet, SheetKind};
use serde_json::json;
use zeroize::Zeroizing;

use crate::cli::RecoveryCommand;
use crate::commands::Run;
use crate::error::Error;
use crate::join::recover;
use crate::session::{Session, now};
use crate::vault::Vault;
use crate::{ask, out, view};

/// Groups of a code, and characters in each.
const GROUPS: usize = 14;
const GROUP: usize = 4;

/// What is left to do where a founding was cut off before the firm's key was on paper.
pub(crate) const SHEET_DUE: &str = "IS ON NO PAPER YET: it is on this device alone. `privity recovery organisation` shows its sheet; put it in the safe";

/// The largest text in which a sheet's line is looked for.
const SHEET_MAX: u64 = 16 * 1024;

impl Run {
    pub(super) async fn recovery(&self, command: RecoveryCommand) -> Result<(), Error> {
        match command {
            RecoveryCommand::Create { sheet } => self.recovery_create(sheet.as_deref()).await,
            RecoveryCommand::Restore { from, kdf_memory } => self.recovery_restore(from.as_deref(), kdf_memory).await,
            RecoveryCommand::Organisation { sheet } => self.recovery_organisation(sheet.as_deref()),
        }
    }

    async fn recovery_create(&self, to: Option<&Path>) -> Result<(), Error> {
        somewhere(to)?;
        let (_held, mut session) = self.caught_up().await?;
        let secret = session.device.new_sheet()?;
        let profile = session.device.profile();
        let (address, handle) = (profile.address.clone(), profile.handle.clone());
        let sheet = Sheet { address, handle, secret: secret.clone() };
        let kept = keep(&person_sheet(&session, &sheet), &secret, to);
        if let Err(error) = kept {
            session.close().await;
            return Err(error);
        }
        session.device.file_sheet(now(), &secret)?;
        let filed = self.until(&mut session, |notice| match notice {
            Notice::SheetFiled => Some(Ok(())),
            Notice::SheetRefused(why) => Some(Err(why.clone().into())),
            _ => None,
        });
        filed.await?;
        let object = json!({ "v": view::SCHEMA, "state": "filed", "sheet": to.map(|path| path.display().to_string()) });
        self.print(&object, || {
            format!(
                "This sheet is good from now on; one that you made before is not. Keep it on paper, apart from your devices: whoever holds \
                 it can take your place.{}",
                to.map(in_file).unwrap_or_default()
            )
        })?;
        self.done(session).await
    }

    async fn recovery_restore(&self, from: Option<&Path>, kdf_memory: u32) -> Result<(), Error> {
        if self.home.is_joined() {
            return self.restore_organisation(from);
        }
        let sheet = read_sheet(from)?;
        if sheet.secret.kind() != SheetKind::Person {
            return Err(Error::Usage(
                "that is the sheet of an organisation's key; restore yourself first, with your own sheet, then use this one"
                    .to_owned(),
            ));
        }
        let (held, session) = recover(&self.home, sheet, kdf_memory, self.timeout).await?;
        let profile = session.device.profile();
        let handle = profile.handle.clone();
        let object = json!({
            "v": view::SCHEMA, "handle": handle, "person": profile.person.to_string(), "device": profile.device.to_string(),
            "state": "restored",
        });
        let (name, firm) = (view::plain(&profile.name.name, false), view::plain(&profile.firm, false));
        let told = self.print(&object, || {
            format!(
                "You are {name} ({handle}) at {firm} again, with a new key; your other devices are shut out, and your contacts are told. \
                 Matters let you back in as soon as somebody else in them is online: leave privity chat or privity recv --follow running \
                 for a minute. What was said before does not come back, and of people the handle alone is known until a matter that you share tells their names. This sheet is used up: make a new one with privity recovery \
                 create."
            )
        });
        session.close().await;
        drop(held);
        told
    }

    /// Into a profile that there is, the organisation's key alone comes from a sheet.
    fn restore_organisation(&self, from: Option<&Path>) -> Result<(), Error> {
        let (_held, mut session) = self.open()?;
        let text = match from {
            Some(path) => read(path)?,
            None => Zeroizing::new(String::new()),
        };
        let secret = match (from, code_in(&text)) {
            (Some(_), Some(secret)) => secret,
            (Some(_), None) => return Err(no_code()),
            (None, _) => ask_code("The code on your firm's sheet: ")?,
        };
        if secret.kind() != SheetKind::Organisation {
            return Err(Error::Usage(format!(
                "{} is a profile already; a person is restored into an empty folder: privity --home ANOTHER-FOLDER recovery restore",
                self.home.folder().display()
            )));
        }
        session.device.restore_organisation(now(), &secret)?;
        session.drain()?;
        let object = json!({ "v": view::SCHEMA, "state": "restored", "organisation": true });
        self.print(&object, || "This device has your firm's key again.".to_owned())
    }

    /// Shows the sheet of the organisation's key once more, until somebody has put it on paper.
    fn recovery_organisation(&self, to: Option<&Path>) -> Result<(), Error> {
        somewhere(to)?;
        let (_held, mut session) = self.open()?;
        let Some(secret) = organisation_sheet(&session.vault)? else {
            return Err(Error::Usage(
                "there is no sheet of your firm's key here to be put on paper: it was kept already, or this device did not found the \
                 firm"
                .to_owned(),
            ));
        };
        keep_organisation_sheet(&mut session, &secret, to)?;
        let object = json!({ "v": view::SCHEMA, "state": "kept", "sheet": to.map(|path| path.display().to_string()) });
        self.print(&object, || format!("Kept. It is not shown again.{}", to.map(in_file).unwrap_or_default()))
    }
}

/// The sheet of the organisation's key, while nobody has put it on paper.
pub(crate) fn organisation_sheet(vault: &Vault) -> Result<Option<RecoverySecret>, Error> {
    let Some(bytes) = vault.get(Table::Counter, None, Counters::ORGANISATION_SHEET)? else { return Ok(None) };
    let bytes = <[u8; 32]>::try_from(bytes.as_slice()).ok();
    Ok(bytes.map(|bytes| RecoverySecret::new(bytes, SheetKind::Organisation)))
}

/// Shows the sheet of the organisation's key until it is on paper, and forgets it then.
pub(crate) fn keep_organisation_sheet(
    session: &mut Session,
    secret: &RecoverySecret,
    to: Option<&Path>,
) -> Result<(), Error> {
    let profile = session.device.profile();
    let (firm, fingerprint) = (view::plain(&profile.firm, false), profile.organisation.fingerprint());
    let text = format!(
        "RECOVERY SHEET OF A FIRM'S KEY: keep it on paper, in the safe\n\nFirm:         {firm}\nFingerprint:  {fingerprint}\n{}\n\
         Whoever holds this sheet can vouch for anybody in the firm's name. It is needed where the first registrar's device is lost: \
         they restore themselves with their own sheet first, and then run `privity recovery restore` again with this one.\n",
        code_lines(secret)
    );
    keep(&Zeroizing::new(text), secret, to)?;
    let mut batch = privity_protocol::device::state::Batch::default();
    batch.delete(Table::Counter, None, Counters::ORGANISATION_SHEET);
    session.vault.apply(batch)
}

/// A sheet must go somewhere: to a file, or before somebody's eyes.
fn somewhere(to: Option<&Path>) -> Result<(), Error> {
    if to.is_some() || ask::is_possible() {
        return Ok(());
    }
    Err(Error::Usage("nobody is there to write it down; --sheet FILE writes it to a file".to_owned()))
}

/// What to do with a sheet that was written to a file.
fn in_file(path: &Path) -> String {
    let shown = view::plain(&path.display().to_string(), false);
    format!(
        "\nPrint {shown} now, look at the print, and then delete the file, also from backups and the waste bin: on disk it is as good as your key."
    )
}

/// Shows a sheet until a part of it was typed back, or writes it to a file that was not there.
fn keep(text: &str, secret: &RecoverySecret, to: Option<&Path>) -> Result<(), Error> {
    if let Some(path) = to {
        let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
        let written = made.and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()));
        return written
            .map_err(|error| Error::Usage(format!("{}: {error}; name a file that is not there yet", path.display())));
    }
    out::note(text);
    out::note("Write it down, or print it, now.");
    let code = secret.code();
    let groups: Vec<&str> = code.split(' ').collect();
    let asked = [(3, "third"), (9, "ninth"), (14, "last")];
    for (number, word) in asked {
        let wanted = groups.get(number - 1).copied().unwrap_or_default();
        ask::until(&format!("To make sure: type the {word} group of four characters: "), "--sheet FILE", |typed| {
            let typed = typed.to_ascii_lowercase().replace('0', "o").replace('1', "l").replace('8', "b");
            if typed == wanted {
                Ok(())
            } else {
                Err(Error::Usage("that is not what the sheet says; look again".to_owned()))
            }
        })?;
    }
    out::note("Right. Close this window when you are done: the code still stands in it.");
    Ok(())
}

fn person_sheet(session: &Session, sheet: &Sheet) -> Zeroizing<String> {
    let profile = session.device.profile();
    let (name, firm) = (view::plain(&profile.name.name, false), view::plain(&profile.firm, false));
    Zeroizing::new(format!(
        "RECOVERY SHEET: keep it on paper, apart from your devices\n\nFor:     {name} ({}), {firm}\nRelay:   {}\n{}\n\
         Whoever holds this sheet can take your place. To begin again on a new device, run `privity recovery restore` there, and type \
         what stands above.\nIn one line, for a machine:\n{}\n",
        sheet.handle,
        sheet.address,
        code_lines(&sheet.secret),
        *sheet.line()
    ))
}

/// The code, in rows of seven groups.
fn code_lines(secret: &RecoverySecret) -> String {
    let code = secret.code();
    let groups: Vec<&str> = code.split(' ').collect();
    let rows: Vec<String> = groups.chunks(GROUPS / 2).map(|row| row.join(" ")).collect();
    format!("Code:    {}\n", rows.join("\n         "))
}

/// The sheet: its line somewhere in a file or on standard input, or what somebody types.
fn read_sheet(from: Option<&Path>) -> Result<Sheet, Error> {
    if let Some(path) = from {
        let text = read(path)?;
        let line = text.lines().find_map(|line| line.trim().parse::<Sheet>().ok());
        return line.ok_or_else(|| {
            Error::Usage("there is no line in it that begins with privity-recovery://, as sheets have one".to_owned())
        });
    }
    let address = ask::until("Relay, as the sheet says (HOST:PORT): ", "FILE", |typed| match typed.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0) => {
            Ok(typed.to_owned())
        }
        _ => Err(Error::Usage("a host and a port, please, with a colon between".to_owned())),
    })?;
    let handle = ask::until("Your handle: ", "FILE", |typed| {
        check_handle(typed).map(|()| typed.to_owned()).map_err(Error::from)
    })?;
    Ok(Sheet { address, handle, secret: ask_code("The code, 14 groups of four characters: ")? })
}

/// A code, typed or pasted in one line or in the rows of the sheet.
fn ask_code(prompt: &str) -> Result<RecoverySecret, Error> {
    let mut so_far = Zeroizing::new(String::new());
    loop {
        let groups = characters(&so_far) / GROUP;
        let prompt = if groups == 0 { prompt.to_owned() } else { format!("The rest, from group {}: ", groups + 1) };
        ask::until(&prompt, "FILE", |typed| {
            check_groups(typed, groups)?;
            so_far.push(' ');
            so_far.push_str(typed);
            Ok(())
        })?;
        if characters(&so_far) < GROUPS * GROUP {
            continue;
        }
        match so_far.parse::<RecoverySecret>() {
            Ok(secret) => return Ok(secret),
            Err(error) => out::note(&Error::from(error).to_string()),
        }
        so_far = Zeroizing::new(String::new());
    }
}

/// The characters of a code, without what stands between its groups.
fn characters(typed: &str) -> usize {
    typed.chars().filter(|character| !character.is_whitespace() && *character != '-').count()
}

/// Names the group that can't be as it was typed, after `before` others. Without spaces, groups are counted off by four.
fn check_groups(typed: &str, before: usize) -> Result<(), Error> {
    let mut words: Vec<String> = typed.split(|c: char| c.is_whitespace() || c == '-').map(str::to_owned).collect();
    words.retain(|word| !word.is_empty());
    if words.is_empty() {
        return Err(Error::Usage("the code, please, as the sheet has it; several lines are fine".to_owned()));
    }
    if let [one] = words.as_slice() {
        let all: Vec<char> = one.chars().collect();
        words = all.chunks(GROUP).map(|group| group.iter().collect()).collect();
    }
    for (index, word) in words.iter().enumerate() {
        let (group, length) = (before + index + 1, word.chars().count());
        let strange = |c: &char| !matches!(c.to_ascii_lowercase(), 'a'..='z' | '2'..='7' | '0' | '1' | '8');
        if let Some(character) = word.chars().find(strange) {
            let shown = view::plain(&character.to_string(), false);
            return Err(Error::Usage(format!(
                "group {group} can't be right: no code has the character \"{shown}\" in it; type that line again"
            )));
        }
        if length != GROUP {
            return Err(Error::Usage(format!(
                "group {group} can't be right: it has {} instead of four; type that line again",
                view::counted(length, "character", "characters")
            )));
        }
    }
    if before + words.len() > GROUPS {
        return Err(Error::Usage(format!("that is more than a code has: {GROUPS} groups; type that line again")));
    }
    Ok(())
}

/// A code anywhere in a text, in groups or rows of groups.
fn code_in(text: &str) -> Option<RecoverySecret> {
    let words: Vec<&str> = text.split_whitespace().collect();
    words
        .windows(GROUPS)
        .find_map(|groups| groups.join(" ").parse().ok())
        .or_else(|| words.iter().find_map(|word| word.parse().ok()))
}

fn no_code() -> Error {
    Error::Usage("there is no recovery code in it".to_owned())
}

fn read(path: &Path) -> Result<Zeroizing<String>, Error> {
    let mut text = Zeroizing::new(String::new());
    let read = if path == Path::new("-") {
        std::io::stdin().take(SHEET_MAX).read_to_string(&mut text)
    } else {
        std::fs::File::open(path).and_then(|file| file.take(SHEET_MAX).read_to_string(&mut text))
    };
    read.map_err(|error| Error::Usage(format!("the sheet {}: {error}", path.display())))?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_found_in_the_sheet_that_shows_it() {
        let secret = RecoverySecret::random(SheetKind::Organisation);
        let text = format!(
            "RECOVERY SHEET OF A FIRM'S KEY: in the safe\n\nFirm: Smith\n{}\nWhoever holds",
            code_lines(&secret)
        );
        assert!(code_in(&text).unwrap() == secret);
        assert!(code_in("nothing like it").is_none());
        assert_eq!(code_lines(&secret).lines().count(), 2);
    }

    #[test]
    fn the_group_that_was_mistyped_is_named() {
        let told = |typed, before| check_groups(typed, before).map_err(|error| error.to_string());
        assert_eq!(told("abcd efgh-2345", 0), Ok(()));
        assert_eq!(told("abcdefgh2345", 0), Ok(()), "without spaces");
        assert!(
            told("abcd efg9 2345", 0).unwrap_err().contains("group 2")
                && told("ab?d", 7).unwrap_err().contains("group 8")
        );
        assert!(told("abcd efg 2345", 7).unwrap_err().contains("group 9 can't be right: it has 3 characters"));
        let long = ["abcd"; 15].join(" ");
        assert!(told(&long, 0).unwrap_err().contains("more than a code has"));
        assert!(told(" ", 0).is_err());
        let code = RecoverySecret::random(SheetKind::Person).code();
        assert_eq!(check_groups(&code, 0).map_err(|error| error.to_string()), Ok(()));
        assert_eq!(characters(&code), GROUPS * GROUP);
    }

    #[test]
    fn a_sheet_is_written_for_its_owner_alone_and_over_nothing() {
        use std::os::unix::fs::MetadataExt as _;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sheet");
        let secret = RecoverySecret::random(SheetKind::Person);
        keep("text", &secret, Some(&path)).unwrap();
        assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o600);
        assert_eq!(keep("other", &secret, Some(&path)).unwrap_err().exit_code(), 1);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "text");
    }
}
