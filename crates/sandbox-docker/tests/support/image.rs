//! An image made of the machine's own files, since there may be no registry: shells, coreutils, Perl and their libraries,
//! a program with the set-user-id bit, the C library that Claude Code needs, and a list of accounts.

use std::{fs::File, path::Path, process::Command};

use bollard::query_parameters::CreateImageOptionsBuilder;
use bytes::Bytes;
use futures::StreamExt;

use super::skip;

pub const ENGINE_SOCKET: &str = "/var/run/docker.sock";
/// The number changes with what the image is made of. It stays in the engine, for the next run.
pub const IMAGE: &str = "claude-code-mcp-test:5";
/// All that an image can say about how it is to be run; none of it may count.
pub const HOSTILE_CHANGES: &str = "\
    ENTRYPOINT [\"/bin/false\"]\n\
    CMD [\"/bin/false\"]\n\
    USER 0:0\n\
    WORKDIR /proc/self/fd/8\n\
    ENV LD_PRELOAD=/evil.so PATH=/evil\n\
    LABEL claude-code-mcp.session=s-00000000000000000000000000000000\n\
    HEALTHCHECK CMD /bin/false\n\
    ONBUILD RUN /bin/false\n\
    EXPOSE 80";
/// Prints the files of the image.
const FILES: &str = "for file in /bin/sh /bin/bash /usr/bin/perl /usr/bin/setsid /usr/bin/su \
        $(dpkg -L coreutils grep sed findutils dash | grep -E '^(/usr)?/s?bin/'); do \
    echo $file; ldd $file 2>/dev/null | grep -o '/[^ ]*'; done | sort -u; \
    ldconfig -p | grep -oE '/[^ ]*/(libc|libm|libdl|librt|libpthread)\\.so\\.[0-9]+$'; \
    for file in $(dpkg -L perl-base | grep /perl-base/); do test -d $file || echo $file; done";
/// Makes what is not the machine's own, and prints where.
const ACCOUNTS: &str = "root=$(mktemp -d); mkdir -p $root/etc/ssl/certs; \
    printf 'root:x:0:0::/root:/bin/sh\\nagent:x:1000:1000::/home/agent:/bin/sh\\nnobody:x:65534:65534::/:/bin/false\\n' \
    > $root/etc/passwd";

/// The machine's engine itself, past every filter.
pub fn engine() -> bollard::Docker {
    engine_at(Path::new(ENGINE_SOCKET))
}

/// The engine at that socket.
pub fn engine_at(socket: &Path) -> bollard::Docker {
    let version = bollard::ClientVersion {
        major_version: 1,
        minor_version: 41,
    };
    bollard::Docker::connect_with_unix(socket.to_str().unwrap(), 60, &version).unwrap()
}

/// Says loudly that there is no engine that this process may use as root.
pub async fn without_engine(leg: &str) -> bool {
    if !rustix::process::geteuid().is_root() {
        skip("docker", &format!("{leg}: not root"));
        return true;
    }
    let answers = Path::new(ENGINE_SOCKET).exists() && engine().ping().await.is_ok();
    if !answers {
        skip("docker", &format!("{leg}: no engine at {ENGINE_SOCKET}"));
    }
    !answers
}

/// Makes the image unless the machine's engine has it.
pub async fn make_image(name: &str, changes: &str) {
    import(Path::new(ENGINE_SOCKET), name, changes, "").await;
}

/// The same at another engine.
pub async fn make_image_at(socket: &Path, name: &str, changes: &str) {
    import(socket, name, changes, "").await;
}

/// Makes one in whose root these commands ran, unless the engine has it.
pub async fn make_image_from(socket: &Path, name: &str, commands: &str) {
    import(socket, name, "", commands).await;
}

async fn import(socket: &Path, name: &str, changes: &str, commands: &str) {
    // Tests run in processes of their own: one makes it, the others wait.
    let lock = File::create(std::env::temp_dir().join("claude-code-mcp-test-image.lock")).unwrap();
    lock.lock().unwrap();
    let engine = engine_at(socket);
    if engine.inspect_image(name).await.is_ok() {
        return;
    }
    let script = format!(
        "{ACCOUNTS}; archive=$(mktemp); ({FILES}) | sort -u | tar --create --file $archive --dereference --hard-dereference \
         --absolute-names --transform 's,^/,,' --files-from -; \
         cd $root; {commands}\n tar --append --file $archive --owner=0 --group=0 *; cat $archive; rm -r $root $archive"
    );
    let made = Command::new("bash").args(["-c", &script]).output().unwrap();
    assert!(
        made.stdout.len() > 1_000_000,
        "{}",
        String::from_utf8_lossy(&made.stderr)
    );
    let (repository, tag) = name.split_once(':').unwrap();
    let changes = changes.lines().map(str::to_owned).collect();
    let options = CreateImageOptionsBuilder::new()
        .from_src("-")
        .repo(repository)
        .tag(tag)
        .changes(changes)
        .build();
    let body = bollard::body_full(Bytes::from(made.stdout));
    let mut progress = Box::pin(engine.create_image(Some(options), Some(body), None));
    while let Some(step) = progress.next().await {
        step.unwrap();
    }
}
