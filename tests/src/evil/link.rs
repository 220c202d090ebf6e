//! An evil relay's links: accepting, the hello, and two directions of frames.
//!
//! Invariant: the link's opening is the real one; with another key than the relay's nobody would talk to it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use privity_protocol::error::{Error, Refused};
use privity_protocol::frame::{FromRelay, Hello, ToRelay};
use privity_protocol::limits;
use privity_protocol::link::Claimed;
use privity_transport::{self as transport, TransportError};
use quinn::{Connection, Endpoint, Incoming, SendStream};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::timeout;

use super::inside::{Inside, Out};

/// How long a link stays to see its last word read.
const FAREWELL: Duration = Duration::from_secs(2);

pub(super) async fn serve(endpoint: Endpoint, inside: Arc<Mutex<Inside>>) {
    while let Some(incoming) = endpoint.accept().await {
        let inside = Arc::clone(&inside);
        tokio::spawn(async move {
            // Whoever goes away goes away.
            let _ended = link(incoming, &inside).await;
        });
    }
}

fn lock(inside: &Mutex<Inside>) -> MutexGuard<'_, Inside> {
    inside.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn link(incoming: Incoming, inside: &Arc<Mutex<Inside>>) -> Result<(), TransportError> {
    let connection = incoming.accept()?.await?;
    let (mut send, mut receive) = connection.accept_bi().await?;
    let hello: Hello = transport::read(&mut receive, limits::HELLO_MAX).await?;
    let (out, outgoing) = unbounded_channel();
    let claimed = match Claimed::read(transport::channel(&connection)?, &hello) {
        Ok(claimed) => claimed,
        Err(Error::Refused(refused)) => return refuse(&connection, send, refused).await,
        Err(error) => return refuse(&connection, send, Refused::not_allowed(error.to_string())).await,
    };
    let entered = lock(inside).enter(&claimed.body, claimed.version, out);
    let (number, body) = match entered {
        Ok(entered) => entered,
        Err(refused) => return refuse(&connection, send, refused).await,
    };
    let admitted = {
        let inside = lock(inside);
        claimed.admit(&body, &inside.key)
    };
    let Ok(admitted) = admitted else { return Err(TransportError::Key) };
    transport::write(&mut send, &FromRelay::Admitted(admitted)).await?;
    let reading = async {
        loop {
            let asked: ToRelay = transport::read(&mut receive, limits::FRAME_MAX).await?;
            lock(inside).request(number, asked);
        }
    };
    let ended: Result<(), TransportError> = tokio::select! {
        ended = reading => ended,
        ended = write(send, outgoing) => ended,
    };
    lock(inside).leave(number);
    connection.close(transport::CLOSE_DONE, b"");
    ended
}

async fn write(mut send: SendStream, mut outgoing: UnboundedReceiver<Out>) -> Result<(), TransportError> {
    while let Some(Out::Frame(frame)) = outgoing.recv().await {
        transport::write(&mut send, &frame).await?;
    }
    let _finished = send.finish();
    let _in_time = timeout(FAREWELL, send.stopped()).await;
    Ok(())
}

async fn refuse(connection: &Connection, mut send: SendStream, refused: Refused) -> Result<(), TransportError> {
    transport::write(&mut send, &FromRelay::Refused(refused)).await?;
    let _finished = send.finish();
    let _in_time = timeout(FAREWELL, send.stopped()).await;
    connection.close(transport::CLOSE_REFUSED, b"refused");
    Ok(())
}
