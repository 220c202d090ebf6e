//! The one writer: a thread that decides requests, commits them in groups, and only then answers.
//!
//! 1. It takes every request that waits at this moment, up to a bound.
//! 2. Each is decided by [`Rules`] on what the ones before it have applied.
//! 3. One commit makes them all durable: one sync.
//! 4. Replies go out, and the hub tells whoever listens.
//!
//! A full disk refuses the group and goes on; after any other failure the thread ends, and the relay with it.
//!
//! Invariant: no reply to a request that writes leaves before the commit that holds its writes has returned.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use privity_protocol::error::Refused;
use privity_protocol::frame::{Instance, Part, Reply, Request};
use privity_protocol::ids::DeviceId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tracing::{error, warn};

use crate::audit::Bell;
use crate::clock::now;
use crate::hub::{Hub, Outbox};
use crate::policy::No;
use crate::relay::{self, From, Rules, Wake};
use crate::store::{Store, StoreError};

/// Requests that wait for the writer; beyond, links wait with reading more.
const WAITING_MAX: usize = 4096;
/// KiB of requests that wait for the writer, likewise.
const WAITING_KIB_MAX: u32 = 64 * 1024;
/// Requests in one commit: enough to make a sync cheap, few enough to keep its latency.
const GROUP_MAX: usize = 512;
/// How often expired envelopes are looked for, and how many go at once; at once again while there are more.
const EXPIRE_EVERY: Duration = Duration::from_secs(60);
const EXPIRE_AT_ONCE: usize = 1000;

/// The thread, with what ended it.
pub(crate) type WriterThread = JoinHandle<Result<(), StoreError>>;

/// What the writer is asked.
#[derive(Debug)]
enum Ask {
    /// A frame's request.
    Request(From, Request),
    /// A hello of an instance of a device.
    Admit(DeviceId, Instance),
}

/// Something on its way to the writer.
#[derive(Debug)]
struct Job {
    ask: Ask,
    reply: oneshot::Sender<Reply>,
    _room: Option<OwnedSemaphorePermit>,
}

/// The writer's end that links use.
#[derive(Debug, Clone)]
pub(crate) struct Writer {
    jobs: mpsc::Sender<Job>,
    room: Arc<Semaphore>,
}

impl Writer {
    /// Starts the thread. It ends when every [`Writer`] is dropped, or when the store fails for good.
    ///
    /// # Errors
    /// [`std::io::Error`] if the system gives no thread.
    pub(crate) fn start(store: Box<dyn Store>, hub: Arc<Hub>, bell: Bell) -> std::io::Result<(Self, WriterThread)> {
        let (jobs, receiver) = mpsc::channel(WAITING_MAX);
        let thread =
            std::thread::Builder::new().name("writer".to_owned()).spawn(move || run(store, &hub, &bell, receiver))?;
        Ok((Self { jobs, room: Arc::new(Semaphore::new(WAITING_KIB_MAX as usize)) }, thread))
    }

    /// Puts a link's request into the writer's queue, in the order called; its durable answer comes through the receiver. None where
    /// the link was closed before there was room for it.
    pub(crate) async fn enqueue(
        &self,
        link: &Outbox,
        from: From,
        request: Request,
    ) -> Option<oneshot::Receiver<Reply>> {
        self.put(Some(link), Ask::Request(from, request)).await
    }

    /// Admits an instance of a device, durably. Behind what links that are closed by now have enqueued: once this is answered, nothing
    /// of theirs is decided any more.
    pub(crate) async fn admit(&self, device: DeviceId, instance: Instance) -> Reply {
        self.answer(Ask::Admit(device, instance)).await
    }

    /// Carries out a request and returns its durable answer.
    pub(crate) async fn ask(&self, from: From, request: Request) -> Reply {
        self.answer(Ask::Request(from, request)).await
    }

    async fn answer(&self, ask: Ask) -> Reply {
        let storage = Reply::Refused(Refused::Storage);
        match self.put(None, ask).await {
            Some(answer) => answer.await.unwrap_or(storage),
            None => storage,
        }
    }

    async fn put(&self, link: Option<&Outbox>, ask: Ask) -> Option<oneshot::Receiver<Reply>> {
        let (reply, answer) = oneshot::channel();
        let room = Arc::clone(&self.room).acquire_many_owned(weight_kib(&ask)).await.ok();
        // Where the writer has ended, the dropped sender closes the receiver.
        let Ok(place) = self.jobs.reserve().await else { return Some(answer) };
        let send = || place.send(Job { ask, reply, _room: room });
        // Nothing is awaited between the look at the link and the queue: what a closed link has enqueued is in it already.
        let sent = match link {
            Some(link) => link.while_open(send),
            None => {
                send();
                true
            }
        };
        sent.then_some(answer)
    }
}

