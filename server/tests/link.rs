//! A relay over QUIC on the loopback, seen by a device that is nothing but frames.

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use privity_protocol::frame::{
    AdmittedBody, Blob, Event, Founding, FromRelay, Hello, HelloBody, Instance, Interval, NewInvite, Part, Post,
    Registration, Reply, Request, Rights, ToRelay,
};
use privity_protocol::identity::{DeviceCertificate, Endorsement, Issuer, Role, Signed};
use privity_protocol::ids::{DeviceId, MailboxId, PersonId, Position, Timestamp};
use privity_protocol::invite::{Invite, InviteSecret, InviteStatement};
use privity_protocol::link::{Opening, Pin};
use privity_protocol::log::tree;
use privity_protocol::log::{Checkpoint, Leaf, TreeHash};
use privity_protocol::suite::{Digest, Label, SecretKey};
use privity_protocol::{error::Refused, limits};
use privity_server::config::Config;
use privity_server::{Relay, setup};
use privity_transport as transport;
use tempfile::TempDir;

type Done = Result<(), Box<dyn std::error::Error>>;

struct Founder {
    person: PersonId,
    device: DeviceId,
    link_key: SecretKey,
    mls_key: SecretKey,
    pin: Pin,
    address: SocketAddr,
    inbox: MailboxId,
    instance: Instance,
}

struct Link {
    _endpoint: quinn::Endpoint,
    connection: quinn::Connection,
    send: quinn::SendStream,
    receive: quinn::RecvStream,
    asked: u64,
    admitted: AdmittedBody,
}

impl Link {
    async fn open(founder: &Founder, device: Option<DeviceId>) -> Result<Self, Box<dyn std::error::Error>> {
        let mut endpoint = quinn::Endpoint::client(([127, 0, 0, 1], 0).into())?;
        endpoint.set_default_client_config(transport::client_config(&founder.link_key)?);
        let connection = endpoint.connect(founder.address, "privity")?.await?;
        let (mut send, mut receive) = connection.open_bi().await?;
        let channel = transport::channel(&connection)?;
        let device = device.map(|device| (device, founder.instance));
        let (opening, hello) = Opening::hello(channel, founder.pin.clone(), device, &founder.link_key, "test")?;
        transport::write(&mut send, &hello).await?;
        match transport::read(&mut receive, limits::HELLO_MAX).await? {
            FromRelay::Admitted(admitted) => {
                let admitted = opening.admitted(&admitted)?;
                Ok(Self { _endpoint: endpoint, connection, send, receive, asked: 0, admitted })
            }
            other => Err(format!("{other:?}").into()),
        }
    }

    async fn send(&mut self, request: Request) -> Result<u64, Box<dyn std::error::Error>> {
        self.asked += 1;
        transport::write(&mut self.send, &ToRelay { id: self.asked, request }).await?;
        Ok(self.asked)
    }

    async fn next(&mut self) -> Result<FromRelay, Box<dyn std::error::Error>> {
        let next = transport::read(&mut self.receive, limits::FRAME_MAX);
        Ok(tokio::time::timeout(Duration::from_secs(10), next).await??)
    }

    async fn reply(&mut self) -> Result<(u64, Reply), Box<dyn std::error::Error>> {
        loop {
            if let FromRelay::Reply { id, reply } = self.next().await? {
                return Ok((id, reply));
            }
        }
    }

    async fn ask(&mut self, request: Request) -> Result<Reply, Box<dyn std::error::Error>> {
        let id = self.send(request).await?;
        loop {
            if let (answered, reply) = self.reply().await?
                && answered == id
            {
                return Ok(reply);
            }
        }
    }

    /// The seqs of the next `count` entries.
    async fn entries(&mut self, count: usize) -> Result<Vec<u64>, Box<dyn std::error::Error>> {
        let mut seqs = Vec::new();
        while seqs.len() < count {
            if let FromRelay::Event(Event::Entries { entries, .. }) = self.next().await? {
                seqs.extend(entries.iter().map(|entry| entry.seq));
            }
        }
        Ok(seqs)
    }
}

fn post(idem: u64, parts: Vec<Part>) -> Request {
    Request::Post(Post { idem, mac: Digest::of(&[b"mac"]), parts })
}

fn append(mailbox: MailboxId, base: Position, fence: bool, envelope: Vec<u8>) -> Part {
    Part::Append { mailbox, base, fence, envelope: Blob(envelope), keep_ms: 1_000_000 }
}

