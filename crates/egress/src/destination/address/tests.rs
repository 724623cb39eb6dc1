#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use proptest::prelude::*;

use super::*;

fn class(text: &str) -> Option<AddressClass> {
    AddressClass::of(text.parse().unwrap())
}

#[test]
fn each_class_has_its_first_and_last_address() {
    use AddressClass::*;
    for (class_, addresses) in [
        (Unspecified, &["0.0.0.0", "0.255.255.255", "::"][..]),
        (
            Loopback,
            &["127.0.0.0", "127.0.0.1", "127.255.255.255", "::1"],
        ),
        (
            Private,
            &[
                "10.0.0.0",
                "10.255.255.255",
                "172.16.0.0",
                "172.31.255.255",
                "192.168.0.0",
                "192.168.255.255",
            ],
        ),
        (SharedSpace, &["100.64.0.0", "100.127.255.255"]),
        (
            UniqueLocal,
            &[
                "fc00::",
                "fd12:3456::1",
                "fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
            ],
        ),
        (
            LinkLocal,
            &[
                "169.254.0.0",
                "169.254.255.255",
                "fe80::1",
                "febf::1",
                "fec0::1",
                "feff::1",
            ],
        ),
        (
            Metadata,
            &[
                "169.254.169.254",
                "169.254.170.2",
                "169.254.170.23",
                "100.100.100.200",
                "168.63.129.16",
                "192.0.0.192",
                "fd00:ec2::254",
                "fd00:ec2::23",
                "fd20:ce::254",
                "fd00:c1::a9fe:a9fe",
                "fd00:42::42",
            ],
        ),
        (
            Multicast,
            &[
                "224.0.0.0",
                "239.255.255.255",
                "ff00::",
                "ff02::1",
                "ffff:ffff::",
            ],
        ),
        (Broadcast, &["255.255.255.255"]),
        (
            Documentation,
            &[
                "192.0.2.0",
                "192.0.2.255",
                "198.51.100.1",
                "203.0.113.255",
                "2001:db8::1",
                "2001:db8:ffff::1",
                "3fff::1",
                "3fff:fff::1",
            ],
        ),
        (Benchmarking, &["198.18.0.0", "198.19.255.255", "2001:2::1"]),
        (SixToFour, &["192.88.99.1", "2002:808:808::1"]),
        (Teredo, &["2001::1", "2001:0:4136:e378:8000:63bf:3fff:fdd2"]),
        (
            Nat64,
            &["64:ff9b::808:808", "64:ff9b:1::1", "64:ff9b:1:ffff::7f00:1"],
        ),
        (Mapped, &["::ffff:8.8.8.8", "::8.8.8.8", "::ffff:0:808:808"]),
        (
            Reserved,
            &[
                "192.0.0.1",
                "240.0.0.0",
                "255.255.255.254",
                "255.0.0.0",
                "100::1",
                "2001:10::1",
                "2001:20::1",
                "2001:1ff::1",
                "5f00::1",
                "4000::",
                "1::",
                "64:ff9b:2::",
                "64:ff9b::1:808:808",
            ],
        ),
    ] {
        for address in addresses {
            assert_eq!(class(address), Some(class_), "{address}");
        }
    }
}

#[test]
fn public_addresses_have_none() {
    for address in [
        "1.0.0.0",
        "1.1.1.1",
        "8.8.8.8",
        "9.255.255.255",
        "11.0.0.0",
        "93.184.216.34",
        "100.63.255.255",
        "100.128.0.0",
        "126.255.255.255",
        "128.0.0.0",
        "169.253.255.255",
        "169.255.0.0",
        "172.15.255.255",
        "172.32.0.0",
        "192.0.1.0",
        "192.0.3.0",
        "192.88.98.255",
        "192.167.255.255",
        "192.169.0.0",
        "198.17.255.255",
        "198.20.0.0",
        "203.0.112.255",
        "203.0.114.0",
        "223.255.255.255",
        "2001:200::1",
        "2001:4860:4860::8888",
        "2001:db7::1",
        "2001:db9::1",
        "2003::1",
        "2606:4700::1111",
        "2a00:1450:4001::1",
        "3ffe:ffff::",
    ] {
        assert_eq!(class(address), None, "{address}");
    }
}

#[test]
fn what_carries_an_ipv4_address_is_judged_by_it() {
    for (v4, expected) in [
        ("127.0.0.1", AddressClass::Loopback),
        ("10.0.0.1", AddressClass::Private),
        ("169.254.169.254", AddressClass::Metadata),
        ("169.254.1.1", AddressClass::LinkLocal),
        ("224.0.0.1", AddressClass::Multicast),
        ("100.64.0.1", AddressClass::SharedSpace),
    ] {
        let [a, b, c, d] = v4.parse::<Ipv4Addr>().unwrap().octets();
        let hex = format!(
            "{:x}:{:x}",
            u16::from_be_bytes([a, b]),
            u16::from_be_bytes([c, d])
        );
        for wrapped in [
            format!("::ffff:{v4}"),
            format!("::ffff:{hex}"),
            format!("::{v4}"),
            format!("::ffff:0:{v4}"),
            format!("64:ff9b::{v4}"),
            format!("2002:{hex}::1"),
        ] {
            assert_eq!(class(&wrapped), Some(expected), "{wrapped}");
        }
    }
}

#[test]
fn the_operators_private_opens_private_networks_and_nothing_worse() {
    for address in [
        "127.0.0.1",
        "::1",
        "10.0.0.1",
        "100.64.0.1",
        "fd12::1",
        "64:ff9b::808:808",
    ] {
        assert!(class(address).unwrap().opens_by_private(), "{address}");
    }
    for address in [
        "0.0.0.0",
        "::",
        "169.254.169.254",
        "169.254.1.1",
        "fe80::1",
        "fd00:ec2::254",
        "100.100.100.200",
        "::ffff:169.254.169.254",
        "224.0.0.1",
        "ff02::1",
        "255.255.255.255",
        "198.18.0.1",
        "192.0.2.1",
        "240.0.0.1",
        "2002:808:808::1",
        "2001::1",
    ] {
        assert!(!class(address).unwrap().opens_by_private(), "{address}");
    }
}

proptest! {
    /// What the standard library knows of an address is known here.
    #[test]
    fn no_v4_address_that_the_standard_library_calls_special_passes(bits: u32) {
        let address = Ipv4Addr::from(bits);
        if address.is_private() || address.is_loopback() || address.is_link_local() || address.is_multicast()
            || address.is_broadcast() || address.is_documentation() || address.is_unspecified() {
            prop_assert!(AddressClass::of(address.into()).is_some());
        }
        prop_assert!(AddressClass::of(address.to_ipv6_mapped().into()).is_some());
        prop_assert!(AddressClass::of(address.to_ipv6_compatible().into()).is_some());
    }

    #[test]
    fn no_v6_address_outside_of_the_global_unicast_block_passes(bits: u128) {
        let address = Ipv6Addr::from(bits);
        if address.segments()[0] & 0xe000 != 0x2000 {
            prop_assert!(AddressClass::of(address.into()).is_some());
        }
    }
}
