#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::*;

const ADDRESS: [IpAddr; 1] = [IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1))];
const OTHER: [IpAddr; 1] = [IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2))];

fn host(text: &str) -> HostName {
    HostName::parse(text.as_bytes()).unwrap()
}

#[test]
fn a_pin_holds_until_it_ends_and_is_not_renewed_by_use() {
    let pins = Pins::new(Duration::from_millis(200));
    let name = host("example.com");
    assert_eq!(pins.find(&name), None);
    let begun = Instant::now();
    pins.keep(&name, &ADDRESS);
    while let Some(found) = pins.find(&name) {
        assert_eq!(found, ADDRESS);
        assert!(begun.elapsed() < Duration::from_secs(5), "renewed by use");
        std::thread::sleep(Duration::from_millis(20));
        // What another look-up found meanwhile is not taken while the pin holds, unless it ended just now.
        if begun.elapsed() < Duration::from_millis(150) {
            pins.keep(&name, &OTHER);
        }
    }
    assert!(begun.elapsed() >= Duration::from_millis(200));
    pins.keep(&name, &OTHER);
    assert_eq!(pins.find(&name).as_deref(), Some(&OTHER[..]));
}

#[test]
fn a_forgotten_pin_is_gone() {
    let pins = Pins::new(Duration::from_secs(300));
    pins.keep(&host("example.com"), &ADDRESS);
    pins.keep(&host("example.org"), &OTHER);
    pins.forget(&host("example.com"));
    assert_eq!(pins.find(&host("example.com")), None);
    assert_eq!(pins.find(&host("example.org")).as_deref(), Some(&OTHER[..]));
}

#[test]
fn pins_are_no_more_than_they_may_be() {
    let pins = Pins::new(Duration::from_secs(300));
    for number in 0..=MAX_PINS {
        pins.keep(&host(&format!("a{number}.example")), &ADDRESS);
    }
    assert_eq!(pins.lock().len(), MAX_PINS);
    assert_eq!(pins.find(&host("a0.example")), None);
    assert!(pins.find(&host(&format!("a{MAX_PINS}.example"))).is_some());
}
