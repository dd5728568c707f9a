//! VERSION, the first message: protocol versions, and the limits of both sides.
//!
//! The limits are JSON, in an object `capabilities`. A missing one has the default of the
//! protocol; one of the wrong type ends the connection, because nothing that follows could
//! be relied on.

use std::os::fd::OwnedFd;

use serde_json::{Map, Value, json};

use super::fields::{Fields, Reply};
use super::refused::Refused;

/// The protocol's major version that is supported.
pub(crate) const MAJOR: u16 = 0;
/// Its minor version.
pub(crate) const MINOR: u16 = 0;
/// Maximum size of the JSON text in bytes.
const JSON_MAX: usize = 4096;

/// The capabilities of one side.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Capabilities {
    /// Maximum number of descriptors that it accepts in one message.
    pub(crate) max_msg_fds: u64,
    /// Maximum size of the data that it accepts in one message, in bytes.
    pub(crate) max_data_xfer_size: u64,
    /// Maximum number of DMA windows.
    pub(crate) max_dma_maps: u64,
    /// The page sizes of windows, as a bit mask.
    pub(crate) pgsizes: u64,
    /// Whether REGION_WRITE_MULTI is supported.
    pub(crate) write_multiple: bool,
}

impl Default for Capabilities {
    /// The protocol's defaults for a side that names none.
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

/// The client's proposal: the reply may not name what the proposal does not name.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Proposal {
    max_msg_fds: Option<u64>,
    max_data_xfer_size: Option<u64>,
    max_dma_maps: Option<u64>,
    pgsizes: Option<u64>,
    write_multiple: Option<bool>,
    /// Whether the server may send its commands over a socket of their own.
    twin_socket: bool,
}

impl Proposal {
    /// Whether the client accepts a twin socket, and the descriptor for it.
    pub(crate) fn takes_twin(&self) -> bool {
        self.twin_socket && self.capabilities().max_msg_fds > 0
    }

    /// The client's limits, with the protocol's defaults for those that it does not name.
    pub(crate) fn capabilities(&self) -> Capabilities {
        let default = Capabilities::default();
        Capabilities {
            max_msg_fds: self.max_msg_fds.unwrap_or(default.max_msg_fds),
            max_data_xfer_size: self.max_data_xfer_size.unwrap_or(default.max_data_xfer_size),
            max_dma_maps: self.max_dma_maps.unwrap_or(default.max_dma_maps),
            pgsizes: self.pgsizes.unwrap_or(default.pgsizes),
            write_multiple: self.write_multiple.unwrap_or(default.write_multiple),
        }
    }
}

/// Decodes the client's proposal.
pub(crate) fn decode(payload: &[u8]) -> Result<Proposal, Refused> {
    let mut fields = Fields::new(payload);
    let [major, minor] = fields.read::<[u16; 2]>()?;
    if major != MAJOR {
        let what = format!("version {major}.{minor} is not supported, only {MAJOR}.{MINOR} is");
        return Err(Refused::invalid(what));
    }
    let text = match fields.rest() {
        [] => return Ok(Proposal::default()),
        [text @ .., 0] if !text.contains(&0) => text,
        _ => return Err(Refused::invalid("the version data does not end with its only NUL")),
    };
    if text.is_empty() {
        return Ok(Proposal::default());
    }
    if text.len() > JSON_MAX {
        return Err(Refused::invalid(format!(
            "the capabilities have {} bytes, more than {JSON_MAX}",
            text.len()
        )));
    }
    let json: Value = serde_json::from_slice(text)
        .map_err(|error| Refused::invalid(format!("the capabilities are not JSON: {error}")))?;
    let Value::Object(json) = json else {
        return Err(Refused::invalid("the version data is not an object"));
    };
    match json.get("capabilities") {
        None => Ok(Proposal::default()),
        Some(Value::Object(capabilities)) => from_json(capabilities),
        Some(_) => Err(Refused::invalid("the capabilities are not an object")),
    }
}

