//! Events: what happened, when, told to every negotiated monitor.

use serde_json::{Value, json};

use super::emit::Writer;

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Its name in the schema, such as `SHUTDOWN`.
    pub name: &'static str,
    /// Its members, if it has any.
    pub data: Option<Value>,
    /// Seconds and microseconds since the epoch, both -1 where there is no clock.
    pub timestamp: (i64, i64),
}

impl Event {
    /// `SHUTDOWN`: the daemon ends. `reason` is QEMU's `ShutdownCause`: `host-qmp-quit`, `host-signal`.
    #[must_use]
    pub fn shutdown(reason: &str, timestamp: (i64, i64)) -> Self {
        Self { name: "SHUTDOWN", data: Some(json!({"guest": false, "reason": reason})), timestamp }
    }

    /// Prints the event with its line end, in QEMU's order of members.
    pub fn write(&self, out: &mut Vec<u8>, pretty: bool) {
        let mut writer = Writer::new(out, pretty);
        writer.open(b'{');
        writer.key("timestamp");
        writer.open(b'{');
        writer.member("seconds", &self.timestamp.0.into());
        writer.member("microseconds", &self.timestamp.1.into());
        writer.close(b'}');
        writer.key("event");
        writer.string(self.name);
        if let Some(data) = &self.data {
            writer.member("data", data);
        }
        writer.close(b'}');
        writer.end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_prints_as_qemu_does() {
        let mut out = Vec::new();
        Event::shutdown("host-qmp-quit", (1_795_487_156, 844_012)).write(&mut out, false);
        Event { name: "RESUME", data: None, timestamp: (-1, -1) }.write(&mut out, false);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "{\"timestamp\": {\"seconds\": 1795487156, \"microseconds\": 844012}, \"event\": \"SHUTDOWN\", \
             \"data\": {\"guest\": false, \"reason\": \"host-qmp-quit\"}}\r\n\
             {\"timestamp\": {\"seconds\": -1, \"microseconds\": -1}, \"event\": \"RESUME\"}\r\n"
        );
    }
}
