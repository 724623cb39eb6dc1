//! Files that the session brings, which the agent reads and cannot change.

use std::sync::Arc;

use model::{CERTIFICATES_DIRECTORY, CERTIFICATES_NAME, HOSTS, RESOLVER_CONFIGURATION};
use wire::Exit;

use super::{
    Harness, Verdict,
    output::expect_same,
    room::{Found, Room, attach, command, during, expect, in_session, script},
};

/// As long as the bundles that distributions ship.
const CERTIFICATES_BYTES: usize = 256 * 1024;
const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n";

pub(super) async fn resolver(room: Room) -> Result<Verdict, String> {
    let path = "/etc/resolv.conf";
    cannot_be_changed(&room, path, "/etc", RESOLVER_CONFIGURATION).await?;
    cannot_be_changed(&room, "/etc/hosts", "/etc", HOSTS).await?;
    Ok(Verdict::Kept)
}

pub(super) async fn certificates(harness: Arc<dyn Harness>) -> Result<Verdict, String> {
    let owner = Arc::clone(&harness);
    in_session(harness, |backend, mut spec| async move {
        let due = CERTIFICATE.repeat(CERTIFICATES_BYTES / CERTIFICATE.len());
        spec.certificates = Some(due.clone());
        let link = backend.create(&spec).await.map_err(during("creating"))?;
        let (supervisor, hello) = attach(link, super::room::LEASE).await?;
        let room = Room {
            backend,
            harness: owner,
            spec,
            supervisor,
            hello,
        };
        let path = format!("{CERTIFICATES_DIRECTORY}/{CERTIFICATES_NAME}");
        cannot_be_changed(&room, &path, CERTIFICATES_DIRECTORY, &due).await?;
        Ok(Verdict::Kept)
    })
    .await
}

/// It holds exactly that, before and after everything that the agent can try.
async fn cannot_be_changed(room: &Room, path: &str, directory: &str, due: &str) -> Found {
    holds(room, path, due).await?;
    // The control: where it may write, it does.
    let written = room.run(script("echo evil > /tmp/other")?).await?;
    expect(succeeded(&written), || {
        "nothing can be written at all".to_owned()
    })?;
    for attempt in [
        format!("echo evil > {path}"),
        format!("rm -f {path} && echo evil > {path}"),
        format!("mv /tmp/other {path}"),
        format!("chmod 777 {path} && echo evil > {path}"),
        format!("mv {directory} /tmp/taken"),
        format!("ln -s /tmp/other {directory}/more.pem"),
    ] {
        let tried = room.run(script(&attempt)?).await?;
        expect(!succeeded(&tried), || format!("{attempt} went through"))?;
    }
    holds(room, path, due).await
}

async fn holds(room: &Room, path: &str, due: &str) -> Found {
    let read = room.run(command(&["cat", path])?).await?;
    expect(succeeded(&read), || {
        format!("{path} cannot be read: {:?}", read.status.ended)
    })?;
    expect_same(path, &read.stdout, due.as_bytes())
}

fn succeeded(ran: &super::room::Ran) -> bool {
    ran.status
        .ended
        .is_some_and(|ended| ended.exit == Exit::Code(0))
}
