//! What a broker and its clients say to each other, in bytes.
//!
//! The broker begins, with one message of at most [`GREETING_MAX`] bytes: [`DESCRIPTOR`]
//! with a descriptor, [`REFUSED`] and why, or [`TOKENS`]. After the last one the client sends
//! [`Request`]s, one after the other, as often as it likes. Each but a release is answered by
//! a status (0, or an errno), the length of what follows, and what follows. All numbers are
//! little-endian. What does not decode ends the connection.

use core::time::Duration;
use std::io::{self, Read};

use crate::addr::HostPhys;
use crate::error::Errno;
use crate::memory::HostRun;

/// Whoever takes longer for what it has to say is not there.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// A descriptor of the client's page map comes with this byte.
pub const DESCRIPTOR: u8 = b'+';
/// The reason of a refusal follows this byte.
pub const REFUSED: u8 = b'-';
/// The broker waits for requests.
pub const TOKENS: u8 = b't';
/// How long a greeting can be, in bytes.
pub const GREETING_MAX: usize = 256;
/// How many tokens one connection can have at a time.
pub const TOKENS_MAX: usize = 1 << 16;
/// How many bytes of memory one request can be about.
pub const RANGE_MAX: u64 = 16 << 30;

/// A token, its length, and what is said of it.
const GRANTED: usize = 16 + 8;
const HEADER: usize = 4 + 4;

/// Stands for one host-physical run of a process's memory, and says nothing about where it
/// lies: 16 random bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct HostToken {
    /// What is passed on.
    pub token: [u8; 16],
    /// How many bytes the run has; never 0.
    pub len: u64,
}

/// What a client asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Request {
    /// Tokens of the client's own memory; answered by them, in order.
    Grant {
        /// The first host-virtual address, in the client.
        addr: u64,
        /// How many bytes, at most [`RANGE_MAX`].
        len: u64,
    },
    /// Where the run of a token is; answered by it.
    Redeem([u8; 16]),
    /// The client's tokens that lie in this range are worth nothing any more; not answered.
    Release {
        /// The first host-virtual address, in the client.
        addr: u64,
        /// How many bytes.
        len: u64,
    },
}

impl Request {
    /// How many bytes a request has.
    pub const LEN: usize = 17;

    /// As bytes.
    pub fn encode(&self) -> [u8; Self::LEN] {
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

    /// From bytes; `None` where they are no request.
    pub fn decode(bytes: &[u8; Self::LEN]) -> Option<Self> {
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

/// An answer, as bytes.
pub fn encode_answer(answer: Result<&[u8], Errno>) -> Vec<u8> {
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

/// Reads an answer.
///
/// # Errors
/// The outer error where none comes, or what comes is none.
pub fn read_answer(from: &mut impl Read) -> io::Result<Result<Vec<u8>, Errno>> {
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

/// Tokens, as the body of an answer.
pub fn encode_tokens(tokens: &[HostToken]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(tokens.len() * GRANTED);
    for HostToken { token, len } in tokens {
        bytes.extend(token);
        bytes.extend(len.to_le_bytes());
    }
    bytes
}

/// Tokens of `total` bytes, from the body of an answer; `None` where it has none such.
pub fn decode_tokens(body: &[u8], total: u64) -> Option<Vec<HostToken>> {
    let pieces = body.chunks_exact(GRANTED);
    let mut rest = total;
    if !pieces.remainder().is_empty() {
        return None;
    }
    let tokens = pieces.map(|piece| {
        let (token, len) = piece.split_first_chunk()?;
        let len = u64::from_le_bytes(len.try_into().ok()?);
        rest = rest.checked_sub(len).filter(|_| len > 0)?;
        Some(HostToken { token: *token, len })
    });
    tokens.collect::<Option<_>>().filter(|_| rest == 0)
}

/// A run, as the body of an answer.
pub fn encode_run(run: HostRun) -> [u8; 16] {
    pair(run.addr.0, run.len)
}

/// A run, from the body of an answer; `None` where it has none.
pub fn decode_run(body: &[u8]) -> Option<HostRun> {
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
        assert_eq!(decode_tokens(&two, 1), None, "the lengths pass 2^64");
        assert_eq!(decode_tokens(&encode_tokens(&[HostToken { len: 0, ..token }]), 0), None);
        assert_eq!(decode_tokens(&[0; 23], 0), None);
        assert_eq!(decode_run(&[0; 16]), None);
        assert_eq!(decode_run(&[0xff; 16]), None);
        assert_eq!(decode_run(&[1; 15]), None);
    }
}
