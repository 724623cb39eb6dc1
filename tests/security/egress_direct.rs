//! T1.4, C2: rules open three ports of loopback, and nothing beside them: no packet leaves otherwise, no resolver is asked, no
//! option of a socket helps, another session is as far away as any other host, and programs that know no proxy reach nothing.

use serde_json::json;

use crate::{
    network_laboratory::{ASK, SEND},
    place::Place,
    probe::Sandbox,
    support::lab::{
        Event, Lab,
        addresses::{ALL, HOST, OTHER_RESOLVER, OTHER_WEB, RESOLVER, ROUTER, WEB},
        is_inside,
    },
    way_out::{DEFAULT, Probe, Way, arrived, attempt, each_in, everywhere_in, has_request},
};

const RULES: &str = "*.example.com:80,443,853,8080";

/// Lines of a probe's output that end so.
fn ending<'a>(told: &'a str, end: &str) -> Vec<&'a str> {
    told.lines().filter(|line| line.ends_with(end)).collect()
}

#[test]
fn rules_open_no_other_way_than_the_proxy() {
    if !is_inside("egress_direct::rules_open_no_other_way_than_the_proxy") {
        return;
    }
    let lab = Lab::start();
    let addresses = quoted(&ALL);
    let packets = format!(
        "{SEND} my @r; for my $ip ({addresses}) {{ push @r, map {{ \"tcp $ip $_ \" . tcp($ip, $_) }} 53, 80, 443, 853; \
         push @r, map {{ \"udp $ip $_ \" . udp($ip, $_) }} 53, 443; }} print join \"\\n\", @r"
    );
    // The name is allowed and has an address inside; a packet there goes nowhere all the same.
    let named = format!(
        "{SEND} my $ip = join '.', unpack 'C4', scalar gethostbyname('www.example.com'); print join \"\\n\", \"at $ip\", \
         map {{ \"tcp $_ \" . tcp($_, 80), \"udp $_ \" . udp($_, 443), 'icmp ' . raw($_, 1), 'sctp ' . sctp($_, 80) }} \
         $ip, '{HOST}', '{ROUTER}', '127.0.0.11', '172.17.0.1', '10.0.2.2', '255.255.255.255'"
    );
    // A mark, for other routes; addresses that are not one's own.
    let options = format!(
        "socket(my $s, PF_INET, SOCK_STREAM, 0) or die; \
         my @set = map {{ setsockopt($s, $_->[0], $_->[1], pack('i', 1)) ? 'ok' : err() }} [1, 36], [0, 19]; \
         print join ' ', @set, connect($s, pack_sockaddr_in(80, inet_aton('{WEB}'))) ? 'ok' : err()"
    );
    everywhere_in(&lab, "packets", &[(DEFAULT, RULES)], |lab, sandbox| {
        arrived(lab);
        let told = sandbox.perl(&packets);
        assert_eq!(told.lines().count(), ALL.len() * 6, "{told}");
        assert_eq!(ending(&told, " ok"), [""; 0]);
        let told = sandbox.perl(&named);
        assert!(told.starts_with("at 198.18."), "{told}");
        // A datagram to its own loopback goes out of nothing.
        assert_eq!(ending(&told, " ok"), ["udp 127.0.0.11 ok"]);
        let servers = quoted(&[RESOLVER, OTHER_RESOLVER, "127.0.0.11", ROUTER]);
        let told = sandbox.perl(&format!(
            "{ASK} print join \"\\n\", map {{ ask($_, 'www.example.com', 1) }} {servers}"
        ));
        assert_eq!(ending(&told, "answered"), [""; 0]);
        let told = sandbox.perl(&options);
        if sandbox.place == Place::DockerGvisor {
            // Its kernel takes any option and knows none of these.
            assert!(!told.ends_with(" ok"), "{told}");
        } else {
            assert_eq!(told, "EPERM EPERM ENETUNREACH");
        }
        assert_eq!(arrived(lab), []);

        let outside = sandbox.perl_outside(&packets);
        let lost = outside.lines().filter(|line| !line.ends_with(" ok"));
        assert!(
            lost.clone()
                .all(|line| line.starts_with("tcp") && line.contains(" 53 ")),
            "the control: {outside}"
        );
        let asked = sandbox.perl_outside(&format!(
            "{ASK} print ask('{RESOLVER}', 'www.example.com', 1)"
        ));
        assert_eq!(asked, "answered", "the control");
        let free = sandbox.perl_unfiltered(&options);
        assert_eq!(
            free, "ok ok ENETUNREACH",
            "the control: a network of its own has no way out, but takes the options"
        );
        assert!(arrived(lab).len() > ALL.len(), "the control");
    });
}

