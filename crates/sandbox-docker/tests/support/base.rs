//! A base for images, made of the tests' own image.

use bollard::query_parameters::BuildImageOptionsBuilder;
use bytes::Bytes;
use futures::StreamExt;

use super::image::{engine, make_image};

/// The tests' own image without its hostile settings, which keep anything from being built on it.
const PLAIN_IMAGE: &str = "claude-code-mcp-test-plain:3";

/// A base that has all that is needed, with a user and an entry point that must not count, made in a second.
pub async fn make_base(name: &str) {
    make_image(PLAIN_IMAGE, "").await;
    let dockerfile = format!(
        "FROM {PLAIN_IMAGE}\nENV LD_PRELOAD= PATH=/usr/bin:/bin\nADD root /\nENTRYPOINT [\"/bin/false\"]\nUSER 1234\n"
    );
    let program = "#!/bin/sh\necho a stub\n";
    let mut context = tar::Builder::new(Vec::new());
    for (path, content) in [
        ("Dockerfile", dockerfile.as_str()),
        ("root/usr/bin/git", program),
        ("root/usr/bin/rg", program),
        ("root/usr/bin/python3", program),
        ("root/etc/ssl/certs/ca-certificates.crt", "none"),
        (
            "root/etc/passwd",
            "root:x:0:0::/:/bin/sh\nnode:x:1000:1000::/:/bin/sh\n",
        ),
        ("root/etc/group", "root:x:0:\nnode:x:1000:\n"),
    ] {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o755);
        context
            .append_data(&mut header, path, content.as_bytes())
            .unwrap();
    }
    let body = bollard::body_full(Bytes::from(context.into_inner().unwrap()));
    let options = BuildImageOptionsBuilder::new()
        .t(name)
        .forcerm(true)
        .build();
    let engine = engine();
    let mut said = engine.build_image(options, None, Some(body));
    while let Some(said) = said.next().await {
        said.unwrap();
    }
}
