//! Why a ring stopped.

/// What a driver (or device) did that no correct one does. It ends the ring, and nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RingFault {
    /// A size that no ring has.
    #[error("ring size {0} is not possible (split: a power of two up to 32768; packed: 1 to 32768)")]
    Size(u16),
    /// A position beyond the ring.
    #[error("ring position {0} lies beyond a ring of {1}")]
    Position(u16, u16),
    /// A part of the ring that is not aligned as virtio asks for.
    #[error("a part of the ring is not aligned")]
    Alignment,
    /// An index moved back, or by more than the ring holds.
    #[error("an index of the ring jumped from {from} to {to} on a ring of {size}")]
    Jump {
        /// The index that was expected next.
        from: u16,
        /// The index found.
        to: u16,
        /// Entries of the ring.
        size: u16,
    },
    /// A descriptor number beyond the ring or its indirect table.
    #[error("descriptor {0} lies beyond a table of {1}")]
    Descriptor(u16, u32),
    /// A chain with more descriptors than can be, or one that loops.
    #[error("a chain of descriptors loops or is too long")]
    Chain,
    /// A buffer outside guest memory, or across the end of a region.
    #[error("buffer of {len} bytes at {addr:#x} lies outside of guest memory")]
    Address {
        /// Guest address.
        addr: u64,
        /// Length in bytes.
        len: u32,
    },
    /// A buffer without a byte.
    #[error("a buffer has no bytes")]
    Empty,
    /// A chain on a packed ring whose first descriptor is available and a later one is not.
    #[error("a chain is available in part")]
    Torn,
    /// A writable buffer where a readable one belongs, or the other way round.
    #[error("a buffer has the wrong direction for this queue")]
    Direction,
    /// An indirect table within one, of a length that is no table, or where none was agreed on.
    #[error("an indirect table is nested, empty, cut or was not agreed on")]
    Indirect,
    /// A command of the control queue without its two bytes of header, or without a byte for the answer.
    #[error("a control command has no header, or no room for its status")]
    Command,
    /// A buffer name that is not under way (driver side).
    #[error("the device used buffer {0}, which it does not have")]
    NotUnderWay(u32),
    /// More bytes written to a buffer than it has (driver side).
    #[error("the device wrote {written} bytes to a buffer of {room}")]
    Overrun {
        /// Bytes that the device says it wrote.
        written: u32,
        /// Bytes of the buffer.
        room: u32,
    },
    /// A frame of no buffer, or of more buffers than there are (driver side).
    #[error("the device made a frame of {0} buffers")]
    Merged(u16),
}