/// A relay whose organisation is founded, and the founder's device.
async fn founded() -> Result<(TempDir, Relay, Founder), Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    let free = UdpSocket::bind("127.0.0.1:0")?.local_addr()?;
    let first = setup::init(folder.path(), &Config::new("Smith & Partners", free, None)?)?;
    let relay = Relay::start(folder.path())?;
    let invite: Invite = first.url.parse()?;
    let (person_key, organisation) = (SecretKey::generate(), SecretKey::generate());
    let founder = Founder {
        person: PersonId::of(&person_key.public()?),
        device: DeviceId::random(),
        link_key: SecretKey::generate(),
        mls_key: SecretKey::generate(),
        pin: Pin::Fingerprint(invite.relay),
        address: relay.address(),
        inbox: MailboxId::random(),
        instance: Instance::after(None),
    };
    let registration = founding(&founder, &invite.secret, &person_key, &organisation)?;
    let mut link = Link::open(&founder, None).await?;
    assert_eq!(link.ask(Request::Register(Box::new(registration))).await?, Reply::Done);
    link.connection.close(transport::CLOSE_DONE, b"");
    Ok((folder, relay, founder))
}

fn founding(
    founder: &Founder,
    secret: &InviteSecret,
    person_key: &SecretKey,
    organisation: &SecretKey,
) -> Result<Registration, Box<dyn std::error::Error>> {
    let said = Endorsement {
        person: founder.person,
        person_key: person_key.public()?.digest(),
        role: Role::Attorney,
        registrar: true,
        handle: "ada".to_owned(),
        name: Digest::of(&[b"name"]),
        issuer: None,
        from: Timestamp(0),
        until: Timestamp(u64::MAX),
        confirmed: false,
        adopted: false,
        after: None,
    };
    let endorsement = Signed::make(Label::Endorsement, organisation, &said)?;
    let organisation = Some(Founding { key: organisation.public()?, endorsement });
    Ok(Registration { organisation, ..registration(founder, secret, person_key, "ada", Role::Attorney)? })
}

fn registration(
    who: &Founder,
    secret: &InviteSecret,
    person_key: &SecretKey,
    handle: &str,
    role: Role,
) -> Result<Registration, Box<dyn std::error::Error>> {
    let certificate = DeviceCertificate {
        person: who.person,
        device: who.device,
        link_key: who.link_key.public()?.digest(),
        mls_key: who.mls_key.public()?,
        made_at: Timestamp(1),
    };
    Ok(Registration {
        invite: secret.id(),
        token: secret.token(),
        person: who.person,
        person_key: person_key.public()?,
        certificate: Signed::make(Label::DeviceCertificate, person_key, &certificate)?,
        handle: handle.to_owned(),
        role,
        name: Vec::new(),
        proof: Digest::of(&[b"proof"]),
        inbox: who.inbox,
        organisation: None,
        revocations: Vec::new(),
    })
}

/// Somebody else at the same relay.
fn another(founder: &Founder) -> Founder {
    Founder {
        person: PersonId::random(),
        device: DeviceId::random(),
        link_key: SecretKey::generate(),
        mls_key: SecretKey::generate(),
        pin: founder.pin.clone(),
        address: founder.address,
        inbox: MailboxId::random(),
        instance: Instance::after(None),
    }
}

/// A client who has registered with an invite of the founder's, and their person key.
async fn join(
    link: &mut Link,
    founder: &Founder,
    handle: &str,
) -> Result<(Founder, SecretKey), Box<dyn std::error::Error>> {
    let (person_key, secret) = (SecretKey::generate(), InviteSecret::random());
    let newcomer = Founder { person: PersonId::of(&person_key.public()?), ..another(founder) };
    let issuer = Issuer { person: founder.person, device: founder.device };
    let expires = link.admitted.now.plus_ms(60_000);
    let statement = InviteStatement {
        invite: secret.id(),
        issuer,
        role: Role::Client,
        handle: None,
        name: None,
        expires,
        links: None,
        replaces: None,
    };
    let statement = Signed::make(Label::Invite, &founder.mls_key, &statement)?;
    let filed = NewInvite { token_hash: secret.token_hash(), statement, name: None };
    assert_eq!(link.ask(Request::Invite(filed)).await?, Reply::Done);
    let mut joining = Link::open(&newcomer, None).await?;
    let opened = joining.ask(Request::OpenInvite { invite: secret.id(), token: secret.token() }).await?;
    assert!(matches!(opened, Reply::Invite(_)), "{opened:?}");
    let registration = registration(&newcomer, &secret, &person_key, handle, Role::Client)?;
    assert_eq!(joining.ask(Request::Register(Box::new(registration))).await?, Reply::Done);
    Ok((newcomer, person_key))
}

