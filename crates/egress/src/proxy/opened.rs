//! A tunnel whose TLS is opened: the client speaks to us, with a certificate that its sandbox believes, and each request that
//! it makes is judged and goes out on a connection of its own. Nothing is dialed before that.

use std::{io::Cursor, sync::Arc};

use bytes::BytesMut;
use rustls::server::Acceptor;
use tokio::{io::AsyncReadExt, time::timeout};
use tokio_rustls::LazyConfigAcceptor;

use super::{
    answer,
    gate::Gate,
    head::Speaks,
    hello::HANDSHAKE,
    limits::ProxyLimits,
    requests::{self, Road, Wire},
    session::{Ask, Asked, SessionEgress},
};
use crate::destination::{Denial, HostName};

/// Serves the requests of a tunnel that the client was told it has. `early` is what was already read of it.
pub(crate) async fn serve(
    mut client: Box<dyn Wire>,
    mut early: BytesMut,
    ask: Ask,
    session: Arc<SessionEgress>,
    limits: ProxyLimits,
) {
    let Some(server) = session.interception().map(|both| Arc::clone(&both.server)) else {
        return;
    };
    if early.is_empty() {
        match timeout(limits.hello_timeout, client.read_buf(&mut early)).await {
            Ok(Ok(1..)) => {}
            // Gone, or nothing to say.
            Ok(Ok(0) | Err(_)) | Err(_) => return,
        }
    }
    if early.first() != Some(&HANDSHAKE) {
        let denial = Denial::NotTls {
            host: ask.host.clone(),
            port: ask.port,
        };
        session.refused(Asked::Whole(&ask), &denial).await;
        return answer::last_words(&mut client, &answer::bytes(&denial)).await;
    }
    let (reader, writer) = tokio::io::split(client);
    let client: Box<dyn Wire> = Box::new(tokio::io::join(Cursor::new(early).chain(reader), writer));
    let hello = LazyConfigAcceptor::new(Acceptor::default(), client);
    let Ok(Ok(mut start)) = timeout(limits.hello_timeout, hello).await else {
        return;
    };
    if let Err(denial) = names(start.client_hello().server_name(), &ask.host) {
        session.refused(Asked::Whole(&ask), &denial).await;
        return answer::last_words(&mut start.io, &answer::TLS_ALERT).await;
    }
    match timeout(limits.hello_timeout, start.into_stream(server)).await {
        Ok(Ok(opened)) => {
            let gate = Gate::new(opened, BytesMut::new(), Speaks::ToServer, &limits);
            let road = Road::through(session, limits, ask);
            Box::pin(requests::serve(gate, road)).await;
        }
        // Who only hangs up says nothing about the certificate.
        Ok(Err(error))
            if error
                .get_ref()
                .is_some_and(|inner| inner.is::<rustls::Error>()) =>
        {
            let denial = Denial::CertificateNotTaken {
                host: ask.host.clone(),
            };
            session.refused(Asked::Whole(&ask), &denial).await;
        }
        Ok(Err(_)) | Err(_) => {}
    }
}

/// Whether TLS asks for the host of its tunnel. What a client hides beside it is for nobody: it is we who answer.
fn names(sni: Option<&str>, host: &HostName) -> Result<(), Denial> {
    let Some(sni) = sni else {
        return Err(Denial::SniMissing { host: host.clone() });
    };
    match HostName::parse(sni.as_bytes()) {
        Ok(named) if named == *host => Ok(()),
        Ok(_) | Err(_) => Err(Denial::SniMismatch {
            host: host.clone(),
            sni: sni.to_owned(),
        }),
    }
}