#[test]
fn a_program_that_knows_no_proxy_reaches_nothing() {
    if !is_inside("egress_direct::a_program_that_knows_no_proxy_reaches_nothing") {
        return;
    }
    let lab = Lab::start();
    each_in(&lab, "programs", &[(DEFAULT, RULES)], |lab, sandbox| {
        arrived(lab);
        // By what each image has: the name is found, and leads nowhere without the proxy.
        let told = sandbox.perl(&format!(
            "{SEND} print join ' ', map {{ tcp(join('.', unpack 'C4', scalar gethostbyname($_)), 80) }} 'www.example.com', '{WEB}'"
        ));
        assert_eq!(told, "ENETUNREACH ENETUNREACH");
        assert_eq!(arrived(lab), []);
        if sandbox.sh("test -x /usr/bin/curl").code != 0 {
            assert_eq!(
                sandbox.place,
                Place::Docker,
                "the host's programs are seen there"
            );
            let by_proxy = [Probe::reached(Way::Http, b"www.example.com", 80)];
            let came = attempt(lab, sandbox, &by_proxy);
            assert!(has_request(&came, WEB, "www.example.com"), "the control");
            return;
        }
        let everything = json!({ "NO_PROXY": "*" });
        for (line, env) in [
            (
                "curl -sS --max-time 5 http://www.example.com/",
                everything.clone(),
            ),
            ("curl -sS --max-time 5 https://www.example.com/", everything),
            (
                "env -u http_proxy -u HTTP_PROXY -u all_proxy -u ALL_PROXY curl -sS --max-time 5 http://www.example.com/",
                json!({}),
            ),
            (
                "env -i /usr/bin/curl -sS --max-time 5 http://www.example.com/",
                json!({}),
            ),
            (
                "env -i /usr/bin/curl -sS --max-time 5 http://93.184.216.34/",
                json!({}),
            ),
        ] {
            let arguments = json!({ "sessionId": sandbox.session, "command": line, "env": env, "waitSeconds": 20 });
            let ran = sandbox.ran(arguments);
            // 7: it could not connect.
            assert_eq!(ran.code, 7, "{line}: {ran:#?}");
        }
        assert_eq!(arrived(lab), []);
        let ran = sandbox.sh("curl -sS --max-time 5 http://www.example.com/");
        assert!(
            ran.out.starts_with("reached www.example.com"),
            "the control: {ran:#?}"
        );
        assert!(has_request(&arrived(lab), WEB, "www.example.com"));
    });
}