/// The founder vouches for a client.
fn endorse(
    founder: &Founder,
    newcomer: &Founder,
    person_key: &SecretKey,
    handle: &str,
) -> Result<Request, Box<dyn std::error::Error>> {
    let said = Endorsement {
        person: newcomer.person,
        person_key: person_key.public()?.digest(),
        role: Role::Client,
        registrar: false,
        handle: handle.to_owned(),
        name: Digest::of(&[b"name"]),
        issuer: Some(Issuer { person: founder.person, device: founder.device }),
        from: Timestamp(0),
        until: Timestamp(u64::MAX),
        confirmed: false,
        adopted: false,
        after: None,
    };
    let endorsement = Signed::make(Label::Endorsement, &founder.mls_key, &said)?;
    Ok(Request::Endorse { person: newcomer.person, endorsement })
}

#[tokio::test]
async fn what_was_asked_first_is_answered_first_and_seen_by_what_comes_after() -> Done {
    let (_folder, relay, founder) = founded().await?;
    let mut link = Link::open(&founder, Some(founder.device)).await?;
    assert!(link.admitted.ready);
    for round in 0..20 {
        let mailbox = MailboxId::random();
        let start = Position::start(mailbox);
        let asked = [
            link.send(post(round + 1, vec![Part::Create { mailbox }, append(mailbox, start, true, vec![1; 100])]))
                .await?,
            link.send(Request::Subscribe { mailbox, after: None }).await?,
            link.send(Request::People).await?,
        ];
        let posted = link.reply().await?;
        assert_eq!(posted, (asked[0], Reply::Posted { seqs: vec![1] }));
        let (id, subscribed) = link.reply().await?;
        // Subscribed before it was created, it was once "not found".
        assert_eq!((id, subscribed), (asked[1], Reply::Subscribed { start, head: 1 }));
        assert_eq!(link.reply().await?.0, asked[2]);
    }
    tokio::task::spawn_blocking(move || relay.stop()).await??;
    Ok(())
}

#[tokio::test]
async fn entries_come_in_order_without_gaps_from_store_and_push() -> Done {
    let (_folder, _relay, founder) = founded().await?;
    let mut writer = Link::open(&founder, Some(founder.device)).await?;
    let mailbox = MailboxId::random();
    let base = Position::start(mailbox);
    let mut links = Vec::new();
    let mut parts = vec![Part::Create { mailbox }];
    for handle in ["bob", "cyd"] {
        let (newcomer, person_key) = join(&mut writer, &founder, handle).await?;
        let endorse = endorse(&founder, &newcomer, &person_key, handle)?;
        assert_eq!(writer.ask(endorse).await?, Reply::Done);
        let (device, rights) = (newcomer.device, Rights::READ);
        parts.push(Part::Grant { mailbox, device, rights, resume: false });
        links.push(Link::open(&newcomer, Some(device)).await?);
    }
    let (mut reader, mut stalled) = (links.remove(0), links.remove(0));
    writer.ask(post(1, parts)).await?;
    // Somebody who never reads holds up nobody.
    stalled.send(Request::Subscribe { mailbox, after: None }).await?;
    // More than the push queue holds, so that the reader falls behind and comes back to the store.
    let body = 200_000;
    for idem in 2..22 {
        writer.send(post(idem, vec![append(mailbox, base, false, vec![7; body])])).await?;
    }
    reader.ask(Request::Subscribe { mailbox, after: None }).await?;
    for idem in 22..42 {
        writer.send(post(idem, vec![append(mailbox, base, false, vec![7; body])])).await?;
    }
    let (seqs, replies) = tokio::join!(reader.entries(40), async {
        for _ in 0..40 {
            writer.reply().await?;
        }
        Ok::<_, Box<dyn std::error::Error>>(())
    });
    replies?;
    assert_eq!(seqs?, (1..=40).collect::<Vec<u64>>());
    Ok(())
}

