//! T1.4, C2: a name is all that opens a way, and it opens none to an address that no public host has: spellings of addresses,
//! names that seem to be others, names that lead inside, and names that change their mind.

use std::fs;

use serde_json::Value;

use crate::{
    support::lab::{
        Event, Lab,
        addresses::{
            HOST, METADATA, METADATA_V6, NEIGHBOR, OTHER_WEB, PRIVATE as PRIVATE_HOST, REBINDING,
            ROUTER, WEB, WEB_V6,
        },
        is_inside,
    },
    way_out::{
        DEFAULT, PRIVATE, Probe, Way, at_addresses, attempt, bytes, each_in, everywhere_in,
        has_request,
    },
};

const WAYS: [Way; 3] = [Way::Connect, Way::Http, Way::Socks];
/// As wide as rules go, so that it is not a missing rule that refuses.
const WIDE: &str = "*.example.com:80,443,8080 *.rebinding.example.com:80 metadata.google.internal:80 host.docker.internal:80,8080";

#[test]
fn no_spelling_of_an_address_is_reached() {
    if !is_inside("egress_names::no_spelling_of_an_address_is_reached") {
        return;
    }
    let lab = Lab::start();
    // Hosts of the internet; the metadata service; loopback; the machine, its neighbors and its engine's; resolvers.
    let spellings = [
        WEB,
        "93.184.216.34.",
        "0x5d.0xb8.0xd8.0x22",
        "1572395042",
        "0135.0270.0330.042",
        "[2606:2800:220:1::34]",
        METADATA,
        "2852039166",
        "0xa9fea9fe",
        "0251.0376.0251.0376",
        "169.254.43518",
        "[::ffff:169.254.169.254]",
        "[fd00:ec2::254]",
        "169.254.170.2",
        "100.100.100.200",
        "168.63.129.16",
        "127.0.0.1",
        "127.1",
        "2130706433",
        "0x7f.1",
        "017700000001",
        "[::1]",
        "0.0.0.0",
        "0",
        "[::]",
        "127.0.0.11",
        HOST,
        ROUTER,
        NEIGHBOR,
        "192.168.50.255",
        "172.17.0.1",
        "10.0.2.2",
        "[fd50::2]",
        "[fe80::1]",
        "8.8.8.8",
        "224.0.0.251",
    ];
    let mut probes: Vec<Probe> = spellings
        .into_iter()
        .flat_map(|host| WAYS.map(|way| Probe::refused(way, host.as_bytes(), 80, "raw_address")))
        .collect();
    // What HTTP cannot say SOCKS can: bare colons, a zone, digits of full width.
    probes.extend(
        [
            "::ffff:169.254.169.254",
            "::1",
            "fe80::1%eth0",
            "１６９.254.169.254",
            "169。254。169。254",
        ]
        .map(|host| Probe::refused(Way::Socks, host.as_bytes(), 80, "raw_address")),
    );
    // Its own kinds of addresses.
    probes.extend(
        [
            [93, 184, 216, 34],
            [169, 254, 169, 254],
            [127, 0, 0, 1],
            [198, 18, 77, 77],
            [8, 8, 8, 8],
        ]
        .map(|address| {
            let perl = format!("socks_to(\"\\x01\" . {}, 53)", bytes(address));
            Probe::denied(
                &format!("SOCKS to {address:?}"),
                perl,
                "refused 2",
                "raw_address",
            )
        }),
    );
    let mapped = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 169, 254, 169, 254];
    let perl = format!("socks_to(\"\\x04\" . {}, 80)", bytes(mapped));
    probes.push(Probe::denied(
        "SOCKS to a mapped address",
        perl,
        "refused 2",
        "raw_address",
    ));
    each_in(&lab, "addresses", &[(DEFAULT, WIDE)], |lab, sandbox| {
        assert_eq!(attempt(lab, sandbox, &probes), [], "not even a question");
        let controls = WAYS.map(|way| Probe::reached(way, b"www.example.com", 80));
        let came = attempt(lab, sandbox, &controls);
        assert_eq!(requests_at(&came, WEB), 3, "the control: {came:#?}");
    });
}

/// T1.4, A1: it was on record as denied, by a rule that allows it.
#[test]
fn an_allowed_name_that_nobody_has_is_told_as_such_inside_and_on_record() {
    if !is_inside(
        "egress_names::an_allowed_name_that_nobody_has_is_told_as_such_inside_and_on_record",
    ) {
        return;
    }
    let lab = Lab::start();
    let probes = [Way::Connect, Way::Http]
        .map(|way| Probe::refused(way, b"nobody.example.com", 80, "resolution_failed"));
    each_in(&lab, "nobody", &[(DEFAULT, WIDE)], |lab, sandbox| {
        let came = attempt(lab, sandbox, &probes);
        assert!(at_addresses(&came).is_empty(), "{came:#?}");
        let log = fs::read_to_string(sandbox.machine.audit_log()).expect("the audit log");
        let records = log
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let told: Vec<_> = records
            .filter(|record| record["parameters"]["code"] == "resolution_failed")
            .filter(|record| record["phase"] == "result")
            .collect();
        assert_eq!(told.len(), probes.len(), "{told:#?}");
        for record in told {
            assert_eq!(record["result"], "failed", "{record}");
            assert_eq!(record["reason"], "resolution_failed", "{record}");
            assert_eq!(record["parameters"]["port"], 80, "{record}");
        }
        let control = [Probe::reached(Way::Http, b"www.example.com", 80)];
        let came = attempt(lab, sandbox, &control);
        assert_eq!(requests_at(&came, WEB), 1, "the control: {came:#?}");
    });
}

