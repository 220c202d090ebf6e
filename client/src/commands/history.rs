//! `device history`: what was said before, on its way to a device of one's own that was linked.
//!
//! Invariant: nothing goes before the user, or the script, has said so.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use privity_protocol::device::{HistoryOffer, HistoryProgress};
use privity_protocol::ids::DeviceId;
use serde_json::{Value, json};

use crate::commands::{Run, warn};
use crate::error::Error;
use crate::session::{Session, Told, now};
use crate::{ask, out, view};

/// How often the bar is drawn, at most, in hertz.
const DRAWN: u8 = 10;

impl Run {
    pub(super) async fn device_history(&self, asked: &str, yes: bool) -> Result<(), Error> {
        let (_held, mut session) = self.caught_up().await?;
        let own = session.device.devices_of(session.device.profile().person);
        let seen = super::device::find(&own, asked)?;
        let device = seen.device;
        if progress(&session, device).is_none_or(|progress| progress.complete) {
            let offer = session.device.history_for(device, &session.vault)?;
            if offer.messages == 0 {
                let object = progress_json(device, progress(&session, device), "received");
                self.print(&object, || {
                    "There is nothing to send: it has what was said, or has read it itself.".to_owned()
                })?;
                return self.done(session).await;
            }
            if !yes && !self.asked_history(&super::device::called(&seen), offer)? {
                return Err(Error::Refused("nothing was sent".to_owned()));
            }
        }
        let ended = self.history_goes(&mut session, device).await;
        self.done(session).await?;
        ended
    }

    /// Whether the user wants a device to have what was said before.
    pub(super) fn asked_history(&self, called: &str, offer: HistoryOffer) -> Result<bool, Error> {
        if self.json || !ask::is_possible() {
            return Err(Error::Usage("--yes is missing; nothing was sent".to_owned()));
        }
        let messages = view::counted(usize::try_from(offer.messages).unwrap_or(usize::MAX), "message", "messages");
        let matters = view::counted(offer.matters, "matter", "matters");
        out::note(&format!("Device {called}:"));
        ask::yes(&format!("Send it what was said so far: {messages} in {matters}?"))
    }

    /// Sends, or goes on sending, until everything is at the relay or nothing moves any more.
    pub(super) async fn history_goes(&self, session: &mut Session, device: DeviceId) -> Result<(), Error> {
        session.device.send_history(now(), device, &session.vault)?;
        let bar = self.bar();
        let mut deadline = self.deadline();
        let mut shown = None;
        let ended = loop {
            session.drain()?;
            let Some(at) = progress(session, device) else {
                break Err(Error::Refused("the relay takes nothing for that device any more".to_owned()));
            };
            if shown != Some((at.done, at.waits)) {
                shown = Some((at.done, at.waits));
                deadline = self.deadline();
                self.draw(&bar, device, &at)?;
            }
            if at.sent || at.complete {
                break Ok(at);
            }
            match session.next(deadline).await? {
                Told::Notice(notice) => warn(&[*notice]),
                Told::Quiet => break Err(Error::NotYet(goes_on(&at))),
                _ => {}
            }
        };
        bar.finish_and_clear();
        let at = ended?;
        let messages = view::counted(usize::try_from(at.messages).unwrap_or(usize::MAX), "message", "messages");
        let state = if at.complete { "received" } else { "sent" };
        self.print(&progress_json(device, Some(at), state), || {
            format!("Sent: {messages}. That device reads them when it is online; `privity device ls` says how far it has come.")
        })
    }

    /// A bar on standard error, where that is a terminal and nobody wants objects.
    fn bar(&self) -> ProgressBar {
        let bar = ProgressBar::new(0);
        bar.set_draw_target(if self.json {
            ProgressDrawTarget::hidden()
        } else {
            ProgressDrawTarget::stderr_with_hz(DRAWN)
        });
        if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos} of {len} messages {msg}") {
            bar.set_style(style);
        }
        bar
    }

    fn draw(&self, bar: &ProgressBar, device: DeviceId, at: &HistoryProgress) -> Result<(), Error> {
        if self.json {
            return out::line(&view::compact(&progress_json(device, Some(*at), "sending")));
        }
        bar.set_length(at.messages);
        bar.set_message(if at.waits { "(waiting for the other device)" } else { "" });
        bar.set_position(at.done);
        bar.tick();
        Ok(())
    }
}

/// How far history has come on its way to a device.
fn progress(session: &Session, device: DeviceId) -> Option<HistoryProgress> {
    session.device.history().into_iter().find(|progress| !progress.comes && progress.device == device)
}

fn goes_on(at: &HistoryProgress) -> String {
    let why = if at.waits {
        "the rest goes once the other device has been online: run `privity recv` there, then this once more"
    } else {
        "the rest goes on with the next command"
    };
    format!("{} of {} messages are on their way; {why}", at.done, at.messages)
}

fn progress_json(device: DeviceId, at: Option<HistoryProgress>, state: &str) -> Value {
    let (messages, done) = at.map_or((0, 0), |at| (at.messages, at.done));
    json!({ "v": view::SCHEMA, "device": device.to_string(), "state": state, "messages": messages, "done": done })
}

/// Histories on their way to this device, or from it to one.
pub(super) fn on_their_way(session: &Session, with: Option<DeviceId>) -> Vec<HistoryProgress> {
    let mut histories = session.device.history();
    histories.retain(|at| !at.complete && with.is_none_or(|device| at.device == device));
    histories
}

/// The same as objects.
pub(super) fn on_their_way_json(session: &Session, with: Option<DeviceId>) -> Value {
    let object = |at: HistoryProgress| json!({ "device": at.device.to_string(), "comes": at.comes, "messages": at.messages, "done": at.done });
    on_their_way(session, with).into_iter().map(object).collect::<Vec<_>>().into()
}

/// The same in words.
pub(super) fn on_their_way_told(session: &Session, with: Option<DeviceId>) -> Vec<String> {
    let told = |at: HistoryProgress| {
        let (word, from) = if at.comes { ("received", "from") } else { ("sent", "to") };
        let device = session
            .device
            .device_name(at.device)
            .map_or_else(|| at.device.to_string().chars().take(6).collect(), |name| view::plain(name, false));
        format!("{} of {} messages {word} of what was said before, {from} your device {device}", at.done, at.messages)
    };
    on_their_way(session, with).into_iter().map(told).collect()
}
