//! How an attack is carried out: a session of a machine of its own, programs in it, and the same programs outside.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Output, Stdio},
};

use serde_json::{Value, json};

use crate::{
    place::{Place, places},
    support::{Client, Machine},
};

/// What every probe in Perl begins with, of which Debian's base has enough: names of errors, and system calls whose
/// arguments are copied, since the kernel may write to them.
pub const PRELUDE: &str = r#"
use strict; use Errno; use POSIX (); use Socket; use Fcntl qw(:mode :DEFAULT);
$| = 1;
my %names = map { Errno->can($_)->() => $_ } grep { $_ ne 'EWOULDBLOCK' } @Errno::EXPORT_OK;
sub err { $names{$! + 0} // ($! + 0) }
sub call { my ($n, @a) = @_; my $r = syscall($n, @a); $r == -1 ? err() : "ok" }
sub writes { open(my $f, ">", $_[0]) or return err(); (print $f "x" and close $f) ? "ok" : err() }
sub reads { open(my $f, "<", $_[0]) or return err(); defined(sysread($f, my $x, 4096)) ? "ok" : err() }
"#;

/// A session to attack from.
pub struct Sandbox {
    pub place: Place,
    pub machine: Machine,
    pub client: Client,
    pub session: String,
    /// What `create_session` answered.
    pub created: Value,
    /// Its further arguments.
    extra: Value,
}

/// What a program came to.
#[derive(Debug)]
pub struct Ran {
    pub code: i64,
    pub out: String,
    pub err: String,
    /// The execution as the tool shows it.
    pub all: Value,
}

/// Carries out an attack at each place, in a session with the profile's limits.
pub fn each(attack: impl Fn(&mut Sandbox)) {
    for place in places() {
        eprintln!("at {place:?}");
        attack(&mut Sandbox::new(place));
    }
}

impl Sandbox {
    pub fn new(place: Place) -> Self {
        Sandbox::on(place, place.machine(), json!({}))
    }

    /// A session on that machine's project with further arguments.
    pub fn on(place: Place, machine: Machine, extra: Value) -> Self {
        let mut client = machine.client();
        let created = create(&mut client, place, &machine, &extra);
        Sandbox {
            place,
            machine,
            client,
            session: id(&created),
            created,
            extra,
        }
    }

    /// Another session of the same kind in the place of this one.
    pub fn renew(&mut self) {
        self.destroy();
        self.created = create(&mut self.client, self.place, &self.machine, &self.extra);
        self.session = id(&self.created);
    }

    /// The same with other arguments.
    pub fn renew_with(&mut self, extra: Value) {
        self.extra = extra;
        self.renew();
    }

    /// Runs a program with arguments to its end.
    pub fn argv(&mut self, argv: &[&str], seconds: u64) -> Ran {
        let arguments = json!({
            "sessionId": self.session, "argv": argv, "waitSeconds": 40, "timeoutSeconds": seconds,
        });
        self.ran(arguments)
    }

    /// Runs a shell line to its end.
    pub fn sh(&mut self, line: &str) -> Ran {
        self.argv(&["/bin/sh", "-c", line], 30)
    }

    /// Standard output of a Perl probe that must run to its end.
    pub fn perl(&mut self, script: &str) -> String {
        let script = format!("{PRELUDE}{script}");
        let ran = self.argv(&["/usr/bin/perl", "-e", &script], 30);
        assert_eq!(ran.code, 0, "the probe is broken: {ran:#?}");
        ran.out
    }

    /// The same outside: as the machine's user, with all capabilities in namespaces of the probe's own.
    pub fn perl_unfiltered(&self, script: &str) -> String {
        let script = format!("{PRELUDE}{script}");
        let output = self
            .machine
            .command(Path::new("/usr/bin/unshare"))
            .args(["-Urmpfn", "--mount-proc", "/usr/bin/perl", "-e", &script])
            .stdin(Stdio::null())
            .output()
            .expect("unshare runs");
        text(&output)
    }

    /// The same on the host itself, as the machine's user: only for what is harmless.
    pub fn perl_outside(&self, script: &str) -> String {
        let script = format!("{PRELUDE}{script}");
        let output = self
            .machine
            .command(Path::new("/usr/bin/perl"))
            .args(["-e", &script])
            .stdin(Stdio::null())
            .output()
            .expect("perl runs");
        text(&output)
    }

    /// Starts a shell line and leaves it running.
    pub fn start(&mut self, line: &str) -> String {
        let arguments = json!({ "sessionId": self.session, "command": line, "waitSeconds": 0 });
        let started = self
            .client
            .tool("execute_command", arguments)
            .expect("an execution");
        started["executionId"].as_str().expect("its id").to_owned()
    }

    /// An execution, after at most some seconds or its end.
    pub fn look(&mut self, execution: &str, seconds: u64) -> Value {
        self.client
            .tool(
                "get_execution",
                json!({ "executionId": execution, "waitSeconds": seconds }),
            )
            .expect("an execution")
    }

    pub fn cancel(&mut self, execution: &str) -> Value {
        self.client
            .tool("cancel_execution", json!({ "executionId": execution }))
            .expect("cancelled")
    }

    pub fn ran(&mut self, arguments: Value) -> Ran {
        let all = self
            .client
            .tool("execute_command", arguments)
            .expect("an execution");
        let part = |name: &str| {
            all[name]["text"]
                .as_str()
                .unwrap_or_default()
                .trim_end()
                .to_owned()
        };
        Ran {
            code: all["exitCode"].as_i64().unwrap_or(-1),
            out: part("stdout"),
            err: part("stderr"),
            all: all.clone(),
        }
    }

    /// The session still takes commands, and quickly.
    pub fn still_works(&mut self) {
        let ran = self.sh("echo alive");
        assert_eq!(ran.out, "alive", "{ran:#?}");
    }

    /// One limit of the attestation: what is in force, and how strongly it holds.
    pub fn limit(&self, name: &str) -> (Option<u64>, String) {
        let limits = self.created["hardening"]["limits"]
            .as_array()
            .expect("limits");
        let found = limits
            .iter()
            .find(|limit| limit["limit"] == name)
            .expect("every limit is listed");
        let strength = found["enforcement"].as_str().expect("a strength");
        (found["inForce"].as_u64(), strength.to_owned())
    }

    pub fn destroy(&mut self) {
        let session = self.session.clone();
        self.client.destroy(&session);
    }
}

fn create(client: &mut Client, place: Place, machine: &Machine, extra: &Value) -> Value {
    let mut arguments = json!({ "projectPath": machine.project });
    if let (Some(arguments), Some(extra)) = (arguments.as_object_mut(), extra.as_object()) {
        arguments.extend(extra.clone());
    }
    let created = client.tool("create_session", arguments).expect("a session");
    place.confirm(&created);
    created
}

fn id(created: &Value) -> String {
    created["sessionId"].as_str().expect("its id").to_owned()
}

fn text(output: &Output) -> String {
    assert!(
        output.status.success(),
        "the control is broken: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout)
        .trim_end()
        .to_owned()
}

/// Files beyond this are compared by size and time.
const MAX_READ_BYTES: u64 = 1 << 20;

/// Every path below a directory with kind, mode, owner, size, content or target: two are equal when nothing was touched.
pub fn snapshot(directory: &Path) -> Vec<(PathBuf, String)> {
    use std::os::unix::fs::MetadataExt;
    let mut all: Vec<_> = crate::support::walk(directory)
        .into_iter()
        .filter_map(|path| {
            let found = fs::symlink_metadata(&path).ok()?;
            let content = if found.len() > MAX_READ_BYTES {
                format!("{} bytes, {}", found.len(), found.mtime())
            } else if found.is_file() {
                let bytes = fs::read(&path).unwrap_or_default();
                format!("{:x}", fnv(&bytes))
            } else if found.is_symlink() {
                format!("{:?}", fs::read_link(&path).ok()?)
            } else {
                String::new()
            };
            let line = format!(
                "{:o} {}:{} {} {content}",
                found.mode(),
                found.uid(),
                found.gid(),
                found.nlink()
            );
            Some((path, line))
        })
        .collect();
    all.sort();
    all
}

/// FNV-1a: enough to tell that nobody wrote to a file.
fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
