//! T1.4 in the laboratory: a session without rules reaches nothing of an internet in which everything answers. What counts is
//! what arrived, not only what the probe was told; each probe is sent outside of the sandbox as well, and arrives.

use crate::{
    place::Place,
    support::lab::{
        Lab,
        addresses::{ALL, HOST, RESOLVER, ROUTER, TUNNEL_ZONE, ZONE},
        is_inside,
        tunnel::Tunnel,
    },
    way_out::{arrived, each_in, everywhere_in},
};

/// Sends something to an address and tells how far that came.
pub const SEND: &str = r#"
sub there { my ($ip, $port) = @_;
    $ip =~ /:/ ? (PF_INET6, Socket::pack_sockaddr_in6($port, Socket::inet_pton(AF_INET6, $ip)))
               : (PF_INET, pack_sockaddr_in($port, inet_aton($ip))) }
sub tcp { my ($family, $to) = there(@_);
    socket(my $s, $family, SOCK_STREAM, 0) or return err();
    local $SIG{ALRM} = sub { die }; alarm 3;
    my $r = eval { connect($s, $to) ? "ok" : err() } // "timeout"; alarm 0; $r }
sub udp { my ($family, $to) = there(@_);
    socket(my $s, $family, SOCK_DGRAM, 0) or return err();
    defined(send($s, "hello", 0, $to)) ? "ok" : err() }
sub raw { my ($ip, $protocol) = @_; my ($family, $to) = there($ip, 0);
    socket(my $s, $family, SOCK_RAW, $protocol) or return err();
    defined(send($s, "\x08\x00\xf7\xff\x00\x00\x00\x00", 0, $to)) ? "ok" : err() }
sub sctp { my ($family, $to) = there(@_);
    socket(my $s, $family, SOCK_STREAM, 132) or return err(); connect($s, $to) ? "ok" : err() }
sub packet { socket(my $s, 17, SOCK_RAW, 0x0300) ? "ok" : err() }
"#;

/// What a tunnel says first, as names: each kind of record that carries bytes back.
pub const ASK: &str = r#"
sub ask { my ($server, $name, $type) = @_;
    socket(my $s, PF_INET, SOCK_DGRAM, 0) or return err();
    my $q = pack('n6', 4711, 0x0100, 1, 0, 0, 0) . join('', map { pack('C/a*', $_) } split(/\./, $name)) . pack('C n n', 0, $type, 1);
    connect($s, pack_sockaddr_in(53, inet_aton($server))) or return err();
    defined(send($s, $q, 0)) or return err();
    my $r = ''; vec($r, fileno($s), 1) = 1;
    select($r, undef, undef, 2) or return "silence";
    defined(recv($s, my $a, 4096, 0)) or return err();
    my (undef, $flags, undef, $answers) = unpack('n4', $a);
    $answers > 0 ? "answered" : "refused" }
"#;

#[test]
fn no_packet_of_any_kind_reaches_any_address() {
    if !is_inside("network_laboratory::no_packet_of_any_kind_reaches_any_address") {
        return;
    }
    let lab = Lab::start();
    let quoted = |list: &[&str]| {
        list.iter()
            .map(|ip| format!("'{ip}'"))
            .collect::<Vec<_>>()
            .join(",")
    };
    let addresses = quoted(&ALL);
    let probe = format!(
        "{SEND} my @r; for my $ip ({addresses}) {{ \
         push @r, map {{ \"tcp $ip $_ \" . tcp($ip, $_) }} 22, 53, 80, 443, 853, 2375; \
         push @r, map {{ \"udp $ip $_ \" . udp($ip, $_) }} 53, 123, 443, 9999; }} \
         print join \"\\n\", @r"
    );
    let more = format!(
        "{SEND} print join \"\\n\", 'icmp ' . raw('{0}', 1), 'raw ' . raw('{0}', 255), 'sctp ' . sctp('{0}', 80), 'packet ' . packet(), \
         map {{ \"host $_ \" . tcp($_, 80) }} '{HOST}', '{ROUTER}', '127.0.0.11', '10.0.2.2', '172.17.0.2'",
        ALL[2]
    );
    everywhere_in(&lab, "packets", &[], |lab, sandbox| {
        arrived(lab);
        let told = sandbox.perl(&probe);
        assert_eq!(told.lines().count(), ALL.len() * 10, "{told}");
        let through: Vec<_> = told.lines().filter(|line| line.ends_with(" ok")).collect();
        assert_eq!(through, [""; 0]);
        let told = sandbox.perl(&more);
        let through: Vec<_> = told.lines().filter(|line| line.ends_with(" ok")).collect();
        assert_eq!(through, [""; 0]);
        assert_eq!(arrived(lab), []);
        let outside = sandbox.perl_outside(&probe);
        let failed: Vec<_> = outside
            .lines()
            .filter(|line| !line.ends_with(" ok"))
            .collect();
        assert!(
            failed
                .iter()
                .all(|line| line.starts_with("tcp") && line.contains(" 53 ")),
            "the control: only there nobody listens: {failed:?}"
        );
        let came = arrived(lab);
        for address in ALL {
            let ip = address.parse().expect("an address");
            assert!(
                came.iter().any(|event| event.address() == Some(ip)),
                "the control: {address}"
            );
        }
    });
}

#[test]
fn no_name_is_looked_up() {
    if !is_inside("network_laboratory::no_name_is_looked_up") {
        return;
    }
    let lab = Lab::start();
    each_in(&lab, "names", &[], |lab, sandbox| {
        arrived(lab);
        for (name, _) in ZONE
            .iter()
            .filter(|(name, _)| !name.starts_with("host.docker"))
        {
            let probe =
                format!("my @a = gethostbyname('{name}'); print scalar(@a) ? 'found' : 'none'");
            assert_eq!(sandbox.perl(&probe), "none", "{name}");
        }
        assert_eq!(arrived(lab), []);
        let control =
            "my @a = gethostbyname('www.example.com'); print scalar(@a) ? 'found' : 'none'";
        assert_eq!(sandbox.perl_outside(control), "found", "the control");
        assert!(!arrived(lab).is_empty());
    });
}

#[test]
fn a_tunnel_through_names_moves_nothing() {
    if !is_inside("network_laboratory::a_tunnel_through_names_moves_nothing") {
        return;
    }
    let lab = Lab::start();
    let Some(_tunnel) = Tunnel::start(&lab, "a tunnel through names") else {
        return;
    };
    // NULL, TXT, SRV, MX, CNAME and A, which iodine uses in this order; a handshake and a long label.
    let label = "z".repeat(60);
    let probe = format!(
        "{ASK} print join ' ', map {{ my $server = $_; map {{ ask($server, \"vaaaakaaa.{TUNNEL_ZONE}\", $_), ask($server, \"{label}.{TUNNEL_ZONE}\", $_) }} 10, 16, 33, 15, 5, 1 }} @ARGV"
    );
    let with = |servers: &[&str]| {
        let list = servers
            .iter()
            .map(|ip| format!("'{ip}'"))
            .collect::<Vec<_>>()
            .join(",");
        probe.replace("@ARGV", &format!("({list})"))
    };
    each_in(&lab, "a tunnel", &[], |lab, sandbox| {
        arrived(lab);
        let told = sandbox.perl(&with(&[RESOLVER, "127.0.0.1", "127.0.0.11"]));
        assert!(!told.contains("answered"), "{told}");
        // An image need not have it; what it would ask is asked above all the same.
        if sandbox.sh("test -x /usr/sbin/iodine").code == 0 {
            for resolver in [RESOLVER, "127.0.0.1"] {
                let words = Tunnel::client(resolver);
                let words: Vec<&str> = words.iter().map(String::as_str).collect();
                let ran = sandbox.argv(&words, 10);
                assert_ne!(ran.code, 0, "{ran:#?}");
            }
        } else {
            assert!(
                [Place::Docker, Place::DockerGvisor].contains(&sandbox.place),
                "the host's programs are seen there"
            );
        }
        assert_eq!(arrived(lab), []);
        assert_eq!(Tunnel::bytes(lab), Some(0), "bytes came out of the tunnel");
        let outside = sandbox.perl_outside(&with(&[RESOLVER]));
        assert!(outside.contains("answered"), "the control: {outside}");
        assert!(
            lab.log
                .asked()
                .iter()
                .any(|name| name.ends_with(TUNNEL_ZONE))
        );
    });
    assert!(
        Tunnel::try_from_here(&lab) > 0,
        "the control: the same client outside"
    );
}
