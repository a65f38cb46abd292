//! Parses the address to listen at.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;

/// An address to listen at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListenAddress(pub SocketAddr);

/// The error for text that is not such an address.
#[derive(Debug, thiserror::Error)]
#[error(
    "give a port, for the loopback address, or an address with a port: 9738, 0.0.0.0:9738, [::]:9738"
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
            ("9738", "127.0.0.1:9738"),
            ("0", "127.0.0.1:0"),
            ("localhost:1", "127.0.0.1:1"),
            ("0.0.0.0:9738", "0.0.0.0:9738"),
            ("[::1]:9738", "[::1]:9738"),
        ] {
            let ListenAddress(read) = text.parse().unwrap();
            assert_eq!(read.to_string(), address);
        }
        for bad in ["", ":9738", "70000", "-1", "127.0.0.1", "::1", "example.org:9738", "1:2:3"] {
            assert!(bad.parse::<ListenAddress>().is_err(), "{bad}");
        }
    }
}
