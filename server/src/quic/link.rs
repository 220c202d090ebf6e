//! An admitted device's link: a reader that passes requests on, and a sender that owns the stream back.
//!
//! 1. The reader puts each request into the writer's queue, and its place in line into the link's own.
//! 2. The sender answers in the order asked: what was posted before a Subscribe, or a question, is there when it is carried out.
//! 3. Between answers it pushes what the hub hands out, and reads from the store where it has fallen behind.
//!
//! Invariant: a device is sent exactly the entries of its intervals, in seq order and gap-free; and when a link ends, everything it
//! started ends with it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use privity_protocol::error::Refused;
use privity_protocol::frame::{Event, FromRelay, Reply, Request, ToRelay};
use privity_protocol::ids::{MailboxId, Position};
use privity_protocol::limits;
use privity_transport::{self as transport, TransportError};
use quinn::{Connection, RecvStream, SendStream};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;
use tracing::warn;

use super::Shared;
use crate::hub::{Closing, Item, Outbox, Seat};
use crate::policy::{Caller, refusal};
use crate::relay::reading::{interval, place};
use crate::relay::{self, From, admission};

/// Why a link ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum End {
    #[error(transparent)]
    Transport(#[from] TransportError),
    #[error("the peer does not read")]
    Stalled,
    #[error("a newer link of this device took its place")]
    Crowded,
    #[error("another instance of this device took its place, or it was revoked")]
    Refused,
    #[error("the store could not be read")]
    Store,
}

/// How long a link stays to see its last word read.
const FAREWELL: Duration = Duration::from_secs(2);

/// What waits for its answer, in the order asked.
enum Asked {
    Decided { id: u64, answer: oneshot::Receiver<Reply> },
    Subscribe { id: u64, mailbox: MailboxId, after: Option<Position> },
    Question { id: u64, request: Request },
}

/// Runs a link, which has its seat since before it was admitted, until it ends.
pub(super) async fn run(
    connection: Connection,
    send: SendStream,
    receive: RecvStream,
    (caller, seat): (Caller, Seat),
    shared: &Arc<Shared>,
    mut stop: watch::Receiver<bool>,
) -> Result<(), End> {
    let outbox = Arc::clone(seat.outbox());
    let (line, in_line) = mpsc::channel(limits::IN_FLIGHT_MAX);
    let mut sender = Sender {
        send,
        shared: Arc::clone(shared),
        outbox: Arc::clone(&outbox),
        subscriptions: BTreeMap::new(),
        behind: VecDeque::new(),
        caller,
    };
    let ended = tokio::select! {
        () = outbox.crowded() => Err(End::Crowded),
        ended = read_requests(receive, caller, &outbox, shared, line) => ended,
        ended = sender.run(in_line) => ended,
        _ = stop.wait_for(|stop| *stop) => Ok(()),
    };
    shared.hub.leave(&outbox, sender.subscriptions.into_keys());
    let code = match ended {
        Err(End::Refused) => transport::CLOSE_REFUSED,
        _ if *stop.borrow() => transport::CLOSE_GOING,
        _ => transport::CLOSE_DONE,
    };
    connection.close(code, b"");
    ended
}

async fn read_requests(
    mut receive: RecvStream,
    caller: Caller,
    outbox: &Outbox,
    shared: &Shared,
    line: mpsc::Sender<Asked>,
) -> Result<(), End> {
    loop {
        let ToRelay { id, request } = transport::read(&mut receive, limits::FRAME_MAX).await?;
        let asked = match request {
            Request::Subscribe { mailbox, after } => Asked::Subscribe { id, mailbox, after },
            request if relay::only_reads(&request) => Asked::Question { id, request },
            request => match shared.writer.enqueue(outbox, From::Device(caller), request).await {
                Some(answer) => Asked::Decided { id, answer },
                // Whoever closed it also sees to its end, with a last word where there is one.
                None => return std::future::pending().await,
            },
        };
        if line.send(asked).await.is_err() {
            return Ok(());
        }
    }
}

/// One subscription of a link.
#[derive(Debug, Clone, Copy)]
struct Subscription {
    /// The seq to send next.
    next: u64,
    /// Whether it waits for its turn to read from the store.
    behind: bool,
}

