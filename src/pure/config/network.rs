//! Networks as people write them: `10.0.0.1`, `10.0.0.0/8`, `10.0.0.0/255.0.0.0`, `fd00::/8`.
use core::net::{IpAddr, Ipv4Addr};

/// An address and how many of its first bits count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    bits: u32,
}

impl Network {
    /// Absent when the text is no network; it may be the name of a host then.
    pub fn parse(text: &str) -> Option<Network> {
        let (address, length) = text.split_once('/').map_or((text, None), |(a, b)| (a, Some(b)));
        let address: IpAddr = address.trim().parse().ok()?;
        let width = if address.is_ipv4() { 32 } else { 128 };
        let bits = match length.map(str::trim) {
            None => width,
            Some(mask) if address.is_ipv4() && mask.contains('.') => mask_length(mask)?,
            Some(bits) => bits.parse().ok().filter(|bits| *bits <= width)?,
        };
        Some(Network { address, bits })
    }

    /// Whether `client` lies in it; an address of the other family never does.
    pub fn contains(&self, client: IpAddr) -> bool {
        if self.address.is_ipv4() != client.is_ipv4() {
            return false;
        }
        let differing = first_bits(self.address) ^ first_bits(client);
        self.bits == 0 || differing >> (128 - self.bits) == 0
    }
}

/// `255.0.0.0`, or its complement `0.255.255.255`, as a length.
fn mask_length(mask: &str) -> Option<u32> {
    let mask = u32::from(mask.parse::<Ipv4Addr>().ok()?);
    let is_mask = |mask: u32| mask.leading_ones() + mask.trailing_zeros() >= 32;
    match mask {
        0 => Some(0),
        mask if is_mask(mask) => Some(mask.leading_ones()),
        mask if is_mask(!mask) => Some((!mask).leading_ones()),
        _ => None,
    }
}

/// The address with its first bit at the top of 128.
fn first_bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(u32::from(v4)) << 96,
        IpAddr::V6(v6) => u128::from(v6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contains(network: &str, client: &str) -> Option<bool> {
        Network::parse(network).map(|found| found.contains(client.parse().expect("an address")))
    }

    #[test]
    fn networks_contain_their_addresses() {
        let cases = [
            ("10.1.0.0/16", "10.1.200.3", Some(true)),
            ("10.1.0.0/16", "10.2.0.1", Some(false)),
            ("10.1.2.3", "10.1.2.3", Some(true)),
            ("10.1.2.3", "10.1.2.4", Some(false)),
            ("0.0.0.0/0", "1.2.3.4", Some(true)),
            ("::1/128", "::1", Some(true)),
            ("fd00::/8", "fd12::1", Some(true)),
            ("fd00::/8", "10.0.0.1", Some(false)),
            ("db1.example", "10.0.0.1", None),
            ("10.0.0.0/33", "10.0.0.1", None),
        ];
        for (network, client, expected) in cases {
            assert_eq!(contains(network, client), expected, "{network} {client}");
        }
    }

    /// A netmask was taken for the name of a host, and let nobody in.
    #[test]
    fn a_mask_is_as_good_as_a_length() {
        for mask in ["10.0.0.0/255.0.0.0", "10.0.0.0/0.255.255.255", "10.0.0.0 / 8"] {
            assert_eq!(contains(mask, "10.9.9.9"), Some(true), "{mask}");
            assert_eq!(contains(mask, "11.0.0.1"), Some(false), "{mask}");
        }
        assert_eq!(contains("1.2.3.4/255.255.255.255", "1.2.3.5"), Some(false));
        assert_eq!(contains("1.2.3.4/0.0.0.0", "9.9.9.9"), Some(true));
        assert_eq!(contains("10.0.0.0/255.0.255.0", "10.0.0.1"), None);
    }
}