#[tokio::test]
async fn a_position_that_the_relay_does_not_have_is_answered_with_its_own() -> Done {
    let (_folder, _relay, founder) = founded().await?;
    let mut link = Link::open(&founder, Some(founder.device)).await?;
    let mailbox = MailboxId::random();
    let start = Position::start(mailbox);
    link.ask(post(1, vec![Part::Create { mailbox }, append(mailbox, start, true, vec![1; 10])])).await?;
    let here = start.next(true, &Digest::of(&[&[1; 10]]));
    let ahead = Position { seq: 7, chain: Digest::of(&[b"more than there is"]) };
    let fork = Position { seq: 1, chain: Digest::of(&[b"another history"]) };
    for asked in [ahead, fork, Position { seq: u64::MAX, ..ahead }] {
        let reply = link.ask(Request::Subscribe { mailbox, after: Some(asked) }).await?;
        assert_eq!(reply, Reply::Subscribed { start: here, head: 1 }, "{asked:?}");
    }
    let reply = link.ask(Request::Subscribe { mailbox: MailboxId::random(), after: None }).await?;
    assert!(matches!(reply, Reply::Refused(Refused::NotFound { .. })));
    Ok(())
}

#[tokio::test]
async fn idle_devices_do_not_hold_up_the_end() -> Done {
    let (folder, relay, founder) = founded().await?;
    let mut links = Vec::new();
    for device in [Some(founder.device), None, None] {
        links.push(Link::open(&founder, device).await?);
    }
    let at = Instant::now();
    tokio::task::spawn_blocking(move || relay.stop()).await??;
    assert!(at.elapsed() < Duration::from_secs(8), "{:?}", at.elapsed());
    for link in links {
        let ended = link.connection.closed().await;
        assert!(
            matches!(&ended, quinn::ConnectionError::ApplicationClosed(close) if close.error_code == transport::CLOSE_GOING),
            "{ended}"
        );
    }
    tokio::task::spawn_blocking(move || Relay::start(folder.path()).map(|_| ())).await??;
    Ok(())
}

/// The database loses a table under the running relay: the next write fails, and not for want of room.
#[tokio::test]
async fn a_database_that_fails_ends_the_relay_with_an_error() -> Done {
    let (folder, mut relay, founder) = founded().await?;
    let mut link = Link::open(&founder, Some(founder.device)).await?;
    let database = rusqlite::Connection::open(folder.path().join("relay.db"))?;
    database.execute_batch("DROP TABLE idems")?;
    // The refusal and the end of the link race; either tells the device to post it again.
    if let Ok(reply) = link.ask(post(1, vec![Part::Create { mailbox: MailboxId::random() }])).await {
        assert_eq!(reply, Reply::Refused(Refused::Storage));
    }
    tokio::time::timeout(Duration::from_secs(10), relay.ended()).await?;
    let failure =
        tokio::task::spawn_blocking(move || relay.stop()).await?.err().ok_or("it stopped without an error")?;
    assert!(!failure.is_wrong_use(), "exit code 2");
    assert!(failure.to_string().contains("start the relay again"), "{failure}");
    Ok(())
}

#[tokio::test]
async fn a_device_has_one_link_and_a_new_one_takes_the_place_of_the_one_before() -> Done {
    let (_folder, _relay, founder) = founded().await?;
    let mut old = Link::open(&founder, Some(founder.device)).await?;
    for _ in 0..3 {
        let mut new = Link::open(&founder, Some(founder.device)).await?;
        tokio::time::timeout(Duration::from_secs(1), old.connection.closed()).await?;
        assert!(matches!(new.ask(Request::People).await?, Reply::People { .. }));
        old = new;
    }
    Ok(())
}

/// Posts of a device in flight, one after the other, until its link is closed.
fn flood(mut link: Link, mailbox: MailboxId, base: Position, first: u64) -> tokio::task::JoinHandle<()> {
    tokio::spawn(async move {
        for idem in first..first + 20_000 {
            if link.send(post(idem, vec![append(mailbox, base, false, vec![7; 10_000])])).await.is_err() {
                break;
            }
        }
        link.connection.closed().await;
    })
}

