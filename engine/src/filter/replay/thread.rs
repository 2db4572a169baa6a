//! The thread that reads the file.

use super::file::{Fault, Format, LONGEST, Parsed};
use super::pace::Pace;
use crate::filter::Settings;
use crate::filter::channel::{BATCH, Feed};
use crate::wire::vnet_hdr::VnetHdr;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// What happened to records, and to the file.
#[derive(Debug, Default)]
pub(super) struct Counts {
    /// Frames put in; one that goes both ways is one.
    pub(super) replayed: AtomicU64,
    /// Records that are shorter than their frame was.
    pub(super) cut: AtomicU64,
    /// Records without a byte.
    pub(super) empty: AtomicU64,
    /// The file ended for us at a record longer than any frame.
    pub(super) too_long: AtomicU64,
    /// The file ended within a record.
    pub(super) truncated: AtomicU64,
    /// The file could not be read any further.
    pub(super) unread: AtomicU64,
    /// The replay is over.
    pub(super) ended: AtomicU64,
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// What stands between a replay and its next frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wait {
    /// More of the file.
    Bytes,
    /// Its time.
    Time(Duration),
    /// Room in a ring.
    Room,
    /// The filter is off.
    On,
    /// There is none.
    Over,
}

/// The thread.
pub(super) struct Run {
    file: File,
    format: Format,
    /// Frames go at their time.
    pace: Option<Pace>,
    feed: Feed,
    settings: Arc<Settings>,
    counts: Arc<Counts>,
    buffer: Box<[u8]>,
    /// Where in the buffer bytes are that nobody looked at.
    filled: Range<usize>,
    /// Nothing more is read.
    last: bool,
    /// Where the frame at hand is, which is not in all rings where it must be.
    owed: Option<Range<usize>>,
}

impl Run {
    /// Behind the header of a file.
    pub(super) fn new(
        file: File,
        format: Format,
        paced: bool,
        feed: Feed,
        settings: Arc<Settings>,
        counts: Arc<Counts>,
    ) -> Self {
        Self {
            file,
            format,
            pace: paced.then(Pace::default),
            feed,
            settings,
            counts,
            buffer: vec![0; LONGEST + BATCH].into(),
            filled: 0..0,
            last: false,
            owed: None,
        }
    }

    /// To the end of the file, or of the filter.
    pub(super) fn run(mut self) {
        let flow = self.feed.flow().clone();
        while !flow.link.is_closing() {
            match self.go_on() {
                Wait::Bytes => self.read(),
                Wait::Time(left) => flow.link.pause(Some(left), || false),
                Wait::Room => flow.link.pause(None, || self.go_on() != Wait::Room),
                Wait::On => {
                    let begin = Instant::now();
                    flow.link.pause(None, || false);
                    self.pace.iter_mut().for_each(|pace| pace.shift(begin.elapsed()));
                }
                Wait::Over => {
                    count(&self.counts.ended);
                    break;
                }
            }
        }
        flow.link.over(true);
    }

    /// Puts frames in until it must wait.
    fn go_on(&mut self) -> Wait {
        let wait = loop {
            if let Some(wait) = self.next() {
                break wait;
            }
        };
        self.feed.show(wait != Wait::Room);
        wait
    }

    /// Puts in what is at hand and looks at one record more; what it waits for, if it does.
    fn next(&mut self) -> Option<Wait> {
        if let Some(at) = &self.owed {
            // Also when it is off by now: the frame is on its way.
            if !self.feed.pay(VnetHdr::NONE, self.buffer.get(at.clone()).unwrap_or_default()) {
                return Some(Wait::Room);
            }
            self.owed = None;
        }
        self.feed.begin();
        if !self.settings.is_on() {
            return Some(Wait::On);
        }
        let begin = self.filled.start;
        match self.format.parse(self.buffer.get(self.filled.clone()).unwrap_or_default()) {
            Parsed::More if !self.last => return Some(Wait::Bytes),
            Parsed::More => {
                if !self.filled.is_empty() {
                    count(&self.counts.truncated);
                }
                return Some(self.end());
            }
            Parsed::Frame(when, frame) => {
                let left = self.pace.as_mut().and_then(|pace| pace.wait(when, Instant::now()));
                if let Some(left) = left {
                    return Some(Wait::Time(left));
                }
                self.filled.start = begin + frame.end;
                self.feed.owe(&self.settings);
                self.owed = Some(begin + frame.start..begin + frame.end);
                count(&self.counts.replayed);
            }
            Parsed::Skip(fault, end) => {
                self.filled.start = begin + end;
                count(match fault {
                    Fault::Cut => &self.counts.cut,
                    Fault::Empty => &self.counts.empty,
                });
            }
            Parsed::TooLong => {
                count(&self.counts.too_long);
                return Some(self.end());
            }
        }
        None
    }

    /// Whatever there is left is not looked at.
    fn end(&mut self) -> Wait {
        self.filled = 0..0;
        self.last = true;
        Wait::Over
    }

    /// Reads on. What is left of a record moves to the beginning, so that there is room for any.
    fn read(&mut self) {
        self.buffer.copy_within(self.filled.clone(), 0);
        self.filled = 0..self.filled.len();
        let Some(room) = self.buffer.get_mut(self.filled.end..) else { return };
        match self.file.read(room) {
            Ok(0) => self.last = true,
            Ok(n) => self.filled.end += n,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => {
                count(&self.counts.unread);
                // The rest of a record is not what ended it.
                self.end();
            }
        }
    }
}
