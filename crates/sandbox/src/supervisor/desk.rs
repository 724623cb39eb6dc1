//! The desk between callers and the connection: who waits for which answer.
//!
//! ```text
//! queued ──► sent ──► answered        the caller gets the reply
//!    │         ├────► abandoned       the caller left: the reply is checked and thrown away
//!    │         └────► queued again    the connection dropped and repeating does no harm
//!    │         └────► interrupted     the connection dropped and repeating could do it twice
//!    └──────────────► gone            the caller left before it was sent
//! ```
//! Everything is bounded: open requests, their bytes, open transfers.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::{
    sync::{Notify, mpsc, oneshot, watch},
    time::Instant,
};
use wire::{Fault, MAX_TO_SUPERVISOR_BYTES, Reply, Request, ToSupervisor, encode};

use super::{EndReason, SupervisorError, channel::Channel, check::Heard, relayed::Relayed};

/// Requests of one sandbox that may be open, abandoned ones included: half of what its supervisor takes, so that what
/// an earlier server left open there does not get in the way.
const MAX_OPEN: usize = wire::MAX_OPEN_REQUESTS / 2;
/// Bytes of open requests (arguments, environments, input) that are held for one sandbox: sixteen of the largest.
const MAX_OPEN_BYTES: usize = 16 * MAX_TO_SUPERVISOR_BYTES;
/// Transfers of one sandbox that may be open; each costs two buffers of a frame.
const MAX_OPEN_TRANSFERS: usize = 8;

/// An answer, or why there is none.
pub(super) type Answer = Result<Reply, SupervisorError>;

/// Shared by the handles and the connection task.
pub(super) struct Desk {
    table: Mutex<Table>,
    /// Told whenever something was queued.
    pub(super) queued: Notify,
    ended: watch::Sender<Option<EndReason>>,
}

struct Table {
    next_id: u64,
    open: HashMap<u64, OpenRequest>,
    open_bytes: usize,
    outbox: VecDeque<u64>,
    heard: Heard,
    next_transfer: u64,
    transfers: HashMap<u64, Option<oneshot::Sender<Channel>>>,
    relays: HashMap<u16, mpsc::Sender<Relayed>>,
    lease_ms: u32,
    connected: bool,
    ended: Option<EndReason>,
}

struct OpenRequest {
    request: Request,
    bytes: usize,
    queued_at: Instant,
    sent: bool,
    /// `None` once the caller left.
    caller: Option<oneshot::Sender<Answer>>,
}

