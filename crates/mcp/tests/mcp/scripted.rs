//! A road that answers from a script and remembers what was asked. Also used by the example.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use control::{Authenticated, Road};
use model::{
    Action, Attestation, BackendName, BudgetLeft, BudgetScope, Call, CallerBounds, Credentials,
    EgressRule, Enforcement, ExecutionId, ExecutionState, ExecutionView, FileChunk, FileWritten,
    HostPattern, KeyView, Layer, LayerInForce, LimitInForce, LimitName, LogLine, NamedRule,
    NetworkOffer, NetworkPolicy, NewKey, Outcome, PromptStop, PromptView, ProviderUsageView,
    Refusal, RevokedKey, Scopes, Secret, ServerInfo, SessionId, SessionState, SessionView, Source,
    StreamView, TokenUsage, TransferReport, UploadId, UsageView,
};

/// What the road does with a call.
#[allow(dead_code, reason = "the example needs only some")]
pub enum Answer {
    /// Answers at once.
    Now(Result<Outcome, Refusal>),
    /// Answers later.
    After(Duration, Result<Outcome, Refusal>),
    /// Never answers.
    Never,
    /// Breaks.
    Panic,
}

type Script = Box<dyn Fn(&Action) -> Answer + Send + Sync>;

/// See the module.
pub struct ScriptedRoad {
    script: Script,
    calls: Mutex<Vec<Call>>,
}

#[allow(dead_code, reason = "the example needs only some")]
impl ScriptedRoad {
    /// Answers by `script`.
    pub fn new(script: impl Fn(&Action) -> Answer + Send + Sync + 'static) -> Self {
        ScriptedRoad {
            script: Box::new(script),
            calls: Mutex::default(),
        }
    }

    /// Answers everything the way a healthy server does.
    pub fn healthy() -> Self {
        ScriptedRoad::new(|action| Answer::Now(Ok(healthy(action))))
    }