/// A copy that is online does not know of the other; what it is shown must be all that there is, and all that there will be.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_of_an_old_link_lands_after_the_new_one_was_shown_the_newest_idem() -> Done {
    let (_folder, _relay, founder) = founded().await?;
    let mut link = Link::open(&founder, Some(founder.device)).await?;
    let mailbox = MailboxId::random();
    let base = Position::start(mailbox);
    link.ask(post(1, vec![Part::Create { mailbox }])).await?;
    for round in 0..10_u64 {
        let shown = link.admitted.idem.as_ref().map_or(1, |idem| idem.idem);
        let posting = flood(link, mailbox, base, shown + 1);
        tokio::time::sleep(Duration::from_millis(20 * round)).await;
        link = Link::open(&founder, Some(founder.device)).await?;
        let shown = link.admitted.idem.as_ref().map_or(0, |idem| idem.idem);
        for pause_ms in [0, 20, 100] {
            tokio::time::sleep(Duration::from_millis(pause_ms)).await;
            let Reply::Subscribed { head, .. } = link.ask(Request::Subscribe { mailbox, after: None }).await? else {
                return Err("subscribed".into());
            };
            assert_eq!(
                head,
                shown - 1,
                "in round {round}, after {pause_ms} ms: each Post has one entry, but for the first"
            );
        }
        tokio::time::timeout(Duration::from_secs(2), posting).await??;
    }
    Ok(())
}

/// Two copies of one profile: the other must see that an idem is used, even if nothing came of it.
#[tokio::test]
async fn a_refused_post_is_shown_to_the_next_link_and_survives_a_restart() -> Done {
    let (folder, relay, mut founder) = founded().await?;
    let mut link = Link::open(&founder, Some(founder.device)).await?;
    let mailbox = MailboxId::random();
    let start = Position::start(mailbox);
    link.ask(post(1, vec![Part::Create { mailbox }, append(mailbox, start, true, vec![1])])).await?;
    let stale = vec![append(mailbox, start, false, vec![2])];
    let refused = link.ask(post(2, stale.clone())).await?;
    assert_eq!(refused, Reply::Refused(Refused::Stale { latest: 1 }));
    let shown = |link: &Link| link.admitted.idem.as_ref().map(|idem| (idem.idem, idem.parts, idem.mac));
    let expected = Some((2, Post::parts_digest(&stale), Digest::of(&[b"mac"])));
    assert_eq!(shown(&Link::open(&founder, Some(founder.device)).await?), expected);
    let path = folder.path().to_owned();
    let relay = tokio::task::spawn_blocking(move || relay.stop().and_then(|()| Relay::start(&path))).await??;
    founder.address = relay.address();
    let mut link = Link::open(&founder, Some(founder.device)).await?;
    assert_eq!(shown(&link), expected);
    let base = start.next(true, &Digest::of(&[&[1]]));
    let again = link.ask(post(2, vec![append(mailbox, base, false, vec![2])])).await?;
    assert_eq!(again, Reply::Posted { seqs: vec![2] }, "it was not accepted, so it is judged anew");
    Ok(())
}

#[tokio::test]
async fn a_device_that_is_removed_reads_up_to_its_removal() -> Done {
    let (_folder, _relay, founder) = founded().await?;
    let mut link = Link::open(&founder, Some(founder.device)).await?;
    let mailbox = MailboxId::random();
    let device = founder.device;
    let start = Position::start(mailbox);
    link.ask(post(1, vec![Part::Create { mailbox }, append(mailbox, start, true, vec![1])])).await?;
    link.ask(Request::Subscribe { mailbox, after: None }).await?;
    let base = start.next(true, &Digest::of(&[&[1]]));
    link.send(post(2, vec![append(mailbox, base, true, vec![2]), Part::Revoke { mailbox, device }])).await?;
    assert_eq!(link.entries(2).await?, [1, 2]);
    loop {
        if let FromRelay::Event(Event::Ended { mailbox: ended }) = link.next().await? {
            assert_eq!(ended, mailbox);
            break;
        }
    }
    let denied = link.ask(post(3, vec![append(mailbox, base, false, vec![3])])).await?;
    assert!(matches!(denied, Reply::Refused(Refused::NotAllowed { .. })), "{denied:?}");
    let rights = Rights::MEMBER;
    let denied = link.ask(post(3, vec![Part::Grant { mailbox, device, rights, resume: false }])).await?;
    assert!(matches!(denied, Reply::Refused(Refused::NotAllowed { .. })), "{denied:?}");
    Ok(())
}

