//! One connection: credentials, greeting, verdict, door.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Instant};

use model::{ClientInfo, Credentials, Principal, Source};
use tokio::{
    io::{AsyncWriteExt, BufReader},
    net::{UnixStream, unix::UCred},
};
use tokio_util::sync::CancellationToken;

use super::{
    House, Options,
    clients::{Client, Clients},
    handshake::{
        GREETING_TIMEOUT, Greeting, GreetingError, MAX_LINE_BYTES, MAX_OWNERS, Mode, Owner,
        PROTOCOL, Reply, Standing, Verdict, is_admitted, judge, read_line,
    },
    stream_door,
};

/// What every connection needs of the server.
pub(super) struct Host {
    pub(super) house: Arc<dyn House>,
    pub(super) clients: Clients,
    pub(super) options: Options,
    pub(super) started: Instant,
    pub(super) stop: CancellationToken,
}

/// What a greeting led to.
enum Greeted {
    /// The client goes on in its mode.
    Enters(Greeting, Client),
    /// The reply was all.
    Answered,
}

/// Serves one connection to its end.
pub(super) async fn serve(stream: UnixStream, host: &Host) {
    let peer = match stream.peer_cred() {
        Ok(peer) if is_admitted(host.options.uid, peer.uid()) => peer,
        Ok(peer) => {
            return tracing::warn!(uid = peer.uid(), "refused a connection of another user");
        }
        Err(error) => return tracing::warn!(%error, "refused a connection whose peer is not known"),
    };
    let mut stream = BufReader::new(stream);
    // A server that ends lets go of clients that have not got its reply yet: they try again with the next one.
    let greeted = tokio::select! {
        () = host.stop.cancelled() => return,
        greeted = greet(&mut stream, &peer, host) => greeted,
    };
    match greeted {
        Ok(Greeted::Enters(greeting, client)) => {
            attend(stream, greeting, peer, host).await;
            drop(client);
        }
        Ok(Greeted::Answered) | Err(GreetingError::Gone) => {}
        Err(error) => {
            tracing::warn!(
                error = describe(&error),
                uid = peer.uid(),
                "refused a connection"
            );
            let line = refusal_line(&host.options.version, &error.to_string());
            // The client may be gone by now.
            let _ = stream.write_all(&line).await;
        }
    }
}

/// Reads the greeting and answers it.
async fn greet(
    stream: &mut BufReader<UnixStream>,
    peer: &UCred,
    host: &Host,
) -> Result<Greeted, GreetingError> {
    let greeting: Greeting = read_line(stream, MAX_LINE_BYTES, GREETING_TIMEOUT).await?;
    let sessions = host.house.live_sessions().await;
    // No pause from here to `enter` or `close_if_empty`: what the verdict rests on must still hold when it is given.
    let Some((mut reply, client)) = decide(&greeting, sessions, host) else {
        return Ok(Greeted::Answered);
    };
    if greeting.mode == Mode::Status {
        let mut owners = host.house.session_owners().await;
        reply.own_sessions = Some(owners.remove(&name(peer)).unwrap_or_default());
        reply.others = most_first(owners);
    }
    if greeting.mode == Mode::Reload && reply.verdict == Verdict::Welcome {
        tracing::info!("a client asks this server to read its configuration again");
        reply.reloaded = Some(host.house.reload().await);
    }
    stream
        .write_all(&line(&reply))
        .await
        .map_err(GreetingError::Read)?;
    if reply.verdict == Verdict::Leaving {
        tracing::info!(
            client = greeting.version,
            "a client asks this server to leave"
        );
        host.stop.cancel();
    }
    Ok(client.map_or(Greeted::Answered, |client| {
        Greeted::Enters(greeting, client)
    }))
}

/// The name under which that peer owns sessions.
fn name(peer: &UCred) -> String {
    let (uid, roots) = (peer.uid(), Vec::new());
    Principal::LocalUser { uid, roots }.name()
}

