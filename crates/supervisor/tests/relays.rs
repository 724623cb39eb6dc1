//! Connections and datagrams from inside: carried whole, bounded, and forgotten when nobody answers.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::wildcard_enum_match_arm
)]

mod harness;

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream, UdpSocket},
    os::unix::net::UnixStream,
    thread,
    time::{Duration, Instant},
};

use harness::*;
use wire::*;

const PATIENCE: Duration = Duration::from_secs(10);

/// The tests' sandbox shares the loopback interface of the machine: a port that nothing has, for both transports.
fn free_port() -> u16 {
    loop {
        let stream = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = stream.local_addr().unwrap().port();
        if UdpSocket::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

fn open(sandbox: &mut Sandbox, takes: RelayTakes) -> u16 {
    let port = free_port();
    let done = sandbox.connection.call(Request::OpenRelay { port, takes });
    assert_eq!(done, Ok(Reply::Done));
    port
}

fn client(port: u16) -> UdpSocket {
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.connect(("127.0.0.1", port)).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client
}

/// The host's end of what came next, past its greeting.
fn relayed(sandbox: &mut Sandbox, port: u16) -> UnixStream {
    let mut stream = sandbox.accept_raw();
    let hello = encode(&ToHost::RelayHello { port }, MAX_TO_HOST_BYTES).unwrap();
    let mut greeting = vec![0; hello.len()];
    stream.read_exact(&mut greeting).unwrap();
    assert_eq!(greeting, hello);
    stream
}

fn frame(stream: &mut UnixStream) -> Vec<u8> {
    let mut length = [0; 2];
    stream.read_exact(&mut length).unwrap();
    let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut message).unwrap();
    message
}

fn framed(message: &[u8]) -> Vec<u8> {
    let length = u16::try_from(message.len()).unwrap().to_be_bytes();
    [&length[..], message].concat()
}

fn heard(client: &UdpSocket) -> Vec<u8> {
    let mut buffer = vec![0; 65_535];
    let count = client.recv(&mut buffer).unwrap();
    buffer.truncate(count);
    buffer
}

#[test]
fn each_answer_goes_to_whoever_asked_and_pieces_are_put_together() {
    let Some(mut sandbox) = sandbox() else { return };
    let port = open(&mut sandbox, RelayTakes::StreamsAndDatagrams);
    let longest = vec![b'x'; MAX_DATAGRAM_BYTES];
    let (one, other) = (client(port), client(port));
    one.send(b"one").unwrap();
    let mut to_one = relayed(&mut sandbox, port);
    assert_eq!(frame(&mut to_one), b"one");
    other.send(&longest).unwrap();
    let mut to_other = relayed(&mut sandbox, port);
    assert_eq!(frame(&mut to_other), longest);
    // The later one first, and the longest answer byte by byte where it matters.
    to_other.write_all(&framed(b"for the other")).unwrap();
    assert_eq!(heard(&other), b"for the other");
    let answer = framed(&longest);
    for piece in [&answer[..1], &answer[1..3], &answer[3..]] {
        to_one.write_all(piece).unwrap();
        thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(heard(&one), longest);
    for stream in [&mut to_one, &mut to_other] {
        assert_eq!(stream.read(&mut [0; 1]).unwrap(), 0, "it is kept");
    }
}

#[test]
fn what_is_no_datagram_to_carry_is_dropped_and_the_next_one_is_not() {
    let Some(mut sandbox) = sandbox() else { return };
    let port = open(&mut sandbox, RelayTakes::StreamsAndDatagrams);
    let client = client(port);
    client.send(&vec![b'x'; MAX_DATAGRAM_BYTES + 1]).unwrap();
    client.send(b"").unwrap();
    client.send(b"fine").unwrap();
    let mut stream = relayed(&mut sandbox, port);
    assert_eq!(frame(&mut stream), b"fine");
    // Nor is any answer but one that fits.
    for unfit in [&b"\0\0"[..], b"\x10\x01x"] {
        stream.write_all(unfit).unwrap();
        assert_eq!(stream.read(&mut [0; 1]).unwrap(), 0, "{unfit:?}");
        client.send(b"again").unwrap();
        stream = relayed(&mut sandbox, port);
        assert_eq!(frame(&mut stream), b"again");
    }
    stream.write_all(&framed(b"answer")).unwrap();
    assert_eq!(heard(&client), b"answer");
}

#[test]
fn as_many_datagrams_wait_as_may_and_none_longer_than_its_time() {
    let Some(mut sandbox) = sandbox() else { return };
    let port = open(&mut sandbox, RelayTakes::StreamsAndDatagrams);
    let client = client(port);
    let before = sandbox.resident_kib();
    let started = Instant::now();
    for _ in 0..MAX_OPEN_DATAGRAMS + 8 {
        client.send(b"question").unwrap();
    }
    let mut waiting: Vec<_> = (0..MAX_OPEN_DATAGRAMS)
        .map(|_| relayed(&mut sandbox, port))
        .collect();
    assert!(started.elapsed() < Duration::from_millis(DATAGRAM_TIMEOUT_MS));
    assert!(sandbox.nothing_dials_within(Duration::from_millis(300)));
    // The control: a place that becomes free is taken.
    drop(waiting.pop());
    let mut next = relayed(&mut sandbox, port);
    assert_eq!(frame(&mut next), b"question");
    assert_eq!(sandbox.connection.call(Request::List).map(drop), Ok(()));
    let ended = |stream: &mut UnixStream| {
        frame(stream);
        stream.read(&mut [0; 1]).unwrap()
    };
    assert!(waiting.iter_mut().all(|stream| ended(stream) == 0));
    let taken = started.elapsed();
    let due = Duration::from_millis(DATAGRAM_TIMEOUT_MS);
    assert!(taken >= due && taken < due * 2, "{taken:?}");
    let after = sandbox.resident_kib();
    assert!(after < before + 1024, "{before} KiB grew to {after} KiB");
}

#[test]
fn a_port_for_connections_takes_datagrams_only_once_it_is_told_to() {
    let Some(mut sandbox) = sandbox() else { return };
    let port = open(&mut sandbox, RelayTakes::Streams);
    let refused = client(port);
    refused.send(b"question").unwrap();
    let error = refused.recv(&mut [0; 16]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
    for _ in 0..2 {
        let takes = RelayTakes::StreamsAndDatagrams;
        let request = Request::OpenRelay { port, takes };
        assert_eq!(sandbox.connection.call(request), Ok(Reply::Done));
    }
    let client = client(port);
    client.send(b"question").unwrap();
    let mut stream = relayed(&mut sandbox, port);
    assert_eq!(frame(&mut stream), b"question");
}

#[test]
fn a_port_that_something_has_is_refused_whole() {
    let Some(mut sandbox) = sandbox() else { return };
    let port = free_port();
    let holder = UdpSocket::bind(("127.0.0.1", port)).unwrap();
    let request = Request::OpenRelay {
        port,
        takes: RelayTakes::StreamsAndDatagrams,
    };
    assert_eq!(sandbox.connection.fault(request.clone()), FaultKind::System);
    assert!(TcpStream::connect(("127.0.0.1", port)).is_err());
    drop(holder);
    assert_eq!(sandbox.connection.call(request), Ok(Reply::Done));
    assert!(TcpStream::connect(("127.0.0.1", port)).is_ok());
}

#[test]
fn connections_over_the_bound_wait_until_there_is_room() {
    let Some(mut sandbox) = sandbox() else { return };
    let port = open(&mut sandbox, RelayTakes::Streams);
    let mut clients: Vec<_> = (0..MAX_RELAYED + 3)
        .map(|_| TcpStream::connect(("127.0.0.1", port)).unwrap())
        .collect();
    let mut carried: Vec<_> = (0..MAX_RELAYED)
        .map(|_| relayed(&mut sandbox, port))
        .collect();
    assert!(sandbox.nothing_dials_within(Duration::from_millis(300)));
    drop((clients.remove(0), carried.remove(0)));
    let mut next = relayed(&mut sandbox, port);
    clients[MAX_RELAYED - 1].write_all(b"late").unwrap();
    let mut late = [0; 4];
    next.read_exact(&mut late).unwrap();
    assert_eq!(&late, b"late");
}

#[test]
fn what_a_host_does_not_take_is_held_within_one_bound_and_nothing_of_it_is_lost() {
    const CONNECTIONS: usize = 100;
    let Some(mut sandbox) = sandbox() else { return };
    let port = open(&mut sandbox, RelayTakes::Streams);
    let before = sandbox.resident_kib();
    let mut carried = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut inside = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let host = relayed(&mut sandbox, port);
        inside.set_nonblocking(true).unwrap();
        let piece = vec![b'x'; 1 << 20];
        let sent = inside.write(&piece).unwrap();
        carried.push((inside, host, sent));
    }
    assert_eq!(sandbox.connection.call(Request::List).map(drop), Ok(()));
    thread::sleep(Duration::from_millis(500));
    let after = sandbox.resident_kib();
    assert!(
        after < before + 8 * 1024,
        "{before} KiB grew to {after} KiB"
    );
    for (inside, host, sent) in &mut carried {
        inside.shutdown(std::net::Shutdown::Write).unwrap();
        let mut all = Vec::new();
        host.read_to_end(&mut all).unwrap();
        assert!(all.len() == *sent && *sent > 300_000, "{sent}");
    }
}

#[test]
fn a_tree_is_seen_and_ended_though_connections_and_executions_hold_all_descriptors_there_are() {
    const OPEN_FILES: u64 = 96;
    let options = Options {
        open_files: Some(OPEN_FILES),
        ..Options::default()
    };
    let Some(mut sandbox) = sandbox_with(options) else {
        return;
    };
    let port = open(&mut sandbox, RelayTakes::Streams);
    let spec = sandbox.shell("setsid sleep 4242 & sleep 4242");
    let tree = sandbox.connection.start(&spec);
    let sleepers = |sandbox: &Sandbox| {
        let command = |pid: &u32| std::fs::read(format!("/proc/{pid}/cmdline"));
        let processes = sandbox.processes();
        let commands = processes.iter().filter_map(|pid| command(pid).ok());
        commands.filter(|line| line == b"sleep\x004242\0").count()
    };
    eventually(PATIENCE, "the tree stands", || sleepers(&sandbox) == 2);
    // Connections get no more than their half: something else can still be started.
    let clients: Vec<_> = (0..OPEN_FILES)
        .map(|_| TcpStream::connect(("127.0.0.1", port)).unwrap())
        .collect();
    thread::sleep(Duration::from_millis(500));
    let mut started = 0;
    loop {
        let mut spec = sandbox.shell("sleep 60");
        spec.stdin = Stdin::Open;
        match sandbox.connection.call(Request::Start(Box::new(spec))) {
            Ok(_) => started += 1,
            Err(_) => break,
        }
    }
    assert!(started > 2, "{started}");
    let cancel = Request::Cancel {
        execution: tree,
        grace_ms: 0,
    };
    assert!(sandbox.connection.call(cancel).is_ok());
    let status = sandbox.connection.wait(tree);
    assert_eq!(ended(&status).cause, Cause::Cancelled);
    assert_eq!(sleepers(&sandbox), 0, "told as ended while it lives");
    drop(clients);
}

/// Nothing is lost. How fast it is, beside a connection that nobody carries, and how much of a processor pid 1 needs for it
/// is said for people: a busy machine is no fault.
#[test]
fn one_connection_carries_a_gigabyte_whole_both_ways() {
    let Some(mut sandbox) = sandbox() else { return };
    let port = open(&mut sandbox, RelayTakes::Streams);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let mut far = listener.accept().unwrap().0;
    eprintln!("direct: {:.2} GB/s", carry(&mut near, &mut far));
    let mut inside = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let mut host = relayed(&mut sandbox, port);
    for outwards in [true, false] {
        let before = sandbox.processor_seconds();
        let rate = match outwards {
            true => carry(&mut inside, &mut host),
            false => carry(&mut host, &mut inside),
        };
        let seconds = (sandbox.processor_seconds() - before) / GIGABYTE as f64 * 1e9;
        eprintln!("outwards {outwards}: {rate:.2} GB/s; pid 1 needs {seconds:.2} s for a GB");
    }
}

const GIGABYTE: usize = 1 << 30;

/// Moves [`GIGABYTE`]; says how many thousand million bytes were moved in a second.
fn carry(mut from: impl Write + Send, mut to: impl Read) -> f64 {
    const PIECE_BYTES: usize = 256 * 1024;
    let piece: Vec<u8> = (0..PIECE_BYTES).map(|index| (index / 7) as u8).collect();
    let twice = piece.repeat(2);
    let started = Instant::now();
    thread::scope(|scope| {
        scope.spawn(|| {
            (0..GIGABYTE / PIECE_BYTES).for_each(|_| from.write_all(&piece).unwrap());
        });
        let (mut came, mut all) = (vec![0; PIECE_BYTES], 0);
        while all < GIGABYTE {
            let count = to.read(&mut came).unwrap();
            let due = &twice[all % PIECE_BYTES..][..count];
            assert!(count > 0 && &came[..count] == due, "after {all} bytes");
            all += count;
        }
    });
    GIGABYTE as f64 / started.elapsed().as_secs_f64() / 1e9
}
