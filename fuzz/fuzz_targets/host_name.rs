//! What a sandbox can write where a host belongs (CONNECT, Host, SOCKS, SNI, DNS): whatever passes is a name in its one spelling,
//! and never an address. `scripts/fuzz host_name`
#![no_main]

use egress::destination::{Denial, HostName};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    match HostName::parse(input) {
        Ok(name) => {
            let text = name.as_str();
            assert_eq!(HostName::parse(text.as_bytes()).as_ref(), Ok(&name));
            assert_eq!(
                HostName::parse(format!("{text}.").as_bytes()).as_ref(),
                Ok(&name)
            );
            assert!(text.parse::<std::net::IpAddr>().is_err());
            assert!(text.bytes().all(|byte| byte.is_ascii_lowercase()
                || byte.is_ascii_digit()
                || b"-_.".contains(&byte)));
        }
        // Goes into headers and to terminals.
        Err(error) => assert!(
            !Denial::from(error)
                .to_string()
                .chars()
                .any(char::is_control)
        ),
    }
});
