//! T1.4, C2: requests that two readers could understand in two ways, other protocols, other ports, other paths, and requests
//! behind requests.

use serde_json::{Value, json};

use crate::{
    support::lab::{
        Event, Lab,
        addresses::{EVIL, OTHER_WEB, WEB},
        is_inside,
    },
    way_out::{
        ALLOW, DEFAULT, Probe, Way, at_addresses, attempt, bytes, each_in, everywhere_in,
        has_request,
    },
};

const RULES: &str = "www.example.com:80,443,8080,22,25,2375,6443 api.example.com:80";

/// A request to the host that is allowed, with these lines, which is refused by its form.
fn form(lines: &str, code: &'static str) -> Probe {
    let request =
        format!("GET http://www.example.com/ HTTP/1.1\r\nHost: www.example.com\r\n{lines}\r\n");
    whole(&request, code)
}

fn whole(request: &str, code: &'static str) -> Probe {
    let perl = format!("http({})", bytes(request));
    Probe::denied(
        &request.escape_debug().to_string(),
        perl,
        &format!("refused {code}"),
        code,
    )
}

/// Requests on one connection, and what the answers are.
fn several(requests: &[&str], told: &str, code: Option<&'static str>) -> Probe {
    let what = requests.concat().escape_debug().to_string();
    let perl = format!("http({})", bytes(requests.concat()));
    match code {
        Some(code) => Probe::denied(&what, perl, told, code),
        None => Probe::allowed(&what, perl, told),
    }
}