    /// The calls so far.
    pub fn calls(&self) -> Vec<Call> {
        self.calls
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

#[async_trait]
impl Road for ScriptedRoad {
    async fn handle(&self, call: Call) -> Result<Outcome, Refusal> {
        let answer = (self.script)(&call.action);
        self.calls
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(call);
        match answer {
            Answer::Now(result) => result,
            Answer::After(delay, result) => {
                tokio::time::sleep(delay).await;
                result
            }
            Answer::Never => std::future::pending().await,
            #[allow(clippy::panic, reason = "what is tested")]
            Answer::Panic => panic!("the script says so"),
        }
    }

    async fn authenticate(
        &self,
        _credentials: &Credentials,
        _source: &Source,
    ) -> Result<Authenticated, Refusal> {
        Ok(Authenticated {
            name: "uid:1000".to_owned(),
            scopes: Scopes::all(),
            rate: None,
        })
    }
}

/// What a healthy server answers.
pub fn healthy(action: &Action) -> Outcome {
    match action {
        Action::CreateSession(_)
        | Action::GetSession(_)
        | Action::ExtendSession { .. }
        | Action::WidenNetwork(_)
        | Action::AnswerNetwork(_) => Outcome::Session(Box::new(session())),
        Action::ListSessions { .. } => Outcome::Sessions(vec![session(), ended_session()]),
        Action::DestroySession(id) => Outcome::Destroyed(*id),
        Action::ExecuteCommand(_) | Action::GetExecution(_) => {
            Outcome::Execution(Box::new(execution()))
        }
        Action::ExecutePrompt(_) => Outcome::Execution(Box::new(prompt())),
        Action::CancelExecution(_) => {
            let killed = ExecutionView {
                state: ExecutionState::Killed,
                exit_code: None,
                signal: Some(15),
                ..execution()
            };
            Outcome::Execution(Box::new(killed))
        }
        Action::GetSessionLogs { session, .. } => Outcome::Logs(*session, log()),
        Action::ReadTranscript(request) => Outcome::Transcript(model::TranscriptPage {
            session: request.session,
            conversation: prompt_conversation(),
            lines: vec![model::TranscriptLine {
                at: SystemTime::UNIX_EPOCH + Duration::from_secs(1_790_000_000),
                kind: model::TranscriptKind::Says,
                text: "done\u{1b}[2J\u{202e}".to_owned(),
                execution: None,
            }],
            cursor: Some(4096),
            has_more: true,
        }),
        Action::TransferFiles(transfer) => Outcome::Transferred(TransferReport {
            session: transfer.session,
            files: 3,
            directories: 1,
            links: 0,
            bytes: 4096,
        }),
        Action::WriteFile(file) => Outcome::FileWritten(FileWritten {
            session: file.session,
            upload: (!file.is_last).then(upload_id),
            bytes: file.offset + file.content.expose().len() as u64,
            sha256: [0xab; 32],
        }),
        Action::ReadFile(file) => Outcome::FileRead(FileChunk {
            session: file.session,
            content: b"four".to_vec(),
            offset: file.offset,
            total_bytes: 8,
            sha256: [0xab; 32],
            download: (file.offset == 0).then(upload_id),
        }),
        Action::CreateKey(_) | Action::RotateKey { .. } => Outcome::KeyMade(Box::new(NewKey {
            text: Secret::new("ccmcp_a-secret".to_owned()),
            key: key(),
            replaces: None,
        })),
        Action::RevokeKey { .. } => Outcome::KeyRevoked(Box::new(RevokedKey {
            key: key(),
            destroyed: vec![session_id()],
            left: 0,
        })),
        Action::ListKeys => Outcome::Keys(vec![key()]),
        Action::GetServerInfo => Outcome::ServerInfo(Box::new(server_info())),
        Action::RespondExecution { .. }
        | Action::AnswerExecution { .. }
        | Action::ResizeTerminal { .. }
        | Action::ReapSession { .. }
        | Action::AdoptSession(_)
        | Action::RemoveRemains { .. } => Outcome::Done,
    }
}

/// A file under way.
pub fn upload_id() -> UploadId {
    UploadId::from_bytes([3; 16])
}

/// A key.
#[allow(clippy::unwrap_used, reason = "a constant that is one")]
pub fn key() -> KeyView {
    KeyView {
        id: "abcdefghij23".parse().unwrap(),
        identity: "abcdefghij23".parse().unwrap(),
        name: "build".to_owned(),
        scopes: Scopes::all(),
        roots: vec!["/srv/code".into()],
        max_sessions: Some(2),
        calls_per_minute: None,
        created_at: SystemTime::UNIX_EPOCH + Duration::from_secs(1_790_000_000),
        expires_at: None,
        revoked_at: None,
        last_used_at: None,
        replaced_by: None,
    }
}

/// The conversation of a transcript.
#[allow(clippy::unwrap_used, reason = "a constant that is one")]
pub fn prompt_conversation() -> model::ConversationId {
    "6f1f9a52-5e8d-4c37-9b0e-0a4cf2b7d911".parse().unwrap()
}

/// The id of [`session`].
pub fn session_id() -> SessionId {
    SessionId::from_bytes([0xab; 16])
}

/// The id of [`execution`].
pub fn execution_id() -> ExecutionId {
    ExecutionId::from_bytes([0xcd; 16])
}

/// A session in good order.
pub fn session() -> SessionView {
    SessionView {
        network_questions: Vec::new(),
        id: session_id(),
        name: "quiet-otter".to_owned(),
        state: SessionState::Ready,
        backend: BackendName::Native,
        project_path: "/home/user/project".into(),
        container_name: "claude-code-01020304-abababababababababababababababab".to_owned(),
        created_at: SystemTime::UNIX_EPOCH + Duration::from_secs(1_790_000_000),
        expires_at: SystemTime::UNIX_EPOCH + Duration::from_secs(1_790_003_600),
        idle_seconds: 900,
        attestation: Some(attestation()),
        network: Some(network()),
        usage: Some(UsageView {
            memory_bytes: Some(1_048_576),
            cpu_us: Some(1500),
            pids: Some(1),
            oom_kills: Some(0),
        }),
        provider_usage: Some(ProviderUsageView {
            requests: 3,
            denied: 1,
            tokens: TokenUsage {
                input: 10,
                output: 20,
                cache_read: 30,
                cache_write: 40,
            },
            cost_micro_usd: 12_500,
            unpriced_requests: 0,
            left: vec![
                BudgetLeft {
                    scope: BudgetScope::Session,
                    requests: Some(7),
                    tokens: None,
                    micro_usd: Some(487_500),
                },
                BudgetLeft {
                    scope: BudgetScope::CallerDay,
                    requests: None,
                    tokens: Some(1_000),
                    micro_usd: None,
                },
            ],
        }),
        running_executions: vec![],
        ended_because: None,
        ended_at: None,
    }
}

fn network() -> NetworkPolicy {
    let rule = NamedRule {
        name: "allow/1".to_owned(),
        rule: EgressRule::on(HostPattern::Below("example.com".to_owned())),
    };
    NetworkPolicy {
        rules: vec![rule],
        credentials: vec!["github".to_owned()],
    }
}

fn ended_session() -> SessionView {
    SessionView {
        state: SessionState::Expired,
        attestation: None,
        network: None,
        usage: None,
        provider_usage: None,
        ended_because: Some("its lifetime was over".to_owned()),
        ended_at: Some(SystemTime::UNIX_EPOCH + Duration::from_secs(1_790_003_600)),
        ..session()
    }
}

fn attestation() -> Attestation {
    let limit = |limit, in_force, enforcement| LimitInForce {
        limit,
        asked: 512,
        in_force,
        enforcement,
        mechanism: "cgroup v2".to_owned(),
    };
    Attestation {
        layers: vec![LayerInForce {
            layer: Layer::Seccomp,
            in_force: true,
            evidence: "Seccomp: 2, 3 filters".to_owned(),
        }],
        limits: vec![
            limit(LimitName::Pids, Some(512), Enforcement::Hard),
            limit(LimitName::StateBytes, None, Enforcement::None),
        ],
        rung: "root".to_owned(),
    }
}

/// A stream that is read whole.
pub fn stream(bytes: &[u8]) -> StreamView {
    let total = bytes.len() as u64;
    StreamView {
        bytes: bytes.to_vec(),
        offset: 0,
        total_bytes: total,
        cursor: total,
        truncated: false,
    }
}

/// A command that has exited with 0.
pub fn execution() -> ExecutionView {
    ExecutionView {
        network_questions: Vec::new(),
        id: execution_id(),
        session: session_id(),
        state: ExecutionState::Exited,
        exit_code: Some(0),
        signal: None,
        oom_killed: false,
        duration_ms: 12,
        stdout: stream(b"hello\n"),
        stderr: stream(b""),
        protected_changes: vec![],
        failure: None,
        prompt: None,
        output_lost: false,
    }
}

/// A prompt that Claude Code was done with.
#[allow(clippy::expect_used, reason = "a constant that is one")]
pub fn prompt() -> ExecutionView {
    let conversation = "6f1f9a52-5e8d-4c37-9b0e-0a4cf2b7d911".parse();
    let mut view = PromptView::new(conversation.expect("a conversation id"));
    view.doing = "done".to_owned();
    view.result = Some("All \u{1b}[31mgood\u{1b}[0m.".to_owned());
    view.turns = 2;
    view.cost_micro_usd = Some(1_600);
    view.stop = Some(PromptStop::Completed);
    view.changed_files = vec!["src/a.rs".into()];
    ExecutionView {
        stdout: StreamView::default(),
        prompt: Some(Box::new(view)),
        ..execution()
    }
}

fn log() -> Vec<LogLine> {
    let at = SystemTime::UNIX_EPOCH + Duration::from_secs(1_790_000_001);
    vec![
        LogLine {
            at,
            text: "session ready".to_owned(),
        },
        LogLine {
            at,
            text: "\u{1b}[31mred\u{1b}[0m \u{202e}line".to_owned(),
        },
    ]
}

fn server_info() -> ServerInfo {
    ServerInfo {
        version: "0.1.0".to_owned(),
        posture: "embedded-root".to_owned(),
        backend: BackendName::Native,
        rung: "root".to_owned(),
        runtime_classes: vec!["runc".to_owned(), "runsc".to_owned()],
        claude_code: "2.1.330, pinned, SHA-256 f390eaa0814e".to_owned(),
        sessions: 1,
        max_sessions: 10,
        default_session_timeout_seconds: 3600,
        max_session_seconds: 86_400,
        caller: CallerBounds {
            sessions: 1,
            max_sessions: Some(4),
            calls_per_minute: Some(60_000),
            creates_per_minute: Some(600),
            ..CallerBounds::default()
        },
        network: NetworkOffer {
            presets: vec!["github".to_owned()],
            allow: vec!["*.example.com:80,443".to_owned()],
            standing: vec![],
            credentials: vec!["github".to_owned()],
        },
        prompts_refused: Some(Refusal::new(
            model::Reason::ProviderUnavailable,
            "Claude Code cannot reach a model: no key of Anthropic is configured.",
            "Set ANTHROPIC_API_KEY where the server is started.",
        )),
        audit_ok: true,
        warnings: vec!["swap is not limited on this machine".to_owned()],
    }
}
