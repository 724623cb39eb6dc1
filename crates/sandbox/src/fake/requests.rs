//! What the simulated supervisor does for each request.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32},
    },
    time::Duration,
};

use model::AGENT_PROGRAM_NAME;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};
use wire::{
    ExecutionKey, Fault, FaultKind, MAX_CHUNK_BYTES, MAX_ENVIRONMENT_BYTES, MAX_WAIT_MS,
    RelayTakes, Reply, Request, StartSpec, Stream,
};

use super::{
    Break,
    execution::{Execution, MAX_ORDERS, Order, Process},
    sandbox::{Sandbox, fault},
    script::{self, Transport},
    transfer,
};

/// `ENOENT` of Linux.
const ENOENT: i32 = 2;

impl Sandbox {
    pub(super) async fn answer(self: Arc<Self>, request: Request) -> Result<Reply, Fault> {
        match request {
            Request::RenewLease { lease_ms } => {
                if self.broken() != Some(Break::IgnoresRenewal) {
                    self.extend_lease(lease_ms);
                }
            }
            Request::SetEnvironment { env } => self.set_environment(env)?,
            Request::Start(spec) => return self.start(*spec),
            Request::WriteStdin {
                execution,
                data,
                close,
            } => return self.write_stdin(execution, &data, close),
            Request::Signal { execution, signal } => {
                self.order(execution, Order::Signal(signal))?
            }
            Request::Resize { execution, .. } => self.resize(execution)?,
            Request::Cancel {
                execution,
                grace_ms,
            } => {
                self.order(
                    execution,
                    Order::Cancel(Duration::from_millis(u64::from(grace_ms))),
                )?;
            }
            Request::Read {
                execution,
                stream,
                offset,
                max_bytes,
                wait_ms,
            } => {
                let max_bytes = (max_bytes as usize).min(MAX_CHUNK_BYTES);
                return self
                    .read(execution, stream, offset, max_bytes, wait_ms)
                    .await;
            }
            Request::Wait { execution, wait_ms } => return self.wait(execution, wait_ms).await,
            Request::List => return Ok(Reply::Executions(self.list())),
            Request::Forget { execution } => self.forget(execution)?,
            Request::OpenTransfer(spec) => transfer::open(&self, spec).await?,
            Request::OpenRelay { port: 0, .. } => {
                return Err(fault(FaultKind::Invalid, "no such port"));
            }
            Request::OpenRelay { port, takes } => self.open_relay(port, takes),
            Request::Shutdown => {}
        }
        Ok(Reply::Done)
    }

    fn open_relay(&self, port: u16, takes: RelayTakes) {
        let datagrams = takes == RelayTakes::StreamsAndDatagrams;
        let mut state = self.state();
        if self.broken() != Some(Break::RelaysNothing) {
            state.relays.insert((Transport::Stream, port));
        }
        if datagrams && self.broken() != Some(Break::RelaysNoDatagrams) {
            state.relays.insert((Transport::Datagram, port));
        }
    }

    fn set_environment(&self, env: Vec<Vec<u8>>) -> Result<(), Fault> {
        let bytes: usize = env.iter().map(|entry| entry.len() + 1).sum();
        if bytes > MAX_ENVIRONMENT_BYTES || env.iter().any(|entry| !entry.contains(&b'=')) {
            return Err(fault(FaultKind::Invalid, "set the environment"));
        }
        if self.broken() != Some(Break::LosesTheEnvironment) {
            self.state().environment = env;
        }
        Ok(())
    }

    fn start(self: &Arc<Self>, mut spec: StartSpec) -> Result<Reply, Fault> {
        if spec.argv.is_empty() {
            return Err(fault(FaultKind::Invalid, "read the arguments"));
        }
        if self.broken() == Some(Break::SplitsArguments) && spec.argv[0] == b"printf" {
            spec.argv = spec
                .argv
                .join(&b' ')
                .split(|byte| *byte == b' ')
                .map(<[u8]>::to_vec)
                .collect();
        }
        let mut state = self.state();
        if let Some(known) = state.executions.get(&spec.execution)
            && self.broken() != Some(Break::StartsAgain)
        {
            return Ok(Reply::Status(known.status()));
        }
        if !state.files.is_directory(&spec.cwd) && self.broken() != Some(Break::IgnoresDirectory) {
            return Err(fault(FaultKind::BadCwd, "enter the working directory"));
        }
        let program = match script::parse(&spec.argv) {
            Some(program) => program,
            None if self.has_claude_code() && spec.argv[0] == AGENT_PROGRAM_NAME.as_bytes() => {
                script::Program::ClaudeCode
            }
            None if self.broken() == Some(Break::RunsAnything) => script::Program::Exit(127),
            None => {
                return Err(Fault {
                    errno: ENOENT,
                    ..fault(FaultKind::CannotExecute, "execute the program")
                });
            }
        };
        state.make_room()?;
        let kept = state.environment.iter();
        let kept = kept.filter(|kept| spec.env.iter().all(|own| name(own) != name(kept)));
        spec.env = kept.chain(&spec.env).cloned().collect();
        let (orders, receiver) = mpsc::channel(MAX_ORDERS);
        let mut execution = Execution::new(&spec, orders, self.broken());
        if let Some(earlier) = state.executions.remove(&spec.execution) {
            execution.stdout = earlier.stdout;
        }
        let status = execution.status();
        state.order.push(spec.execution);
        state.executions.insert(spec.execution, execution);
        drop(state);
        let process = Process {
            sandbox: Arc::clone(self),
            spec: Arc::new(spec),
            stubborn: Arc::new(AtomicBool::new(false)),
            others: Arc::new(AtomicU32::new(0)),
        };
        self.spawn(process.play(program, receiver));
        Ok(Reply::Status(status))
    }

