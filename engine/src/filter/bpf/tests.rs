//! The machine against libpcap's own, over random frames; what does not load; exchange of programs.

#![allow(unsafe_code)] // frames of vectors, and libpcap's interpreter

use super::compile::is_reentrant;
use super::program::MOST;
use super::*;
use crate::burst::{Burst, Mask, Seg};
use crate::wire::vnet_hdr::VnetHdr;
use libloading::Library;
use proptest::prelude::*;
use std::ptr::NonNull;

fn insn(code: u16, jt: u8, jf: u8, k: u32) -> Insn {
    Insn { code, jt, jf, k }
}

/// A burst of one frame, cut into segments of these lengths.
fn burst(bytes: &[u8], cuts: &[usize]) -> Burst {
    let (mut burst, mut segs, mut at) = (Burst::new(), Vec::new(), 0);
    for cut in cuts.iter().copied().chain([bytes.len()]) {
        let end = (at + cut).min(bytes.len());
        if end > at || (segs.is_empty() && end == bytes.len()) {
            let part = &bytes[at..end];
            // SAFETY: the caller keeps the bytes for as long as it uses the burst.
            segs.push(unsafe { Seg::new(NonNull::from(part).cast(), part.len() as u32) });
            at = end;
        }
    }
    assert!(burst.push(VnetHdr::NONE, &segs));
    burst
}

fn matches(program: &Program, bytes: &[u8], cuts: &[usize]) -> bool {
    let (_, mut matchers) = selection(Some(program.clone()), 1);
    !matchers[0].select(&burst(bytes, cuts), Mask(1)).is_empty()
}

type BpfFilter = unsafe extern "C" fn(*const Insn, *const u8, u32, u32) -> u32;

/// libpcap's answer.
fn oracle(library: &Library, insns: &[Insn], bytes: &[u8]) -> bool {
    // SAFETY: `bpf_filter` has this type (<pcap/bpf.h>), and the program was checked.
    let filter = unsafe { library.get::<BpfFilter>(b"bpf_filter\0") }.unwrap();
    let len = bytes.len() as u32;
    // SAFETY: the frame has `len` bytes.
    unsafe { filter(insns.as_ptr(), bytes.as_ptr(), len, len) != 0 }
}

/// Any instruction of a program of `len`, at `at`, that passes the checks; memory is written before it is read, as libpcap does not clear it.
fn any_insn(at: usize, len: usize) -> BoxedStrategy<Insn> {
    let left = (len - at - 2).min(255) as u8;
    let near = prop_oneof![4 => 0u32..80, 1 => 240u32..400, 1 => any::<u32>()];
    let load =
        prop::sample::select(vec![0x20u16, 0x28, 0x30, 0x40, 0x48, 0x50, 0x00, 0x80, 0x01, 0x81, 0xb1]);
    let memory = prop::sample::select(vec![0x02u16, 0x03, 0x60, 0x61]);
    let alu = prop::sample::select(vec![0u16, 0x10, 0x20, 0x30, 0x40, 0x50, 0x60, 0x70, 0x90, 0xa0]);
    let test = prop::sample::select(vec![0x10u16, 0x20, 0x30, 0x40]);
    prop_oneof![
        6 => (load, near).prop_map(|(code, k)| insn(code, 0, 0, k)),
        1 => (memory, 0u32..16).prop_map(|(code, k)| insn(code, 0, 0, k)),
        2 => (alu, any::<bool>(), 1u32..32).prop_map(|(op, x, k)| insn(op | 4 | if x { 8 } else { 0 }, 0, 0, k)),
        1 => Just(insn(0x84, 0, 0, 0)),
        1 => prop::sample::select(vec![0x07u16, 0x87]).prop_map(|code| insn(code, 0, 0, 0)),
        1 => (0..=left).prop_map(|by| insn(0x05, 0, 0, by.into())),
        4 => (test, any::<bool>(), 0..=left, 0..=left, prop_oneof![any::<u32>(), 0u32..300])
            .prop_map(|(op, x, jt, jf, k)| insn(op | 5 | if x { 8 } else { 0 }, jt, jf, k)),
    ]
    .boxed()
}