#[tokio::test]
async fn what_a_link_has_endorsed_it_no_longer_finds_among_newcomers() -> Done {
    let (_folder, _relay, founder) = founded().await?;
    let mut link = Link::open(&founder, Some(founder.device)).await?;
    let mut asked = Vec::new();
    for handle in ["bob", "cyd", "dan"] {
        let (newcomer, person_key) = join(&mut link, &founder, handle).await?;
        let Reply::Newcomers { newcomers } = link.ask(Request::Newcomers).await? else {
            return Err("newcomers".into());
        };
        assert_eq!(newcomers.len(), 1);

        asked.push(link.send(endorse(&founder, &newcomer, &person_key, handle)?).await?);
        asked.push(link.send(Request::Newcomers).await?);
        assert_eq!(link.reply().await?, (asked[0], Reply::Done));
        assert_eq!(link.reply().await?, (asked[1], Reply::Newcomers { newcomers: Vec::new() }));
        asked.clear();
    }
    Ok(())
}

#[tokio::test]
async fn a_roster_is_asked_for_and_answered_after_what_was_posted_before() -> Done {
    let (_folder, _relay, founder) = founded().await?;
    let mut link = Link::open(&founder, Some(founder.device)).await?;
    for round in 1..=20 {
        let mailbox = MailboxId::random();
        let start = Position::start(mailbox);
        link.send(post(round, vec![Part::Create { mailbox }, append(mailbox, start, true, vec![1])])).await?;
        link.send(Request::Roster { mailbox }).await?;
        assert_eq!(link.reply().await?.1, Reply::Posted { seqs: vec![1] });
        let grants = vec![Interval { device: founder.device, rights: Rights::MANAGER, from: 0 }];
        let fence = start.next(true, &Digest::of(&[&[1]]));
        assert_eq!(link.reply().await?.1, Reply::Roster { grants, fence });
    }
    Ok(())
}

#[tokio::test]
async fn entries_name_their_author_from_store_and_push() -> Done {
    let (_folder, _relay, founder) = founded().await?;
    let mut link = Link::open(&founder, Some(founder.device)).await?;
    let mailbox = MailboxId::random();
    let start = Position::start(mailbox);
    link.ask(post(1, vec![Part::Create { mailbox }, append(mailbox, start, true, vec![1])])).await?;
    link.ask(Request::Subscribe { mailbox, after: None }).await?;
    let base = start.next(true, &Digest::of(&[&[1]]));
    let mut seqs = Vec::new();
    while seqs.len() < 2 {
        if let FromRelay::Event(Event::Entries { entries, .. }) = link.next().await? {
            assert!(entries.iter().all(|entry| entry.by == Some(founder.device)), "{entries:?}");
            seqs.extend(entries.iter().map(|entry| entry.seq));
            if seqs.len() == 1 {
                link.send(post(2, vec![append(mailbox, base, false, vec![2])])).await?;
            }
        }
    }
    Ok(())
}

/// The links of an older copy are told, and it comes in no more; key packages that it may have the private halves of are gone.
#[tokio::test]
async fn a_newer_copy_takes_over_and_the_older_one_is_told() -> Done {
    let (folder, relay, mut founder) = founded().await?;
    let mut old = Link::open(&founder, Some(founder.device)).await?;
    let package = || Blob(vec![1; 100]);
    let publish = Request::PublishKeyPackages { single_use: vec![package(), package()], last_resort: Some(package()) };
    assert_eq!(old.ask(publish).await?, Reply::Done);
    let first = founder.instance;
    let mut old = Link::open(&founder, Some(founder.device)).await?;
    assert_eq!(old.admitted.key_packages, 2);

    founder.instance = Instance::after(Some(first));
    let mut new = Link::open(&founder, Some(founder.device)).await?;
    assert_eq!(new.admitted.key_packages, 0);
    let taken = new.ask(Request::TakeKeyPackages { person: founder.person, device: None }).await?;
    assert_eq!(taken, Reply::KeyPackages { packages: Vec::new() }, "the last-resort one is gone too");
    assert_eq!(old.next().await?, FromRelay::Refused(Refused::Replaced));
    let ended = old.connection.closed().await;
    assert!(
        matches!(&ended, quinn::ConnectionError::ApplicationClosed(close) if close.error_code == transport::CLOSE_REFUSED),
        "{ended}"
    );
    let second = founder.instance;
    tokio::task::spawn_blocking(move || relay.stop()).await??;
    let path = folder.path().to_owned();
    let relay = tokio::task::spawn_blocking(move || Relay::start(&path)).await??;
    founder.address = relay.address();
    for instance in [first, Instance { number: second.number, ..Instance::after(None) }] {
        founder.instance = instance;
        let refused = Link::open(&founder, Some(founder.device)).await.err().ok_or("it was admitted")?;
        assert!(refused.to_string().contains("Replaced"), "{refused}");
    }
    founder.instance = second;
    Link::open(&founder, Some(founder.device)).await?;
    Ok(())
}