#[test]
fn no_request_is_understood_in_two_ways() {
    if !is_inside("egress_http::no_request_is_understood_in_two_ways") {
        return;
    }
    let lab = Lab::start();
    let many = "X: y\r\n".repeat(101);
    let mut probes = vec![
        // How long its body is.
        form("Content-Length: 5\r\nContent-Length: 6\r\n", "bad_request"),
        form("Content-Length: 5\r\nContent-Length: 5\r\n", "bad_request"),
        form("Content-Length: 5, 5\r\n", "bad_request"),
        form("Content-Length: +5\r\n", "bad_request"),
        form("Content-Length: 0x5\r\n", "bad_request"),
        form(
            "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            "bad_request",
        ),
        form(
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            "bad_request",
        ),
        form("Transfer-Encoding: chunked, identity\r\n", "bad_request"),
        form("Transfer-Encoding: xchunked\r\n", "bad_request"),
        form("Transfer-Encoding : chunked\r\n", "bad_request"),
        form(
            "Transfer-Encoding: chunked\r\n , identity\r\n",
            "bad_request",
        ),
        form("Transfer-Encoding:\u{b}chunked\r\n", "bad_request"),
        // Where its lines end.
        form("X: y\nHost: evil.example.org\r\n", "bad_request"),
        form("X: y\rHost: evil.example.org\r\n", "bad_request"),
        form("X: y\0z\r\n", "bad_request"),
        form(" folded: y\r\n", "bad_request"),
        form(&many, "bad_request"),
        // For which host it is.
        form("Host: www.example.com\r\n", "bad_request"),
        form("Host: evil.example.org\r\n", "bad_request"),
        whole(
            "GET http://www.example.com/ HTTP/1.1\r\n\r\n",
            "bad_request",
        ),
        whole(
            "GET http://www.example.com/ HTTP/1.1\r\nHost: evil.example.org\r\n\r\n",
            "host_mismatch",
        ),
        whole(
            "GET http://www.example.com/ HTTP/1.1\r\nHost: api.example.com\r\n\r\n",
            "host_mismatch",
        ),
        whole(
            "GET http://www.example.com/ HTTP/1.1\r\nHost: www.example.com:8080\r\n\r\n",
            "host_mismatch",
        ),
        whole(
            "GET http://www.example.com/ HTTP/1.1\r\nHost: \r\n\r\n",
            "host_mismatch",
        ),
        whole(
            "CONNECT www.example.com:443 HTTP/1.1\r\nHost: evil.example.org:443\r\n\r\n",
            "host_mismatch",
        ),
        whole(
            "GET http://user:word@www.example.com/ HTTP/1.1\r\nHost: www.example.com\r\n\r\n",
            "bad_request",
        ),
        whole(
            "GET http://www.example.com@evil.example.org/ HTTP/1.1\r\nHost: evil.example.org\r\n\r\n",
            "bad_name",
        ),
        // What is no request to a proxy.
        whole(
            "GET / HTTP/1.1\r\nHost: www.example.com\r\n\r\n",
            "bad_request",
        ),
        whole(
            "GET https://www.example.com/ HTTP/1.1\r\nHost: www.example.com\r\n\r\n",
            "bad_request",
        ),
        whole(
            "GET ftp://www.example.com/ HTTP/1.1\r\nHost: www.example.com\r\n\r\n",
            "bad_request",
        ),
        whole(
            "GET file:///etc/passwd HTTP/1.1\r\nHost: www.example.com\r\n\r\n",
            "bad_request",
        ),
        whole(
            "OPTIONS * HTTP/1.1\r\nHost: www.example.com\r\n\r\n",
            "bad_request",
        ),
        whole(
            "CONNECT www.example.com:443 HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello",
            "bad_request",
        ),
        whole("CONNECT www.example.com HTTP/1.1\r\n\r\n", "bad_request"),
        whole(
            "GET http://www.example.com/ HTTP/2.0\r\nHost: www.example.com\r\n\r\n",
            "bad_request",
        ),
        whole("GET http://www.example.com/\r\n\r\n", "bad_request"),
        whole("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "bad_request"),
        whole(
            "\r\n\r\nGET http://www.example.com/ HTTP/1.1\r\nHost: www.example.com\r\n\r\n",
            "bad_request",
        ),
        whole("\u{16}\u{3}\u{1}\0\u{5}", "bad_request"),
        // Another protocol.
        form(
            "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n",
            "upgrade",
        ),
        form(
            "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: AAAA\r\n",
            "upgrade",
        ),
        form("Connection: keep-alive,upgrade\r\n", "upgrade"),
        form("Upgrade: TLS/1.0\r\n", "upgrade"),
        whole(
            "GET http://www.example.com:443/ HTTP/1.1\r\nHost: www.example.com:443\r\n\r\n",
            "not_tls",
        ),
    ];
    // Ports that no rule has, and those that a rule alone does not open.
    for port in [1, 23, 53, 81, 853, 3128, 8443, 25, 2375, 6443] {
        probes.extend(
            [Way::Connect, Way::Http, Way::Socks]
                .map(|way| Probe::refused(way, b"www.example.com", port, "port_not_allowed")),
        );
    }
    each_in(&lab, "requests", &[(DEFAULT, RULES)], |lab, sandbox| {
        assert_eq!(attempt(lab, sandbox, &probes), [], "not even a question");
        let post = "POST http://www.example.com/a HTTP/1.1\r\nHost: www.example.com\r\nConnection: close\r\n";
        let controls = [
            several(
                &[
                    "GET http://www.example.com:8080/ HTTP/1.1\r\nHost: www.example.com:8080\r\nConnection: close\r\n\r\n",
                ],
                "200",
                None,
            ),
            several(&[post, "Content-Length: 5\r\n\r\nhello"], "200", None),
            several(
                &[
                    post,
                    "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
                ],
                "200",
                None,
            ),
            several(
                &["GET http://www.example.com/ HTTP/1.0\r\n\r\n"],
                "200",
                None,
            ),
            // The rule has that port, and somebody takes the connection.
            Probe::allowed("ssh", "tunnel('www.example.com:22')".to_owned(), "open"),
        ];
        let came = attempt(lab, sandbox, &controls);
        let at_ssh = |event: &&Event| matches!(event, Event::Connected { to } if to.port() == 22);
        assert_eq!(came.iter().filter(at_ssh).count(), 1, "{came:#?}");
        let requested = came
            .iter()
            .filter(|event| matches!(event, Event::Requested { .. }));
        assert_eq!(requested.count(), 4, "the control: {came:#?}");
    });
}

#[test]
fn no_request_comes_in_the_shade_of_another_one() {
    if !is_inside("egress_http::no_request_comes_in_the_shade_of_another_one") {
        return;
    }
    let lab = Lab::start();
    let first = "GET http://www.example.com/first HTTP/1.1\r\nHost: www.example.com\r\n\r\n";
    let evil = "GET http://evil.example.org/ HTTP/1.1\r\nHost: evil.example.org\r\n\r\n";
    let disguised = "GET http://www.example.com/ HTTP/1.1\r\nHost: evil.example.org\r\n\r\n";
    let tunnel = "CONNECT evil.example.org:443 HTTP/1.1\r\nHost: evil.example.org:443\r\n\r\n";
    let body = |rest: &str| {
        format!(
            "POST http://www.example.com/body HTTP/1.1\r\nHost: www.example.com\r\nConnection: close\r\n{rest}"
        )
    };
    let chunk = format!("{:x}\r\n{evil}\r\n0\r\n\r\n", evil.len());
    let refused = |perl: String, told: &str, code| Probe::denied(&perl, perl.clone(), told, code);
    // What is said in a tunnel is the host's that the tunnel leads to, whatever it is: an answer, but nobody else's.
    let within = |words: &str| format!("tunnel('www.example.com:8080', {})", bytes(words));
    let probes = [
        several(
            &[first, evil],
            "200, refused host_not_allowed",
            Some("host_not_allowed"),
        ),
        several(
            &[first, disguised],
            "200, refused host_mismatch",
            Some("host_mismatch"),
        ),
        several(
            &[first, tunnel],
            "200, refused bad_request",
            Some("bad_request"),
        ),
        several(
            &[
                &body("Content-Length: 0\r\n\r\n").replace("Connection: close\r\n", ""),
                evil,
            ],
            "200, refused host_not_allowed",
            Some("host_not_allowed"),
        ),
        // The proxy by itself, and by the names of the machine that it is on.
        refused(
            "tunnel('127.0.0.1:3128')".to_owned(),
            "refused raw_address",
            "raw_address",
        ),
        refused(
            "tunnel('localhost:3128')".to_owned(),
            "refused host_not_allowed",
            "host_not_allowed",
        ),
        refused(
            "socks('localhost', 1080)".to_owned(),
            "refused 2",
            "host_not_allowed",
        ),
        // SOCKS offers nothing else than CONNECT.
        refused(udp_associate(), "refused 7", "unsupported"),
    ];
    let harmless = [
        several(
            &[&body(&format!(
                "Content-Length: {}\r\n\r\n{evil}",
                evil.len()
            ))],
            "200",
            None,
        ),
        several(
            &[&body(&format!("Transfer-Encoding: chunked\r\n\r\n{chunk}"))],
            "200",
            None,
        ),
        Probe::allowed(
            "CONNECT through CONNECT",
            within(&(tunnel.to_owned() + &crate::way_out::plain("evil.example.org"))),
            "open, 200",
        ),
        Probe::allowed(
            "absolute form in a tunnel",
            within(&evil.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n")),
            "open, 200",
        ),
    ];
    everywhere_in(
        &lab,
        "requests behind requests",
        &[(DEFAULT, RULES)],
        |lab, sandbox| {
            for probes in [&probes[..], &harmless[..]] {
                let came = attempt(lab, sandbox, probes);
                let elsewhere: Vec<_> = at_addresses(&came)
                    .into_iter()
                    .filter(|event| event.address() != WEB.parse().ok())
                    .collect();
                assert_eq!(elsewhere.len(), 0, "{elsewhere:#?}");
                assert!(!lab.log.has_reached(EVIL));
            }
            // One connection may ask for several hosts, and each request arrives at its own.
            let other = "GET http://api.example.com/other HTTP/1.1\r\nHost: api.example.com\r\nConnection: close\r\n\r\n";
            let came = attempt(lab, sandbox, &[several(&[first, other], "200, 200", None)]);
            assert!(has_request(&came, WEB, "www.example.com"), "{came:#?}");
            assert!(
                has_request(&came, OTHER_WEB, "api.example.com"),
                "{came:#?}"
            );
        },
    );
}

fn udp_associate() -> String {
    let words = bytes(b"\x05\x01\x00\x05\x03\x00\x01\x08\x08\x08\x08\x00\x35");
    format!(
        "my $s = at(1080); put($s, {words}); 'refused ' . ord substr(hear($s, qr/^.{{12}}/s), 3, 1)"
    )
}

#[test]
fn no_spelling_of_a_path_gets_around_a_rule() {
    if !is_inside("egress_http::no_spelling_of_a_path_gets_around_a_rule") {
        return;
    }
    let lab = Lab::start();
    let request = |line: &str| {
        format!("{line} HTTP/1.1\r\nHost: www.example.com\r\nConnection: close\r\n\r\n")
    };
    let mut probes: Vec<Probe> = [
        "/secret",
        "/publicity",
        "/PUBLIC/x",
        "/public",
        "//public/x",
        "/./public/x",
        "/x/../public/y",
        "/public/../secret",
        "/public/./../secret",
        "/public/%2e%2e/secret",
        "/public/.%2E/secret",
        "/public/..%2fsecret",
        "/public%2fx",
        "/public/..%5csecret",
        "/public/..\\secret",
        "/public/..;/secret",
        "/public/;x=1/secret",
        "/public/%252e%252e/secret",
        "/public/%00/secret",
        "/public//secret",
        "/public/x%3f",
        "/public/x%23",
        "/secret?/public/",
        "/secret/public/",
    ]
    .into_iter()
    .map(|path| {
        whole(
            &request(&format!("GET http://www.example.com{path}")),
            "path_not_allowed",
        )
    })
    .collect();
    probes.extend(["POST", "PUT", "DELETE", "get"].map(|method| {
        whole(
            &request(&format!("{method} http://www.example.com/public/x")),
            "method_not_allowed",
        )
    }));
    // A tunnel is opened to see what the rule speaks of, and what is to be opened is TLS.
    for open in [
        "tunnel('www.example.com:80', ",
        "socks('www.example.com', 80, ",
    ] {
        let perl = format!("{open}{})", bytes(crate::way_out::plain("www.example.com")));
        probes.push(Probe::denied(
            open,
            perl,
            "open, refused not_tls",
            "not_tls",
        ));
    }
    let rules: Value = json!({ "network": { "rules": [
        { "host": "www.example.com", "ports": [80], "methods": ["GET", "HEAD"], "paths": ["/public/"] },
    ] } });
    each_in(
        &lab,
        "paths",
        &[(ALLOW, "www.example.com:80")],
        |lab, sandbox| {
            sandbox.renew_with(rules.clone());
            assert_eq!(attempt(lab, sandbox, &probes), [], "not even a question");
            let controls = [
                "/public/",
                "/public/x/y?z=../%2e",
                "/public/a%20b",
                "/public/.hidden",
            ]
            .map(|path| {
                several(
                    &[&request(&format!("GET http://www.example.com{path}"))],
                    "200",
                    None,
                )
            });
            let came = attempt(lab, sandbox, &controls);
            let paths: Vec<&str> = came
                .iter()
                .filter_map(|event| {
                    let Event::Requested { path, .. } = event else {
                        return None;
                    };
                    Some(path.as_str())
                })
                .collect();
            assert_eq!(
                paths,
                [
                    "/public/",
                    "/public/x/y?z=../%2e",
                    "/public/a%20b",
                    "/public/.hidden"
                ]
            );
        },
    );
}
