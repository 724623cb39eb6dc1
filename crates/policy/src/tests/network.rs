//! What sessions may reach: never more than the operator's ceiling.

use std::collections::BTreeMap;

use model::{
    AnswerNetwork, AnsweredBy, EgressRule, NetworkPolicy, NetworkRequest, NetworkTarget, Reason,
    Refusal, WidenNetwork,
};
use proptest::prelude::*;

use super::fixture::*;
use crate::{
    MAX_NETWORK_RULES, NetworkConfig, OfferedCredential, Policy, PolicyConfig, PolicyError,
    Standing,
};

fn rule(text: &str) -> EgressRule {
    text.parse().unwrap()
}

fn rules(texts: &[&str]) -> Vec<EgressRule> {
    texts.iter().map(|text| rule(text)).collect()
}

fn presets() -> BTreeMap<String, Vec<EgressRule>> {
    [
        ("forge", rules(&["forge.example", "*.forge.example:22,443"])),
        ("index", rules(&["index.example", "files.index.example:80"])),
    ]
    .map(|(name, rules)| (name.to_owned(), rules))
    .into()
}

fn with(network: NetworkConfig) -> Result<Policy, PolicyError> {
    Policy::new(PolicyConfig {
        network: NetworkConfig {
            known_presets: presets(),
            ..network
        },
        ..config()
    })
}

/// Presets `forge`; rules `*.corp.example:80,443` and port 8443 of one host below; `index` everywhere.
fn ceiling() -> NetworkConfig {
    NetworkConfig {
        presets: vec!["forge".to_owned()],
        allow: rules(&["*.corp.example:80,443", "build.corp.example:8443"]),
        default: vec![
            Standing::Preset("index".to_owned()),
            Standing::Rule(rule("time.example:8080")),
        ],
        private: rules(&["registry.corp.example"]),
        ..NetworkConfig::default()
    }
}

fn decide(policy: &Policy, presets: &[&str], allow: &[&str]) -> Result<NetworkPolicy, Refusal> {
    ask(
        policy,
        NetworkRequest {
            presets: presets.iter().map(|name| (*name).to_owned()).collect(),
            allow: rules(allow),
            ..NetworkRequest::default()
        },
    )
}

fn ask(policy: &Policy, network: NetworkRequest) -> Result<NetworkPolicy, Refusal> {
    let mut asked = create(PROJECT);
    asked.network = network;
    let facts = facts(policy, PROJECT, &[]);
    let permit = policy.admit_create(&alice(), &asked, facts)?;
    Ok(permit.into_parts().network)
}

/// Name, rule, and a mark where it may lie at a private address.
fn told(network: &NetworkPolicy) -> Vec<String> {
    let one = |named: &model::NamedRule| {
        let mark = if named.rule.private { " private" } else { "" };
        format!("{} {}{mark}", named.name, named.rule)
    };
    network.rules.iter().map(one).collect()
}

#[test]
fn nothing_configured_is_nothing_allowed() {
    let policy = with(NetworkConfig::default()).unwrap();
    assert_eq!(decide(&policy, &[], &[]).unwrap(), NetworkPolicy::default());
    for (presets, allow, field) in [
        (&["forge"][..], &[][..], "network.presets[0]"),
        (&[], &["example.com"], "network.allow"),
    ] {
        let refusal = refused_as(
            decide(&policy, presets, allow),
            Reason::NetworkNotAllowed,
            field,
            "no ceiling",
        );
        assert!(
            refusal.message.contains("allowed are: nothing"),
            "{refusal:?}"
        );
        assert!(refusal.hint.contains("network_allow"), "{refusal:?}");
    }
    assert!(policy.network_ceiling().is_empty());
}

#[test]
fn what_is_asked_for_is_named_and_what_every_session_has_comes_first() {
    let policy = with(ceiling()).unwrap();
    let standing = [
        "index/1 index.example",
        "index/2 files.index.example:80",
        "default/1 time.example:8080",
    ];
    assert_eq!(told(&decide(&policy, &[], &[]).unwrap()), standing);
    let network = decide(
        &policy,
        &["forge", "index", "forge"],
        &["a.corp.example", "build.corp.example:8443,443"],
    );
    let asked = [
        "forge/1 forge.example",
        "forge/2 *.forge.example:22,443",
        "allow/1 a.corp.example",
        "allow/2 build.corp.example:8443,443",
    ];
    assert_eq!(told(&network.unwrap()), [&standing[..], &asked].concat());
}

