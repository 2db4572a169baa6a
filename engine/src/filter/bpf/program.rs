//! A program and the checks that it passes before it runs, after which nothing in it can fail.

/// An instruction as libpcap and the kernel have it (`struct bpf_insn`, `<pcap/bpf.h>`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Insn {
    /// What to do.
    pub code: u16,
    /// Instructions to skip when a comparison holds.
    pub jt: u8,
    /// And when it does not.
    pub jf: u8,
    /// The constant.
    pub k: u32,
}

/// Why a program is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    /// No instruction, or more than there may be.
    #[error("a BPF program has 1 to {MOST} instructions, not {0}")]
    Length(usize),
    /// An instruction that this machine does not know.
    #[error("BPF instruction {at}: unknown code {code:#06x}")]
    Code {
        /// Which one.
        at: usize,
        /// Its code.
        code: u16,
    },
    /// A jump that leaves the program.
    #[error("BPF instruction {0}: the jump leaves the program")]
    Jump(usize),
    /// A place in memory that there is not.
    #[error("BPF instruction {0}: there are only {MEMORY} words of memory")]
    Memory(usize),
    /// A division by the constant 0.
    #[error("BPF instruction {0}: division by zero")]
    Division(usize),
    /// The last instruction is no return.
    #[error("the BPF program does not end with a return")]
    End,
}

/// Instructions of a program at most, as in the kernel (`BPF_MAXINSNS`).
pub(super) const MOST: usize = 4096;

/// Words of scratch memory (`BPF_MEMWORDS`).
pub(super) const MEMORY: usize = 16;

/// The longest start of a frame that is copied before a program runs.
pub(super) const HEAD_MOST: usize = 256;

/// Where an instruction takes bytes of the frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum At {
    /// At a constant.
    K,
    /// At a constant behind the index register.
    X,
}

/// Arithmetic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Alu {
    Add,
    Sub,
    Mul,
    Div,
    Mod,
    Or,
    And,
    Xor,
    Lsh,
    Rsh,
}

/// Comparisons.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Test {
    Eq,
    Gt,
    Ge,
    Set,
}

/// A checked instruction. `k` is its constant; jumps count from the next instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Op {
    /// A word, half word or byte of the frame to A.
    Word(At, u32),
    Half(At, u32),
    Byte(At, u32),
    /// Length of the frame to A or X.
    LenA,
    LenX,
    /// A constant to A or X.
    ImmA(u32),
    ImmX(u32),
    /// Memory to A or X, and back.
    LoadA(u8),
    LoadX(u8),
    StoreA(u8),
    StoreX(u8),
    /// Four times the low half of a byte of the frame to X: the length of an IPv4 header.
    HeaderX(u32),
    /// A and a constant, A and X.
    AluK(Alu, u32),
    AluX(Alu),
    Neg,
    /// Jumps.
    Always(u32),
    JumpK(Test, u32, u8, u8),
    JumpX(Test, u8, u8),
    /// The end: how much of the frame is wanted.
    RetK(u32),
    RetA,
    /// X from A and back.
    Tax,
    Txa,
}

/// A program that was checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    pub(super) ops: Box<[Op]>,
    /// Bytes from the start of a frame that it usually reaches; the rest is fetched when it is wanted.
    pub(super) reach: usize,
}

impl Program {
    /// Checks instructions: every code known, jumps forward and inside, memory that there is, no division by a constant
    /// zero, and a return at the end. Such a program ends, as no jump goes back.
    ///
    /// # Errors
    /// What is wrong, and where.
    pub fn load(insns: &[Insn]) -> Result<Self, LoadError> {
        if insns.is_empty() || insns.len() > MOST {
            return Err(LoadError::Length(insns.len()));
        }
        let one = |(at, insn): (usize, &Insn)| decode(at, insn, insns.len());
        let ops: Box<[Op]> = insns.iter().enumerate().map(one).collect::<Result<_, _>>()?;
        if !matches!(ops.last(), Some(Op::RetK(_) | Op::RetA)) {
            return Err(LoadError::End);
        }
        let reach = ops.iter().map(reach).max().unwrap_or(0);
        Ok(Self { ops, reach })
    }

