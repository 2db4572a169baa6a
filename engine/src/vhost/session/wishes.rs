//! What a front-end asks of the device itself: configuration space, MTU, an announcement; and files for later.

use crate::vhost::device::{Device, NetConfig};
use crate::vhost::error::ProtocolError;
use crate::vhost::message::{Message, structure};
use crate::vhost::reply::Reply;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use vhost::vhost_user::message::VhostUserConfig;

const HEAD: usize = size_of::<VhostUserConfig>();
/// Bytes of any configuration space (`VHOST_USER_MAX_CONFIG_SIZE`).
const SPACE: usize = 256;
/// Flag of SET_CONFIG: the guest has come from another host, and this is what it knows.
const MIGRATED: u32 = 1;
/// Smallest MTU that there is (virtio 1.3, 5.1.4.1).
const MTU: std::ops::RangeInclusive<u64> = 68..=65535;

/// A message that is nothing but a file.
pub(super) fn bodyless_file(message: &mut Message) -> Result<Arc<OwnedFd>, ProtocolError> {
    message.empty()?;
    message.file().map(Arc::new)
}

pub(super) fn send_rarp(message: &Message, device: &mut dyn Device) -> Result<(), ProtocolError> {
    message.sized(8)?;
    // Not a number: the address is the first six bytes, in whatever order the machine has numbers.
    let mac = message.payload.first_chunk().copied().unwrap_or_default();
    device.send_rarp(mac);
    Ok(())
}

pub(super) fn set_mtu(message: &Message, device: &mut dyn Device) -> Result<(), ProtocolError> {
    let value = message.number()?;
    let mtu = u16::try_from(value).ok().filter(|_| MTU.contains(&value));
    device.set_mtu(mtu.ok_or_else(|| message.bad_value(value))?);
    Ok(())
}

/// Which bytes a message about the configuration space means; None when they are not in it.
fn range(head: &VhostUserConfig) -> Option<std::ops::Range<usize>> {
    let (from, size) = (head.offset as usize, head.size as usize);
    let to = from.checked_add(size).filter(|to| *to <= SPACE)?;
    Some(from..to)
}

/// Bytes behind ours read as zero. An answer without any says that they are in no configuration space.
pub(super) fn get_config(message: &Message, device: &dyn Device) -> Result<Reply, ProtocolError> {
    let head: VhostUserConfig = structure(&message.payload);
    // The answer's room comes with the question, but not from every front-end.
    if message.payload.len() != HEAD {
        message.sized(HEAD.saturating_add(head.size as usize))?;
    }
    let mut space = [0; SPACE];
    for (to, from) in space.iter_mut().zip(device.config().bytes()) {
        *to = from;
    }
    let bytes = range(&head).and_then(|range| space.get(range)).unwrap_or_default();
    let mut answer = message.payload.get(..HEAD).unwrap_or_default().to_vec();
    if bytes.is_empty() {
        answer.clear();
    }
    answer.extend_from_slice(bytes);
    Ok(Reply::new(message, &answer))
}

/// A driver may write the MAC address, and nothing else. What a guest brings from another host is what it knows; the
/// space here stays as it is, and the guest reads it again.
pub(super) fn set_config(message: &Message, device: &mut dyn Device) -> Result<(), ProtocolError> {
    let head: VhostUserConfig = structure(&message.payload);
    message.sized(HEAD.saturating_add(head.size as usize))?;
    let range = range(&head).ok_or_else(|| message.bad_value({ head.offset }.into()))?;
    let NetConfig { mut mac, .. } = device.config();
    match (head.flags, mac.get_mut(range)) {
        (0, Some(part)) => {
            part.copy_from_slice(message.payload.get(HEAD..).unwrap_or_default());
            device.set_mac(mac);
            Ok(())
        }
        (MIGRATED, _) => Ok(()),
        (0, None) => Err(message.bad_value({ head.offset }.into())),
        (flags, _) => Err(message.bad_value(flags.into())),
    }
}
