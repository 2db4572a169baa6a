//! The header of an L2TPv3 data message (RFC 3931 §4.1; QEMU net/l2tpv3.c).
//!
//! ```text
//! UDP only: 00 03 00 00 | session, 4 | cookie, 0, 4 or 8 | counter, 0 or 4 | offset, 0 to 256 | frame
//! ```
//!
//! A datagram's flags word, counter, offset bytes, sender and port are not looked at, as QEMU does not: cookie and session decide.

use super::options::{Cookies, Counter, L2tpv3Options, OFFSET_MOST};
use crate::backend::datagram::framing::Framing;
use crate::port::counters::DropReason;

/// The version of a data message over UDP (RFC 3931 §4.1.2.1).
const DATA_OVER_UDP: [u8; 4] = [0, 3, 0, 0];

/// Flags word, session, cookie, counter, offset.
const LONGEST: usize = 4 + 4 + 8 + 4 + OFFSET_MOST as usize;

/// The shortest IPv4 header.
const IPV4_LEAST: usize = 20;

/// What one half of a tunnel writes before its frames, and expects before those of the other end.
#[derive(Debug, Clone)]
pub(super) struct Header {
    /// As it goes out, up to the counter's value; the offset bytes are zero.
    sent: [u8; LONGEST],
    /// Bytes of a header, in either direction.
    len: usize,
    /// Where the counter stands, if it counts.
    counter_at: Option<usize>,
    /// The counter as it was sent last.
    count: u32,
    /// Received datagrams begin with an IPv4 header: raw IPv4 sockets give it (ip(7), raw(7)).
    behind_ipv4: bool,
    /// Where the session stands.
    session_at: usize,
    rx_session: u32,
    rx_cookie: RxCookie,
}

#[derive(Debug, Clone, Copy)]
enum RxCookie {
    None,
    Short([u8; 4]),
    Long([u8; 8]),
}

impl Header {
    pub(super) fn new(options: &L2tpv3Options) -> Self {
        let udp = options.ports.is_some();
        let mut sent = [0; LONGEST];
        let mut len = 0;
        let mut put = |bytes: &[u8]| {
            if let Some(to) = sent.get_mut(len..len + bytes.len()) {
                to.copy_from_slice(bytes);
                len += bytes.len();
            }
            len
        };
        if udp {
            put(&DATA_OVER_UDP);
        }
        let session_at = put(&options.tx_session.to_be_bytes()) - 4;
        let rx_cookie = match options.cookies {
            None => RxCookie::None,
            Some(Cookies::Short { tx, rx }) => {
                put(&tx.to_be_bytes());
                RxCookie::Short(rx.to_be_bytes())
            }
            Some(Cookies::Long { tx, rx }) => {
                put(&tx.to_be_bytes());
                RxCookie::Long(rx.to_be_bytes())
            }
        };
        let counter_at = match options.counter {
            Counter::None => None,
            Counter::Counting => Some(put(&[0; 4]) - 4),
            Counter::Pinned => {
                put(&[0; 4]);
                None
            }
        };
        let len = (len + options.offset as usize).min(LONGEST);
        let behind_ipv4 = !udp && !options.ipv6;
        let rx_session = options.rx_session;
        Self { sent, len, counter_at, count: 0, behind_ipv4, session_at, rx_session, rx_cookie }
    }
}

/// Whether `bytes` are what stands at `at` of `front`.
fn stands<const N: usize>(front: &[u8], at: usize, bytes: &[u8; N]) -> bool {
    front.get(at..).and_then(|rest| rest.first_chunk::<N>()) == Some(bytes)
}

impl Framing for Header {
    fn len(&self) -> usize {
        self.len
    }

    fn head(&mut self, to: &mut [u8]) {
        for (to, from) in to.iter_mut().zip(self.sent.iter().take(self.len)) {
            *to = *from;
        }
        if let Some(at) = self.counter_at {
            self.count = self.count.wrapping_add(1);
            if let Some(to) = to.get_mut(at..at + 4) {
                to.copy_from_slice(&self.count.to_be_bytes());
            }
        }
    }

    fn undo(&mut self, frames: usize) {
        self.count = self.count.wrapping_sub(frames as u32);
    }

