//! The commands, each a short conversation with a [`Session`].
//!
//! Every command that talks to the relay catches up first: it applies what waits, joins, and endorses who waits for this device.
//!
//! Invariant: with `--json` only objects go to stdout; everything for people goes to stderr.

use std::io::{IsTerminal as _, Read as _, Write as _};
use std::time::{Duration, Instant};

use privity_protocol::device::state::{Batch, Counters, OutItem, Record, RecordBody, Stage, Table};
use privity_protocol::device::{NewPersonInvite, Notice};
use privity_protocol::error::Error as ProtocolError;
use privity_protocol::frame::PersonView;
use privity_protocol::ids::{MatterId, MessageId, PersonId};
use privity_protocol::{cbor, content, limits};
use qrcode::QrCode;
use qrcode::render::unicode::Dense1x2;
use serde_json::{Value, json};

use crate::cli::{Cli, Command, InviteCommand, MatterCommand, TIMEOUT};
use crate::error::Error;
use crate::home::Home;
use crate::join;
use crate::keystore;
use crate::session::{Session, Told, now};
use crate::view;

/// Records printed at once.
const PAGE: usize = 500;

/// Runs one command.
///
/// # Errors
/// [`Error`], with the exit code that it stands for.
pub fn run(cli: Cli) -> Result<(), Error> {
    let home = Home::new(cli.home, cli.passphrase_file)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let run = Run { home, json: cli.json, asked: cli.timeout, timeout: cli.timeout.unwrap_or(TIMEOUT) };
    runtime.block_on(run.command(cli.command))
}

/// What all commands share.
struct Run {
    home: Home,
    json: bool,
    asked: Option<Duration>,
    timeout: Duration,
}

impl Run {
    async fn command(&self, command: Command) -> Result<(), Error> {
        match command {
            Command::Join { invite, handle, name, role, kdf_memory } => {
                let wanted = join::Wanted { invite, handle, name, role, kdf_memory };
                join::join(&self.home, wanted, self.json, self.timeout).await
            }
            Command::Invite(InviteCommand::New { role, handle, name }) => {
                self.invite(NewPersonInvite { role: role.into(), handle, name }).await
            }
            Command::People => self.people().await,
            Command::Matter(MatterCommand::New { title }) => self.matter_new(&title).await,
            Command::Matter(MatterCommand::Add { matter, handles }) => self.change(&matter, &handles, true).await,
            Command::Matter(MatterCommand::Remove { matter, handle }) => self.change(&matter, &[handle], false).await,
            Command::Matter(MatterCommand::Ls) => self.matter_ls(),
            Command::Matter(MatterCommand::Show { matter }) => self.matter_show(&matter),
            Command::Send { matter, text, id } => self.send(&matter, &text, id.as_deref()).await,
            Command::Recv { follow, after } => self.recv(follow, after).await,
            Command::Read { matter, pending } => self.read(&matter, pending),
            Command::Status => self.status().await,
            Command::Unlock { lasts } => self.unlock(lasts),
            Command::Lock => self.lock(),
        }
    }

    fn deadline(&self) -> Instant {
        Instant::now() + self.timeout
    }

    fn print(&self, object: &Value, text: impl FnOnce() -> String) {
        if self.json {
            println!("{object}");
        } else {
            println!("{}", text());
        }
    }

    fn hold(&self) -> Result<(crate::home::Held, Session), Error> {
        let held = self.home.hold()?;
        Ok((held, Session::open(self.home.open_vault()?)?))
    }

