//! Who is where. Hosts of the fake internet have addresses of the real one's shape, and nothing else of it.

/// The machine of the program under test.
pub const HOST: &str = "192.168.50.2";
pub const HOST_V6: &str = "fd50::2";
/// The way out of it.
pub const ROUTER: &str = "192.168.50.1";
pub const ROUTER_V6: &str = "fd50::1";
/// Somebody else on the machine's own network.
pub const NEIGHBOR: &str = "192.168.50.77";

/// Answers questions about names, and so do its well-known likes.
pub const RESOLVER: &str = "8.8.8.8";
/// A second one, which also speaks DNS over TLS and HTTPS.
pub const OTHER_RESOLVER: &str = "1.1.1.1";

pub const WEB: &str = "93.184.216.34";
pub const OTHER_WEB: &str = "93.184.216.35";
pub const WEB_V6: &str = "2606:2800:220:1::34";
pub const EVIL: &str = "185.199.108.66";
/// Where the DNS tunnel ends.
pub const TUNNEL: &str = "45.76.1.1";

pub const METADATA: &str = "169.254.169.254";
pub const METADATA_ECS: &str = "169.254.170.2";
pub const METADATA_ALIBABA: &str = "100.100.100.200";
pub const METADATA_V6: &str = "fd00:ec2::254";
pub const PRIVATE: &str = "10.0.0.5";
pub const PRIVATE_172: &str = "172.17.0.1";
pub const PRIVATE_192: &str = "192.168.1.1";
pub const CGNAT: &str = "100.64.0.5";
pub const ULA: &str = "fd12:3456::5";

/// All that the internet's side has beside the router's.
pub const ALL: [&str; 16] = [
    RESOLVER,
    OTHER_RESOLVER,
    WEB,
    OTHER_WEB,
    WEB_V6,
    EVIL,
    TUNNEL,
    NEIGHBOR,
    METADATA,
    METADATA_ECS,
    METADATA_ALIBABA,
    METADATA_V6,
    PRIVATE,
    PRIVATE_172,
    PRIVATE_192,
    CGNAT,
];

/// Names, and what a question for addresses finds. `!` begins another name, which the first is an alias of.
pub const ZONE: &[(&str, &[&str])] = &[
    ("www.example.com", &[WEB]),
    ("api.example.com", &[OTHER_WEB]),
    ("git.example.com", &[WEB]),
    ("pypi.example.com", &[WEB]),
    ("crates.example.com", &[WEB]),
    ("deb.example.com", &[WEB]),
    ("dual.example.com", &[WEB, WEB_V6]),
    ("v6only.example.com", &[WEB_V6]),
    ("alias.example.com", &["!www.example.com"]),
    // Certificates that are none.
    ("expired.example.com", &[WEB]),
    ("wrong-name.example.com", &[WEB]),
    ("self-signed.example.com", &[WEB]),
    // Names that lead where nobody may go.
    ("both.example.com", &[WEB, PRIVATE]),
    ("both-v6.example.com", &[WEB, METADATA_V6]),
    ("alias-private.example.com", &["!inner.example.com"]),
    ("inner.example.com", &[PRIVATE]),
    ("private.example.com", &[PRIVATE]),
    ("cgnat.example.com", &[CGNAT]),
    ("loopback.example.com", &["127.0.0.1"]),
    ("loopback-v6.example.com", &["::1"]),
    ("zero.example.com", &["0.0.0.0"]),
    ("mapped.example.com", &["::ffff:169.254.169.254"]),
    ("nat64.example.com", &["64:ff9b::a9fe:a9fe"]),
    ("metadata.example.com", &[METADATA]),
    ("metadata-v6.example.com", &[METADATA_V6]),
    ("metadata.google.internal", &[METADATA]),
    ("neighbor.example.com", &[NEIGHBOR]),
    ("own.example.com", &[HOST]),
    ("host.docker.internal", &[HOST]),
    // Not on anybody's list.
    ("evil.example.org", &[EVIL]),
    ("dns.example.org", &[OTHER_RESOLVER]),
];

/// A name that is public when it is asked for the first time, and private from then on; so is each name below it.
pub const REBINDING: &str = "rebinding.example.com";
/// Names below it are a tunnel's.
pub const TUNNEL_ZONE: &str = "t.example.org";
