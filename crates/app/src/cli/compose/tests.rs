//! Each rule both ways, the guide's own file, and ours.

use std::collections::{BTreeMap, BTreeSet};

use super::{document::Node, lint::lint, rules::RULES};

/// A service that breaks nothing, on which each row changes something.
const CLEAN: &str = "\
services:
  s:
    image: example/name:1.2
    user: '1000:1000'
    read_only: true
    cap_drop: [ALL]
    security_opt: ['no-new-privileges:true']
    mem_limit: 1g
    cpus: 1
    pids_limit: 100
    logging: {driver: local}
";

fn broken(text: &str) -> Vec<(&'static str, usize)> {
    let root = Node::parse(text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    let findings = lint(&root).unwrap_or_else(|error| panic!("{error}\n{text}"));
    findings
        .iter()
        .map(|found| (found.id, found.line))
        .collect()
}

fn ids(text: &str) -> BTreeSet<&'static str> {
    broken(text).into_iter().map(|(id, _)| id).collect()
}

/// The clean service with lines of its own in the place of those with the same key.
fn with(lines: &str) -> String {
    let (service, file) = lines.split_once("---\n").unwrap_or((lines, ""));
    let keys: Vec<&str> = service
        .lines()
        .filter(|line| !line.starts_with([' ', '-']))
        .filter_map(|line| line.split(':').next())
        .collect();
    let kept = CLEAN.lines().filter(|line| {
        let key = line.trim().split(':').next().unwrap_or_default();
        !keys.contains(&key)
    });
    let added = service.lines().map(|line| format!("    {line}"));
    let all: Vec<String> = kept.map(str::to_owned).chain(added).collect();
    format!("{}\n{file}", all.join("\n"))
}

