//! Where to listen, as the command line has it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;

/// An address to listen at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListenAddress(pub SocketAddr);

/// Text that is no such address.
#[derive(Debug, thiserror::Error)]
#[error(
    "it must be a port, for the loopback, or an address with a port: 9187, 0.0.0.0:9187, [::]:9187"
)]
pub struct AddressError;

impl FromStr for ListenAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let loopback = IpAddr::from(Ipv4Addr::LOCALHOST);
        let port = text.strip_prefix("localhost:").unwrap_or(text);
        if let Ok(port) = port.parse() {
            return Ok(Self(SocketAddr::new(loopback, port)));
        }
        text.parse().map(Self).map_err(|_| AddressError)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_port_is_the_loopback() {
        for (text, address) in [
            ("9187", "127.0.0.1:9187"),
            ("0", "127.0.0.1:0"),
            ("localhost:1", "127.0.0.1:1"),
            ("0.0.0.0:9187", "0.0.0.0:9187"),
            ("[::1]:9187", "[::1]:9187"),
        ] {
            let ListenAddress(read) = text.parse().unwrap();
            assert_eq!(read.to_string(), address);
        }
        for bad in ["", ":9187", "70000", "-1", "127.0.0.1", "::1", "example.org:9187", "1:2:3"] {
            assert!(bad.parse::<ListenAddress>().is_err(), "{bad}");
        }
    }
}