    /// An open session that has applied everything that waited.
    async fn caught_up(&self) -> Result<(crate::home::Held, Session), Error> {
        let held = self.home.hold()?;
        let mut vault = self.home.open_vault()?;
        let profile = Session::profile(&vault)?;
        join::finish(&mut vault, &profile).await?;
        let mut session = Session::open(vault)?;
        let notices = session.catch_up(self.deadline()).await?;
        warn(&notices);
        Ok((held, session))
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
                    None => warn(std::slice::from_ref(&*notice)),
                },
                Told::Quiet => return Err(Error::Network("the relay did not answer in time".to_owned())),
                _ => {}
            }
        }
    }

    async fn invite(&self, wanted: NewPersonInvite) -> Result<(), Error> {
        let (_held, mut session) = self.caught_up().await?;
        let invite = session.device.invite(now(), &wanted)?;
        let filed = self.until(&mut session, |notice| match notice {
            Notice::InviteFiled => Some(Ok(())),
            Notice::InviteRefused(refused) => Some(Err(refused.clone().into())),
            _ => None,
        });
        filed.await?;
        session.close().await;
        let url = invite.url();
        let expires = now().plus_ms(limits::INVITE_LIFETIME_MS);
        if self.json {
            println!("{}", json!({ "v": view::SCHEMA, "url": url, "role": wanted.role.word(), "expires": expires.0 }));
            return Ok(());
        }
        if std::io::stdout().is_terminal()
            && let Ok(code) = QrCode::new(url.as_bytes())
        {
            println!("{}", code.render::<Dense1x2>().quiet_zone(true).build());
        }
        println!("{url}");
        eprintln!(
            "Good for one {}, for 72 hours. Whoever reads it can use it: send it by a way that you trust.",
            wanted.role.word()
        );
        Ok(())
    }

    async fn directory(&self, session: &mut Session) -> Result<Vec<PersonView>, Error> {
        session.device.ask_people(now());
        self.until(session, |notice| match notice {
            Notice::People(people) => Some(Ok(people.clone())),
            _ => None,
        })
        .await
    }

    async fn people(&self) -> Result<(), Error> {
        let (_held, mut session) = self.caught_up().await?;
        let people = self.directory(&mut session).await?;
        for view in &people {
            let known = session.device.person(view.person);
            let name = known.and_then(|known| known.name.as_ref()).map(|name| name.name.clone());
            let state = if view.ready { "ready" } else { "waiting" };
            let object = json!({
                "v": view::SCHEMA, "person": view.person.to_string(), "handle": view.handle, "name": name,
                "role": view.role.word(), "state": state, "self_stated": known.is_some_and(|known| known.self_stated),
            });
            self.print(&object, || {
                let waits = if view.ready { "" } else { "  — waits for whoever invited them to be online" };
                let shown = view::plain(name.as_deref().unwrap_or(""), false);
                format!("{:<20} {:<9} {shown}{waits}", view::plain(&view.handle, false), view.role.word())
            });
        }
        session.close().await;
        Ok(())
    }

    async fn matter_new(&self, title: &str) -> Result<(), Error> {
        let (_held, mut session) = self.caught_up().await?;
        let matter = session.device.open_matter(now(), title)?;
        let opened = self.until(&mut session, |notice| match notice {
            Notice::Opened(id) if *id == matter => Some(Ok(())),
            Notice::NotOpened(id, refused) if *id == matter => Some(Err(refused.clone().into())),
            _ => None,
        });
        opened.await?;
        let title = view::title(&session.device, matter);
        session.close().await;
        let object = json!({ "v": view::SCHEMA, "matter": matter.to_string(), "title": title });
        self.print(&object, || format!("Opened {title} ({matter})."));
        Ok(())
    }

    /// Adds or removes people, and waits for each.
    async fn change(&self, matter: &str, handles: &[String], add: bool) -> Result<(), Error> {
        let (_held, mut session) = self.caught_up().await?;
        let matter = find_matter(&session, matter)?;
        let directory = self.directory(&mut session).await?;
        let mut open: Vec<(PersonId, String)> = Vec::new();
        for handle in handles {
            let found = directory.iter().find(|view| view.handle == *handle);
            let unknown = || Error::Usage(format!("nobody here is called {handle}; `privity people` lists everyone"));
            open.push((found.ok_or_else(unknown)?.person, handle.clone()));
        }
        for (person, handle) in &open {
            if add {
                session.device.add(now(), matter, *person, handle)?;
            } else {
                session.device.remove(now(), matter, *person, handle)?;
            }
        }
        let mut waits = Vec::new();
        let mut failed: Option<ProtocolError> = None;
        while !open.is_empty() {
            let (person, outcome) = self
                .until(&mut session, |notice| match notice {
                    Notice::Done { matter: id, person, .. } if *id == matter => Some(Ok((*person, Ok("done")))),
                    Notice::Waits { matter: id, person } if *id == matter => Some(Ok((*person, Ok("waiting")))),
                    Notice::NotDone { matter: id, person, why } if *id == matter => {
                        Some(Ok((*person, Err(why.clone()))))
                    }
                    _ => None,
                })
                .await?;
            let Some(at) = open.iter().position(|(open, _)| *open == person) else { continue };
            let (_, handle) = open.remove(at);
            let state = match outcome {
                Ok(state) => state,
                Err(why) => {
                    failed = Some(why);
                    "refused"
                }
            };
            let object = json!({ "v": view::SCHEMA, "matter": matter.to_string(), "handle": handle, "state": state });
            self.print(&object, || match (state, add) {
                ("done", true) => format!("Added {handle}."),
                ("done", false) => format!("Removed {handle}."),
                ("waiting", _) => format!("{handle} is not ready yet; they will be added as soon as they are."),
                _ => format!("{handle} could not be {}.", if add { "added" } else { "removed" }),
            });
            if state == "waiting" {
                waits.push(handle);
            }
        }
        session.close().await;
        match (failed, waits.is_empty()) {
            (Some(why), _) => Err(why.into()),
            (None, true) => Ok(()),
            (None, false) => Err(Error::NotYet(format!("not yet ready: {}", waits.join(", ")))),
        }
    }

    fn matter_ls(&self) -> Result<(), Error> {
        let (_held, session) = self.hold()?;
        let printed = printed(&session)?;
        for (id, row) in session.device.matters() {
            let unread = unread(&session, id, printed)?;
            let title = view::title(&session.device, id);
            let object = json!({
                "v": view::SCHEMA, "matter": id.to_string(), "title": row.title, "state": stage(row.stage),
                "people": row.people.len(), "unread": unread, "epoch": row.epoch, "seq": row.position.seq,
            });
            self.print(&object, || {
                let new = if unread > 0 { format!("  {unread} new") } else { String::new() };
                let state = if row.stage == Stage::Open { "" } else { stage(row.stage) };
                format!("{}  {title}  {} people{new}  {state}", short(id), row.people.len()).trim_end().to_owned()
            });
        }
        Ok(())
    }

    fn matter_show(&self, matter: &str) -> Result<(), Error> {
        let (_held, session) = self.hold()?;
        let id = find_matter(&session, matter)?;
        let Some(row) = session.device.matter(id) else { return Ok(()) };
        let people: Vec<Value> = row.people.iter().map(|person| person_json(&session, *person)).collect();
        let waiting: Vec<&str> = session.device.intents(id).into_iter().map(|intent| intent.handle.as_str()).collect();
        let object = json!({
            "v": view::SCHEMA, "matter": id.to_string(), "title": row.title, "state": stage(row.stage),
            "people": people, "waiting": waiting, "epoch": row.epoch, "seq": row.position.seq,
        });
        self.print(&object, || {
            let mut lines = vec![format!("{}  ({id}, {})", view::title(&session.device, id), stage(row.stage))];
            lines.extend(row.people.iter().map(|person| format!("  {}", view::person(&session.device, *person))));
            lines.extend(
                waiting.iter().map(|handle| format!("  {}  — waits until they are ready", view::plain(handle, false))),
            );
            lines.join("\n")
        });
        Ok(())
    }

    async fn send(&self, matter: &str, text: &str, id: Option<&str>) -> Result<(), Error> {
        let text = if text == "-" { read_text()? } else { text.to_owned() };
        let id = match id {
            Some(id) => id
                .parse()
                .map_err(|_| Error::Usage("--id takes 26 characters of base32, a to z and 2 to 7".to_owned()))?,
            None => MessageId::random(),
        };
        let (_held, mut session) = self.hold()?;
        let matter = find_matter(&session, matter)?;
        if let Some(seq) = session.vault.get(Table::Sent, Some(matter), id.as_bytes())? {
            let seq: u64 = cbor::decode(&seq, "seq")?;
            self.sent(matter, id, Some(seq));
            return Ok(());
        }
        session.device.send_text(now(), matter, id, &text)?;
        session.drain()?;
        let deadline = self.deadline();
        let outcome = loop {
            match session.next(deadline).await {
                Ok(Told::Notice(notice)) => match *notice {
                    Notice::Stored { matter: m, id: i, seq } if m == matter && i == id => break Ok(Some(seq)),
                    Notice::Unsendable { matter: m, id: i, why } if m == matter && i == id => break Err(why.into()),
                    other => warn(&[other]),
                },
                Ok(Told::Quiet) => break Ok(None),
                Ok(_) => {}
                Err(error) => break Err(error),
            }
        };
        session.close().await;
        match outcome? {
            Some(seq) => {
                self.sent(matter, id, Some(seq));
                Ok(())
            }
            None => {
                self.sent(matter, id, None);
                Err(Error::Network(
                    "the relay can't be reached; the message is kept and goes out at the next contact".to_owned(),
                ))
            }
        }
    }

    fn sent(&self, matter: MatterId, id: MessageId, seq: Option<u64>) {
        let state = if seq.is_some() { "stored" } else { "queued" };
        let object = json!({
            "v": view::SCHEMA, "id": id.to_string(), "matter": matter.to_string(), "seq": seq, "state": state,
        });
        self.print(&object, || if seq.is_some() { "Sent.".to_owned() } else { "Kept for later.".to_owned() });
    }

    async fn recv(&self, follow: bool, after: Option<u64>) -> Result<(), Error> {
        let held = self.home.hold()?;
        let mut session = Session::open(self.home.open_vault()?)?;
        let mut from = match after {
            Some(after) => after,
            None => printed(&session)?,
        };
        self.print_new(&mut session, &mut from)?;
        let mut caught_up = false;
        let mut deadline = self.deadline();
        loop {
            let told = tokio::select! {
                told = session.next(deadline) => told?,
                _ = tokio::signal::ctrl_c() => break,
            };
            let mut quiet = false;
            match told {
                Told::Notice(notice) => match *notice {
                    Notice::Recorded(_) => deadline = self.deadline(),
                    Notice::CaughtUp => {
                        caught_up = true;
                        deadline = self.deadline();
                        quiet = !follow && self.asked.is_none();
                    }
                    other => warn(&[other]),
                },
                Told::Down(why) if follow => eprintln!("privity: {why}; trying again"),
                Told::Quiet => quiet = !follow || self.asked.is_some(),
                _ => {}
            }
            self.print_new(&mut session, &mut from)?;
            if quiet {
                break;
            }
            if deadline <= Instant::now() {
                deadline = self.deadline();
            }
        }
        session.close().await;
        drop(held);
        if caught_up || follow {
            Ok(())
        } else {
            Err(Error::Network("the relay can't be reached; what is shown is what was here already".to_owned()))
        }
    }

    /// Prints records after `from`, and remembers that they were printed.
    fn print_new(&self, session: &mut Session, from: &mut u64) -> Result<(), Error> {
        loop {
            let records = session.vault.records(None, *from, PAGE)?;
            let Some(last) = records.last().map(|record| record.cursor) else { return Ok(()) };
            for record in &records {
                if self.json {
                    println!("{}", view::json(&session.device, record));
                } else {
                    println!(
                        "{:<24} {}",
                        view::title(&session.device, record.matter),
                        view::line(&session.device, record, now())
                    );
                }
            }
            std::io::stdout().flush()?;
            *from = last;
            mark_printed(session, last)?;
        }
    }

    fn read(&self, matter: &str, pending: bool) -> Result<(), Error> {
        let (_held, session) = self.hold()?;
        let matter = find_matter(&session, matter)?;
        if !pending {
            let mut from = 0;
            loop {
                let records = session.vault.records(Some(matter), from, PAGE)?;
                let Some(last) = records.last().map(|record| record.cursor) else { break };
                for record in &records {
                    self.print(&view::json(&session.device, record), || view::line(&session.device, record, now()));
                }
                from = last;
            }
        }
        for item in session.device.pending(matter) {
            let (text, state) = pending_text(item);
            let object = json!({
                "v": view::SCHEMA, "type": "pending", "id": item.id.to_string(), "matter": matter.to_string(),
                "state": state, "body": { "text": text }, "why": item.failed,
            });
            self.print(&object, || format!("--:--  you ({state}): {}", view::plain(&text, true)));
        }
        Ok(())
    }

    async fn status(&self) -> Result<(), Error> {
        let (_held, mut session) = self.hold()?;
        let reached = session.catch_up(self.deadline()).await;
        let why = match &reached {
            Ok(notices) => {
                warn(notices);
                None
            }
            Err(Error::Network(why)) => Some(why.clone()),
            Err(_) => return reached.map(|_| ()),
        };
        let profile = session.device.profile().clone();
        let printed = printed(&session)?;
        let mut matters = Vec::new();
        let mut unread_total = 0;
        for (id, row) in session.device.matters() {
            let unread = unread(&session, id, printed)?;
            unread_total += unread;
            matters.push(json!({
                "matter": id.to_string(), "title": row.title, "state": stage(row.stage), "unread": unread,
                "pending": session.device.pending(id).len(), "epoch": row.epoch, "seq": row.position.seq,
                "chain": row.position.chain.to_string(),
            }));
        }
        let state = if session.device.is_ready() { "ready" } else { "waiting" };
        let object = json!({
            "v": view::SCHEMA,
            "relay": { "address": profile.address, "firm": profile.firm, "reached": why.is_none(),
                       "key": profile.relay.fingerprint().to_string() },
            "organisation": profile.organisation.fingerprint().to_string(),
            "person": profile.person.to_string(), "device": profile.device.to_string(), "handle": profile.handle,
            "role": profile.role.word(), "state": state,
            "suites": { "transport": "X25519MLKEM768, ML-DSA-65 + Ed25519",
                        "messages": "MLS 0xF0A2: X-Wing, AES-256-GCM, Ed25519 + ML-DSA-65" },
            "matters": matters, "unread": unread_total,
        });
        self.print(&object, || {
            let link = why.as_deref().map_or("connected".to_owned(), |why| format!("offline: {why}"));
            let mut lines = vec![
                format!("{} ({}), {}, {state}", profile.name.name, profile.handle, profile.role.word()),
                format!("relay      {} of {}, {link}", profile.address, view::plain(&profile.firm, false)),
                "suites     X25519MLKEM768 outside, X-Wing inside; Ed25519 and ML-DSA-65 signatures".to_owned(),
                format!("matters    {}, {unread_total} new messages", matters.len()),
            ];
            for (id, row) in session.device.matters() {
                lines.push(format!(
                    "  {}  {}  epoch {}, position {}",
                    short(id),
                    view::title(&session.device, id),
                    row.epoch,
                    row.position.seq
                ));
            }
            lines.join("\n")
        });
        session.close().await;
        Ok(())
    }

    fn unlock(&self, lasts: Duration) -> Result<(), Error> {
        let _held = self.home.hold()?;
        let vault = self.home.open_vault()?;
        keystore::put(self.home.folder(), vault.root(), lasts)?;
        self.print(&json!({ "v": view::SCHEMA, "state": "unlocked", "seconds": lasts.as_secs() }), || {
            format!("Unlocked for {} minutes.", lasts.as_secs().div_ceil(60))
        });
        Ok(())
    }

    fn lock(&self) -> Result<(), Error> {
        let was = keystore::remove(self.home.folder());
        self.print(&json!({ "v": view::SCHEMA, "state": "locked" }), || {
            if was { "Locked.".to_owned() } else { "It was locked already.".to_owned() }
        });
        Ok(())
    }
}

