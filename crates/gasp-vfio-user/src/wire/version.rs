//! The first message: versions, and the limits of both sides.
//!
//! The limits are JSON, in an object `capabilities`. What is missing has a default of the
//! protocol's; what has the wrong type ends the connection, because nothing that follows
//! could be relied on.

use serde_json::{Map, Value, json};

use super::{Fields, Refused, Reply};

/// The protocol's version that is spoken here.
pub(crate) const MAJOR: u16 = 0;
/// Its minor version.
pub(crate) const MINOR: u16 = 0;
/// The most bytes of JSON that are looked at.
const JSON_MAX: usize = 4096;

/// What one side can do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Capabilities {
    /// The most descriptors that it takes in one message.
    pub(crate) max_msg_fds: u64,
    /// The most bytes of data that it takes in one message.
    pub(crate) max_data_xfer_size: u64,
    /// The most windows of memory there can be at a time.
    pub(crate) max_dma_maps: u64,
    /// The page sizes of windows, or'ed together.
    pub(crate) pgsizes: u64,
    /// Whether several writes may come in one message.
    pub(crate) write_multiple: bool,
}

impl Default for Capabilities {
    /// What the protocol says of a side that says nothing.
    fn default() -> Self {
        Self {
            max_msg_fds: 1,
            max_data_xfer_size: 1 << 20,
            max_dma_maps: 65535,
            pgsizes: 4096,
            write_multiple: false,
        }
    }
}

/// What the client proposes.
pub(crate) fn decode(payload: &[u8]) -> Result<Capabilities, Refused> {
    let mut fields = Fields::new(payload);
    let (major, minor) = (fields.u16()?, fields.u16()?);
    if major != MAJOR {
        let what = format!("version {major}.{minor} is not spoken here, but {MAJOR}.{MINOR} is");
        return Err(Refused::invalid(what));
    }
    let text = fields.rest();
    let text = match text.iter().position(|byte| *byte == 0) {
        Some(end) => text.get(..end).unwrap_or_default(),
        None => text,
    };
    if text.is_empty() {
        return Ok(Capabilities::default());
    }
    if text.len() > JSON_MAX {
        return Err(Refused::invalid(format!("{} bytes of capabilities", text.len())));
    }
    let json: Value = serde_json::from_slice(text)
        .map_err(|error| Refused::invalid(format!("the capabilities are not JSON: {error}")))?;
    let Value::Object(json) = json else {
        return Err(Refused::invalid("the version data is not an object"));
    };
    match json.get("capabilities") {
        None => Ok(Capabilities::default()),
        Some(Value::Object(capabilities)) => from_json(capabilities),
        Some(_) => Err(Refused::invalid("the capabilities are not an object")),
    }
}

fn from_json(json: &Map<String, Value>) -> Result<Capabilities, Refused> {
    let number = |name: &str, default| match json.get(name) {
        None => Ok(default),
        Some(value) => value.as_u64().ok_or_else(|| {
            Refused::invalid(format!("`{name}` is {value}, and a number is needed"))
        }),
    };
    let default = Capabilities::default();
    let write_multiple = match json.get("write_multiple") {
        None => default.write_multiple,
        Some(value) => value.as_bool().ok_or_else(|| {
            Refused::invalid(format!("`write_multiple` is {value}, and true or false is needed"))
        })?,
    };
    Ok(Capabilities {
        max_msg_fds: number("max_msg_fds", default.max_msg_fds)?,
        max_data_xfer_size: number("max_data_xfer_size", default.max_data_xfer_size)?,
        max_dma_maps: number("max_dma_maps", default.max_dma_maps)?,
        pgsizes: number("pgsizes", default.pgsizes)?,
        write_multiple,
    })
}

/// The answer: the version that both speak, and our own limits.
pub(crate) fn encode(ours: Capabilities) -> Reply {
    let json = json!({
        "capabilities": {
            "max_msg_fds": ours.max_msg_fds,
            "max_data_xfer_size": ours.max_data_xfer_size,
            "max_dma_maps": ours.max_dma_maps,
            "pgsizes": ours.pgsizes,
            "write_multiple": ours.write_multiple,
        }
    });
    let text = json.to_string();
    Reply::with_capacity(text.len() + 5).u16(MAJOR).u16(MINOR).bytes(text.as_bytes()).bytes(&[0])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn proposal(major: u16, text: &[u8]) -> Result<Capabilities, Refused> {
        decode(&Reply::new().u16(major).u16(0).bytes(text).command(0, 1).split_off(16))
    }

    #[test]
    fn a_client_that_says_nothing_has_the_protocols_defaults() {
        for text in [&b""[..], b"\0", b"{}", b"{}\0", br#"{"capabilities":{}}"#] {
            assert_eq!(proposal(0, text), Ok(Capabilities::default()));
        }
    }

    #[test]
    fn what_is_encoded_is_decoded() {
        let ours = Capabilities {
            max_msg_fds: 16,
            max_data_xfer_size: 4096,
            max_dma_maps: 7,
            pgsizes: 4096,
            write_multiple: true,
        };
        assert_eq!(decode(&encode(ours).command(0, 1).split_off(16)), Ok(ours));
    }

    #[test]
    fn other_versions_and_other_types_are_refused() {
        assert!(proposal(1, b"{}").is_err());
        for text in [
            "nonsense",
            "[]",
            r#"{"capabilities":[]}"#,
            r#"{"capabilities":{"max_dma_maps":"many"}}"#,
            r#"{"capabilities":{"max_msg_fds":-1}}"#,
            r#"{"capabilities":{"pgsizes":4096.5}}"#,
            r#"{"capabilities":{"write_multiple":1}}"#,
        ] {
            assert!(proposal(0, text.as_bytes()).is_err(), "{text}");
        }
        let deep = format!("{}{}", "[".repeat(2000), "]".repeat(2000));
        assert!(proposal(0, deep.as_bytes()).is_err());
        let long = format!("{{\"x\":\"{}\"}}", "y".repeat(JSON_MAX));
        assert!(proposal(0, long.as_bytes()).is_err());
        assert!(decode(&[0, 0, 0]).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
            let _ = decode(&bytes);
        }
    }
}