#[tokio::test]
async fn a_known_device_that_says_no_instance_is_refused_as_malformed() -> Done {
    let (_folder, _relay, founder) = founded().await?;
    let mut endpoint = quinn::Endpoint::client(([127, 0, 0, 1], 0).into())?;
    endpoint.set_default_client_config(transport::client_config(&founder.link_key)?);
    let connection = endpoint.connect(founder.address, "privity")?.await?;
    let (mut send, mut receive) = connection.open_bi().await?;
    let body = HelloBody {
        newest: 1,
        lowest: 1,
        device: Some(founder.device),
        link_key: founder.link_key.public()?,
        agent: "test".to_owned(),
        instance: None,
    };
    let body = privity_protocol::cbor::encode(&body);
    let said = [&transport::channel(&connection)?.exporter[..], &body].concat();
    let signature = founder.link_key.sign_ed25519(Label::HelloDevice, &said)?;
    transport::write(&mut send, &Hello { body, signature }).await?;
    let answer: FromRelay = transport::read(&mut receive, limits::HELLO_MAX).await?;
    assert!(matches!(answer, FromRelay::Refused(Refused::Malformed { .. })), "{answer:?}");
    Ok(())
}

/// Held open and used for nothing, it once kept its place for 40 seconds.
#[tokio::test]
async fn a_newcomers_link_gives_its_place_back_in_time() -> Done {
    let (_folder, _relay, founder) = founded().await?;
    let link = Link::open(&another(&founder), None).await?;
    let at = Instant::now();
    let most = Duration::from_millis(limits::NEWCOMER_MS);
    tokio::time::timeout(most + Duration::from_secs(3), link.connection.closed()).await?;
    assert!(at.elapsed() + Duration::from_secs(1) > most, "{:?}", at.elapsed());
    Ok(())
}

#[tokio::test]
async fn a_restored_relay_has_forgotten_the_end_and_shows_another_incarnation() -> Done {
    let (folder, relay, mut founder) = founded().await?;
    let mut link = Link::open(&founder, Some(founder.device)).await?;
    let mailbox = MailboxId::random();
    let start = Position::start(mailbox);
    link.ask(post(1, vec![Part::Create { mailbox }, append(mailbox, start, true, vec![1])])).await?;
    let backup = folder.path().join("backup.db");
    let database = rusqlite::Connection::open(folder.path().join("relay.db"))?;
    database.execute("VACUUM INTO ?1", [backup.to_str()])?;
    let base = start.next(true, &Digest::of(&[&[1]]));
    link.ask(post(2, vec![append(mailbox, base, false, vec![2])])).await?;
    drop(database);
    let data = folder.path().to_owned();
    let relay = tokio::task::spawn_blocking(move || {
        relay.stop()?;
        privity_server::restore::restore(&data, Some(&backup))?;
        Relay::start(&data)
    });
    let relay = relay.await??;
    founder.address = relay.address();
    let mut again = Link::open(&founder, Some(founder.device)).await?;
    assert_ne!(again.admitted.incarnation, link.admitted.incarnation);
    assert_eq!(again.admitted.idem.as_ref().map(|idem| idem.idem), Some(1));
    let after = Some(base.next(false, &Digest::of(&[&[2]])));
    let here = again.ask(Request::Subscribe { mailbox, after }).await?;
    assert_eq!(here, Reply::Subscribed { start: base, head: 1 }, "where it stands now, and nothing is subscribed");
    assert!(matches!(again.ask(Request::People).await?, Reply::People { people } if people.len() == 1));
    Ok(())
}

