#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use model::{EgressRule, HostPattern};
use proptest::prelude::*;

use super::*;

fn named(name: &str, text: &str) -> NamedRule {
    NamedRule {
        name: name.to_owned(),
        rule: text.parse().unwrap(),
    }
}

fn host(text: &str) -> HostName {
    HostName::parse(text.as_bytes()).unwrap()
}

fn set(rules: impl IntoIterator<Item = NamedRule>) -> RuleSet {
    RuleSet::new(NetworkPolicy {
        rules: rules.into_iter().collect(),
        ..NetworkPolicy::default()
    })
}

fn private(mut named: NamedRule) -> NamedRule {
    named.rule.private = true;
    named
}

#[test]
fn without_rules_nothing_is_reached() {
    let rules = RuleSet::default();
    assert_eq!(
        rules.find(&host("example.com"), 443),
        Err(Denial::NetworkOff)
    );
    assert!(!rules.names(&host("example.com")) && rules.is_empty());
}

#[test]
fn the_rule_that_names_host_and_port_is_found() {
    let rules = set([
        named("github/1", "github.com"),
        named("github/2", "*.githubusercontent.com"),
        named("allow/1", "example.com:80,8080"),
    ]);
    for (name, port, rule) in [
        ("github.com", 443, "github/1"),
        ("GITHUB.com.", 443, "github/1"),
        ("raw.githubusercontent.com", 443, "github/2"),
        ("a.b.githubusercontent.com", 443, "github/2"),
        ("example.com", 8080, "allow/1"),
    ] {
        assert_eq!(rules.find(&host(name), port).unwrap().name, rule, "{name}");
        assert!(rules.names(&host(name)));
    }
    for (name, port, code) in [
        ("githubusercontent.com", 443, "host_not_allowed"),
        ("github.com.evil.example", 443, "host_not_allowed"),
        ("evilgithub.com", 443, "host_not_allowed"),
        ("www.github.com", 443, "host_not_allowed"),
        ("gıthub.com", 443, "host_not_allowed"),
        ("github.com", 22, "port_not_allowed"),
        ("github.com", 80, "port_not_allowed"),
        ("example.com", 443, "port_not_allowed"),
    ] {
        let denial = rules.find(&host(name), port).unwrap_err();
        assert_eq!(denial.code(), code, "{name}:{port}");
    }
    let denial = rules.find(&host("example.com"), 443).unwrap_err();
    assert_eq!(denial.rule(), Some("allow/1"));
}

#[test]
fn guarded_ports_open_by_the_operators_word_alone() {
    for port in [25, 2375, 2376, 2379, 6443, 10250] {
        let text = format!("example.com:443,{port}");
        let callers = set([named("allow/1", &text)]);
        let denial = callers.find(&host("example.com"), port).unwrap_err();
        assert!(matches!(denial, Denial::GuardedPort { .. }), "{port}");
        assert_eq!(denial.code(), "port_not_allowed");
        assert!(callers.find(&host("example.com"), 443).is_ok());
        let operators = set([named("allow/1", &text), private(named("operator/1", &text))]);
        assert_eq!(
            operators.find(&host("example.com"), port).unwrap().name,
            "operator/1"
        );
        let elsewhere = set([private(named("operator/1", "example.com"))]);
        assert!(elsewhere.find(&host("example.com"), port).is_err());
    }
}

#[test]
fn of_several_rules_the_least_restricting_decides() {
    let mut reading = named("allow/1", "a.example.com");
    reading.rule.methods = vec!["GET".to_owned()];
    let mut other_paths = named("allow/2", "*.example.com");
    other_paths.rule.paths = vec!["/a/".to_owned()];
    let narrow = set([reading.clone(), other_paths.clone()]);
    let names: Vec<_> = narrow
        .matching(&host("a.example.com"), 443)
        .map(|named| named.name.as_str())
        .collect();
    assert_eq!(names, ["allow/1", "allow/2"]);
    let wide = set([
        reading,
        named("allow/3", "a.example.com"),
        private(named("operator/1", "a.example.com")),
        other_paths,
    ]);
    assert_eq!(
        wide.find(&host("a.example.com"), 443).unwrap().name,
        "operator/1"
    );
}

fn patterns() -> impl Strategy<Value = (bool, String)> {
    (any::<bool>(), "[ab]{1,2}(\\.[ab]{1,2}){1,3}")
}

fn rules() -> impl Strategy<Value = Vec<NamedRule>> {
    let ports = prop::sample::subsequence(vec![25, 80, 443, 2375], 1..4);
    let rule = (patterns(), ports, any::<bool>(), any::<bool>());
    prop::collection::vec(rule, 0..6).prop_map(|rules| {
        let named = |(place, ((below, name), ports, private, reading))| NamedRule {
            name: format!("allow/{place}"),
            rule: EgressRule {
                host: match below {
                    true => HostPattern::Below(name),
                    false => HostPattern::Exact(name),
                },
                ports,
                methods: if reading {
                    vec!["GET".to_owned()]
                } else {
                    Vec::new()
                },
                paths: Vec::new(),
                private,
            },
        };
        rules.into_iter().enumerate().map(named).collect()
    })
}

