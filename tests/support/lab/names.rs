//! The resolvers, over UDP and TCP. They hand questions below the tunnel's zone on, as a resolver in the world would.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex},
    time::Duration,
};

use simple_dns::{
    CLASS, Name, Packet, PacketFlag, QTYPE, RCODE, ResourceRecord, TYPE,
    rdata::{A, AAAA, CNAME, RData, TXT},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
    time::timeout,
};

use super::{
    Event, Log,
    addresses::{OTHER_RESOLVER, PRIVATE, REBINDING, RESOLVER, TUNNEL, TUNNEL_ZONE, WEB, ZONE},
};

/// Kept by nobody, so that every question arrives.
const TTL_SECONDS: u32 = 0;

#[derive(Clone)]
struct Resolver {
    log: Log,
    /// How often a rebinding name was asked for by each type.
    asked: Arc<Mutex<HashMap<(String, u16), usize>>>,
}

pub(super) async fn serve(log: &Log) {
    let resolver = Resolver {
        log: log.clone(),
        asked: Arc::default(),
    };
    for address in [RESOLVER, OTHER_RESOLVER] {
        let ip: IpAddr = address.parse().expect("an address");
        let socket = UdpSocket::bind((ip, 53)).await.expect("port 53");
        tokio::spawn(over_udp(Arc::new(socket), resolver.clone()));
        let listener = TcpListener::bind((ip, 53)).await.expect("port 53");
        let resolver = resolver.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(over_tcp(stream, resolver.clone()));
            }
        });
    }
}

async fn over_udp(socket: Arc<UdpSocket>, resolver: Resolver) {
    let mut buffer = [0; 4096];
    while let Ok((count, from)) = socket.recv_from(&mut buffer).await {
        let (question, socket) = (buffer[..count].to_vec(), Arc::clone(&socket));
        let resolver = resolver.clone();
        // The tunnel's end may take its time.
        tokio::spawn(async move {
            if let Some(answer) = resolver.answer(&question).await {
                let _ = socket.send_to(&answer, from).await;
            }
        });
    }
}

async fn over_tcp(mut stream: TcpStream, resolver: Resolver) {
    while let Ok(length) = stream.read_u16().await {
        let mut question = vec![0; usize::from(length)];
        if stream.read_exact(&mut question).await.is_err() {
            return;
        }
        let Some(answer) = resolver.answer(&question).await else {
            return;
        };
        let length = u16::try_from(answer.len()).unwrap_or_default();
        let written = async {
            stream.write_u16(length).await?;
            stream.write_all(&answer).await
        };
        if written.await.is_err() {
            return;
        }
    }
}

impl Resolver {
    async fn answer(&self, message: &[u8]) -> Option<Vec<u8>> {
        let packet = Packet::parse(message).ok()?;
        let question = packet.questions.first()?.clone();
        let written = question.qname.to_string();
        let kind = u16::from(question.qtype);
        self.log.add(Event::Asked {
            name: written.clone(),
            kind,
        });
        let name = written.to_ascii_lowercase();
        if name == TUNNEL_ZONE || name.ends_with(&format!(".{TUNNEL_ZONE}")) {
            return forward(message).await;
        }
        let mut reply = Packet::new_reply(packet.id());
        reply.set_flags(PacketFlag::RECURSION_AVAILABLE | PacketFlag::RECURSION_DESIRED);
        match self.records(&name, &question.qname, question.qtype) {
            Some(records) => reply.answers = records,
            None => *reply.rcode_mut() = RCODE::NameError,
        }
        reply.questions.push(question);
        reply.build_bytes_vec().ok()
    }

    /// `None`: there is no such name.
    fn records<'a>(
        &self,
        name: &str,
        written: &Name<'a>,
        kind: QTYPE,
    ) -> Option<Vec<ResourceRecord<'a>>> {
        let record = |data| ResourceRecord::new(written.clone(), CLASS::IN, TTL_SECONDS, data);
        let found: Vec<&str> = if name == REBINDING || name.ends_with(&format!(".{REBINDING}")) {
            let mut asked = self.asked.lock().expect("the count");
            let count = asked.entry((name.to_owned(), u16::from(kind))).or_default();
            *count += 1;
            vec![if *count == 1 { WEB } else { PRIVATE }]
        } else {
            let (_, found) = ZONE.iter().find(|(known, _)| *known == name)?;
            found.to_vec()
        };
        let mut records = Vec::new();
        for target in found {
            if let Some(alias) = target.strip_prefix('!') {
                let to = Name::new(alias).expect("a name").into_owned();
                records.push(record(RData::CNAME(CNAME(to.clone()))));
                records.extend(self.records(alias, &to, kind)?);
                continue;
            }
            match (target.parse().expect("an address"), kind) {
                (IpAddr::V4(ip), QTYPE::TYPE(TYPE::A)) => {
                    records.push(record(RData::A(A::from(ip))));
                }
                (IpAddr::V6(ip), QTYPE::TYPE(TYPE::AAAA)) => {
                    records.push(record(RData::AAAA(AAAA::from(ip))));
                }
                _ => {}
            }
        }
        if kind == QTYPE::TYPE(TYPE::TXT) {
            let text = TXT::new().with_string("v=text").expect("a text");
            records.push(record(RData::TXT(text)));
        }
        Some(records)
    }
}

/// Asks the tunnel's end.
async fn forward(message: &[u8]) -> Option<Vec<u8>> {
    let to: SocketAddr = format!("{TUNNEL}:53").parse().expect("an address");
    let socket = UdpSocket::bind("0.0.0.0:0").await.ok()?;
    socket.connect(to).await.ok()?;
    socket.send(message).await.ok()?;
    let mut buffer = vec![0; 65_536];
    let count = timeout(Duration::from_secs(10), socket.recv(&mut buffer))
        .await
        .ok()?
        .ok()?;
    buffer.truncate(count);
    Some(buffer)
}
