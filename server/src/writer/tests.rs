//! What becomes of requests when the disk fails under them.

use privity_protocol::frame::{Blob, Post};
use privity_protocol::ids::{DeviceId, PersonId};
use privity_protocol::suite::Digest;
use tokio::runtime::Runtime;

use super::*;
use crate::policy::Caller;
use crate::store::memory::{Disk, Memory};
use crate::store::{Read, Write};

/// An admitted device, and a request of its.
fn publish(store: &mut Memory) -> (From, Request) {
    let instance = Instance::after(None);
    let caller = Caller { device: DeviceId::random(), person: PersonId::random(), instance };
    store.begin().unwrap();
    store.apply(&[Write::Instance { device: caller.device, instance }]).unwrap();
    store.commit().unwrap();
    let request = Request::PublishKeyPackages { single_use: vec![Blob(vec![1; 100])], last_resort: None };
    (From::Device(caller), request)
}

fn device(from: &From) -> DeviceId {
    match from {
        From::Device(caller) => caller.device,
        From::Newcomer(_) => unreachable!(),
    }
}

/// A link of the device.
fn link(hub: &Hub, from: &From) -> Arc<Outbox> {
    match from {
        From::Device(caller) => hub.join(*caller),
        From::Newcomer(_) => unreachable!(),
    }
}

fn writer(store: Memory) -> (Writer, WriterThread) {
    Writer::start(Box::new(store), Arc::default(), Bell::default()).unwrap()
}

fn left(store: &Memory, from: &From) -> u32 {
    store.reopen().key_packages_left(device(from)).unwrap()
}

#[test]
fn what_is_answered_with_done_is_durable() {
    let runtime = Runtime::new().unwrap();
    let mut store = Memory::new();
    let (from, request) = publish(&mut store);
    let disk = store.reopen();
    let (writer, thread) = writer(store);
    assert_eq!(runtime.block_on(writer.ask(from.clone(), request)), Reply::Done);
    assert_eq!(left(&disk, &from), 1);
    drop(writer);
    thread.join().unwrap().unwrap();
}

#[test]
fn a_full_disk_is_answered_with_storage_and_the_relay_goes_on() {
    let runtime = Runtime::new().unwrap();
    let mut store = Memory::new();
    let (from, request) = publish(&mut store);
    let (disk, found) = (store.disk(), store.reopen());
    let (writer, thread) = writer(store);
    *disk.lock().unwrap() = Disk::Full;
    for _ in 0..2 {
        let reply = runtime.block_on(writer.ask(from.clone(), request.clone()));
        assert_eq!(reply, Reply::Refused(Refused::Storage));
    }
    assert_eq!(left(&found, &from), 0);
    *disk.lock().unwrap() = Disk::Fine;
    assert_eq!(runtime.block_on(writer.ask(from.clone(), request)), Reply::Done);
    assert_eq!(left(&found, &from), 1, "nothing of what was refused came along");
    drop(writer);
    thread.join().unwrap().unwrap();
}

#[test]
fn any_other_failure_refuses_what_waits_and_ends_the_writer() {
    let runtime = Runtime::new().unwrap();
    let mut store = Memory::new();
    let asked: Vec<_> = (0..50).map(|_| publish(&mut store)).collect();
    let (disk, found) = (store.disk(), store.reopen());
    let (writer, thread) = writer(store);
    *disk.lock().unwrap() = Disk::Broken;
    runtime.block_on(async {
        let mut answers = Vec::new();
        for (from, request) in asked.clone() {
            let link = link(&Hub::default(), &from);
            answers.push(writer.enqueue(&link, from, request).await.unwrap());
        }
        for answer in answers {
            let reply = answer.await.unwrap_or(Reply::Refused(Refused::Storage));
            assert_eq!(reply, Reply::Refused(Refused::Storage));
        }
        let (from, request) = asked[0].clone();
        assert_eq!(writer.ask(from, request).await, Reply::Refused(Refused::Storage), "and whoever comes later");
    });
    assert!(thread.join().unwrap().is_err());
    assert!(asked.iter().all(|(from, _)| left(&found, from) == 0));
}

/// An instance that is told that it is admitted stays it after a power cut.
#[test]
fn an_instance_takes_over_durably_or_not_at_all() {
    let runtime = Runtime::new().unwrap();
    let mut store = Memory::new();
    let (from, request) = publish(&mut store);
    let (device, old) = match &from {
        From::Device(caller) => (caller.device, caller.instance),
        From::Newcomer(_) => unreachable!(),
    };
    let new = Instance::after(Some(old));
    let (disk, found) = (store.disk(), store.reopen());
    let stored = || found.reopen().instance(device).unwrap();
    let (writer, thread) = writer(store);
    assert_eq!(runtime.block_on(writer.ask(from.clone(), request.clone())), Reply::Done);
    *disk.lock().unwrap() = Disk::Full;
    assert_eq!(runtime.block_on(writer.admit(device, new)), Reply::Refused(Refused::Storage));
    assert_eq!((stored(), left(&found, &from)), (Some(old), 1));
    *disk.lock().unwrap() = Disk::Fine;
    assert_eq!(runtime.block_on(writer.admit(device, new)), Reply::Done);
    assert_eq!((stored(), left(&found, &from)), (Some(new), 0));
    assert_eq!(runtime.block_on(writer.admit(device, old)), Reply::Refused(Refused::Replaced));
    assert_eq!(runtime.block_on(writer.ask(from, request)), Reply::Refused(Refused::Replaced));
    drop(writer);
    thread.join().unwrap().unwrap();
}

