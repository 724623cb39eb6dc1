//! T1.4, C2: a tunnel is for the host that it was asked for: TLS in it names that host, in clear, and at port 443 nothing but
//! TLS is said.

use crate::{
    support::lab::{
        Event, Lab,
        addresses::{WEB, WEB_V6},
        is_inside,
    },
    way_out::{DEFAULT, Probe, attempt, everywhere_in},
};

const RULES: &str = "*.example.com:443,8443 api.example.org:443";

/// A ClientHello of TLS 1.2 byte by byte, since Perl's base knows no TLS.
const HELLO: &str = r#"
sub extension { my ($kind, $content) = @_; pack('n n/a*', $kind, $content) }
sub named { extension(0, pack('n/a*', join '', map { pack('C n/a*', 0, $_) } @_)) }
sub message { my ($extensions) = @_;
    my $all = $extensions . extension(10, pack('n/a*', pack('n*', 29, 23))) . extension(11, "\x01\x00")
        . extension(13, pack('n/a*', pack('n*', 0x0403, 0x0804)));
    my $body = "\x03\x03" . 'r' x 32 . "\0" . pack('n/a*', pack('n*', 0xc02b, 0xc02f)) . "\x01\x00" . pack('n/a*', $all);
    "\x01" . substr(pack('N', length $body), 1) . $body }
# Another ClientHello, encrypted (RFC 9849, section 5).
sub hidden { extension(0xfe0d, "\0" . pack('n n C', 1, 1, 7) . pack('n/a*', 'e' x 32) . pack('n/a*', 'p' x 64)) }
# The message in records of so many bytes.
sub records { my ($message, $size) = @_; join '', map { "\x16\x03\x01" . pack('n/a*', $_) } unpack("(a$size)*", $message) }
sub hello { records(message(@_ ? named(@_) : ''), 16000) }
"#;

/// What is said in a tunnel to a host at port 443, which is another matter than what the tunnel is for.
fn refused(what: &str, perl: &str, told: &str, code: &'static str) -> Probe {
    Probe::denied(
        what,
        format!("{HELLO} {perl}"),
        &format!("open, {told}"),
        code,
    )
}

fn allowed(what: &str, perl: &str) -> Probe {
    Probe::allowed(what, format!("{HELLO} {perl}"), "open, hello")
}

/// TLS's own words for it: unrecognized_name.
const ALERT: &str = "alert 112";

#[test]
fn tls_in_a_tunnel_is_for_its_host_and_at_port_443_there_is_nothing_else() {
    if !is_inside(
        "egress_tls::tls_in_a_tunnel_is_for_its_host_and_at_port_443_there_is_nothing_else",
    ) {
        return;
    }
    let lab = Lab::start();
    let mut probes = Vec::new();
    // By each way, at the port of HTTPS and at another one.
    for (way, open) in [
        ("CONNECT", "tunnel('www.example.com:443', "),
        ("CONNECT at 8443", "tunnel('www.example.com:8443', "),
        ("SOCKS", "socks('www.example.com', 443, "),
    ] {
        for (what, words, code) in [
            (
                "a host that is not allowed",
                "hello('evil.example.org')",
                "sni_mismatch",
            ),
            (
                "another host that is allowed",
                "hello('api.example.com')",
                "sni_mismatch",
            ),
            ("the suffix", "hello('example.com')", "sni_mismatch"),
            (
                "a longer name",
                "hello('www.example.com.evil.example.org')",
                "sni_mismatch",
            ),
            (
                "in pieces",
                "records(message(named('evil.example.org')), 7)",
                "sni_mismatch",
            ),
            (
                "byte by byte",
                "split(//, hello('evil.example.org'))",
                "sni_mismatch",
            ),
            ("no host", "hello()", "sni_missing"),
            (
                "a hidden host",
                "records(message(named('www.example.com') . hidden()), 16000)",
                "sni_missing",
            ),
        ] {
            probes.push(refused(
                &format!("{way}: {what}"),
                &format!("{open}{words})"),
                ALERT,
                code,
            ));
        }
    }
    let plain = "get('evil.example.org')";
    for (what, words) in [
        ("HTTP", plain),
        (
            "CONNECT through CONNECT",
            "\"CONNECT evil.example.org:443 HTTP/1.1\\r\\n\\r\\n\"",
        ),
        ("ssh", "\"SSH-2.0-OpenSSH_9.2\\r\\n\""),
        (
            "h2 without TLS",
            "\"PRI * HTTP/2.0\\r\\n\\r\\nSM\\r\\n\\r\\n\"",
        ),
        (
            "a hello of SSL 2",
            "\"\\x80\\x2e\\x01\\x03\\x01\" . 'x' x 45",
        ),
        (
            "a record that is no hello",
            "\"\\x17\\x03\\x03\\x00\\x05hello\"",
        ),
        ("a hello that is none", "\"\\x16\\x03\\x01\\x00\\x05hello\""),
    ] {
        let words = format!("tunnel('www.example.com:443', {words})");
        probes.push(refused(what, &words, "refused not_tls", "not_tls"));
    }
    everywhere_in(&lab, "tls", &[(DEFAULT, RULES)], |lab, sandbox| {
        let came = attempt(lab, sandbox, &probes);
        // The connection was made, and nothing was said in it.
        let said: Vec<_> = came
            .iter()
            .filter(|event| !matches!(event, Event::Asked { .. } | Event::Connected { .. }))
            .collect();
        assert_eq!(said.len(), 0, "{said:#?}");
        let elsewhere = came
            .iter()
            .filter_map(Event::address)
            .filter(|ip| Some(*ip) != WEB.parse().ok());
        assert_eq!(elsewhere.count(), 0, "{came:#?}");

        let controls = [
            allowed(
                "CONNECT",
                "tunnel('www.example.com:443', hello('www.example.com'))",
            ),
            allowed(
                "CONNECT at 8443",
                "tunnel('www.example.com:8443', hello('www.example.com'))",
            ),
            allowed(
                "SOCKS",
                "socks('www.example.com', 443, hello('www.example.com'))",
            ),
            allowed(
                "in pieces",
                "tunnel('www.example.com:443', records(message(named('www.example.com')), 7))",
            ),
            allowed(
                "byte by byte",
                "tunnel('www.example.com:443', split(//, hello('www.example.com')))",
            ),
            allowed(
                "IPv6 alone",
                "tunnel('v6only.example.com:443', hello('v6only.example.com'))",
            ),
        ];
        let came = attempt(lab, sandbox, &controls);
        let greeted = |address: &str, host: &str| {
            let is = |event: &&Event| {
                matches!(event, Event::Greeted { to, name: Some(name) }
                if Some(to.ip()) == address.parse().ok() && name == host)
            };
            came.iter().filter(is).count()
        };
        assert_eq!(greeted(WEB, "www.example.com"), 5, "the control: {came:#?}");
        assert_eq!(
            greeted(WEB_V6, "v6only.example.com"),
            1,
            "the control: {came:#?}"
        );
    });
}
