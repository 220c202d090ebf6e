//! What a hostile member writes never commands a terminal: not as text, title, or name.

use privity_tests::{Firm, KDF_MEMORY, Person};

const HOSTILE: [&str; 8] = [
    "\x1b]52;c;cm0gLXJm\x07clipboard",
    "\x1b]0;title\x07window",
    "\x1b]8;;https://example.com\x1b\\link\x1b]8;;\x1b\\",
    "\x1b[2J\x1b[Hcleared",
    "\u{9b}31mred",
    "\u{202e}txet desrever",
    "ze\u{200b}ro\u{feff} width",
    "\rover\x08\x08written\x1b",
];

/// Nothing but line breaks below 0x20, no DEL, no C1, no bidi or zero-width.
fn calm(shown: &str) {
    for character in shown.chars() {
        let bad = (character.is_control() && character != '\n')
            || matches!(character, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}');
        assert!(!bad, "{character:?} in {shown:?}");
    }
}

#[test]
fn text_titles_and_names_of_peers_reach_a_terminal_without_escapes() {
    let firm = Firm::found().unwrap();
    let ada = &firm.attorney;
    let told = ada.ok(&["invite", "new", "--role", "attorney"]).unwrap();
    let eve = Person::new(firm.folder(), "eve").unwrap();
    let name = "Eve\x1b]0;pwned\x07\u{202e}";
    let invite = told[0]["url"].as_str().unwrap();
    eve.ok(&["join", invite, "--handle", "eve", "--name", name, "--kdf-memory", KDF_MEMORY]).unwrap();
    ada.ok(&["people"]).unwrap();
    let matter = eve.ok(&["matter", "new", "Lease\x1b[31m\u{202e}"]).unwrap();
    let id = matter[0]["matter"].as_str().unwrap();
    eve.ok(&["matter", "add", id, "ada"]).unwrap();
    for text in HOSTILE {
        eve.ok(&["send", id, text]).unwrap();
    }
    let json = ada.ok(&["recv"]).unwrap();
    assert_eq!(json.iter().filter(|record| record["type"] == "text").count(), HOSTILE.len());
    for arguments in [
        &["read", id][..],
        &["matter", "ls"],
        &["matter", "show", id],
        &["people"],
        &["status"],
        &["recv", "--after", "0"],
    ] {
        let shown = ada.run(arguments).unwrap();
        assert_eq!(shown.code, Some(0), "{arguments:?} {shown:?}");
        calm(&shown.stdout);
        calm(&shown.stderr);
    }
    assert!(ada.run(&["read", id]).unwrap().stdout.contains("cleared"), "the text itself is shown");
}