fn most_first(owners: BTreeMap<String, u32>) -> Vec<Owner> {
    let owners = owners.into_iter();
    let mut owners: Vec<_> = owners
        .map(|(owner, sessions)| Owner { owner, sessions })
        .collect();
    owners.sort_by_key(|owner| std::cmp::Reverse(owner.sessions));
    owners.truncate(MAX_OWNERS);
    owners
}

/// `None`: this server is just ending and says nothing, so that the client tries the next one.
fn decide(greeting: &Greeting, sessions: u32, host: &Host) -> Option<(Reply, Option<Client>)> {
    let standing = Standing {
        clients: host.clients.present(),
        sessions,
        on_demand: host.options.idle_exit.is_some(),
    };
    let (mut verdict, mut message) = judge(greeting, &host.options.version, standing);
    if verdict == Verdict::Leaving && greeting.mode != Mode::Stop && !host.clients.close_if_empty()
    {
        // Somebody came in meanwhile.
        let standing = Standing {
            clients: host.clients.present().max(1),
            ..standing
        };
        (verdict, message) = judge(greeting, &host.options.version, standing);
    }
    let enters = verdict == Verdict::Welcome
        && matches!(greeting.mode, Mode::Mcp | Mode::Person | Mode::Stream);
    let client = if enters {
        Some(host.clients.enter()?)
    } else {
        None
    };
    let reply = Reply {
        protocol: PROTOCOL,
        version: host.options.version.clone(),
        server_pid: std::process::id(),
        verdict,
        message,
        clients: standing.clients,
        sessions,
        own_sessions: None,
        others: Vec::new(),
        uptime_seconds: host.started.elapsed().as_secs(),
        http: host.options.http.clone(),
        reloaded: None,
    };
    Some((reply, client))
}

async fn attend(stream: BufReader<UnixStream>, greeting: Greeting, peer: UCred, host: &Host) {
    let roots: Vec<PathBuf> = greeting
        .roots
        .into_iter()
        .filter(|root| root.is_absolute())
        .collect();
    // A peer in another pid namespace has no pid here.
    let credentials = Credentials::LocalPeer {
        uid: peer.uid(),
        pid: peer.pid().unwrap_or_default(),
        roots,
    };
    let stop = host.stop.child_token();
    match greeting.mode {
        Mode::Mcp | Mode::Person => {
            let peer = mcp::Peer {
                credentials,
                source: Source::LOCAL,
                is_person: greeting.mode == Mode::Person,
            };
            let served = mcp::serve(stream, host.house.road(), peer, stop).await;
            if let Err(error) = served {
                tracing::warn!(error = describe(&error), "an MCP connection failed");
            }
        }
        Mode::Stream => {
            let client = ClientInfo {
                name: "claude-code-mcp session".to_owned(),
                version: greeting.version,
            };
            let caller = stream_door::Caller {
                credentials,
                client,
            };
            if let Err(error) = stream_door::serve(stream, host.house.road(), caller, stop).await {
                tracing::debug!(error = describe(&error), "a stream connection ended early");
            }
        }
        Mode::Status | Mode::Reload | Mode::Stop | Mode::Succeed => {}
    }
}

/// A reply that says no, ready to be sent.
pub(super) fn refusal_line(version: &str, sentence: &str) -> Vec<u8> {
    line(&Reply {
        protocol: PROTOCOL,
        version: version.to_owned(),
        server_pid: std::process::id(),
        verdict: Verdict::Refused,
        message: Some(sentence.to_owned()),
        clients: 0,
        sessions: 0,
        own_sessions: None,
        others: Vec::new(),
        uptime_seconds: 0,
        http: None,
        reloaded: None,
    })
}

fn line(reply: &Reply) -> Vec<u8> {
    // Serializing a struct of numbers and texts into memory cannot fail; an empty line would be refused by the client.
    let mut line = serde_json::to_vec(reply).unwrap_or_default();
    line.push(b'\n');
    line
}

fn describe(error: &dyn std::error::Error) -> String {
    let mut chain = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        chain.push_str(": ");
        chain.push_str(&cause.to_string());
        source = cause.source();
    }
    chain
}
