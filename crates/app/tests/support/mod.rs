//! A scripted house, and a server in this process that fronts can start.

use std::{
    collections::{BTreeMap, VecDeque},
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use app::{
    config::Paths,
    front::{StartError, Started, Starter},
    server::{
        self, ChangedKey, ElectionError, House, Options, ReloadOutcome, Reloaded,
        handshake::{Greeting, Mode, PROTOCOL},
        take_lock,
    },
};
use async_trait::async_trait;
use control::Road;
use model::{
    Action, Call, ExecutionId, ExecutionState, ExecutionView, Outcome, Reason, Refusal, SessionId,
    StreamView,
};
use tokio_util::sync::CancellationToken;

/// A house that answers from a script and remembers what was asked.
#[derive(Default)]
pub struct ScriptedHouse {
    pub sessions: AtomicU32,
    pub owners: Mutex<BTreeMap<String, u32>>,
    pub shutdowns: AtomicUsize,
    pub reloads: AtomicUsize,
    pub hangs_at_shutdown: AtomicBool,
    pub road: Arc<EchoRoad>,
}

#[async_trait]
impl House for ScriptedHouse {
    fn road(&self) -> Arc<dyn Road> {
        Arc::clone(&self.road) as Arc<dyn Road>
    }

    fn has_keys(&self) -> bool {
        false
    }

    async fn live_sessions(&self) -> u32 {
        self.sessions.load(Ordering::SeqCst)
    }

    async fn session_owners(&self) -> BTreeMap<String, u32> {
        self.owners.lock().unwrap().clone()
    }

    async fn reload(&self) -> Reloaded {
        self.reloads.fetch_add(1, Ordering::SeqCst);
        Reloaded {
            source: None,
            outcome: ReloadOutcome::Changed,
            changed: vec![ChangedKey {
                key: "network_allow".to_owned(),
                applies: "at_once".to_owned(),
            }],
            needs_restart: vec!["backend".to_owned()],
            narrowed_sessions: 1,
            problems: Vec::new(),
        }
    }

    async fn shutdown(&self) {
        self.shutdowns.fetch_add(1, Ordering::SeqCst);
        if self.hangs_at_shutdown.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
    }
}

/// Runs "commands" that copy their standard input to standard output and end with it, exit code 7.
#[derive(Default)]
pub struct EchoRoad {
    state: Mutex<Echo>,
    news: tokio::sync::Notify,
}

#[derive(Default)]
struct Echo {
    output: Vec<u8>,
    end: Option<ExecutionState>,
    names: Vec<&'static str>,
    full: VecDeque<()>,
}

impl EchoRoad {
    /// The names of all actions so far.
    pub fn names(&self) -> Vec<&'static str> {
        self.state.lock().unwrap().names.clone()
    }

    /// Standard input is full for the next `count` tries.
    pub fn fill(&self, count: usize) {
        self.state.lock().unwrap().full = std::iter::repeat_n((), count).collect();
    }

    fn view(&self, from: u64) -> ExecutionView {
        let state = self.state.lock().unwrap();
        let begin = usize::try_from(from).unwrap().min(state.output.len());
        let total = state.output.len() as u64;
        let end = state.output.len().min(begin + 100_000);
        let stdout = StreamView {
            bytes: state.output[begin..end].to_vec(),
            offset: from,
            total_bytes: total,
            cursor: end as u64,
            truncated: (end as u64) < total,
        };
        ExecutionView {
            network_questions: Vec::new(),
            id: ExecutionId::from_bytes([1; 16]),
            session: SessionId::from_bytes([2; 16]),
            state: state.end.unwrap_or(ExecutionState::Running),
            exit_code: (state.end == Some(ExecutionState::Exited)).then_some(7),
            signal: (state.end == Some(ExecutionState::Killed)).then_some(15),
            oom_killed: false,
            duration_ms: 1,
            stdout,
            stderr: StreamView::default(),
            protected_changes: Vec::new(),
            failure: None,
            prompt: None,
            output_lost: false,
        }
    }

    fn change(&self, action: &Action) -> Result<(), Refusal> {
        let mut state = self.state.lock().unwrap();
        state.names.push(action.name());
        match action {
            Action::RespondExecution { data, close, .. } => {
                if state.full.pop_front().is_some() {
                    return Err(Refusal::new(Reason::StdinFull, "Full.", "Wait.").retry_after_ms(1));
                }
                state.output.extend_from_slice(data.expose());
                state.end = close.then_some(ExecutionState::Exited);
            }
            Action::CancelExecution(_) => state.end = Some(ExecutionState::Killed),
            Action::ExecuteCommand(command) if command.stdin.is_some() => {
                state.end = Some(ExecutionState::Exited)
            }
            _ => {}
        }
        Ok(())
    }
}