/// Tells the user what went wrong beside what they asked for.
fn warn(notices: &[Notice]) {
    for notice in notices {
        match notice {
            Notice::Problem(error) => eprintln!("privity: warning: {}", view::plain(&error.to_string(), false)),
            Notice::Suspicious { handle, why } => eprintln!(
                "privity: WARNING: somebody who asks to be {} was not accepted: {why}. Ask whom you invited, by another way",
                view::plain(handle, false)
            ),
            Notice::Endorsed { handle } => eprintln!("privity: {} has joined", view::plain(handle, false)),
            _ => {}
        }
    }
}

fn read_text() -> Result<String, Error> {
    let mut text = String::new();
    let limit = limits::TEXT_MAX as u64 + 1;
    std::io::stdin().lock().take(limit).read_to_string(&mut text)?;
    if text.ends_with('\n') {
        text.pop();
    }
    Ok(text)
}

/// The matter that an id, the beginning of one, or a title means.
///
/// # Errors
/// [`Error::Usage`] if none or several are meant.
pub fn find_matter(session: &Session, asked: &str) -> Result<MatterId, Error> {
    let matters: Vec<(MatterId, String)> = session.device.matters().map(|(id, row)| (id, row.title.clone())).collect();
    let by = |fits: &dyn Fn(&(MatterId, String)) -> bool| -> Vec<MatterId> {
        matters.iter().filter(|matter| fits(matter)).map(|(id, _)| *id).collect()
    };
    let exact = by(&|(id, title)| id.to_string() == asked || title == asked);
    let found =
        if exact.is_empty() { by(&|(id, _)| !asked.is_empty() && id.to_string().starts_with(asked)) } else { exact };
    match found.as_slice() {
        [one] => Ok(*one),
        [] => Err(Error::Usage(format!("no matter is called {asked:?}; `privity matter ls` lists them"))),
        _ => Err(Error::Usage(format!(
            "several matters are called {asked:?}; use the id that `privity matter ls` shows"
        ))),
    }
}