#[test]
fn what_the_ceiling_does_not_cover_is_refused_with_its_name() {
    let policy = with(ceiling()).unwrap();
    for other in [
        "corp.example",
        "a.corp.example:22",
        "a.corp.example:80,22",
        "a.corp.example:8443",
        "*.corp.example:8443",
        "*.example.com",
        "badcorp.example",
        "forge.example:22",
    ] {
        let refusal = refused_as(
            decide(&policy, &[], &["b.corp.example", other]),
            Reason::NetworkNotAllowed,
            "network.allow",
            other,
        );
        for part in [other, "forge", "*.corp.example:80,443", "index.example"] {
            assert!(refusal.message.contains(part), "{part}: {refusal:?}");
        }
    }
    // Covered by a preset that may be asked for, or by what every session has.
    assert!(decide(&policy, &[], &["git.forge.example:22", "index.example"]).is_ok());
}

#[test]
fn a_preset_that_does_not_exist_is_told_apart_from_one_that_is_not_allowed() {
    let unknown = decide(&with(ceiling()).unwrap(), &["forge", "forgery"], &[]);
    let refusal = refused_as(
        unknown,
        Reason::InvalidArgument,
        "network.presets[1]",
        "unknown",
    );
    assert!(refusal.hint.contains("forge, index"), "{refusal:?}");
    let only_index = NetworkConfig {
        presets: vec!["index".to_owned()],
        ..NetworkConfig::default()
    };
    let known = decide(&with(only_index).unwrap(), &["forge"], &[]);
    let refusal = refused_as(
        known,
        Reason::NetworkNotAllowed,
        "network.presets[0]",
        "not allowed",
    );
    assert!(
        refusal.message.contains("allowed are: index"),
        "{refusal:?}"
    );
}

#[test]
fn private_addresses_are_the_operators_word_alone() {
    let policy = with(ceiling()).unwrap();
    let network = decide(&policy, &[], &["registry.corp.example", "a.corp.example"]).unwrap();
    assert_eq!(
        told(&network)[3..],
        [
            "allow/1 registry.corp.example private",
            "allow/2 a.corp.example"
        ]
    );
    // The part of a wider rule that the operator speaks of comes before it, and no port more.
    let network = decide(&policy, &[], &["*.corp.example:80,443"]).unwrap();
    assert_eq!(
        told(&network)[3..],
        [
            "allow/1 registry.corp.example private",
            "allow/1 *.corp.example:80,443"
        ]
    );
    let mut claimed = rule("registry.corp.example");
    claimed.private = true;
    let request = NetworkRequest {
        presets: Vec::new(),
        allow: vec![claimed],
        ..NetworkRequest::default()
    };
    refused_as(
        ask(&policy, request),
        Reason::NetworkNotAllowed,
        "network.allow",
        "a claim",
    );
}

#[test]
fn a_credential_is_had_by_who_asks_for_it_and_reaches_where_it_is_used() {
    let offered = |name: &str, host: &str, always| OfferedCredential {
        name: name.to_owned(),
        destinations: rules(&[host]),
        always,
    };
    let ceiling = NetworkConfig {
        credentials: vec![
            offered("forge", "git.forge.example", false),
            offered("corp", "a.corp.example", true),
        ],
        ..ceiling()
    };
    let policy = with(ceiling.clone()).unwrap();
    let asking = |names: &[&str], allow: &[&str]| {
        let request = NetworkRequest {
            allow: rules(allow),
            presets: vec!["forge".to_owned()],
            credentials: names.iter().map(|name| (*name).to_owned()).collect(),
        };
        ask(&policy, request)
    };
    assert_eq!(asking(&[], &[]).unwrap().credentials, [""; 0]);
    assert_eq!(asking(&["forge"], &[]).unwrap().credentials, ["forge"]);
    let always = asking(&[], &["*.corp.example"]).unwrap();
    assert_eq!(always.credentials, ["corp"]);
    assert!(always.opens_tls());
    let field = "network.credentials[0]";
    refused_as(
        asking(&["corp"], &[]),
        Reason::InvalidArgument,
        field,
        "not reached",
    );
    refused_as(
        asking(&["other"], &[]),
        Reason::NetworkNotAllowed,
        field,
        "unknown",
    );
    // What the operator offers no more is gone from sessions that had it.
    let decided = asking(&["forge"], &["a.corp.example"]).unwrap();
    assert_eq!(policy.network_within(&decided), decided);
    let fewer = with(NetworkConfig {
        credentials: vec![offered("corp", "a.corp.example", true)],
        ..ceiling.clone()
    });
    assert_eq!(
        fewer.unwrap().network_within(&decided).credentials,
        ["corp"]
    );
    assert_eq!(policy.network_told().credentials, ["forge", "corp"]);
    let wrong = with(NetworkConfig {
        credentials: vec![OfferedCredential {
            destinations: vec![EgressRule {
                paths: vec!["/../".to_owned()],
                ..rule("a.corp.example")
            }],
            ..offered("corp", "a.corp.example", true)
        }],
        ..ceiling
    });
    assert!(wrong.unwrap_err().to_string().contains("credentials"));
}

