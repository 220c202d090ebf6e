//! `privity-relay`: makes a relay's folder, checks it, runs it, and shows its log.
//!
//! Exit codes: 0 ok, 1 wrong use or configuration, 2 the machine (port taken, disk full) or a fault of the program.

use std::io::{IsTerminal as _, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use privity_server::backup::{self, BackedUp};
use privity_server::config::{self, Config, ConfigError};
use privity_server::setup::{self, FirstInvite};
use privity_server::{Relay, RelayError, restore};
use tokio::signal::unix::{SignalKind, signal};
use tracing::info;

mod check;
mod inspect;
mod rekey;

/// Privity's relay: carries end-to-end encrypted messages for a law firm, and never sees what they say.
#[derive(Debug, Parser)]
#[command(name = "privity-relay", version, arg_required_else_help = true, after_help = FIRST_STEPS)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const FIRST_STEPS: &str = "\
First steps:
  1. privity-relay init --data /srv/privity --listen 0.0.0.0:4433 --public relay.example.com:4433 --org 'Smith & Partners'
     prints the first invite. Give it to the lawyer who becomes the firm's registrar.
  2. privity-relay check --data /srv/privity
     says what to open in the firewall: one UDP port.
  3. privity-relay run --data /srv/privity
     runs until SIGTERM or Ctrl-C. docs/operations.md has a systemd unit.

Exit codes: 0 ok, 1 wrong use or configuration, 2 the machine (port taken, disk full).";

const AFTER_RESTORE: &str = "\
What happens once it runs:
  - Every device sees that the relay was restored, and tells its user.
  - Devices send again what they had sent and the backup does not have. Nobody sees a message twice.
  - A matter that was opened since, or whose changes of members were lost, is continued by the device of an attorney or staff member in it,
    once it has been online for a minute or two; its people see a note.
  - People and devices that joined after the backup are unknown now: invite them again.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a relay in an empty folder and print the first invite
    #[command(after_help = "\
Examples:
  privity-relay init --data /srv/privity --listen 0.0.0.0:4433 --public relay.example.com:4433 --org 'Smith & Partners'
  privity-relay init --data ./try --listen 127.0.0.1:4433 --org Try --json

The invite is a secret: whoever joins with it becomes the firm's registrar. It is good for 72 hours and one person.")]
    Init {
        /// The relay's folder; made if it is not there
        #[arg(long, value_name = "DIR")]
        data: PathBuf,
        /// The UDP address to listen on
        #[arg(long, value_name = "ADDR:PORT")]
        listen: SocketAddr,
        /// The address that invites carry, if devices reach another one than --listen
        #[arg(long, value_name = "HOST:PORT")]
        public: Option<String>,
        /// The firm's name, as its people see it
        #[arg(long, value_name = "NAME")]
        org: String,
        /// Print {invite, expires} as JSON; expires is in milliseconds since 1970 UTC
        #[arg(long)]
        json: bool,
    },
    /// Print another first invite, as long as nobody has founded the organisation
    Invite {
        /// The relay's folder
        #[arg(long, value_name = "DIR")]
        data: PathBuf,
        /// Print {invite, expires} as JSON; expires is in milliseconds since 1970 UTC
        #[arg(long)]
        json: bool,
    },
    /// Run the relay until SIGTERM or Ctrl-C
    Run {
        /// The relay's folder
        #[arg(long, value_name = "DIR")]
        data: PathBuf,
    },
    /// Put a backup in the database's place, or say that the one in place is a backup
    #[command(after_help = "\
Examples:
  privity-relay restore --data /srv/privity --from /backup/privity-2026-08-01
  privity-relay restore --data /srv/privity --from /backup/relay.db
  privity-relay restore --data /srv/privity

Stop the relay first. What was there before is kept as relay.db.before-restore. A folder without a relay, on a new machine, gets its \
configuration and keys from the backup; one that has them keeps them. Without --from nothing is copied: for a database that was \
put back by other means. Either way devices are told that the relay has gone back in time, and mend what they can.")]
    Restore {
        /// The relay's folder
        #[arg(long, value_name = "DIR")]
        data: PathBuf,
        /// A folder that `privity-relay backup` made, or a copy of relay.db alone
        #[arg(long, value_name = "BACKUP")]
        from: Option<PathBuf>,
        /// Print {from, kept, people} as JSON
        #[arg(long)]
        json: bool,
    },
    /// Copy database, keys and configuration into a folder, beside a relay that runs or not
    #[command(after_help = "\
Examples:
  privity-relay backup --data /srv/privity --out /backup/privity-2026-08-01
  privity-relay backup --data /srv/privity --out /backup/privity-2026-08-01 --json

The copy is of one moment, and was read back when this ends; the audit log says that it was made. It holds the relay's secret key: treat \
it as a secret, and take it off this machine. `privity-relay restore --from` takes it. What is there is never overwritten. With --json: \
{folder, name, people, leaves, bytes}.")]
    Backup {
        /// The relay's folder
        #[arg(long, value_name = "DIR")]
        data: PathBuf,
        /// Where to; made, and must not be there
        #[arg(long, value_name = "FOLDER")]
        out: PathBuf,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Check configuration, database, disk, port and clock, and say what to open in a firewall
    Check {
        /// The relay's folder
        #[arg(long, value_name = "DIR")]
        data: PathBuf,
    },
    /// Look at the audit log, or export it for whoever audits
    #[command(arg_required_else_help = true)]
    Audit {
        #[command(subcommand)]
        audit: inspect::Audit,
    },
    /// Look at the relay's key, or give it another one
    #[command(arg_required_else_help = true)]
    Key {
        #[command(subcommand)]
        key: rekey::Key,
    },
    /// Print a completion script for a shell
    #[command(after_help = "Example:\n  privity-relay completions bash > /etc/bash_completion.d/privity-relay")]
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let wrong = error.use_stderr();
            let _shown = error.print();
            return ExitCode::from(u8::from(wrong));
        }
    };
    let done = match cli.command {
        Command::Init { data, listen, public, org, json } => init(&data, listen, public.as_deref(), &org, json),
        Command::Invite { data, json } => setup::another_first_invite(&data).map(|invite| show(&invite, json)),
        Command::Run { data } => run(&data),
        Command::Restore { data, from, json } => restore(&data, from.as_deref(), json),
        Command::Backup { data, out, json } => backup(&data, &out, json),
        Command::Check { data } => check::check(&data),
        Command::Audit { audit } => inspect::run(&audit),
        Command::Key { key } => rekey::run(&key),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "privity-relay", &mut script);
            // Whoever stops reading, `| head` say, is no failure.
            let _heard = std::io::stdout().write_all(&script);
            Ok(())
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("privity-relay: {error}");
            ExitCode::from(if error.is_wrong_use() { 1 } else { 2 })
        }
    }
}

