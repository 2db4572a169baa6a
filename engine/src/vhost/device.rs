//! What a session drives: the device that runs the rings.

use crate::virtq::{Position, RingConfig};

/// What a session needs of a network device. All calls come from the thread that drives the session.
pub trait Device {
    /// The virtio features that are offered now. What belongs to vhost-user itself ([`super::F_PROTOCOL_FEATURES`],
    /// [`super::F_LOG_ALL`]) is added by the session.
    fn features(&self) -> u64;

    /// Queue pairs: what GET_QUEUE_NUM answers.
    fn queues(&self) -> u16;

    /// Rings: two a pair. A device with a control queue has one more.
    fn rings(&self) -> usize {
        2 * usize::from(self.queues())
    }

    /// The configuration space, as GET_CONFIG shows it.
    fn config(&self) -> NetConfig;

    /// The driver accepted these virtio features, and had not accepted just these before. Rings are stopped meanwhile.
    fn set_features(&mut self, accepted: u64);

    /// Runs a ring from `config.position` on. It is whole, enabled and started, and not running yet.
    ///
    /// # Errors
    /// Why it cannot be run, for people. The ring then waits for another SET_VRING_KICK.
    fn start(&mut self, ring: usize, config: RingConfig) -> Result<(), String>;

    /// All rings are about to be stopped, by a call for each: what that costs once may be paid here.
    fn stop_all(&mut self) {}

    /// Stops a ring that was started. When this returns nobody touches its memory. Says where it stopped; None when
    /// that is not known, and it goes on from where it was started.
    fn stop(&mut self, ring: usize) -> Option<Position>;

    /// The VMM's upper bound for what the guest sends (NET_SET_MTU), 68 to 65535 bytes. The configuration space shows it; frames are
    /// not measured by it, as other back-ends do not.
    fn set_mtu(&mut self, mtu: u16);

    /// The driver wrote a MAC address to the configuration space (before virtio 1.0 it may).
    fn set_mac(&mut self, mac: [u8; 6]);

    /// The guest has moved here and does not announce itself: tell its neighbours, by a RARP frame of that address.
    fn send_rarp(&mut self, mac: [u8; 6]);

    /// The device status changed (virtio 1.3, 2.1). At 0 rings are stopped before.
    fn set_status(&mut self, status: u8);

    /// Everything that the driver set up is gone (RESET_DEVICE). Rings are stopped before.
    fn reset(&mut self);
}

/// The configuration space of a network device (virtio 1.3, 5.1.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NetConfig {
    /// MAC address.
    pub mac: [u8; 6],
    /// Bit 0: the link is up. Bit 1: the driver should announce the guest.
    pub status: u16,
    /// Queue pairs at most.
    pub max_virtqueue_pairs: u16,
    /// Largest frame that the guest should send, without its Ethernet header.
    pub mtu: u16,
    /// Mbit/s; all ones: unknown.
    pub speed: u32,
    /// 0 half, 1 full, 255 unknown.
    pub duplex: u8,
    /// Bytes of an RSS key at most.
    pub rss_max_key_size: u8,
    /// Entries of an RSS table at most.
    pub rss_max_indirection_table_length: u16,
    /// Hashes that can be made.
    pub supported_hash_types: u32,
}

impl NetConfig {
    /// Bytes of the space.
    pub const SIZE: usize = 24;

    /// The space as the driver reads it: little-endian.
    #[must_use]
    pub fn bytes(&self) -> [u8; Self::SIZE] {
        let mut all = [0; Self::SIZE];
        let fields: [&[u8]; 9] = [
            &self.mac,
            &self.status.to_le_bytes(),
            &self.max_virtqueue_pairs.to_le_bytes(),
            &self.mtu.to_le_bytes(),
            &self.speed.to_le_bytes(),
            &[self.duplex],
            &[self.rss_max_key_size],
            &self.rss_max_indirection_table_length.to_le_bytes(),
            &self.supported_hash_types.to_le_bytes(),
        ];
        for (to, from) in all.iter_mut().zip(fields.into_iter().flatten()) {
            *to = *from;
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_space_has_its_fields_where_virtio_puts_them() {
        let config = NetConfig {
            mac: [2, 3, 4, 5, 6, 7],
            status: 0x0108,
            max_virtqueue_pairs: 0x0a09,
            mtu: 0x0c0b,
            speed: 0x100f_0e0d,
            duplex: 0x11,
            rss_max_key_size: 0x12,
            rss_max_indirection_table_length: 0x1413,
            supported_hash_types: 0x1817_1615,
        };
        let bytes = config.bytes();
        assert_eq!(bytes[..6], [2, 3, 4, 5, 6, 7]);
        assert_eq!(bytes[6..8], [8, 1]);
        assert_eq!(bytes[8..], (9..=0x18).collect::<Vec<u8>>());
    }
}