#[test]
fn names_are_asked_of_nobody_by_other_means() {
    if !is_inside("egress_direct::names_are_asked_of_nobody_by_other_means") {
        return;
    }
    let lab = Lab::start();
    // DNS, DNS over TLS and over HTTPS at a resolver that no rule names, and at a port that none opens.
    let probes: Vec<Probe> = [(53, 0), (853, 0), (443, 0)]
        .into_iter()
        .flat_map(|(port, _)| {
            [Way::Connect, Way::Socks]
                .map(|way| Probe::refused(way, b"dns.example.org", port, "host_not_allowed"))
        })
        .chain([Probe::refused(
            Way::Socks,
            RESOLVER.as_bytes(),
            53,
            "raw_address",
        )])
        .chain(
            [Way::Connect, Way::Socks]
                .map(|way| Probe::refused(way, b"api.example.com", 53, "port_not_allowed")),
        )
        .collect();
    each_in(&lab, "resolvers", &[(DEFAULT, RULES)], |lab, sandbox| {
        assert_eq!(attempt(lab, sandbox, &probes), []);
        // A host whose rule has the port is reached there, whatever it speaks.
        let dot = Probe::allowed(
            "DNS over TLS",
            "tunnel('api.example.com:853')".to_owned(),
            "open",
        );
        let came = attempt(lab, sandbox, &[dot]);
        let at = |event: &Event| matches!(event, Event::Connected { to } if to.port() == 853 && Some(to.ip()) == OTHER_WEB.parse().ok());
        assert!(came.iter().any(at), "the control: {came:#?}");
    });
}

#[test]
fn another_session_is_not_reached() {
    if !is_inside("egress_direct::another_session_is_not_reached") {
        return;
    }
    let lab = Lab::start();
    // By TCP at each of its addresses, and by a name that needs no file.
    let serve = r#"perl -MSocket -e '
        socket(my $t, PF_INET, SOCK_STREAM, 0); setsockopt($t, SOL_SOCKET, SO_REUSEADDR, 1);
        bind($t, pack_sockaddr_in(8080, INADDR_ANY)) or die; listen($t, 5);
        socket(my $u, PF_UNIX, SOCK_STREAM, 0); bind($u, pack_sockaddr_un("\0of-a-session")) or die; listen($u, 5);
        $| = 1; print "serving\n"; sleep 600'"#;
    let knock = r#"
        socket(my $t, PF_INET, SOCK_STREAM, 0); print connect($t, pack_sockaddr_in(8080, inet_aton('127.0.0.1'))) ? 'ok' : err();
        socket(my $u, PF_UNIX, SOCK_STREAM, 0); print ' ', connect($u, pack_sockaddr_un("\0of-a-session")) ? 'ok' : err();"#;
    let probes: Vec<Probe> = [
        ("loopback.example.com", "private_address"),
        ("own.example.com", "private_address"),
        ("localhost", "host_not_allowed"),
    ]
    .into_iter()
    .flat_map(|(host, code)| {
        [Way::Connect, Way::Http, Way::Socks]
            .map(|way| Probe::refused(way, host.as_bytes(), 8080, code))
    })
    .collect();
    everywhere_in(&lab, "sessions", &[(DEFAULT, RULES)], |lab, sandbox| {
        let other = serving(sandbox, serve);
        let own = std::mem::replace(&mut sandbox.session, other.clone());
        assert_eq!(
            sandbox.perl(knock),
            "ok ok",
            "the control: it serves itself"
        );
        sandbox.session = own;
        assert_eq!(sandbox.perl(knock), "ECONNREFUSED ECONNREFUSED");
        let came = attempt(lab, sandbox, &probes);
        assert!(
            came.iter().all(|event| event.address().is_none()),
            "{came:#?}"
        );
        sandbox.client.destroy(&other);
    });
}

/// Another session of the same project, in which something serves.
fn serving(sandbox: &mut Sandbox, line: &str) -> String {
    let other = sandbox.client.create(&sandbox.machine.project);
    let started = json!({ "sessionId": other, "command": line, "waitSeconds": 0 });
    let started = sandbox
        .client
        .tool("execute_command", started)
        .expect("an execution");
    let execution = started["executionId"].as_str().expect("its id").to_owned();
    crate::support::until("it serves", || {
        sandbox.look(&execution, 0)["stdout"]["text"] == "serving\n"
    });
    other
}

fn quoted(list: &[&str]) -> String {
    let quoted: Vec<String> = list.iter().map(|one| format!("'{one}'")).collect();
    quoted.join(",")
}
