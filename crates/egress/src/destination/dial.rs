//! A connection to the first of several addresses that takes one (RFC 8305, without its own resolver).

use std::{io, net::SocketAddr, pin::Pin, time::Duration};

use tokio::{net::TcpStream, task::JoinSet, time::sleep};

/// How long one address has the start over the next (RFC 8305, section 8: 250 ms recommended).
const HEAD_START: Duration = Duration::from_millis(250);

/// Makes one connection. Tests put their own in place.
pub(super) type Connect =
    dyn Fn(SocketAddr) -> Pin<Box<dyn Future<Output = io::Result<TcpStream>> + Send>> + Send + Sync;

/// To the address, and nowhere else.
pub(super) fn connect(
    address: SocketAddr,
) -> Pin<Box<dyn Future<Output = io::Result<TcpStream>> + Send>> {
    Box::pin(TcpStream::connect(address))
}

/// Tries the addresses in turn, each begun when the one before it failed or had its start. What is still under way when one
/// succeeds is given up.
pub(super) async fn first_that_answers(
    connect: &Connect,
    addresses: Vec<SocketAddr>,
) -> io::Result<(TcpStream, SocketAddr)> {
    let mut rest = addresses.into_iter();
    let mut attempts = JoinSet::new();
    let mut failure = io::Error::from(io::ErrorKind::AddrNotAvailable);
    loop {
        if let Some(address) = rest.next() {
            let attempt = connect(address);
            attempts.spawn(async move { attempt.await.map(|stream| (stream, address)) });
        }
        tokio::select! {
            ended = attempts.join_next() => match ended {
                Some(Ok(Ok(connected))) => return Ok(connected),
                Some(Ok(Err(error))) => failure = error,
                Some(Err(error)) => failure = io::Error::other(error),
                None => return Err(failure),
            },
            () = sleep(HEAD_START), if rest.len() > 0 => {}
        }
    }
}