    /// Number of instructions.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ops.len()
    }

    /// Whether there is none; never so.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }
}

/// How far into a frame an instruction looks, where that is near.
fn reach(op: &Op) -> usize {
    // The index register mostly holds the length of an IPv4 header, 60 at most.
    let (at, k, size) = match *op {
        Op::Word(at, k) => (at, k, 4),
        Op::Half(at, k) => (at, k, 2),
        Op::Byte(at, k) => (at, k, 1),
        Op::HeaderX(k) => (At::K, k, 1),
        _ => return 0,
    };
    let end = k as usize + size + if at == At::X { 60 } else { 0 };
    if end <= HEAD_MOST { end } else { 0 }
}

/// Classes, sizes, modes and operations of codes (`<pcap/bpf.h>`).
mod code {
    pub(super) const K: u16 = 0x00;
    pub(super) const X: u16 = 0x08;
    pub(super) const A: u16 = 0x10;
}

fn decode(at: usize, insn: &Insn, len: usize) -> Result<Op, LoadError> {
    let Insn { code, jt, jf, k } = *insn;
    let unknown = Err(LoadError::Code { at, code });
    let memory =
        |k: u32| u8::try_from(k).ok().filter(|k| usize::from(*k) < MEMORY).ok_or(LoadError::Memory(at));
    Ok(match code & 0x07 {
        // BPF_LD
        0x00 => match code {
            0x20 => Op::Word(At::K, k),
            0x28 => Op::Half(At::K, k),
            0x30 => Op::Byte(At::K, k),
            0x40 => Op::Word(At::X, k),
            0x48 => Op::Half(At::X, k),
            0x50 => Op::Byte(At::X, k),
            0x00 => Op::ImmA(k),
            0x60 => Op::LoadA(memory(k)?),
            0x80 => Op::LenA,
            _ => return unknown,
        },
        // BPF_LDX
        0x01 => match code {
            0x01 => Op::ImmX(k),
            0x61 => Op::LoadX(memory(k)?),
            0x81 => Op::LenX,
            0xb1 => Op::HeaderX(k),
            _ => return unknown,
        },
        0x02 if code == 0x02 => Op::StoreA(memory(k)?),
        0x03 if code == 0x03 => Op::StoreX(memory(k)?),
        // BPF_ALU
        0x04 if code == 0x84 => Op::Neg,
        0x04 => {
            let alu = match code & 0xfff0 {
                0x00 => Alu::Add,
                0x10 => Alu::Sub,
                0x20 => Alu::Mul,
                0x30 => Alu::Div,
                0x40 => Alu::Or,
                0x50 => Alu::And,
                0x60 => Alu::Lsh,
                0x70 => Alu::Rsh,
                0x90 => Alu::Mod,
                0xa0 => Alu::Xor,
                _ => return unknown,
            };
            if code & code::X != 0 {
                Op::AluX(alu)
            } else if k == 0 && matches!(alu, Alu::Div | Alu::Mod) {
                return Err(LoadError::Division(at));
            } else {
                Op::AluK(alu, k)
            }
        }
        // BPF_JMP
        0x05 => {
            let inside = |by: u32| at as u64 + 1 + u64::from(by) < len as u64;
            let jump = |by: u32| if inside(by) { Ok(()) } else { Err(LoadError::Jump(at)) };
            if code == 0x05 {
                jump(k)?;
                return Ok(Op::Always(k));
            }
            let test = match code & 0xfff0 {
                0x10 => Test::Eq,
                0x20 => Test::Gt,
                0x30 => Test::Ge,
                0x40 => Test::Set,
                _ => return unknown,
            };
            jump(jt.into())?;
            jump(jf.into())?;
            if code & code::X != 0 { Op::JumpX(test, jt, jf) } else { Op::JumpK(test, k, jt, jf) }
        }
        // BPF_RET
        0x06 => match code & 0xfff8 {
            code::K => Op::RetK(k),
            code::A => Op::RetA,
            _ => return unknown,
        },
        // BPF_MISC
        0x07 => match code {
            0x07 => Op::Tax,
            0x87 => Op::Txa,
            _ => return unknown,
        },
        _ => return unknown,
    })
}