fn from_json(json: &Map<String, Value>) -> Result<Proposal, Refused> {
    let number = |name: &str| named(json, name, Value::as_u64, "a number");
    Ok(Proposal {
        max_msg_fds: number("max_msg_fds")?,
        max_data_xfer_size: number("max_data_xfer_size")?,
        max_dma_maps: number("max_dma_maps")?,
        pgsizes: number("pgsizes")?,
        write_multiple: named(json, "write_multiple", Value::as_bool, "true or false")?,
        twin_socket: match json.get("twin_socket") {
            None => false,
            Some(Value::Object(twin)) => {
                named(twin, "supported", Value::as_bool, "true or false")?.unwrap_or(false)
            }
            Some(_) => return Err(Refused::invalid("`twin_socket` is not an object")),
        },
    })
}

/// The value of `name`, if present; it must have the right type.
fn named<T>(
    json: &Map<String, Value>,
    name: &str,
    convert: impl Fn(&Value) -> Option<T>,
    needed: &str,
) -> Result<Option<T>, Refused> {
    let convert = |value| {
        let wrong = || Refused::invalid(format!("`{name}` is {value}: expected {needed}"));
        convert(value).ok_or_else(wrong)
    };
    json.get(name).map(convert).transpose()
}

/// The reply: the version that both sides support, and the server's limits for those that
/// the client names. `twin` is the client's end of the socket for the server's commands.
pub(crate) fn encode(ours: Capabilities, proposal: &Proposal, twin: Option<OwnedFd>) -> Reply {
    // Its index among the descriptors of the message: it is the only one.
    let twin_socket = twin.as_ref().map(|_| json!({ "supported": true, "fd_index": 0 }));
    let answers = [
        ("max_msg_fds", proposal.max_msg_fds.map(|_| json!(ours.max_msg_fds))),
        ("max_data_xfer_size", proposal.max_data_xfer_size.map(|_| json!(ours.max_data_xfer_size))),
        ("max_dma_maps", proposal.max_dma_maps.map(|_| json!(ours.max_dma_maps))),
        ("pgsizes", proposal.pgsizes.map(|_| json!(ours.pgsizes))),
        ("twin_socket", twin_socket),
        ("write_multiple", proposal.write_multiple.map(|_| json!(ours.write_multiple))),
    ];
    let answers = answers.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
    let text = json!({ "capabilities": answers.collect::<Map<_, _>>() }).to_string();
    let reply = Reply::with_capacity(text.len() + 5).put(&[MAJOR, MINOR]);
    let reply = reply.put(text.as_bytes()).put(&0_u8);
    match twin {
        Some(twin) => reply.fd(twin),
        None => reply,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn proposal(major: u16, text: &[u8]) -> Result<Capabilities, Refused> {
        let payload = Reply::new().put(&[major, 0]).put(text).command(0, 1).split_off(16);
        decode(&payload).map(|proposal| proposal.capabilities())
    }

    #[test]
    fn a_client_that_says_nothing_has_the_protocols_defaults() {
        for text in [&b""[..], b"\0", b"{}\0", b"{\"capabilities\":{}}\0"] {
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
        let all = Proposal {
            max_msg_fds: Some(1),
            max_data_xfer_size: Some(1),
            max_dma_maps: Some(1),
            pgsizes: Some(1),
            write_multiple: Some(false),
            twin_socket: false,
        };
        let decoded =
            |proposal| decode(&encode(ours, &proposal, None).command(0, 1).split_off(16)).unwrap();
        assert_eq!(decoded(all).capabilities(), ours);
        // Only what was proposed is answered.
        assert_eq!(decoded(Proposal::default()), Proposal::default());
        let some = Proposal { max_dma_maps: Some(9), ..Proposal::default() };
        assert_eq!(decoded(some), Proposal { max_dma_maps: Some(7), ..Proposal::default() });
    }

    #[test]
    fn version_data_ends_with_its_only_nul() {
        for text in [&b"{}"[..], b"{}\0{}", b"{}\0\0", b"\0{}\0", b" "] {
            assert!(proposal(0, text).is_err(), "{text:?}");
        }
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
            r#"{"capabilities":{"twin_socket":true}}"#,
            r#"{"capabilities":{"twin_socket":{"supported":1}}}"#,
        ] {
            let text = format!("{text}\0");
            assert!(proposal(0, text.as_bytes()).is_err(), "{text}");
        }
        let deep = format!("{}{}\0", "[".repeat(2000), "]".repeat(2000));
        assert!(proposal(0, deep.as_bytes()).is_err());
        let long = format!("{{\"x\":\"{}\"}}\0", "y".repeat(JSON_MAX));
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
