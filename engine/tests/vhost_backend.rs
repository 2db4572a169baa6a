//! The back-end handler of the `vhost` crate is driven by our front-end over a socket.

use engine::backend::driver::{Opened, Shape, choose, open};
use engine::backend::nic::NetFeatures;
use engine::vhost::{Frontend, Heard, Reader};
use engine::virtq::{F_EVENT_IDX, F_RING_PACKED, F_VERSION_1};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use std::fs::File;
use std::io::{IoSlice, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};
use vhost::VhostUserMemoryRegionBase;
use vhost::vhost_user::message::*;
use vhost::vhost_user::{
    Backend, BackendReqHandler, Error, GpuBackend, Result, VhostUserBackendReqHandlerMut,
    VhostUserProtocolFeatures,
};

const OFFERS: u64 = 1 << 30
    | F_VERSION_1
    | F_RING_PACKED
    | F_EVENT_IDX
    | NetFeatures::MRG_RXBUF
    | NetFeatures::STATUS
    | NetFeatures::MQ;

/// A device that notes what it is told.
#[derive(Default)]
struct Noted {
    told: Vec<String>,
    /// Sizes of its memory regions and of their files.
    memory: Vec<(u64, u64)>,
    /// Whether its link is up.
    up: bool,
    /// Refuses to enable this ring.
    broken: Option<u32>,
}

impl VhostUserBackendReqHandlerMut for Noted {
    fn set_owner(&mut self) -> Result<()> {
        self.told.push("owner".into());
        Ok(())
    }

    fn get_features(&mut self) -> Result<u64> {
        Ok(OFFERS)
    }

    fn set_features(&mut self, features: u64) -> Result<()> {
        self.told.push(format!("features {features:#x}"));
        Ok(())
    }

    fn set_mem_table(
        &mut self,
        regions: &[VhostUserMemoryRegion],
        files: Vec<File>,
        _: Option<bool>,
    ) -> Result<Option<Vec<VhostUserMemoryRegionBase>>> {
        let bytes = |file: &File| file.metadata().map_or(0, |data| data.len());
        self.memory = regions.iter().zip(&files).map(|(r, file)| (r.memory_size, bytes(file))).collect();
        Ok(None)
    }

    fn set_vring_num(&mut self, index: u32, num: u32) -> Result<()> {
        self.told.push(format!("num {index} {num}"));
        Ok(())
    }

    fn set_vring_addr(
        &mut self,
        index: u32,
        flags: VhostUserVringAddrFlags,
        desc: u64,
        used: u64,
        avail: u64,
        _: u64,
    ) -> Result<()> {
        assert!(flags.is_empty() && desc < avail && avail < used);
        self.told.push(format!("addr {index}"));
        Ok(())
    }

    fn set_vring_base(&mut self, index: u32, base: u32) -> Result<()> {
        self.told.push(format!("base {index} {base:#x}"));
        Ok(())
    }

    fn set_vring_kick(&mut self, index: u8, fd: Option<File>) -> Result<()> {
        self.told.push(format!("kick {index} {}", fd.is_some()));
        Ok(())
    }

    fn set_vring_call(&mut self, index: u8, fd: Option<File>) -> Result<()> {
        self.told.push(format!("call {index} {}", fd.is_some()));
        Ok(())
    }

    fn get_protocol_features(&mut self) -> Result<VhostUserProtocolFeatures> {
        Ok(VhostUserProtocolFeatures::all())
    }

    fn set_protocol_features(&mut self, features: u64) -> Result<()> {
        self.told.push(format!("protocol {features:#x}"));
        Ok(())
    }

    fn get_queue_num(&mut self) -> Result<u64> {
        Ok(4)
    }

    fn set_vring_enable(&mut self, index: u32, enable: bool) -> Result<()> {
        self.told.push(format!("enable {index} {enable}"));
        if self.broken == Some(index) { Err(Error::InvalidParam) } else { Ok(()) }
    }

    fn get_config(&mut self, offset: u32, size: u32, _: VhostUserConfigFlags) -> Result<Vec<u8>> {
        assert_eq!((offset, size), (0, 8));
        Ok(vec![2, 0, 0, 0, 0, 1, u8::from(self.up), 0])
    }

    fn set_backend_req_fd(&mut self, _: Backend) {
        self.told.push("channel".into());
    }

    fn reset_owner(&mut self) -> Result<()> {
        Err(Error::InvalidOperation("reset_owner"))
    }

    fn reset_device(&mut self) -> Result<()> {
        Err(Error::InvalidOperation("reset_device"))
    }

    fn get_vring_base(&mut self, _: u32) -> Result<VhostUserVringState> {
        Err(Error::InvalidOperation("get_vring_base"))
    }

    fn set_vring_err(&mut self, _: u8, _: Option<File>) -> Result<()> {
        Err(Error::InvalidOperation("set_vring_err"))
    }

    fn set_config(&mut self, _: u32, _: &[u8], _: VhostUserConfigFlags) -> Result<()> {
        Err(Error::InvalidOperation("set_config"))
    }

    fn set_gpu_socket(&mut self, _: GpuBackend) -> Result<()> {
        Err(Error::InvalidOperation("set_gpu_socket"))
    }

    fn get_shared_object(&mut self, _: VhostUserSharedMsg) -> Result<File> {
        Err(Error::InvalidOperation("get_shared_object"))
    }

