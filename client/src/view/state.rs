//! Where a matter stands and what a device tells beside its records, in words.
//!
//! Invariant: nobody is left with a word alone: whatever stops a matter has a sentence that says what to do.

use privity_protocol::device::Notice;
use privity_protocol::device::state::Stage;
use privity_protocol::error::{Error, PeerMisbehaved, Refused};
use privity_protocol::log::Act;

use crate::view::{counted, day, plain};

/// What is not as expected where a newcomer's proof fails.
const NEWCOMER: &str = "the newcomer's identity";

/// A state's word as people read it in lists.
pub fn state_shown(state: &str) -> String {
    match state {
        "moving" => "moving: not let in yet".to_owned(),
        "stopped" => "stopped: the relay showed two histories".to_owned(),
        other => other.replace('_', " "),
    }
}

/// How far a matter has come, in a word.
pub fn stage(stage: Stage) -> &'static str {
    match stage {
        Stage::Opening => "opening",
        Stage::Joining => "joining",
        Stage::Open => "open",
        Stage::Removed => "removed",
        Stage::OutOfStep => "out_of_step",
        Stage::Paused => "paused",
        Stage::Outdated => "outdated",
        Stage::Moving => "moving",
        _ => "stopped",
    }
}

/// What a matter's row says about where it stands: a relay restored from a backup may have `forgotten` it, which somebody who `manages` matters
/// can mend.
pub fn state_told(stage: Stage, forgotten: bool, manages: bool) -> Option<&'static str> {
    match (stage, forgotten) {
        (Stage::OutOfStep, true) if manages => Some(
            "The relay was restored from a backup and has forgotten this matter, or its last changes. It goes on by itself in a new place, \
             with everybody in it, once you have been online for a minute or two: leave `privity chat` open that long, or do it at once with \
             `privity matter continue`. What you have read stays here; what you write waits until then.",
        ),
        (Stage::OutOfStep, true) => Some(
            "The relay was restored from a backup and has forgotten this matter, or that you are in it. It goes on by itself in a new place \
             once an attorney or staff member of it has been online for a minute or two. What you have read stays here; what you write waits \
             until then. Nothing to do.",
        ),
        _ => stage_told(stage),
    }
}

/// What that means and what to do, for a matter in which nothing can be said now; none for an open one.
pub fn stage_told(stage: Stage) -> Option<&'static str> {
    Some(match stage {
        Stage::Open => return None,
        Stage::Opening => "Not at the relay yet: it opens at the next contact. Nothing to do.",
        Stage::Joining => "You were added and are about to be in. Nothing to do.",
        Stage::Removed => "You are no longer in this matter. What you have read stays here; nothing new comes.",
        Stage::OutOfStep => {
            "This device missed a change and has asked the others to let it back in. Nothing to do; what you write waits until \
             somebody of this matter is online."
        }
        Stage::Paused => {
            "The relay holds something back that the next change here needs. Nothing is skipped, and it is asked for again. If \
             this lasts for hours, tell your firm's IT."
        }
        Stage::Outdated => "This matter follows rules of a newer version: update privity to read on and to write.",
        Stage::Moving => {
            "The matter goes on in a new place on the relay, and nobody has let you in there yet. That happens by itself once an \
             attorney or staff member of it is online, mostly within a day. If it does not, you may have been removed from it: \
             ask your lawyer by another way. What you write waits here until then; what you have read stays."
        }
        _ => {
            "The relay showed another history of this matter than before: nothing is read or sent here any more. What was not \
             sent yet stays here, marked not sent. Tell your firm's IT, and talk to the others by telephone."
        }
    })
}

/// That somebody has another key, and what follows.
fn changed_told(handle: &str, verified: bool, anew: bool) -> String {
    let handle = plain(handle, false);
    let (told, then) = match (verified, anew) {
        (true, _) => ("WARNING: ", ". Nothing is sent where they are until you accept it"),
        (false, true) => (
            "WARNING: ",
            ", for which the one before has not signed: somebody has enrolled them anew. They come into your matters with it only once \
             you accept it",
        ),
        (false, false) => ("", ""),
    };
    format!(
        "{told}{handle} has another key than before{then}: ask them why; `privity identity trust {handle}` shows more"
    )
}

