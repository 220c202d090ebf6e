//! What newcomers stumble over: questions asked again, prompts that are true, names that tell two things apart.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::Write as _;
use std::process::Stdio;

use privity_tests::{Firm, KDF_MEMORY, Person, Ran, Typed};

/// A chat with these lines piped into it.
fn chat(person: &Person, arguments: &[&str], lines: &str) -> Ran {
    let mut command = person.command(arguments).unwrap();
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    child.wait_with_output().unwrap().into()
}

fn invite(firm: &Firm) -> String {
    firm.attorney.ok(&["invite", "new"]).unwrap()[0]["url"].as_str().unwrap().to_owned()
}

#[test]
fn joining_asks_again_for_what_will_not_do_and_for_a_handle_that_is_taken() {
    let firm = Firm::found().unwrap();
    let home = firm.folder().join("bob");
    let (home, url) = (home.to_str().unwrap(), invite(&firm));
    let Some(mut typed) = Typed::start(&["--home", home, "join", &url, "--kdf-memory", KDF_MEMORY]).unwrap() else {
        return;
    };
    let mut at = typed.at("Your handle", 0, "Bob Jones\n").unwrap();
    at = typed.at("that handle won't do", at, "").unwrap();
    at = typed.at("Your handle", at, "ada\n").unwrap();
    at = typed.at("Your name", at, "\n").unwrap();
    at = typed.at("a name, please", at, "Bob Jones\n").unwrap();
    at = typed.at("Choose a passphrase", at, "one thing\n").unwrap();
    at = typed.at("too easy to guess", at, "").unwrap();
    at = typed.at("Choose a passphrase", at, "one thing and another\n").unwrap();
    at = typed.at("once more: ", at, "another thing entirely\n").unwrap();
    at = typed.at("The two differ", at, "").unwrap();
    at = typed.at("Choose a passphrase", at, "one thing and another\n").unwrap();
    at = typed.at("The same once more: ", at, "one thing and another\n").unwrap();
    // Taken: only the handle is asked for again.
    typed.at("Your handle", at, "bob\n").unwrap();
    let (code, screen) = typed.end().unwrap();
    assert_eq!(code, Some(0), "{screen}");
    assert!(screen.contains("You are Bob Jones (bob), client"), "{screen}");
    assert_eq!(screen.matches("Your name").count(), 2, "{screen}");
}

#[test]
fn a_passphrase_is_made_for_whoever_presses_enter_and_opens_the_profile() {
    let firm = Firm::found().unwrap();
    let home = firm.folder().join("bob");
    let (folder, url) = (home.to_str().unwrap(), invite(&firm));
    // Nothing but the invite has to be cut out of what was pasted.
    let pasted = format!("privity join '{url}'");
    let Some(mut typed) = Typed::start(&["--home", folder]).unwrap() else { return };
    let mut at = typed.at("Invite: ", 0, &format!("{pasted}\n")).unwrap();
    at = typed.at("Your handle", at, "bob\n").unwrap();
    at = typed.at("Your name", at, "Bob\n").unwrap();
    at = typed.at("Choose a passphrase", at, "\n").unwrap();
    at = typed.shows("keep it apart from this device:  ", at).unwrap();
    let shown = typed.shows("The same once more: ", at).unwrap();
    let made = typed.screen()[at..shown].split_whitespace().next().unwrap().to_owned();
    assert_eq!(made.len(), 19, "{made}");
    at = typed.at("", shown, &format!("{made}\n")).unwrap();
    typed.at("privity> ", at, "/quit\r").unwrap();
    assert_eq!(typed.end().unwrap().0, Some(0));
    let bob = Person::new(firm.folder(), "bob").unwrap();
    std::fs::write(&bob.passphrase, made).unwrap();
    bob.ok(&["status"]).unwrap();
}

#[test]
fn whoever_waits_sees_in_a_chat_the_digits_by_which_somebody_else_lets_them_in() {
    let firm = Firm::found().unwrap();
    let bob = Person::new(firm.folder(), "bob").unwrap();
    bob.join(&invite(&firm), "Bob").unwrap();
    let number = bob.ok(&["status"]).unwrap()[0]["firm_number"].as_str().unwrap().to_owned();
    let told = chat(&bob, &["chat"], "/status\n");
    assert!(number.split(' ').all(|group| told.stdout.contains(group)), "{told:?}");
    // And whoever looks for the relay's key where `audit verify` sends them finds it.
    let status = bob.run(&["status"]).unwrap().stdout;
    let key = bob.ok(&["status"]).unwrap()[0]["relay"]["key"].as_str().unwrap().to_owned();
    assert!(status.contains(&key), "{status}");
}

