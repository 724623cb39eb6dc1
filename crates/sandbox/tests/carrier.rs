//! The host's side of the wire over standard streams, against a supervisor that this test plays.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    reason = "what is not due fails its test"
)]

use std::{sync::Mutex, time::Duration};

use async_trait::async_trait;
use sandbox::{
    BackendError, Connection, Link,
    carrier::{Attach, Key, Streams, serve},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    sync::mpsc,
    time::timeout,
};
use wire::{
    CARRIER_WINDOW_BYTES, Carried, CarrierKey, MAX_CHANNELS, Nonce, Opener, Sealer, Sender,
    Splitter,
};

const KEY: CarrierKey = CarrierKey::new([9; 32]);
const OWN: Nonce = [5; 16];
const PATIENCE: Duration = Duration::from_secs(60);

/// Where the host gets its streams: each attachment is handed to the test.
struct Sandbox {
    attachments: mpsc::UnboundedSender<DuplexStream>,
    ended: Mutex<Option<tokio::sync::oneshot::Receiver<()>>>,
}

#[async_trait]
impl Attach for Sandbox {
    async fn attach(&self) -> Result<Option<Streams>, BackendError> {
        let (host, supervisor) = duplex(1 << 20);
        let (output, input) = tokio::io::split(host);
        let there = self.attachments.send(supervisor).is_ok();
        Ok(there.then(|| Streams {
            input: Box::new(input),
            output: Box::new(output),
        }))
    }

    async fn ended(&self) {
        let ended = self.ended.lock().unwrap().take();
        match ended {
            Some(ended) => drop(ended.await),
            None => std::future::pending().await,
        }
    }
}

fn start(key: Key) -> (Link, mpsc::UnboundedReceiver<DuplexStream>) {
    let (attachments, arriving) = mpsc::unbounded_channel();
    let sandbox = Sandbox {
        attachments,
        ended: Mutex::new(None),
    };
    (serve(key, None, sandbox), arriving)
}

/// The supervisor of one attachment.
struct Supervisor {
    stream: DuplexStream,
    splitter: Splitter,
    sealer: Sealer,
    opener: Opener,
}

async fn frame(stream: &mut DuplexStream, splitter: &mut Splitter) -> Option<Vec<u8>> {
    let mut buffer = [0; 4096];
    loop {
        match splitter.next_frame() {
            Some(frame) if frame.is_empty() => {}
            Some(frame) => return Some(frame),
            None => match stream.read(&mut buffer).await {
                Ok(0) | Err(_) => return None,
                Ok(count) => splitter.push(&buffer[..count]),
            },
        }
    }
}

impl Supervisor {
    /// Answers the next attachment; tells whether it brought the key.
    async fn answer(
        arriving: &mut mpsc::UnboundedReceiver<DuplexStream>,
        before: &[u8],
    ) -> (Self, bool) {
        let mut stream = timeout(PATIENCE, arriving.recv()).await.unwrap().unwrap();
        let mut splitter = Splitter::default();
        let asked = frame(&mut stream, &mut splitter).await.unwrap();
        let asked = Opener::new(&KEY, Sender::Host, &[]).open(&asked).unwrap();
        let Carried::Attach { nonce, key } = asked else {
            panic!("{asked:?}")
        };
        stream.write_all(before).await.unwrap();
        let answer = Sealer::new(&KEY, Sender::Supervisor, &[nonce])
            .seal(&Carried::Attached { nonce: OWN })
            .unwrap();
        stream.write_all(&answer).await.unwrap();
        let supervisor = Supervisor {
            stream,
            splitter,
            sealer: Sealer::new(&KEY, Sender::Supervisor, &[nonce, OWN]),
            opener: Opener::new(&KEY, Sender::Host, &[nonce, OWN]),
        };
        (supervisor, key == Some(KEY))
    }

    async fn say(&mut self, message: &Carried) {
        let frame = self.sealer.seal(message).unwrap();
        let _ = self.stream.write_all(&frame).await;
    }

    async fn hear(&mut self) -> Option<Carried> {
        let frame = frame(&mut self.stream, &mut self.splitter).await?;
        Some(self.opener.open(&frame).unwrap())
    }

    async fn open(&mut self, channel: u32) {
        self.say(&Carried::Open {
            channel,
            urgent: channel == 0,
        })
        .await;
    }

    async fn content(&mut self, channel: u32, bytes: &[u8]) {
        self.say(&Carried::Data {
            channel,
            bytes: bytes.to_vec(),
        })
        .await;
    }
}