/// The sending half of a link.
struct Sender {
    send: SendStream,
    shared: Arc<Shared>,
    outbox: Arc<Outbox>,
    subscriptions: BTreeMap<MailboxId, Subscription>,
    /// Those that are behind, in turn.
    behind: VecDeque<MailboxId>,
    caller: Caller,
}

impl Sender {
    async fn run(&mut self, mut line: mpsc::Receiver<Asked>) -> Result<(), End> {
        let mut first: Option<(u64, oneshot::Receiver<Reply>)> = None;
        let outbox = Arc::clone(&self.outbox);
        loop {
            tokio::select! {
                // Answers first: a device learns that its Post was accepted before it reads it.
                biased;
                reply = answer(&mut first) => {
                    if let Some((id, reply)) = reply {
                        self.reply(id, reply).await?;
                    }
                }
                asked = line.recv(), if first.is_none() => match asked {
                    None => return Ok(()),
                    Some(Asked::Decided { id, answer }) => first = Some((id, answer)),
                    Some(Asked::Subscribe { id, mailbox, after }) => {
                        let reply = self.subscribe(mailbox, after).await.unwrap_or_else(Reply::Refused);
                        self.reply(id, reply).await?;
                    }
                    Some(Asked::Question { id, request }) => {
                        let reply = self.shared.answer(From::Device(self.caller), request).await;
                        self.reply(id, reply).await?;
                    }
                },
                () = outbox.ready() => {}
                () = std::future::ready(()), if !self.behind.is_empty() => {}
            }
            match outbox.closing() {
                Some(Closing::Crowded) => return Err(End::Crowded),
                Some(Closing::Replaced) => return self.farewell(Refused::Replaced).await,
                Some(Closing::Revoked) => return self.farewell(admission::revoked()).await,
                Some(Closing::Withdrawn) => return self.farewell(admission::withdrawn()).await,
                None => {}
            }
            self.push().await?;
            if let Some(mailbox) = self.behind.pop_front() {
                self.catch_up(mailbox).await?;
            }
        }
    }

    async fn reply(&mut self, id: u64, reply: Reply) -> Result<(), End> {
        // A link that opened while another instance took over has heard nothing of it.
        let last = match &reply {
            Reply::Refused(refused) if *refused == Refused::Replaced || *refused == admission::revoked() => {
                Some(refused.clone())
            }
            _ => None,
        };
        self.frame(&FromRelay::Reply { id, reply }).await?;
        match last {
            Some(refused) => self.farewell(refused).await,
            None => Ok(()),
        }
    }

    /// Says why this link ends for good, and waits a moment until that is read.
    async fn farewell(&mut self, why: Refused) -> Result<(), End> {
        self.frame(&FromRelay::Refused(why)).await?;
        let _finished = self.send.finish();
        let _in_time = timeout(FAREWELL, self.send.stopped()).await;
        Err(End::Refused)
    }

    async fn frame(&mut self, frame: &FromRelay) -> Result<(), End> {
        let bytes = privity_protocol::frame::to_wire(frame).map_err(TransportError::from)?;
        self.bytes(bytes.into()).await
    }

    /// Writes a frame, or gives up a peer that does not read.
    async fn bytes(&mut self, frame: bytes::Bytes) -> Result<(), End> {
        match timeout(Duration::from_millis(limits::WRITE_MS), self.send.write_chunk(frame)).await {
            Ok(written) => Ok(written.map_err(TransportError::from)?),
            Err(_stalled) => Err(End::Stalled),
        }
    }

