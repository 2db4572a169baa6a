//! Messages in pieces.

use super::*;
use nix::unistd::pipe;
use std::os::fd::AsRawFd;

fn bytes(request: u32, payload: &[u8]) -> Vec<u8> {
    let mut all: Vec<u8> =
        [request, 1, payload.len() as u32].into_iter().flat_map(u32::to_ne_bytes).collect();
    all.extend_from_slice(payload);
    all
}

fn fds(count: usize) -> (Vec<OwnedFd>, Vec<i32>) {
    let fds: Vec<OwnedFd> = (0..count).map(|_| pipe().unwrap().1).collect();
    let numbers = fds.iter().map(AsRawFd::as_raw_fd).collect();
    (fds, numbers)
}

fn numbers(message: &Message) -> Vec<i32> {
    message.fds.iter().map(AsRawFd::as_raw_fd).collect()
}

#[test]
fn a_message_may_come_in_any_two_or_three_pieces() {
    let whole = bytes(8, &[1, 2, 3, 4, 5, 6, 7, 8]);
    for first in 0..=whole.len() {
        for second in first..=whole.len() {
            let mut reader = Reader::new();
            let (files, expected) = fds(1);
            reader.feed(&whole[..first], vec![]);
            if first < whole.len() {
                assert!(reader.next().is_none());
            }
            // Files come with some byte of the message: here with the second piece, or the third if that is empty.
            let (middle, last) = if second > first { (files, vec![]) } else { (vec![], files) };
            reader.feed(&whole[first..second], middle);
            reader.feed(&whole[second..], last);
            let message = reader.next().unwrap().unwrap();
            assert_eq!((message.request, &message.payload[..]), (8, &whole[12..]));
            if first < whole.len() {
                assert_eq!(numbers(&message), expected, "cut at {first} and {second}");
            }
            assert!(reader.next().is_none());
        }
    }
}

#[test]
fn reading_what_is_wanted_ends_where_a_message_does() {
    let stream = [bytes(1, &[]), bytes(16, &[7; 8]), bytes(5, &[9; 100])].concat();
    let mut reader = Reader::new();
    let (mut at, mut sizes) = (0, vec![]);
    while at < stream.len() {
        let want = reader.want().min(7);
        assert!(want > 0);
        reader.feed(&stream[at..at + want], vec![]);
        at += want;
        sizes.extend(reader.next().map(|message| message.unwrap().payload.len()));
    }
    assert_eq!(sizes, [0, 8, 100]);
    assert_eq!(reader.want(), HEADER);
}

#[test]
fn files_belong_to_the_last_message_of_the_read_that_brought_them() {
    let mut reader = Reader::new();
    let (first, a) = fds(1);
    let (second, b) = fds(2);
    let third = bytes(13, &[3; 8]);
    // One read with a message, another message, and the begin of a third: the kernel ends it behind the third's bytes.
    reader.feed(&[bytes(1, &[]), bytes(12, &[0; 8]), third[..5].to_vec()].concat(), first);
    reader.feed(&third[5..], vec![]);
    reader.feed(&bytes(5, &[]), second);
    let found: Vec<_> =
        std::iter::from_fn(|| reader.next()).map(|message| numbers(&message.unwrap())).collect();
    assert_eq!(found, [vec![], vec![], a, b]);
}

#[test]
fn a_stream_without_shape_ends_and_closes_its_files() {
    let bad: [(Vec<u8>, ProtocolError); 3] = [
        (
            [1_u32, 2, 0].into_iter().flat_map(u32::to_ne_bytes).collect(),
            ProtocolError::Header { request: 1, flags: 2 },
        ),
        (
            [1_u32, 1, 4097].into_iter().flat_map(u32::to_ne_bytes).collect(),
            ProtocolError::Long { request: 1, size: 4097 },
        ),
        (vec![0xff; 12], ProtocolError::Header { request: u32::MAX, flags: u32::MAX }),
    ];
    for (stream, error) in bad {
        let mut reader = Reader::new();
        let (end, other) = pipe().unwrap();
        reader.feed(&stream, vec![other]);
        assert_eq!(reader.next().unwrap().unwrap_err(), error);
        assert!(nix::unistd::read(&end, &mut [0]).is_ok_and(|read| read == 0), "its file is open");
        reader.feed(&bytes(1, &[]), vec![]);
        assert!(reader.next().is_none(), "after the end");
    }
}

#[test]
fn more_files_than_a_message_may_bring_end_the_stream() {
    let mut reader = Reader::new();
    reader.feed(&bytes(5, &[]), fds(MAX_FDS).0);
    assert_eq!(reader.next().unwrap().unwrap().fds.len(), MAX_FDS);
    // Also before the message is whole, and byte by byte.
    for _ in 0..=MAX_FDS {
        reader.feed(&[5], fds(1).0);
    }
    let error = reader.next().map(|message| message.unwrap_err());
    assert_eq!(error, None, "no header yet");
    reader.feed(&bytes(0, &[])[..4], vec![]);
    assert!(matches!(reader.next(), Some(Err(_))));
    let mut reader = Reader::new();
    reader.feed(&[5], fds(MAX_WAITING + 1).0);
    assert_eq!(reader.next().unwrap().unwrap_err(), ProtocolError::ManyFiles(MAX_WAITING + 1));
}
