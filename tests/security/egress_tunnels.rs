//! T1.4, C2: nothing travels in questions about names, whatever rules name: the stub inside answers by itself and asks nobody.
//! A tunnel of Debian's iodine moves no byte, and neither do its questions, made by hand where an image has no iodine.

use std::collections::BTreeSet;

use crate::{
    network_laboratory::ASK,
    place::Place,
    probe::Sandbox,
    support::lab::{
        Lab,
        addresses::{RESOLVER, TUNNEL_ZONE},
        is_inside,
        tunnel::Tunnel,
    },
    way_out::{DEFAULT, arrived, denied, each_in, everywhere_in},
};

/// NULL, TXT, SRV, MX and CNAME, which iodine uses in this order beside A.
const CARRIERS: &str = "10, 16, 33, 15, 5";

#[test]
fn a_tunnel_through_names_moves_nothing_whether_or_not_a_rule_names_its_zone() {
    if !is_inside(
        "egress_tunnels::a_tunnel_through_names_moves_nothing_whether_or_not_a_rule_names_its_zone",
    ) {
        return;
    }
    let lab = Lab::start();
    let Some(_tunnel) = Tunnel::start(&lab, "a tunnel through names") else {
        return;
    };
    let label = "z".repeat(60);
    let asking = |kinds: &str| {
        format!(
            "{ASK} print join ' ', map {{ my $kind = $_; map {{ ask('127.0.0.1', \"$_.{TUNNEL_ZONE}\", $kind) }} 'vaaaakaaa', '{label}' }} {kinds}"
        )
    };
    let named = format!("*.{TUNNEL_ZONE} {TUNNEL_ZONE} www.example.com:80");
    for (rules, code, addresses) in [
        ("www.example.com:80", "host_not_allowed", "refused refused"),
        // Named, a name has an address inside, by which it is asked for again; nothing of it is carried out.
        (named.as_str(), "unsupported", "answered answered"),
    ] {
        let attack = |lab: &Lab, sandbox: &mut Sandbox| {
            arrived(lab);
            let told = sandbox.perl(&asking(CARRIERS));
            assert!(!told.contains("answered"), "{told}");
            assert_eq!(
                told.split(' ').collect::<BTreeSet<_>>(),
                BTreeSet::from(["refused"])
            );
            assert_eq!(sandbox.perl(&asking("1")), addresses);
            // Once for each name: a resolver repeats itself.
            assert_eq!(denied(sandbox, 2), [code, code]);
            if sandbox.sh("test -x /usr/sbin/iodine").code == 0 {
                for resolver in ["127.0.0.1", RESOLVER] {
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
        };
        let settings = [(DEFAULT, rules)];
        if code == "unsupported" {
            everywhere_in(&lab, "a tunnel", &settings, attack);
        } else {
            each_in(&lab, "a tunnel", &settings, attack);
        }
    }
    assert!(
        Tunnel::try_from_here(&lab) > 0,
        "the control: the same client outside"
    );
}

#[test]
fn long_names_carry_nothing_out() {
    if !is_inside("egress_tunnels::long_names_carry_nothing_out") {
        return;
    }
    let lab = Lab::start();
    // As much as a name holds, of a hundred names below a suffix that a rule has; then labels and names that are too long, and
    // many questions in one message.
    let probe = format!(
        "{ASK} my @long = map {{ join('.', map {{ $_ x 60 }} 'a', 'b') . sprintf('.%060d.www.example.com', $_) }} 1 .. 100; \
         my %told; $told{{ask('127.0.0.1', $_, 1)}}++ for @long; $told{{ask('127.0.0.1', $_, 16)}}++ for @long[0 .. 9]; \
         print join(' ', map {{ \"$_ $told{{$_}}\" }} sort keys %told), \"\\n\"; \
         print join ' ', map {{ ask('127.0.0.1', $_, 1) }} 'a' x 64 . '.example.com', join('.', ('a' x 60) x 5) . '.example.com', \
         'a b.example.com', \"a\\0b.example.com\", 'evil.example.org'"
    );
    each_in(
        &lab,
        "long names",
        &[(DEFAULT, "*.example.com:80 *.www.example.com:80")],
        |lab, sandbox| {
            arrived(lab);
            let told = sandbox.perl(&probe);
            assert_eq!(
                told,
                "answered 100 refused 10\nrefused refused refused refused refused"
            );
            assert_eq!(arrived(lab), [], "the stub asks nobody");
            // The name is looked up outside when something is to be reached by it, and not before.
            let reached =
                "my @a = gethostbyname('www.example.com'); print scalar @a ? 'found' : 'none'";
            assert_eq!(sandbox.perl(reached), "found");
            assert_eq!(arrived(lab), []);
            let probe =
                crate::way_out::Probe::reached(crate::way_out::Way::Http, b"www.example.com", 80);
            let came = crate::way_out::attempt(lab, sandbox, &[probe]);
            assert!(!came.is_empty(), "the control");
        },
    );
}
