//! One TCP connection as the rewriter follows it (QEMU `net/filter-rewriter.c`, RFC 9293 for the rest): a pure function of what came.
//!
//! The client and the primary guest agreed on sequence numbers of the primary's; the secondary guest began with its own. The difference is known
//! when both first numbers are: the secondary's from its SYN-ACK, the primary's from the client's first ACK.
//!
//! | from | seen | then |
//! |---|---|---|
//! | any | SYN of the client | a handshake begins, unless it is a late copy (its SYN-ACK tells) |
//! | handshake | SYN-ACK of the secondary, ACK of the client, in either order | open, offset = secondary's first number - primary's |
//! | any | SYN of the guest | it calls; numbers are left alone |
//! | open | FIN of the client, FIN of the guest, ACK of that | closed |
//! | open | FIN of the guest, FIN of the client | closed |
//!
//! What was closed is still rewritten, as its last ACK is under way; its place is the first to be used anew. QEMU forgets it at once, and compares the ACK
//! of a FIN in numbers of the other side, so that most connections that the client ends stay in its table.

use crate::wire::l4::{ACK, FIN, SYN};

/// Where a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(u8)]
pub enum State {
    /// Over, or never begun.
    #[default]
    Closed,
    /// The guest calls.
    Calling,
    /// The client calls.
    Handshake,
    /// Both talk.
    Open,
    /// The client has ended its side.
    ClientEnded,
    /// Then the guest has.
    BothEnded,
    /// The guest has ended its side.
    GuestEnded,
}

/// Which of the two first numbers is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(u8)]
pub enum Known {
    /// Neither.
    #[default]
    None,
    /// The secondary's.
    Secondary,
    /// The primary's.
    Primary,
    /// Both: the difference.
    Offset,
}

/// A connection: what is kept of it in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Conn {
    /// Where it is.
    pub state: State,
    /// What `value` is.
    pub known: Known,
    /// A first number, or the difference.
    pub value: u32,
    /// A SYN of the client came while it was open.
    pub again: bool,
}

/// What only frames of the guest change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Marks {
    /// Number of its SYN-ACK.
    pub first: u32,
    /// Number of its FIN.
    pub fin: u32,
}

/// What a TCP header says, as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// Its flags.
    pub flags: u16,
    /// Its number.
    pub seq: u32,
    /// The number that is acknowledged.
    pub ack: u32,
    /// Bytes of data.
    pub len: u32,
}

impl Segment {
    const fn has(&self, flags: u16) -> bool {
        self.flags & flags == flags
    }

    const fn is_syn(&self) -> bool {
        self.has(SYN) && !self.has(ACK)
    }

    /// The number of its FIN.
    const fn fin(&self) -> u32 {
        self.seq.wrapping_add(self.len)
    }
}

impl Conn {
    /// As a word.
    #[must_use]
    pub const fn pack(self) -> u64 {
        (self.value as u64) << 32 | (self.again as u64) << 16 | (self.known as u64) << 8 | self.state as u64
    }

    /// From a word.
    #[must_use]
    pub const fn unpack(word: u64) -> Self {
        let state = match word & 0xff {
            1 => State::Calling,
            2 => State::Handshake,
            3 => State::Open,
            4 => State::ClientEnded,
            5 => State::BothEnded,
            6 => State::GuestEnded,
            _ => State::Closed,
        };
        let known = match word >> 8 & 0xff {
            1 => Known::Secondary,
            2 => Known::Primary,
            3 => Known::Offset,
            _ => Known::None,
        };
        Self { state, known, value: (word >> 32) as u32, again: word >> 16 & 1 == 1 }
    }

    /// What the primary's numbers and the secondary's differ by, as far as that is known.
    #[must_use]
    pub const fn offset(&self) -> u32 {
        if matches!(self.known, Known::Offset) { self.value } else { 0 }
    }

    /// A frame on its way to the guest. Returns what is to be added to its acknowledgement.
    pub const fn to_guest(&mut self, marks: Marks, seg: Segment) -> u32 {
        if seg.is_syn() {
            if matches!(self.state, State::Closed) || !matches!(self.known, Known::Offset) {
                *self = Self { state: State::Handshake, known: Known::None, value: 0, again: false };
            } else {
                self.again = true;
            }
            return 0;
        }
        if seg.has(SYN) && matches!(self.state, State::Calling) {
            self.state = State::Open;
        }
        if !seg.has(SYN) && seg.has(ACK) && matches!(self.state, State::Handshake) {
            let primary = seg.ack.wrapping_sub(1);
            match self.known {
                Known::None => (self.known, self.value) = (Known::Primary, primary),
                Known::Secondary => self.open(self.value, primary),
                Known::Primary | Known::Offset => {}
            }
        }
        let add = if seg.has(SYN) { 0 } else { self.offset() };
        let acked = seg.has(ACK) && seg.ack.wrapping_add(add) == marks.fin.wrapping_add(1);
        if matches!(self.state, State::BothEnded) && acked {
            self.state = State::Closed;
        }
        if seg.has(FIN) {
            self.state = match self.state {
                State::Open => State::ClientEnded,
                State::GuestEnded => State::Closed,
                other => other,
            };
        }
        add
    }

    /// A frame of the guest's. Returns what is to be taken from its number.
    pub const fn from_guest(&mut self, marks: &mut Marks, seg: Segment) -> u32 {
        if seg.is_syn() {
            if matches!(self.state, State::Closed) {
                *self = Self { state: State::Calling, known: Known::None, value: 0, again: false };
            }
            return 0;
        }
        if seg.has(SYN | ACK) {
            match self.known {
                // One that is sent again has the number that it had.
                Known::Offset if !self.again || marks.first == seg.seq => {}
                Known::Primary => self.open(seg.seq, self.value),
                _ if matches!(self.state, State::Calling | State::Closed) => {}
                _ => {
                    *self = Self {
                        state: State::Handshake,
                        known: Known::Secondary,
                        value: seg.seq,
                        again: false,
                    };
                }
            }
            marks.first = seg.seq;
            return 0;
        }
        if seg.has(FIN) {
            match self.state {
                State::Open => self.state = State::GuestEnded,
                State::ClientEnded => self.state = State::BothEnded,
                _ => {}
            }
            marks.fin = seg.fin();
        }
        self.offset()
    }

    const fn open(&mut self, secondary: u32, primary: u32) {
        *self = Self {
            state: State::Open,
            known: Known::Offset,
            value: secondary.wrapping_sub(primary),
            again: false,
        };
    }
}
