//! The `netmap` netdev on a system without the kernel module: what is said, and that nothing is left.

use serde_json::json;
use std::os::unix::fs::symlink;
use tests::daemon::Daemon;

#[test]
fn without_the_module_it_says_what_qemu_says_and_the_name_stays_free() {
    let (daemon, mut qmp) = Daemon::netdevd(&[]);
    if std::fs::exists("/dev/netmap").is_ok_and(|there| there) {
        return; // a system with the module has ports, which are not this test's
    }
    for (ifname, reason) in [("vale0:1", "No such file or directory"), ("eth0", "No such file or directory")]
    {
        let said = qmp.refused("netdev_add", json!({"type": "netmap", "id": "n", "ifname": ifname}));
        assert_eq!(said, format!("Failed to nm_open() {ifname}: {reason}"));
    }
    // The device is the one that is named, and must be netmap's.
    let link = daemon.directory().join("device");
    symlink("/dev/null", &link).expect("a link");
    let said =
        qmp.refused("netdev_add", json!({"type": "netmap", "id": "n", "ifname": "vale0:1", "devname": link}));
    assert_eq!(said, "Failed to nm_open() vale0:1: Inappropriate ioctl for device");
    let said = qmp.refused("netdev_add", json!({"type": "netmap", "id": "n"}));
    assert_eq!(said, "Parameter 'ifname' is missing");
    qmp.ok("netdev_add", json!({"type": "hubport", "id": "n", "hubid": 1}));
}
