//! `identity adopt`: a newcomer taken in by somebody else than whoever invited them.
//!
//! Invariant: nobody is taken in unless somebody, or the script that brings the digits, has compared the number, in which key, handle and
//! role are; and whoever compares it at a terminal has said yes to the role.

use privity_protocol::device::{Device, Notice};
use privity_protocol::error::Error as ProtocolError;
use privity_protocol::identity::{Role, SafetyNumber};
use privity_protocol::ids::PersonId;

use crate::commands::Run;
use crate::commands::identity::{grouped, identity_json, plain_handle};
use crate::error::Error;
use crate::session::{Session, now};
use crate::{ask, out, view};

impl Run {
    pub(super) async fn identity_adopt(
        &self,
        handle: &str,
        number: Option<&str>,
        name: Option<&str>,
    ) -> Result<(), Error> {
        let given = number.map(str::parse::<SafetyNumber>).transpose()?;
        let (_held, mut session) = self.caught_up().await?;
        let handle = plain_handle(handle);
        let person = self.newcomer(&mut session, handle).await?;
        let who = view::plain(handle, false);
        let invited = self.invited_as(&mut session, person, &who).await?;
        let compared = match given {
            Some(given) => {
                out::note(&invited);
                given
            }
            None if self.json || !ask::is_possible() => return Err(Error::Usage("--number is missing".to_owned())),
            None => {
                if !ask::yes(&format!("{invited} Is that who they are?"))? {
                    return Err(Error::Refused(format!(
                        "nothing was done. {who} waits still; in another role they come with another invite"
                    )));
                }
                let number = session.device.adoption_number(person)?;
                out::note(&format!(
                    "Call {who} by a number that you know, or see them. On their device, `privity status` shows these digits; have \
                     them read out:"
                ));
                out::note(&grouped(&number));
                if !ask::yes("Do all 60 digits match?")? {
                    return Err(mismatch(&who));
                }
                number
            }
        };
        let name = match name {
            Some(name) => name.to_owned(),
            None => ask::until("Their name, as you know it; others will see it on your word: ", "--name NAME", told)?,
        };
        session.device.adopt(now(), person, &compared, &name).map_err(|error| match error {
            ProtocolError::PeerMisbehaved(_) => mismatch(&who),
            other => other.into(),
        })?;
        let kept = self.until(&mut session, |notice| match notice {
            Notice::Adopted { person: of, outcome } if *of == person => Some(outcome.clone().map_err(Error::from)),
            _ => None,
        });
        kept.await?;
        let who = view::person(&session.device, person);
        self.print(&identity_json(&session.device, person), || {
            format!("{who} is in, on your word. Everybody who looks sees that it was you who took them in.")
        })?;
        self.done(session).await
    }

    /// As whom somebody was invited, in their inviter's own words.
    async fn invited_as(&self, session: &mut Session, person: PersonId, who: &str) -> Result<String, Error> {
        session.device.ask_adoption(now(), person);
        let shown = self.until(session, |notice| match notice {
            Notice::Adoption { person: of, outcome } if *of == person => Some(Ok(outcome.clone())),
            _ => None,
        });
        shown.await?.map_err(|error| match error {
            ProtocolError::PeerMisbehaved(why) => Error::Untrusted(format!(
                "the relay says something else of {who} than whoever invited them has signed: {why}. Nothing was done. Tell your firm's IT, \
                 and ask whoever invited {who} by another way"
            )),
            other => other.into(),
        })?;
        let adoption = session.device.adoption().ok_or_else(|| Error::Refused(format!("{who} waits no more")))?;
        let inviter = match session.device.person(adoption.inviter) {
            Some(_) => view::person(&session.device, adoption.inviter),
            None => view::plain(&adoption.inviter_handle, false),
        };
        let role = match adoption.role() {
            Role::Attorney => "an attorney",
            Role::Staff => "staff",
            Role::Client => "a client",
            _ => "a custodian",
        };
        Ok(format!("{inviter} has invited {who} as {role}."))
    }

    /// The newcomer with a handle, of those whom this person may take in.
    async fn newcomer(&self, session: &mut Session, handle: &str) -> Result<PersonId, Error> {
        session.device.ask_adoptable(now());
        self.until(session, |notice| match notice {
            Notice::Adoptable(outcome) => Some(outcome.clone().map_err(Error::from)),
            _ => None,
        })
        .await?;
        let waiting = session.device.adoptable().find(|(_, waiting, _)| *waiting == handle);
        if let Some((person, ..)) = waiting {
            return Ok(person);
        }
        let shown = view::plain(handle, false);
        let profile = session.device.profile();
        if !profile.registrar && !profile.role.manages() {
            return Err(Error::Refused("only the firm's attorneys and registrars take newcomers in".to_owned()));
        }
        let people = self.directory(session).await?;
        match people.iter().find(|person| person.handle == handle) {
            None => Err(Error::Usage(format!("nobody here is called {shown}; `privity people` lists who waits"))),
            Some(person) if person.ready => {
                Err(Error::Refused(format!("{shown} is in already: `privity identity show {shown}` says who vouches")))
            }
            Some(_) => Err(Error::Refused(format!(
                "you may not take {shown} in: a registrar may, and for clients any attorney"
            ))),
        }
    }
}

/// The number of this person and the firm while they wait, with what it is for.
pub(crate) fn waiting_told(device: &Device) -> Vec<String> {
    let Ok(number) = device.firm_number() else { return Vec::new() };
    vec![
        "If whoever invited you is away, somebody else of the firm can let you in: a registrar, or, if you are a client, any attorney. \
         Call them and read these digits to them:"
            .to_owned(),
        grouped(&number),
    ]
}

fn told(name: &str) -> Result<String, Error> {
    if name.is_empty() {
        return Err(Error::Usage("their name, please: this is how others see them".to_owned()));
    }
    Ok(privity_protocol::identity::Name::new(name)?.name)
}

fn mismatch(who: &str) -> Error {
    Error::Untrusted(format!(
        "those are not the digits of {who} as the relay shows them: a digit was misread, or the relay shows another key, handle or role \
         than theirs. Nothing was done. Compare once more; if they differ still, tell your firm's IT, and have {who} invited anew"
    ))
}
