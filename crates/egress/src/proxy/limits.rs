//! Limits on what a sandbox may hold open and how long it may take, the same for every session of a server.

use std::time::Duration;

/// Limits of the proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProxyLimits {
    /// Connections of a session in all: tunnels, requests, and those that have not said yet what they want.
    pub max_connections: usize,
    /// Tunnels and requests of a session that reach out at a time. Browsers open 6 to a host, cargo and npm about 16.
    pub max_tunnels: usize,
    /// Request line and headers together. curl's are about 200 bytes; cookies make them 8 KiB.
    pub max_head_bytes: usize,
    /// Until the head of a request, or a greeting, is whole; also how long a connection may idle between requests.
    pub head_timeout: Duration,
    /// From the opening of a tunnel to port 443, or from the first byte of TLS to another one, to the end of the ClientHello.
    pub hello_timeout: Duration,
    /// Without a byte in either direction. As long as the shortest keep-alive of common load balancers (350 s).
    pub idle_timeout: Duration,
    /// For the rest of one direction once the other has ended.
    pub linger_timeout: Duration,
    /// Bytes of all tunnels of the server that one side has sent and the other not yet taken. Past it, tunnels read in the
    /// smallest pieces.
    pub max_held_bytes: usize,
    /// Questions to the stub DNS that a session may ask in a second, on average. A build asks some tens.
    pub names_per_second: u32,
    /// How many of them at once.
    pub names_burst: u32,
}

impl Default for ProxyLimits {
    fn default() -> Self {
        ProxyLimits {
            max_connections: 256,
            max_tunnels: 64,
            max_head_bytes: 32 * 1024,
            head_timeout: Duration::from_secs(15),
            hello_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(350),
            linger_timeout: Duration::from_secs(60),
            max_held_bytes: 24 * 1024 * 1024,
            names_per_second: 50,
            names_burst: 200,
        }
    }
}
