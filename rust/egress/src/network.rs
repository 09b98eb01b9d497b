//! To which addresses may a host name lead the proxy?
//!
//! A route allows a name; whoever runs that name's DNS chooses the address. So names that lead to the sidecar itself, to
//! the host's network or to a cloud's metadata service are refused unless the operator says otherwise. What was checked
//! is what is connected to.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

/// For one address; a name may have several.
const CONNECT: Duration = Duration::from_secs(10);

/// Why a host is not reached, in words of ours alone.
#[derive(Debug)]
pub struct Unreachable(String);

impl std::fmt::Display for Unreachable {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(&self.0)
    }
}

impl std::error::Error for Unreachable {}

pub fn unreachable(kind: io::ErrorKind, why: impl Into<String>) -> io::Error {
    io::Error::new(kind, Unreachable(why.into()))
}

/// The addresses of a host.
async fn resolved(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    let found = lookup_host((host, port)).await;
    Ok(found.map_err(|error| unreachable(error.kind(), format!("{host} is not found ({error})")))?.collect())
}

/// A block of addresses.
#[derive(Debug, Clone, Copy)]
struct Block {
    address: IpAddr,
    bits: u32,
}

/// Which addresses are connected to although they are not public, and where a host is instead of where DNS says.
#[derive(Debug, Clone, Default)]
pub struct Network {
    private: Vec<Block>,
    connect_to: HashMap<(String, u16), (String, u16)>,
}

impl Network {
    /// From the text of `EGRESS_PRIVATE_NETWORKS` and `EGRESS_CONNECT_TO`; the error is a sentence.
    pub fn parse(private: &str, connect_to: &str) -> Result<Self, String> {
        let parts = |text: &str| -> Vec<String> {
            text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect()
        };
        let mut network = Network::default();
        for part in parts(private) {
            let block = Block::parse(&part).ok_or_else(|| {
                let seen = bot_bottle_routes::quoted(&part);
                format!("EGRESS_PRIVATE_NETWORKS is a comma list such as 10.0.0.0/8, not {seen}.")
            })?;
            network.private.push(block);
        }
        for part in parts(connect_to) {
            let pair = part.split_once('=').and_then(|(name, place)| Some((address(name)?, address(place)?)));
            let (name, place) = pair.ok_or_else(|| {
                let seen = bot_bottle_routes::quoted(&part);
                format!("EGRESS_CONNECT_TO is a comma list of host:port=address:port, not {seen}.")
            })?;
            network.connect_to.insert(name, place);
        }
        Ok(network)
    }

    /// Whether to connect to this address.
    pub fn allows(&self, address: IpAddr) -> bool {
        let address = inner(address);
        is_public(address) || self.private.iter().any(|block| block.holds(address))
    }

    /// A connection to a host, which is canonical. An IP address passes: only a route names one.
    pub async fn connect(&self, host: &str, port: u16) -> io::Result<TcpStream> {
        let addresses: Vec<SocketAddr> = match self.connect_to.get(&(host.to_owned(), port)) {
            Some((name, port)) => resolved(name, *port).await?,
            None if host.parse::<IpAddr>().is_ok() => resolved(host, port).await?,
            None => {
                let mut found = resolved(host, port).await?;
                let any = !found.is_empty();
                found.retain(|each| self.allows(each.ip()));
                if any && found.is_empty() {
                    let private = format!("{host} leads to a private address, which egress does not connect to");
                    return Err(unreachable(io::ErrorKind::PermissionDenied, private));
                }
                found
            }
        };
        let mut last = unreachable(io::ErrorKind::NotFound, format!("{host} has no address"));
        for each in addresses {
            match timeout(CONNECT, TcpStream::connect(each)).await {
                Ok(Ok(stream)) => {
                    stream.set_nodelay(true)?;
                    return Ok(stream);
                }
                Ok(Err(error)) => last = error,
                Err(_) => last = unreachable(io::ErrorKind::TimedOut, format!("{host} does not answer")),
            }
        }
        Err(last)
    }
}

impl Block {
    fn parse(text: &str) -> Option<Self> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address.parse().ok()?, bits.parse().ok()?),
            None => {
                let address: IpAddr = text.parse().ok()?;
                (address, if address.is_ipv4() { 32 } else { 128 })
            }
        };
        let block = Block { address, bits };
        let width = if address.is_ipv4() { 32 } else { 128 };
        // Bits below the mask are a slip of the pen, and nobody can tell of which kind.
        (bits <= width && block.masked(address) == block.number(address)).then_some(block)
    }

    fn number(&self, address: IpAddr) -> u128 {
        match address {
            IpAddr::V4(address) => u128::from(address.to_bits()),
            IpAddr::V6(address) => address.to_bits(),
        }
    }

    fn masked(&self, address: IpAddr) -> u128 {
        let width = if self.address.is_ipv4() { 32 } else { 128 };
        let below = width - self.bits;
        let number = self.number(address);
        if below >= 128 { 0 } else { number >> below << below }
    }

    fn holds(&self, address: IpAddr) -> bool {
        address.is_ipv4() == self.address.is_ipv4() && self.masked(address) == self.number(self.address)
    }
}

