//! How frames travel: transports in QEMU's words, and the ways through a daemon that are measured.

use std::net::{Ipv4Addr, SocketAddrV4};

/// What carries frames between two daemons.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// `socket` with `udp=`.
    Udp,
    /// `dgram` on UDP.
    Dgram,
    /// `stream` on TCP.
    Stream,
    /// `l2tpv3` over UDP, without a cookie or counter.
    L2tpv3,
    /// `vxlan`, which QEMU lacks.
    Vxlan,
}

/// Where one end of a transport is.
#[derive(Debug, Clone, Copy)]
pub struct Ends {
    /// Its own address.
    pub local: SocketAddrV4,
    /// The other one's.
    pub remote: SocketAddrV4,
    /// Whether it is the one that listens, where one has to.
    pub listens: bool,
}

/// Datagrams of one message of a source that has many.
const BUNDLE: usize = 16;

/// Session of L2TPv3, and network of VXLAN.
pub const SESSION: u32 = 7;
/// Port of VXLAN (RFC 7348 §5).
pub const VXLAN_PORT: u16 = 4789;

impl Transport {
    /// Those that QEMU has.
    pub const OF_QEMU: [Self; 4] = [Self::Udp, Self::Dgram, Self::Stream, Self::L2tpv3];

    /// For `--only`.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Dgram => "dgram",
            Self::Stream => "stream",
            Self::L2tpv3 => "l2tpv3",
            Self::Vxlan => "vxlan",
        }
    }

    /// For tables.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Udp => "socket udp",
            Self::L2tpv3 => "l2tpv3 udp",
            _ => self.word(),
        }
    }

    /// The netdev `id`, as the option `-netdev` takes it.
    #[must_use]
    pub fn netdev(self, id: &str, ends: &Ends) -> String {
        let Ends { local, remote, listens } = ends;
        let (here, there) = (local.ip(), remote.ip());
        match self {
            Self::Udp => format!("socket,id={id},udp={remote},localaddr={local}"),
            Self::Dgram => {
                let of = |name, at: &SocketAddrV4| {
                    format!("{name}.type=inet,{name}.host={},{name}.port={}", at.ip(), at.port())
                };
                format!("dgram,id={id},{},{}", of("local", local), of("remote", remote))
            }
            Self::Stream => {
                let (server, at) = if *listens { ("on", local) } else { ("off", remote) };
                let (host, port) = (at.ip(), at.port());
                format!("stream,id={id},server={server},addr.type=inet,addr.host={host},addr.port={port}")
            }
            Self::L2tpv3 => format!(
                "l2tpv3,id={id},src={here},dst={there},udp=on,srcport={},dstport={},txsession={SESSION},rxsession={SESSION}",
                local.port(),
                remote.port()
            ),
            Self::Vxlan => {
                format!("vxlan,id={id},remote={there},local={here},vni={SESSION},port={VXLAN_PORT}")
            }
        }
    }
}

/// From where to where frames go through one daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// From a tap.
    Out,
    /// From one transport to another one of the same kind.
    Through,
    /// To a tap.
    In,
}

/// One row of the part `frames`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Case {
    /// From where to where.
    pub way: Way,
    /// By what.
    pub transport: Transport,
    /// Whether the source puts several datagrams into one message, as netdevd does.
    pub bundled: bool,
}

/// Ports on the loopback of the daemon's namespace: of both netdevs, and of the source and the sink in front of them.
const FROM: u16 = 21_000;
const SOURCE: u16 = 21_001;
const TO: u16 = 21_002;
/// Where the sink of datagrams is.
pub const SINK: u16 = 21_003;

/// The taps in the daemon's namespace.
pub const TAPS: [&str; 2] = ["ta", "tb"];

/// An address on the loopback.
#[must_use]
pub fn here(port: u16) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::LOCALHOST, port)
}

/// The netdev of a tap.
#[must_use]
pub fn tap(id: &str, interface: &str) -> String {
    format!("tap,id={id},ifname={interface},script=no,downscript=no")
}

impl Case {
    /// All rows.
    #[must_use]
    pub fn all() -> Vec<Self> {
        let of = |way| Transport::OF_QEMU.map(|transport| Self { way, transport, bundled: false });
        // QEMU reads many datagrams a call: a source of single ones is slower than it is.
        let bundled = |way| Self { way, transport: Transport::L2tpv3, bundled: true };
        let ways = [Way::Out, Way::Through, Way::In].into_iter().flat_map(of);
        ways.chain([Way::Through, Way::In].map(bundled)).collect()
    }