#[test]
fn ctrl_d_at_a_question_does_nothing_and_says_so() {
    let firm = Firm::found().unwrap();
    let home = firm.folder().join("bob");
    let (folder, url) = (home.to_str().unwrap(), invite(&firm));
    let arguments = ["--home", folder, "join", &url, "--handle", "bob", "--name", "Bob", "--kdf-memory", KDF_MEMORY];
    let Some(mut typed) = Typed::start(&arguments).unwrap() else { return };
    typed.at("Choose a passphrase", 0, "\x04").unwrap();
    let (code, screen) = typed.end().unwrap();
    assert_eq!(code, Some(1), "{screen}");
    assert!(screen.contains("nothing was done"), "{screen}");
    assert!(!home.join("vault.db").exists());
    // The invite is as good as before.
    Person::new(firm.folder(), "bob").unwrap().join(&url, "Bob").unwrap();
}

#[test]
fn whoever_has_just_joined_chats_without_the_passphrase_once_more() {
    let firm = Firm::found().unwrap();
    let home = firm.folder().join("bob");
    let Some(mut typed) = Typed::start(&["--home", home.to_str().unwrap()]).unwrap() else { return };
    let mut at = typed.at("Invite: ", 0, "privity://mangled\n").unwrap();
    at = typed.at("mangled or incomplete", at, &format!("{}\n", invite(&firm))).unwrap();
    at = typed.at("Your handle", at, "bob\n").unwrap();
    at = typed.at("Your name", at, "Bob\n").unwrap();
    at = typed.at("Choose a passphrase", at, "one thing and another\n").unwrap();
    at = typed.at("once more: ", at, "one thing and another\n").unwrap();
    typed.at("privity> ", at, "/quit\r").unwrap();
    let (code, screen) = typed.end().unwrap();
    assert_eq!(code, Some(0), "{screen}");
    assert!(!screen.contains("Passphrase: "), "{screen}");
}

/// The prompt went on to say "offline" until Enter was pressed.
#[test]
fn the_prompt_is_true_again_as_soon_as_the_relay_is_back() {
    let mut firm = Firm::found().unwrap();
    firm.matter("Lease", &[]).unwrap();
    let ada = firm.attorney.clone();
    let (home, passphrase) = (ada.home.to_str().unwrap(), ada.passphrase.to_str().unwrap());
    let Some(mut typed) = Typed::start(&["--home", home, "--passphrase-file", passphrase, "chat"]).unwrap() else {
        return;
    };
    let mut at = typed.shows("Lease> ", 0).unwrap();
    firm.relay.stop().unwrap();
    at = typed.at("offline", at, "hello\r").unwrap();
    at = typed.shows("Lease [offline, 1 unsent]> ", at).unwrap();
    firm.relay.run().unwrap();
    typed.at("Lease [online           ]> ", at, "/quit\r").unwrap();
    assert_eq!(typed.end().unwrap().0, Some(0));
    assert_eq!(ada.texts("Lease").unwrap().len(), 1);
}

#[test]
fn commands_piped_into_a_chat_are_answered_before_it_ends() {
    let firm = Firm::found().unwrap();
    let bob = firm.bring("bob", "Bob Jones", "client").unwrap();
    firm.matter("Lease", &[]).unwrap();
    let told = chat(&firm.attorney, &["chat", "Lease"], "/people\n/invite client\n/add bob nobody\n");
    assert_eq!(told.code, Some(0), "{told:?}");
    for part in ["bob ", "privity://", "you added Bob Jones", "nobody here is called nobody"] {
        assert!(told.stdout.contains(part), "{part}: {told:?}");
    }
    bob.ok(&["recv"]).unwrap();
    assert_eq!(bob.ok(&["matter", "ls"]).unwrap()[0]["title"], "Lease");
}

