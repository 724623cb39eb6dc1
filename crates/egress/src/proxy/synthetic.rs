//! The addresses that the stub DNS hands out: each stands for a name of one session and means nothing to anybody else.

use std::{
    collections::{HashMap, VecDeque},
    net::Ipv4Addr,
};

use crate::destination::HostName;

/// 198.18.0.0/15, kept for measurements between networks (RFC 2544, RFC 6890): never an address of the internet.
const FIRST: u32 = u32::from_be_bytes([198, 18, 0, 0]);
/// Addresses of a /15.
const COUNT: u32 = 1 << 17;
/// Names that a session has at a time; the oldest one is forgotten. More than a build asks for; about 1 MiB at the most.
const MAX_NAMES: usize = 4096;

/// Names and the addresses that stand for them, both ways.
pub(crate) struct Synthetic {
    by_name: HashMap<HostName, Ipv4Addr>,
    by_address: HashMap<Ipv4Addr, HostName>,
    /// Oldest first.
    order: VecDeque<Ipv4Addr>,
    /// Addresses are used in turn, so that one means another name only after all others were used.
    next: u32,
}

impl Synthetic {
    pub(crate) fn new() -> Self {
        Synthetic {
            by_name: HashMap::new(),
            by_address: HashMap::new(),
            order: VecDeque::new(),
            // The first one would look like a network's own address.
            next: 1,
        }
    }

    /// The address that stands for a name.
    pub(crate) fn address_of(&mut self, name: &HostName) -> Ipv4Addr {
        if let Some(address) = self.by_name.get(name) {
            return *address;
        }
        if self.order.len() >= MAX_NAMES {
            self.forget_oldest();
        }
        let address = Ipv4Addr::from_bits(FIRST + self.next % COUNT);
        self.next = (self.next + 1) % COUNT;
        self.by_name.insert(name.clone(), address);
        self.by_address.insert(address, name.clone());
        self.order.push_back(address);
        address
    }

    /// The name that an address stands for.
    pub(crate) fn name_of(&self, address: Ipv4Addr) -> Option<HostName> {
        self.by_address.get(&address).cloned()
    }

    fn forget_oldest(&mut self) {
        let oldest = self.order.pop_front();
        if let Some(name) = oldest.and_then(|address| self.by_address.remove(&address)) {
            self.by_name.remove(&name);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn name(text: &str) -> HostName {
        HostName::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn a_name_keeps_its_address_and_an_address_its_name() {
        let mut names = Synthetic::new();
        let first = names.address_of(&name("a.example"));
        let second = names.address_of(&name("b.example"));
        assert_ne!(first, second);
        assert_eq!(names.address_of(&name("a.example")), first);
        assert_eq!(names.name_of(second), Some(name("b.example")));
        assert_eq!(names.name_of(Ipv4Addr::new(198, 18, 77, 1)), None);
    }

    #[test]
    fn many_names_stay_within_the_range_and_within_memory() {
        let mut names = Synthetic::new();
        let first = names.address_of(&name("a.example"));
        for index in 0..COUNT + 10 {
            let address = names.address_of(&name(&format!("n{index}.example")));
            assert!(matches!(address.octets(), [198, 18 | 19, ..]), "{address}");
        }
        assert!(names.order.len() <= MAX_NAMES && names.by_name.len() == names.by_address.len());
        assert_ne!(names.name_of(first), Some(name("a.example")));
    }
}
