//! The listener on loopback: one task for each connection, all ended when the API is dropped.

use std::{
    convert::Infallible,
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use futures::stream;
use http_body_util::{
    BodyExt as _, Empty, Full, LengthLimitError, Limited, StreamBody, combinators::UnsyncBoxBody,
};
use hyper::{
    Request as HttpRequest, Response,
    body::{Frame, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use thiserror::Error;
use tokio::{
    net::{TcpListener, TcpStream},
    task::{JoinHandle, JoinSet},
    time::{sleep, timeout},
};

use crate::{
    answer::{Addressee, Answer, Route, Step, aside, aside_turn, check_body, play},
    choose::Chooser,
    credential::{Accept, Credential},
    record::{OnEnd, Outcome, Recorded, Records, Tracker},
    refusal::{Headers, Refusal},
    request::{Provider, Request},
    script::{Script, ScriptError, Turn},
    signature::Signed,
};

/// The largest body that is read: Anthropic's own limit.
const MAX_BODY_BYTES: usize = 32 * 1024 * 1024;

type Body = UnsyncBoxBody<Bytes, io::Error>;

/// How an API is started.
#[derive(Clone, Default)]
pub struct Options {
    /// The port on 127.0.0.1; 0: any free one.
    pub port: u16,
    /// Credentials that are accepted; empty: nobody asks.
    pub accept: Vec<Accept>,
    /// Called once for each answer that has ended.
    pub on_end: Option<OnEnd>,
}

/// Why an API did not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// The script cannot be played.
    #[error("the script cannot be played")]
    Script(#[from] ScriptError),
    /// No port.
    #[error("no port on 127.0.0.1; is another program listening there?")]
    Listen(#[source] io::Error),
    /// No random bytes for ids.
    #[error("the machine gave no random bytes")]
    Random(#[source] getrandom::Error),
}

/// A running scripted API. Dropping it ends it with all its connections.
pub struct ScriptedApi {
    address: SocketAddr,
    records: Arc<Records>,
    listener: JoinHandle<()>,
}

impl ScriptedApi {
    /// Starts on any free port of 127.0.0.1 and accepts any credential.
    ///
    /// # Errors
    /// A script that cannot be played, or no port.
    pub async fn start(script: Script) -> Result<Self, StartError> {
        Self::start_with(script, Options::default()).await
    }

    /// Starts as the options say.
    ///
    /// # Errors
    /// A script that cannot be played, or no port.
    pub async fn start_with(script: Script, options: Options) -> Result<Self, StartError> {
        let script = script.checked()?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, options.port))
            .await
            .map_err(StartError::Listen)?;
        let address = listener.local_addr().map_err(StartError::Listen)?;
        let mut nonce = [0; 4];
        getrandom::fill(&mut nonce).map_err(StartError::Random)?;
        let records = Arc::new(Records::new(options.on_end));
        let house = Arc::new(House {
            label: script.label.clone(),
            nonce: hex::encode(nonce),
            accept: options.accept,
            chooser: Mutex::new(Chooser::new(script)),
            records: Arc::clone(&records),
        });
        Ok(Self {
            address,
            records,
            listener: tokio::spawn(listen(listener, house)),
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What `ANTHROPIC_BASE_URL` and `ANTHROPIC_BEDROCK_BASE_URL` take; `ANTHROPIC_VERTEX_BASE_URL` takes it with `/v1`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// All requests so far, in the order of arrival.
    #[must_use]
    pub fn requests(&self) -> Vec<Recorded> {
        self.records.list().clone()
    }

    /// The requests of the main conversation so far.
    #[must_use]
    pub fn main_requests(&self) -> Vec<Recorded> {
        let mut requests = self.requests();
        requests.retain(Recorded::is_main);
        requests
    }

    /// Waits until it holds for the requests; false when it does not within this time.
    pub async fn until(&self, limit: Duration, holds: impl Fn(&[Recorded]) -> bool) -> bool {
        let waiting = async {
            loop {
                let changed = self.records.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                if holds(&self.records.list()) {
                    return;
                }
                changed.await;
            }
        };
        timeout(limit, waiting).await.is_ok()
    }
}

impl Drop for ScriptedApi {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

struct House {
    label: String,
    nonce: String,
    accept: Vec<Accept>,
    chooser: Mutex<Chooser>,
    records: Arc<Records>,
}

async fn listen(listener: TcpListener, house: Arc<House>) {
    // Dropped with this task, and all connections with it.
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(serve(stream, Arc::clone(&house)));
                }
                // Out of file descriptors, most likely: not for ever.
                Err(_) => sleep(Duration::from_millis(50)).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn serve(stream: TcpStream, house: Arc<House>) {
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| {
        let house = Arc::clone(&house);
        async move { house.answer(request).await }
    });
    // A client that leaves, or a cut that the script wants, is told as an error here.
    let _ = http1::Builder::new()
        .header_read_timeout(None)
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

impl House {
    async fn answer(&self, request: HttpRequest<Incoming>) -> Result<Response<Body>, io::Error> {
        let (parts, body) = request.into_parts();
        let path = parts
            .uri
            .path_and_query()
            .map_or("/", |path| path.as_str())
            .to_owned();
        let headers: Vec<(String, String)> = parts
            .headers
            .iter()
            .map(|(name, value)| {
                (
                    name.as_str().to_owned(),
                    String::from_utf8_lossy(value.as_bytes()).into_owned(),
                )
            })
            .collect();
        let (bytes, too_large) = match Limited::new(body, MAX_BODY_BYTES).collect().await {
            Ok(body) => (body.to_bytes(), false),
            Err(error) if error.is::<LengthLimitError>() => (Bytes::new(), true),
            Err(error) => return Err(io::Error::other(error)),
        };
        let received = Received {
            method: parts.method.as_str().to_owned(),
            route: Route::of(parts.method.as_str(), &path),
            path,
            headers,
            body: serde_json::from_slice(&bytes).unwrap_or(Value::Null),
            bytes,
            too_large,
        };
        let (answer, tracker) = self.decide(received);
        send(answer, tracker, &self.nonce).await
    }

    /// Everything between a request that has arrived whole and the first byte of its answer.
    fn decide(&self, received: Received) -> (Answer, Tracker) {
        let signed = Signed {
            method: &received.method,
            path: &received.path,
            headers: &received.headers,
            body: &received.bytes,
        };
        let is_hello = received.route == Some(Route::Hello);
        let accept = if is_hello { &[][..] } else { &self.accept };
        let credential = Credential::judge(accept, &signed);
        let refusal = credential.refusal();
        let request = received.request();
        let tracker = self
            .records
            .add(received.recorded(credential, request.as_ref()));
        let id = format!("scripted{}{:06}", self.nonce, tracker.number());
        let provider = received.provider();
        let refuse = |refusal: &Refusal| {
            let (status, headers, body) = refusal.answer(provider, &format!("req_{id}"));
            Answer::Whole {
                status,
                headers,
                body,
                delay: Duration::ZERO,
            }
        };
        if let Some(refusal) = refusal {
            return (refuse(&refusal), tracker);
        }
        let answer = match (&received.route, &request) {
            (None, _) => refuse(&Refusal::new(
                404,
                format!("scripted: no such path: {}", received.path),
            )),
            (Some(_), _) if received.too_large => refuse(&Refusal::usual(413)),
            (Some(_), Some(request)) => {
                match check_body(provider, &received.headers, &received.body) {
                    Err(refusal) => refuse(&refusal),
                    Ok(()) => self.turn(request, &tracker).map_or_else(
                        || refuse(&Refusal::new(400, self.no_turn(request))),
                        |turn| {
                            play(
                                &turn,
                                &Addressee {
                                    request,
                                    label: &self.label,
                                    id: &id,
                                },
                            )
                        },
                    ),
                }
            }
            (Some(route), None) => Answer::Whole {
                status: 200,
                headers: vec![("content-type", "application/json".to_owned())],
                body: Bytes::from(aside(route, received.bytes.len()).to_string()),
                delay: Duration::ZERO,
            },
        };
        (answer, tracker)
    }

    fn turn(&self, request: &Request, tracker: &Tracker) -> Option<Turn> {
        let mut chooser = self.chooser.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((index, turn)) = chooser.choose(request) else {
            return aside_turn(request.purpose);
        };
        tracker.note(|recorded| recorded.turn = Some(index));
        Some(turn)
    }

    fn no_turn(&self, request: &Request) -> String {
        let chooser = self.chooser.lock().unwrap_or_else(PoisonError::into_inner);
        format!(
            "scripted: no turn of the script {:?} fits this request ({} tool results since the prompt), or all that fit are used up",
            chooser.script().name,
            request.results.len()
        )
    }
}

/// A request that has arrived whole.
struct Received {
    method: String,
    route: Option<Route>,
    path: String,
    headers: Vec<(String, String)>,
    body: Value,
    bytes: Bytes,
    too_large: bool,
}

impl Received {
    fn provider(&self) -> Provider {
        self.route.as_ref().map(Route::provider).unwrap_or_default()
    }

    fn request(&self) -> Option<Request> {
        let Some(Route::Message {
            provider,
            stream,
            model,
        }) = &self.route
        else {
            return None;
        };
        let stream = stream.unwrap_or_else(|| self.body["stream"] == true);
        Some(Request::new(
            *provider,
            stream,
            model.as_deref(),
            &self.headers,
            &self.body,
        ))
    }

    fn recorded(&self, credential: Credential, request: Option<&Request>) -> Recorded {
        Recorded {
            number: 0,
            after: Duration::ZERO,
            method: self.method.clone(),
            path: self.path.clone(),
            headers: self.headers.clone(),
            body: self.body.clone(),
            body_bytes: self.bytes.len(),
            provider: self.route.as_ref().map(Route::provider),
            purpose: request.map(|request| request.purpose),
            credential,
            turn: None,
            status: None,
            outcome: Outcome::Open,
        }
    }
}

async fn send(answer: Answer, tracker: Tracker, nonce: &str) -> Result<Response<Body>, io::Error> {
    let request_id = format!("req_scripted{nonce}{:06}", tracker.number());
    match answer {
        Answer::Hang => {
            std::future::pending::<Infallible>().await;
            drop(tracker);
            Err(io::Error::other("a hang has an end"))
        }
        Answer::HangUp => {
            tracker.ended(Outcome::Cut);
            Err(io::Error::other("the script hangs up"))
        }
        Answer::Whole {
            status,
            headers,
            body,
            delay,
        } => {
            sleep(delay).await;
            tracker.note(|recorded| recorded.status = Some(status));
            tracker.ended(Outcome::Complete);
            let body = Full::new(body)
                .map_err(|never| match never {})
                .boxed_unsync();
            response(status, headers, &request_id, body)
        }
        Answer::Stream {
            headers,
            steps,
            delay,
        } => {
            sleep(delay).await;
            tracker.note(|recorded| recorded.status = Some(200));
            response(200, headers, &request_id, played(steps, tracker))
        }
    }
}

fn response(
    status: u16,
    headers: Headers,
    request_id: &str,
    body: Body,
) -> Result<Response<Body>, io::Error> {
    let mut builder = Response::builder()
        .status(status)
        .header("x-scripted-api", "true")
        .header("request-id", request_id)
        .header("x-amzn-requestid", request_id)
        .header("anthropic-organization-id", "scripted");
    for (name, value) in headers {
        builder = builder.header(name, value);
    }
    builder.body(body).map_err(io::Error::other)
}

/// The steps as a body.
fn played(steps: Vec<Step>, tracker: Tracker) -> Body {
    if steps.is_empty() {
        tracker.ended(Outcome::Complete);
        return Empty::new().map_err(|never| match never {}).boxed_unsync();
    }
    let frames = stream::unfold(
        (steps.into_iter(), tracker),
        |(mut steps, tracker)| async move {
            loop {
                match steps.next() {
                    Some(Step::Send(bytes)) => {
                        return Some((Ok(Frame::data(bytes)), (steps, tracker)));
                    }
                    Some(Step::Wait(time)) => sleep(time).await,
                    Some(Step::Stall) => std::future::pending().await,
                    Some(Step::Cut) => {
                        tracker.ended(Outcome::Cut);
                        return Some((Err(io::Error::other("the script cuts")), (steps, tracker)));
                    }
                    None => {
                        tracker.ended(Outcome::Complete);
                        return None;
                    }
                }
            }
        },
    );
    StreamBody::new(frames).boxed_unsync()
}