/// A Post that the rules refuse: nobody has endorsed its author.
fn refused_post(store: &mut Memory) -> (From, Request) {
    let (from, _) = publish(store);
    (from, Request::Post(Post { idem: 7, mac: Digest::of(&[b"mac"]), parts: Vec::new() }))
}

#[test]
fn a_refusal_is_sent_once_it_is_durable_that_the_post_came() {
    let runtime = Runtime::new().unwrap();
    let mut store = Memory::new();
    let (from, request) = refused_post(&mut store);
    let (disk, found) = (store.disk(), store.reopen());
    let noted = || found.reopen().received(device(&from)).unwrap().map(|row| row.idem);
    let (writer, thread) = writer(store);
    *disk.lock().unwrap() = Disk::Full;
    let reply = runtime.block_on(writer.ask(from.clone(), request.clone()));
    assert_eq!((reply, noted()), (Reply::Refused(Refused::Storage), None));
    *disk.lock().unwrap() = Disk::Fine;
    let reply = runtime.block_on(writer.ask(from.clone(), request));
    assert!(matches!(reply, Reply::Refused(Refused::Malformed { .. })), "{reply:?}");
    assert_eq!(noted(), Some(7));
    drop(writer);
    thread.join().unwrap().unwrap();
}

/// Every step at which the store can die while a Post is refused, swept.
#[test]
fn wherever_the_store_dies_a_refusal_that_was_sent_is_noted() {
    for step in 1.. {
        let runtime = Runtime::new().unwrap();
        let mut store = Memory::new();
        let (from, request) = refused_post(&mut store);
        let found = store.reopen();
        store.crash_at(step);
        let (writer, thread) = writer(store);
        let reply = runtime.block_on(writer.ask(from.clone(), request));
        drop(writer);
        let died = thread.join().unwrap().is_err();
        let noted = found.reopen().received(device(&from)).unwrap().is_some();
        let sent = reply != Reply::Refused(Refused::Storage);
        assert!(noted || !sent, "at step {step}: {reply:?}");
        if !died {
            assert!(sent && step > 3, "the sweep went through every step");
            return;
        }
    }
}

/// It waits for room in the queue when a newer link takes its place.
#[test]
fn what_a_link_has_not_enqueued_when_it_is_closed_is_not_enqueued_later() {
    let runtime = Runtime::new().unwrap();
    let mut store = Memory::new();
    let (from, request) = publish(&mut store);
    let found = store.reopen();
    let (writer, thread) = writer(store);
    runtime.block_on(async {
        let hub = Hub::default();
        let old = link(&hub, &from);
        let room = Arc::clone(&writer.room).acquire_many_owned(WAITING_KIB_MAX).await.unwrap();
        let (sender, asked) = (writer.clone(), (from.clone(), request.clone()));
        let waiting = tokio::spawn(async move { sender.enqueue(&old, asked.0, asked.1).await.is_some() });
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(!waiting.is_finished(), "there is no room");
        let new = link(&hub, &from);
        drop(room);
        assert!(!waiting.await.unwrap());
        assert_eq!(left(&found, &from), 0);
        let answer = writer.enqueue(&new, from.clone(), request.clone()).await.unwrap();
        assert_eq!(answer.await.unwrap(), Reply::Done);
    });
    drop(writer);
    thread.join().unwrap().unwrap();
}

/// The disk is busy while an old link asks and a new one comes.
#[test]
fn an_instance_is_admitted_behind_what_its_link_before_has_enqueued() {
    let runtime = Runtime::new().unwrap();
    let mut store = Memory::new();
    let (from, request) = publish(&mut store);
    let From::Device(caller) = from else { unreachable!() };
    let (disk, found) = (store.disk(), store.reopen());
    let (writer, thread) = writer(store);
    let hub = Hub::default();
    let old = link(&hub, &from);
    let busy = disk.lock().unwrap();
    let enqueue = || runtime.block_on(writer.enqueue(&old, from.clone(), request.clone())).unwrap();
    let mut answers: Vec<_> = (0..5).map(|_| enqueue()).collect();
    let _new = link(&hub, &from);
    let (sender, Caller { device, instance, .. }) = (writer.clone(), caller);
    let admitted = runtime.spawn(async move { sender.admit(device, instance).await });
    std::thread::sleep(Duration::from_millis(50));
    assert!(!admitted.is_finished());
    drop(busy);
    assert_eq!(runtime.block_on(admitted).unwrap(), Reply::Done);
    assert_eq!(left(&found, &from), 5, "all that was enqueued is there");
    assert!(answers.iter_mut().all(|answer| answer.try_recv() == Ok(Reply::Done)));
    drop(writer);
    thread.join().unwrap().unwrap();
}

#[test]
fn no_frame_outweighs_the_queue() {
    let (from, request) = publish(&mut Memory::new());
    assert_eq!(weight_kib(&Ask::Request(from, request)), 1);
    assert!(privity_protocol::limits::FRAME_MAX / 1024 < WAITING_KIB_MAX as usize);
}
