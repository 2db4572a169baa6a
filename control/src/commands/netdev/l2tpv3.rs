//! What the options of `l2tpv3` mean together (QEMU 10.0 `net_init_l2tpv3`).

use super::Opening;
use super::tap::Info;
use crate::commands::args::Args;
use crate::qmp::error::QmpError;
use engine::backend::l2tpv3::{Cookies, Counter, L2tpv3Options, OFFSET_MOST};
use serde_json::{Map, Value};

/// Checks which options may stand together, in QEMU's order and words, and says what to open.
pub(super) fn options(args: &Map<String, Value>) -> Result<L2tpv3Options, QmpError> {
    let refuse = |desc: &str| Err(QmpError::generic(desc));
    // The schema has checked that they fit.
    let word = |name: &str| args.uint(name).map(|word| word as u32);
    let on = |name: &str| args.flag(name) == Some(true);
    let offset = word("offset").unwrap_or(0);
    if offset > OFFSET_MOST {
        return refuse("offset must be less than 256 bytes");
    }
    let cookies = match (args.uint("txcookie"), args.uint("rxcookie")) {
        (None, None) => None,
        // That it is given at all decides in QEMU, whatever is said: the other end may well count on it.
        (Some(tx), Some(rx)) if args.contains_key("cookie64") => Some(Cookies::Long { tx, rx }),
        (Some(tx), Some(rx)) => Some(Cookies::Short { tx: tx as u32, rx: rx as u32 }),
        _ => return refuse("require both 'rxcookie' and 'txcookie' or neither"),
    };
    let ports = match (args.maybe("srcport"), args.maybe("dstport")) {
        _ if !on("udp") => None,
        (Some(from), Some(to)) => Some((from.to_owned(), to.to_owned())),
        _ => return refuse("need both src and dst port for udp"),
    };
    let tx_session = word("txsession").unwrap_or(0);
    Ok(L2tpv3Options {
        src: args.text("src").to_owned(),
        dst: args.text("dst").to_owned(),
        ports,
        ipv6: on("ipv6"),
        tx_session,
        rx_session: word("rxsession").unwrap_or(tx_session),
        cookies,
        // Pinning alone adds no field.
        counter: match (on("counter"), on("pincounter")) {
            (false, _) => Counter::None,
            (true, false) => Counter::Counting,
            (true, true) => Counter::Pinned,
        },
        offset,
    })
}

/// What to remember while it opens.
pub(super) fn opening(args: Map<String, Value>) -> Opening {
    Opening { info: Info::Lines(vec!["l2tpv3: connected".to_owned()]), ..Opening::new("l2tpv3", args) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn with(more: &Value) -> Result<L2tpv3Options, String> {
        let mut args = json!({"src": "a", "dst": "b", "txsession": 7}).as_object().cloned().unwrap();
        args.extend(more.as_object().cloned().unwrap());
        options(&args).map_err(|error| error.desc)
    }

    #[test]
    fn what_is_refused_and_in_which_order() {
        let offset = "offset must be less than 256 bytes";
        let cookies = "require both 'rxcookie' and 'txcookie' or neither";
        let ports = "need both src and dst port for udp";
        for (more, expected) in [
            (json!({"offset": 257, "txcookie": 1, "udp": true}), offset),
            (json!({"txcookie": 1, "udp": true}), cookies),
            (json!({"rxcookie": 1}), cookies),
            (json!({"udp": true}), ports),
            (json!({"udp": true, "srcport": "1"}), ports),
            (json!({"udp": true, "dstport": "1"}), ports),
        ] {
            assert_eq!(with(&more).unwrap_err(), expected, "{more}");
        }
        assert_eq!(with(&json!({"offset": 256})).unwrap().offset, 256);
    }

    #[test]
    fn what_is_left_out_has_qemus_meaning() {
        let plain = with(&json!({"srcport": "1", "dstport": "2"})).unwrap();
        assert_eq!(plain.ports, None, "ports without udp count for nothing");
        assert_eq!((plain.tx_session, plain.rx_session), (7, 7));
        assert_eq!((plain.cookies, plain.counter, plain.offset, plain.ipv6), (None, Counter::None, 0, false));
        assert_eq!(with(&json!({"rxsession": 0})).unwrap().rx_session, 0);
        assert_eq!(with(&json!({"pincounter": true})).unwrap().counter, Counter::None);
        assert_eq!(with(&json!({"counter": true})).unwrap().counter, Counter::Counting);
        assert_eq!(with(&json!({"counter": true, "pincounter": true})).unwrap().counter, Counter::Pinned);
    }

    #[test]
    fn cookies_are_long_when_cookie64_is_given_at_all() {
        let both = json!({"txcookie": 0x1_0000_0002_u64, "rxcookie": 3});
        assert_eq!(with(&both).unwrap().cookies, Some(Cookies::Short { tx: 2, rx: 3 }));
        for given in [true, false] {
            let mut more = both.clone();
            more["cookie64"] = given.into();
            assert_eq!(with(&more).unwrap().cookies, Some(Cookies::Long { tx: 0x1_0000_0002, rx: 3 }));
        }
    }
}
