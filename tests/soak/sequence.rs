//! Hundreds of sessions one after the other: the server neither grows nor keeps descriptors.

use std::fs;

use crate::{
    place::Place,
    plan::{Plan, scaled},
    support::{alone, users},
};

/// Below that, chance decides the slope.
const MIN_SESSIONS: u64 = 100;
/// Sessions between two looks at the server.
const LOOK_EVERY: u64 = 10;
/// Sessions before growth counts: they fill the database's page cache (2 MiB) and the allocator.
const WARM_UP: u64 = 250;
/// Growth per session that is taken for a leak, KiB. The server remembers a bounded number of ended executions; one of them
/// and what belongs to it take about 5.5 KiB.
const MAX_GROWTH_KIB: f64 = 8.0;
/// Descriptors that may come and go.
const SLACK_DESCRIPTORS: usize = 3;

#[test]
fn sessions_after_each_other_do_not_make_the_server_grow() {
    let Some(mut plan) = Plan::begin("sessions in sequence") else {
        return;
    };
    let _alone = alone();
    let count = scaled(500).max(MIN_SESSIONS);
    for (number, user) in users().into_iter().enumerate() {
        let place = Place::new(user, &[]);
        let result = run(&place, count);
        plan.note(
            number as u64,
            result.map_err(|why| format!("as {user:?}: {why}")),
        );
    }
    plan.finish(count);
}

fn run(place: &Place, count: u64) -> Result<(), String> {
    let machine = &place.machine;
    let mut client = machine.client();
    let server = machine.server_pid().ok_or("no server")?;
    let mut looks = Vec::new();
    for number in 1..=WARM_UP + count {
        let session = client.create(&machine.project);
        client.output(&session, "echo work; ls / > /tmp/list");
        client.destroy(&session);
        if number >= WARM_UP && number % LOOK_EVERY == 0 {
            looks.push((number as f64, resident_kib(server), descriptors(server)));
        }
    }
    if machine.server_pid() != Some(server) {
        return Err("the server was replaced".to_owned());
    }
    let (Some(first), Some(last)) = (looks.first(), looks.last()) else {
        return Err("too few sessions to tell".to_owned());
    };
    let growth = slope(&looks);
    eprintln!(
        "{count} sessions after {WARM_UP}: resident {} → {} KiB, {growth:.2} KiB per session, descriptors {} → {}",
        first.1, last.1, first.2, last.2
    );
    if growth > MAX_GROWTH_KIB {
        return Err(format!("{growth:.2} KiB per session: {looks:?}"));
    }
    if last.2 > first.2 + SLACK_DESCRIPTORS {
        return Err(format!("descriptors stay open: {looks:?}"));
    }
    place.settled()
}

/// Least squares.
fn slope(looks: &[(f64, f64, usize)]) -> f64 {
    let count = looks.len() as f64;
    let mean_number = looks.iter().map(|look| look.0).sum::<f64>() / count;
    let mean_kib = looks.iter().map(|look| look.1).sum::<f64>() / count;
    let (mut above, mut below) = (0.0, 0.0);
    for (number, kib, _) in looks {
        above += (number - mean_number) * (kib - mean_kib);
        below += (number - mean_number).powi(2);
    }
    if below == 0.0 { 0.0 } else { above / below }
}

fn resident_kib(pid: i32) -> f64 {
    fs::read_to_string(format!("/proc/{pid}/status"))
        .unwrap_or_default()
        .lines()
        .find_map(|line| {
            line.strip_prefix("VmRSS:")?
                .split_whitespace()
                .next()?
                .parse()
                .ok()
        })
        .unwrap_or_default()
}

fn descriptors(pid: i32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}