impl Desk {
    pub(super) fn new(lease_ms: u32) -> Self {
        // Transfers are numbered from the clock on: a data connection that was opened for an earlier server never
        // passes for one of ours.
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH);
        let next_transfer = since_1970.map_or(1, |since| since.as_nanos() as u64);
        Desk {
            table: Mutex::new(Table {
                next_id: 1,
                open: HashMap::new(),
                open_bytes: 0,
                outbox: VecDeque::new(),
                heard: Heard::default(),
                next_transfer,
                transfers: HashMap::new(),
                relays: HashMap::new(),
                lease_ms,
                connected: true,
                ended: None,
            }),
            queued: Notify::new(),
            ended: watch::Sender::new(None),
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a request. The answer arrives at the receiver; dropping the slot takes the request back.
    pub(super) fn submit(
        self: &Arc<Self>,
        request: Request,
    ) -> Result<(Slot, oneshot::Receiver<Answer>), SupervisorError> {
        let bytes = checked_size(&request)?;
        let (caller, answer) = oneshot::channel();
        let id = {
            let mut table = self.table();
            table.refuse_if_ended()?;
            if table.open.len() >= MAX_OPEN || table.open_bytes + bytes > MAX_OPEN_BYTES {
                return Err(SupervisorError::TooManyOpen);
            }
            table.queue(request, bytes, caller)
        };
        self.queued.notify_one();
        Ok((
            Slot {
                desk: Arc::clone(self),
                id,
            },
            answer,
        ))
    }

    /// The next frame to send.
    pub(super) fn next_frame(&self) -> Option<Vec<u8>> {
        let mut table = self.table();
        loop {
            let id = table.outbox.pop_front()?;
            let Some(open) = table.open.get_mut(&id) else {
                continue;
            };
            open.sent = true;
            let request = with_remaining_wait(&open.request, open.queued_at.elapsed());
            let is_last_word = matches!(request, Request::Shutdown);
            let frame = encode(
                &ToSupervisor::Request { id, request },
                MAX_TO_SUPERVISOR_BYTES,
            );
            // Nothing answers a shutdown but the end of the connection.
            if is_last_word {
                table.remove(id);
            }
            match frame {
                Ok(frame) => return Some(frame),
                Err(error) => table.answer(id, Err(SupervisorError::Unsendable(error))),
            }
        }
    }

    /// Hands a reply to whoever asked, after checking it. The error says what an honest supervisor never does.
    pub(super) fn deliver(
        &self,
        id: u64,
        result: Result<Reply, Fault>,
    ) -> Result<(), &'static str> {
        let mut table = self.table();
        let Table {
            open,
            heard,
            lease_ms,
            ..
        } = &mut *table;
        let Some(open) = open.get(&id).filter(|open| open.sent) else {
            return Err("a reply came that nobody asked for");
        };
        heard.check(&open.request, &result)?;
        if let Request::RenewLease { lease_ms: renewed } = open.request
            && result.is_ok()
        {
            *lease_ms = renewed;
        }
        table.answer(id, result.map_err(SupervisorError::Fault));
        Ok(())
    }

    /// A connection stands again: the length of the lease to greet it with.
    pub(super) fn connected(&self) -> u32 {
        let mut table = self.table();
        table.connected = true;
        table.lease_ms
    }

    /// The connection dropped: queues again what can be repeated, and ends the wait for what cannot.
    pub(super) fn disconnected(&self) {
        let mut table = self.table();
        table.connected = false;
        let mut sent: Vec<u64> = table
            .open
            .iter()
            .filter(|(_, open)| open.sent)
            .map(|(id, _)| *id)
            .collect();
        sent.sort_unstable();
        for id in sent.into_iter().rev() {
            table.requeue_or_interrupt(id);
        }
    }

    pub(super) fn is_connected(&self) -> bool {
        let table = self.table();
        table.connected && table.ended.is_none()
    }

    /// The sandbox is over. Only the first reason counts.
    pub(super) fn end(&self, reason: EndReason) {
        let mut table = self.table();
        if table.ended.is_some() {
            return;
        }
        let error = error_of(&reason);
        for (_, open) in table.open.drain() {
            if let Some(caller) = open.caller {
                let _ = caller.send(Err(error.clone()));
            }
        }
        table.open_bytes = 0;
        table.outbox.clear();
        table.transfers.clear();
        table.relays.clear();
        table.ended = Some(reason.clone());
        drop(table);
        self.ended.send_replace(Some(reason));
    }

    /// Resolves once the sandbox is over.
    pub(super) async fn ended(&self) -> EndReason {
        let mut ended = self.ended.subscribe();
        match ended
            .wait_for(Option::is_some)
            .await
            .map(|reason| reason.clone())
        {
            Ok(Some(reason)) => reason,
            Ok(None) | Err(_) => EndReason::Gone,
        }
    }

    /// Why a wait ended without an answer.
    pub(super) fn end_error(&self) -> SupervisorError {
        self.table()
            .ended
            .as_ref()
            .map_or(SupervisorError::Ended, error_of)
    }