    fn get_inflight_fd(&mut self, _: &VhostUserInflight) -> Result<(VhostUserInflight, File)> {
        Err(Error::InvalidOperation("get_inflight_fd"))
    }

    fn set_inflight_fd(&mut self, _: &VhostUserInflight, _: File) -> Result<()> {
        Err(Error::InvalidOperation("set_inflight_fd"))
    }

    fn get_max_mem_slots(&mut self) -> Result<u64> {
        Err(Error::InvalidOperation("get_max_mem_slots"))
    }

    fn add_mem_region(
        &mut self,
        _: &VhostUserSingleMemoryRegion,
        _: File,
        _: Option<bool>,
    ) -> Result<Option<VhostUserMemoryRegionBase>> {
        Err(Error::InvalidOperation("add_mem_region"))
    }

    fn remove_mem_region(&mut self, _: &VhostUserSingleMemoryRegion) -> Result<()> {
        Err(Error::InvalidOperation("remove_mem_region"))
    }

    fn set_device_state_fd(
        &mut self,
        _: VhostTransferStateDirection,
        _: VhostTransferStatePhase,
        _: File,
    ) -> Result<Option<File>> {
        Err(Error::InvalidOperation("set_device_state_fd"))
    }

    fn check_device_state(&mut self) -> Result<()> {
        Err(Error::InvalidOperation("check_device_state"))
    }

    fn get_shmem_config(&mut self) -> Result<VhostUserShMemConfig> {
        Err(Error::InvalidOperation("get_shmem_config"))
    }

    fn set_log_base(&mut self, _: &VhostUserLog, _: File) -> Result<()> {
        Err(Error::InvalidOperation("set_log_base"))
    }
}

/// Drives the handler until the front-end has heard that all is ready; what it heard, or why it gave up.
fn drive(device: Noted, pairs: u16) -> (Arc<Mutex<Noted>>, std::result::Result<Vec<Heard>, String>) {
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    let device = Arc::new(Mutex::new(device));
    let mut handler = BackendReqHandler::from_stream(theirs, device.clone());
    let served = std::thread::spawn(move || while handler.handle_request().is_ok() {});
    let (mut front, mut reader, mut heard) = (Frontend::new(), Reader::of_answers(), Vec::new());
    let wake = Arc::new(OwnedFd::from(nix::sys::eventfd::EventFd::new().unwrap()));
    let mut pump = || -> std::result::Result<(), String> {
        while heard.last() != Some(&Heard::Ready) {
            while let Some(request) = front.request().map_err(|error| error.to_string())? {
                let files: Vec<_> = request.fd.iter().map(AsRawFd::as_raw_fd).collect();
                let rights = [ControlMessage::ScmRights(&files)];
                let rights = if files.is_empty() { &rights[..0] } else { &rights[..] };
                let parts = [IoSlice::new(&request.bytes)];
                sendmsg::<()>(ours.as_raw_fd(), &parts, rights, MsgFlags::empty(), None)
                    .map_err(|e| e.to_string())?;
            }
            let mut bytes = vec![0; reader.want()];
            ours.read_exact(&mut bytes).map_err(|error| error.to_string())?;
            reader.feed(&bytes, vec![]);
            let Some(message) = reader.next() else { continue };
            let message = message.map_err(|error| error.to_string())?;
            let Some(news) = front.answer(&message).map_err(|error| error.to_string())? else { continue };
            heard.push(news);
            if let Heard::Offer { features, .. } = news {
                let features = choose(features, pairs);
                let Opened { rings, region, file, .. } =
                    open(&Shape::new(features, pairs), false, &wake, None).unwrap();
                let channel = UnixStream::pair().unwrap().1.into();
                front.set_up(features, &region, file, &rings, Some(channel));
            }
        }
        Ok(())
    };
    let result = pump();
    drop(ours);
    served.join().unwrap();
    (device, result.map(|()| heard))
}

#[test]
fn a_foreign_handler_is_told_of_everything() {
    for (pairs, up) in [(1, true), (4, false)] {
        let (device, heard) = drive(Noted { up, ..Noted::default() }, pairs);
        let offer = Heard::Offer { features: OFFERS & !(1 << 30), pairs: 4 };
        assert_eq!(heard, Ok(vec![offer, Heard::Link(up), Heard::Ready]));
        let device = device.lock().unwrap();
        let accepted = OFFERS & !(if pairs == 1 { NetFeatures::MQ } else { 0 });
        let mut expected = vec![
            "protocol 0x229".into(),
            "owner".into(),
            "channel".into(),
            format!("features {accepted:#x}"),
        ];
        let rings = 2 * pairs;
        for ring in 0..rings {
            expected.push(format!("call {ring} true"));
            expected.push(format!("num {ring} 256"));
            expected.push(format!("base {ring} 0x8000"));
            expected.push(format!("addr {ring}"));
            expected.push(format!("kick {ring} true"));
        }
        expected.extend((0..rings).map(|ring| format!("enable {ring} true")));
        assert_eq!(device.told, expected);
        assert_eq!(device.memory.len(), 1);
        assert!(device.memory.iter().all(|(region, file)| region == file && *region > 1 << 20));
    }
}

#[test]
fn a_foreign_handler_that_refuses_a_ring_ends_the_connection() {
    let (_, heard) = drive(Noted { broken: Some(1), ..Noted::default() }, 1);
    assert_eq!(heard, Err("the back-end refused SET_VRING_ENABLE".into()));
}
