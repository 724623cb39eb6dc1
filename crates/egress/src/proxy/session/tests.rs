use std::{io, net::IpAddr};

use async_trait::async_trait;
use model::{EgressRule, NetworkPolicy};
use tokio::net::TcpListener;

use super::*;
use crate::{
    destination::{ReachLimits, Resolve},
    proxy::Recording,
};

fn ask(host: &str, port: u16, http: Option<(&str, &str)>) -> Ask {
    Ask {
        way: Way::Http,
        host: HostName::parse(host.as_bytes()).unwrap(),
        port,
        http: http.map(|(method, path)| Spoken {
            method: method.parse().unwrap(),
            path: path.to_owned(),
            is_overridden: false,
        }),
        credential: None,
    }
}

fn rules(rules: &[(&str, &[&str], &[&str])]) -> RuleSet {
    let named = rules
        .iter()
        .enumerate()
        .map(|(index, (text, methods, paths))| {
            let owned = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
            NamedRule {
                name: format!("allow/{index}"),
                rule: EgressRule {
                    methods: owned(methods),
                    paths: owned(paths),
                    ..text.parse().unwrap()
                },
            }
        });
    RuleSet::new(NetworkPolicy {
        rules: named.collect(),
        ..NetworkPolicy::default()
    })
}

fn code(rules: &RuleSet, ask: &Ask) -> &'static str {
    judge(rules, ask).map_or_else(|denial| denial.code(), |_| "ok")
}

#[test]
fn methods_and_paths_of_plain_http() {
    let rules = rules(&[
        ("a.example:80", &["GET", "HEAD"], &["/pub/"]),
        ("a.example:80", &["POST"], &[]),
    ]);
    for (method, path, expected) in [
        ("GET", "/pub/a", "ok"),
        ("HEAD", "/pub/a/b", "ok"),
        ("POST", "/any", "ok"),
        ("GET", "/private", "path_not_allowed"),
        ("GET", "/", "path_not_allowed"),
        ("get", "/pub/a", "method_not_allowed"),
        ("DELETE", "/pub/a", "method_not_allowed"),
        // Ways around.
        ("GET", "/pub/../private", "path_not_allowed"),
        ("GET", "/pub/./a", "path_not_allowed"),
        ("GET", "/pub/%2e%2E/private", "path_not_allowed"),
        ("GET", "/pub/..%2fprivate", "path_not_allowed"),
        ("GET", "/pub/%252e", "path_not_allowed"),
        ("GET", "/pub//private", "path_not_allowed"),
        ("GET", "/pub/..;/private", "path_not_allowed"),
        ("GET", "/pub/\\..\\private", "path_not_allowed"),
        ("GET", "/PUB/a", "path_not_allowed"),
    ] {
        let ask = ask("a.example", 80, Some((method, path)));
        assert_eq!(code(&rules, &ask), expected, "{method} {path}");
    }
}

#[test]
fn what_cannot_be_looked_into_is_no_way_around_a_rule_that_looks() {
    let looking = rules(&[("a.example:80,443", &["GET"], &[])]);
    assert_eq!(code(&looking, &ask("a.example", 443, None)), "unsupported");
    assert_eq!(code(&looking, &ask("a.example", 80, None)), "unsupported");
    let both = rules(&[
        ("a.example:443", &["GET"], &[]),
        ("a.example:443", &[], &[]),
    ]);
    assert_eq!(code(&both, &ask("a.example", 443, None)), "ok");
    // In clear at the port of TLS.
    assert_eq!(
        code(&both, &ask("a.example", 443, Some(("GET", "/")))),
        "not_tls"
    );
}

#[test]
fn what_is_recorded_can_be_read_and_holds_no_query() {
    let whole = ask("a.example", 80, Some(("PURGE", "/a")));
    let decision = Asked::Whole(&whole).decision();
    assert_eq!(
        (decision.host.as_str(), decision.method),
        ("a.example", Some("other"))
    );
    let written = Asked::Written(Way::Socks, &[b'a', 0, 0xff, b'\n', b'"'], Some(80)).decision();
    assert_eq!(
        (written.host.as_str(), written.port),
        (r#"a\x00\xff\n\""#, Some(80))
    );
    let long = Asked::Written(Way::Socks, &[b'a'; 300], None).decision();
    assert_eq!(long.host.len(), MAX_WRITTEN_CHARS);
}

/// Every name is here.
struct Here;

#[async_trait]
impl Resolve for Here {
    async fn resolve(&self, _host: &HostName) -> io::Result<Vec<IpAddr>> {
        Ok(vec![Ipv4Addr::LOCALHOST.into()])
    }
}

/// Has room for everything.
struct Patient;

impl Recorder for Patient {
    fn decided<'a>(&'a self, _session: SessionId, _decision: &'a Decision) -> Recording<'a> {
        Box::pin(async { Ok(Ticket(0)) })
    }

    fn ended(&self, _session: SessionId, _ticket: Ticket, _end: &TunnelEnd) {}
}

/// One rule for that port, which may lead to private addresses or not.
fn leading(port: u16, private: bool) -> RuleSet {
    let rule = EgressRule {
        private,
        ..format!("a.example:{port}").parse().unwrap()
    };
    RuleSet::new(NetworkPolicy {
        rules: vec![NamedRule {
            name: "allow/0".to_owned(),
            rule,
        }],
        ..NetworkPolicy::default()
    })
}

/// E4, A1: a connection is on record by its rule, as one that may lead to private addresses or as one that may not. When it is made
/// once more and a rule of the other kind stands there, it is another connection, which nobody has on record.
#[tokio::test]
async fn a_connection_is_not_made_once_more_by_a_rule_of_another_kind() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let limits = ProxyLimits::default();
    let session = SessionEgress::new(
        SessionId::from_bytes([7; 16]),
        leading(port, true),
        Reach::new(Arc::new(Here), ReachLimits::default()),
        None,
        Arc::new(Patient),
        &limits,
    );
    let admitted = session.admit(ask("a.example", port, None)).await.unwrap();
    let mut pass = admitted.pass;
    assert!(pass.was_private());
    assert!(pass.redial().await.is_ok(), "the control: the same kind");
    let code =
        |again: Result<TcpStream, Denial>| again.map_or_else(|denial| denial.code(), |_| "ok");
    // It led where everybody may go, and would lead into the house now.
    pass.was_private = false;
    assert_eq!(code(pass.redial().await), "unsupported");
    // The other way round.
    pass.was_private = true;
    session.replace_rules(leading(port, false));
    assert_eq!(code(pass.redial().await), "unsupported");
    session.replace_rules(leading(port, true));
    assert!(
        pass.redial().await.is_ok(),
        "the control: the same kind again"
    );
}