/// About how much memory a waiting request takes, in KiB; no frame has more than the queue has room for.
fn weight_kib(ask: &Ask) -> u32 {
    let Ask::Request(_, request) = ask else { return 1 };
    let bytes: usize = match request {
        Request::Post(post) => post
            .parts
            .iter()
            .map(|part| match part {
                Part::Append { envelope, .. } => envelope.0.len() + 256,
                _ => 256,
            })
            .sum(),
        Request::PublishKeyPackages { single_use, last_resort } => {
            single_use.iter().chain(last_resort).map(|package| package.0.len()).sum()
        }
        _ => 16 * 1024,
    };
    u32::try_from(bytes / 1024 + 1).unwrap_or(WAITING_KIB_MAX).min(WAITING_KIB_MAX)
}

fn run(mut store: Box<dyn Store>, hub: &Hub, bell: &Bell, mut jobs: mpsc::Receiver<Job>) -> Result<(), StoreError> {
    let mut rules = Rules::default();
    let mut expired_at: Option<Instant> = None;
    let mut group = Vec::with_capacity(GROUP_MAX);
    while jobs.blocking_recv_many(&mut group, GROUP_MAX) > 0 {
        if expired_at.is_none_or(|at| at.elapsed() > EXPIRE_EVERY) {
            let more = expire(store.as_mut())?;
            expired_at = (!more).then(Instant::now);
        }
        let mut answers = Vec::with_capacity(group.len());
        let mut wakes = Vec::new();
        match decide(store.as_mut(), &mut rules, &mut group, &mut answers, &mut wakes) {
            Ok(()) => {
                for (reply, answer) in answers {
                    // A link that has gone away no longer wants its answer.
                    let _gone = reply.send(answer);
                }
                hub.publish(wakes);
                bell.ring();
            }
            Err(failure) => {
                error!(%failure, "the store failed; nothing of this group was acknowledged");
                for (reply, _) in answers {
                    let _gone = reply.send(Reply::Refused(Refused::Storage));
                }
                undo(store.as_mut(), failure)?;
            }
        }
    }
    store.checkpoint()
}

/// Undoes what a failure left open. Only after a full disk may the relay go on: otherwise what is on disk is unknown.
fn undo(store: &mut dyn Store, failure: StoreError) -> Result<(), StoreError> {
    if !failure.is_disk_full() {
        return Err(failure);
    }
    store.rollback()
}

/// Decides and commits one group. Every job of it ends up in `answers`, whether this succeeds or not.
fn decide(
    store: &mut dyn Store,
    rules: &mut Rules,
    group: &mut Vec<Job>,
    answers: &mut Vec<(oneshot::Sender<Reply>, Reply)>,
    wakes: &mut Vec<Wake>,
) -> Result<(), StoreError> {
    let mut failed = None;
    let mut wrote = false;
    for job in group.drain(..) {
        if failed.is_some() {
            answers.push((job.reply, Reply::Refused(Refused::Storage)));
            continue;
        }
        let decided = match &job.ask {
            Ask::Request(from, request) => rules.handle(store.as_read(), from, request, now()),
            Ask::Admit(device, instance) => rules.admit(store.as_read(), *device, *instance),
        };
        let answer = match decided {
            Ok(outcome) => {
                let applied = if outcome.writes.is_empty() {
                    Ok(())
                } else {
                    wrote = true;
                    store.begin().and_then(|()| store.apply(&outcome.writes))
                };
                failed = applied.err();
                wakes.extend(outcome.wakes);
                outcome.reply.unwrap_or(Reply::Done)
            }
            Err(No::Refused(refused)) => Reply::Refused(refused),
            Err(No::Store(failure)) => {
                failed = Some(failure);
                Reply::Refused(Refused::Storage)
            }
        };
        answers.push((job.reply, answer));
    }
    match failed {
        Some(failure) => Err(failure),
        None if wrote => store.commit(),
        None => Ok(()),
    }
}

/// Drops expired bodies, and logs expired invites; whether there are more.
fn expire(store: &mut dyn Store) -> Result<bool, StoreError> {
    let drop = |store: &mut dyn Store| {
        store.begin()?;
        let overdue = relay::overdue(store.as_read(), now())?;
        store.apply(&overdue)?;
        store.expire(now(), EXPIRE_AT_ONCE)
    };
    let done = drop(store);
    match done.and_then(|dropped| store.commit().map(|()| dropped)) {
        Ok(dropped) => Ok(dropped >= EXPIRE_AT_ONCE),
        Err(failure) => {
            warn!(%failure, "expired envelopes could not be dropped");
            undo(store, failure).map(|()| false)
        }
    }
}

#[cfg(test)]
mod tests;