/// What a notice says to somebody who did not ask for it; none where it says nothing, or stands in a record.
pub fn notice(notice: &Notice) -> Option<String> {
    match notice {
        Notice::Problem(Error::Refused(Refused::NotFound { what })) if what == "that mailbox" => Some(
            "the relay says that it does not know one of your matters, though it was not restored from a backup. What you write there \
             waits; tell your firm's IT"
                .to_owned(),
        ),
        Notice::Problem(Error::PeerMisbehaved(PeerMisbehaved::Fork { .. })) => Some(
            "WARNING: the relay shows another history of one of your matters than before, which has stopped: `privity matter ls` says \
             which, and `privity matter show` what to do"
                .to_owned(),
        ),
        Notice::Problem(error) => Some(format!("warning: {}", plain(&error.to_string(), false))),
        Notice::Suspicious { handle, why: Error::PeerMisbehaved(PeerMisbehaved::WrongKey(NEWCOMER)) } => Some(format!(
            "WARNING: {} was not let in: the keys under that handle are not those of whoever read your invite. The relay has put others in \
             their place, or somebody who has taken it over. Ask whom you invited, by another way, and tell your firm's IT",
            plain(handle, false)
        )),
        Notice::Suspicious { handle, why } => Some(format!(
            "WARNING: somebody who asks to be {} was not accepted: {why}. Ask whom you invited, by another way",
            plain(handle, false)
        )),
        Notice::DeviceWaits { .. } | Notice::FalseDevice(_) => devices_told(notice),
        Notice::HistoryCame { .. } | Notice::HistorySent { .. } => devices_told(notice),
        Notice::Endorsed { handle } => Some(format!("{} has joined", plain(handle, false))),
        Notice::Ready => Some("you are ready: others can add you to matters now".to_owned()),
        Notice::Unsendable { why, .. } => {
            Some(format!("a message could not be sent: {}", plain(&why.to_string(), false)))
        }
        Notice::IdentityChanged { handle, verified, anew, .. } => Some(changed_told(handle, *verified, *anew)),
        Notice::OwnKeyReplaced { recovered: false } => {
            Some("your own key was replaced on another device of yours; this one stays, and goes by the new key".to_owned())
        }
        Notice::OwnKeyReplaced { recovered: true } => Some(
            "WARNING: your own key was replaced with your recovery sheet, and this device stays. If that was not you, somebody has your \
             sheet: tell your firm's IT at once"
                .to_owned(),
        ),
        Notice::KeyRefused(why) => Some(format!("your new key was refused: {}", plain(&why.to_string(), false))),
        Notice::LooksAlike { label, like, .. } => Some(format!(
            "WARNING: {} has joined under a name that looks like that of {}. Make sure who it is; tell them apart by their handles",
            plain(label, false),
            plain(&like.join(", "), false)
        )),
        Notice::EndorsedAnew { outcome: Err(why), .. } => {
            Some(format!("warning: an endorsement could not be renewed: {}", plain(&why.to_string(), false)))
        }
        Notice::Log { .. }
        | Notice::DoneInYourName(_)
        | Notice::DoneForYou { .. }
        | Notice::RelayRotated { .. }
        | Notice::FalseWelcome(_) => relay_told(notice),
        Notice::Copied => Some(
            "this is a copy of your profile, or one restored from a backup. It asks the others to let it back in, and takes the \
             place of the other copy, which can't be used any more. Nothing to do; if you made no copy, tell your firm's IT at once"
                .to_owned(),
        ),
        Notice::Restored => Some(
            "the relay was restored from a backup. What it has forgotten is sent again; nothing to do".to_owned(),
        ),
        _ => None,
    }
}

/// What becomes of one's own devices, in a sentence.
fn devices_told(notice: &Notice) -> Option<String> {
    let many = |messages: u64| counted(usize::try_from(messages).unwrap_or(usize::MAX), "message", "messages");
    match notice {
        Notice::DeviceWaits { fingerprint, .. } => Some(format!(
            "a device waits to be linked as yours: {fingerprint}. If it is, `privity device link` goes on with it; if not, revoke it: \
             `privity device ls` shows it"
        )),
        Notice::FalseDevice(why) => Some(format!(
            "WARNING: a device that asks to be linked as yours was not accepted: {why}. Somebody may have read your invite, or the \
             relay stands between: tell your firm's IT"
        )),
        Notice::HistoryCame { messages } => Some(format!(
            "what was said before has come from your other device, {}: `privity read` shows it",
            many(*messages)
        )),
        Notice::HistorySent { messages, .. } => {
            Some(format!("your other device has everything that was said before now: {}", many(*messages)))
        }
        _ => None,
    }
}

