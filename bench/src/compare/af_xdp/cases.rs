//! The rows: what is done with which frames, and beside whom.

/// What a device does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// Receive and drop.
    Receive,
    /// Send all the time.
    Transmit,
    /// From one veth pair to another.
    Forward,
    /// From a veth pair to a vhost-user guest.
    Guest,
}

/// testpmd's driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// `net_af_xdp` as it is by default: preferred busy polling with a budget of 64.
    Xdp,
    /// `net_af_xdp` without busy polling.
    XdpNoBudget,
    /// `net_af_packet`, rings shared with a packet socket.
    Packet,
}

impl Peer {
    /// The device on `interface`.
    #[must_use]
    pub fn vdev(self, number: usize, interface: &str) -> String {
        match self {
            Self::Xdp => format!("net_af_xdp{number},iface={interface}"),
            Self::XdpNoBudget => format!("net_af_xdp{number},iface={interface},busy_budget=0"),
            Self::Packet => format!("net_af_packet{number},iface={interface}"),
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Xdp => "xdp",
            Self::XdpNoBudget => "xdp-nobudget",
            Self::Packet => "packet",
        }
    }
}

/// One row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Case {
    /// What is done.
    pub work: Work,
    /// Bytes of a frame.
    pub size: usize,
    /// Beside whom.
    pub peer: Peer,
}

impl Case {
    /// The rows of a part.
    #[must_use]
    pub fn of(part: &str) -> Vec<Self> {
        let work = match part {
            "rx" => Work::Receive,
            "tx" => Work::Transmit,
            "guest" | "full-guest" => Work::Guest,
            _ => Work::Forward,
        };
        let sizes: &[usize] = if part.starts_with("full") { &[64] } else { &[64, 1500] };
        // A guest has no packet socket, and nobody joins one to it by net_af_packet for speed.
        let peers = [Peer::Xdp, Peer::XdpNoBudget, Peer::Packet];
        let peers = if work == Work::Guest { &peers[..2] } else { &peers[..] };
        let of = |&size: &usize| peers.iter().map(move |&peer| Self { work, size, peer });
        sizes.iter().flat_map(of).collect()
    }

    /// What `--only` names: `xdp-64`, `packet-1500`.
    #[must_use]
    pub fn id(&self) -> String {
        format!("{}-{}", self.peer.word(), self.size)
    }

    /// Whether `--only` with this word names it.
    #[must_use]
    pub fn is(&self, word: &str) -> bool {
        word == self.id() || word == self.peer.word() || word == self.size.to_string()
    }

    /// For tables.
    #[must_use]
    pub fn name(&self) -> String {
        let peer = match self.peer {
            Peer::Xdp => "net_af_xdp",
            Peer::XdpNoBudget => "net_af_xdp, both no busy polling",
            Peer::Packet => "net_af_packet",
        };
        format!("{} bytes, {peer}", self.size)
    }

    /// How many times fewer cycles a frame, and more frames a second, are wanted.
    #[must_use]
    pub fn wanted(&self) -> [Option<f64>; 2] {
        match (self.work, self.peer, self.size) {
            (Work::Receive, Peer::Xdp, 64) => [Some(2.0), None],
            (Work::Transmit, Peer::Xdp, 64) => [None, Some(1.0)],
            (Work::Forward, Peer::Xdp, 64) => [Some(1.0 / 0.85), None],
            (Work::Forward, Peer::Packet, 64) => [Some(1.2), None],
            (Work::Guest, Peer::Xdp, 64) => [Some(1.3), None],
            _ => [None, None],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_of_a_part_has_a_name_of_its_own() {
        for (part, count) in
            [("rx", 6), ("tx", 6), ("forward", 6), ("guest", 4), ("full-forward", 3), ("full-guest", 2)]
        {
            let mut ids: Vec<String> = Case::of(part).iter().map(Case::id).collect();
            ids.sort();
            ids.dedup();
            assert_eq!(ids.len(), count, "{part}");
        }
        let named = |word: &str| Case::of("rx").iter().filter(|case| case.is(word)).count();
        assert_eq!([named("64"), named("xdp"), named("xdp-64"), named("x")], [3, 2, 1, 0]);
    }
}
