//! Connections between nodes on loopback: who is let in, what arrives, what strangers can do.
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use surus::host::peer::{
    Access, FRAME_BYTES_MAX, Frame, HANDSHAKE_TIMEOUT, Hello, Key, PeerEvent, Peers, STRANGERS_MAX,
};
use surus::pure::config::HostPort;
use tokio::sync::mpsc::Receiver;
use tokio::time::{sleep, timeout};

struct Node {
    peers: Peers,
    events: Receiver<PeerEvent>,
    addr: HostPort,
}

fn local(port: u16) -> HostPort {
    HostPort { host: Ipv4Addr::LOCALHOST.to_string(), port }
}

fn hello(id: u64) -> Hello {
    Hello::new("/service/batman", id, &format!("node{id}"), "")
}

async fn node_with(hello: Hello, password: Option<&str>, port: u16) -> Node {
    let key = |text: &str| Key::stretch(text, "service/batman").expect("there is memory");
    let access = password.map_or(Access::Loopback, |text| Access::Key(key(text)));
    let (peers, events) = Peers::spawn(&local(port), hello, access).await.expect("it binds");
    let addr = local(peers.local_addr().port());
    Node { peers, events, addr }
}

async fn node(id: u64) -> Node {
    node_with(hello(id), None, 0).await
}

impl Node {
    /// The first event that `wanted` takes; others are passed over.
    async fn expect<T>(&mut self, wanted: impl Fn(PeerEvent) -> Option<T>) -> T {
        let search = async {
            loop {
                let event = self.events.recv().await.expect("the node lives");
                if let Some(found) = wanted(event) {
                    return found;
                }
            }
        };
        timeout(Duration::from_secs(8), search).await.expect("the event comes in time")
    }

    async fn expect_up(&mut self) -> Hello {
        self.expect(|e| if let PeerEvent::Up { hello, .. } = e { Some(hello) } else { None }).await
    }

    async fn expect_frame(&mut self) -> (u64, Frame) {
        self.expect(|e| match e {
            PeerEvent::Frame { from, frame, .. } => Some((from, frame)),
            _ => None,
        })
        .await
    }

    async fn expect_refused(&mut self) -> String {
        self.expect(|e| match e {
            PeerEvent::Refused { reason, .. } => Some(reason),
            _ => None,
        })
        .await
    }
}

#[tokio::test]
async fn frames_travel_both_ways_and_in_order() {
    let (mut a, mut b) = (node(1).await, node(2).await);
    assert!(!a.peers.send(&b.addr, Frame::Raft(vec![0])), "no target yet");
    a.peers.set_targets(vec![b.addr.clone()]);
    b.peers.set_targets(vec![a.addr.clone()]);
    assert_eq!(a.expect_up().await, hello(2));
    assert_eq!(b.expect_up().await, hello(1));
    for n in 0..200u8 {
        assert!(a.peers.send(&b.addr, Frame::Raft(vec![n])));
    }
    for n in 0..200u8 {
        assert_eq!(b.expect_frame().await, (1, Frame::Raft(vec![n])));
    }
    let large = Frame::Peer(vec![7; FRAME_BYTES_MAX - 1]);
    assert!(b.peers.send(&a.addr, large.clone()));
    assert_eq!(a.expect_frame().await, (2, large));
    assert!(!b.peers.send(&a.addr, Frame::Peer(vec![7; FRAME_BYTES_MAX])));
}

#[tokio::test]
async fn a_closed_connection_is_reported_at_once_and_dialled_again() {
    let (mut a, mut b) = (node(1).await, node(2).await);
    a.peers.set_targets(vec![b.addr.clone()]);
    a.expect_up().await;
    b.expect(|e| matches!(e, PeerEvent::Hello { .. }).then_some(())).await;
    let addr = b.addr.clone();
    drop(b);
    let began = Instant::now();
    a.expect(|e| (e == PeerEvent::Down { addr: addr.clone(), raft_id: 2 }).then_some(())).await;
    assert!(began.elapsed() < Duration::from_millis(200), "{:?}", began.elapsed());
    let _again = node_with(hello(2), None, addr.port).await;
    a.expect_up().await;
    a.peers.set_targets(vec![]);
    a.expect(|e| matches!(e, PeerEvent::Down { .. }).then_some(())).await;
}

#[tokio::test]
async fn a_changed_greeting_is_told_and_judged() {
    let (mut a, mut b) = (node(1).await, node(2).await);
    a.peers.set_targets(vec![b.addr.clone()]);
    a.expect_up().await;
    let founded = Hello { cluster_id: Some("c".into()), cluster_epoch: 1, ..hello(2) };
    b.peers.set_hello(founded.clone());
    a.expect(|e| (e == PeerEvent::Hello { hello: founded.clone(), confirmed: true }).then_some(()))
        .await;
    a.peers.set_hello(Hello { cluster_id: Some("d".into()), ..hello(1) });
    a.expect(|e| matches!(e, PeerEvent::Down { .. }).then_some(())).await;
    assert!(b.expect_refused().await.contains("it belongs to cluster d"));
    assert!(a.expect_refused().await.contains("cluster"));
}

