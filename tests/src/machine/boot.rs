//! The command line of a machine.

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::json;

use super::{Machine, PATIENCE, image};
use crate::qmp::Qmp;
use crate::{daemon, wait};

/// A nic of a machine: the socket where netdevd listens, and what makes the device special.
#[derive(Debug, Clone)]
pub struct Socket {
    path: PathBuf,
    netdev: String,
    device: String,
}

impl Socket {
    /// A nic as QEMU makes it by default, on the socket at `path`.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), netdev: String::new(), device: String::new() }
    }

    /// A nic on a netdev of QEMU's own, such as `user,restrict=on`, which netdevd has nothing to do with.
    #[must_use]
    pub fn foreign(netdev: &str) -> Self {
        Self { path: PathBuf::new(), netdev: netdev.to_owned(), device: String::new() }
    }

    /// More options of QEMU's `vhost-user` netdev, such as `queues=2`.
    #[must_use]
    pub fn netdev(mut self, options: &str) -> Self {
        self.netdev = format!(",{options}");
        self
    }

    /// More properties of QEMU's `virtio-net-pci` device, such as `packed=on`.
    #[must_use]
    pub fn device(mut self, properties: &str) -> Self {
        self.device = format!(",{properties}");
        self
    }
}

/// The hardware address of a nic.
pub(super) fn mac(machine: u8, nic: usize) -> String {
    format!("52:54:00:4e:{machine:02x}:{nic:02x}")
}

/// A machine that is not started; see [`Machine::prepare`].
#[derive(Debug)]
pub struct Boot {
    number: u8,
    processors: u8,
    sockets: Vec<Socket>,
    incoming: bool,
    iommu: bool,
    /// Archives that are appended to the image.
    archives: Vec<PathBuf>,
    /// What QEMU is started by.
    wrapper: Vec<String>,
}

impl Boot {
    pub(super) const fn new(number: u8) -> Self {
        Self {
            number,
            processors: 1,
            sockets: Vec::new(),
            incoming: false,
            iommu: false,
            archives: Vec::new(),
            wrapper: Vec::new(),
        }
    }

    /// One more nic.
    #[must_use]
    pub fn nic(mut self, socket: Socket) -> Self {
        self.sockets.push(socket);
        self
    }

    /// That many processors instead of one.
    #[must_use]
    pub const fn processors(mut self, count: u8) -> Self {
        self.processors = count;
        self
    }

    /// More files for the guest: an archive as the kernel takes it (cpio, `newc`). It has more memory then.
    #[must_use]
    pub fn archive(mut self, path: impl Into<PathBuf>) -> Self {
        self.archives.push(path.into());
        self
    }

    /// Starts QEMU by another command, which ends by executing its last arguments.
    #[must_use]
    pub fn under(mut self, wrapper: Vec<String>) -> Self {
        self.wrapper = wrapper;
        self
    }

    /// Puts an IOMMU between memory and nics with `iommu_platform=on`, so that the guest's kernel lends such a device to a program.
    #[must_use]
    pub const fn iommu(mut self) -> Self {
        self.iommu = true;
        self
    }

    /// Boots nothing: waits for [`Machine::migrate`].
    #[must_use]
    pub const fn incoming(mut self) -> Self {
        self.incoming = true;
        self
    }

