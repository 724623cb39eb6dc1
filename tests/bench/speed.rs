//! Create, execute, destroy through MCP over stdio, as root and as an ordinary user.

use std::{
    process::Command,
    time::{Duration, Instant},
};

use crate::{
    peers::{Peer, Peers},
    report::{Bound, Report, Row, Samples},
    setting,
    support::{Client, Machine, User, users},
};

/// Rounds before the clock counts: caches, the first server start, lazy parts.
const WARM_UP: usize = 3;

pub fn measure(report: &mut Report) {
    for user in users() {
        let name = match user {
            User::Root => "root",
            User::Ordinary => "ordinary",
        };
        let mut machine = Machine::new(user);
        machine.set("CLAUDE_CODE_MCP_IDLE_EXIT_SECONDS", "60");
        machine.write("README.md", "a project");
        let mut client = machine.client();
        sessions(report, name, &machine, &mut client);
        executions(report, name, &machine, &mut client);
    }
}

#[derive(Default)]
struct Ours {
    create: Samples,
    first_output: Samples,
    destroy: Samples,
}

fn sessions(report: &mut Report, user: &str, machine: &Machine, client: &mut Client) {
    let mut found = Peers::find(machine);
    for missing in &found.missing {
        report.note(format!("no figure as {user} of {missing}"));
    }
    let mut theirs: Vec<Samples> = found.peers.iter().map(|_| Samples::default()).collect();
    for _ in 0..WARM_UP {
        one_session(machine, client, &mut Ours::default());
    }
    let mut ours = Ours::default();
    let contenders = found.peers.len() + 1;
    for round in 0..setting("BENCH_SAMPLES", 40) {
        for turn in 0..contenders {
            // Each goes first in turn, so that none always follows the slowest.
            match (round + turn) % contenders {
                0 => one_session(machine, client, &mut ours),
                index => {
                    let peer: &mut Peer = &mut found.peers[index - 1];
                    theirs[index - 1].push(ms(peer.first_output()));
                }
            }
        }
    }
    let figure = "create_session to first command output";
    let mut row = Row::new(figure, "ms", ours.first_output.clone())
        .user(user)
        .promise(Bound::AtMost(15.0))
        .ratio_promise(Bound::AtMost(3.0));
    if let Some(index) = found.peers.iter().position(|peer| peer.name == "bwrap") {
        row = row.peer("bwrap", &theirs[index]);
    }
    report.add(row);
    for (peer, samples) in found.peers.iter().zip(&theirs) {
        if peer.name != "bwrap" {
            report.add(
                Row::new(figure, "ms", ours.first_output.clone())
                    .user(user)
                    .peer(peer.name, samples),
            );
        }
    }
    report.add(Row::new("create_session alone", "ms", ours.create).user(user));
    report.add(
        Row::new("destroy_session", "ms", ours.destroy)
            .user(user)
            .promise(Bound::AtMost(50.0)),
    );
}

fn one_session(machine: &Machine, client: &mut Client, ours: &mut Ours) {
    let started = Instant::now();
    let session = client.create(&machine.project);
    ours.create.push(ms(started.elapsed()));
    let printed = client.output(&session, "echo ready");
    ours.first_output.push(ms(started.elapsed()));
    assert_eq!(printed, "ready");
    let started = Instant::now();
    client.destroy(&session);
    ours.destroy.push(ms(started.elapsed()));
}

fn executions(report: &mut Report, user: &str, machine: &Machine, client: &mut Client) {
    let session = client.create(&machine.project);
    let (mut ours, mut local) = (Samples::default(), Samples::default());
    for _ in 0..20 {
        client.output(&session, "true");
    }
    for _ in 0..250 {
        let started = Instant::now();
        client.output(&session, "true");
        ours.push(ms(started.elapsed()));
        let started = Instant::now();
        let status = Command::new("/bin/sh").args(["-c", "true"]).status();
        local.push(ms(started.elapsed()));
        assert!(status.is_ok_and(|status| status.success()));
    }
    client.destroy(&session);
    report.add(
        Row::new("execute_command true", "ms", ours)
            .user(user)
            .promise(Bound::AtMost(3.0))
            .peer("sh -c true, no sandbox", &local),
    );
}

pub fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