    /// Makes ready for the data connection of a new transfer.
    pub(super) fn expect_transfer(
        self: &Arc<Self>,
    ) -> Result<(TransferTicket, oneshot::Receiver<Channel>), SupervisorError> {
        let (arrived, arrival) = oneshot::channel();
        let mut table = self.table();
        table.refuse_if_ended()?;
        if table.transfers.len() >= MAX_OPEN_TRANSFERS {
            return Err(SupervisorError::TooManyOpen);
        }
        let transfer = table.next_transfer;
        table.next_transfer = table.next_transfer.wrapping_add(1);
        table.transfers.insert(transfer, Some(arrived));
        Ok((
            TransferTicket {
                desk: Arc::clone(self),
                transfer,
            },
            arrival,
        ))
    }

    /// Connections from inside to that port go to `taker` from now on; the earlier one's receiver ends.
    pub(super) fn expect_relayed(
        &self,
        port: u16,
        taker: mpsc::Sender<Relayed>,
    ) -> Result<(), SupervisorError> {
        let mut table = self.table();
        table.refuse_if_ended()?;
        table.relays.insert(port, taker);
        Ok(())
    }

    /// Hands on a connection from inside. One that nobody takes, or not soon enough, is closed: its client tries again.
    pub(super) fn relayed(&self, port: u16, relayed: Relayed) {
        let taker = self.table().relays.get(&port).cloned();
        if let Some(taker) = taker {
            let _ = taker.try_send(relayed);
        }
    }

    /// Hands a data connection to the transfer that waits for it. One that nobody waits for (any more) is dropped.
    pub(super) fn transfer_arrived(&self, transfer: u64, channel: Channel) {
        let waiting = self
            .table()
            .transfers
            .get_mut(&transfer)
            .and_then(Option::take);
        if let Some(waiting) = waiting {
            let _ = waiting.send(channel);
        }
    }
}

impl Table {
    fn refuse_if_ended(&self) -> Result<(), SupervisorError> {
        self.ended
            .as_ref()
            .map_or(Ok(()), |reason| Err(error_of(reason)))
    }

    fn queue(&mut self, request: Request, bytes: usize, caller: oneshot::Sender<Answer>) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        // What keeps or ends the sandbox does not stand in line behind a megabyte of arguments.
        match request {
            Request::RenewLease { .. } | Request::Shutdown => self.outbox.push_front(id),
            Request::SetEnvironment { .. }
            | Request::Start(_)
            | Request::WriteStdin { .. }
            | Request::Signal { .. }
            | Request::Resize { .. }
            | Request::Cancel { .. }
            | Request::Read { .. }
            | Request::Wait { .. }
            | Request::List
            | Request::Forget { .. }
            | Request::OpenTransfer(_)
            | Request::OpenRelay { .. } => self.outbox.push_back(id),
        }
        self.open_bytes += bytes;
        let open = OpenRequest {
            request,
            bytes,
            queued_at: Instant::now(),
            sent: false,
            caller: Some(caller),
        };
        self.open.insert(id, open);
        id
    }

    fn remove(&mut self, id: u64) -> Option<OpenRequest> {
        let open = self.open.remove(&id)?;
        self.open_bytes = self.open_bytes.saturating_sub(open.bytes);
        Some(open)
    }

    fn answer(&mut self, id: u64, answer: Answer) {
        if let Some(caller) = self.remove(id).and_then(|open| open.caller) {
            // The caller may have left in this moment; then the answer is of no use to anyone.
            let _ = caller.send(answer);
        }
    }

    fn requeue_or_interrupt(&mut self, id: u64) {
        let Some(open) = self.open.get_mut(&id) else {
            return;
        };
        if open.caller.is_none() {
            self.remove(id);
        } else if is_repeatable(&open.request) {
            open.sent = false;
            self.outbox.push_front(id);
        } else {
            let what = activity(&open.request);
            self.answer(id, Err(SupervisorError::Interrupted(what)));
        }
    }

    /// The caller left.
    fn abandon(&mut self, id: u64) {
        match self.open.get_mut(&id) {
            Some(open) if open.sent => open.caller = None,
            Some(_) => {
                self.remove(id);
                self.outbox.retain(|queued| *queued != id);
            }
            None => {}
        }
    }
}