#[test]
fn adding_somebody_who_is_in_says_so() {
    let firm = Firm::found().unwrap();
    let bob = firm.bring("bob", "Bob Jones", "client").unwrap();
    firm.matter("Lease", &[&bob]).unwrap();
    let again = firm.attorney.run(&["matter", "add", "Lease", "bob"]).unwrap();
    assert_eq!((again.code, again.stdout.as_str()), (Some(0), "bob is in this matter already.\n"));
    let again = firm.attorney.ok(&["matter", "add", "Lease", "bob"]).unwrap();
    assert_eq!((again[0]["state"].as_str(), again[0]["already"].as_bool()), (Some("done"), Some(true)));
}

#[test]
fn two_matters_of_one_title_are_told_apart_and_status_names_the_firms_key() {
    let firm = Firm::found().unwrap();
    let ada = &firm.attorney;
    let ids: Vec<String> = (0..2)
        .map(|_| ada.ok(&["matter", "new", "Lease"]).unwrap()[0]["matter"].as_str().unwrap().to_owned())
        .collect();
    for id in &ids {
        ada.ok(&["send", id, "hello"]).unwrap();
    }
    let shown = ada.run(&["recv", "--after", "0"]).unwrap().stdout;
    for id in &ids {
        assert!(shown.contains(&format!("Lease ({})", &id[..6])), "{shown}");
    }
    let status = ada.run(&["status"]).unwrap().stdout;
    let fingerprint = ada.ok(&["status"]).unwrap()[0]["organisation"].as_str().unwrap().to_owned();
    assert!(status.contains(&format!("firm's key {fingerprint}")), "{status}");
}

/// What was piped in was dropped, and the exit code was 0.
#[test]
fn a_chat_from_a_pipe_with_several_matters_must_be_told_which() {
    let firm = Firm::found().unwrap();
    let bob = firm.bring("bob", "Bob Jones", "client").unwrap();
    let alone = chat(&bob, &["chat"], "into no matter\n");
    assert_eq!(alone.code, Some(1), "{alone:?}");
    assert!(alone.stdout.contains("Your lawyer adds you") && !alone.stdout.contains("/new"), "{alone:?}");
    assert!(alone.stderr.contains("1 message not sent"), "{alone:?}");

    firm.matter("Lease", &[&bob]).unwrap();
    firm.matter("Estate", &[]).unwrap();
    let which = chat(&firm.attorney, &["chat"], "into which?\n");
    assert_eq!(which.code, Some(1), "{which:?}");
    for part in ["which matter?", "Lease (bob)", "Estate (nobody else)"] {
        assert!(which.stderr.contains(part), "{part}: {which:?}");
    }
}

#[test]
fn a_client_without_a_matter_is_told_to_wait_and_two_of_one_title_are_told_apart_by_people() {
    let firm = Firm::found().unwrap();
    let bob = firm.bring("bob", "Bob Jones", "client").unwrap();
    let told = bob.run(&["send", "Lease", "hello"]).unwrap();
    assert_eq!(told.code, Some(1), "{told:?}");
    assert!(told.stderr.contains("your lawyer adds you") && !told.stderr.contains("matter new"), "{told:?}");

    let ada = &firm.attorney;
    let open = || ada.ok(&["matter", "new", "Lease"]).unwrap()[0]["matter"].as_str().unwrap().to_owned();
    let (one, two) = (open(), open());
    ada.ok(&["matter", "add", &one, "bob"]).unwrap();
    let several = ada.run(&["send", "Lease", "hello"]).unwrap();
    assert_eq!(several.code, Some(1), "{several:?}");
    for part in [format!("{} Lease (bob)", &one[..6]), format!("{} Lease (nobody else)", &two[..6])] {
        assert!(several.stderr.contains(&part), "{part}: {several:?}");
    }
}

#[test]
fn what_will_not_do_is_told_before_anything_is_asked() {
    let firm = Firm::found().unwrap();
    let home = firm.folder().join("bob");
    let (folder, url) = (home.to_str().unwrap(), invite(&firm));
    for (wrong, part) in [(["--handle", "Bob Jones"], "that handle"), (["--name", ""], "a name, please")] {
        let arguments = [&["--home", folder, "join", &url][..], &wrong].concat();
        let Some(typed) = Typed::start(&arguments).unwrap() else { return };
        let (code, screen) = typed.end().unwrap();
        assert_eq!(code, Some(1), "{screen}");
        assert!(screen.contains(part) && !screen.contains("Your") && !screen.contains("invites you"), "{screen}");
    }
    assert!(!home.exists());
}

