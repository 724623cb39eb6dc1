//! A scripted supervisor: the other end of a link, played by hand.

#![allow(dead_code, reason = "each test program uses a part of it")]

use std::time::Duration;

use sandbox::{Connection, Link, Supervisor};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    sync::mpsc,
};
use wire::{
    Attestation, Decoder, ExecutionKey, ExecutionStatus, Fault, FaultKind, Hello,
    MAX_TO_SUPERVISOR_BYTES, PROTOCOL_VERSION, Reply, Request, StreamStatus, ToHost, ToSupervisor,
    TransferFrame, Welcome, encode,
};

pub const KEY: ExecutionKey = [7; 16];
pub const LEASE: Duration = Duration::from_secs(60);
pub const PATIENCE: Duration = Duration::from_secs(5);

/// The sandbox's side of a link.
pub struct Dialler(pub mpsc::Sender<Connection>);

pub fn link() -> (Link, Dialler) {
    let (sender, connections) = mpsc::channel(8);
    (Link { connections }, Dialler(sender))
}

impl Dialler {
    pub async fn dial(&self) -> Peer {
        let (ours, theirs) = duplex(1 << 20);
        self.0.send(Box::new(theirs)).await.unwrap();
        Peer {
            stream: ours,
            decoder: Decoder::new(MAX_TO_SUPERVISOR_BYTES),
        }
    }

    /// Dials and greets.
    pub async fn greet(&self) -> Peer {
        let mut peer = self.dial().await;
        peer.say(&ToHost::Hello(Box::new(hello()))).await;
        peer
    }
}

/// One connection of the scripted supervisor.
pub struct Peer {
    stream: DuplexStream,
    decoder: Decoder,
}

pub fn hello() -> Hello {
    Hello {
        protocol: PROTOCOL_VERSION,
        epoch: [1; 16],
        attestation: Attestation::default(),
    }
}

impl Peer {
    pub async fn say(&mut self, message: &ToHost) {
        self.write(&frame(message)).await;
    }

    pub async fn write(&mut self, bytes: &[u8]) {
        // The host may have hung up on us already.
        let _ = self.stream.write_all(bytes).await;
    }

    pub async fn reply(&mut self, id: u64, reply: Reply) {
        self.say(&ToHost::Reply {
            id,
            result: Ok(reply),
        })
        .await;
    }

    /// The next frame of the host; `None` once it hung up.
    pub async fn hear(&mut self) -> Option<ToSupervisor> {
        loop {
            if let Some(message) = self.decoder.next().unwrap() {
                return Some(message);
            }
            let mut buffer = vec![0; 4096];
            match self.stream.read(&mut buffer).await {
                Ok(0) | Err(_) => return None,
                Ok(count) => self.decoder.push(&buffer[..count]),
            }
        }
    }

    pub async fn welcome(&mut self) -> Welcome {
        match self.hear().await {
            Some(ToSupervisor::Welcome(welcome)) => welcome,
            other => panic!("a welcome was due, {other:?} came"),
        }
    }

    pub async fn request(&mut self) -> (u64, Request) {
        match self.hear().await {
            Some(ToSupervisor::Request { id, request }) => (id, request),
            other => panic!("a request was due, {other:?} came"),
        }
    }

    pub async fn transfer(&mut self) -> Option<TransferFrame> {
        match self.hear().await {
            Some(ToSupervisor::Transfer(frame)) => Some(frame),
            Some(other) => panic!("a transfer was due, {other:?} came"),
            None => None,
        }
    }
}

pub fn frame(message: &ToHost) -> Vec<u8> {
    encode(message, 1 << 24).unwrap()
}

/// A client and the first, welcomed connection of its supervisor.
pub async fn attached() -> (Supervisor, Dialler, Peer) {
    let (link, dialler) = link();
    let mut peer = dialler.greet().await;
    let (supervisor, _) = Supervisor::attach(link, LEASE, PATIENCE).await.unwrap();
    peer.welcome().await;
    (supervisor, dialler, peer)
}

pub fn status(execution: ExecutionKey) -> ExecutionStatus {
    let stream = StreamStatus::default();
    ExecutionStatus {
        execution,
        ended: None,
        duration_us: 1,
        stdout: stream,
        stderr: stream,
    }
}

pub fn fault(kind: FaultKind) -> Fault {
    Fault {
        kind,
        errno: 0,
        step: "a step".into(),
    }
}
