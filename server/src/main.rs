//! `privity-relay`: makes a relay's folder, and runs it.
//!
//! Exit codes: 0 ok, 1 wrong use or configuration, 2 the machine (port taken, disk), as `privity` has them.

use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use clap::{Parser, Subcommand};
use privity_protocol::invite::{Invite, InviteSecret};
use privity_protocol::suite::SecretKey;
use privity_server::config::{Config, ConfigError};
use privity_server::quic::{Readers, Shared, serve};
use privity_server::relay::first_invite;
use privity_server::store::sqlite::Sqlite;
use privity_server::store::{Read, Store};
use privity_server::{clock, config};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing::info;

/// Privity's relay: carries end-to-end encrypted messages for a law firm. It never sees what they say.
#[derive(Debug, Parser)]
#[command(name = "privity-relay", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a relay in an empty folder and print the first invite
    #[command(
        after_help = "Example:\n  privity-relay init --data /srv/privity --listen 0.0.0.0:4433 --public relay.example.com:4433 --org 'Smith & Partners'"
    )]
    Init {
        /// The relay's folder
        #[arg(long, value_name = "DIR")]
        data: PathBuf,
        /// The UDP address to listen on
        #[arg(long, value_name = "ADDR:PORT")]
        listen: SocketAddr,
        /// The address that invites carry, if devices reach another one than --listen
        #[arg(long, value_name = "HOST:PORT")]
        public: Option<String>,
        /// The firm's name
        #[arg(long, value_name = "NAME")]
        org: String,
        /// Print {invite, expires} as JSON
        #[arg(long)]
        json: bool,
    },
    /// Print a new first invite, as long as nobody has used one
    Invite {
        /// The relay's folder
        #[arg(long, value_name = "DIR")]
        data: PathBuf,
        /// Print {invite, expires} as JSON
        #[arg(long)]
        json: bool,
    },
    /// Run the relay until SIGTERM or Ctrl-C
    Run {
        /// The relay's folder
        #[arg(long, value_name = "DIR")]
        data: PathBuf,
    },
    /// Check configuration, port, disk and clock, and say what to open in a firewall
    Check {
        /// The relay's folder
        #[arg(long, value_name = "DIR")]
        data: PathBuf,
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
        Command::Init { data, listen, public, org, json } => init(&data, listen, public.as_deref(), org, json),
        Command::Invite { data, json } => invite(&data, json),
        Command::Run { data } => run(&data),
        Command::Check { data } => check(&data),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("privity-relay: {error:#}");
            let wrong_use =
                error.downcast_ref::<ConfigError>().is_some_and(|error| !matches!(error, ConfigError::Io { .. }));
            ExitCode::from(if wrong_use || error.is::<WrongUse>() { 1 } else { 2 })
        }
    }
}

/// Something the operator asked for that makes no sense now.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct WrongUse(String);

fn init(data: &Path, listen: SocketAddr, public: Option<&str>, org: String, json: bool) -> anyhow::Result<()> {
    if org.trim().is_empty() || org.len() > 128 {
        return Err(WrongUse("--org needs a name of at most 128 bytes".to_owned()).into());
    }
    if listen.port() == 0 {
        return Err(WrongUse("--listen needs a port; 4433 is a good one".to_owned()).into());
    }
    let public = Config::public_address(listen, public)?;
    let config = Config { org, listen, public, connections_max: 20_000, log: "info".to_owned() };
    let key = SecretKey::generate();
    config.create(data, &key)?;
    let mut store = Sqlite::create(data).context("the database could not be made")?;
    print_invite(&mut store, &config, &key, json)?;
    if !json {
        eprintln!("Start the relay with: privity-relay run --data {}", data.display());
    }
    Ok(())
}

fn invite(data: &Path, json: bool) -> anyhow::Result<()> {
    let (config, key) = Config::load(data)?;
    let mut store = Sqlite::open(data).context("the database could not be opened")?;
    if store.organisation()?.is_some() {
        let reason = "the organisation has its key already; a registrar invites others with `privity invite new`";
        return Err(WrongUse(reason.to_owned()).into());
    }
    print_invite(&mut store, &config, &key, json)
}