fn any_program() -> impl Strategy<Value = Vec<Insn>> {
    (2usize..24).prop_flat_map(|len| {
        let body: Vec<_> = (0..len - 1).map(|at| any_insn(at, len)).collect();
        let end = prop_oneof![Just(insn(0x16, 0, 0, 0)), (0u32..2).prop_map(|k| insn(0x06, 0, 0, k))];
        (body, end).prop_map(|(mut body, end)| {
            body.push(end);
            // Jumps are counted from the front, so a prefix that clears the memory moves none.
            let mut all = vec![insn(0x00, 0, 0, 0), insn(0x01, 0, 0, 0)];
            all.extend((0..16).map(|k| insn(0x02, 0, 0, k)));
            all.append(&mut body);
            all
        })
    })
}

proptest! {
    #[test]
    fn a_program_says_what_libpcaps_machine_says(
        insns in any_program(),
        bytes in prop::collection::vec(any::<u8>(), 0..420),
        cuts in prop::collection::vec(1usize..200, 0..4),
    ) {
        let Some(library) = super::compile::tests_library() else { return Ok(()) };
        let program = Program::load(&insns).unwrap();
        prop_assert_eq!(matches(&program, &bytes, &cuts), oracle(&library, &insns, &bytes));
    }

    #[test]
    fn whatever_loads_runs_to_its_end(
        raw in prop::collection::vec((any::<u16>(), any::<u8>(), any::<u8>(), any::<u32>()), 1..6),
        low in any::<bool>(),
        bytes in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        let narrow = |v: u32, most: u32| if low { v % most } else { v };
        let insns: Vec<Insn> = raw
            .iter()
            .map(|&(code, jt, jf, k)| insn(narrow(code.into(), 0xc0) as u16, jt % 4, jf % 4, narrow(k, 20)))
            .chain([insn(0x06, 0, 0, 1)])
            .collect();
        if let Ok(program) = Program::load(&insns) {
            matches(&program, &bytes, &[]);
        }
    }
}

#[test]
fn what_could_run_away_does_not_load() {
    let ret = insn(0x06, 0, 0, 1);
    for (program, why) in [
        (vec![], LoadError::Length(0)),
        (vec![ret; MOST + 1], LoadError::Length(MOST + 1)),
        (vec![insn(0x05, 0, 0, 1), ret], LoadError::Jump(0)),
        (vec![insn(0x05, 0, 0, u32::MAX), ret], LoadError::Jump(0)),
        (vec![insn(0x15, 0, 1, 1), ret], LoadError::Jump(0)),
        (vec![insn(0x15, 9, 0, 1), ret], LoadError::Jump(0)),
        (vec![insn(0x34, 0, 0, 0), ret], LoadError::Division(0)),
        (vec![ret, insn(0x94, 0, 0, 0), ret], LoadError::Division(1)),
        (vec![insn(0x60, 0, 0, 16), ret], LoadError::Memory(0)),
        (vec![insn(0x03, 0, 0, u32::MAX), ret], LoadError::Memory(0)),
        (vec![insn(0x28, 0, 0, 12)], LoadError::End),
        (vec![insn(0xffff, 0, 0, 0), ret], LoadError::Code { at: 0, code: 0xffff }),
        (vec![insn(0x120, 0, 0, 0), ret], LoadError::Code { at: 0, code: 0x120 }),
        (vec![insn(0x0e, 0, 0, 0), ret], LoadError::Code { at: 0, code: 0x0e }),
    ] {
        assert_eq!(Program::load(&program), Err(why));
    }
}