    fn arguments(&self, directory: &Path) -> Vec<String> {
        let at = |name: &str| directory.join(name).display().to_string();
        let image = image().unwrap_or_else(|reason| panic!("{reason}"));
        let mut line = String::from(
            "-nodefaults -no-user-config -display none -accel tcg,thread=multi,tb-size=96 -cpu max \
             -machine pc,memory-backend=mem -object memory-backend-memfd,id=mem,share=on",
        );
        if self.iommu {
            line = line.replace("-machine pc,", "-machine q35,") + " -device intel-iommu,caching-mode=on";
        }
        let memory = if self.archives.is_empty() { "256M" } else { "1024M" };
        line = line.replace("id=mem,", &format!("id=mem,size={memory},")) + " -m " + memory;
        line += &format!(" -smp {} -qmp unix:{},server=on,wait=off", self.processors, at("qmp"));
        line += &format!(" -serial file:{} -chardev socket,id=channel,path={}", at("console"), at("channel"));
        line += " -device virtio-serial-pci -device virtserialport,chardev=channel,name=commands";
        let mut initramfs = image.join("initramfs");
        if !self.archives.is_empty() {
            let mut all = std::fs::read(&initramfs).expect("the image");
            for archive in &self.archives {
                // Archives behind one another are one to the kernel, each at a multiple of four bytes.
                all.resize(all.len().next_multiple_of(4), 0);
                all.extend(std::fs::read(archive).expect("an archive"));
            }
            initramfs = directory.join("initramfs");
            std::fs::write(&initramfs, all).expect("the image is written");
        }
        line += &format!(" -kernel {}/vmlinux -initrd {}", image.display(), initramfs.display());
        if self.incoming {
            line += &format!(" -incoming unix:{}", at("migration"));
        }
        for (number, socket) in self.sockets.iter().enumerate() {
            let Socket { path, netdev, device } = socket;
            let mac = mac(self.number, number);
            if path.as_os_str().is_empty() {
                line += &format!(" -netdev {netdev},id=n{number}");
            } else {
                line += &format!(" -chardev socket,id=c{number},path={},reconnect-ms=100", path.display());
                line += &format!(" -netdev vhost-user,id=n{number},chardev=c{number}{netdev}");
            }
            line +=
                &format!(" -device virtio-net-pci,id=d{number},netdev=n{number},mac={mac},romfile={device}");
        }
        // An emulated processor that has to wait for its turn may miss ten ticks of its timer, which is a broken one to the kernel: it would panic.
        let kernel = "console=ttyS0 quiet mitigations=off nokaslr tsc=unstable clocksource=hpet random.trust_cpu=on no_timer_check";
        let kernel = if self.iommu { format!("{kernel} intel_iommu=on") } else { kernel.into() };
        line.split_whitespace().map(String::from).chain(["-append".into(), kernel]).collect()
    }

    /// Starts it; the guest is not up yet, so that others may boot meanwhile.
    ///
    /// # Panics
    /// When QEMU does not come up.
    #[must_use]
    pub fn start(self) -> Machine {
        let directory = daemon::directory();
        let log = File::create(directory.path().join("stderr")).expect("a log file");
        let listener = UnixListener::bind(directory.path().join("channel")).expect("a socket");
        let qemu = daemon::oracle().unwrap_or_else(|reason| panic!("{reason}"));
        let words: Vec<_> = self.wrapper.iter().map(PathBuf::from).chain([qemu]).collect();
        let mut command = wait::mortal(&words[0]);
        command.args(&words[1..]);
        command.args(self.arguments(directory.path())).env("TMPDIR", directory.path()).stdin(Stdio::null());
        command.stdout(log.as_fd().try_clone_to_owned().expect("dup")).stderr(log);
        let mut child = command.spawn().unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        let said = || std::fs::read_to_string(directory.path().join("stderr")).unwrap_or_default();
        listener.set_nonblocking(true).expect("a socket");
        let came = wait::until(PATIENCE, || {
            let ended = child.try_wait().ok().flatten();
            listener.accept().map(Some).or_else(|error| ended.map(|_| None).ok_or(error)).ok()
        });
        let Some(Some((channel, _))) = came else { panic!("QEMU does not come up: {command:?}: {}", said()) };
        channel.set_nonblocking(false).expect("a socket");
        let qmp = Qmp::connect(&directory.path().join("qmp"), PATIENCE);
        let mut qmp = qmp.unwrap_or_else(|error| panic!("no monitor of {command:?}: {error}; {}", said()));
        qmp.negotiate();
        let events = json!({"capabilities": [{"capability": "events", "state": true}]});
        qmp.ok("migrate-set-capabilities", events);
        Machine { qmp, child, channel, unread: Vec::new(), directory, number: self.number }
    }
}