    /// In QEMU's order: the length, the cookie, the session. An IPv4 header is as long as it says, where QEMU takes 20 bytes for granted.
    fn strip(&mut self, front: &[u8], total: usize) -> Result<usize, DropReason> {
        let ip = match front.first() {
            Some(first) if self.behind_ipv4 => usize::from(first & 0xf) * 4,
            _ => 0,
        };
        if total <= ip + self.len || (self.behind_ipv4 && ip < IPV4_LEAST) {
            return Err(DropReason::ShortHeader);
        }
        let session_at = ip + self.session_at;
        let cookie_fits = match &self.rx_cookie {
            RxCookie::None => true,
            RxCookie::Short(bytes) => stands(front, session_at + 4, bytes),
            RxCookie::Long(bytes) => stands(front, session_at + 4, bytes),
        };
        if !cookie_fits {
            return Err(DropReason::WrongCookie);
        }
        if !stands(front, session_at, &self.rx_session.to_be_bytes()) {
            return Err(DropReason::WrongSession);
        }
        Ok(ip + self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn udp() -> L2tpv3Options {
        L2tpv3Options {
            src: "127.0.0.1".into(),
            dst: "127.0.0.1".into(),
            ports: Some(("1".into(), "2".into())),
            ipv6: false,
            tx_session: 0x0102_0304,
            rx_session: 0x0a0b_0c0d,
            cookies: None,
            counter: Counter::None,
            offset: 0,
        }
    }

    fn ip() -> L2tpv3Options {
        L2tpv3Options { ports: None, ..udp() }
    }

    fn head(header: &mut Header) -> Vec<u8> {
        let mut bytes = vec![0xee; header.len()];
        header.head(&mut bytes);
        bytes
    }

    #[test]
    fn what_goes_out_is_as_the_options_say() {
        let short = Some(Cookies::Short { tx: 0xc001_c002, rx: 1 });
        let long = Some(Cookies::Long { tx: 0xc001_c002_c003_c004, rx: 1 });
        let cases: [(L2tpv3Options, &[u8]); 6] = [
            (udp(), &[0, 3, 0, 0, 1, 2, 3, 4]),
            (ip(), &[1, 2, 3, 4]),
            (L2tpv3Options { cookies: short, ..udp() }, &[0, 3, 0, 0, 1, 2, 3, 4, 0xc0, 1, 0xc0, 2]),
            (L2tpv3Options { cookies: long, ..ip() }, &[1, 2, 3, 4, 0xc0, 1, 0xc0, 2, 0xc0, 3, 0xc0, 4]),
            (
                L2tpv3Options { counter: Counter::Pinned, offset: 2, ..udp() },
                &[0, 3, 0, 0, 1, 2, 3, 4, 0, 0, 0, 0, 0, 0],
            ),
            (L2tpv3Options { counter: Counter::Counting, ..ip() }, &[1, 2, 3, 4, 0, 0, 0, 1]),
        ];
        for (options, bytes) in cases {
            assert_eq!(head(&mut Header::new(&options)), bytes, "{options:?}");
        }
        let longest =
            L2tpv3Options { cookies: long, counter: Counter::Counting, offset: OFFSET_MOST, ..udp() };
        assert_eq!(head(&mut Header::new(&longest)).len(), LONGEST);
    }

    #[test]
    fn the_counter_counts_from_one_and_wraps() {
        let mut header = Header::new(&L2tpv3Options { counter: Counter::Counting, offset: 1, ..udp() });
        let mut next = || head(&mut header)[8..].to_vec();
        assert_eq!([next(), next()], [[0, 0, 0, 1, 0], [0, 0, 0, 2, 0]]);
        header.undo(2);
        assert_eq!(head(&mut header)[8..12], [0, 0, 0, 1], "what did not go is not counted");
        header.count = u32::MAX;
        assert_eq!(head(&mut header)[8..12], [0; 4]);
    }

    /// A header as the other end writes it, and a frame of one byte.
    fn datagram(options: &L2tpv3Options) -> Vec<u8> {
        let cookies = options.cookies.map(|cookies| match cookies {
            Cookies::Short { tx, rx } => Cookies::Short { tx: rx, rx: tx },
            Cookies::Long { tx, rx } => Cookies::Long { tx: rx, rx: tx },
        });
        let other = L2tpv3Options { tx_session: options.rx_session, cookies, ..options.clone() };
        let mut bytes = head(&mut Header::new(&other));
        bytes.push(0x55);
        bytes
    }

    #[test]
    fn only_cookie_and_session_decide() {
        let long = Some(Cookies::Long { tx: 1, rx: 0x1122_3344_5566_7788 });
        let options = L2tpv3Options { cookies: long, counter: Counter::Counting, offset: 3, ..udp() };
        let (mut header, good) = (Header::new(&options), datagram(&options));
        let len = header.len();
        assert_eq!(len, 4 + 4 + 8 + 4 + 3);
        assert_eq!(header.strip(&good, good.len()), Ok(len));
        for at in 0..len {
            let mut bytes = good.clone();
            bytes[at] ^= 0x40;
            let expected = match at {
                4..8 => Err(DropReason::WrongSession),
                8..16 => Err(DropReason::WrongCookie),
                _ => Ok(len),
            };
            assert_eq!(header.strip(&bytes, bytes.len()), expected, "byte {at}");
        }
        let mut both = good.clone();
        (both[4], both[8]) = (0xff, 0xff);
        assert_eq!(header.strip(&both, both.len()), Err(DropReason::WrongCookie), "it is compared first");
    }

    #[test]
    fn a_datagram_without_a_frame_is_short() {
        let short = Some(Cookies::Short { tx: 1, rx: 2 });
        for options in [
            udp(),
            L2tpv3Options { cookies: short, offset: 4, ..udp() },
            L2tpv3Options { ipv6: true, ..ip() },
        ] {
            let (mut header, good) = (Header::new(&options), datagram(&options));
            for len in 0..good.len() {
                let found = header.strip(&good[..len], len);
                assert_eq!(found, Err(DropReason::ShortHeader), "{len} bytes of {options:?}");
            }
        }
    }

    #[test]
    fn an_ipv4_header_is_as_long_as_it_says() {
        let (mut header, rest) = (Header::new(&ip()), datagram(&ip()));
        for words in 5..=15 {
            let mut bytes = vec![0; words * 4];
            bytes[0] = 0x40 | words as u8;
            bytes.extend_from_slice(&rest);
            assert_eq!(header.strip(&bytes, bytes.len()), Ok(words * 4 + 4));
            assert_eq!(
                header.strip(&bytes[..bytes.len() - 1], bytes.len() - 1),
                Err(DropReason::ShortHeader)
            );
        }
        let mut bad = vec![0x44; 16];
        bad.extend_from_slice(&rest);
        assert_eq!(
            header.strip(&bad, bad.len()),
            Err(DropReason::ShortHeader),
            "no IPv4 header is that short"
        );
    }
}