/// What breaks the rule, and what looks similar and does not.
const ROWS: &[(&str, &[&str], &[&str])] = &[
    (
        "engine_socket",
        &[
            "volumes: ['/var/run/docker.sock:/var/run/docker.sock']",
            "volumes: ['/run/user/1000/podman/podman.sock:/x']",
            "volumes: ['/var//run/../run/docker.sock:/x:rw']",
            "volumes: [{type: bind, source: /run/containerd/containerd.sock, target: /x}]",
            "volumes: ['s:/x']\n---\nvolumes: {s: {driver_opts: {type: none, o: bind, device: /run/docker.sock}}}",
            "use_api_socket: true",
        ],
        &[
            "volumes: ['state:/var/run/docker.sock.d']",
            "use_api_socket: false",
        ],
    ),
    (
        "engine_socket_read_only",
        &[
            "volumes: ['/var/run/docker.sock:/var/run/docker.sock:ro']",
            "volumes: ['/var/run/docker.sock:/var/run/docker.sock:z,ro']",
            "volumes: [{type: bind, source: /run/docker.sock, target: /x, read_only: true}]",
        ],
        &[
            "volumes: ['/var/run/docker.sock:/var/run/docker.sock']",
            "volumes: ['./data:/data:ro']",
        ],
    ),
    (
        "engine_over_network",
        &[
            "environment: {DOCKER_HOST: 'tcp://engine:2375'}",
            "environment: ['DOCKER_HOST=tcp://engine:2376']",
            "ports: ['127.0.0.1:2375:2375']",
            "ports: [{target: 2376, host_ip: 127.0.0.1}]",
        ],
        &[
            "environment: {DOCKER_HOST: 'unix:///run/x'}",
            "ports: ['127.0.0.1:8080:80']",
        ],
    ),
    (
        "privileged",
        &[
            "privileged: true",
            "privileged: yes",
            "privileged: ${P}",
            "privileged: ${P:-true}",
            "post_start: [{command: x, privileged: true}]",
            "build: {context: ., privileged: true}",
        ],
        &[
            "privileged: false",
            "privileged: ${P:-false}",
            "privileged: !reset true",
        ],
    ),
    (
        "host_path",
        &[
            "volumes: ['/:/host']",
            "volumes: ['/:/host:ro']",
            "volumes: ['/etc:/x:ro']",
            "volumes: ['/var/run:/x']",
            "volumes: ['/home:/x']",
            "volumes: ['/home/someone:/x']",
            "volumes: ['/home/someone/.ssh:/x:ro']",
            "volumes: ['~:/x']",
            "volumes: ['~/.aws:/x:ro']",
            "volumes: ['${HOME}/.kube:/x:ro']",
            "volumes: ['/srv/../etc:/x']",
            "volumes: ['/etc/localtime:/etc/localtime']",
            "volumes: ['e:/x']\n---\nvolumes: {e: {driver_opts: {o: bind, device: /etc}}}",
        ],
        &[
            "volumes: ['/srv/project:/x', './data:/data', 'state:/state', '/anonymous', '~/src/app:/app']",
            "volumes: ['/etc/localtime:/etc/localtime:ro', '/etc/ssl/certs:/etc/ssl/certs:ro']",
        ],
    ),
    (
        "capability_added",
        &[
            "cap_add: [SYS_ADMIN]",
            "cap_add: [cap_net_raw]",
            "cap_add: [ALL]",
        ],
        &[
            "cap_add: [NET_BIND_SERVICE]",
            "cap_add: [CAP_NET_BIND_SERVICE]",
            "cap_add: []",
        ],
    ),
    (
        "host_network",
        &["network_mode: host"],
        &["network_mode: none", "networks: [host]"],
    ),
    (
        "host_namespace",
        &[
            "pid: host",
            "ipc: host",
            "uts: host",
            "cgroup: host",
            "userns_mode: host",
            "pid: 'container:other'",
            "network_mode: 'container:other'",
        ],
        &[
            "ipc: private",
            "cgroup: private",
            "network_mode: 'service:other'",
        ],
    ),
    (
        "device",
        &[
            "devices: ['/dev/sda:/dev/sda']",
            "devices: [{source: /dev/kvm, target: /dev/kvm}]",
            "device_cgroup_rules: ['b *:* rwm']",
        ],
        &["devices: []"],
    ),
    (
        "unconfined",
        &[
            "security_opt: ['no-new-privileges:true', 'seccomp:unconfined']",
            "security_opt: ['no-new-privileges:true', 'seccomp=unconfined']",
            "security_opt: ['no-new-privileges:true', 'apparmor=UNCONFINED']",
            "security_opt: ['no-new-privileges:true', 'label:disable']",
        ],
        &["security_opt: ['no-new-privileges:true', 'seccomp=./own.json', 'apparmor=own']"],
    ),
    (
        "unmasked_paths",
        &[
            "security_opt: ['no-new-privileges:true', 'systempaths=unconfined']\nuser: root",
            "security_opt: ['no-new-privileges:true', 'systempaths=unconfined']\ncap_drop: [NET_RAW]",
            "security_opt: ['systempaths=unconfined']",
        ],
        &["security_opt: ['no-new-privileges:true', 'systempaths=unconfined']"],
    ),
    (
        "published_everywhere",
        &[
            "ports: ['8080:80']",
            "ports: [80]",
            "ports: ['80/udp']",
            "ports: ['0.0.0.0:8080:80']",
            "ports: ['[::]:8080:80']",
            "ports: ['3000-3005:3000-3005']",
            "ports: [{target: 80, published: 8080}]",
            "ports: [{target: 80, host_ip: 0.0.0.0}]",
        ],
        &[
            "ports: ['127.0.0.1:8080:80/tcp', '[::1]:8080:80', '127.0.0.1::80', '192.168.1.5:80:80']",
            "ports: [{target: 80, published: 8080, host_ip: 127.0.0.1}]",
            "expose: [80]",
        ],
    ),
    (
        "secret_in_environment",
        &[
            "environment: {ANTHROPIC_API_KEY: sk-ant-x}",
            "environment: ['ANTHROPIC_API_KEY']",
            "environment: ['ANTHROPIC_API_KEY=${ANTHROPIC_API_KEY}']",
            "environment: {DB_PASSWORD: x}",
            "environment: {AWS_SECRET_ACCESS_KEY: x}",
            "environment: {ANYTHING: ghp_x}",
            "environment: {ANTHROPIC_AUTH_TOKEN: x}",
        ],
        &[
            "environment: {ANTHROPIC_API_KEY_FILE: /run/secrets/key, KEYBOARD: de, TOKENIZER: x, MONKEY: y}",
            "environment: {ANTHROPIC_API_KEY: ''}",
        ],
    ),
    (
        "internal_network",
        &[
            "networks: [n]\n---\nnetworks: {n: {internal: true}}",
            "networks: [n]\n---\nnetworks: {n: {driver: bridge, internal: yes}}",
            "networks: [n]\n---\nnetworks: {n: {internal: true, driver_opts: {com.docker.network.bridge.enable_icc: 'false'}}}",
            "networks: [n]\n---\nnetworks: {n: {internal: true, enable_ipv6: true, driver_opts: \
             {com.docker.network.bridge.enable_icc: 'false', com.docker.network.bridge.gateway_mode_ipv4: isolated}}}",
        ],
        &[
            "networks: [n]\n---\nnetworks: {n: {internal: false}}",
            "networks: [n]\n---\nnetworks: {n: {driver: bridge}}",
            "networks: [n]\n---\nnetworks: {n: {internal: true, driver_opts: \
             {com.docker.network.bridge.enable_icc: 'false', com.docker.network.bridge.gateway_mode_ipv4: isolated}}}",
        ],
    ),
    (
        "capabilities_kept",
        &[
            "cap_drop: []",
            "cap_drop: [NET_RAW]",
            "cap_drop: !reset [ALL]",
        ],
        &["cap_drop: [all]"],
    ),
    (
        "new_privileges",
        &[
            "security_opt: []",
            "security_opt: ['no-new-privileges:false']",
        ],
        &[
            "security_opt: [no-new-privileges]",
            "security_opt: ['no-new-privileges=true']",
        ],
    ),
    (
        "root_user",
        &[
            "user: ''",
            "user: root",
            "user: 0",
            "user: '0:1000'",
            "user: '00'",
        ],
        &["user: 1000", "user: agent"],
    ),
    (
        "writable_root",
        &[
            "read_only: false",
            "read_only: ''",
            "read_only: ${R:-false}",
        ],
        &["read_only: true"],
    ),
    (
        "no_memory_limit",
        &[
            "mem_limit: ''",
            "mem_limit: 0",
            "mem_limit: -1",
            "mem_limit: 0m",
        ],
        &["mem_limit: ''\ndeploy: {resources: {limits: {memory: 1g}}}"],
    ),
    (
        "no_cpu_limit",
        &["cpus: ''", "cpus: 0", "cpus: '0.0'"],
        &[
            "cpus: ''\ncpu_quota: 50000",
            "cpus: ''\ndeploy: {resources: {limits: {cpus: '0.5'}}}",
        ],
    ),
    (
        "no_process_limit",
        &["pids_limit: ''", "pids_limit: -1", "pids_limit: 0"],
        &["pids_limit: ''\ndeploy: {resources: {limits: {pids: 10}}}"],
    ),
    (
        "latest_tag",
        &[
            "image: name",
            "image: name:latest",
            "image: registry:5000/name",
            "image: name:${TAG:-latest}",
        ],
        &[
            "image: registry:5000/name:1",
            "image: 'name@sha256:0000000000000000000000000000000000000000000000000000000000000000'",
            "image: name\nbuild: .",
        ],
    ),
    (
        "not_seen",
        &[
            "extends: {service: other}",
            "env_file: .env",
            "volumes_from: [other]",
            "user: ${UID_OF_SOMEBODY}",
            "mem_limit: ${MEMORY:?say it}",
            "init: true\n---\ninclude: [other.yaml]",
        ],
        &[
            "command: ['echo', '$HOME']",
            "user: ${U:-1000}",
            "labels: {price: $5}",
        ],
    ),
    (
        "unlimited_log",
        &[
            "logging: {}",
            "logging: {driver: json-file}",
            "logging: {driver: json-file, options: {max-file: '3'}}",
        ],
        &[
            "logging: {options: {max-size: 10m}}",
            "logging: {driver: journald}",
            "logging: {driver: none}",
        ],
    ),
    (
        "obsolete_version",
        &["init: true\n---\nversion: '3.8'"],
        &["init: true\n---\nname: x"],
    ),
];

