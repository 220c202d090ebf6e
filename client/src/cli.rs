//! The command line: one table of commands, their flags and their help.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};
use privity_protocol::identity::Role;
use privity_protocol::limits;

use crate::vault::{KDF_MEMORY_MIB_MAX, KDF_MEMORY_MIB_MIN};

/// How long a command tries to reach the relay.
pub const TIMEOUT: Duration = Duration::from_secs(20);

const JOIN_HELP: &str = "\
Examples:
  privity join 'privity://…'                           asks for your handle, name and passphrase
  pbpaste | privity join - --handle ada --name 'Ada Byron'
The invite is for you alone; keep it off shared screens. --kdf-memory is best left alone.";

const INVITE_HELP: &str = "\
Examples:
  privity invite new                                   for a client
  privity invite new --role attorney --handle ada --name 'Ada Byron'
  privity invite new --expires 2h                      not for longer than it takes to hand it over
  privity invite ls
  privity invite cancel 6qk3ro                         nobody can use it any more";

const IDENTITY_HELP: &str = "\
Both of you see the same safety number. Compare it by telephone or side by side, never by what it is to protect.

Examples:
  privity identity show                                who you are here, and the firm's key
  privity identity show bob --qr                       who Bob is, with a code for his camera
  privity identity verify bob                          asks whether all digits match
  privity identity confirm bob                         his name is right: you have seen who he is
  privity identity adopt zoe                           she waits, and whoever invited her is away
  privity identity trust bob                           shows what has changed, and asks
  privity identity revoke bob                          he has left: nobody at the firm vouches for him any more";

const MATTER_HELP: &str = "\
Examples:
  privity matter new 'Smith v Jones'
  privity matter add 'Smith v Jones' bob carol         who is not ready yet is added as soon as they are (exit code 7)
  privity matter show 'Smith v Jones'";

const REMOVE_HELP: &str = "\
The removal reads requested, with exit code 0, once the relay has it: there is nothing left to do here. It counts once somebody else \
in the matter has written there again, since the relay alone is not believed; until then, write nothing there that the person must \
not read. matter show and matter ls tell while it lasts.

Example:
  privity matter remove 'Smith v Jones' bob";

const CONTINUE_HELP: &str = "\
For attorneys and staff, where a matter stays out_of_step: everybody's device lost its place at once, after old backups of \
profiles, say, or the others are gone for good. A device that only missed a change is let back in by the next of them who is \
online, so wait for that first. The matter goes on in a new place on the relay, with the people it has; to them it stays one \
matter, with a note in it. What this device could not read is not brought back. Where somebody in the matter knows of a later \
change, theirs counts.

Example:
  privity matter continue 'Smith v Jones'";

const SEND_HELP: &str = "\
Examples:
  privity send 'Smith v Jones' 'Good morning'
  privity send 'Smith v Jones' - < letter.txt
Without a network the message is kept and goes out at the next contact (exit code 3); so it is where the relay has put it off \
beyond --timeout (exit code 6). A relay that was killed or cut off in the middle says nothing: that shows only when --timeout \
is over. Where somebody says to have read something else than you, it asks; without a terminal it refuses (exit code 5) until \
it is told --anyway.";

const RECV_HELP: &str = "\
Examples:
  privity recv                                         what is new, then end
  privity recv --timeout 30                            end after 30 quiet seconds
  privity recv --follow --json | my-archive            go on until Ctrl-C; one object a line
Where the relay shows another history of a matter than before, it ends with exit code 4, after everything it has.";

const READ_HELP: &str = "\
Examples:
  privity read 'Smith v Jones'
  privity read 'Smith v Jones' --pending               what the relay does not have yet";

const CHAT_HELP: &str = "\
Type a message and press Enter. A line that ends with \\ goes on in the next one. /help lists the commands, Tab completes \
them, /quit or Ctrl-D ends. Without a terminal, lines are read from standard input.";

const PASSPHRASE_HELP: &str = "\
The old passphrase is needed even where the profile is unlocked, and an unlocked profile is locked. Copies and backups of the \
profile that were made before still open with the old one. It takes at least 12 characters: four or five words that have nothing to \
do with each other are good, a saying or a name is not; Enter alone makes one for you. A forgotten one opens nothing any more: begin \
again in another folder, with `privity --home DIR recovery restore` and your recovery sheet; without one, have somebody who invites \
people at your firm run `privity invite new --for` your handle.

