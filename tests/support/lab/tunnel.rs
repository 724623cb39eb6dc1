//! A tunnel through DNS: Debian's iodine, its end in the internet.

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use super::{
    Lab,
    addresses::{TUNNEL, TUNNEL_ZONE},
};
use crate::support::skip;

/// Address of the tunnel's end inside of it.
pub const INNER: &str = "10.99.0.1";
pub const PASSWORD: &str = "laboratory";
/// How long either end may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// The end of a tunnel, in the internet.
pub struct Tunnel(Child);

impl Tunnel {
    /// Starts it; `None`, said loudly, where iodine is not installed.
    pub fn start(lab: &Lab, leg: &str) -> Option<Self> {
        let installed = ["/usr/sbin/iodined", "/usr/sbin/iodine"].map(Path::new);
        if !installed.iter().all(|program| program.exists()) || !Path::new("/dev/net/tun").exists()
        {
            skip("iodine", &format!("{leg}: no iodine, or no /dev/net/tun"));
            return None;
        }
        let log = fs::File::create(lab.directory().join("iodined.log")).expect("a log");
        let end = lab
            .there("setpriv")
            .args(["--pdeathsig", "KILL", "/usr/sbin/iodined", "-f", "-c"])
            .args([
                "-l",
                TUNNEL,
                "-P",
                PASSWORD,
                "-d",
                "dns0",
                INNER,
                TUNNEL_ZONE,
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("iodined");
        let tunnel = Tunnel(end);
        let until = Instant::now() + PATIENCE;
        while Self::bytes(lab).is_none() {
            let said = fs::read_to_string(lab.directory().join("iodined.log")).unwrap_or_default();
            assert!(Instant::now() < until, "iodined does not start: {said}");
            std::thread::sleep(Duration::from_millis(20));
        }
        Some(tunnel)
    }

    /// Bytes that came out of it so far; `None` before it is there.
    pub fn bytes(lab: &Lab) -> Option<u64> {
        let shown = lab.there("cat").arg("/proc/net/dev").output().ok()?;
        let text = String::from_utf8_lossy(&shown.stdout).into_owned();
        let line = text
            .lines()
            .find_map(|line| line.trim().strip_prefix("dns0:").map(str::to_owned))?;
        line.split_whitespace().next()?.parse().ok()
    }

    /// A client as it is called: in the foreground, asking the resolver, no raw packets.
    pub fn client(resolver: &str) -> Vec<String> {
        let words = [
            "/usr/sbin/iodine",
            "-f",
            "-r",
            "-P",
            PASSWORD,
            "-d",
            "dns1",
            resolver,
            TUNNEL_ZONE,
        ];
        words.map(str::to_owned).to_vec()
    }

    /// Starts a client outside of all sandboxes and sends three packets through: the control.
    pub fn try_from_here(lab: &Lab) -> u64 {
        let words = Self::client(super::addresses::RESOLVER);
        let log = fs::File::create(lab.directory().join("iodine.log")).expect("a log");
        let mut client = Command::new("setpriv")
            .args(["--pdeathsig", "KILL"])
            .args(&words)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("iodine");
        let until = Instant::now() + PATIENCE;
        let mut moved = 0;
        while moved == 0 && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(100));
            // Any packet to the tunnel's network goes through it.
            if let Ok(socket) = std::net::UdpSocket::bind("0.0.0.0:0") {
                let _ = socket.send_to(b"through the tunnel", (INNER, 9));
            }
            moved = Self::bytes(lab).unwrap_or_default();
        }
        let _ = client.kill();
        let _ = client.wait();
        moved
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