/// It named hosts, and the key of hosts.
#[test]
fn an_unknown_credential_is_refused_with_the_names_of_credentials_not_of_hosts() {
    let offered = |name: &str| OfferedCredential {
        name: name.to_owned(),
        destinations: rules(&["git.forge.example"]),
        always: false,
    };
    let refusal = |names: &[&str]| {
        let policy = with(NetworkConfig {
            credentials: names.iter().map(|name| offered(name)).collect(),
            ..ceiling()
        });
        let request = NetworkRequest {
            presets: vec!["forge".to_owned()],
            credentials: vec!["github".to_owned()],
            ..NetworkRequest::default()
        };
        ask(&policy.unwrap(), request)
    };
    let field = "network.credentials[0]";
    for (names, told) in [(&["forge", "corp"][..], "forge, corp"), (&[], "none")] {
        let refused = refused_as(
            refusal(names),
            Reason::NetworkNotAllowed,
            field,
            "unknown credential",
        );
        let message = format!("No credential `github` is configured; configured are: {told}.");
        assert_eq!(refused.message, message);
        assert!(
            refused.hint.contains("`[credentials.github]`"),
            "{refused:?}"
        );
        assert!(!refused.hint.contains("network_allow"), "{refused:?}");
    }
    // The control: one of that name.
    assert_eq!(refusal(&["github"]).unwrap().credentials, ["github"]);
}

#[test]
fn rules_that_make_no_sense_are_refused() {
    let policy = with(NetworkConfig {
        opens_tls: true,
        ..ceiling()
    })
    .unwrap();
    type Change = fn(&mut EgressRule);
    let table: [(&str, Change); 9] = [
        ("no port", |rule| rule.ports.clear()),
        ("port 0", |rule| rule.ports.push(0)),
        ("many ports", |rule| rule.ports = (1..=17).collect()),
        ("a method that is none", |rule| {
            rule.methods = vec!["get".to_owned()]
        }),
        ("a tunnel", |rule| rule.methods = vec!["CONNECT".to_owned()]),
        ("a relative path", |rule| rule.paths = vec!["a".to_owned()]),
        ("a path out of itself", |rule| {
            rule.paths = vec!["/a/../b".to_owned()]
        }),
        ("an escape", |rule| rule.paths = vec!["/a%2fb".to_owned()]),
        ("a query", |rule| rule.paths = vec!["/a?b".to_owned()]),
    ];
    let asked = |change: Change| {
        let mut rule = rule("a.corp.example");
        change(&mut rule);
        NetworkRequest {
            presets: Vec::new(),
            allow: vec![rule],
            ..NetworkRequest::default()
        }
    };
    for (what, change) in table {
        refused_as(
            ask(&policy, asked(change)),
            Reason::InvalidArgument,
            "network.allow",
            what,
        );
    }
    let narrow: Change = |rule| {
        rule.methods = vec!["GET".to_owned()];
        rule.paths = vec!["/simple/".to_owned()];
    };
    assert!(ask(&policy, asked(narrow)).is_ok());
    // Where TLS is not opened nobody could hold it.
    let closed = with(ceiling()).unwrap();
    refused_as(
        ask(&closed, asked(narrow)),
        Reason::InvalidArgument,
        "network.allow",
        "TLS is closed",
    );
    let many = NetworkRequest {
        presets: Vec::new(),
        allow: vec![rule("a.corp.example"); MAX_NETWORK_RULES + 1],
        ..NetworkRequest::default()
    };
    refused_as(
        ask(&policy, many),
        Reason::TooLarge,
        "network.allow",
        "many",
    );
}

