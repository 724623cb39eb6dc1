//! Three hundred live sandboxes, made through MCP by clients at the same time.

use std::{
    sync::Barrier,
    time::{Duration, Instant},
};

use crate::{
    host,
    report::{Bound, Report, Row},
    setting,
    support::{Client, Machine, User},
};

/// Clients that create at the same time, each one session after the other.
const CLIENTS: usize = 6;

pub fn measure(report: &mut Report) {
    let count = setting("BENCH_CROWD", 300);
    let user = if rustix::process::geteuid().is_root() {
        User::Root
    } else {
        User::Ordinary
    };
    let mut machine = Machine::new(user);
    machine
        .set("MAX_CONCURRENT_SESSIONS", "400")
        // How many fit is what is measured.
        .set("CLAUDE_CODE_MCP_OVERCOMMIT_MEMORY_PERCENT", "0")
        .set("CLAUDE_CODE_MCP_OVERCOMMIT_CPU_PERCENT", "0")
        .set("CLAUDE_CODE_MCP_OVERCOMMIT_DISK_PERCENT", "0")
        .set("CLAUDE_CODE_MCP_RATE_CREATES_PER_MINUTE", "0")
        .set("CLAUDE_CODE_MCP_IDLE_EXIT_SECONDS", "60");
    for index in 0..count {
        machine.write(&format!("project-{index}/README.md"), "a project");
    }
    let mut clients: Vec<Client> = (0..CLIENTS).map(|_| machine.client()).collect();
    let warm_up = clients[0].create(&machine.project);
    clients[0].destroy(&warm_up);
    let server = machine.server_pid().expect("a server");
    let before = host::available_kib();
    let resident_before = host::resident_kib(server);

    let (sessions, started) = create(&machine, &mut clients, count);
    let supervisors = host::supervisors(&machine);
    assert_eq!(supervisors.len(), count, "each session has its supervisor");
    std::thread::sleep(Duration::from_secs(2));
    let live = host::available_kib();
    let resident = host::resident_kib(server);
    let supervisors_kib: u64 = supervisors.iter().map(|pid| host::resident_kib(*pid)).sum();
    let destroyed = destroy(&mut clients, sessions);
    std::thread::sleep(Duration::from_secs(2));
    let after = host::available_kib();

    let each = |kib: f64| kib / 1024.0 / count as f64;
    let figure = |what: &str| format!("{count} live sandboxes: {what}");
    report.add(
        Row::new(figure("started in"), "s", started.as_secs_f64().into())
            .promise(Bound::AtMost(3.0 * count as f64 / 300.0)),
    );
    // Others on the machine take and give memory meanwhile: of both differences the greater one.
    let fall = each(before as f64 - live as f64);
    let rise = each(after as f64 - live as f64);
    report.add(
        Row::new(
            figure("memory each, fall of MemAvailable"),
            "MiB",
            fall.max(rise).into(),
        )
        .promise(Bound::AtMost(2.0)),
    );
    report.add(Row::new(
        figure("resident of each supervisor"),
        "MiB",
        each(supervisors_kib as f64).into(),
    ));
    report.add(
        Row::new(
            figure("server, resident"),
            "MiB",
            (resident as f64 / 1024.0).into(),
        )
        .promise(Bound::AtMost(100.0)),
    );
    report.add(Row::new(
        figure("server, growth"),
        "MiB",
        ((resident as f64 - resident_before as f64) / 1024.0).into(),
    ));
    report.add(Row::new(
        figure("destroyed in"),
        "s",
        destroyed.as_secs_f64().into(),
    ));
    report.note(format!(
        "MemAvailable fell by {fall:.2} MiB for each sandbox while they were started and rose by {rise:.2} MiB when they were \
         destroyed; the greater one counts"
    ));
    report.note(format!(
        "the {count} sandboxes were started through MCP by {CLIENTS} clients, each on a project of its own"
    ));
}

/// Sessions by client, and how long it took from the common start until the last of them was ready.
fn create(machine: &Machine, clients: &mut [Client], count: usize) -> (Vec<Vec<String>>, Duration) {
    let barrier = Barrier::new(clients.len() + 1);
    let parties = clients.len();
    std::thread::scope(|scope| {
        let threads: Vec<_> = clients
            .iter_mut()
            .enumerate()
            .map(|(index, client)| {
                let barrier = &barrier;
                scope.spawn(move || {
                    barrier.wait();
                    (index..count)
                        .step_by(parties)
                        .map(|number| {
                            client.create(&machine.project.join(format!("project-{number}")))
                        })
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        barrier.wait();
        let started = Instant::now();
        let sessions = threads
            .into_iter()
            .map(|thread| thread.join().expect("sessions"))
            .collect();
        (sessions, started.elapsed())
    })
}

fn destroy(clients: &mut [Client], sessions: Vec<Vec<String>>) -> Duration {
    let started = Instant::now();
    std::thread::scope(|scope| {
        for (client, sessions) in clients.iter_mut().zip(sessions) {
            scope.spawn(move || sessions.iter().for_each(|session| client.destroy(session)));
        }
    });
    started.elapsed()
}
