//! Ports on 127.0.0.1 that no other lab on this machine takes.
//!
//! PostgreSQL must bind its port itself, and must find it free again after a restart, so the port
//! cannot be held open. The claim is a UDP socket on the same number: it excludes other labs, in
//! any process, and goes with the process. The range lies below the ephemeral ports, so that no
//! outgoing connection sits on a claimed number by chance.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};

use rand::Rng;

use super::LabError;

const RANGE: std::ops::Range<u16> = 20_000..32_000;
const ATTEMPTS: usize = 500;

/// A port that is ours until the claim is dropped.
#[derive(Debug)]
pub(super) struct PortClaim {
    port: u16,
    _claim: UdpSocket,
}

impl PortClaim {
    pub(super) fn new() -> Result<PortClaim, LabError> {
        let mut random = rand::rng();
        (0..ATTEMPTS)
            .find_map(|_| claim(random.random_range(RANGE)))
            .ok_or(LabError::NoPort)
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    pub(super) fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }
}

fn claim(port: u16) -> Option<PortClaim> {
    let claim = UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).ok()?;
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok()?;
    Some(PortClaim {
        port,
        _claim: claim,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claimed_port_is_not_claimed_again_but_can_be_listened_on() {
        let held = PortClaim::new().unwrap();
        assert!(claim(held.port()).is_none());
        TcpListener::bind(held.address()).unwrap();
    }

    #[test]
    fn a_port_that_is_listened_on_is_not_claimed() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        assert!(claim(listener.local_addr().unwrap().port()).is_none());
    }
}