#[test]
fn every_rule_is_broken_and_kept() {
    assert_eq!(
        broken(CLEAN),
        [],
        "the service that rows change is not clean"
    );
    let rows: BTreeMap<_, _> = ROWS.iter().map(|(id, ..)| (*id, ())).collect();
    let rules: BTreeMap<_, _> = RULES.iter().map(|rule| (rule.id, ())).collect();
    assert_eq!(rows, rules, "a rule without a row, or a row without a rule");
    for (id, wrong, right) in ROWS {
        for lines in *wrong {
            assert!(
                ids(&with(lines)).contains(id),
                "{id} is not found in\n{}",
                with(lines)
            );
        }
        for lines in *right {
            assert!(
                !ids(&with(lines)).contains(id),
                "{id} is found in\n{}",
                with(lines)
            );
        }
    }
}

/// `rule()` answers for an id that is not in the list with one that says so: none may ever come out.
#[test]
fn no_finding_names_a_rule_that_is_not_there() {
    let source = [
        include_str!("lint.rs"),
        include_str!("service.rs"),
        include_str!("mounts.rs"),
    ]
    .concat();
    for rule in RULES {
        assert!(
            source.contains(&format!("\"{}\"", rule.id)),
            "{} is never found",
            rule.id
        );
        assert!(rule.why.len() > 40 && !rule.fix.is_empty(), "{}", rule.id);
    }
    let order: Vec<_> = RULES.iter().map(|rule| rule.severity).collect();
    assert!(order.is_sorted_by(|a, b| a >= b), "the worst come first");
    let all = ROWS.iter().flat_map(|(_, wrong, _)| wrong.iter());
    for lines in all {
        assert!(!ids(&with(lines)).contains("unknown_rule"), "{lines}");
    }
}