/// Dials a node that must refuse; both sides' reasons.
async fn refusal(dialler: (Hello, Option<&str>), acceptor: (Hello, Option<&str>)) -> [String; 2] {
    let mut a = node_with(dialler.0, dialler.1, 0).await;
    let mut b = node_with(acceptor.0, acceptor.1, 0).await;
    a.peers.set_targets(vec![b.addr.clone()]);
    [a.expect_refused().await, b.expect_refused().await]
}

#[tokio::test]
async fn strangers_are_refused_with_a_sentence_on_both_sides() {
    let founded = |id: &str, epoch, raft_id| Hello {
        cluster_id: Some(id.into()),
        cluster_epoch: epoch,
        ..hello(raft_id)
    };
    let scope = Hello { scope: "/service/robin".into(), ..hello(2) };
    let cases = [
        ((hello(1), None), (scope, None), "scope"),
        ((founded("c", 1, 1), None), (founded("d", 1, 2), None), "cluster"),
        ((founded("c", 1, 1), None), (founded("c", 2, 2), None), "epoch"),
        ((hello(1), None), (hello(1), None), "itself"),
        ((hello(1), Some("x")), (hello(2), Some("y")), "passwords"),
        ((hello(1), Some("x")), (hello(2), None), "raft.password"),
        ((hello(1), None), (hello(2), Some("x")), "raft.password"),
    ];
    for (dialler, acceptor, word) in cases {
        for reason in refusal(dialler.clone(), acceptor.clone()).await {
            assert!(reason.contains(word), "{word}: {reason}");
        }
    }
}

#[tokio::test]
async fn the_same_password_lets_in() {
    let mut a = node_with(hello(1), Some("batman"), 0).await;
    let mut b = node_with(hello(2), Some("batman"), 0).await;
    a.peers.set_targets(vec![b.addr.clone()]);
    a.expect_up().await;
    assert!(a.peers.send(&b.addr, Frame::Peer(b"{}".to_vec())));
    assert_eq!(b.expect_frame().await, (1, Frame::Peer(b"{}".to_vec())));
}

/// Frames of one kind, length first, as they stand on the wire.
fn wire(kind: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len() + 1).expect("it is small");
    [&length.to_be_bytes()[..], &[kind], payload].concat()
}

/// Kinds of the frames that come until the connection ends.
fn kinds(socket: &mut std::net::TcpStream) -> Vec<u8> {
    let mut all = Vec::new();
    socket.read_to_end(&mut all).ok();
    let (mut rest, mut kinds) = (&all[..], Vec::new());
    while let Some((head, body)) = rest.split_first_chunk::<4>() {
        kinds.push(body[0]);
        rest = &body[u32::from_be_bytes(*head) as usize..];
    }
    kinds
}

/// SEC-6: an acceptor proves nothing to whoever has not proved anything: nobody can try passwords at home.
#[tokio::test]
async fn an_acceptor_answers_only_a_right_proof() {
    let b = node_with(hello(2), Some("batman"), 0).await;
    let addr = b.peers.local_addr();
    let answers = |proof: Option<Vec<u8>>| {
        tokio::task::spawn_blocking(move || {
            let mut socket = std::net::TcpStream::connect(addr).expect("it listens");
            let mut greeting = serde_json::to_value(hello(1)).expect("plain data");
            greeting["nonce"] = serde_json::json!(vec![7; 32]);
            greeting["password"] = true.into();
            socket.write_all(&wire(1, greeting.to_string().as_bytes())).expect("it reads");
            if let Some(proof) = proof {
                socket.write_all(&wire(2, &proof)).expect("it reads");
            }
            kinds(&mut socket)
        })
    };
    assert_eq!(answers(None).await.expect("it ends"), [1], "a greeting and nothing else");
    assert_eq!(answers(Some(vec![0; 32])).await.expect("it ends"), [1, 4], "then a refusal");
}

/// SEC-9: whoever knows the password may greet under any id; what it says is not confirmed, and what the
/// real one says is.
#[tokio::test]
async fn only_who_answers_at_the_dialled_address_is_confirmed() {
    let mut holder = node(1).await;
    let arbiter = node(2).await;
    holder.peers.set_targets(vec![arbiter.addr.clone()]);
    arbiter.peers.set_targets(vec![holder.addr.clone()]);
    holder.expect_up().await;
    let confirmed = |e| matches!(e, PeerEvent::Hello { confirmed: true, .. }).then_some(());
    holder.expect(confirmed).await;
    let mut forger = node_with(Hello { name: "forger".into(), ..hello(2) }, None, 0).await;
    forger.peers.set_targets(vec![holder.addr.clone()]);
    forger.expect_up().await;
    sleep(Duration::from_millis(300)).await;
    assert!(forger.peers.send(&holder.addr, Frame::Peer(b"forged".to_vec())));
    assert!(arbiter.peers.send(&holder.addr, Frame::Peer(b"real".to_vec())));
    for _ in 0..2 {
        let said = holder.expect(|e| match e {
            PeerEvent::Frame { from, confirmed, frame } => Some((from, confirmed, frame)),
            _ => None,
        });
        let (from, confirmed, frame) = said.await;
        assert_eq!((from, confirmed), (2, frame == Frame::Peer(b"real".to_vec())), "{frame:?}");
    }
}