#[async_trait]
impl Road for EchoRoad {
    async fn handle(&self, call: Call) -> Result<Outcome, Refusal> {
        self.change(&call.action)?;
        self.news.notify_waiters();
        match call.action {
            Action::ListSessions { .. } => Ok(Outcome::Sessions(Vec::new())),
            Action::ExecuteCommand(_) => Ok(Outcome::Execution(Box::new(self.view(0)))),
            Action::GetExecution(get) => {
                let deadline = Instant::now() + get.wait;
                loop {
                    let news = self.news.notified();
                    let view = self.view(get.stdout_cursor);
                    if view.state.is_final()
                        || !view.stdout.bytes.is_empty()
                        || Instant::now() > deadline
                    {
                        return Ok(Outcome::Execution(Box::new(view)));
                    }
                    let _ = tokio::time::timeout(Duration::from_millis(50), news).await;
                }
            }
            _ => Ok(Outcome::Done),
        }
    }

    async fn authenticate(
        &self,
        _credentials: &model::Credentials,
        _source: &model::Source,
    ) -> Result<control::Authenticated, Refusal> {
        Ok(control::Authenticated {
            name: "uid:0".to_owned(),
            scopes: model::Scopes::all(),
            rate: None,
        })
    }
}

/// A state directory, a house, and servers in this process.
pub struct Fixture {
    _scratch: tempfile::TempDir,
    pub paths: Paths,
    pub house: Arc<ScriptedHouse>,
    pub starts: Arc<AtomicUsize>,
    pub idle_exit: Option<Duration>,
    pub version: String,
}

impl Fixture {
    pub fn new() -> Self {
        let scratch = tempfile::tempdir().unwrap();
        let paths = Paths::new(
            scratch.path().join("state"),
            None,
            rustix::process::geteuid().as_raw(),
        );
        let (house, starts) = (Arc::default(), Arc::default());
        Fixture {
            _scratch: scratch,
            paths,
            house,
            starts,
            idle_exit: None,
            version: "1.0.0".to_owned(),
        }
    }

    /// Runs a server on its own thread. The result says that it listens, or why not.
    pub fn serve(&self) -> Result<Running, ElectionError> {
        let elected = take_lock(&self.paths)?.listen(&self.paths, &self.version)?;
        self.starts.fetch_add(1, Ordering::SeqCst);
        let house = Arc::clone(&self.house) as Arc<dyn House>;
        let uid = self.paths.uid();
        let options = Options {
            version: self.version.clone(),
            idle_exit: self.idle_exit,
            uid,
            http: None,
        };
        let stop = CancellationToken::new();
        let token = stop.clone();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime
                .block_on(server::run(elected, house, options, token))
                .unwrap();
            runtime.shutdown_timeout(Duration::from_millis(50));
        });
        Ok(Running {
            stop,
            thread: Some(thread),
        })
    }

    pub fn greeting(&self, mode: Mode) -> Greeting {
        Greeting {
            protocol: PROTOCOL,
            version: "1.0.0".to_owned(),
            mode,
            working_directory: Some(Path::new("/project").to_path_buf()),
            roots: vec!["/project".into()],
            pid: std::process::id(),
        }
    }
}

/// A server; it is stopped when this is dropped.
pub struct Running {
    pub stop: CancellationToken,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Running {
    /// Waits for its end; gives how long that took.
    pub fn wait(mut self) -> Duration {
        let begin = Instant::now();
        self.thread.take().unwrap().join().unwrap();
        begin.elapsed()
    }

    pub fn has_ended(&self) -> bool {
        self.thread
            .as_ref()
            .is_some_and(std::thread::JoinHandle::is_finished)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

/// Starts servers of a fixture and keeps them.
pub struct InProcess<'a> {
    pub fixture: &'a Fixture,
    pub running: Mutex<Vec<Running>>,
}

impl<'a> InProcess<'a> {
    pub fn new(fixture: &'a Fixture) -> Self {
        InProcess {
            fixture,
            running: Mutex::default(),
        }
    }
}

impl Starter for InProcess<'_> {
    fn start(&self, _deadline: Instant) -> Result<Started, StartError> {
        match self.fixture.serve() {
            Ok(running) => {
                self.running.lock().unwrap().push(running);
                Ok(Started::Ready)
            }
            Err(ElectionError::Taken { .. }) => Ok(Started::AnotherHoldsTheLock),
            Err(error) => Err(StartError::Failed(error.to_string())),
        }
    }
}