#[test]
fn no_name_is_taken_for_another_one() {
    if !is_inside("egress_names::no_name_is_taken_for_another_one") {
        return;
    }
    let lab = Lab::start();
    let long_label = format!("{}.example.com", "a".repeat(64));
    // 254 bytes, one more than a name may have.
    let long_name = format!("{}ab.example.com", "abcdefghi.".repeat(24));
    // As they stand in CONNECT, in `http://…` and in SOCKS: a name that is none; a line that is none; another name.
    let table: [(&[u8], [&'static str; 3]); 31] = [
        (
            b"www.example.com\0.example.org",
            ["bad_request", "bad_request", "bad_name"],
        ),
        (
            b"www.example.com\r\nX: evil.example.org",
            ["bad_request", "bad_request", "bad_name"],
        ),
        (
            b"www.example.com\nevil.example.org",
            ["bad_request", "bad_request", "bad_name"],
        ),
        (
            b"www.example.com\t.example.org",
            ["bad_request", "bad_request", "bad_name"],
        ),
        (
            b"www.example.com evil.example.org",
            ["bad_request", "bad_request", "bad_name"],
        ),
        (
            b"www.example.com%00.example.org",
            ["bad_name", "bad_request", "bad_name"],
        ),
        (
            b"www%2eexample.com",
            ["bad_name", "bad_request", "bad_name"],
        ),
        (
            b"evil.example.org%23.example.com",
            ["bad_name", "bad_request", "bad_name"],
        ),
        (
            b"evil.example.org#.example.com",
            ["bad_request", "bad_request", "bad_name"],
        ),
        (
            b"evil.example.org?.example.com",
            ["bad_name", "host_mismatch", "bad_name"],
        ),
        (
            b"evil.example.org/.example.com",
            ["bad_name", "host_mismatch", "bad_name"],
        ),
        (
            b"evil.example.org\\.example.com",
            ["bad_name", "bad_request", "bad_name"],
        ),
        (b"evil.example.org@www.example.com", ["bad_name"; 3]),
        (b"www.example.com@evil.example.org", ["bad_name"; 3]),
        (b"www.example.com:80@evil.example.org", ["bad_name"; 3]),
        (
            b"evil.example.org:80:www.example.com",
            ["bad_name", "bad_request", "bad_name"],
        ),
        (b"www..example.com", ["bad_name"; 3]),
        (b"www.example.com..", ["bad_name"; 3]),
        (b".example.com", ["bad_name"; 3]),
        (b"-.example.com", ["bad_name"; 3]),
        (b"*.example.com", ["bad_name"; 3]),
        (long_label.as_bytes(), ["bad_name"; 3]),
        (long_name.as_bytes(), ["bad_name"; 3]),
        (b"xn--a.example.com", ["bad_name"; 3]),
        (b"example.com", ["host_not_allowed"; 3]),
        (b"notexample.com", ["host_not_allowed"; 3]),
        (b"www.example.com.evil.example.org", ["host_not_allowed"; 3]),
        (b"evil.example.org", ["host_not_allowed"; 3]),
        (b"localhost", ["host_not_allowed"; 3]),
        (b"xn--exmple-4nf.com", ["host_not_allowed"; 3]),
        (b"metadata", ["host_not_allowed"; 3]),
    ];
    let mut probes: Vec<Probe> = table
        .into_iter()
        .flat_map(|(host, codes)| [0, 1, 2].map(|at| Probe::refused(WAYS[at], host, 80, codes[at])))
        .collect();
    // A letter that looks like another one, and what is no text at all.
    probes.push(Probe::refused(
        Way::Socks,
        "www.ex\u{430}mple.com".as_bytes(),
        80,
        "host_not_allowed",
    ));
    probes.push(Probe::refused(
        Way::Socks,
        b"www.example.com\xff",
        80,
        "bad_name",
    ));
    probes.push(Probe::refused(Way::Socks, b"", 80, "bad_name"));
    each_in(&lab, "names", &[(DEFAULT, WIDE)], |lab, sandbox| {
        assert_eq!(attempt(lab, sandbox, &probes), [], "not even a question");
        // Spellings that are that name.
        let controls: Vec<Probe> = ["www.example.com", "WWW.Example.COM", "www.example.com."]
            .into_iter()
            .flat_map(|host| WAYS.map(|way| Probe::reached(way, host.as_bytes(), 80)))
            .chain([Probe::reached(
                Way::Socks,
                "ｗｗｗ.example.com".as_bytes(),
                80,
            )])
            .collect();
        let came = attempt(lab, sandbox, &controls);
        assert_eq!(
            requests_at(&came, WEB),
            controls.len(),
            "the control: {came:#?}"
        );
    });
}

#[test]
fn no_name_leads_to_an_address_that_no_public_host_has() {
    if !is_inside("egress_names::no_name_leads_to_an_address_that_no_public_host_has") {
        return;
    }
    let lab = Lab::start();
    let inside = [
        "both.example.com",
        "both-v6.example.com",
        "alias-private.example.com",
        "private.example.com",
        "cgnat.example.com",
        "loopback.example.com",
        "loopback-v6.example.com",
        "zero.example.com",
        "mapped.example.com",
        "nat64.example.com",
        "metadata.example.com",
        "metadata-v6.example.com",
        "metadata.google.internal",
        "neighbor.example.com",
        "own.example.com",
        "host.docker.internal",
    ];
    let probes: Vec<Probe> = inside
        .into_iter()
        .flat_map(|name| {
            WAYS.map(|way| Probe::refused(way, name.as_bytes(), 80, "private_address"))
        })
        .collect();
    everywhere_in(
        &lab,
        "names that lead inside",
        &[(DEFAULT, WIDE)],
        |lab, sandbox| {
            let came = attempt(lab, sandbox, &probes);
            assert_eq!(at_addresses(&came).len(), 0, "{came:#?}");
            assert!(
                !came.is_empty(),
                "their addresses were asked for, and judged"
            );
            let controls = [
                Probe::reached(Way::Connect, b"alias.example.com", 80),
                Probe::reached(Way::Http, b"dual.example.com", 80),
                Probe::reached(Way::Socks, b"v6only.example.com", 80),
                Probe::reached(Way::Connect, b"v6only.example.com", 80),
            ];
            let came = attempt(lab, sandbox, &controls);
            assert!(
                has_request(&came, WEB, "alias.example.com"),
                "the control: {came:#?}"
            );
            assert!(
                has_request(&came, WEB_V6, "v6only.example.com"),
                "a host of IPv6 alone: {came:#?}"
            );
        },
    );
}

#[test]
fn what_the_operator_marks_is_reached_inside_and_a_metadata_service_not_even_then() {
    if !is_inside(
        "egress_names::what_the_operator_marks_is_reached_inside_and_a_metadata_service_not_even_then",
    ) {
        return;
    }
    let lab = Lab::start();
    let private = [
        (DEFAULT, WIDE),
        (
            PRIVATE,
            "private.example.com:80 metadata.example.com:80 metadata-v6.example.com:80",
        ),
    ];
    each_in(&lab, "private names", &private, |lab, sandbox| {
        let probes: Vec<Probe> = ["metadata.example.com", "metadata-v6.example.com"]
            .into_iter()
            .flat_map(|name| {
                WAYS.map(|way| Probe::refused(way, name.as_bytes(), 80, "private_address"))
            })
            .chain([Probe::reached(Way::Http, b"private.example.com", 80)])
            .collect();
        let came = attempt(lab, sandbox, &probes);
        assert!(
            has_request(&came, PRIVATE_HOST, "private.example.com"),
            "{came:#?}"
        );
        let at = [METADATA, METADATA_V6].map(|address| requests_at(&came, address));
        assert_eq!(at, [0, 0]);
    });
}

#[test]
fn a_name_that_changes_its_mind_leads_nowhere_else() {
    if !is_inside("egress_names::a_name_that_changes_its_mind_leads_nowhere_else") {
        return;
    }
    let lab = Lab::start();
    each_in(&lab, "rebinding", &[(DEFAULT, WIDE)], |lab, sandbox| {
        let name = format!("{:?}.{REBINDING}", sandbox.place).to_ascii_lowercase();
        // Public when it is judged for the first time, and what was judged is what is dialled from then on.
        let same = WAYS.map(|way| Probe::reached(way, name.as_bytes(), 80));
        let came = attempt(lab, sandbox, &same);
        assert_eq!(requests_at(&came, WEB), 3, "{came:#?}");
        let asked = came
            .iter()
            .filter(|event| matches!(event, Event::Asked { kind: 1, .. }));
        assert_eq!(asked.count(), 1, "it is looked up once: {came:#?}");
        // Another session judges it anew, and by now it is private.
        sandbox.renew();
        let other = WAYS.map(|way| Probe::refused(way, name.as_bytes(), 80, "private_address"));
        let came = attempt(lab, sandbox, &other);
        assert_eq!(at_addresses(&came).len(), 0, "{came:#?}");
        let host = attempt(
            lab,
            sandbox,
            &[Probe::reached(Way::Http, b"api.example.com", 80)],
        );
        assert_eq!(requests_at(&host, OTHER_WEB), 1, "the control: {host:#?}");
    });
}

fn requests_at(events: &[Event], address: &str) -> usize {
    let ip: std::net::IpAddr = address.parse().expect("an address");
    let at = |event: &&Event| matches!(event, Event::Requested { to, .. } if to.ip() == ip);
    events.iter().filter(at).count()
}
