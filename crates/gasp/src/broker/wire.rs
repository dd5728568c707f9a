//! The messages of a broker and its clients, as bytes.
//!
//! The broker begins with one message of at most [`GREETING_MAX`] bytes: [`DESCRIPTOR`] with a
//! descriptor, [`REFUSED`] and the reason, or [`TOKENS`]. After the last one the client sends any
//! number of [`Request`]s, one after the other. Each but a release is answered by a status (0 or an
//! errno), the length of the body, and the body. All numbers are little-endian. A message that does
//! not decode ends the connection.

use core::time::Duration;
use std::io::{self, Read};

use crate::addr::HostPhys;
use crate::error::Errno;
use crate::memory::HostRun;

/// The timeout for a message: a peer that takes longer is regarded as gone.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);
/// First byte of a greeting that comes with a descriptor of the client's page map.
pub(crate) const DESCRIPTOR: u8 = b'+';
/// First byte of a refusal; the reason follows, as text.
pub(crate) const REFUSED: u8 = b'-';
/// The greeting of a broker of tokens, which waits for requests.
pub(crate) const TOKENS: u8 = b't';
/// The maximum length of a greeting, in bytes.
pub(crate) const GREETING_MAX: usize = 256;
/// The maximum number of tokens of one connection at a time.
pub(crate) const TOKENS_MAX: usize = 1 << 16;
/// The maximum length of the memory that one request is about, in bytes.
pub(crate) const RANGE_MAX: u64 = 16 << 30;

/// The length of a token in an answer, with the length of its run, in bytes.
const GRANTED: usize = 16 + 8;
const HEADER: usize = 4 + 4;

/// A token of one host-physical run of a process's memory: 16 random bytes, which reveal nothing
/// about its address.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct HostToken {
    /// The random bytes, for whoever redeems them.
    pub token: [u8; 16],
    /// The length of the run in bytes; never 0.
    pub len: u64,
}

/// A request of a client.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Request {
    /// Requests tokens of the client's own memory; answered by the tokens, in order.
    Grant {
        /// The first host-virtual address, in the client.
        addr: u64,
        /// Bytes; from 1 to [`RANGE_MAX`].
        len: u64,
    },
    /// Requests the run of a token; answered by the run.
    Redeem([u8; 16]),
    /// Releases the client's tokens of runs that are inside this range; not answered.
    Release {
        /// The first host-virtual address, in the client.
        addr: u64,
        /// Bytes.
        len: u64,
    },
}

impl Request {
    /// The length of a request, in bytes.
    pub(crate) const LEN: usize = 17;

    /// Encodes the request.
    pub(crate) fn encode(&self) -> [u8; Self::LEN] {
        let (kind, body) = match *self {
            Self::Grant { addr, len } => (1, pair(addr, len)),
            Self::Redeem(token) => (2, token),
            Self::Release { addr, len } => (3, pair(addr, len)),
        };
        let mut bytes = [kind; Self::LEN];
        for (byte, from) in bytes.iter_mut().skip(1).zip(body) {
            *byte = from;
        }
        bytes
    }

    /// Decodes a request; `None` if it is not one.
    pub(crate) fn decode(bytes: &[u8; Self::LEN]) -> Option<Self> {
        let (kind, body) = bytes.split_first()?;
        let (addr, len) = numbers(body)?;
        match kind {
            1 => Some(Self::Grant { addr, len }),
            2 => Some(Self::Redeem(body.try_into().ok()?)),
            3 => Some(Self::Release { addr, len }),
            _ => None,
        }
    }
}

/// Encodes an answer: a body, or an errno.
pub(crate) fn encode_answer(answer: Result<&[u8], Errno>) -> Vec<u8> {
    let (status, body) = match answer {
        Ok(body) => (0, body),
        Err(errno) => (errno.raw_os_error(), &[][..]),
    };
    let mut bytes = Vec::with_capacity(HEADER + body.len());
    bytes.extend(status.to_le_bytes());
    // A body has at most `TOKENS_MAX` tokens.
    bytes.extend(u32::try_from(body.len()).unwrap_or(u32::MAX).to_le_bytes());
    bytes.extend(body);
    bytes
}