    fn ends(&self) -> [&'static str; 2] {
        let word = self.transport.word();
        match self.way {
            Way::Out => ["tap", word],
            Way::Through => [word, word],
            Way::In => [word, "tap"],
        }
    }

    /// What `--only` names: `tap-dgram`, `dgram-dgram`, `dgram-tap`.
    #[must_use]
    pub fn id(&self) -> String {
        let ends = self.ends().join("-");
        if self.bundled { ends + "-gso" } else { ends }
    }

    /// Whether `--only` with this word names it.
    #[must_use]
    pub fn is(&self, word: &str) -> bool {
        word == self.id() || word == self.transport.word()
    }

    /// For tables.
    #[must_use]
    pub fn name(&self) -> String {
        let name = self.transport.name();
        let from = if self.bundled { format!("{name}, GSO") } else { name.to_owned() };
        match self.way {
            Way::Out => format!("tap -> {name}"),
            Way::Through => format!("{from} -> {name}"),
            Way::In => format!("{from} -> tap"),
        }
    }

    /// How many times as good as QEMU is wanted.
    #[must_use]
    pub fn wanted(&self) -> f64 {
        match self.way {
            Way::Out => 3.0,
            Way::Through => 2.0,
            Way::In => 1.5,
        }
    }

    /// The two netdevs.
    #[must_use]
    pub fn netdevs(&self) -> [String; 2] {
        let netdev = |id, local, remote| {
            self.transport.netdev(id, &Ends { local: here(local), remote: here(remote), listens: true })
        };
        let from = if self.way == Way::Out { tap("a", TAPS[0]) } else { netdev("a", FROM, SOURCE) };
        let to = if self.way == Way::In { tap("b", TAPS[1]) } else { netdev("b", TO, SINK) };
        [from, to]
    }

    /// The interfaces that have to be up.
    #[must_use]
    pub fn taps(&self) -> &'static [&'static str] {
        match self.way {
            Way::Out => &TAPS[..1],
            Way::Through => &[],
            Way::In => &TAPS[1..],
        }
    }

    /// Options of `pktgen`: the source, and a sink that reads where the transport needs one.
    #[must_use]
    pub fn pktgen(&self) -> Vec<String> {
        let (source, to, session) = (here(SOURCE), here(FROM), SESSION);
        let mut words = match (self.way, self.transport) {
            (Way::Out, _) => vec!["--packet".to_owned(), TAPS[0].to_owned()],
            (_, Transport::Stream) => vec!["--stream".to_owned(), to.to_string()],
            (_, Transport::L2tpv3) => {
                let segments = if self.bundled { BUNDLE } else { 1 };
                vec!["--datagrams".to_owned(), format!("{source},{to},{session},{segments}")]
            }
            _ => vec!["--datagrams".to_owned(), format!("{source},{to}")],
        };
        if self.reads() {
            words.extend(["--stream".to_owned(), here(TO).to_string()]);
        }
        words
    }

    /// Whether the load has to read what comes out: a stream that nobody reads stops its sender.
    #[must_use]
    pub fn reads(&self) -> bool {
        self.transport == Transport::Stream && self.way != Way::In
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_has_a_name_of_its_own() {
        let mut ids: Vec<String> = Case::all().iter().map(Case::id).collect();
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), 14);
        let named = |word: &str| Case::all().iter().filter(|case| case.is(word)).count();
        assert_eq!([named("dgram"), named("tap-dgram"), named("tap")], [3, 1, 0]);
    }

    #[test]
    fn netdevs_are_in_the_words_of_qemu() {
        let case = Case { way: Way::Out, transport: Transport::Udp, bundled: false };
        let [from, to] = case.netdevs();
        assert_eq!(from, "tap,id=a,ifname=ta,script=no,downscript=no");
        assert_eq!(to, "socket,id=b,udp=127.0.0.1:21003,localaddr=127.0.0.1:21002");
        let ends = Ends { local: here(1), remote: here(2), listens: false };
        assert!(
            Transport::Stream
                .netdev("s", &ends)
                .ends_with("server=off,addr.type=inet,addr.host=127.0.0.1,addr.port=2")
        );
        assert_eq!(
            Transport::Vxlan.netdev("v", &ends),
            "vxlan,id=v,remote=127.0.0.1,local=127.0.0.1,vni=7,port=4789"
        );
    }
}
