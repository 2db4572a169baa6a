//! The machine.

use super::program::{Alu, At, MEMORY, Op, Program, Test};

/// The bytes of one frame, as a program asks for them.
pub(super) trait Bytes {
    /// Length of the frame.
    fn len(&self) -> u32;

    /// `N` bytes at `at`, if the frame has them.
    fn get<const N: usize>(&self, at: u32) -> Option<[u8; N]>;
}

impl Program {
    /// Runs over a frame; what it returns is 0 for a frame that does not match. A look behind the frame's end is 0, and so
    /// is a division by zero.
    #[inline]
    pub(super) fn run(&self, frame: &impl Bytes) -> u32 {
        self.steps(frame).unwrap_or(0)
    }

    fn steps(&self, frame: &impl Bytes) -> Option<u32> {
        let (mut a, mut x, mut at) = (0u32, 0u32, 0usize);
        let mut memory = [0u32; MEMORY];
        let place = |base: At, k: u32, x: u32| match base {
            At::K => Some(k),
            At::X => k.checked_add(x),
        };
        loop {
            let op = self.ops.get(at)?;
            at += 1;
            match *op {
                Op::Word(base, k) => a = u32::from_be_bytes(frame.get(place(base, k, x)?)?),
                Op::Half(base, k) => a = u16::from_be_bytes(frame.get(place(base, k, x)?)?).into(),
                Op::Byte(base, k) => a = u8::from_be_bytes(frame.get(place(base, k, x)?)?).into(),
                Op::HeaderX(k) => x = u32::from(u8::from_be_bytes(frame.get(k)?) & 0xf) << 2,
                Op::LenA => a = frame.len(),
                Op::LenX => x = frame.len(),
                Op::ImmA(k) => a = k,
                Op::ImmX(k) => x = k,
                Op::LoadA(m) => a = *memory.get(usize::from(m))?,
                Op::LoadX(m) => x = *memory.get(usize::from(m))?,
                Op::StoreA(m) => *memory.get_mut(usize::from(m))? = a,
                Op::StoreX(m) => *memory.get_mut(usize::from(m))? = x,
                Op::AluK(alu, k) => a = alu.of(a, k)?,
                Op::AluX(alu) => a = alu.of(a, x)?,
                Op::Neg => a = a.wrapping_neg(),
                Op::Always(by) => at += by as usize,
                Op::JumpK(test, k, jt, jf) => at += usize::from(if test.holds(a, k) { jt } else { jf }),
                Op::JumpX(test, jt, jf) => at += usize::from(if test.holds(a, x) { jt } else { jf }),
                Op::RetK(k) => return Some(k),
                Op::RetA => return Some(a),
                Op::Tax => x = a,
                Op::Txa => a = x,
            }
        }
    }
}

impl Alu {
    #[inline]
    fn of(self, a: u32, b: u32) -> Option<u32> {
        Some(match self {
            Self::Add => a.wrapping_add(b),
            Self::Sub => a.wrapping_sub(b),
            Self::Mul => a.wrapping_mul(b),
            Self::Div => a.checked_div(b)?,
            Self::Mod => a.checked_rem(b)?,
            Self::Or => a | b,
            Self::And => a & b,
            Self::Xor => a ^ b,
            // libpcap's bpf_filter: what is shifted out is gone.
            Self::Lsh => a.checked_shl(b).unwrap_or(0),
            Self::Rsh => a.checked_shr(b).unwrap_or(0),
        })
    }
}

impl Test {
    #[inline]
    const fn holds(self, a: u32, b: u32) -> bool {
        match self {
            Self::Eq => a == b,
            Self::Gt => a > b,
            Self::Ge => a >= b,
            Self::Set => a & b != 0,
        }
    }
}