fn address(text: &str) -> Option<(String, u16)> {
    let (host, port) = text.trim().rsplit_once(':')?;
    let port: u16 = port.parse().ok().filter(|port| *port > 0)?;
    let host = host.trim_matches(['[', ']']).to_ascii_lowercase();
    (!host.is_empty() && !host.contains('=')).then_some((host, port))
}

/// The IPv4 address that an IPv6 address stands for, where it does.
fn inner(address: IpAddr) -> IpAddr {
    let IpAddr::V6(six) = address else { return address };
    let parts = six.segments();
    let four = |high: u16, low: u16| IpAddr::V4(Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)));
    match parts {
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => four(high, low), // NAT64, RFC 6052
        [0, 0, 0, 0, 0, 0xffff, high, low] => four(high, low),    // mapped, RFC 4291
        [0x2002, high, low, ..] => four(high, low),               // 6to4, RFC 3056
        _ => address,
    }
}

/// Whether everybody may reach it, by the IANA special-purpose registries (RFC 6890).
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(four) => is_public_4(four),
        IpAddr::V6(six) => is_public_6(six),
    }
}

fn is_public_4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    !(a == 0
        || a >= 224 // multicast, reserved and broadcast
        || address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_documentation()
        || (a == 100 && (64..128).contains(&b)) // carriers' NAT, RFC 6598
        || (a == 192 && b == 0 && c == 0)
        || (a == 192 && b == 88 && c == 99)
        || (a == 198 && (b == 18 || b == 19))) // benchmarks, RFC 2544
}

fn is_public_6(address: Ipv6Addr) -> bool {
    let parts = address.segments();
    // Of 2000::/3, all that is in use, what is set aside: protocol assignments and documentation.
    parts[0] & 0xe000 == 0x2000
        && !(parts[0] == 0x2001 && parts[1] < 0x200)
        && !(parts[0] == 0x2001 && parts[1] == 0xdb8)
        && !(parts[0] == 0x3fff && parts[1] < 0x1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allows(network: &Network, address: &str) -> bool {
        network.allows(address.parse().expect("an address"))
    }

    #[test]
    fn addresses_that_are_not_public_are_refused() {
        let refused = "127.0.0.1 0.0.0.0 10.1.2.3 172.17.0.2 192.168.1.1 169.254.169.254 100.64.0.1 224.0.0.1 \
                       255.255.255.255 ::1 :: fe80::1 fd00::1 ff02::1 ::ffff:127.0.0.1 ::ffff:10.0.0.1 \
                       64:ff9b::a9fe:a9fe 2002:7f00:1:: fec0::1 2001:db8::1 192.0.2.1 ::127.0.0.1";
        for address in refused.split_whitespace() {
            assert!(!allows(&Network::default(), address), "{address}");
        }
        for address in ["93.184.216.34", "2606:2800:220:1::1", "64:ff9b::5db8:d822", "::ffff:93.184.216.34"] {
            assert!(allows(&Network::default(), address), "{address}");
        }
    }

    #[test]
    fn the_operator_may_allow_a_private_network() {
        let network = Network::parse("10.0.0.0/8, fd00::/8", "").expect("valid");
        assert!(allows(&network, "10.1.2.3") && allows(&network, "fd00::1") && allows(&network, "::ffff:10.0.0.1"));
        assert!(!allows(&network, "192.168.1.1") && !allows(&network, "fc00::1"));
        assert!(allows(&Network::parse("0.0.0.0/0", "").expect("valid"), "127.0.0.1"));
    }

    #[test]
    fn network_settings_that_cannot_be_read_are_refused() {
        for (private, connect_to) in [
            ("10.0.0.1/8", ""),
            ("house", ""),
            ("10.0.0.0/33", ""),
            ("", "a=b"),
            ("", "a:1=b:x"),
            ("", "a"),
            ("", "a:1=b:0"),
        ] {
            let error = Network::parse(private, connect_to).expect_err("refused");
            assert!(error.starts_with("EGRESS_"), "{error}");
        }
    }

    #[tokio::test]
    async fn a_name_leads_only_where_the_network_allows() {
        let server = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a socket");
        let port = server.local_addr().expect("bound").port();
        let refused = Network::default().connect("localhost", port).await.expect_err("refused");
        assert!(refused.to_string().contains("private address"), "{refused}");
        let allowed = Network::parse("127.0.0.0/8,::1/128", "").expect("valid");
        assert!(allowed.connect("localhost", port).await.is_ok());
        let placed = Network::parse("", &format!("there.example:443=127.0.0.1:{port}")).expect("valid");
        assert!(placed.connect("there.example", 443).await.is_ok());
    }
}