fn init(data: &Path, listen: SocketAddr, public: Option<&str>, org: &str, json: bool) -> Result<(), RelayError> {
    let invite = setup::init(data, &Config::new(org, listen, public)?)?;
    show(&invite, json);
    if !json {
        eprintln!("Start the relay with: privity-relay run --data {}", data.display());
    }
    Ok(())
}

fn show(invite: &FirstInvite, json: bool) {
    if json {
        println!("{}", serde_json::json!({ "invite": invite.url, "expires": invite.expires.0 }));
    } else {
        println!("{}", invite.url);
        eprintln!("The first invite, good for one person, until {}.", check::utc(invite.expires));
        eprintln!("Whoever joins with it becomes the firm's registrar: hand it over as a secret.");
    }
}

fn restore(data: &Path, from: Option<&Path>, json: bool) -> Result<(), RelayError> {
    let restored = restore::restore(data, from)?;
    if json {
        println!("{}", serde_json::json!({ "from": from, "kept": restored.kept, "people": restored.people }));
        return Ok(());
    }
    let people = restored.people;
    match from {
        Some(from) => println!("Restored from {}, which knows {people} people.", from.display()),
        None => println!("The database in place counts as restored from now on; it knows {people} people."),
    }
    if let Some(kept) = restored.kept {
        println!("What was there before is kept in {}; remove it once nobody needs it.", kept.display());
    }
    println!("{AFTER_RESTORE}\nStart the relay with: privity-relay run --data {}", data.display());
    Ok(())
}

/// From how many pages on a terminal is told how far it is: some 40 MiB.
const WATCHED_PAGES: u64 = 10_000;

fn backup(data: &Path, out: &Path, json: bool) -> Result<(), RelayError> {
    let watched = std::io::stderr().is_terminal();
    let made = backup::backup(data, out, &mut |done, of| {
        if watched && of >= WATCHED_PAGES {
            let end = if done == of { "\n" } else { "" };
            // Whoever looks away misses nothing.
            let _unseen =
                write!(std::io::stderr(), "\r{:>3} % of the database{end}", done.saturating_mul(100) / of.max(1));
        }
    })?;
    let BackedUp { name, people, leaves, bytes } = made;
    let mut stdout = std::io::stdout();
    // Whoever stops reading is no failure.
    let _heard = if json {
        let name = name.to_string();
        writeln!(
            stdout,
            "{}",
            serde_json::json!({ "folder": out, "name": name, "people": people, "leaves": leaves, "bytes": bytes })
        )
    } else {
        writeln!(
            stdout,
            "Backed up into {}: {people} people, {leaves} leaves of the audit log; read back and whole.\nIt holds the relay's secret key. \
             Take it off this machine; `privity-relay restore --from` takes it.",
            out.display()
        )
    };
    Ok(())
}

fn run(data: &Path) -> Result<(), RelayError> {
    let (config, _) = Config::load(data)?;
    let filter = tracing_subscriber::EnvFilter::try_new(&config.log)
        .map_err(|error| ConfigError::Wrong { path: data.join(config::FILE), reason: format!("log: {error}") })?;
    let colour = std::io::stderr().is_terminal();
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_env_filter(filter).with_ansi(colour).init();
    let system = |error: std::io::Error| RelayError::System(error.to_string());
    let waiting = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(system)?;
    waiting.block_on(async {
        // Signals are caught before anything is open, so that none is missed.
        let mut term = signal(SignalKind::terminate()).map_err(system)?;
        let mut int = signal(SignalKind::interrupt()).map_err(system)?;
        let mut relay = Relay::start(data)?;
        info!(address = %relay.address(), version = env!("CARGO_PKG_VERSION"), "listening");
        tokio::select! {
            () = relay.ended() => {}
            _ = term.recv() => info!("SIGTERM"),
            _ = int.recv() => info!("SIGINT"),
        }
        relay.stop()
    })
}