#[test]
fn the_guides_file_has_exactly_this() {
    let guide = include_str!("../../../../../tests/e2e/guide-compose.yaml");
    assert_eq!(
        broken(guide),
        [
            ("obsolete_version", 2),
            ("capabilities_kept", 4),
            ("new_privileges", 4),
            ("no_cpu_limit", 4),
            ("no_memory_limit", 4),
            ("no_process_limit", 4),
            ("root_user", 4),
            ("writable_root", 4),
            ("unlimited_log", 4),
            ("latest_tag", 5),
            ("engine_socket", 9),
            ("engine_socket_read_only", 9),
            ("internal_network", 14),
        ]
    );
}

#[test]
fn ours_has_nothing() {
    let ours = include_str!("../../../../../deploy/compose.yaml");
    assert_eq!(broken(ours), []);
    // The control: each line that protects is missed when it is not there.
    let mut missed = 0;
    for line in ours.lines() {
        let protects = [
            "user:",
            "read_only:",
            "cap_drop:",
            "mem_limit:",
            "cpus:",
            "pids_limit:",
            "- no-new-privileges",
        ];
        if protects
            .iter()
            .any(|start| line.trim_start().starts_with(start))
        {
            missed += 1;
            assert_ne!(broken(&ours.replacen(line, "", 1)), [], "without {line:?}");
        }
    }
    assert_eq!(missed, 7);
}

#[test]
fn a_finding_does_not_show_a_secret() {
    let text = with("environment: {ANTHROPIC_API_KEY: sk-ant-canary, X: ghp_canary}");
    let findings = lint(&Node::parse(&text).unwrap()).unwrap();
    assert_eq!(findings.len(), 2);
    assert!(!serde_json::to_string(&findings).unwrap().contains("canary"));
}

#[test]
fn what_is_no_compose_file_is_refused() {
    for text in [
        "a: b",
        "- a",
        "services: []",
        "services: {}",
        "services: {a: b}",
        "text",
    ] {
        assert!(lint(&Node::parse(text).unwrap()).is_err(), "{text}");
    }
}
