//! The rows: ring formats and frames.

/// One kind of ring and frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Case {
    /// Bytes of a frame; 64 KiB ones are TCP to be segmented.
    pub size: usize,
    /// Packed rings.
    pub packed: bool,
    /// Mergeable receive buffers.
    pub mergeable: bool,
    /// Buffers are used in order.
    pub in_order: bool,
    /// Entries of each ring.
    pub ring: u16,
}

/// Entries of a ring where nothing else is said, as QEMU has them.
pub const RING: u16 = 256;
/// Entries for the largest frames, which take 33 buffers each where buffers are merged: of 256 entries seven frames are all.
const LARGE_RING: u16 = 1024;

/// Bytes of the largest frames.
pub const LARGE: usize = 65_536;

impl Case {
    /// All rows of the table of cycles: sizes, formats, mergeable or not.
    #[must_use]
    pub fn all() -> Vec<Self> {
        let mut all = Vec::new();
        for size in [64, 256, 1518, LARGE] {
            for packed in [false, true] {
                for mergeable in [true, false] {
                    let ring = if size == LARGE { LARGE_RING } else { RING };
                    all.push(Self { size, packed, mergeable, in_order: false, ring });
                }
            }
        }
        all
    }

    /// Small frames in both formats.
    #[must_use]
    pub fn small() -> Vec<Self> {
        Self::all().into_iter().filter(|case| case.size == 64 && case.mergeable).collect()
    }

    /// What `--only` names: `split-64`, `packed-1518-nomrg`, `split-64k`.
    #[must_use]
    pub fn id(&self) -> String {
        let format = if self.packed { "packed" } else { "split" };
        let size = if self.size == LARGE { "64k".to_owned() } else { self.size.to_string() };
        let mergeable = if self.mergeable { "" } else { "-nomrg" };
        let in_order = if self.in_order { "-inorder" } else { "" };
        format!("{format}-{size}{mergeable}{in_order}")
    }

    /// The same with the size of the rings, where it is not the usual one.
    #[must_use]
    pub fn name(&self) -> String {
        let ring = if self.ring == RING { String::new() } else { format!(" ring {}", self.ring) };
        self.id() + &ring
    }

    /// The same case with rings of `ring` entries.
    #[must_use]
    pub fn with_ring(self, ring: u16) -> Self {
        Self { ring, ..self }
    }

    /// Options of `pktgen`.
    #[must_use]
    pub fn pktgen(&self) -> Vec<String> {
        let mut words = vec!["--size".to_owned(), self.size.to_string()];
        words.extend(["--ring".to_owned(), self.ring.to_string()]);
        for (on, word) in [
            (self.packed, "--packed"),
            (!self.mergeable, "--no-mergeable"),
            (self.in_order, "--in-order"),
            (self.size == LARGE, "--tso"),
        ] {
            words.extend(on.then(|| word.to_owned()));
        }
        words
    }

    /// Options of testpmd's `net_virtio_user` as the guest.
    #[must_use]
    pub fn virtio_user(&self) -> String {
        let bit = |on: bool| u8::from(on);
        let (packed, mergeable, in_order) = (bit(self.packed), bit(self.mergeable), bit(self.in_order));
        // The vectorised paths are what DPDK has for rings in order.
        format!(
            "queue_size={},packed_vq={packed},mrg_rxbuf={mergeable},in_order={in_order},vectorized={in_order}",
            self.ring
        )
    }

    /// How many times fewer busy cycles a frame are wanted, where something is.
    #[must_use]
    pub fn fewer_cycles(&self) -> Option<f64> {
        match self.size {
            64 if self.mergeable => Some(if self.packed { 1.7 } else { 2.0 }),
            1518 | LARGE if self.mergeable => Some(1.5),
            _ => None,
        }
    }

    /// How many times more frames a second are wanted of the light guest.
    #[must_use]
    pub fn more_frames(&self) -> Option<f64> {
        (self.size == 64 && self.mergeable).then_some(1.8)
    }

    /// How many times the zero-loss rate is wanted.
    #[must_use]
    pub fn more_lossless(&self) -> Option<f64> {
        (self.size == 64 && self.mergeable).then_some(if self.packed { 1.3 } else { 1.5 })
    }

    /// Gigabits a second at `mpps` million frames, frame bytes only.
    #[must_use]
    pub fn gbits(&self, mpps: f64) -> f64 {
        mpps * self.size as f64 * 8.0 / 1e3
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_case_has_a_name_of_its_own() {
        let mut ids: Vec<String> = Case::all().iter().map(Case::id).collect();
        assert!(ids.iter().any(|id| id == "split-64") && ids.iter().any(|id| id == "packed-64k-nomrg"));
        let count = ids.len();
        ids.sort();
        ids.dedup();
        assert_eq!((ids.len(), count), (16, 16));
    }
}