/// What is acknowledged is in the very next checkpoint, provably, and on disk when the relay has stopped.
#[tokio::test]
async fn what_a_device_did_is_in_the_log_that_the_relay_signs() -> Done {
    let (folder, relay, founder) = founded().await?;
    let mut link = Link::open(&founder, Some(founder.device)).await?;
    let Reply::Checkpoint { note: before, keys } = link.ask(Request::Checkpoint).await? else {
        return Err("no checkpoint".into());
    };
    let verifier = keys.verifier(&link.admitted.relay_key)?;
    let before = verifier.open(&before)?.0;
    assert_eq!(
        link.ask(post(1, vec![Part::Create { mailbox: MailboxId::random() }])).await?,
        Reply::Posted { seqs: vec![] }
    );
    let Reply::Checkpoint { note, .. } = link.ask(Request::Checkpoint).await? else {
        return Err("no checkpoint".into());
    };
    let Checkpoint { size, root, .. } = verifier.open(&note)?.0;
    assert_eq!(size, before.size + 1);
    let asked = Request::Consistency { from: before.size, to: size };
    let Reply::Consistency { proof } = link.ask(asked).await? else { return Err("no proof".into()) };
    tree::verify_consistency((before.size, &before.root), (size, &root), &proof)?;
    let asked = Request::History { person: founder.person, after: 0, size };
    let Reply::History { leaves, more: false } = link.ask(asked).await? else { return Err("no history".into()) };
    let mut names = Vec::new();
    for proved in leaves {
        tree::verify_inclusion(&TreeHash::leaf(&proved.leaf), proved.index, size, &proved.proof, &root)?;
        names.push(Leaf::decode(&proved.leaf)?.open(&proved.opening.ok_or("sealed")?)?.act.name());
    }
    assert_eq!(names, ["registered", "device-added", "endorsed", "mailbox-created"]);
    let mut stranger = Link::open(&another(&founder), None).await?;
    assert!(matches!(stranger.ask(Request::Checkpoint).await?, Reply::Refused(Refused::NotAllowed { .. })));
    tokio::task::spawn_blocking(move || relay.stop()).await??;
    let on_disk = std::fs::read_to_string(folder.path().join("audit/checkpoint"))?;
    assert_eq!(verifier.open(&on_disk)?.0.root, root);
    Ok(())
}

/// Readers answer who opens an invite; a refusal still gets its leaf.
#[tokio::test]
async fn opening_an_expired_invite_is_refused_and_logged() -> Done {
    let (_folder, _relay, founder) = founded().await?;
    let mut link = Link::open(&founder, Some(founder.device)).await?;
    let secret = InviteSecret::random();
    let issuer = Issuer { person: founder.person, device: founder.device };
    let expires = Timestamp(link.admitted.now.0.saturating_sub(1));
    let (role, handle, name) = (Role::Client, None, None);
    let statement =
        InviteStatement { invite: secret.id(), issuer, role, handle, name, expires, links: None, replaces: None };
    let statement = Signed::make(Label::Invite, &founder.mls_key, &statement)?;
    let filed = NewInvite { token_hash: secret.token_hash(), statement, name: None };
    assert_eq!(link.ask(Request::Invite(filed)).await?, Reply::Done);
    let mut late = Link::open(&another(&founder), None).await?;
    let refused = late.ask(Request::OpenInvite { invite: secret.id(), token: secret.token() }).await?;
    assert!(matches!(refused, Reply::Refused(Refused::Invite { .. })), "{refused:?}");
    let Reply::Checkpoint { note, keys } = link.ask(Request::Checkpoint).await? else {
        return Err("no checkpoint".into());
    };
    let size = keys.verifier(&link.admitted.relay_key)?.open(&note)?.0.size;
    let asked = Request::History { person: founder.person, after: 3, size };
    let Reply::History { leaves, .. } = link.ask(asked).await? else { return Err("no history".into()) };
    let mut names = Vec::new();
    for proved in leaves {
        names.push(Leaf::decode(&proved.leaf)?.open(&proved.opening.ok_or("sealed")?)?.act.name());
    }
    assert_eq!(names, ["invite-made", "invite-refused"]);
    Ok(())
}

#[tokio::test]
async fn whoever_tries_invites_in_vain_again_and_again_waits() -> Done {
    let (_folder, _relay, founder) = founded().await?;
    let secret = InviteSecret::random();
    let mut refused = 0;
    let waits = 'tries: loop {
        let mut link = Link::open(&another(&founder), None).await?;
        for _ in 0..8 {
            match link.ask(Request::OpenInvite { invite: secret.id(), token: secret.token() }).await? {
                Reply::Refused(Refused::Invite { .. }) => refused += 1,
                Reply::Refused(Refused::Slow { after_ms }) => break 'tries after_ms,
                other => return Err(format!("{other:?}").into()),
            }
            assert!(refused < 1000, "nobody waits");
        }
    };
    assert!(refused >= 32 && (1..=2000).contains(&waits), "{refused} {waits}");
    Ok(())
}
