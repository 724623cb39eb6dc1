//! T1.4, C2: what happens to what is open when rules change, and when the server is killed.

use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::{
    probe::{PRELUDE, Sandbox},
    support::{
        lab::{Event, Lab, is_inside},
        until,
    },
    way_out::{ALLOW, DEFAULT, WAYS, arrived, denied, each_in, everywhere_in},
};

/// Opens a tunnel, waits for a file of that name, and says something in it.
const LASTING: &str = r#"
my $s = at(3128); put($s, "CONNECT www.example.com:8080 HTTP/1.1\r\n\r\n"); hear($s, $head) =~ / 200 / or die;
print "open\n"; select(undef, undef, undef, 0.05) until -e 'go-on';
print said($s, get('www.example.com'));
"#;

/// Asks for a page again and again, a new connection each time.
const RESTLESS: &str = r#"
print "begun\n"; my $until = time + 30;
while (time < $until && !-e 'enough') { my $told = eval { http("GET http://www.example.com:8080/ HTTP/1.1\r\n"
    . "Host: www.example.com:8080\r\nConnection: close\r\n\r\n") } // 'failed'; print "$told\n"; select(undef, undef, undef, 0.05) }
"#;

fn start(sandbox: &mut Sandbox, script: &str, name: &str) -> String {
    sandbox
        .machine
        .write(name, &format!("{PRELUDE}{WAYS}{script}"));
    let started = sandbox.start(&format!("/usr/bin/perl {name}"));
    until("it has begun", || !output(sandbox, &started, 0).is_empty());
    started
}

fn output(sandbox: &mut Sandbox, execution: &str, seconds: u64) -> String {
    let looked = sandbox.look(execution, seconds);
    looked["stdout"]["text"]
        .as_str()
        .unwrap_or_default()
        .trim_end()
        .to_owned()
}

fn ask(sandbox: &mut Sandbox, host: &str, port: u16) -> String {
    let probe = format!("print tunnel('{host}:{port}', get('{host}'))");
    sandbox.perl(&format!("{WAYS}{probe}"))
}

#[test]
fn a_wider_rule_holds_at_once_and_disturbs_no_tunnel() {
    if !is_inside("egress_changes::a_wider_rule_holds_at_once_and_disturbs_no_tunnel") {
        return;
    }
    let lab = Lab::start();
    let settings = [
        (DEFAULT, "www.example.com:8080"),
        (ALLOW, "api.example.com:80"),
    ];
    each_in(&lab, "widening", &settings, |lab, sandbox| {
        let lasting = start(sandbox, LASTING, "lasting.pl");
        assert_eq!(
            ask(sandbox, "api.example.com", 80),
            "refused host_not_allowed"
        );
        assert_eq!(denied(sandbox, 1), ["host_not_allowed"]);
        let words = [
            "session",
            "allow",
            sandbox.session.as_str(),
            "api.example.com:80",
        ];
        let widened = sandbox.machine.cli(&words);
        assert!(widened.status.success(), "{widened:?}");
        assert_eq!(ask(sandbox, "api.example.com", 80), "open, 200");
        assert_eq!(
            ask(sandbox, "api.example.com", 8080),
            "refused port_not_allowed"
        );
        arrived(lab);
        sandbox.machine.write("go-on", "");
        assert_eq!(sandbox.look(&lasting, 10)["stdout"]["text"], "open\n200");
        assert_eq!(
            arrived(lab).len(),
            1,
            "one request, on the connection of before"
        );
    });
}

#[test]
fn nothing_passes_while_the_server_is_dead_and_rules_that_were_taken_back_are_gone() {
    if !is_inside(
        "egress_changes::nothing_passes_while_the_server_is_dead_and_rules_that_were_taken_back_are_gone",
    ) {
        return;
    }
    let lab = Lab::start();
    let settings = [(DEFAULT, "www.example.com:8080 api.example.com:80")];
    everywhere_in(&lab, "a killed server", &settings, |lab, sandbox| {
        let lasting = start(sandbox, LASTING, "lasting.pl");
        let restless = start(sandbox, RESTLESS, "restless.pl");
        assert_eq!(ask(sandbox, "api.example.com", 80), "open, 200");
        assert!(!arrived(lab).is_empty(), "the control");
        let server = sandbox.machine.server_pid().expect("a server");
        kill_process(Pid::from_raw(server).expect("a pid"), Signal::KILL).expect("killed");
        until("it is dead", || sandbox.machine.server_pid().is_none());
        arrived(lab);
        std::thread::sleep(Duration::from_secs(1));
        assert_eq!(arrived(lab), [], "nobody is there to let it pass");

        sandbox.machine.set(DEFAULT, "www.example.com:8080");
        let begun = Instant::now();
        sandbox.client = sandbox.machine.client();
        until("requests arrive again", || {
            lab.log
                .all()
                .iter()
                .any(|event| matches!(event, Event::Requested { .. }))
        });
        // The session is taken up by the new server, with what its operator allows now.
        eprintln!("a way out again after {:?}", begun.elapsed());
        assert!(
            begun.elapsed() < Duration::from_secs(5),
            "{:?}",
            begun.elapsed()
        );
        until("the session is taken up", || {
            sandbox
                .client
                .tool(
                    "get_session",
                    serde_json::json!({ "sessionId": sandbox.session }),
                )
                .is_ok_and(|session| session["state"] == "busy")
        });
        assert_eq!(ask(sandbox, "www.example.com", 8080), "open, 200");
        assert_eq!(
            ask(sandbox, "api.example.com", 80),
            "refused host_not_allowed"
        );
        // The tunnel of before ended with its server.
        sandbox.machine.write("go-on", "");
        assert_eq!(sandbox.look(&lasting, 10)["stdout"]["text"], "open\nend");
        sandbox.machine.write("enough", "");
        let told = sandbox.look(&restless, 20)["stdout"]["text"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        let unexpected: Vec<&str> = told
            .lines()
            .filter(|line| !["begun", "200", "end", "failed"].contains(line))
            .collect();
        assert_eq!(unexpected, [""; 0], "{told}");
        assert!(told.trim_end().ends_with("200"), "{told}");
    });
}
