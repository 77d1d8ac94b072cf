//! The outgoing half: one task per address, which dials, greets, sends, and begins again.
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, info, warn};

use super::access::Access;
use super::connection::{self, Surroundings};
use super::handshake::{self, Failure, Live};
use super::hello::End;
use super::queue::Queue;
use super::{PeerEvent, tune};
use crate::pure::config::HostPort;

const BACK_OFF_MIN: Duration = Duration::from_millis(50);
const BACK_OFF_MAX: Duration = Duration::from_secs(2);
/// For one address of a name; a name may have several.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// A connection that lived this long begins the back-off anew.
const STABLE_AFTER: Duration = Duration::from_secs(1);

/// Everything the task of one address needs.
pub struct Dial {
    pub addr: HostPort,
    pub queue: Arc<Queue>,
    pub access: Access,
    pub around: Surroundings,
}

/// Dials until `stop` is dropped. A connection that stands then ends with its `Down`.
pub async fn keep(dial: Dial, mut stop: oneshot::Receiver<()>) {
    let mut back_off = BACK_OFF_MIN;
    let mut last_trouble = String::new();
    loop {
        let outcome = tokio::select! {
            _ = &mut stop => return,
            outcome = connect(&dial) => outcome,
        };
        match outcome {
            Ok(live) => {
                let since = Instant::now();
                last_trouble.clear();
                if serve(&dial, live, &mut stop).await.is_none() {
                    return;
                }
                if since.elapsed() >= STABLE_AFTER {
                    back_off = BACK_OFF_MIN;
                }
            }
            Err(failure) => complain(&dial, failure, &mut last_trouble).await,
        }
        tokio::select! {
            _ = &mut stop => return,
            () = sleep(jittered(back_off)) => back_off = (back_off * 2).min(BACK_OFF_MAX),
        }
    }
}

/// Names are resolved at every dial: addresses change in the cloud.
async fn connect(dial: &Dial) -> Result<Live, Failure> {
    let HostPort { host, port } = &dial.addr;
    let addresses = timeout(CONNECT_TIMEOUT * 3, tokio::net::lookup_host((host.as_str(), *port)))
        .await
        .map_err(|_| Failure::Unreachable("the name is not resolved in time".to_owned()))?
        .map_err(|e| Failure::Unreachable(format!("the name cannot be resolved: {e}")))?;
    let mut trouble = "the name has no address".to_owned();
    for address in addresses {
        match timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                tune(&stream);
                dial.access.admits(address.ip()).map_err(Failure::Refused)?;
                dial.around.routes.dialled(address.ip());
                let own = dial.around.own.clone();
                let limit = handshake::HANDSHAKE_TIMEOUT;
                return handshake::shake(stream, End::Dialled, own, dial.access.key(), limit).await;
            }
            Ok(Err(e)) => trouble = format!("cannot connect: {e}"),
            Err(_) => trouble = "cannot connect: no answer".to_owned(),
        }
    }
    Err(Failure::Unreachable(trouble))
}

/// A connection's life between `Up` and `Down`; `None` when it was time to stop.
async fn serve(dial: &Dial, live: Live, stop: &mut oneshot::Receiver<()>) -> Option<()> {
    let hello = live.hello.clone();
    let raft_id = hello.raft_id;
    info!(addr = %dial.addr, name = %hello.name, raft_id, "connected to a peer");
    dial.queue.set_open(Some(raft_id));
    let up = PeerEvent::Up { addr: dial.addr.clone(), hello };
    dial.around.events.send(up).await.ok()?;
    let (why, go_on) = tokio::select! {
        _ = stop => ("it is no longer a peer".to_owned(), None),
        why = connection::run_dialled(live, dial.queue.clone(), dial.around.clone()) => {
            (why, Some(()))
        }
    };
    dial.queue.set_open(None);
    warn!(addr = %dial.addr, raft_id, "lost a peer: {why}");
    let down = PeerEvent::Down { addr: dial.addr.clone(), raft_id };
    dial.around.events.send(down).await.ok()?;
    go_on
}

/// Every refusal is an event; a log line only when there is something new to say.
async fn complain(dial: &Dial, failure: Failure, last: &mut String) {
    let text = match &failure {
        Failure::Refused(why) | Failure::Unreachable(why) => why.clone(),
    };
    let is_news = *last != text;
    match failure {
        Failure::Refused(reason) => {
            if is_news {
                warn!(addr = %dial.addr, "no connection to a peer: {reason}");
            }
            let refused = PeerEvent::Refused { addr: dial.addr.to_string(), reason };
            dial.around.events.send(refused).await.ok();
        }
        Failure::Unreachable(why) if is_news => {
            info!(addr = %dial.addr, "no connection to a peer: {why}");
        }
        Failure::Unreachable(why) => debug!(addr = %dial.addr, "no connection to a peer: {why}"),
    }
    *last = text;
}

/// Between half of it and all of it, so that nodes that start together do not dial in step.
fn jittered(back_off: Duration) -> Duration {
    let mut bytes = [0u8; 4];
    rustix::rand::getrandom(&mut bytes[..], rustix::rand::GetRandomFlags::empty()).ok();
    let fraction = f64::from(u32::from_ne_bytes(bytes)) / f64::from(u32::MAX);
    back_off.mul_f64(0.5 + fraction / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_stays_within_half_and_whole() {
        let drawn: Vec<Duration> = (0..100).map(|_| jittered(BACK_OFF_MAX)).collect();
        assert!(drawn.iter().all(|d| *d >= BACK_OFF_MAX / 2 && *d <= BACK_OFF_MAX));
        assert!(drawn.iter().any(|d| *d != drawn[0]));
    }
}