    fn write_stdin(&self, key: ExecutionKey, data: &[u8], close: bool) -> Result<Reply, Fault> {
        let mut state = self.state();
        let execution = state.running(key)?;
        if execution.input_closed {
            return Err(fault(FaultKind::StdinClosed, "write to standard input"));
        }
        let accepted = match self.broken() {
            Some(Break::DropsInput) => execution.feed(&[], close).max(data.len()),
            _ => execution.feed(data, close),
        };
        drop(state);
        self.changed.send_replace(());
        Ok(Reply::Accepted(u32::try_from(accepted).unwrap_or(u32::MAX)))
    }

    fn order(&self, key: ExecutionKey, order: Order) -> Result<(), Fault> {
        let orders = self.state().running(key)?.orders.clone();
        // A program that has just ended takes no more orders.
        let _ = orders.try_send(order);
        Ok(())
    }

    fn resize(&self, key: ExecutionKey) -> Result<(), Fault> {
        match self.state().running(key)?.has_terminal {
            true => Ok(()),
            false => Err(fault(FaultKind::NoTerminal, "resize the terminal")),
        }
    }

    async fn read(
        &self,
        key: ExecutionKey,
        stream: Stream,
        offset: u64,
        max_bytes: usize,
        wait_ms: u32,
    ) -> Result<Reply, Fault> {
        self.state()
            .known(key)?
            .stream(stream)
            .acknowledge_if_lossless(offset);
        self.changed.send_replace(());
        let wait_ms = if self.broken() == Some(Break::ReadNeverWaits) {
            0
        } else {
            wait_ms
        };
        self.until(wait_ms, || {
            Ok(self.state().known(key)?.stream(stream).has(offset))
        })
        .await?;
        let chunk = self
            .state()
            .known(key)?
            .stream(stream)
            .read(offset, max_bytes);
        Ok(Reply::Output(chunk))
    }

    async fn wait(&self, key: ExecutionKey, wait_ms: u32) -> Result<Reply, Fault> {
        let wait_ms = if self.broken() == Some(Break::WaitNeverWaits) {
            0
        } else {
            wait_ms
        };
        self.until(wait_ms, || Ok(self.state().known(key)?.ended.is_some()))
            .await?;
        let status = self.state().known(key)?.status();
        Ok(Reply::Status(status))
    }

    /// Waits until it holds, or the time is over.
    async fn until(
        &self,
        wait_ms: u32,
        holds: impl Fn() -> Result<bool, Fault>,
    ) -> Result<(), Fault> {
        let over = Instant::now() + Duration::from_millis(u64::from(wait_ms.min(MAX_WAIT_MS)));
        let mut changes = self.changes();
        while !holds()? {
            tokio::select! {
                changed = changes.changed() => if changed.is_err() { break },
                () = sleep_until(over) => break,
            }
        }
        Ok(())
    }

    fn list(&self) -> Vec<wire::ExecutionStatus> {
        self.state()
            .executions
            .values()
            .map(Execution::status)
            .collect()
    }

    fn forget(&self, key: ExecutionKey) -> Result<(), Fault> {
        let mut state = self.state();
        if state.known(key)?.ended.is_none() {
            return Err(fault(FaultKind::Invalid, "forget a running execution"));
        }
        if self.broken() != Some(Break::NeverForgets) {
            state.executions.remove(&key);
            state.order.retain(|known| *known != key);
        }
        Ok(())
    }
}

fn name(variable: &[u8]) -> Option<&[u8]> {
    variable.split(|byte| *byte == b'=').next()
}