async fn connection(link: &mut Link) -> Connection {
    timeout(PATIENCE, link.connections.recv())
        .await
        .unwrap()
        .unwrap()
}

#[tokio::test(start_paused = true)]
async fn channels_are_connections_and_end_as_such() {
    let (mut link, mut arriving) = start(Key::First(KEY));
    // What an earlier attachment left in the stream, and what somebody invents, is nothing.
    let (mut supervisor, brought) =
        Supervisor::answer(&mut arriving, b"half a fr\0\x05abcd\0").await;
    assert!(brought, "the first attachment brings the key");
    supervisor.open(0).await;
    let mut one = connection(&mut link).await;
    supervisor.open(1).await;
    let mut other = connection(&mut link).await;
    supervisor.content(1, b"of the other").await;
    supervisor.content(0, b"of one").await;
    let mut heard = [0; 6];
    one.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"of one");
    supervisor.say(&Carried::End { channel: 1 }).await;
    let mut all = Vec::new();
    other.read_to_end(&mut all).await.unwrap();
    assert_eq!(all, b"of the other", "the end comes behind the content");
    other.write_all(b"still heard").await.unwrap();
    let said = supervisor.hear().await;
    let content = Carried::Data {
        channel: 1,
        bytes: b"still heard".to_vec(),
    };
    assert_eq!(said, Some(content));
    drop(other);
    assert_eq!(supervisor.hear().await, Some(Carried::Close { channel: 1 }));
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_ends_first_still_hears_what_comes() {
    let (mut link, mut arriving) = start(Key::First(KEY));
    let (mut supervisor, _) = Supervisor::answer(&mut arriving, b"").await;
    supervisor.open(0).await;
    let mut ends_first = connection(&mut link).await;
    ends_first.write_all(b"answer").await.unwrap();
    ends_first.shutdown().await.unwrap();
    let answer = Carried::Data {
        channel: 0,
        bytes: b"answer".to_vec(),
    };
    assert_eq!(supervisor.hear().await, Some(answer));
    assert_eq!(supervisor.hear().await, Some(Carried::End { channel: 0 }));
    supervisor.content(0, b"the rest of an upload").await;
    supervisor.say(&Carried::End { channel: 0 }).await;
    let mut rest = Vec::new();
    ends_first.read_to_end(&mut rest).await.unwrap();
    assert_eq!(rest, b"the rest of an upload");
    let nothing = timeout(Duration::from_secs(1), supervisor.hear()).await;
    assert!(nothing.is_err(), "it is still held");
    drop(ends_first);
    assert_eq!(supervisor.hear().await, Some(Carried::Close { channel: 0 }));
}

#[tokio::test(start_paused = true)]
async fn as_many_connections_wait_to_be_taken_as_can_be_open() {
    let (mut link, mut arriving) = start(Key::First(KEY));
    let (mut supervisor, _) = Supervisor::answer(&mut arriving, b"").await;
    let last = u32::try_from(MAX_CHANNELS).unwrap() - 1;
    for channel in 0..=last {
        supervisor.open(channel).await;
    }
    supervisor.content(last, b"from the last").await;
    let mut waiting = Vec::new();
    for _ in 0..=last {
        waiting.push(connection(&mut link).await);
    }
    let mut heard = [0; 13];
    let last = waiting.last_mut().unwrap();
    last.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"from the last");
}