/// A caller's place at the desk.
pub(super) struct Slot {
    desk: Arc<Desk>,
    id: u64,
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.desk.table().abandon(self.id);
    }
}

/// The right to one open transfer; held until the transfer is over.
pub(super) struct TransferTicket {
    pub(super) desk: Arc<Desk>,
    pub(super) transfer: u64,
}

impl Drop for TransferTicket {
    fn drop(&mut self) {
        self.desk.table().transfers.remove(&self.transfer);
    }
}

fn error_of(reason: &EndReason) -> SupervisorError {
    match reason {
        EndReason::Gone => SupervisorError::Ended,
        EndReason::Broken(what) => SupervisorError::Protocol(what.clone()),
    }
}

/// Bytes that the request takes here and on the wire; refuses what does not fit a frame before it is queued.
fn checked_size(request: &Request) -> Result<usize, SupervisorError> {
    match request {
        Request::SetEnvironment { .. } | Request::Start(_) | Request::OpenTransfer(_) => {
            let frame = ToSupervisor::Request {
                id: u64::MAX,
                request: request.clone(),
            };
            let frame =
                encode(&frame, MAX_TO_SUPERVISOR_BYTES).map_err(SupervisorError::Unsendable)?;
            Ok(frame.len())
        }
        Request::WriteStdin { data, .. } => Ok(data.len()),
        Request::RenewLease { .. }
        | Request::Signal { .. }
        | Request::Resize { .. }
        | Request::Cancel { .. }
        | Request::Read { .. }
        | Request::Wait { .. }
        | Request::List
        | Request::Forget { .. }
        | Request::OpenRelay { .. }
        | Request::Shutdown => Ok(0),
    }
}

/// Doing it twice is doing it once.
fn is_repeatable(request: &Request) -> bool {
    match request {
        Request::RenewLease { .. }
        | Request::SetEnvironment { .. }
        | Request::Start(_)
        | Request::Cancel { .. }
        | Request::Read { .. }
        | Request::Wait { .. }
        | Request::List
        | Request::Forget { .. }
        | Request::OpenRelay { .. } => true,
        // A repeated open would be a second transfer of the same number.
        Request::WriteStdin { .. }
        | Request::Signal { .. }
        | Request::Resize { .. }
        | Request::OpenTransfer(_)
        | Request::Shutdown => false,
    }
}

/// A long poll that stood in line, or is repeated, waits only for what is left of its time.
fn with_remaining_wait(request: &Request, passed: Duration) -> Request {
    let passed_ms = u32::try_from(passed.as_millis()).unwrap_or(u32::MAX);
    let mut request = request.clone();
    if let Request::Read { wait_ms, .. } | Request::Wait { wait_ms, .. } = &mut request {
        *wait_ms = wait_ms.saturating_sub(passed_ms);
    }
    request
}

/// What the caller was doing, as a phrase after "while".
pub(super) fn activity(request: &Request) -> &'static str {
    match request {
        Request::RenewLease { .. } => "renewing the lease",
        Request::SetEnvironment { .. } => "setting the environment",
        Request::Start(_) => "starting an execution",
        Request::WriteStdin { .. } => "writing to standard input",
        Request::Signal { .. } => "sending a signal",
        Request::Resize { .. } => "resizing a terminal",
        Request::Cancel { .. } => "ending an execution",
        Request::Read { .. } => "reading output",
        Request::Wait { .. } => "waiting for an execution",
        Request::List => "listing executions",
        Request::Forget { .. } => "forgetting an execution",
        Request::OpenTransfer(_) => "opening a transfer",
        Request::OpenRelay { .. } => "opening a relay",
        Request::Shutdown => "ending the sandbox",
    }
}
