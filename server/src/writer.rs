//! The one writer: a thread that decides requests, commits them in groups, and only then answers.
//!
//! 1. It takes every request that waits at this moment, up to a bound.
//! 2. Each is decided by [`Rules`] on what the ones before it have applied.
//! 3. One commit makes them all durable: one sync.
//! 4. Replies go out, and the hub tells whoever listens.
//!
//! Invariant: no reply to a request that writes leaves before the commit that holds its writes has returned.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use privity_protocol::error::Refused;
use privity_protocol::frame::{Reply, Request};
use tokio::sync::{mpsc, oneshot};
use tracing::{error, warn};

use crate::clock::now;
use crate::hub::Hub;
use crate::policy::No;
use crate::relay::{From, Rules, Wake};
use crate::store::{Store, StoreError};

/// Requests that wait for the writer; beyond, links wait with reading more.
const WAITING_MAX: usize = 4096;
/// Requests in one commit: enough to make a sync cheap, few enough to keep its latency.
const GROUP_MAX: usize = 512;
/// How often expired envelopes are looked for, and how many go at once.
const EXPIRE_EVERY: Duration = Duration::from_secs(60);
const EXPIRE_AT_ONCE: usize = 1000;

/// A request on its way to the writer.
#[derive(Debug)]
struct Job {
    from: From,
    request: Request,
    reply: oneshot::Sender<Reply>,
}

/// The writer's end that links use.
#[derive(Debug, Clone)]
pub struct Writer(mpsc::Sender<Job>);

impl Writer {
    /// Starts the thread. It ends when every [`Writer`] is dropped, or when the store fails for good.
    ///
    /// # Errors
    /// [`std::io::Error`] if the system gives no thread.
    pub fn start(store: Box<dyn Store>, hub: Arc<Hub>) -> std::io::Result<(Self, JoinHandle<Result<(), StoreError>>)> {
        let (sender, receiver) = mpsc::channel(WAITING_MAX);
        let thread = std::thread::Builder::new().name("writer".to_owned()).spawn(move || run(store, &hub, receiver))?;
        Ok((Self(sender), thread))
    }

    /// Puts a request into the writer's queue, in the order called; its durable answer comes through the receiver.
    pub async fn enqueue(&self, from: From, request: Request) -> oneshot::Receiver<Reply> {
        let (reply, answer) = oneshot::channel();
        // Where the writer has ended, the dropped job closes the receiver.
        let _ended = self.0.send(Job { from, request, reply }).await;
        answer
    }

    /// Carries out a request and returns its durable answer.
    pub async fn ask(&self, from: From, request: Request) -> Reply {
        self.enqueue(from, request).await.await.unwrap_or(Reply::Refused(Refused::Storage))
    }
}

fn run(mut store: Box<dyn Store>, hub: &Hub, mut jobs: mpsc::Receiver<Job>) -> Result<(), StoreError> {
    let mut rules = Rules::default();
    let mut expired_at: Option<Instant> = None;
    let mut group = Vec::with_capacity(GROUP_MAX);
    while jobs.blocking_recv_many(&mut group, GROUP_MAX) > 0 {
        if expired_at.is_none_or(|at| at.elapsed() > EXPIRE_EVERY) {
            expired_at = Some(Instant::now());
            expire(store.as_mut());
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
            }
            Err(failure) => {
                error!(%failure, "the store failed; nothing of this group was acknowledged");
                for (reply, _) in answers {
                    let _gone = reply.send(Reply::Refused(Refused::Storage));
                }
                store.rollback()?;
                if !failure.is_disk_full() {
                    return Err(failure);
                }
            }
        }
    }
    store.commit()
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
        let answer = match rules.handle(store.as_read(), &job.from, &job.request, now()) {
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

fn expire(store: &mut dyn Store) {
    let done = store.begin().and_then(|()| store.expire(now(), EXPIRE_AT_ONCE)).and_then(|_| store.commit());
    if let Err(failure) = done {
        warn!(%failure, "expired envelopes could not be dropped; will try again");
        if let Err(failure) = store.rollback() {
            warn!(%failure, "and the transaction could not be undone");
        }
    }
}
