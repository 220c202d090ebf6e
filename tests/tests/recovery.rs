//! Everything lost, on the real binaries: a sheet restores its person, whoever has none is enrolled anew, and a key is rotated.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::Stdio;

use anyhow::Context as _;
use privity_tests::{Firm, KDF_MEMORY, Person, Ran};

/// Makes a sheet and reads its line.
fn sheet(of: &Person, to: &Path) -> anyhow::Result<String> {
    of.ok(&["recovery", "create", "--sheet", to.to_str().context("path")?])?;
    let text = fs::read_to_string(to)?;
    text.lines().find(|line| line.starts_with("privity-recovery://")).map(str::to_owned).context("no line in the sheet")
}

/// Restores from what is on standard input.
fn restore(person: &Person, typed: &str) -> anyhow::Result<Ran> {
    let arguments = ["--json", "recovery", "restore", "-", "--kdf-memory", KDF_MEMORY];
    let mut command = person.command(&arguments)?;
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    child.stdin.take().context("stdin")?.write_all(typed.as_bytes())?;
    Ok(child.wait_with_output()?.into())
}

/// A folder of its own inside the firm's, for another profile under the same handle.
fn elsewhere(firm: &Firm, name: &str, handle: &str) -> anyhow::Result<Person> {
    let folder = firm.folder().join(name);
    fs::create_dir(&folder)?;
    Person::new(&folder, handle)
}

fn words(of: &Person, matter: &str) -> anyhow::Result<Vec<String>> {
    Ok(of.texts(matter)?.into_iter().map(|(_, text)| text).collect())
}

/// An attorney alone with a client loses the only device. The client's device lets them back in.
#[test]
fn an_attorney_begins_again_from_a_sheet_and_their_client_lets_them_back_in() -> anyhow::Result<()> {
    let firm = Firm::found()?;
    let bob = firm.bring("bob", "Bob Jones", "client")?;
    firm.matter("Jones", &[&bob])?;
    firm.attorney.ok(&["send", "Jones", "before"])?;
    bob.ok(&["recv"])?;
    let line = sheet(&firm.attorney, &firm.folder().join("sheet"))?;

    let ada = elsewhere(&firm, "new", "ada")?;
    let restored = restore(&ada, &line)?;
    assert_eq!(restored.code, Some(0), "{}", restored.stderr);
    assert_eq!(restored.objects()?[0]["state"], "restored");
    // The lost device is shut out, with everything that it has.
    let refused = firm.attorney.run(&["send", "Jones", "from the thief"])?;
    assert_eq!(refused.code, Some(5), "{}", refused.stderr);
    // The client's next command lets her in, and tells of the new key.
    let told = bob.run(&["recv"])?;
    assert_eq!(told.code, Some(0), "{}", told.stderr);
    assert!(told.stderr.contains("ada has another key than before"), "{}", told.stderr);
    ada.ok(&["recv"])?;
    ada.ok(&["send", "Jones", "I am back"])?;
    bob.ok(&["send", "Jones", "welcome back"])?;
    ada.ok(&["recv"])?;
    bob.ok(&["recv"])?;
    assert_eq!(words(&ada, "Jones")?, ["I am back", "welcome back"]);
    assert_eq!(words(&bob, "Jones")?, ["before", "I am back", "welcome back"]);
    let told = bob.run(&["identity", "trust", "ada", "--yes"])?;
    assert!(told.stderr.contains("recovery sheet"), "{}", told.stderr);
    // The sheet is used up.
    let refused = restore(&elsewhere(&firm, "again", "ada")?, &line)?;
    assert_eq!(refused.code, Some(5), "{}", refused.stderr);
    // And whoever comes in later finds everybody vouched for.
    let dan = ada.bring(&firm.folder().join("new"), "dan", "Dan Roe", "client")?;
    ada.ok(&["matter", "add", "Jones", "dan"])?;
    dan.ok(&["recv"])?;
    dan.ok(&["send", "Jones", "good morning"])?;
    bob.ok(&["recv"])?;
    assert_eq!(words(&bob, "Jones")?.last().map(String::as_str), Some("good morning"));
    Ok(())
}