/// What the relay's audit log or its mailboxes give away, or the relay has shown to be its new key, in a sentence.
fn relay_told(notice: &Notice) -> Option<String> {
    match notice {
        Notice::Log { what, by: None } => Some(format!(
            "WARNING: {what}. It may show different people different things: tell somebody at the firm whom you trust, by another \
             way; `privity security show` says more, `privity audit proof` keeps it"
        )),
        Notice::Log { what, by: Some(_) } => Some(format!(
            "WARNING: {what}: the relay shows two logs, or that member is mistaken. `privity security show` says who: compare with them \
             by another way; `privity audit proof` keeps it"
        )),
        Notice::DoneForYou { act, label, .. } => {
            let by = label.as_ref().map_or_else(|| "another device of yours".to_owned(), |label| plain(label, false));
            let what = match act {
                Act::EndorsementRevoked { .. } => "your endorsement was withdrawn",
                _ => "a device of yours was revoked",
            };
            Some(format!(
                "{what} by {by}, as a signed statement says. Nothing to do, if you know of it; if not, ask them"
            ))
        }
        Notice::DoneInYourName(act) => Some(format!(
            "WARNING: the relay's audit log says of you: {}. If you know nothing of it, tell your firm's IT and a registrar",
            act.name()
        )),
        Notice::RelayRotated { key, since, .. } => Some(format!(
            "the relay has a new key since {}: {key}. The key it had before has signed for it, so there is nothing to do",
            day(*since)
        )),
        Notice::FalseWelcome(why) => Some(format!(
            "warning: something came that was to let this device into a matter, and leads nowhere ({}). If somebody says to have added you \
             and you do not see the matter, ask them to remove you there and to add you once more; if that fails, too, tell your firm's IT",
            plain(&why.to_string(), false)
        )),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use privity_protocol::ids::PersonId;

    use super::*;

    #[test]
    fn every_stage_that_is_not_open_says_what_to_do() {
        let all = [
            Stage::Opening,
            Stage::Joining,
            Stage::Open,
            Stage::Removed,
            Stage::Forked,
            Stage::OutOfStep,
            Stage::Paused,
            Stage::Outdated,
            Stage::Moving,
        ];
        let words: std::collections::BTreeSet<&str> = all.into_iter().map(stage).collect();
        assert_eq!(words.len(), all.len(), "{words:?}");
        for one in all {
            assert_eq!(stage_told(one).is_none(), one == Stage::Open, "{one:?}");
        }
    }

    #[test]
    fn a_matter_that_the_relay_has_forgotten_says_who_makes_it_go_on_and_how() {
        let told = |stage, manages| state_told(stage, true, manages).unwrap_or_default();
        for manages in [true, false] {
            assert!(told(Stage::OutOfStep, manages).contains("for a minute or two"));
            assert_eq!(told(Stage::Moving, manages), stage_told(Stage::Moving).unwrap_or_default());
        }
        assert!(told(Stage::OutOfStep, true).contains("privity matter continue"));
        assert!(told(Stage::OutOfStep, false).contains("Nothing to do"));
    }

    #[test]
    fn names_that_look_alike_are_told_plainly() {
        let label = "Bob\x1b[2J (b-jones)".to_owned();
        let alike = Notice::LooksAlike { person: PersonId::new([1; 16]), label, like: vec!["Bob (bob)".to_owned()] };
        let told = notice(&alike).unwrap_or_default();
        assert!(told.contains("handles") && told.contains("(b-jones)") && !told.contains('\x1b'), "{told}");
    }

    #[test]
    fn a_copy_and_a_restored_relay_are_told_with_what_to_do() {
        for notice in [notice(&Notice::Copied), notice(&Notice::Restored)] {
            assert!(notice.is_some_and(|told| told.contains("othing to do")));
        }
    }
}