#[test]
fn a_configuration_that_makes_no_sense_names_its_key() {
    let table = [
        (
            "network_presets",
            NetworkConfig {
                presets: vec!["forgery".to_owned()],
                ..ceiling()
            },
        ),
        (
            "network_default",
            NetworkConfig {
                default: vec![Standing::Preset("x".to_owned())],
                ..ceiling()
            },
        ),
        (
            "network_private",
            NetworkConfig {
                private: rules(&["registry.corp.example:22"]),
                ..ceiling()
            },
        ),
        (
            "network_private",
            NetworkConfig {
                private: rules(&["elsewhere.example"]),
                ..ceiling()
            },
        ),
    ];
    for (key, network) in table {
        let Err(PolicyError::Option { option, why }) = with(network) else {
            panic!("{key}")
        };
        assert_eq!(option, key, "{why}");
    }
}

#[test]
fn only_a_person_answers_and_a_yes_is_a_rule_for_that_host_and_port_within_the_ceiling() {
    // No configuration lets the calling model answer: the one that lets it answer Claude Code does not count.
    let policy = Policy::new(PolicyConfig {
        network: NetworkConfig {
            known_presets: presets(),
            ..ceiling()
        },
        caller_may_answer: true,
        ..config()
    })
    .unwrap();
    let answer = |by, host: &str, port, allow| {
        let asked = AnswerNetwork {
            session: SESSION,
            target: NetworkTarget {
                host: host.to_owned(),
                port,
            },
            allow,
            by,
        };
        let permit = policy.admit_network_answer(&alice(), &asked, Some(OWNER))?;
        Ok::<_, Refusal>(permit.into_parts().2)
    };
    let yes = answer(AnsweredBy::Person, "a.corp.example", 443, true).unwrap();
    let yes: Vec<_> = yes.unwrap().iter().map(ToString::to_string).collect();
    assert_eq!(yes, ["a.corp.example"]);
    let no = answer(AnsweredBy::Person, "example.com", 443, false).unwrap();
    assert_eq!(no, None);
    for allow in [true, false] {
        let refusal = refused(
            answer(AnsweredBy::Caller, "a.corp.example", 443, allow),
            "the model's word",
        );
        assert_eq!(refusal.reason, Reason::PolicyDenied);
    }
    for (host, port) in [("example.com", 443), ("a.corp.example", 22)] {
        refused_as(
            answer(AnsweredBy::Person, host, port, true),
            Reason::NetworkNotAllowed,
            "network.allow",
            "past the ceiling",
        );
    }
    for (host, port) in [
        ("*.corp.example", 443),
        ("10.0.0.1", 443),
        ("a.corp.example", 0),
        ("", 443),
    ] {
        refused_as(
            answer(AnsweredBy::Person, host, port, true),
            Reason::InvalidArgument,
            "target",
            "more or less than one host at one port",
        );
    }
}

#[test]
fn only_a_person_widens_and_only_up_to_the_ceiling() {
    let policy = with(ceiling()).unwrap();
    let widen = |by, allow: &[&str]| {
        let asked = WidenNetwork {
            session: SESSION,
            allow: rules(allow),
            by,
        };
        let permit = policy.admit_widen(&alice(), &asked, Some(OWNER))?;
        Ok::<_, Refusal>(permit.into_parts().1)
    };
    let added = widen(AnsweredBy::Person, &["registry.corp.example"]).unwrap();
    assert!(added.iter().all(|rule| rule.private) && added.len() == 1);
    let refusal = refused(
        widen(AnsweredBy::Caller, &["a.corp.example"]),
        "the model's word",
    );
    assert_eq!(refusal.reason, Reason::PolicyDenied);
    assert!(refusal.hint.contains("session allow"), "{refusal:?}");
    refused_as(
        widen(AnsweredBy::Person, &["example.com"]),
        Reason::NetworkNotAllowed,
        "network.allow",
        "past the ceiling",
    );
    refused_as(
        widen(AnsweredBy::Person, &[]),
        Reason::InvalidArgument,
        "network.allow",
        "nothing",
    );
}