Example:
  privity passphrase change --passphrase-file old.txt --new-passphrase-file new.txt";

const AUDIT_HELP: &str = "\
Works offline and without a profile, on one of two folders. --bundle takes what `privity-relay audit export` has written: every byte of \
it is checked, leaves, tree and signatures. --proof takes what `privity audit proof` has written on somebody's device: that nothing in \
it was changed, who says so, and what the relay's own signatures prove; an export beside it tells more. \
If anything is changed, missing or too much, the file and the leaf are named, with exit code 8. --against takes a checkpoint that was \
kept before, and checks that the log has only grown since; where IT has restored the relay from a backup meanwhile, ask them first.

Examples:
  privity audit verify --bundle log-2026-08-01
  privity audit verify --bundle log-2026-08-01 --against checkpoint-2026-07-01 --json
  privity audit verify --proof proof-of-dan
  privity audit verify --proof proof-of-dan --against proof-of-ada/log/0/known
  privity audit verify --proof proof-of-dan --bundle log-2026-08-01";

const PROOF_HELP: &str = "\
The folder has the relay's signed notes that contradict each other, what members said, and the positions of a matter that was shown twice, \
signed by this device, with a README.txt in plain words. No message, title, name of a matter or secret key is in it. Whoever gets it checks \
it with `privity audit verify --proof`, without a profile.

Example:
  privity audit proof --out proof-of-dan";

const RECOVERY_HELP: &str = "\
A sheet holds a 256-bit key that replaces yours: with it, and nothing else, you are yourself again on a new device. Your other devices are \
shut out then, your contacts are told, and what was said before does not come back. Whoever else holds the sheet can do the same. \
Without one, have somebody who invites people at your firm run `privity invite new --for` your handle.

Examples:
  privity recovery create
  privity recovery restore                             on the new device; asks for relay, handle and code
  privity recovery restore - < sheet.txt";

const LINK_HELP: &str = "On the new device: privity join INVITE. It shows a fingerprint; compare it with the one shown here. Your matters \
come along; what was said in them before comes once you have said yes to that, or later with `privity device history`.";
const HISTORY_HELP: &str = "\
It goes from this device to the other one, encrypted for it alone, and is marked there as received from this one: the signatures on \
each message stay here. What was interrupted goes on with the next command on either device; this command starts it once more where the \
other device has not confirmed something. With --json, one object a line tells how far it has come.";
const REVOKE_HELP: &str = "Matters are cleared of the device one after the other; exit code 7 says that some are left, and the same \
command, or the next that you run, goes on with them.";
const COMPLETIONS_HELP: &str = "\
Example:
  privity completions bash > ~/.local/share/bash-completion/completions/privity";

/// Privity: end-to-end encrypted, post-quantum messages between lawyers and the people they act for.
#[derive(Debug, Parser)]
#[command(
    name = "privity",
    version,
    after_help = "\
Getting started:
  privity                              join with the invite you were given, then chat
  privity join 'privity://…'           only join
  privity matter new 'Smith v Jones'
  privity matter add 'Smith v Jones' ada
  privity send 'Smith v Jones' 'Good morning'
  privity recv --follow

