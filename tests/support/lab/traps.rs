//! Ports at which nothing is said: what arrives there is counted.

use std::net::IpAddr;

use tokio::net::{TcpListener, UdpSocket};

use super::{
    Event, Log,
    addresses::{ALL, OTHER_RESOLVER, RESOLVER},
};

/// Ports of TCP: ssh, mail, an engine, DNS over TLS, Kubernetes, a kubelet, a store of keys, another HTTP proxy.
const TCP: [u16; 8] = [22, 25, 2375, 853, 6443, 10250, 2379, 3128];
/// Ports of UDP: names, time, QUIC, anything.
const UDP: [u16; 4] = [53, 123, 443, 9999];

pub(super) async fn serve(log: &Log) {
    for address in ALL {
        let ip: IpAddr = address.parse().expect("an address");
        for port in TCP {
            let listener = TcpListener::bind((ip, port)).await.expect("a port");
            let log = log.clone();
            tokio::spawn(async move {
                let to = listener.local_addr().expect("its address");
                // Accepted, told, and closed.
                while listener.accept().await.is_ok() {
                    log.add(Event::Connected { to });
                }
            });
        }
        for port in UDP {
            let has_owner = [RESOLVER, OTHER_RESOLVER, super::addresses::TUNNEL].contains(&address);
            if port == 53 && has_owner {
                continue;
            }
            let socket = UdpSocket::bind((ip, port)).await.expect("a port");
            let log = log.clone();
            tokio::spawn(async move {
                let to = socket.local_addr().expect("its address");
                let mut buffer = [0; 65_536];
                while let Ok(bytes) = socket.recv(&mut buffer).await {
                    log.add(Event::Datagram { to, bytes });
                }
            });
        }
    }
}