/// SEC-5: a node without a password and without partners lets nobody in.
#[tokio::test]
async fn without_a_password_a_node_alone_lets_nobody_in() {
    let (peers, events) =
        Peers::spawn(&local(0), hello(2), Access::Nobody).await.expect("it binds");
    let mut b = Node { addr: local(peers.local_addr().port()), peers, events };
    let a = node(1).await;
    a.peers.set_targets(vec![b.addr.clone()]);
    let reason = b.expect_refused().await;
    assert!(reason.contains("raft.password"), "{reason}");
}

/// What a stranger does with a plain socket; answers when the node hung up.
fn knock(addr: SocketAddr, bytes: Vec<u8>) -> tokio::task::JoinHandle<Duration> {
    tokio::task::spawn_blocking(move || {
        let mut socket = std::net::TcpStream::connect(addr).expect("it listens");
        socket.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout can be set");
        let began = Instant::now();
        socket.write_all(&bytes).ok();
        let mut sink = [0; 4096];
        while socket.read(&mut sink).is_ok_and(|count| count > 0) {}
        began.elapsed()
    })
}

#[tokio::test]
async fn garbage_and_silence_end_in_time_and_disturb_nobody() {
    let (mut a, mut b) = (node(1).await, node(2).await);
    let addr = b.peers.local_addr();
    let oversized = [&[0x7f, 0xff, 0xff, 0xff][..], &[1; 100]].concat();
    let strangers = [
        knock(addr, vec![]),
        knock(addr, b"GET / HTTP/1.1\r\nHost: surus\r\n\r\n".to_vec()),
        knock(addr, oversized),
        knock(addr, vec![0, 0, 0, 0]),
        knock(addr, vec![0, 0, 0, 2, 1, b'{']),
        knock(addr, vec![0, 0, 0, 2, 5, 0]),
        knock(addr, vec![0, 0, 0, 1, 99]),
    ];
    a.peers.set_targets(vec![b.addr.clone()]);
    a.expect_up().await;
    assert!(a.peers.send(&b.addr, Frame::Raft(vec![1])));
    assert_eq!(b.expect_frame().await, (1, Frame::Raft(vec![1])));
    for (number, stranger) in strangers.into_iter().enumerate() {
        let took = stranger.await.expect("the stranger ends");
        let limit = if number == 0 { HANDSHAKE_TIMEOUT } else { Duration::ZERO };
        assert!(took < limit + Duration::from_secs(2), "stranger {number}: {took:?}");
    }
}

#[tokio::test]
async fn a_crowd_of_silent_strangers_does_not_shut_out_a_peer() {
    let (mut a, b) = (node(1).await, node(2).await);
    let mut crowd = Vec::new();
    for _ in 0..200 {
        crowd.push(tokio::net::TcpStream::connect(b.peers.local_addr()).await.expect("it listens"));
    }
    let began = Instant::now();
    a.peers.set_targets(vec![b.addr.clone()]);
    a.expect_up().await;
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
}

#[tokio::test]
async fn strangers_that_greeted_share_few_places() {
    let mut b = node(1).await;
    let mut others = Vec::new();
    for id in 2..3 + STRANGERS_MAX as u64 {
        let other = node(id).await;
        other.peers.set_targets(vec![b.addr.clone()]);
        others.push(other);
    }
    let reason = b.expect_refused().await;
    assert!(reason.contains(&format!("{STRANGERS_MAX} strangers")), "{reason}");
}

#[tokio::test]
async fn a_peer_that_does_not_read_costs_a_bounded_amount() {
    let (mut a, b) = (node(1).await, node(2).await);
    a.peers.set_targets(vec![b.addr.clone()]);
    a.expect_up().await;
    // Nobody takes b's events: its reader stops, then the sockets fill, then our queue.
    let chunk = vec![1; 1024 * 1024];
    let mut refused = 0;
    for _ in 0..3000 {
        refused += usize::from(!a.peers.send(&b.addr, Frame::Raft(chunk.clone())));
        sleep(Duration::from_micros(100)).await;
        if refused > 10 {
            break;
        }
    }
    assert!(refused > 10, "the queue never filled");
    assert!(a.peers.send(&b.addr, Frame::Raft(vec![])) || refused > 10);
}