#[tokio::test(start_paused = true)]
async fn neither_side_sends_more_than_it_has_credit_for() {
    let (mut link, mut arriving) = start(Key::First(KEY));
    let (mut supervisor, _) = Supervisor::answer(&mut arriving, b"").await;
    supervisor.open(0).await;
    let connection = connection(&mut link).await;
    let (mut reading, mut writing) = tokio::io::split(connection);
    let window = CARRIER_WINDOW_BYTES as usize;
    let all = tokio::spawn(async move {
        writing.write_all(&vec![7; 2 * window]).await.unwrap();
        writing
    });
    let mut came = 0;
    while came < window {
        match supervisor.hear().await {
            Some(Carried::Data { bytes, .. }) => came += bytes.len(),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(came, window);
    let more = timeout(Duration::from_secs(5), supervisor.hear()).await;
    assert!(more.is_err(), "without credit nothing more comes");
    supervisor
        .say(&Carried::Credit {
            channel: 0,
            bytes: CARRIER_WINDOW_BYTES,
        })
        .await;
    while came < 2 * window {
        match supervisor.hear().await {
            Some(Carried::Data { bytes, .. }) => came += bytes.len(),
            other => panic!("{other:?}"),
        }
    }
    drop(all.await.unwrap());

    // The other way: what is read is credited, so that more than a window gets through.
    let sent = tokio::spawn(async move {
        let mut left = 0;
        for _ in 0..window / 4096 {
            supervisor.content(0, &[1; 4096]).await;
        }
        while left < CARRIER_WINDOW_BYTES / 2 {
            match supervisor.hear().await {
                Some(Carried::Credit { bytes, .. }) => left += bytes,
                other => panic!("{other:?}"),
            }
        }
        supervisor.content(0, &[2; 4096]).await;
        supervisor
    });
    let mut heard = vec![0; window + 4096];
    reading.read_exact(&mut heard).await.unwrap();
    assert_eq!(heard.last(), Some(&2));
    drop(sent.await.unwrap());
}

type Offence = fn(u32) -> Vec<Carried>;

/// Whatever an honest supervisor does not do ends the attachment; the next one works, without the key being said again.
#[tokio::test(start_paused = true)]
async fn an_offence_ends_the_attachment_and_the_next_one_works() {
    let offences: [(&str, Offence); 8] = [
        ("a channel out of order", |_| {
            vec![Carried::Open {
                channel: 5,
                urgent: false,
            }]
        }),
        ("a channel opened twice", |_| {
            vec![Carried::Open {
                channel: 0,
                urgent: true,
            }]
        }),
        ("content for nobody", |_| {
            vec![Carried::Data {
                channel: 7,
                bytes: vec![1],
            }]
        }),
        ("more than there was credit for", |_| {
            let piece = Carried::Data {
                channel: 0,
                bytes: vec![1; 32 * 1024],
            };
            vec![piece; 9]
        }),
        ("content behind the end", |_| {
            let content = Carried::Data {
                channel: 0,
                bytes: vec![1],
            };
            vec![Carried::End { channel: 0 }, content]
        }),
        ("credit that was not used", |_| {
            vec![Carried::Credit {
                channel: 0,
                bytes: 1,
            }]
        }),
        ("a host's word", |_| vec![Carried::Close { channel: 0 }]),
        ("it is lost itself", |_| vec![Carried::Lost]),
    ];
    let (mut link, mut arriving) = start(Key::First(KEY));
    for (row, (what, offence)) in offences.into_iter().enumerate() {
        let (mut supervisor, brought) = Supervisor::answer(&mut arriving, b"").await;
        assert_eq!(brought, row == 0, "{what}: the key is said once");
        supervisor.open(0).await;
        // Not read: what is sent waits in its window.
        let mut kept = connection(&mut link).await;
        for message in offence(0) {
            supervisor.say(&message).await;
        }
        let mut rest = Vec::new();
        let ended = timeout(PATIENCE, kept.read_to_end(&mut rest)).await;
        assert!(ended.is_ok(), "{what}: its connections end");
    }
    let (mut supervisor, _) = Supervisor::answer(&mut arriving, b"").await;
    supervisor.open(0).await;
    let mut kept = connection(&mut link).await;
    supervisor.stream.write_all(b"\x03ab\x02c\0").await.unwrap();
    let mut rest = Vec::new();
    let ended = timeout(PATIENCE, kept.read_to_end(&mut rest)).await;
    assert!(ended.is_ok(), "a frame that is not the supervisor's");

    // What is too long to be a frame is nothing, and takes nothing with it.
    let (mut supervisor, _) = Supervisor::answer(&mut arriving, b"").await;
    supervisor.open(0).await;
    let mut kept = connection(&mut link).await;
    let endless = [vec![1; 70_000], vec![0]].concat();
    supervisor.stream.write_all(&endless).await.unwrap();
    supervisor.content(0, b"after it").await;
    let mut heard = [0; 8];
    kept.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"after it");
}

#[tokio::test(start_paused = true)]
async fn the_link_ends_with_the_sandbox_and_the_carrier_with_the_link() {
    let (mut link, arriving) = start(Key::Known(KEY));
    drop(arriving);
    assert!(
        timeout(PATIENCE, link.connections.recv())
            .await
            .unwrap()
            .is_none(),
        "the sandbox has ended"
    );

    let (link, mut arriving) = start(Key::Known(KEY));
    let (mut supervisor, brought) = Supervisor::answer(&mut arriving, b"").await;
    assert!(!brought);
    drop(link);
    assert_eq!(supervisor.hear().await, None, "nobody listens any more");
}