/// No sheet: whoever may invite them enrols them anew. Nothing changes before that device has checked the newcomer's proof.
#[test]
fn a_client_without_a_sheet_is_enrolled_anew_under_their_handle() -> anyhow::Result<()> {
    let firm = Firm::found()?;
    let bob = firm.bring("bob", "Bob Jones", "client")?;
    firm.matter("Jones", &[&bob])?;
    bob.ok(&["recv"])?;
    // A colleague who never vouched for him does not, and is told who may.
    let cyn = firm.bring("cyn", "Cyn Ward", "staff")?;
    let refused = cyn.run(&["invite", "new", "--for", "bob"])?;
    assert_eq!(refused.code, Some(5), "{}", refused.stderr);
    assert!(refused.stderr.contains("who vouches for bob, or a registrar may enrol bob anew"), "{}", refused.stderr);
    let invite = firm.attorney.ok(&["invite", "new", "--for", "bob"])?;
    let url = invite[0]["url"].as_str().context("url")?.to_owned();
    let anew = elsewhere(&firm, "new", "bob")?;
    let joined = anew.ok(&["join", &url, "--name", "Bob Jones", "--kdf-memory", KDF_MEMORY])?;
    assert_eq!(joined[0]["state"], "waiting");
    bob.ok(&["send", "Jones", "still my old telephone"])?;
    firm.attorney.ok(&["recv", "--timeout", "2"])?;
    let refused = bob.run(&["send", "Jones", "from the lost one"])?;
    assert_eq!(refused.code, Some(5), "{}", refused.stderr);
    assert!(
        refused.stderr.contains("was revoked") && refused.stderr.contains("invite new --for"),
        "{}",
        refused.stderr
    );
    let shut_out = bob.run(&["status"])?;
    assert_eq!(shut_out.code, Some(5), "{}", shut_out.stderr);
    assert!(shut_out.stdout.contains("client, shut out"), "{}", shut_out.stdout);
    // Whoever begins again is not warned of what they did themselves.
    for _ in 0..2 {
        let told = anew.run(&["recv"])?;
        assert!(told.code == Some(0) && !told.stderr.contains("WARNING"), "{}", told.stderr);
        firm.attorney.ok(&["recv", "--timeout", "2"])?;
    }
    anew.ok(&["recv"])?;
    anew.ok(&["send", "Jones", "new telephone"])?;
    firm.attorney.ok(&["recv"])?;
    anew.ok(&["recv"])?;
    assert_eq!(words(&firm.attorney, "Jones")?, ["still my old telephone", "new telephone"]);
    assert_eq!(words(&anew, "Jones")?, ["new telephone"]);
    // A client enrols nobody anew.
    let refused = anew.run(&["invite", "new", "--for", "ada"])?;
    assert_eq!(refused.code, Some(5), "{}", refused.stderr);
    Ok(())
}

#[test]
fn a_rotated_key_changes_nothing_in_matters_and_the_sheet_stays_good() -> anyhow::Result<()> {
    let firm = Firm::found()?;
    let bob = firm.bring("bob", "Bob Jones", "client")?;
    firm.matter("Jones", &[&bob])?;
    bob.ok(&["recv"])?;
    let line = sheet(&bob, &firm.folder().join("sheet"))?;
    let number = |of: &Person| -> anyhow::Result<String> {
        Ok(of.ok(&["identity", "show", "ada"])?[0]["safety_number"].to_string())
    };
    let before = number(&bob)?;
    bob.ok(&["identity", "rotate", "--yes"])?;
    assert_ne!(number(&bob)?, before);
    bob.ok(&["send", "Jones", "under a new key"])?;
    firm.attorney.ok(&["recv"])?;
    assert_eq!(words(&firm.attorney, "Jones")?, ["under a new key"]);
    let anew = elsewhere(&firm, "new", "bob")?;
    let restored = restore(&anew, &line)?;
    assert_eq!(restored.code, Some(0), "{}", restored.stderr);
    firm.attorney.ok(&["recv", "--timeout", "2"])?;
    anew.ok(&["recv"])?;
    anew.ok(&["send", "Jones", "and a new device"])?;
    firm.attorney.ok(&["recv"])?;
    assert_eq!(words(&firm.attorney, "Jones")?, ["under a new key", "and a new device"]);
    Ok(())
}