    /// Where the relay does not have the position that the device names, it subscribes nothing and says where it is itself: a `start`
    /// of a lower seq (entries were lost with a restored relay) or another running hash (a fork). The device can tell.
    async fn subscribe(&mut self, mailbox: MailboxId, after: Option<Position>) -> Result<Reply, Refused> {
        let known = self.subscriptions.contains_key(&mailbox);
        if !known && self.subscriptions.len() >= limits::SUBSCRIPTIONS_MAX {
            return Err(Refused::Full { what: "your subscriptions".to_owned() });
        }
        // Listening begins before reading, so that nothing falls between.
        self.shared.hub.listen(mailbox, &self.outbox);
        let caller = self.caller;
        let read = self.shared.readers.read(move |store| refusal(place(store, caller, mailbox, after))).await;
        let subscribed = match read {
            Ok(Ok((start, head))) if after.is_none_or(|after| after == start) => Ok((start, head)),
            Ok(Ok((start, head))) => Err(Ok(Reply::Subscribed { start, head })),
            Ok(Err(refused)) => Err(Err(refused)),
            Err(failure) => {
                warn!(%failure, "the store could not be read");
                Err(Err(Refused::Storage))
            }
        };
        match subscribed {
            Ok((start, head)) => {
                self.subscriptions.insert(mailbox, Subscription { next: start.seq + 1, behind: false });
                self.fell_behind(mailbox);
                Ok(Reply::Subscribed { start, head })
            }
            Err(answer) => {
                self.unsubscribe(mailbox);
                answer
            }
        }
    }

    fn unsubscribe(&mut self, mailbox: MailboxId) {
        self.subscriptions.remove(&mailbox);
        self.behind.retain(|behind| *behind != mailbox);
        self.shared.hub.ignore(mailbox, &self.outbox);
    }

    fn fell_behind(&mut self, mailbox: MailboxId) {
        if let Some(subscription) = self.subscriptions.get_mut(&mailbox)
            && !subscription.behind
        {
            subscription.behind = true;
            self.behind.push_back(mailbox);
        }
    }

    /// Sends what the hub has handed out since the last time.
    async fn push(&mut self) -> Result<(), End> {
        let (items, lagging) = self.outbox.take();
        if lagging {
            let all: Vec<MailboxId> = self.subscriptions.keys().copied().collect();
            all.into_iter().for_each(|mailbox| self.fell_behind(mailbox));
        }
        for item in items {
            match item {
                Item::Event(event) => self.frame(&FromRelay::Event(event)).await?,
                Item::Ended(mailbox) => self.fell_behind(mailbox),
                Item::Entry { mailbox, seq, frame } => {
                    let Some(subscription) = self.subscriptions.get_mut(&mailbox) else { continue };
                    if seq == subscription.next && !subscription.behind {
                        subscription.next += 1;
                        self.bytes(frame).await?;
                    } else if seq > subscription.next {
                        self.fell_behind(mailbox);
                    }
                }
            }
        }
        Ok(())
    }

    /// Sends one chunk of a mailbox from the store; more, if there is more, after others have had their turn.
    async fn catch_up(&mut self, mailbox: MailboxId) -> Result<(), End> {
        let Some(subscription) = self.subscriptions.get_mut(&mailbox) else { return Ok(()) };
        subscription.behind = false;
        let (next, caller) = (subscription.next, self.caller);
        let read = self.shared.readers.read(move |store| {
            // The roster is read last: it is at least as new as the entries, and ends reading where it ends.
            let entries = store.entries(mailbox, next - 1, u64::MAX, limits::ENTRIES_BYTES)?;
            Ok((entries, interval(store, caller, mailbox, Some(next - 1))?))
        });
        let (mut entries, interval) = read.await.map_err(|failure| {
            warn!(%failure, "the store could not be read");
            End::Store
        })?;
        let until = interval.map_or(Some(next - 1), |(_, until)| until);
        entries.retain(|entry| until.is_none_or(|until| entry.seq <= until));
        let next = entries.last().map_or(next, |entry| entry.seq + 1);
        if let Some(subscription) = self.subscriptions.get_mut(&mailbox) {
            subscription.next = next;
        }
        if !entries.is_empty() {
            self.fell_behind(mailbox);
            self.frame(&FromRelay::Event(Event::Entries { mailbox, entries })).await
        } else if until.is_some_and(|until| next > until) {
            self.unsubscribe(mailbox);
            self.frame(&FromRelay::Event(Event::Ended { mailbox })).await
        } else {
            Ok(())
        }
    }
}

/// The first answer in line, once it is there; never, where nothing waits. Safe to cancel.
async fn answer(first: &mut Option<(u64, oneshot::Receiver<Reply>)>) -> Option<(u64, Reply)> {
    let Some((id, answer)) = first else { return std::future::pending().await };
    let reply = answer.await.unwrap_or(Reply::Refused(Refused::Storage));
    let id = *id;
    *first = None;
    Some((id, reply))
}
