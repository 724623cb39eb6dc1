//! A tree into and out of a sandbox, beside `tar | tar` of the same tree between the same kinds of file system: the
//! project's and a tmpfs.

use std::{
    fs,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use serde_json::json;

use crate::{
    report::{Bound, Report, Row, Samples},
    support::{Client, Machine, User},
};

const ROUNDS: usize = 5;
const SMALL_FILES: usize = 2_000;
const LARGE_FILE_BYTES: usize = 200_000_000;

pub fn measure(report: &mut Report) {
    let user = if rustix::process::geteuid().is_root() {
        User::Root
    } else {
        User::Ordinary
    };
    let mut machine = Machine::new(user);
    machine
        .set("CLAUDE_CODE_MCP_LIMIT_TEMPORARY", "1g")
        .set("CLAUDE_CODE_MCP_LIMIT_MEMORY", "2g")
        .set("CLAUDE_CODE_MCP_IDLE_EXIT_SECONDS", "60");
    let trees = machine.project.join("trees");
    small_files(&trees.join("small"));
    large_file(&trees.join("large"));
    small_files(&trees.join("both/small"));
    large_file(&trees.join("both/large"));
    let memory = tempfile::tempdir_in("/dev/shm").expect("a directory in memory");
    let mut bench = Bench {
        client: machine.client(),
        session: String::new(),
        machine,
        memory: memory.path().to_owned(),
    };
    bench.session = bench.client.create(&bench.machine.project);
    bench.tree(
        report,
        "both",
        "2,000 small files and 200 MB",
        Some(Bound::AtLeast(0.8)),
    );
    bench.tree(report, "small", "2,000 small files", None);
    bench.tree(report, "large", "one file of 200 MB", None);
    bench.client.destroy(&bench.session);
}

struct Bench {
    client: Client,
    session: String,
    machine: Machine,
    memory: std::path::PathBuf,
}

impl Bench {
    fn tree(&mut self, report: &mut Report, tree: &str, what: &str, promise: Option<Bound>) {
        let source = self.machine.project.join("trees").join(tree);
        let megabytes = megabytes(&source);
        let [mut into, mut into_tar, mut out, mut out_tar] = [(); 4].map(|()| Samples::default());
        for round in 0..=ROUNDS {
            let copy = self.memory.join("copy");
            let (ours, theirs) = alternate(
                round,
                self,
                |bench| bench.transfer("to_container", &source, Path::new("/tmp/copy")),
                |_| tar(&source, &copy),
            );
            let (fetched, unpacked) = (
                self.machine.project.join("fetched"),
                self.machine.base().join("unpacked"),
            );
            let (ours_out, theirs_out) = alternate(
                round,
                self,
                |bench| bench.transfer("from_container", Path::new("/tmp/copy"), &fetched),
                |_| tar(&copy, &unpacked),
            );
            self.client.output(&self.session, "rm -rf /tmp/copy");
            for directory in [&copy, &fetched, &unpacked] {
                fs::remove_dir_all(directory).expect("removed");
            }
            // The first round warms up.
            if round > 0 {
                into.push(megabytes / ours.as_secs_f64());
                into_tar.push(megabytes / theirs.as_secs_f64());
                out.push(megabytes / ours_out.as_secs_f64());
                out_tar.push(megabytes / theirs_out.as_secs_f64());
            }
        }
        for (direction, ours, theirs) in [("into", into, into_tar), ("out of", out, out_tar)] {
            let mut row = Row::new(format!("files {direction} a sandbox: {what}"), "MB/s", ours)
                .peer("tar \\| tar", &theirs);
            if let Some(bound) = promise {
                row = row.ratio_promise(bound);
            }
            report.add(row);
        }
    }

    fn transfer(&mut self, direction: &str, source: &Path, destination: &Path) -> Duration {
        let arguments = json!({
            "sessionId": self.session, "direction": direction, "sourcePath": source, "destPath": destination,
        });
        let started = Instant::now();
        self.client
            .tool("transfer_files", arguments)
            .expect("a transfer");
        started.elapsed()
    }
}

/// Ours and theirs, each first in every other round, and with nothing left to be written back before.
fn alternate(
    round: usize,
    bench: &mut Bench,
    ours: impl FnOnce(&mut Bench) -> Duration,
    theirs: impl FnOnce(&mut Bench) -> Duration,
) -> (Duration, Duration) {
    rustix::fs::sync();
    if round.is_multiple_of(2) {
        let ours = ours(bench);
        rustix::fs::sync();
        (ours, theirs(bench))
    } else {
        let theirs = theirs(bench);
        rustix::fs::sync();
        (ours(bench), theirs)
    }
}

fn tar(source: &Path, destination: &Path) -> Duration {
    fs::create_dir(destination).expect("a directory");
    let started = Instant::now();
    let status = Command::new("sh")
        .args(["-c", "tar -C \"$1\" -cf - . | tar -C \"$2\" -xf -", "sh"])
        .args([source, destination])
        .status();
    let elapsed = started.elapsed();
    assert!(status.is_ok_and(|status| status.success()));
    elapsed
}

fn small_files(directory: &Path) {
    for index in 0..SMALL_FILES {
        let directory = directory.join(format!("package-{}", index % 50));
        fs::create_dir_all(&directory).expect("a directory");
        // Up to 8 KiB, as source files are.
        let content = vec![b'a' + (index % 26) as u8; index * 37 % 8_192];
        fs::write(directory.join(format!("file-{index}.rs")), content).expect("a file");
    }
}

fn large_file(directory: &Path) {
    fs::create_dir_all(directory).expect("a directory");
    let mut state = 1_u64;
    let content: Vec<u8> = (0..LARGE_FILE_BYTES / 8)
        .flat_map(|_| {
            // Marsaglia's xorshift: bytes that nothing compresses.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()
        })
        .collect();
    fs::write(directory.join("data.bin"), content).expect("a file");
}

fn megabytes(directory: &Path) -> f64 {
    let bytes: u64 = crate::support::walk(directory)
        .iter()
        .filter_map(|path| fs::metadata(path).ok())
        .filter(fs::Metadata::is_file)
        .map(|metadata| metadata.len())
        .sum();
    bytes as f64 / 1e6
}
