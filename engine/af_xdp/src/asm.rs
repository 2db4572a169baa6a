//! The instructions of the redirecting program, assembled (instruction set: RFC 9669; context: `struct xdp_md`).

use crate::program::Filter;

/// One instruction (`struct bpf_insn`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Insn {
    code: u8,
    /// Source in the high half, destination in the low one.
    registers: u8,
    offset: i16,
    immediate: i32,
}

/// What the program returns for a frame that the kernel keeps (`XDP_PASS`).
pub const PASS: u32 = 2;
/// What it returns for a frame that goes to a socket (`XDP_REDIRECT`).
pub const REDIRECT: u32 = 4;

// Opcodes.
const LOAD_32: u8 = 0x61;
const LOAD_16: u8 = 0x69;
const LOAD_IMM_64: u8 = 0x18;
const MOVE: u8 = 0xbf;
const MOVE_IMM: u8 = 0xb7;
const ADD_IMM: u8 = 0x07;
const AND_IMM: u8 = 0x57;
const JUMP_GREATER: u8 = 0x2d;
const JUMP_NOT_IMM_32: u8 = 0x56;
const JUMP_IS_IMM: u8 = 0x15;
const CALL: u8 = 0x85;
const EXIT: u8 = 0x95;
/// The immediate of a load is a descriptor of a map.
const PSEUDO_MAP_FD: u8 = 1;
const REDIRECT_MAP: i32 = 51;

// Members of the context.
const DATA: i16 = 0;
const DATA_END: i16 = 4;
const RX_QUEUE_INDEX: i16 = 16;

/// A program under way; jumps to the end that passes frames on are resolved by [`Assembly::finish`].
#[derive(Debug, Default)]
struct Assembly {
    code: Vec<Insn>,
    to_pass: Vec<usize>,
}

impl Assembly {
    fn put(&mut self, code: u8, dst: u8, src: u8, offset: i16, immediate: i32) {
        self.code.push(Insn { code, registers: src << 4 | dst, offset, immediate });
    }

    /// A jump that is taken to the end which passes the frame on.
    fn pass_if(&mut self, code: u8, dst: u8, src: u8, immediate: i32) {
        self.to_pass.push(self.code.len());
        self.put(code, dst, src, 0, immediate);
    }

    /// Passes the frame on unless the bytes at `at` (r2 points to the frame) are these.
    fn want_32(&mut self, at: i16, bytes: [u8; 4]) {
        self.put(LOAD_32, 5, 2, at, 0);
        self.pass_if(JUMP_NOT_IMM_32, 5, 0, i32::from_ne_bytes(bytes));
    }

    fn want_16(&mut self, at: i16, bytes: [u8; 2]) {
        self.put(LOAD_16, 5, 2, at, 0);
        self.pass_if(JUMP_NOT_IMM_32, 5, 0, u16::from_ne_bytes(bytes).into());
    }

    fn finish(mut self) -> Vec<Insn> {
        if self.to_pass.is_empty() {
            return self.code; // the verifier refuses what cannot be reached
        }
        let end = self.code.len();
        self.put(MOVE_IMM, 0, 0, 0, PASS as i32);
        self.put(EXIT, 0, 0, 0, 0);
        for at in self.to_pass {
            if let Some(insn) = self.code.get_mut(at) {
                insn.offset = (end - at - 1) as i16;
            }
        }
        self.code
    }
}

/// The program: a frame that `filter` selects goes to the socket that `map` has for its queue; every other, and one of a queue without a
/// socket, to the kernel.
#[must_use]
pub fn redirect(map: i32, filter: &Filter) -> Vec<Insn> {
    let mut asm = Assembly::default();
    asm.put(MOVE, 6, 1, 0, 0);
    if *filter != Filter::default() {
        select(&mut asm, filter);
    }
    asm.put(LOAD_IMM_64, 1, PSEUDO_MAP_FD, 0, map);
    asm.put(0, 0, 0, 0, 0);
    asm.put(LOAD_32, 2, 6, RX_QUEUE_INDEX, 0);
    // What is done where the map has no socket for the queue.
    asm.put(MOVE_IMM, 3, 0, 0, PASS as i32);
    asm.put(CALL, 0, 0, 0, REDIRECT_MAP);
    asm.put(EXIT, 0, 0, 0, 0);
    asm.finish()
}

fn select(asm: &mut Assembly, filter: &Filter) {
    let header = if filter.vlan.is_some() { 18 } else { 14 };
    asm.put(LOAD_32, 2, 1, DATA, 0);
    asm.put(LOAD_32, 3, 1, DATA_END, 0);
    asm.put(MOVE, 4, 2, 0, 0);
    asm.put(ADD_IMM, 4, 0, 0, header);
    asm.pass_if(JUMP_GREATER, 4, 3, 0);
    if let Some([a, b, c, d, e, f]) = filter.mac {
        asm.want_32(0, [a, b, c, d]);
        asm.want_16(4, [e, f]);
    }
    if let Some(vlan) = filter.vlan {
        // An 802.1Q tag, or an 802.1ad one.
        asm.put(LOAD_16, 5, 2, 12, 0);
        asm.put(JUMP_IS_IMM, 5, 0, 1, u16::from_ne_bytes([0x81, 0x00]).into());
        asm.pass_if(JUMP_NOT_IMM_32, 5, 0, u16::from_ne_bytes([0x88, 0xa8]).into());
        asm.put(LOAD_16, 5, 2, 14, 0);
        // Twelve bits of the tag are the VLAN, whatever priority it has.
        asm.put(AND_IMM, 5, 0, 0, u16::from_ne_bytes([0x0f, 0xff]).into());
        asm.pass_if(JUMP_NOT_IMM_32, 5, 0, u16::from_ne_bytes((vlan & 0xfff).to_be_bytes()).into());
    }
    if let Some(kind) = filter.ethertype {
        asm.want_16(header as i16 - 2, kind.to_be_bytes());
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn without_a_filter_it_is_seven_instructions() {
        let code = redirect(9, &Filter::default());
        assert_eq!(code.len(), 7);
        assert_eq!(code[1], Insn { code: LOAD_IMM_64, registers: 0x11, offset: 0, immediate: 9 });
        assert_eq!(code[3], Insn { code: LOAD_32, registers: 0x62, offset: 16, immediate: 0 });
    }

    #[test]
    fn every_jump_of_a_filter_leads_to_the_end_that_passes() {
        let filter = Filter { mac: Some([1, 2, 3, 4, 5, 6]), ethertype: Some(0x0800), vlan: Some(7) };
        let code = redirect(9, &filter);
        let end = code.len() - 2;
        assert_eq!(code[end], Insn { code: MOVE_IMM, registers: 0, offset: 0, immediate: PASS as i32 });
        let jumps: Vec<usize> = code
            .iter()
            .enumerate()
            .filter(|(_, i)| i.code == JUMP_NOT_IMM_32 || i.code == JUMP_GREATER)
            .map(|(at, i)| (at as i64 + 1 + i64::from(i.offset)) as usize)
            .collect();
        assert_eq!(jumps, vec![end; 6]);
    }
}
