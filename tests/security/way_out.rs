//! T1.4, C2: how the ways out of a session with rules are tried, in the laboratory. A probe is a line of Perl, of which each
//! image has enough; three things must fit: what it was told inside, what stands in the audit log, and what arrived in the
//! internet. The files `egress_*.rs` have the probes.

use std::{fs, path::Path, time::Duration};

use serde_json::{Value, json};

use crate::{
    place::Place,
    probe::Sandbox,
    support::{
        Machine, User,
        engine::ask,
        gvisor::Gvisor,
        image::{HOSTILE_CHANGES, IMAGE, make_image_at},
        lab::{Event, Lab},
        skip, until,
        world::{Apart, OwnEngine},
    },
};

/// What the operator says, as variables of the server.
pub type Settings<'a> = &'a [(&'a str, &'a str)];
/// What every session reaches.
pub const DEFAULT: &str = "CLAUDE_CODE_MCP_NETWORK_DEFAULT";
/// What callers may ask for.
pub const ALLOW: &str = "CLAUDE_CODE_MCP_NETWORK_ALLOW";
/// What of that may be at a private address.
pub const PRIVATE: &str = "CLAUDE_CODE_MCP_NETWORK_PRIVATE";

/// Refusals of one session that stand in the log one by one are 30 a minute; the others are counted there.
const MAX_DENIALS: usize = 28;
/// Reply of SOCKS5 to what no rule allows (RFC 1928, section 6).
const NOT_ALLOWED: u8 = 2;

/// The ways out: HTTP and SOCKS5, what is said in their tunnels, and what the answers say in short.
pub const WAYS: &str = r#"
$SIG{PIPE} = 'IGNORE';
sub at { my ($port) = @_;
    socket(my $s, PF_INET, SOCK_STREAM, 0) or die err();
    connect($s, pack_sockaddr_in($port, inet_aton('127.0.0.1'))) or die err() . "\n"; $s }
sub put { my ($s, $bytes) = @_; my $at = 0;
    while ($at < length $bytes) { my $n = syswrite($s, $bytes, length($bytes) - $at, $at); defined $n or return 0; $at += $n }
    1 }