fn printed(session: &Session) -> Result<u64, Error> {
    let value = session.vault.get(Table::Counter, None, Counters::PRINTED)?;
    Ok(value.and_then(|value| cbor::decode(&value, "cursor").ok()).unwrap_or(0))
}

/// Remembers that everything up to a cursor was printed; never goes back.
fn mark_printed(session: &mut Session, cursor: u64) -> Result<(), Error> {
    if cursor <= printed(session)? {
        return Ok(());
    }
    let mut batch = Batch::default();
    batch.put(Table::Counter, None, Counters::PRINTED, &cursor);
    session.vault.apply(batch)
}

fn unread(session: &Session, matter: MatterId, printed: u64) -> Result<usize, Error> {
    let records: Vec<Record> = session.vault.records(Some(matter), printed, PAGE)?;
    let own = session.device.profile().person;
    Ok(records.iter().filter(|r| matches!(r.what, RecordBody::Text { .. }) && r.from != Some(own)).count())
}

fn pending_text(item: &OutItem) -> (String, &'static str) {
    let text = match content::Content::decode(&item.content).map(|content| content.body) {
        Ok(content::Body::Text(text)) => text,
        _ => String::new(),
    };
    let state = if item.failed.is_some() {
        "refused"
    } else if item.seq.is_some() {
        "stored"
    } else {
        "queued"
    };
    (text, state)
}

fn person_json(session: &Session, person: PersonId) -> Value {
    let known = session.device.person(person);
    json!({
        "person": person.to_string(), "handle": known.map(|known| known.handle.clone()),
        "name": known.and_then(|known| known.name.as_ref().map(|name| name.name.clone())),
        "role": known.map(|known| known.role.word()),
    })
}

fn short(matter: MatterId) -> String {
    matter.to_string().chars().take(6).collect()
}

fn stage(stage: Stage) -> &'static str {
    match stage {
        Stage::Opening => "opening",
        Stage::Joining => "joining",
        Stage::Open => "open",
        Stage::Removed => "removed",
        _ => "stopped",
    }
}
