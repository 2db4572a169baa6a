//! The command line of passt (QEMU 10.1 `net/passt.c`, `net_passt_decode_args`; passt(1)).

use crate::options::Text;
use crate::options::netdev::PasstOptions;

/// The number under which passt finds its socket.
pub(super) const SOCKET: i32 = 3;

impl PasstOptions {
    /// The program, as it is asked for.
    #[must_use]
    pub fn program(&self) -> &str {
        self.path.as_deref().unwrap_or("passt")
    }

    /// Whether frames go over rings in shared memory.
    #[must_use]
    pub fn uses_vhost_user(&self) -> bool {
        self.vhost_user == Some(true)
    }

    /// The words behind the program's name, in QEMU's order. It is quiet unless told otherwise, and a boolean is a word only where it is not
    /// passt's own default.
    #[must_use]
    pub fn words(&self, pidfile: &str) -> Vec<String> {
        let mut words = Words(Vec::new());
        words.when(self.uses_vhost_user(), "--vhost-user");
        words.when(self.quiet != Some(false), "--quiet");
        words.with("--mtu", self.mtu.map(|mtu| mtu.to_string()).as_deref());
        words.with("--address", self.address.as_deref());
        words.with("--netmask", self.netmask.as_deref());
        words.with("--mac-addr", self.mac.as_deref());
        words.with("--gateway", self.gateway.as_deref());
        words.with("--interface", self.interface.as_deref());
        words.with("--outbound", self.outbound.as_deref());
        words.with("--outbound-if4", self.outbound_if4.as_deref());
        words.with("--outbound-if6", self.outbound_if6.as_deref());
        words.with("--dns", self.dns.as_deref());
        words.with("--fqdn", self.fqdn.as_deref());
        words.unless(self.dhcp_dns, "--no-dhcp-dns");
        words.unless(self.dhcp_search, "--no-dhcp-search");
        words.with("--map-host-loopback", self.map_host_loopback.as_deref());
        words.with("--map-guest-addr", self.map_guest_addr.as_deref());
        words.with("--dns-forward", self.dns_forward.as_deref());
        words.with("--dns-host", self.dns_host.as_deref());
        words.unless(self.tcp, "--no-tcp");
        words.unless(self.udp, "--no-udp");
        words.unless(self.icmp, "--no-icmp");
        words.unless(self.dhcp, "--no-dhcp");
        words.unless(self.ndp, "--no-ndp");
        words.unless(self.dhcpv6, "--no-dhcpv6");
        words.unless(self.ra, "--no-ra");
        words.when(self.freebind == Some(true), "--freebind");
        words.unless(self.ipv4, "--ipv6-only");
        words.unless(self.ipv6, "--ipv4-only");
        words.with("--search", joined(self.search.as_deref(), " ").as_deref());
        words.with("--tcp-ports", joined(self.tcp_ports.as_deref(), ",").as_deref());
        words.with("--udp-ports", joined(self.udp_ports.as_deref(), ",").as_deref());
        words.0.extend(self.param.iter().flatten().map(|word| word.str.clone()));
        words.with("--pid", Some(pidfile));
        words.with("--fd", Some(&SOCKET.to_string()));
        words.0
    }
}

struct Words(Vec<String>);

impl Words {
    fn when(&mut self, wanted: bool, word: &str) {
        if wanted {
            self.0.push(word.to_owned());
        }
    }

    fn unless(&mut self, wanted: Option<bool>, word: &str) {
        self.when(wanted == Some(false), word);
    }

    fn with(&mut self, word: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.0.extend([word.to_owned(), value.to_owned()]);
        }
    }
}

