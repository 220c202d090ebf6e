//! What becomes of requests when the disk fails under them.

use privity_protocol::frame::Blob;
use privity_protocol::ids::{DeviceId, PersonId};
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

fn writer(store: Memory) -> (Writer, WriterThread) {
    Writer::start(Box::new(store), Arc::default()).unwrap()
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
            answers.push(writer.enqueue(from, request).await);
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

#[test]
fn no_frame_outweighs_the_queue() {
    let (_, request) = publish(&mut Memory::new());
    assert_eq!(weight_kib(&request), 1);
    assert!(privity_protocol::limits::FRAME_MAX / 1024 < WAITING_KIB_MAX as usize);
}