Exit codes: 0 done, 1 wrong use, 2 this machine, 3 network, 4 a key that is not the right one or two \
histories, 5 refused, 6 too fast, 7 not yet or partly, 8 evidence that does not verify."
)]
pub struct Cli {
    /// The profile's folder; one for each firm you deal with
    #[arg(long, global = true, env = "PRIVITY_HOME", value_name = "DIR")]
    pub home: Option<PathBuf>,
    /// Read the passphrase from this file (one trailing newline is dropped)
    #[arg(long, global = true, value_name = "FILE")]
    pub passphrase_file: Option<PathBuf>,
    /// Print one JSON object a line
    #[arg(long, global = true)]
    pub json: bool,
    /// How long to try to reach the relay [default: 20, with status 5]; with recv: end after that many quiet seconds
    #[arg(long, global = true, value_name = "SECONDS", value_parser = seconds)]
    pub timeout: Option<Duration>,
    /// What to do
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What `privity` can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Join a firm with an invite; asks for what is missing
    #[command(after_help = JOIN_HELP)]
    Join {
        /// The invite, or - to read it from standard input
        invite: String,
        /// Your handle: short, of a-z, 0-9, dot and dash
        #[arg(long)]
        handle: Option<String>,
        /// Your name, as others see it; the relay never does
        #[arg(long)]
        name: Option<String>,
        /// Your role, with a firm's first invite only
        #[arg(long, value_enum)]
        role: Option<FirstRole>,
        /// Memory that guessing the passphrase takes, in MiB, 64 to 4096
        #[arg(long, value_name = "MIB", default_value_t = crate::vault::KDF_MEMORY_MIB, value_parser = kdf_memory())]
        kdf_memory: u32,
    },
    /// Invite somebody
    #[command(subcommand, after_help = INVITE_HELP)]
    Invite(InviteCommand),
    /// Whom you can add, and who still waits for what
    People,
    /// See who somebody is, compare, and accept changes
    #[command(subcommand, after_help = IDENTITY_HELP)]
    Identity(IdentityCommand),
    /// Open, change and show matters
    #[command(subcommand, after_help = MATTER_HELP)]
    Matter(MatterCommand),
    /// Send a message to a matter; returns once the relay has it on disk
    #[command(after_help = SEND_HELP)]
    Send {
        /// The matter: its title, id, or the beginning of its id
        matter: String,
        /// What to say, or - to read it from standard input
        text: String,
        /// An id of your own (26 characters of base32): the same one is never sent twice
        #[arg(long)]
        id: Option<String>,
        /// Send although somebody says to have read something else in this matter than you
        #[arg(long)]
        anyway: bool,
    },
    /// Print messages that were not printed before
    #[command(after_help = RECV_HELP)]
    Recv {
        /// Go on until Ctrl-C
        #[arg(long)]
        follow: bool,
        /// Begin after this cursor instead
        #[arg(long, value_name = "CURSOR")]
        after: Option<u64>,
    },
    /// Show a matter's history, also without a network
    #[command(after_help = READ_HELP)]
    Read {
        /// The matter: its title, id, or the beginning of its id
        matter: String,
        /// Only what waits to be sent
        #[arg(long)]
        pending: bool,
    },
    /// Talk in matters, line by line; /help lists what else can be typed there
    #[command(after_help = CHAT_HELP)]
    Chat {
        /// The matter: its title, id, or the beginning of its id
        matter: Option<String>,
    },
    /// Show the relay, this device, and its matters; also without a network
    Status,
    /// Keep this profile open for a while, so that scripts need no passphrase
    Unlock {
        /// For how long: 15m, 8h
        #[arg(long = "for", value_name = "TIME", default_value = "15m", value_parser = lasting)]
        lasts: Duration,
    },
    /// Close an unlocked profile
    Lock,
    /// Change the passphrase of this profile
    #[command(subcommand)]
    Passphrase(PassphraseCommand),
    /// Show what protects this profile and its messages
    #[command(subcommand)]
    Security(SecurityCommand),
    /// Check what the relay has written down
    #[command(subcommand)]
    Audit(AuditCommand),
    /// Link, list, name and revoke devices of yours
    #[command(subcommand)]
    Device(DeviceCommand),
    /// Put on paper what restores you, or your firm's key, when every device is lost
    #[command(subcommand, after_help = RECOVERY_HELP)]
    Recovery(RecoveryCommand),
    /// Print what a shell needs to complete these commands
    #[command(after_help = COMPLETIONS_HELP)]
    Completions {
        /// Which shell
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
}

/// `privity recovery`.
#[derive(Debug, Subcommand)]
pub enum RecoveryCommand {
    /// Make a recovery sheet: shows it, and asks for parts of it once you have written it down
    Create {
        /// Write it to this new file instead, to be printed and deleted
        #[arg(long, value_name = "FILE")]
        sheet: Option<PathBuf>,
    },
    /// Begin again from a sheet, on a new device; asks for what stands on it
    Restore {
        /// A file with the sheet's line, or - for standard input, instead of being asked
        from: Option<PathBuf>,
        /// Memory that guessing the passphrase takes, in MiB, 64 to 4096
        #[arg(long, value_name = "MIB", default_value_t = crate::vault::KDF_MEMORY_MIB, value_parser = kdf_memory())]
        kdf_memory: u32,
    },
    /// Show the sheet of the firm's key once more, where founding it was interrupted
    Organisation {
        /// Write it to this new file instead, to be printed and deleted
        #[arg(long, value_name = "FILE")]
        sheet: Option<PathBuf>,
    },
}

/// `privity invite`.
#[derive(Debug, Subcommand)]
pub enum InviteCommand {
    /// Make an invite: a URL, and a QR code on a terminal; good for one person
    New {
        /// As what they join
        #[arg(long, value_enum, default_value_t = AnyRole::Client)]
        role: AnyRole,
        /// The handle they will have
        #[arg(long)]
        handle: Option<String>,
        /// Somebody who is here already, and has lost every device and their recovery sheet: they keep handle, role and matters, and get a
        /// new key; their old devices are shut out as soon as they have joined. Whoever vouches for them may, and a registrar
        #[arg(long = "for", value_name = "HANDLE", conflicts_with_all = ["role", "handle"])]
        replaces: Option<String>,
        /// Their name
        #[arg(long)]
        name: Option<String>,
        /// For how long it is good: 30m, 72h
        #[arg(long, value_name = "TIME", default_value = "72h", value_parser = invite_lasting)]
        expires: Duration,
    },
    /// List your invites, and what became of each
    Ls,
    /// Cancel an invite that nobody has used
    Cancel {
        /// Its id, or the beginning of it, from `privity invite ls`
        invite: String,
    },
}

/// `privity identity`.
#[derive(Debug, Subcommand)]
pub enum IdentityCommand {
    /// Show who somebody is, who vouches for them, and the safety number with them; without a handle, yourself and the firm
    Show {
        /// Their handle
        handle: Option<String>,
        /// Show the number as a code for a camera, too
        #[arg(long)]
        qr: bool,
    },
    /// Compare the safety number with somebody
    Verify {
        /// Their handle
        handle: String,
        /// The 60 digits that they see, or that a camera has read, instead of being asked
        #[arg(long, value_name = "DIGITS")]
        number: Option<String>,
        /// Show the number as a code for a camera, too
        #[arg(long)]
        qr: bool,
    },
    /// Let in a newcomer whose inviter is away, after comparing digits with them; for registrars, and for clients any attorney
    Adopt {
        /// Their handle, as they have chosen it
        handle: String,
        /// The 60 digits that they read to you, instead of being asked
        #[arg(long, value_name = "DIGITS")]
        number: Option<String>,
        /// Their name, as you know it; asked for at a terminal
        #[arg(long)]
        name: Option<String>,
    },
    /// State somebody's name on your own word: others no longer see it as self-stated
    Confirm {
        /// Their handle
        handle: String,
    },
    /// Withdraw the firm's endorsement of somebody who leaves: they are served no more, and whoever shares a matter with them is asked
    /// before sending
    Revoke {
        /// Their handle
        handle: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
    /// Vouch again for somebody whose endorsement was withdrawn
    Endorse {
        /// Their handle
        handle: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
    /// Replace your own key by a new one, on the device that holds it; your devices stay, your contacts are told
    Rotate {
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
    /// Accept that somebody has another key than before
    Trust {
        /// Their handle
        handle: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}

/// `privity passphrase`.
#[derive(Debug, Subcommand)]
pub enum PassphraseCommand {
    /// Change it: asks for the old one, and twice for the new one
    #[command(after_help = PASSPHRASE_HELP)]
    Change {
        /// Read the new passphrase from this file; the old one is in --passphrase-file
        #[arg(long, value_name = "FILE")]
        new_passphrase_file: Option<PathBuf>,
    },
}

/// `privity security`.
#[derive(Debug, Subcommand)]
pub enum SecurityCommand {
    /// Show keys, versions, algorithms, and what could not be checked; needs no network
    Show,
}

/// `privity audit`.
#[derive(Debug, Subcommand)]
pub enum AuditCommand {
    /// Write down what this device found out about its relay, for others to check; needs no network
    #[command(after_help = PROOF_HELP)]
    Proof {
        /// The folder to make
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
    },
    /// Verify an exported audit log, or a proof
    #[command(after_help = AUDIT_HELP)]
    Verify {
        /// The folder of the export
        #[arg(long, value_name = "DIR", required_unless_present = "proof")]
        bundle: Option<PathBuf>,
        /// The folder of a proof, held against the export if there is one
        #[arg(long, value_name = "DIR")]
        proof: Option<PathBuf>,
        /// A checkpoint that was kept before
        #[arg(long, value_name = "CHECKPOINT")]
        against: Option<PathBuf>,
    },
}

/// `privity device`.
#[derive(Debug, Subcommand)]
pub enum DeviceCommand {
    /// Link one more device: shows an invite, good for ten minutes, and asks once that device has joined with it
    #[command(after_help = LINK_HELP)]
    Link {
        /// Link whoever joins with the invite, without asking
        #[arg(long)]
        yes: bool,
        /// What to call it
        #[arg(long)]
        name: Option<String>,
        /// Send it what was said so far, without asking
        #[arg(long)]
        history: bool,
    },
    /// Send a device of yours what was said before it came, or go on with that
    #[command(after_help = HISTORY_HELP)]
    History {
        /// Its id, or the beginning of it, or what you call it
        device: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
    /// List devices, yours or somebody's
    Ls {
        /// Whose, by their handle
        #[arg(long, value_name = "HANDLE")]
        of: Option<String>,
    },
    /// Call a device of yours something, on all of them; the relay never learns it
    Rename {
        /// Its id, or the beginning of it, or its name
        device: String,
        /// What to call it
        name: String,
    },
    /// Revoke a device that is lost, stolen or not in use any more: it reads nothing later, and is never let in again
    #[command(after_help = REVOKE_HELP)]
    Revoke {
        /// Its id, or the beginning of it, or what you call it
        device: String,
        /// Whose it is, by their handle; for registrars
        #[arg(long, value_name = "HANDLE")]
        of: Option<String>,
        /// Also the one that holds a person key: whoever has it could link devices in that person's name
        #[arg(long)]
        stolen: bool,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}

/// `privity matter`.
#[derive(Debug, Subcommand)]
pub enum MatterCommand {
    /// Open a matter
    New {
        /// What to call it
        title: String,
    },
    /// Add people to a matter
    Add {
        /// The matter: its title, id, or the beginning of its id
        matter: String,
        /// Their handles
        #[arg(required = true)]
        handles: Vec<String>,
    },
    /// Remove somebody from a matter
    #[command(after_help = REMOVE_HELP)]
    Remove {
        /// The matter: its title, id, or the beginning of its id
        matter: String,
        /// Their handle
        handle: String,
    },
    /// Continue a matter that is out of step and that nobody can repair
    #[command(after_help = CONTINUE_HELP)]
    Continue {
        /// The matter: its title, id, or the beginning of its id
        matter: String,
    },
    /// List your matters
    Ls,
    /// Show one matter and who is in it
    Show {
        /// The matter: its title, id, or the beginning of its id
        matter: String,
    },
}

/// A role that the first person of a firm may have.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum FirstRole {
    /// A lawyer of the firm
    Attorney,
    /// Works for the firm's lawyers
    Staff,
}

/// A role that somebody may be invited as.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum AnyRole {
    /// Somebody the firm acts for
    Client,
    /// A lawyer of the firm
    Attorney,
    /// Works for the firm's lawyers
    Staff,
}

impl From<FirstRole> for Role {
    fn from(role: FirstRole) -> Self {
        match role {
            FirstRole::Attorney => Self::Attorney,
            FirstRole::Staff => Self::Staff,
        }
    }
}

impl From<AnyRole> for Role {
    fn from(role: AnyRole) -> Self {
        match role {
            AnyRole::Client => Self::Client,
            AnyRole::Attorney => Self::Attorney,
            AnyRole::Staff => Self::Staff,
        }
    }
}

fn kdf_memory() -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(i64::from(KDF_MEMORY_MIB_MIN)..=i64::from(KDF_MEMORY_MIB_MAX))
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "a number of seconds, such as 20".to_owned())?;
    Duration::try_from_secs_f64(seconds).map_err(|_| "a number of seconds, such as 20".to_owned())
}

fn span(text: &str) -> Result<Duration, String> {
    let span: jiff::SignedDuration = text.parse().map_err(|_| "a time such as 15m or 8h".to_owned())?;
    Duration::try_from(span).map_err(|_| "a time such as 15m or 8h".to_owned())
}

fn invite_lasting(text: &str) -> Result<Duration, String> {
    let lasts = span(text)?;
    let bounds =
        Duration::from_millis(limits::INVITE_LIFETIME_MIN_MS)..=Duration::from_millis(limits::INVITE_LIFETIME_MS);
    if bounds.contains(&lasts) { Ok(lasts) } else { Err("between 1m and 72h".to_owned()) }
}

fn lasting(text: &str) -> Result<Duration, String> {
    let lasts = span(text)?;
    let day = Duration::from_secs(24 * 3600);
    if lasts < Duration::from_secs(1) || lasts > day { Err("between 1s and 24h".to_owned()) } else { Ok(lasts) }
}