#[test]
fn the_demo_explains_itself_and_plays_only_when_asked_to() {
    let demo = |argument| -> Ran {
        std::process::Command::new(env!("CARGO_BIN_EXE_privity-demo")).arg(argument).output().unwrap().into()
    };
    let help = demo("--help");
    assert_eq!(help.code, Some(0), "{help:?}");
    assert!(help.stdout.contains("Usage: privity-demo") && help.stderr.is_empty(), "{help:?}");
    assert_eq!(demo("--nonsense").code, Some(1));
}

#[test]
fn everything_fits_a_terminal_of_forty_columns() {
    let firm = Firm::found().unwrap();
    let bob = firm.bring("bob", "Bob Jones", "client").unwrap();
    firm.matter("Jones v Harbour Shipping and others", &[&bob]).unwrap();
    let ada = &firm.attorney;
    ada.ok(&["send", "Jones", "The hearing is on Tuesday; please bring the bill of lading and the survey report."])
        .unwrap();
    ada.ok(&["matter", "remove", "Jones", "bob"]).unwrap();
    ada.ok(&["recv"]).unwrap();
    let base = ["--home", ada.home.to_str().unwrap(), "--passphrase-file", ada.passphrase.to_str().unwrap()];
    for command in [&["people"][..], &["matter", "ls"], &["matter", "show", "Jones"], &["read", "Jones"]] {
        let Some(typed) = Typed::start_at(40, &[&base[..], command].concat()).unwrap() else { return };
        let (code, screen) = typed.end().unwrap();
        assert_eq!(code, Some(0), "{screen}");
        for line in screen.lines() {
            // An id is a word: it is not cut.
            assert!(line.trim_end().chars().count() <= 40, "{command:?}: {line:?}");
        }
    }
    let json = Typed::start_at(40, &[&base[..], &["--json", "people"]].concat()).unwrap().unwrap();
    let (_, screen) = json.end().unwrap();
    assert_eq!(screen.lines().filter(|line| line.starts_with('{')).count(), screen.lines().count(), "{screen}");

    let mut typed = Typed::start_at(40, &[&base[..], &["chat", "Jones"]].concat()).unwrap().unwrap();
    typed.at("       please bring the bill of lading", 0, "/quit\r").unwrap();
    assert_eq!(typed.end().unwrap().0, Some(0));
}

/// A role in an invite is worth nothing before somebody vouches for its holder, and a client's view ends with their matters.
#[test]
fn who_is_in_the_directory_depends_on_who_asks() {
    let firm = Firm::found().unwrap();
    let ada = firm.attorney.clone();
    let bob = firm.bring("bob", "Bob Jones", "client").unwrap();
    let eve = firm.bring("eve", "Eve Doe", "client").unwrap();
    let sees = |who: &Person| -> Vec<String> {
        let told = who.ok(&["people"]).unwrap();
        let mut handles: Vec<String> = told.iter().map(|one| one["handle"].as_str().unwrap().to_owned()).collect();
        handles.sort();
        handles
    };
    let invite = ada.ok(&["invite", "new", "--role", "attorney"]).unwrap()[0]["url"].as_str().unwrap().to_owned();
    let cyn = Person::new(firm.folder(), "cyn").unwrap();
    cyn.join(&invite, "Cyn Attorney").unwrap();
    assert_eq!(sees(&cyn), ["ada", "cyn"], "nobody vouches for her yet");
    let unknown = cyn.run(&["identity", "show", "bob"]).unwrap();
    assert_ne!(unknown.code, Some(0), "{unknown:?}");
    ada.ok(&["people"]).unwrap();
    assert_eq!(sees(&cyn), ["ada", "bob", "cyn", "eve"]);

    assert_eq!(sees(&bob), ["ada", "bob"]);
    firm.matter("Lease", &[&bob, &eve]).unwrap();
    bob.ok(&["recv"]).unwrap();
    assert_eq!(sees(&bob), ["ada", "bob", "eve"]);
    ada.ok(&["matter", "remove", "Lease", "bob"]).unwrap();
    assert_eq!(sees(&bob), ["ada", "bob"]);
}