# All that comes until it fits, until the end, or for some seconds.
sub hear { my ($s, $fits, $seconds) = @_; my ($all, $until) = ('', time + ($seconds // 8));
    until ($all =~ $fits) { my $r = ''; vec($r, fileno($s), 1) = 1;
        my $left = $until - time;
        $left > 0 && select($r, undef, undef, $left) or return "$all(silence)";
        sysread($s, my $piece, 65536) or last; $all .= $piece }
    $all }
my ($never, $head) = (qr/(?!)/, qr/\r\n\r\n/);
# Answers of HTTP: their numbers, and the codes of refusals.
sub answers { my ($bytes) = @_; my @all;
    while ($bytes =~ /HTTP\/1\.[01] (\d+)[^\r\n]*\r\n((?:[^\r\n]+\r\n)*)\r\n/g) { my $number = $1;
        push @all, $2 =~ /^x-egress-denied: (\w+)/mi ? "refused $1" : $number }
    @all ? join(', ', @all) : $bytes =~ /\(silence\)$/ ? 'silence' : 'end' }
sub http { my $s = at(3128); put($s, $_) for @_; answers(hear($s, $never)) }
# What comes back when something is said in a tunnel.
sub said { my ($s, @words) = @_; put($s, $_) for @words; my $first = hear($s, qr/./s);
    $first =~ /^\x15\x03.\x00\x02.(.)/s ? 'alert ' . ord($1) : $first =~ /^\x16\x03/ ? 'hello' : answers($first . hear($s, $never)) }
sub tunnel { my ($authority, @words) = @_; my $s = at(3128);
    put($s, "CONNECT $authority HTTP/1.1\r\n\r\n"); my $told = hear($s, $head);
    $told =~ /^HTTP\/1.1 200 / or return answers($told . hear($s, $never));
    @words ? 'open, ' . said($s, @words) : 'open' }
sub socks_to { my ($kind, $port, @words) = @_; my $s = at(1080);
    put($s, "\x05\x01\x00\x05\x01\x00$kind" . pack('n', $port)); my $told = hear($s, qr/^.{12}/s);
    length $told < 12 and return 'end'; my $reply = ord substr($told, 3, 1); $reply and return "refused $reply";
    @words ? 'open, ' . said($s, @words) : 'open' }
sub socks { my ($name, $port, @words) = @_; socks_to("\x03" . pack('C/a*', $name), $port, @words) }
sub get { my ($host) = @_; "GET / HTTP/1.1\r\nHost: $host\r\nConnection: close\r\n\r\n" }
sub try { my ($number, $probe) = @_; my $told = eval { $probe->() } // "failed: $@"; chomp $told; print "$number $told\n" }
"#;

/// By what a host is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    Connect,
    Http,
    Socks,
}

/// One attempt, and what must become of it.
#[derive(Debug)]
pub struct Probe {
    what: String,
    perl: String,
    told: String,
    /// Code of the refusal in the log; nothing of what is allowed.
    code: Option<&'static str>,
}

impl Probe {
    /// Any attempt that is refused.
    pub fn denied(what: &str, perl: String, told: &str, code: &'static str) -> Self {
        Probe {
            what: what.to_owned(),
            perl,
            told: told.to_owned(),
            code: Some(code),
        }
    }

    /// Any attempt that is allowed.
    pub fn allowed(what: &str, perl: String, told: &str) -> Self {
        Probe {
            what: what.to_owned(),
            perl,
            told: told.to_owned(),
            code: None,
        }
    }

    /// A host that is refused by its name, its port or its address.
    pub fn refused(way: Way, host: &[u8], port: u16, code: &'static str) -> Self {
        let told = match way {
            Way::Connect | Way::Http => format!("refused {code}"),
            Way::Socks => format!("refused {NOT_ALLOWED}"),
        };
        let what = format!("{way:?} {}:{port}", host.escape_ascii());
        Probe::denied(&what, asking(way, host, port), &told, code)
    }

    /// A host whose web server answers.
    pub fn reached(way: Way, host: &[u8], port: u16) -> Self {
        let told = match way {
            Way::Http => "200",
            Way::Connect | Way::Socks => "open, 200",
        };
        let what = format!("{way:?} {}:{port}", host.escape_ascii());
        Probe::allowed(&what, asking(way, host, port), told)
    }
}

/// Asks for a page of a host.
fn asking(way: Way, host: &[u8], port: u16) -> String {
    let request = |target: &[u8]| {
        let authority = [host, format!(":{port}").as_bytes()].concat();
        let lines: [&[u8]; 5] = [b"GET ", target, b" HTTP/1.1\r\nHost: ", &authority, CLOSE];
        lines.concat()
    };
    let authority = [host, format!(":{port}").as_bytes()].concat();
    match way {
        Way::Connect => format!("tunnel({}, {})", bytes(&authority), bytes(request(b"/"))),
        Way::Socks => format!("socks({}, {port}, {})", bytes(host), bytes(request(b"/"))),
        Way::Http => {
            let target = [b"http://", authority.as_slice(), b"/"].concat();
            format!("http({})", bytes(request(&target)))
        }
    }
}

const CLOSE: &[u8] = b"\r\nConnection: close\r\n\r\n";

/// A request for a page as a server gets it, the last one of its connection.
pub fn plain(host: &str) -> String {
    format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")
}

/// Bytes as Perl takes them, whatever they are.
pub fn bytes(bytes: impl AsRef<[u8]>) -> String {
    format!("pack('H*', '{}')", hex::encode(bytes))
}

/// The sessions of the laboratory: an attack is carried out in each, by a server that lives in it and has these settings.
pub fn each_in(lab: &Lab, leg: &str, settings: Settings, attack: impl Fn(&Lab, &mut Sandbox)) {
    for place in PLACES {
        at(place, lab, leg, settings, &attack);
    }
}

/// The same with a kernel of the session's own too. Bytes come out of it another way, and what is decided about them then is
/// decided by the same proxy: so this is for one attack of each kind.
pub fn everywhere_in(
    lab: &Lab,
    leg: &str,
    settings: Settings,
    attack: impl Fn(&Lab, &mut Sandbox),
) {
    each_in(lab, leg, settings, &attack);
    at(Place::DockerGvisor, lab, leg, settings, &attack);
}

/// As [`everywhere_in`], in all of them at a time, for what takes long: what arrived is then not to be told apart.
pub fn together_in(
    lab: &Lab,
    leg: &str,
    settings: Settings,
    attack: impl Fn(&Lab, &mut Sandbox) + Sync,
) {
    std::thread::scope(|scope| {
        for place in PLACES.into_iter().chain([Place::DockerGvisor]) {
            let attack = &attack;
            scope.spawn(move || at(place, lab, leg, settings, attack));
        }
    });
}

const PLACES: [Place; 3] = [Place::NativeAsRoot, Place::NativeAsOrdinary, Place::Docker];

fn at(place: Place, lab: &Lab, leg: &str, settings: Settings, attack: impl Fn(&Lab, &mut Sandbox)) {
    let begin = |mut machine: Machine| {
        eprintln!("at {place:?}");
        for (name, value) in settings {
            machine.set(name, value);
        }
        let mut sandbox = Sandbox::on(place, machine, json!({}));
        attack(lab, &mut sandbox);
        sandbox.destroy();
    };
    match place {
        Place::NativeAsRoot | Place::NativeAsOrdinary => begin(place.machine()),
        Place::Docker if !Path::new("/usr/sbin/dockerd").exists() => {
            skip("docker", &format!("{leg}: no dockerd"));
        }
        Place::Docker => {
            let engine = OwnEngine::start(Apart::Not);
            begin(on_engine(&engine.socket));
        }
        // Not the engine of all tests: it would not see what this server mounts.
        Place::DockerGvisor => {
            if let Some(engine) = Gvisor::own(leg) {
                let mut machine = on_engine(&engine.socket);
                machine.set("CLAUDE_CODE_MCP_RUNTIME_CLASSES", "runsc");
                begin(machine);
            }
        }
    }
}

fn on_engine(socket: &Path) -> Machine {
    ask(async { make_image_at(socket, IMAGE, HOSTILE_CHANGES).await });
    let mut machine = Machine::new(User::Root);
    machine
        .use_engine(socket)
        .set("DEFAULT_CLAUDE_IMAGE", IMAGE);
    machine
}

/// What came since it was last looked at.
pub fn arrived(lab: &Lab) -> Vec<Event> {
    // A packet is on its way for less.
    std::thread::sleep(Duration::from_millis(300));
    lab.log.take()
}

/// Makes the attempts one after the other, and holds what they were told against what they should be, and the refusals
/// against the log. Gives what arrived. The session may be another one afterwards.
pub fn attempt(lab: &Lab, sandbox: &mut Sandbox, probes: &[Probe]) -> Vec<Event> {
    let mut came = Vec::new();
    for part in probes.chunks(MAX_DENIALS) {
        let mut before = denied(sandbox, 0).len();
        if before + part.len() > MAX_DENIALS {
            sandbox.renew();
            before = 0;
        }
        lab.log.take();
        tell(sandbox, part);
        let mut expected: Vec<&str> = part.iter().filter_map(|probe| probe.code).collect();
        let mut written = denied(sandbox, before + expected.len()).split_off(before);
        // Refusals are not waited for, so they may overtake each other on their way to the log.
        expected.sort_unstable();
        written.sort_unstable();
        assert_eq!(written, expected);
        came.extend(arrived(lab));
    }
    came
}

/// What they were told inside.
fn tell(sandbox: &mut Sandbox, probes: &[Probe]) {
    let lines: Vec<String> = probes
        .iter()
        .enumerate()
        .map(|(number, probe)| format!("try({number}, sub {{ {} }});", probe.perl))
        .collect();
    let told = sandbox.perl(&format!("{WAYS}{}", lines.join("\n")));
    assert_eq!(told.lines().count(), probes.len(), "{told}");
    let wrong: Vec<String> = probes
        .iter()
        .zip(told.lines())
        .enumerate()
        .filter(|(number, (probe, told))| *told != format!("{number} {}", probe.told))
        .map(|(_, (probe, told))| format!("{}: {told}, not {}", probe.what, probe.told))
        .collect();
    assert_eq!(wrong, [""; 0]);
}

/// Codes of what was refused to the session, as the audit log has them, once there are so many.
pub fn denied(sandbox: &Sandbox, count: usize) -> Vec<String> {
    let read = || {
        let log = fs::read_to_string(sandbox.machine.audit_log()).expect("the audit log");
        let records = log
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let refused = records.filter(|record| {
            record["action"] == "egress.connect"
                && (record["result"] == "denied" || record["result"] == "failed")
                && record["session_id"] == sandbox.session.as_str()
        });
        refused
            .filter_map(|record| Some(record["parameters"]["code"].as_str()?.to_owned()))
            .collect::<Vec<_>>()
    };
    until("the refusals are on record", || read().len() >= count);
    read()
}

/// What arrived at an address; questions about names are asked of resolvers, on the way to a decision.
pub fn at_addresses(events: &[Event]) -> Vec<&Event> {
    events
        .iter()
        .filter(|event| event.address().is_some())
        .collect()
}

/// Whether a request for a page of that host arrived at that address.
pub fn has_request(events: &[Event], address: &str, name: &str) -> bool {
    let ip: std::net::IpAddr = address.parse().expect("an address");
    events.iter().any(|event| {
        matches!(event, Event::Requested { to, host, .. }
            if to.ip() == ip && host.split(':').next() == Some(name))
    })
}
