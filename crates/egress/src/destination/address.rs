//! What an address is, where it is not one that any host of the internet may have.
//!
//! From the registries of special-purpose addresses (IANA, RFC 6890 and after), read strictly: what is not plainly global and
//! unicast has a class, what carries an IPv4 address inside is judged by that too, and of IPv6 only `2000::/3` is global.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// Why an address is no public one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AddressClass {
    /// `0.0.0.0/8`, `::`: this machine to many programs.
    Unspecified,
    /// `127.0.0.0/8`, `::1`.
    Loopback,
    /// An address of the server's own machine. Only the machine knows: [`AddressClass::of`] never says so.
    OwnMachine,
    /// RFC 1918.
    Private,
    /// `100.64.0.0/10`, between a provider and its customers (RFC 6598).
    SharedSpace,
    /// `fc00::/7` (RFC 4193).
    UniqueLocal,
    /// `169.254.0.0/16`, `fe80::/10`, and the site-local addresses of old.
    LinkLocal,
    /// Where clouds hand out the credentials of machines.
    Metadata,
    /// To many.
    Multicast,
    /// `255.255.255.255`.
    Broadcast,
    /// For examples in texts.
    Documentation,
    /// `198.18.0.0/15`, `2001:2::/48`; names have their stand-in addresses inside from the former.
    Benchmarking,
    /// A public IPv4 address written as IPv6: `::ffff:0:0/96`, `::/96`.
    Mapped,
    /// A public IPv4 address behind a translator: `64:ff9b::/96`, `64:ff9b:1::/48`.
    Nat64,
    /// Tunnels through IPv4: `2002::/16`, and their relays at `192.88.99.0/24`.
    SixToFour,
    /// Tunnels through UDP: `2001::/32`.
    Teredo,
    /// Given to protocols, or to nobody.
    Reserved,
}

/// Addresses of metadata services that lie elsewhere than the link-local ones, and the latter where they are known. All of
/// `169.254.0.0/16` and `fe80::/10` is refused anyway.
const METADATA_V4: [Ipv4Addr; 6] = [
    // AWS, Google, Azure, Oracle, OpenStack, DigitalOcean and most others.
    Ipv4Addr::new(169, 254, 169, 254),
    // Credentials of tasks at Amazon ECS and of pods at EKS.
    Ipv4Addr::new(169, 254, 170, 2),
    Ipv4Addr::new(169, 254, 170, 23),
    // Alibaba Cloud.
    Ipv4Addr::new(100, 100, 100, 200),
    // Azure's wire server: a public address that only its machines see.
    Ipv4Addr::new(168, 63, 129, 16),
    // Oracle Cloud, before.
    Ipv4Addr::new(192, 0, 0, 192),
];

/// Prefixes of 32 bits: Amazon's services of a machine (metadata, credentials of pods, resolver), Google's, Oracle's, Scaleway's.
const METADATA_V6: [[u16; 2]; 4] = [
    [0xfd00, 0x0ec2],
    [0xfd20, 0x00ce],
    [0xfd00, 0x00c1],
    [0xfd00, 0x0042],
];

impl AddressClass {
    /// The class of an address; none: it is a public unicast one.
    pub fn of(address: IpAddr) -> Option<AddressClass> {
        match address {
            IpAddr::V4(address) => of_v4(address),
            IpAddr::V6(address) => of_v6(address),
        }
    }

    /// The stable name, for logs and tests.
    pub const fn name(self) -> &'static str {
        match self {
            AddressClass::Unspecified => "unspecified",
            AddressClass::Loopback => "loopback",
            AddressClass::OwnMachine => "own_machine",
            AddressClass::Private => "private",
            AddressClass::SharedSpace => "cgnat",
            AddressClass::UniqueLocal => "ula",
            AddressClass::LinkLocal => "link_local",
            AddressClass::Metadata => "metadata",
            AddressClass::Multicast => "multicast",
            AddressClass::Broadcast => "broadcast",
            AddressClass::Documentation => "documentation",
            AddressClass::Benchmarking => "benchmarking",
            AddressClass::Mapped => "mapped",
            AddressClass::Nat64 => "nat64",
            AddressClass::SixToFour => "6to4",
            AddressClass::Teredo => "teredo",
            AddressClass::Reserved => "reserved",
        }
    }

    /// Whether a rule that the operator marked `private` reaches such addresses. Of the others none is where a service of a
    /// company's network could lie, or what lies there hands out credentials.
    pub const fn opens_by_private(self) -> bool {
        match self {
            AddressClass::Loopback
            | AddressClass::OwnMachine
            | AddressClass::Private
            | AddressClass::SharedSpace
            | AddressClass::UniqueLocal
            | AddressClass::Nat64 => true,
            AddressClass::Unspecified
            | AddressClass::LinkLocal
            | AddressClass::Metadata
            | AddressClass::Multicast
            | AddressClass::Broadcast
            | AddressClass::Documentation
            | AddressClass::Benchmarking
            | AddressClass::Mapped
            | AddressClass::SixToFour
            | AddressClass::Teredo
            | AddressClass::Reserved => false,
        }
    }
}

