//! The helper: this program executed again, with one thread, for the length of one creation. It makes the namespaces, and
//! undoes everything when a step fails or when nobody hears its answer.

use std::{
    io::{self, PipeReader, PipeWriter, Read, Write},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
    process::ExitCode,
};

use rustix::process::{Signal, WaitId, WaitIdOptions, pidfd_send_signal, waitid};
use sandbox_host::{OwnerMaps, ProcessRecord, placeholder};

use crate::{
    channel,
    enter::{self, Child, Side},
    idmap,
    inside::{self, Birth},
    plan::{Answer, At, Failure, FailureKind, Identity, Order, Plan},
    record::Record,
    root_file_system, sources,
};

/// Victim of the kernel before any process of the host, the server among them.
const OOM_SCORE: &str = "500";
/// Longest report of a failed child, bytes.
const MAX_REPORT_BYTES: u64 = 64 * 1024;

/// What a program does when it was executed as helper (first argument [`crate::HELPER_ARGUMENT`]). Must be called while
/// the process has a single thread: the new process goes on in a copy of it.
pub fn helper_main() -> ExitCode {
    // A closed channel must be an error that unwinds, not a signal that ends us in the middle.
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// Makes this process the parent of its sandboxes once their helpers have ended, so that it can reap them. Concerns the
/// whole process: orphans of other children arrive here too.
///
/// # Errors
/// When the kernel refuses.
pub fn become_subreaper() -> io::Result<()> {
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    Ok(())
}

fn run() -> io::Result<()> {
    let socket = UnixStream::from(rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?);
    let (order, program) = channel::receive::<Order>(&socket)?;
    match order {
        Order::Probe(identity) => {
            let answer = probe(identity).map_or_else(Answer::Failed, |()| Answer::Probed);
            channel::send(&socket, &answer, None)
        }
        Order::Create(plan) => {
            let program = program.ok_or(io::ErrorKind::InvalidData)?;
            let mut undo = Undo {
                plan: &plan,
                record: None,
                child: None,
            };
            let outcome = create(&plan, program.as_fd(), &mut undo);
            let sent = match &outcome {
                Ok(child) => {
                    let pid = child.pid.as_raw_nonzero().get();
                    channel::send(&socket, &Answer::Created { pid }, Some(child.pidfd.as_fd()))
                }
                Err(_) => Ok(()),
            };
            match (outcome, sent) {
                (Ok(_), Ok(())) => Ok(()),
                // Nobody knows of the sandbox: it must not be.
                (Ok(child), Err(error)) => {
                    undo.child = Some(child);
                    undo.run();
                    Err(error)
                }
                (Err(failure), _) => {
                    undo.run();
                    channel::send(&socket, &Answer::Failed(failure), None)
                }
            }
        }
    }
}

/// What is to be undone.
struct Undo<'plan> {
    plan: &'plan Plan,
    record: Option<Record>,
    child: Option<Child>,
}

impl Undo<'_> {
    /// As far as it goes: the server removes what is left by the same names.
    fn run(&mut self) {
        if let Some(child) = self.child.take() {
            let _ = end(&child);
        }
        let _ = self.plan.hierarchy.remove(&self.plan.object_name);
        if let Some(record) = &mut self.record {
            let _ = record.give_up_placeholders(&self.plan.instance);
        }
    }
}

fn end(child: &Child) -> io::Result<()> {
    pidfd_send_signal(&child.pidfd, Signal::KILL)?;
    waitid(WaitId::PidFd(child.pidfd.as_fd()), WaitIdOptions::EXITED)?;
    Ok(())
}

fn keep_places_free(plan: &Plan, record: &mut Record) -> Result<(), Failure> {
    let (instance, spec) = (&plan.instance, &plan.spec);
    placeholder::keep_free(instance, &spec.workspace, &spec.protected, |placeholders| {
        record.placeholders = placeholders.to_vec();
        record.write(instance)
    })
}

fn create(plan: &Plan, program: BorrowedFd<'_>, undo: &mut Undo<'_>) -> Result<Child, Failure> {
    // Inherited by all that comes; raising it is everybody's right.
    std::fs::write("/proc/self/oom_score_adj", OOM_SCORE).at("set the out-of-memory score")?;
    sources::verify_all(plan)?;
    let record = undo.record.insert(Record {
        session: plan.spec.session,
        object_name: plan.object_name.clone(),
        hierarchy: plan.hierarchy.clone(),
        identity: plan.identity,
        process: None,
        placeholders: Vec::new(),
        workspace: plan.spec.workspace.clone(),
        limits: plan.spec.limits,
    });
    keep_places_free(plan, record)?;
    let sources = match plan.identity {
        Identity::Range { .. } => Some(sources::open_all(
            plan,
            &mut OwnerMaps::new(plan.identity.owners()),
        )?),
        Identity::Subordinate { .. } | Identity::Single { .. } => None,
    };
    plan.hierarchy
        .create(&plan.object_name, &plan.spec.limits)
        .at("make the control groups")?;
    let birth_group = plan
        .hierarchy
        .birth_group(&plan.object_name)
        .at("open the control group")?;
    let doors = plan
        .hierarchy
        .doors(&plan.object_name)
        .at("open the control groups")?;
    let birth = Birth {
        plan,
        doors,
        sources,
        program,
    };
    let (child, go, report) = give_birth(birth, birth_group)?;
    let child = undo.child.insert(child);
    let accompanied = accompany(plan, record, child, go);
    // A new process that failed makes our own next step fail: what it says of it is the reason.
    hear(report)?;
    accompanied?;
    alive(child)?;
    if !plan.hierarchy.holds_process(&plan.object_name, child.pid) {
        return Err(Failure::at(
            "enter the control groups",
            &io::ErrorKind::PermissionDenied.into(),
        ));
    }
    undo.child
        .take()
        .ok_or_else(|| Failure::at("keep the new process", &io::ErrorKind::NotFound.into()))
}

