//! The stage for end-to-end tests and the demo: the real binaries, in folders of their own, on loopback.
//!
//! 1. [`binaries`] builds `privity`, `privity-relay` and the example bot once, in the profile that this crate was built in.
//! 2. A [`Relay`] is a process with a folder; it can be killed and started again.
//! 3. A [`Person`] is a profile's folder; each of their commands is a process.
//! 4. [`Typed`] is a command in a terminal.
//! 5. [`evil::Evil`] is a relay that lies, for the real `privity` to find out.
//!
//! Invariant: everything started here ends with the value that started it.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, mpsc};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use serde_json::Value;

pub mod evil;

/// Argon2id memory for tests and the demo, in MiB: the least there is, since every command opens a vault.
pub const KDF_MEMORY: &str = "64";
/// The passphrase of every profile made here.
const PASSPHRASE: &str = "correct horse battery staple\n";
/// How long a relay may take to listen.
const START: Duration = Duration::from_secs(20);
/// How long a screen may take to show something.
const TYPED: Duration = Duration::from_secs(60);

/// The folder with the two binaries, and with the example bot in `examples`: freshly built, or those in the folder that `PRIVITY_BINARIES` names.
///
/// # Errors
/// If cargo can't build them.
pub fn binaries() -> anyhow::Result<&'static Path> {
    static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let built = BUILT.get_or_init(|| build().map_err(|error| format!("{error:#}")));
    match built {
        Ok(folder) => Ok(folder),
        Err(error) => bail!("{error}"),
    }
}

fn build() -> anyhow::Result<PathBuf> {
    if let Some(installed) = std::env::var_os("PRIVITY_BINARIES") {
        return Ok(installed.into());
    }
    let exe = std::env::current_exe()?;
    let folder = exe.parent().context("no folder")?;
    let folder = if folder.ends_with("deps") { folder.parent().context("no folder")? } else { folder };
    let target = folder.parent().context("no target folder")?;
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args([
        "build",
        "--quiet",
        "--package",
        "privity-client",
        "--package",
        "privity-server",
        "--bins",
        "--examples",
    ]);
    cargo.arg("--target-dir").arg(target).current_dir(env!("CARGO_MANIFEST_DIR"));
    if folder.ends_with("release") {
        cargo.arg("--release");
    }
    ensure!(cargo.status().context("cargo does not start")?.success(), "the binaries do not build");
    Ok(folder.to_owned())
}

/// A relay's process and folder.
#[derive(Debug)]
pub struct Relay {
    folder: PathBuf,
    /// The first invite.
    pub invite: String,
    /// Where it listens.
    pub address: String,
    child: Option<Child>,
    log: PathBuf,
}

impl Relay {
    /// Makes a relay's folder inside `parent`, and starts it.
    ///
    /// # Errors
    /// If it does not initialise or listen.
    pub fn start(parent: &Path) -> anyhow::Result<Self> {
        let folder = parent.join("relay");
        let probe = UdpSocket::bind("127.0.0.1:0")?;
        let address = probe.local_addr()?.to_string();
        drop(probe);
        let made = Command::new(binaries()?.join("privity-relay"))
            .args(["init", "--listen", &address, "--org", "Byron & Partners", "--json", "--data"])
            .arg(&folder)
            .output()?;
        ensure!(made.status.success(), "init: {}", String::from_utf8_lossy(&made.stderr));
        let told: Value = serde_json::from_slice(&made.stdout)?;
        let invite = told["invite"].as_str().context("no invite")?.to_owned();
        let mut relay = Self { folder, invite, address, child: None, log: parent.join("relay.log") };
        relay.run()?;
        Ok(relay)
    }