#[test]
fn a_look_behind_the_end_does_not_match() {
    let byte = |at| Program::load(&[insn(0x30, 0, 0, at), insn(0x06, 0, 0, 1)]).unwrap();
    let bytes = [0u8; 300];
    assert!(matches(&byte(299), &bytes, &[]) && matches(&byte(299), &bytes, &[100, 150]));
    assert!(!matches(&byte(300), &bytes, &[]) && !matches(&byte(u32::MAX), &bytes, &[]));
    assert!(!matches(&byte(0), &[], &[]));
    let divided = [insn(0x01, 0, 0, 0), insn(0x3c, 0, 0, 0), insn(0x06, 0, 0, 1)];
    assert!(!matches(&Program::load(&divided).unwrap(), &bytes, &[]));
}

/// An IPv4 UDP frame between these ports.
fn udp(from: u16, to: u16) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0, 0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0];
    frame.extend([10, 0, 0, 1, 10, 0, 0, 2]);
    frame.extend(from.to_be_bytes());
    frame.extend(to.to_be_bytes());
    frame.extend([0, 8, 0, 0]);
    frame
}

#[test]
fn expressions_are_compiled_and_matched() {
    if super::compile::tests_library().is_none() {
        eprintln!("skipped: no libpcap");
        return;
    }
    for (expression, frame, matched) in [
        ("", udp(1, 2), true),
        ("udp", udp(1, 2), true),
        ("tcp", udp(1, 2), false),
        ("udp port 53", udp(1, 53), true),
        ("udp port 53", udp(1, 54), false),
        ("host 10.0.0.1 and not port 7", udp(7, 8), false),
        ("ip[8] = 64 and ether host 02:00:00:00:00:02", udp(7, 8), true),
        ("greater 43", udp(7, 8), false),
        ("less 42", udp(7, 8), true),
    ] {
        let program = compile(expression).unwrap();
        assert_eq!(matches(&program, &frame, &[]), matched, "{expression}");
        assert_eq!(matches(&program, &frame, &[14, 3]), matched, "{expression}, in parts");
    }
    let error = compile("udp prot 53").unwrap_err().to_string();
    assert!(error.starts_with("cannot compile filter expression 'udp prot 53': "), "{error}");
    assert!(error.contains("syntax error"), "{error}");
    assert!(compile("a\0b").is_err());
}

#[test]
fn a_new_program_is_in_force_with_the_next_burst_and_none_lets_all_match() {
    let ret = |k| Program::load(&[insn(0x06, 0, 0, k)]).unwrap();
    let (control, mut matchers) = selection(Some(ret(0)), 2);
    let bytes = udp(1, 2);
    let burst = burst(&bytes, &[]);
    for round in 0..1000u32 {
        control.set(Some(ret(round % 2)));
        // One worker sleeps through most of the changes.
        for matcher in matchers.iter_mut().take(if round % 7 == 0 { 2 } else { 1 }) {
            assert_eq!(matcher.select(&burst, Mask(1)), Mask(u64::from(round % 2)));
        }
    }
    control.set(None);
    assert_eq!(matchers[1].select(&burst, Mask(1)), Mask(1));
}

#[test]
fn an_expression_that_would_take_libpcap_too_deep_is_refused_by_its_length() {
    let many = vec!["ether host 02:00:00:00:00:01"; 20_000].join(" or ");
    let error = compile(&many).unwrap_err();
    assert!(matches!(error, CompileError::TooLong(length) if length == many.len()), "{error}");
    assert_eq!(
        error.to_string(),
        format!(
            "cannot compile a filter expression of {} bytes: at most 4096 are taken, more than a hundred addresses",
            many.len()
        )
    );
}

#[test]
fn libraries_before_1_8_compile_one_at_a_time() {
    for (description, expected) in [
        ("libpcap version 1.10.3 (with TPACKET_V3)", true),
        ("libpcap version 1.8.1", true),
        ("libpcap version 2.0", true),
        ("libpcap version 1.7.4", false),
        ("libpcap version 0.9.8", false),
        ("something else", false),
    ] {
        assert_eq!(is_reentrant(description), expected, "{description}");
    }
}