/// Our side of the new process's steps. It waits for each; when this returns, it waits no longer.
fn accompany(
    plan: &Plan,
    record: &mut Record,
    child: &Child,
    mut go: PipeWriter,
) -> Result<(), Failure> {
    idmap::map_process(child.pid, plan.identity)?;
    go.write_all(b"m").at("let the new process go on")?;
    record.process =
        Some(ProcessRecord::of(child.pid.as_raw_nonzero().get()).at("identify the new process")?);
    record.write(&plan.instance).at("write the record")?;
    go.write_all(b"g").at("let the new process go on")
}

/// Clones; the child never returns from here.
fn give_birth(
    birth: Birth<'_>,
    group: Option<OwnedFd>,
) -> Result<(Child, PipeWriter, PipeReader), Failure> {
    let (go_reader, go_writer) = io::pipe().at("make a pipe")?;
    let (report_reader, report_writer) = io::pipe().at("make a pipe")?;
    match enter::clone_into(enter::SANDBOX_NAMESPACES, group.as_ref().map(AsFd::as_fd))
        .at("enter new namespaces")?
    {
        Side::Parent(child) => Ok((child, go_writer, report_reader)),
        Side::Child => {
            drop((go_writer, report_reader));
            let Err(failure) = inside::become_supervisor(birth, go_reader);
            report(report_writer, &failure);
            enter::end_now(1)
        }
    }
}

fn report(mut writer: PipeWriter, failure: &Failure) {
    if let Ok(text) = serde_json::to_vec(failure) {
        let _ = writer.write_all(&text);
    }
}

/// The pipe closes without a word when the supervisor is executed.
fn hear(report: PipeReader) -> Result<(), Failure> {
    let step = "hear of the new process";
    let mut text = Vec::new();
    report
        .take(MAX_REPORT_BYTES)
        .read_to_end(&mut text)
        .at(step)?;
    if text.is_empty() {
        return Ok(());
    }
    Err(serde_json::from_slice(&text).unwrap_or_else(|error| Failure::at(step, &error.into())))
}

/// The pipe closes, too, when the new process is killed.
fn alive(child: &Child) -> Result<(), Failure> {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    match waitid(WaitId::PidFd(child.pidfd.as_fd()), options).at("look at the new process")? {
        None => Ok(()),
        Some(status) => Err(Failure {
            kind: FailureKind::Step,
            step: format!(
                "keep the supervisor running (it ended with {:?})",
                status.exit_status()
            ),
            errno: 0,
        }),
    }
}

/// All namespaces, the id maps and a `/proc`: what the ladder's rungs differ in.
fn probe(identity: Identity) -> Result<(), Failure> {
    let (go_reader, mut go_writer) = io::pipe().at("make a pipe")?;
    let (report_reader, report_writer) = io::pipe().at("make a pipe")?;
    let child =
        match enter::clone_into(enter::SANDBOX_NAMESPACES, None).at("enter new namespaces")? {
            Side::Parent(child) => child,
            Side::Child => {
                drop((go_writer, report_reader));
                match probe_inside(identity, go_reader) {
                    Ok(()) => enter::end_now(0),
                    Err(failure) => {
                        report(report_writer, &failure);
                        enter::end_now(1)
                    }
                }
            }
        };
    drop((go_reader, report_writer));
    let outcome = idmap::map_process(child.pid, identity)
        .and_then(|()| go_writer.write_all(b"g").at("let the new process go on"))
        .and_then(|()| hear(report_reader));
    let _ = end(&child);
    outcome
}

fn probe_inside(identity: Identity, mut go: PipeReader) -> Result<(), Failure> {
    let mut byte = [0];
    go.read_exact(&mut byte).at("wait for the helper")?;
    inside::enter_ids(identity)?;
    enter::enter_cgroup_namespace().at("enter a cgroup namespace")?;
    inside::make_mounts_private()?;
    root_file_system::mount_proc().map(drop)
}
