//! T1.4, T2.1: no network but an own loopback. Nothing of the host is reached by address, name or abstract socket.

use std::{
    io::ErrorKind,
    net::{TcpListener, UdpSocket},
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixListener},
    },
    time::Duration,
};

use crate::probe::each;

const CONNECT: &str = r#"
sub tcp {
    my ($host, $port) = @_;
    socket(my $s, PF_INET, SOCK_STREAM, 0) or return err();
    connect($s, pack_sockaddr_in($port, inet_aton($host))) ? "ok" : err();
}
"#;

#[test]
fn there_is_no_interface_but_lo() {
    each(|sandbox| {
        let list = "print join ',', map { /^\\s*(\\S+?):/ ? $1 : () } do { open(my $f, '<', '/proc/net/dev'); <$f> }";
        assert_eq!(sandbox.perl(list), "lo");
        assert!(sandbox.perl_outside(list).contains("lo"), "the control");
        let routes = sandbox.sh("cat /proc/net/route | wc -l").out;
        assert_eq!(routes, "1", "only the heading");
    });
}

#[test]
fn a_listener_on_the_hosts_loopback_is_out_of_reach() {
    each(|sandbox| {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
        listener.set_nonblocking(true).expect("set");
        let port = listener.local_addr().expect("its address").port();
        let probe = format!("{CONNECT} print tcp('127.0.0.1', {port})");
        assert_eq!(sandbox.perl(&probe), "ECONNREFUSED");
        assert_eq!(
            listener.accept().expect_err("nobody came").kind(),
            ErrorKind::WouldBlock
        );
        assert_eq!(sandbox.perl_outside(&probe), "ok", "the control outside");
        let own = format!(
            "{CONNECT} socket(my $l, PF_INET, SOCK_STREAM, 0); bind($l, pack_sockaddr_in(0, INADDR_LOOPBACK)) or die; \
             listen($l, 1); my ($p) = unpack_sockaddr_in(getsockname($l)); print tcp('127.0.0.1', $p)"
        );
        assert_eq!(sandbox.perl(&own), "ok", "the control inside");
    });
}

#[test]
fn addresses_beyond_loopback_are_unreachable() {
    each(|sandbox| {
        // Documentation, metadata service, private and public addresses: no packet leaves, so they stand for all.
        for host in [
            "192.0.2.1",
            "169.254.169.254",
            "10.0.0.1",
            "172.17.0.1",
            "192.168.1.1",
            "198.51.100.7",
        ] {
            let probe = format!("{CONNECT} print tcp('{host}', 80)");
            let answer = sandbox.place.expected().no_route;
            assert_eq!(sandbox.perl(&probe), answer, "{host}");
        }
        assert_eq!(
            sandbox.perl(&format!("{CONNECT} print tcp('127.0.0.1', 1)")),
            "ECONNREFUSED",
            "the control: the probe gets as far as loopback"
        );
    });
}

#[test]
fn a_datagram_does_not_arrive_at_the_host() {
    each(|sandbox| {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        socket
            .set_read_timeout(Some(Duration::from_millis(200)))
            .expect("set");
        let port = socket.local_addr().expect("its address").port();
        let probe = format!(
            "socket(my $s, PF_INET, SOCK_DGRAM, 0); \
             print defined(send($s, 'hello', 0, pack_sockaddr_in({port}, INADDR_LOOPBACK))) ? 'sent' : err()"
        );
        assert_eq!(
            sandbox.perl(&probe),
            "sent",
            "into the sandbox's own loopback"
        );
        let mut buffer = [0; 16];
        socket.recv(&mut buffer).expect_err("nothing arrives");
        sandbox.perl_outside(&probe);
        assert_eq!(socket.recv(&mut buffer).expect("the control"), 5);
    });
}

#[test]
fn an_abstract_socket_of_the_host_is_out_of_reach() {
    each(|sandbox| {
        let name = format!("claude-code-mcp-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).expect("a name");
        let _listener = UnixListener::bind_addr(&address).expect("a listener");
        let probe = format!(
            "socket(my $s, PF_UNIX, SOCK_STREAM, 0); \
             print connect($s, pack('S a*', AF_UNIX, \"\\0{name}\")) ? 'ok' : err()"
        );
        let inside = sandbox.perl(&probe);
        assert!(
            ["ECONNREFUSED", "EPERM"].contains(&inside.as_str()),
            "{inside}"
        );
        assert_eq!(sandbox.perl_outside(&probe), "ok", "the control");
        let listed = sandbox.sh("grep -c '@' /proc/net/unix").out;
        assert_eq!(listed, "0", "abstract names of the host are listed");
    });
}