fn of_v4(address: Ipv4Addr) -> Option<AddressClass> {
    let [a, b, c, _] = address.octets();
    if METADATA_V4.contains(&address) {
        return Some(AddressClass::Metadata);
    }
    Some(match (a, b, c) {
        (0, ..) => AddressClass::Unspecified,
        (127, ..) => AddressClass::Loopback,
        (10, ..) | (172, 16..=31, _) | (192, 168, _) => AddressClass::Private,
        (100, 64..=127, _) => AddressClass::SharedSpace,
        (169, 254, _) => AddressClass::LinkLocal,
        (192, 0, 2) | (198, 51, 100) | (203, 0, 113) => AddressClass::Documentation,
        (198, 18..=19, _) => AddressClass::Benchmarking,
        (192, 88, 99) => AddressClass::SixToFour,
        (192, 0, 0) => AddressClass::Reserved,
        (224..=239, ..) => AddressClass::Multicast,
        (255, 255, 255) if address.is_broadcast() => AddressClass::Broadcast,
        (240..=255, ..) => AddressClass::Reserved,
        _ => return None,
    })
}

fn of_v6(address: Ipv6Addr) -> Option<AddressClass> {
    let segments = address.segments();
    if METADATA_V6.contains(&[segments[0], segments[1]]) {
        return Some(AddressClass::Metadata);
    }
    Some(match segments {
        [0, 0, 0, 0, 0, 0, 0, 0] => AddressClass::Unspecified,
        [0, 0, 0, 0, 0, 0, 0, 1] => AddressClass::Loopback,
        // Mapped, compatible, and the translated form of RFC 2765.
        [0, 0, 0, 0, 0, 0xffff | 0, high, low] | [0, 0, 0, 0, 0xffff, 0, high, low] => {
            inside(high, low, AddressClass::Mapped)
        }
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => inside(high, low, AddressClass::Nat64),
        // The local prefix may be cut anywhere (RFC 8215), so what is inside is not known.
        [0x64, 0xff9b, 1, ..] => AddressClass::Nat64,
        [0x2002, high, low, ..] => inside(high, low, AddressClass::SixToFour),
        [0x2001, 0, ..] => AddressClass::Teredo,
        [0x2001, 2, 0, ..] => AddressClass::Benchmarking,
        [0x2001, 0xdb8, ..] | [0x3fff, 0..=0x0fff, ..] => AddressClass::Documentation,
        // Assignments to protocols, ORCHID among them (RFC 2928).
        [0x2001, 0..=0x01ff, ..] => AddressClass::Reserved,
        [0xfc00..=0xfdff, ..] => AddressClass::UniqueLocal,
        [0xfe80..=0xfeff, ..] => AddressClass::LinkLocal,
        [0xff00..=0xffff, ..] => AddressClass::Multicast,
        [0x2000..=0x3fff, ..] => return None,
        _ => AddressClass::Reserved,
    })
}

/// The class of the IPv4 address inside one of IPv6; where that is a public one, the class of the wrapping.
fn inside(high: u16, low: u16, wrapping: AddressClass) -> AddressClass {
    let [a, b] = high.to_be_bytes();
    let [c, d] = low.to_be_bytes();
    of_v4(Ipv4Addr::new(a, b, c, d)).unwrap_or(wrapping)
}

impl fmt::Display for AddressClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            AddressClass::Unspecified => "an unspecified address",
            AddressClass::Loopback => "a loopback address",
            AddressClass::OwnMachine => "an address of the server's own machine",
            AddressClass::Private => "an address of a private network",
            AddressClass::SharedSpace => "an address of a provider's inner network",
            AddressClass::UniqueLocal => "an address of a private network (IPv6)",
            AddressClass::LinkLocal => "a link-local address",
            AddressClass::Metadata => "a metadata service",
            AddressClass::Multicast => "a multicast address",
            AddressClass::Broadcast => "a broadcast address",
            AddressClass::Documentation => "an address for documentation",
            AddressClass::Benchmarking => "an address for benchmarks",
            AddressClass::Mapped => "an IPv4 address written as IPv6",
            AddressClass::Nat64 => "an address behind a NAT64 translator",
            AddressClass::SixToFour => "a 6to4 tunnel",
            AddressClass::Teredo => "a Teredo tunnel",
            AddressClass::Reserved => "a reserved address",
        })
    }
}

#[cfg(test)]
mod tests;