    /// Starts it again, on the same folder and address.
    ///
    /// # Errors
    /// If it does not listen in time.
    pub fn run(&mut self) -> anyhow::Result<()> {
        let mut child = Command::new(binaries()?.join("privity-relay"))
            .args(["run", "--data"])
            .arg(&self.folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        let stderr = child.stderr.take().context("no stderr")?;
        let mut log = fs::OpenOptions::new().create(true).append(true).open(&self.log)?;
        let (listening, heard) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if line.contains("listening") {
                    let _waiting = listening.send(());
                }
                let _written = writeln!(log, "{line}");
            }
        });
        self.child = Some(child);
        heard.recv_timeout(START).with_context(|| format!("the relay does not listen; see {}", self.log.display()))
    }

    /// Ends it as a power cut would end a process.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _dead = child.kill();
            let _reaped = child.wait();
        }
    }

    /// Ends it as an operator would, and returns its exit code.
    ///
    /// # Errors
    /// If it is not running.
    pub fn stop(&mut self) -> anyhow::Result<Option<i32>> {
        let mut child = self.child.take().context("not running")?;
        let killed = Command::new("kill").args(["-TERM", &child.id().to_string()]).status()?;
        ensure!(killed.success(), "kill");
        Ok(child.wait()?.code())
    }

    /// Its folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// What it has logged.
    pub fn log(&self) -> &Path {
        &self.log
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A profile's folder.
#[derive(Debug, Clone)]
pub struct Person {
    /// The handle.
    pub handle: String,
    /// The profile's folder.
    pub home: PathBuf,
    /// The file with its passphrase.
    pub passphrase: PathBuf,
}

/// What a command did.
#[derive(Debug)]
pub struct Ran {
    /// The exit code; none if it was killed.
    pub code: Option<i32>,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl Ran {
    /// The objects of JSON on standard output.
    ///
    /// # Errors
    /// If a line is none.
    pub fn objects(&self) -> anyhow::Result<Vec<Value>> {
        self.stdout.lines().map(|line| serde_json::from_str(line).with_context(|| line.to_owned())).collect()
    }
}

impl Person {
    /// A profile's folder inside `parent`, that nobody has joined in.
    ///
    /// # Errors
    /// If the passphrase file can't be written.
    pub fn new(parent: &Path, handle: &str) -> anyhow::Result<Self> {
        let passphrase = parent.join(format!("{handle}.passphrase"));
        fs::write(&passphrase, PASSPHRASE)?;
        Ok(Self { handle: handle.to_owned(), home: parent.join(handle), passphrase })
    }

    /// A command of this person's, ready to be run.
    ///
    /// # Errors
    /// If the binaries do not build.
    pub fn command(&self, arguments: &[&str]) -> anyhow::Result<Command> {
        let mut command = Command::new(binaries()?.join("privity"));
        command.arg("--home").arg(&self.home).arg("--passphrase-file").arg(&self.passphrase);
        command.args(arguments).stdin(Stdio::null());
        Ok(command)
    }

    /// Runs a command, whatever comes of it.
    ///
    /// # Errors
    /// If it does not start.
    pub fn run(&self, arguments: &[&str]) -> anyhow::Result<Ran> {
        Ok(self.command(arguments)?.output()?.into())
    }

    /// Runs a command that must succeed, with `--json`, and returns what it prints.
    ///
    /// # Errors
    /// If it fails.
    pub fn ok(&self, arguments: &[&str]) -> anyhow::Result<Vec<Value>> {
        let ran = self.run(&[&["--json"], arguments].concat())?;
        ensure!(ran.code == Some(0), "{} {arguments:?}: {:?} {}", self.handle, ran.code, ran.stderr);
        ran.objects()
    }

    /// Joins with an invite.
    ///
    /// # Errors
    /// If the relay refuses.
    pub fn join(&self, invite: &str, name: &str) -> anyhow::Result<Value> {
        let arguments = ["join", invite, "--handle", &self.handle, "--name", name, "--kdf-memory", KDF_MEMORY];
        let told = self.ok(&arguments)?;
        told.into_iter().next().context("join said nothing")
    }

    /// Invites somebody, who joins; returns them once they are endorsed.
    ///
    /// # Errors
    /// If any of it fails.
    pub fn bring(&self, parent: &Path, handle: &str, name: &str, role: &str) -> anyhow::Result<Self> {
        let told = self.ok(&["invite", "new", "--role", role])?;
        let url = told.first().and_then(|told| told["url"].as_str()).context("no url")?.to_owned();
        let newcomer = Self::new(parent, handle)?;
        newcomer.join(&url, name)?;
        self.ok(&["people"])?;
        Ok(newcomer)
    }

    /// The texts of a matter, in its order, as (from, text).
    ///
    /// # Errors
    /// If it can't be read.
    pub fn texts(&self, matter: &str) -> anyhow::Result<Vec<(String, String)>> {
        let records = self.ok(&["read", matter])?;
        let texts = records.iter().filter(|record| record["type"] == "text").map(|record| {
            let from = record["from"]["handle"].as_str().unwrap_or_default().to_owned();
            (from, record["body"]["text"].as_str().unwrap_or_default().to_owned())
        });
        Ok(texts.collect())
    }
}

/// A command of somebody's in a terminal, typed into and read like a person would: through util-linux's `script`.
#[derive(Debug)]
pub struct Typed {
    child: Child,
    keys: Option<std::process::ChildStdin>,
    screen: Arc<Mutex<String>>,
}

impl Typed {
    /// Starts `privity` in a terminal; none where there is no `script`.
    ///
    /// # Errors
    /// If the binaries do not build.
    pub fn start(arguments: &[&str]) -> anyhow::Result<Option<Self>> {
        Self::start_at(200, arguments)
    }

    /// As [`Self::start`], in a terminal of that many columns.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_at(columns: u16, arguments: &[&str]) -> anyhow::Result<Option<Self>> {
        let privity = binaries()?.join("privity");
        let words = arguments.iter().map(|word| format!(" '{word}'")).collect::<String>();
        let line = format!("stty rows 50 cols {columns}; exec '{}'{words}", privity.display());
        let mut command = Command::new("script");
        command.args(["-qec", &line, "/dev/null"]).env("TERM", "xterm").env("NO_COLOR", "1");
        let started = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
        let Ok(mut child) = started else {
            eprintln!("left out: there is no `script` here");
            return Ok(None);
        };
        let keys = child.stdin.take();
        let mut output = child.stdout.take().context("no output")?;
        let screen = Arc::new(Mutex::new(String::new()));
        let written = Arc::clone(&screen);
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = output.read(&mut bytes) {
                let text = String::from_utf8_lossy(bytes.get(..count).unwrap_or_default()).into_owned();
                written.lock().unwrap_or_else(PoisonError::into_inner).push_str(&text);
            }
        });
        Ok(Some(Self { child, keys, screen }))
    }

    /// Everything that was on the screen so far.
    pub fn screen(&self) -> String {
        self.screen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until the screen has shown `text` behind the first `from` bytes; returns where that ends.
    ///
    /// # Errors
    /// If it does not in time.
    pub fn shows(&self, text: &str, from: usize) -> anyhow::Result<usize> {
        let until = Instant::now() + TYPED;
        loop {
            let screen = self.screen();
            if let Some(found) = screen.get(from..).and_then(|new| new.find(text)) {
                return Ok(from + found + text.len());
            }
            ensure!(Instant::now() < until, "{text:?} was not shown: {screen}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Types something, once `prompt` stands on the screen behind the first `from` bytes.
    ///
    /// # Errors
    /// If it is not shown in time.
    pub fn at(&mut self, prompt: &str, from: usize, keys: &str) -> anyhow::Result<usize> {
        let shown = self.shows(prompt, from)?;
        self.keys.as_mut().context("ended")?.write_all(keys.as_bytes())?;
        Ok(shown)
    }

    /// Waits for its end: the exit code, and everything that was shown.
    ///
    /// # Errors
    /// If it does not end in time.
    pub fn end(mut self) -> anyhow::Result<(Option<i32>, String)> {
        let until = Instant::now() + TYPED;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok((status.code(), self.screen()));
            }
            ensure!(Instant::now() < until, "it goes on: {}", self.screen());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Typed {
    fn drop(&mut self) {
        self.keys = None;
        let _dead = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// A firm with a running relay and an attorney who is its registrar.
#[derive(Debug)]
pub struct Firm<R = Relay> {
    /// Its relay.
    pub relay: R,
    /// Its first attorney.
    pub attorney: Person,
    folder: tempfile::TempDir,
}

impl Firm<Relay> {
    /// A new firm in a folder of its own.
    ///
    /// # Errors
    /// If any of it fails.
    pub fn found() -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let relay = Relay::start(folder.path())?;
        let attorney = Person::new(folder.path(), "ada")?;
        attorney.join(&relay.invite, "Ada Byron")?;
        Ok(Self { relay, attorney, folder })
    }
}

impl<R> Firm<R> {
    /// The folder that everything is in.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Somebody joins, invited by the first attorney.
    ///
    /// # Errors
    /// If any of it fails.
    pub fn bring(&self, handle: &str, name: &str, role: &str) -> anyhow::Result<Person> {
        self.attorney.bring(self.folder.path(), handle, name, role)
    }

    /// A matter of the first attorney's with these people in it.
    ///
    /// # Errors
    /// If any of it fails.
    pub fn matter(&self, title: &str, people: &[&Person]) -> anyhow::Result<()> {
        self.attorney.ok(&["matter", "new", title])?;
        if !people.is_empty() {
            let handles = people.iter().map(|person| person.handle.as_str());
            let arguments: Vec<&str> = ["matter", "add", title].into_iter().chain(handles).collect();
            self.attorney.ok(&arguments)?;
        }
        Ok(())
    }
}
