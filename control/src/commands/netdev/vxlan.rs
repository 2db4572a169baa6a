//! What the options of `vxlan` mean together.

use super::Opening;
use super::tap::Info;
use crate::commands::args::Args;
use crate::qmp::error::QmpError;
use engine::backend::vxlan::{PORT, SOURCES, SOURCES_MOST, VNI_MOST, VxlanOptions};
use serde_json::{Map, Value};

/// Checks the options and says what to open.
pub(super) fn options(args: &Map<String, Value>) -> Result<VxlanOptions, QmpError> {
    let vni = args.uint("vni").and_then(|vni| u32::try_from(vni).ok()).filter(|vni| *vni <= VNI_MOST);
    let vni = vni
        .ok_or_else(|| QmpError::generic(format!("Parameter 'vni' expects a value of at most {VNI_MOST}")))?;
    let port = port(args);
    if port == 0 {
        return Err(QmpError::generic("Parameter 'port' expects a value of at least 1"));
    }
    let sources = args.uint("source-ports").map_or(SOURCES, |count| count as u16);
    if !(1..=SOURCES_MOST).contains(&sources) {
        let words = format!("Parameter 'source-ports' expects a value of 1 to {SOURCES_MOST}");
        return Err(QmpError::generic(words));
    }
    Ok(VxlanOptions {
        remote: args.text("remote").to_owned(),
        local: args.maybe("local").map(str::to_owned),
        vni,
        port,
        sources,
    })
}

/// The schema has checked that it fits.
fn port(args: &Map<String, Value>) -> u16 {
    args.uint("port").map_or(PORT, |port| port as u16)
}

/// What to remember while it opens.
pub(super) fn opening(args: Map<String, Value>) -> Opening {
    let vni = args.uint("vni").unwrap_or_default();
    let (remote, port) = (args.text("remote"), port(&args));
    let remote = if remote.contains(':') { format!("[{remote}]") } else { remote.to_owned() };
    Opening {
        info: Info::Lines(vec![format!("vxlan: vni={vni},remote={remote}:{port}")]),
        ..Opening::new("vxlan", args)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn args(value: &Value) -> Map<String, Value> {
        value.as_object().cloned().unwrap()
    }

    #[test]
    fn numbers_have_their_bounds() {
        let most = options(&args(&json!({"remote": "a", "vni": 16_777_215}))).unwrap();
        assert_eq!((most.vni, most.port, most.local, most.sources), (VNI_MOST, 4789, None, 8));
        let beyond = options(&args(&json!({"remote": "a", "vni": 16_777_216}))).unwrap_err();
        assert_eq!(beyond.desc, "Parameter 'vni' expects a value of at most 16777215");
        let none = options(&args(&json!({"remote": "a", "vni": 1, "port": 0}))).unwrap_err();
        assert_eq!(none.desc, "Parameter 'port' expects a value of at least 1");
        let by = |sources| options(&args(&json!({"remote": "a", "vni": 1, "source-ports": sources})));
        assert_eq!([1, 64].map(|sources| by(sources).unwrap().sources), [1, 64]);
        for sources in [0, 65] {
            let desc = by(sources).unwrap_err().desc;
            assert_eq!(desc, "Parameter 'source-ports' expects a value of 1 to 64");
        }
    }

    #[test]
    fn it_is_described_by_its_other_end() {
        let line = |value: &Value| match opening(args(value)).info {
            Info::Lines(lines) => lines.concat(),
            _ => String::new(),
        };
        assert_eq!(line(&json!({"remote": "192.0.2.1", "vni": 7})), "vxlan: vni=7,remote=192.0.2.1:4789");
        assert_eq!(
            line(&json!({"remote": "2001:db8::1", "vni": 0, "port": 9})),
            "vxlan: vni=0,remote=[2001:db8::1]:9"
        );
    }
}