/// The firm's key has a sheet of its own, which is shown until somebody has put it on paper.
#[test]
fn the_founder_gets_the_firms_key_back_from_its_sheet() -> anyhow::Result<()> {
    let firm = Firm::found()?;
    let firms = firm.folder().join("firm");
    let path = firms.to_str().context("path")?;
    // A founding that was cut off is told where anybody looks.
    assert_eq!(firm.attorney.ok(&["status"])?[0]["organisation_sheet_due"], true);
    let told = firm.attorney.run(&["status"])?.stdout;
    assert!(told.contains("ON NO PAPER YET") && told.contains("privity recovery organisation"), "{told}");
    firm.attorney.ok(&["recovery", "organisation", "--sheet", path])?;
    assert_eq!(firm.attorney.ok(&["status"])?[0]["organisation_sheet_due"], false);
    let again = firm.attorney.run(&["recovery", "organisation", "--sheet", path])?;
    assert_eq!(again.code, Some(1), "{}", again.stderr);
    let line = sheet(&firm.attorney, &firm.folder().join("sheet"))?;
    let ada = elsewhere(&firm, "new", "ada")?;
    assert_eq!(restore(&ada, &line)?.code, Some(0));
    assert_eq!(restore(&ada, &line)?.code, Some(1), "a person's sheet into a profile");
    let told = restore(&ada, &fs::read_to_string(&firms)?)?;
    assert_eq!(told.code, Some(0), "{}", told.stderr);
    assert_eq!(told.objects()?[0]["organisation"], true);
    // Nothing of a sheet is left where it was not asked for.
    let refused = ada.run(&["recovery", "create"])?;
    assert_eq!(refused.code, Some(1), "{}", refused.stderr);
    Ok(())
}

/// Restored, rotated, confirmed, withdrawn and taken back; then the founder who did that begins again herself, and nothing of it makes her
/// take the relay for a liar.
#[test]
fn a_colleague_who_began_again_and_rotated_is_confirmed_and_taken_back() -> anyhow::Result<()> {
    let firm = Firm::found()?;
    let ada = &firm.attorney;
    let dan = firm.bring("dan", "Dan Roe", "attorney")?;
    firm.matter("Jones", &[&dan])?;
    dan.ok(&["recv"])?;
    let (dans, adas) = (sheet(&dan, &firm.folder().join("dan.sheet"))?, sheet(ada, &firm.folder().join("ada.sheet"))?);
    let anew = elsewhere(&firm, "new", "dan")?;
    assert_eq!(restore(&anew, &dans)?.code, Some(0));
    ada.ok(&["recv", "--timeout", "2"])?;
    anew.ok(&["identity", "rotate", "--yes"])?;
    ada.ok(&["recv"])?;
    // Under a key that nobody has accepted, nothing is stated; what is shown is the new one.
    let refused = ada.run(&["identity", "confirm", "dan"])?;
    assert!(refused.code == Some(4) && !refused.stderr.contains("verified"), "{}", refused.stderr);
    let shown = ada.run(&["identity", "show", "dan"])?.stdout;
    let (new, old) = (shown.find("with the new key"), shown.find("with the key before, never compared"));
    assert!(new.is_some() && new < old && !shown.contains("1970"), "{shown}");
    assert!(!shown.contains("none that is in use"), "{shown}");
    ada.ok(&["identity", "trust", "dan", "--yes"])?;
    ada.ok(&["identity", "confirm", "dan"])?;
    ada.ok(&["identity", "revoke", "dan", "--yes"])?;
    ada.ok(&["identity", "endorse", "dan", "--yes"])?;
    anew.ok(&["send", "Jones", "hello"])?;
    let again = elsewhere(&firm, "again", "ada")?;
    assert_eq!(restore(&again, &adas)?.code, Some(0));
    anew.ok(&["recv", "--timeout", "2"])?;
    for _ in 0..2 {
        let told = again.run(&["recv", "--timeout", "1"])?;
        assert!(told.code == Some(0) && !told.stderr.to_lowercase().contains("warning"), "{}", told.stderr);
    }
    assert_eq!(again.ok(&["security", "show"])?[0]["found"], serde_json::json!([]));
    let people = again.run(&["people"])?;
    assert!(people.stdout.contains("dan                  attorney  Dan Roe"), "{}", people.stdout);
    Ok(())
}