proptest! {
    /// A host is reached exactly if a rule names it and the port, and guarded ports only by a `private` one: written here
    /// without the code that is tested, label by label.
    #[test]
    fn what_no_rule_names_is_refused_and_what_is_denied_stays_denied(
        rules in rules(),
        (_, name) in patterns(),
        port in prop::sample::select(vec![22_u16, 25, 80, 443, 2375]),
    ) {
        let labels: Vec<&str> = name.split('.').collect();
        let means = |named: &NamedRule| match &named.rule.host {
            HostPattern::Exact(exact) => exact.split('.').collect::<Vec<_>>() == labels,
            HostPattern::Below(suffix) => {
                let suffix: Vec<&str> = suffix.split('.').collect();
                suffix.len() < labels.len() && labels.ends_with(&suffix)
            }
        };
        let guarded = [25, 2375].contains(&port);
        let allows = |named: &NamedRule| means(named) && named.rule.ports.contains(&port) && (named.rule.private || !guarded);
        let set = set(rules.clone());
        let host = host(&name);
        prop_assert_eq!(set.names(&host), rules.iter().any(means));
        match set.find(&host, port) {
            Ok(found) => prop_assert!(allows(found) && rules.contains(found)),
            Err(denial) => {
                prop_assert!(!rules.iter().any(allows));
                let code = match (rules.is_empty(), rules.iter().any(means)) {
                    (true, _) => "network_off",
                    (false, false) => "host_not_allowed",
                    (false, true) => "port_not_allowed",
                };
                prop_assert_eq!(denial.code(), code);
            }
        }
    }
}

#[test]
fn a_refusal_names_the_way_by_a_person_only_where_the_ceiling_has_the_host_and_the_port() {
    let session = model::SessionId::from_bytes([7; 16]);
    let ceiling = ["*.example.com:443,8443,2375", "forge.example"];
    let ceiling = ceiling.map(|text| text.parse().unwrap()).to_vec();
    let host = |name: &str| HostName::parse(name.as_bytes()).unwrap();
    let rule = NamedRule {
        name: "allow/1".to_owned(),
        rule: "a.example.com".parse().unwrap(),
    };
    let policy = NetworkPolicy {
        rules: vec![rule],
        ..NetworkPolicy::default()
    };
    let wishes = Arc::new(Wishes::new(std::time::Duration::from_secs(300), []));
    let with = RuleSet::new(policy).askable(Askable::new(session, ceiling, wishes.clone()));
    let told = |name: &str, port| with.find(&host(name), port).unwrap_err().to_string();
    let command = "claude-code-mcp session allow";
    assert!(told("b.example.com", 443).contains(command));
    assert!(told("a.example.com", 8443).contains(command));
    for (name, port) in [
        ("b.example.com", 80),
        ("a.example.com", 80),
        ("example.org", 443),
        // A guarded port stays shut without the operator's mark.
        ("a.example.com", 2375),
    ] {
        assert!(!told(name, port).contains(command), "{name}:{port}");
    }
    // A session without a rule is told, too, and else that it has none.
    let nothing = RuleSet::default();
    assert_eq!(
        nothing
            .find(&host("forge.example"), 443)
            .unwrap_err()
            .code(),
        "network_off"
    );
    let askable = Askable::new(
        session,
        vec!["forge.example".parse().unwrap()],
        wishes.clone(),
    );
    let told = nothing.askable(askable);
    let denial = told.find(&host("forge.example"), 443).unwrap_err();
    assert!(denial.to_string().contains(command) && denial.code() == "host_not_allowed");
}

#[test]
fn only_a_refusal_within_the_ceiling_becomes_a_question_and_looking_asks_nothing() {
    let session = model::SessionId::from_bytes([7; 16]);
    let ceiling = vec!["*.example.com".parse().unwrap()];
    let wishes = Arc::new(Wishes::new(std::time::Duration::from_secs(300), []));
    let rules = RuleSet::default().askable(Askable::new(session, ceiling, wishes.clone()));
    let refused = |name: &str, port| {
        let host = HostName::parse(name.as_bytes()).unwrap();
        rules.find(&host, port).unwrap_err()
    };
    let past = [
        refused("a.example.com", 80),
        refused("example.com", 443),
        refused("a.example.com.evil.example", 443),
        Denial::RawAddress,
    ];
    for denial in past {
        assert_eq!(rules.asked(denial.clone()), denial);
    }
    let within = refused("a.example.com", 443);
    assert_eq!(wishes.open(), []);
    assert!(rules.asked(within).to_string().contains("try again"));
    assert_eq!(wishes.open()[0].target.to_string(), "a.example.com:443");
    wishes.decline(wishes.open()[0].target.clone());
    let declined = refused("a.example.com", 443).to_string();
    assert!(declined.contains("a person said no"), "{declined}");
}
