//! T1.4, C2: who says little, holds much or never stops is cut off in time, and takes nothing from another session.

use std::time::{Duration, Instant};

use crate::{
    probe::{PRELUDE, Sandbox},
    support::{
        lab::{Lab, is_inside},
        until,
    },
    way_out::{DEFAULT, WAYS, together_in},
};

const RULES: &str = "www.example.com:80,8080";
/// Tunnels that a session may have at a time.
const MAX_TUNNELS: usize = 64;
/// How long a head may take.
const HEAD_SECONDS: u64 = 15;
/// Much later than an answer comes, on a busy machine too.
const LATE: Duration = Duration::from_secs(8);

/// Half a head, and a byte more each second, on many connections: in how many seconds the last one was hung up on.
const SLOW: &str = r#"
my @slow = map { my $s = at(3128); put($s, "GET http://www.example.com/ HTTP/1.1\r\nHost: www.example.com\r\nX: "); $s } 1 .. 30;
push @slow, map { my $s = at(1080); put($s, "\x05\xff"); $s } 1 .. 10;
print "slow\n"; my $begun = time;
while (@slow && time - $begun < 40) { select(undef, undef, undef, 1);
    @slow = grep { my $r = ''; vec($r, fileno($_), 1) = 1;
        my $has_ended = select($r, undef, undef, 0) && !sysread($_, my $x, 4096);
        !$has_ended && defined syswrite($_, 'x') } @slow }
print @slow ? scalar(@slow) . ' are left' : time - $begun;
"#;

/// All the tunnels there may be, and one more; then all of them are given back.
const TUNNELS: &str = r#"
my @open = map { my $s = at(3128); put($s, "CONNECT www.example.com:8080 HTTP/1.1\r\n\r\n"); $s } 1 .. COUNT;
my %told; $told{answers(hear($_, $head))}++ for @open;
print join(' ', map { "$_ $told{$_}" } sort keys %told), "\n";
print http("GET http://www.example.com/ HTTP/1.1\r\n" . "Host: www.example.com\r\nConnection: close\r\n\r\n"), "\n";
print "full\n"; select(undef, undef, undef, 3);
close $_ for @open; print at_last();
"#;

/// What a tunnel comes to, once there is room for one again.
const AT_LAST: &str = r#"
sub at_last { my $told; for (1 .. 40) { $told = tunnel('www.example.com:8080', get('www.example.com'));
    $told =~ /^open/ and last; select(undef, undef, undef, 0.25) } $told }
"#;

/// A head without an end: how much of it is taken, MiB, and what is said to it.
const GIANT: &str = r#"
my $s = at(3128); put($s, "GET http://www.example.com/ HTTP/1.1\r\nX: "); my ($taken, $piece) = (0, 'x' x 65536);
while ($taken < 64 << 20) { my $n = syswrite($s, $piece); defined $n or last; $taken += $n }
my $told = answers(hear($s, $never)); print $taken >> 20, " $told";
"#;

/// More connections than are carried at a time, all silent.
const SILENT: &str = r#"
my @silent = map { my $s; socket($s, PF_INET, SOCK_STREAM, 0) && connect($s, pack_sockaddr_in(3128, inet_aton('127.0.0.1'))) ? $s : () } 1 .. 200;
print scalar(@silent), "\n"; select(undef, undef, undef, 2);
close $_ for @silent; print at_last();
"#;

#[test]
fn slow_and_greedy_clients_are_cut_off_and_harm_nobody() {
    if !is_inside("egress_limits::slow_and_greedy_clients_are_cut_off_and_harm_nobody") {
        return;
    }
    let lab = Lab::start();
    together_in(&lab, "limits", &[(DEFAULT, RULES)], |_, sandbox| {
        is_served(sandbox);
        let greedy = sandbox.client.create(&sandbox.machine.project);
        let victim = std::mem::replace(&mut sandbox.session, greedy.clone());
        let slow = run(sandbox, SLOW);
        // The slow ones are in the way of nobody, not even of their own session.
        is_served(sandbox);

        let tunnels = TUNNELS.replace("COUNT", &MAX_TUNNELS.to_string());
        let tunnels = run(sandbox, &tunnels);
        as_session(sandbox, &victim, is_served);
        let told = format!("200 {MAX_TUNNELS}\nrefused too_many\nfull\nopen, 200");
        assert_eq!(ended(sandbox, &tunnels), told);

        let giant = sandbox.perl(&format!("{WAYS}{GIANT}"));
        let (mebibytes, said) = giant.split_once(' ').expect("two words");
        assert!(mebibytes.parse::<u64>().expect("a number") < 8, "{giant}");
        assert!(["refused bad_request", "end"].contains(&said), "{giant}");

        let told = ended(sandbox, &slow);
        let seconds = told.trim_start_matches("slow\n").parse::<u64>();
        // They are looked at once a second, on a busy machine later.
        let in_time = HEAD_SECONDS - 3..HEAD_SECONDS + 15;
        assert!(
            seconds.is_ok_and(|seconds| in_time.contains(&seconds)),
            "{told}"
        );

        let silent = run(sandbox, SILENT);
        as_session(sandbox, &victim, is_served);
        let told = ended(sandbox, &silent);
        assert!(told.ends_with("open, 200"), "{told}");
        sandbox.client.destroy(&greedy);
        sandbox.session = victim;
    });
}

/// A request is answered, and not late.
fn is_served(sandbox: &mut Sandbox) {
    let begun = Instant::now();
    let probe = "print tunnel('www.example.com:8080', get('www.example.com'))";
    assert_eq!(sandbox.perl(&format!("{WAYS}{probe}")), "open, 200");
    assert!(begun.elapsed() < LATE, "{:?}", begun.elapsed());
}

fn as_session(sandbox: &mut Sandbox, session: &str, act: impl FnOnce(&mut Sandbox)) {
    let own = std::mem::replace(&mut sandbox.session, session.to_owned());
    act(sandbox);
    sandbox.session = own;
}

/// Starts a script that says when it has begun.
fn run(sandbox: &mut Sandbox, script: &str) -> String {
    let script = format!("{PRELUDE}{WAYS}{AT_LAST}{script}");
    let path = sandbox.machine.write("greedy.pl", &script);
    let started = sandbox.start("/usr/bin/perl greedy.pl");
    until("it has begun", || {
        let text = sandbox.look(&started, 0)["stdout"]["text"].clone();
        text.as_str().is_some_and(|text| !text.is_empty())
    });
    std::fs::remove_file(path).expect("removed");
    started
}

fn ended(sandbox: &mut Sandbox, execution: &str) -> String {
    let looked = sandbox.look(execution, 40);
    assert_eq!(looked["exitCode"], 0, "{looked:#}");
    looked["stdout"]["text"]
        .as_str()
        .unwrap_or_default()
        .trim_end()
        .to_owned()
}
