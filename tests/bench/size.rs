//! What is there when nothing happens: the server's and the supervisor's memory, the supervisor's file.

use std::time::Duration;

use crate::{
    host,
    report::{Bound, Report, Row, Samples},
    support::{Machine, User, users},
};

const MIB: f64 = 1024.0 * 1024.0;

pub fn measure(report: &mut Report) {
    for user in users() {
        let name = match user {
            User::Root => "root",
            User::Ordinary => "ordinary",
        };
        let mut machine = Machine::new(user);
        machine.set("CLAUDE_CODE_MCP_IDLE_EXIT_SECONDS", "60");
        let mut client = machine.client();
        let resident = || {
            std::thread::sleep(Duration::from_millis(500));
            let server = machine.server_pid().expect("a server");
            Samples::from(host::resident_kib(server) as f64 / 1024.0)
        };
        report.add(
            Row::new("server, resident, no session yet", "MiB", resident())
                .user(name)
                .promise(Bound::AtMost(30.0)),
        );
        let session = client.create(&machine.project);
        client.output(&session, "true");
        let mut supervisor = Samples::default();
        for pid in host::supervisors(&machine) {
            supervisor.push(host::resident_kib(pid) as f64 / 1024.0);
        }
        report.add(
            Row::new("supervisor, resident", "MiB", supervisor)
                .user(name)
                .promise(Bound::AtMost(2.0)),
        );
        client.destroy(&session);
        for _ in 0..30 {
            let session = client.create(&machine.project);
            client.output(&session, "true");
            client.destroy(&session);
        }
        report.add(
            Row::new(
                "server, resident, idle after 31 sessions",
                "MiB",
                resident(),
            )
            .user(name)
            .promise(Bound::AtMost(30.0)),
        );
    }
    let program = sandbox_host::supervisor_binary().len() as f64 / MIB;
    report.add(
        Row::new("supervisor, program on disk", "MiB", program.into())
            .user("–")
            .promise(Bound::AtMost(3.0)),
    );
}