#[test]
fn what_an_operator_takes_back_is_gone_from_earlier_decisions() {
    let before = with(ceiling()).unwrap();
    let decided = decide(
        &before,
        &["forge"],
        &["registry.corp.example", "a.corp.example:80,443"],
    );
    let decided = decided.unwrap();
    assert_eq!(before.network_within(&decided), decided);
    let after = with(NetworkConfig {
        allow: rules(&["*.corp.example"]),
        presets: Vec::new(),
        private: Vec::new(),
        ..ceiling()
    });
    let left = told(&after.unwrap().network_within(&decided));
    assert_eq!(
        left[3..],
        ["allow/1 registry.corp.example"],
        "public only; one port less is a rule less"
    );
    let nothing = with(NetworkConfig::default()).unwrap();
    assert_eq!(nothing.network_within(&decided), NetworkPolicy::default());
}

const HOSTS: [&str; 8] = [
    "example.com",
    "a.example.com",
    "b.a.example.com",
    "*.example.com",
    "*.a.example.com",
    "example.org",
    "*.example.org",
    "forge.example",
];
const PORTS: [u16; 4] = [22, 80, 443, 8443];

fn any_rule() -> impl Strategy<Value = EgressRule> {
    let ports = prop::sample::subsequence(PORTS.to_vec(), 1..=3);
    let methods = prop::sample::subsequence(vec!["GET", "POST"], 0..=2);
    let paths = prop::sample::subsequence(vec!["/a", "/a/b", "/c"], 0..=2);
    let text = |texts: Vec<&str>| texts.into_iter().map(str::to_owned).collect();
    (prop::sample::select(&HOSTS[..]), ports, methods, paths).prop_map(
        move |(host, ports, methods, paths)| EgressRule {
            host: host.parse().unwrap(),
            ports,
            methods: text(methods),
            paths: text(paths),
            private: false,
        },
    )
}

/// An oracle of its own: whether a request could pass, rule by rule.
fn passes(rule: &EgressRule, host: &str, port: u16, method: &str, path: &str) -> bool {
    rule.host.matches(host)
        && rule.ports.contains(&port)
        && (rule.methods.is_empty() || rule.methods.iter().any(|one| one == method))
        && (rule.paths.is_empty() || rule.paths.iter().any(|one| path.starts_with(one)))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_session_reaches_what_the_ceiling_does_not_allow(
        allow in prop::collection::vec(any_rule(), 0..4),
        private in prop::collection::vec(any_rule(), 0..2),
        default in prop::collection::vec(any_rule(), 0..2),
        asked in prop::collection::vec(any_rule(), 0..4),
        preset: bool,
    ) {
        let ceiling = NetworkConfig {
            presets: vec!["forge".to_owned()],
            allow: allow.clone(),
            default: default.iter().cloned().map(Standing::Rule).collect(),
            private: private.clone(),
            opens_tls: true,
            ..NetworkConfig::default()
        };
        let Ok(policy) = with(ceiling) else { return Ok(()) };
        let request = NetworkRequest {
            presets: preset.then(|| "forge".to_owned()).into_iter().collect(),
            allow: asked.clone(),
            ..NetworkRequest::default()
        };
        let all: Vec<EgressRule> = allow.into_iter().chain(default).chain(presets()["forge"].clone()).collect();
        let hosts = ["example.com", "a.example.com", "b.a.example.com", "x.example.com", "example.org", "y.example.org",
            "forge.example", "git.forge.example", "other.example"];
        match ask(&policy, request) {
            Ok(network) => {
                prop_assert_eq!(&policy.network_within(&network), &network, "what was decided now is within the ceiling now");
                for host in hosts {
                for port in PORTS {
                    for (method, path) in [("GET", "/a/b/c"), ("POST", "/a"), ("PUT", "/c"), ("GET", "/")] {
                        let within = |rule: &EgressRule| passes(rule, host, port, method, path);
                        for named in network.rules.iter().filter(|named| within(&named.rule)) {
                            prop_assert!(all.iter().any(within), "{named:?} lets {method} {host}:{port}{path} through");
                            let said = |rule: &EgressRule| rule.host.matches(host) && rule.ports.contains(&port);
                            prop_assert!(!named.rule.private || private.iter().any(said), "{named:?} at a private address");
                        }
                        let asked_for = asked.iter().any(within);
                        prop_assert!(!asked_for || network.rules.iter().any(|named| within(&named.rule)), "bent, not taken as asked");
                    }
                }
            }},
            Err(refusal) => {
                prop_assert_eq!(refusal.reason, Reason::NetworkNotAllowed);
                prop_assert!(!asked.is_empty());
            }
        }
    }
}