/// The elements in one word; nothing for no element.
fn joined(list: Option<&[Text]>, by: &str) -> Option<String> {
    let list = list.filter(|list| !list.is_empty())?;
    Some(list.iter().map(|text| text.str.as_str()).collect::<Vec<_>>().join(by))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn words(options: Value) -> Vec<String> {
        let options: PasstOptions = serde_json::from_value(options).unwrap();
        options.words("/tmp/p.pid")
    }

    /// What is between the first words and the last.
    #[track_caller]
    fn adds(options: Value, expected: &[&str]) {
        let expected = [&["--quiet"], expected, &["--pid", "/tmp/p.pid", "--fd", "3"]].concat();
        assert_eq!(words(options), expected);
    }

    #[test]
    fn nothing_asked_for_is_quiet_on_a_socket_with_a_pid_file() {
        adds(json!({}), &[]);
        assert_eq!(words(json!({"quiet": false})), ["--pid", "/tmp/p.pid", "--fd", "3"]);
        assert_eq!(words(json!({"quiet": true, "vhost-user": true}))[..2], ["--vhost-user", "--quiet"]);
        adds(json!({"vhost-user": false}), &[]);
        assert_eq!(PasstOptions::default().program(), "passt");
        assert_eq!(PasstOptions { path: Some("/x".into()), ..PasstOptions::default() }.program(), "/x");
    }

    #[test]
    fn each_value_follows_its_flag() {
        for (option, flag) in [
            ("address", "--address"),
            ("netmask", "--netmask"),
            ("mac", "--mac-addr"),
            ("gateway", "--gateway"),
            ("interface", "--interface"),
            ("outbound", "--outbound"),
            ("outbound-if4", "--outbound-if4"),
            ("outbound-if6", "--outbound-if6"),
            ("dns", "--dns"),
            ("fqdn", "--fqdn"),
            ("map-host-loopback", "--map-host-loopback"),
            ("map-guest-addr", "--map-guest-addr"),
            ("dns-forward", "--dns-forward"),
            ("dns-host", "--dns-host"),
        ] {
            adds(json!({option: "x y"}), &[flag, "x y"]);
            adds(json!({option: ""}), &[flag, ""]);
        }
        adds(json!({"mtu": 1500}), &["--mtu", "1500"]);
        adds(json!({"mtu": -1}), &["--mtu", "-1"]);
    }

    #[test]
    fn booleans_are_words_only_where_they_leave_the_default() {
        for (option, flag) in [
            ("dhcp-dns", "--no-dhcp-dns"),
            ("dhcp-search", "--no-dhcp-search"),
            ("tcp", "--no-tcp"),
            ("udp", "--no-udp"),
            ("icmp", "--no-icmp"),
            ("dhcp", "--no-dhcp"),
            ("ndp", "--no-ndp"),
            ("dhcpv6", "--no-dhcpv6"),
            ("ra", "--no-ra"),
            ("ipv4", "--ipv6-only"),
            ("ipv6", "--ipv4-only"),
        ] {
            adds(json!({option: false}), &[flag]);
            adds(json!({option: true}), &[]);
        }
        adds(json!({"freebind": true}), &["--freebind"]);
        adds(json!({"freebind": false}), &[]);
    }

    #[test]
    fn lists_are_one_word_but_for_params() {
        let list = json!([{"str": "a"}, {"str": "b"}]);
        adds(json!({"search": list}), &["--search", "a b"]);
        adds(json!({"tcp-ports": list}), &["--tcp-ports", "a,b"]);
        adds(json!({"udp-ports": list}), &["--udp-ports", "a,b"]);
        adds(json!({"param": [{"str": "--runas"}, {"str": "0"}]}), &["--runas", "0"]);
        for option in ["search", "tcp-ports", "udp-ports", "param"] {
            adds(json!({option: []}), &[]);
        }
    }

    #[test]
    fn the_order_is_the_reference_s() {
        let all = json!({"vhost-user": true, "mtu": 9000, "address": "a", "fqdn": "f", "tcp": false, "ipv4": false,
            "search": [{"str": "s"}], "tcp-ports": [{"str": "1"}], "udp-ports": [{"str": "2"}], "param": [{"str": "p"}],
            "dns": "d", "freebind": true, "dhcp-dns": false});
        let expected = "--vhost-user --quiet --mtu 9000 --address a --dns d --fqdn f --no-dhcp-dns --no-tcp --freebind --ipv6-only \
            --search s --tcp-ports 1 --udp-ports 2 p --pid /tmp/p.pid --fd 3";
        assert_eq!(words(all).join(" "), expected);
    }
}
