//! Messages about the guest's memory and the log of what we write there.

use super::Session;
use crate::mem::dirty::DirtyLog;
use crate::mem::guest::{GuestMemory, MAX_REGIONS, MemoryError, Region};
use crate::vhost::device::Device;
use crate::vhost::error::ProtocolError;
use crate::vhost::message::{F_LOG_ALL, MAX_FDS, Message, structure};
use crate::vhost::reply::Reply;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use vhost::vhost_user::message::{
    VhostUserLog, VhostUserMemory, VhostUserMemoryRegion, VhostUserSingleMemoryRegion,
};

const TABLE_HEADER: usize = size_of::<VhostUserMemory>();
const TABLE_ENTRY: usize = size_of::<VhostUserMemoryRegion>();

const fn region(from: &VhostUserMemoryRegion) -> Region {
    let VhostUserMemoryRegion {
        guest_phys_addr: guest,
        memory_size: size,
        user_addr: user,
        mmap_offset: offset,
    } = *from;
    Region { guest, user, size, offset }
}

pub(super) fn max_mem_slots(message: &Message) -> Result<Reply, ProtocolError> {
    message.empty()?;
    Ok(Reply::number(message, MAX_REGIONS as u64))
}

impl Session {
    /// Makes the table that rings get: logging while there is a log and it is asked for.
    pub(super) fn tabulate(&mut self) {
        let log = self.log.as_ref().filter(|_| self.accepted(F_LOG_ALL));
        self.table = match log {
            Some(log) => self.memory.as_ref().map(|memory| Arc::new(memory.with_log(Some(log.clone())))),
            None => self.memory.clone(),
        };
    }

    /// Puts another table in force.
    fn replace(&mut self, memory: GuestMemory, device: &mut dyn Device) {
        self.pause_all(device);
        self.memory = Some(Arc::new(memory));
        self.tabulate();
    }

    pub(super) fn set_mem_table(
        &mut self,
        message: &mut Message,
        device: &mut dyn Device,
    ) -> Result<(), ProtocolError> {
        let head: VhostUserMemory = structure(&message.payload);
        let count = head.num_regions as usize;
        if count > MAX_FDS {
            return Err(MemoryError::Count(count).into());
        }
        message.sized(TABLE_HEADER + count * TABLE_ENTRY)?;
        if count == 0 {
            return Err(ProtocolError::NoMemory);
        }
        message.files(count)?;
        let entries = message.payload.get(TABLE_HEADER..).unwrap_or_default().chunks_exact(TABLE_ENTRY);
        let regions = entries.map(|entry| region(&structure(entry)));
        let regions: Vec<(Region, OwnedFd)> = regions.zip(message.fds.drain(..)).collect();
        let memory = GuestMemory::new(&regions)?;
        self.replace(memory, device);
        Ok(())
    }

    pub(super) fn add_mem_reg(
        &mut self,
        message: &mut Message,
        device: &mut dyn Device,
    ) -> Result<(), ProtocolError> {
        let region = region(&*message.body::<VhostUserSingleMemoryRegion>()?);
        let file = message.file()?;
        let memory = match &self.memory {
            Some(memory) => memory.with_region(&region, &file)?,
            None => GuestMemory::new(&[(region, file)])?,
        };
        self.replace(memory, device);
        Ok(())
    }

    /// Some front-ends pass the region's file, which is of no use: it closes with the message.
    pub(super) fn rem_mem_reg(
        &mut self,
        message: &Message,
        device: &mut dyn Device,
    ) -> Result<(), ProtocolError> {
        let region = region(&*message.body::<VhostUserSingleMemoryRegion>()?);
        if message.fds.len() > 1 {
            message.files(0)?;
        }
        let Region { guest, user, size, .. } = region;
        let absent = MemoryError::Absent { guest, user, size };
        let memory = self.memory.as_ref().ok_or(absent)?.without_region(&region)?;
        self.replace(memory, device);
        Ok(())
    }

    /// The answer repeats the description: front-ends differ in what they expect, and none minds it.
    pub(super) fn set_log_base(
        &mut self,
        message: &mut Message,
        device: &mut dyn Device,
    ) -> Result<Reply, ProtocolError> {
        let VhostUserLog { mmap_size, mmap_offset } = message.body()?;
        let file = message.file()?;
        let log = DirtyLog::new(&file, mmap_offset, mmap_size).map_err(ProtocolError::Log)?;
        self.pause_all(device);
        self.log = Some(Arc::new(log));
        self.tabulate();
        Ok(Reply::new(message, &message.payload))
    }
}