/// Reads an answer: a body, or an errno.
///
/// # Errors
/// The outer error is that of the connection: `InvalidData` if it sends something else.
pub(crate) fn read_answer(from: &mut impl Read) -> io::Result<Result<Vec<u8>, Errno>> {
    let (mut status, mut len) = ([0; 4], [0; 4]);
    from.read_exact(&mut status)?;
    from.read_exact(&mut len)?;
    let (status, len) = (i32::from_le_bytes(status), u32::from_le_bytes(len) as usize);
    match status {
        0 if len <= TOKENS_MAX * GRANTED => {
            let mut body = vec![0; len];
            from.read_exact(&mut body)?;
            Ok(Ok(body))
        }
        1..4096 if len == 0 => Ok(Err(Errno::from_raw_os_error(status))),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// Encodes tokens as the body of an answer.
pub(crate) fn encode_tokens(tokens: &[HostToken]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(tokens.len() * GRANTED);
    for HostToken { token, len } in tokens {
        bytes.extend(token);
        bytes.extend(len.to_le_bytes());
    }
    bytes
}

/// Decodes the body of an answer into tokens of `total` bytes together; `None` if it is not that.
pub(crate) fn decode_tokens(body: &[u8], total: u64) -> Option<Vec<HostToken>> {
    let records = body.chunks_exact(GRANTED);
    let mut rest = total;
    if !records.remainder().is_empty() {
        return None;
    }
    let tokens = records.map(|record| {
        let (token, len) = record.split_first_chunk()?;
        let len = u64::from_le_bytes(len.try_into().ok()?);
        rest = rest.checked_sub(len).filter(|_| len > 0)?;
        Some(HostToken { token: *token, len })
    });
    tokens.collect::<Option<_>>().filter(|_| rest == 0)
}

/// Encodes a run as the body of an answer.
pub(crate) fn encode_run(run: HostRun) -> [u8; 16] {
    pair(run.addr.0, run.len)
}

/// Decodes the body of an answer into a run; `None` if it is not one.
pub(crate) fn decode_run(body: &[u8]) -> Option<HostRun> {
    let (addr, len) = numbers(body)?;
    let valid = addr != 0 && len != 0 && addr.checked_add(len).is_some();
    valid.then_some(HostRun { addr: HostPhys(addr), len })
}

fn pair(first: u64, second: u64) -> [u8; 16] {
    (u128::from(first) | u128::from(second) << 64).to_le_bytes()
}

fn numbers(bytes: &[u8]) -> Option<(u64, u64)> {
    let (first, second) = bytes.split_first_chunk()?;
    Some((u64::from_le_bytes(*first), u64::from_le_bytes(second.try_into().ok()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_what_is_heard() {
        let (addr, len) = (0x7f00_0000_1234, 0x5678);
        for request in
            [Request::Grant { addr, len }, Request::Redeem([7; 16]), Request::Release { addr, len }]
        {
            assert_eq!(Request::decode(&request.encode()), Some(request));
        }
        let tokens = [HostToken { token: [1; 16], len: 5 }, HostToken { token: [2; 16], len: 6 }];
        assert_eq!(decode_tokens(&encode_tokens(&tokens), 11).as_deref(), Some(&tokens[..]));
        let run = HostRun { addr: HostPhys(0x1234), len: 5 };
        let answer = encode_answer(Ok(&encode_run(run)));
        let body = read_answer(&mut &answer[..]).unwrap().unwrap();
        assert_eq!(decode_run(&body), Some(run));
        let refused = encode_answer(Err(Errno::STALE));
        assert_eq!(read_answer(&mut &refused[..]).unwrap(), Err(Errno::STALE));
    }

    #[test]
    fn garbage_is_refused() {
        assert_eq!(Request::decode(&[0; Request::LEN]), None);
        assert_eq!(Request::decode(&[0xff; Request::LEN]), None);
        let long = [&[0; 4][..], &u32::MAX.to_le_bytes(), &[0; 64]].concat();
        for answer in [&[][..], &[0; 7], &[0xff; 64], &[0, 0, 0, 0, 1, 0, 0, 0], &long] {
            assert!(read_answer(&mut &*answer).is_err(), "{answer:?}");
        }
        let token = HostToken { token: [0; 16], len: u64::MAX };
        let two = encode_tokens(&[token, HostToken { len: 2, ..token }]);
        assert_eq!(decode_tokens(&two, 1), None, "the lengths add up past 2^64");
        assert_eq!(decode_tokens(&encode_tokens(&[HostToken { len: 0, ..token }]), 0), None);
        assert_eq!(decode_tokens(&[0; 23], 0), None);
        assert_eq!(decode_run(&[0; 16]), None);
        assert_eq!(decode_run(&[0xff; 16]), None);
        assert_eq!(decode_run(&[1; 15]), None);
    }
}