fn print_invite(store: &mut Sqlite, config: &Config, key: &SecretKey, json: bool) -> anyhow::Result<()> {
    let secret = InviteSecret::random();
    let now = clock::now();
    let write = first_invite(secret.token_hash(), secret.id(), now);
    store.begin()?;
    store.apply(&[write])?;
    store.commit()?;
    let address = config.public.clone();
    let relay = key.public()?.fingerprint();
    let url = Invite { address, relay, organisation: None, secret }.url();
    let expires = now.plus_ms(privity_protocol::limits::INVITE_LIFETIME_MS);
    if json {
        println!("{}", serde_json::json!({ "invite": url, "expires": expires.0 }));
    } else {
        println!("{url}");
        eprintln!(
            "The first invite, good for 72 hours and one person: whoever joins with it becomes the firm's registrar."
        );
    }
    Ok(())
}

fn run(data: &Path) -> anyhow::Result<()> {
    let (config, key) = Config::load(data)?;
    let filter = tracing_subscriber::EnvFilter::try_new(&config.log)
        .map_err(|error| ConfigError::Wrong { path: data.join(config::FILE), reason: format!("log: {error}") })?;
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_env_filter(filter).with_ansi(false).init();
    let store = Sqlite::open(data).context("the database could not be opened")?;
    let folder = data.to_owned();
    let readers = Readers::new(move || Ok(Sqlite::open(&folder)?.reader()?));
    let (shared, writer) = Shared::start(key, config.org.clone(), config.connections_max, Box::new(store), readers)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async move {
        let (stopping, stop) = watch::channel(false);
        let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let mut serving = tokio::spawn(serve(config.listen, Arc::new(shared), stop, |address| {
            info!(%address, "listening");
        }));
        let mut watching = tokio::task::spawn_blocking(move || writer.join());
        let failed = tokio::select! {
            served = &mut serving => return served?.with_context(|| listen_hint(config.listen)),
            ended = &mut watching => Some(ended),
            _ = term.recv() => None,
            _ = int.recv() => None,
        };
        stopping.send_replace(true);
        serving.await??;
        let ended = match failed {
            Some(ended) => ended,
            None => watching.await,
        };
        ended?.map_err(|_| anyhow::anyhow!("the writer failed"))?.context("the database failed")?;
        info!("stopped");
        Ok(())
    })
}

fn listen_hint(listen: SocketAddr) -> String {
    format!("can't listen on UDP {listen}: is another relay running? Stop it, or change `listen` in relay.toml")
}

fn check(data: &Path) -> anyhow::Result<()> {
    let (config, key) = Config::load(data)?;
    println!("configuration  ok: {} for {}", data.join(config::FILE).display(), config.org);
    println!("relay key      {}", key.public()?.fingerprint());
    let store = Sqlite::open(data).context("the database could not be opened")?;
    let organisation =
        if store.organisation()?.is_some() { "founded" } else { "waits for the first invite to be used" };
    println!("database       ok; organisation: {organisation}");
    let probe = data.join("check.tmp");
    std::fs::write(&probe, b"privity")
        .and_then(|()| std::fs::File::open(&probe)?.sync_all())
        .with_context(|| format!("can't write to {}", data.display()))?;
    std::fs::remove_file(&probe)?;
    println!("disk           ok: written and synced");
    match UdpSocket::bind(config.listen) {
        Ok(_) => println!("port           ok: UDP {} is free", config.listen),
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
            println!("port           UDP {} is in use: fine if that is this relay, running", config.listen);
        }
        Err(error) => return Err(error).with_context(|| listen_hint(config.listen)),
    }
    println!("clock          {} ms since 1970 UTC; compare with a clock you trust", clock::now().0);
    println!("firewall       open UDP port {} for incoming packets; TCP is not used", config.listen.port());
    println!("invites carry  {}", config.public);
    Ok(())
}
