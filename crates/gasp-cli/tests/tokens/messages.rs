//! The messages of a client of the broker, written out here and not taken from the library.

use std::io::Read;

use gasp::Errno;
use gasp::broker::HostToken;

/// The greeting of a broker that hands out tokens.
pub(crate) const TOKENS: u8 = b't';
/// The most tokens of one connection at a time.
pub(crate) const TOKENS_MAX: usize = 1 << 16;
/// The length of a request.
pub(crate) const REQUEST: usize = 17;

/// A request for tokens of `[addr, addr + len)`.
pub(crate) fn grant(addr: u64, len: u64) -> [u8; REQUEST] {
    request(1, u128::from(addr) | u128::from(len) << 64)
}

/// A request for the run of a token.
pub(crate) fn redeem(token: [u8; 16]) -> [u8; REQUEST] {
    request(2, u128::from_le_bytes(token))
}

/// The release of the tokens of `[addr, addr + len)`.
pub(crate) fn release(addr: u64, len: u64) -> [u8; REQUEST] {
    request(3, u128::from(addr) | u128::from(len) << 64)
}

fn request(kind: u8, body: u128) -> [u8; REQUEST] {
    let mut bytes = [kind; REQUEST];
    bytes[1..].copy_from_slice(&body.to_le_bytes());
    bytes
}

/// Reads an answer: a body, or an errno.
pub(crate) fn answer(from: &mut impl Read) -> Result<Vec<u8>, Errno> {
    let (mut status, mut len) = ([0; 4], [0; 4]);
    from.read_exact(&mut status).unwrap();
    from.read_exact(&mut len).unwrap();
    let mut body = vec![0; u32::from_le_bytes(len) as usize];
    from.read_exact(&mut body).unwrap();
    match i32::from_le_bytes(status) {
        0 => Ok(body),
        errno => Err(Errno::from_raw_os_error(errno)),
    }
}

/// The tokens of an answer, which are of `len` bytes together.
pub(crate) fn tokens(body: &[u8], len: u64) -> Vec<HostToken> {
    let (records, []) = body.as_chunks::<24>() else { panic!("{} bytes", body.len()) };
    let tokens: Vec<_> = records
        .iter()
        .map(|record| HostToken {
            token: *record.first_chunk().unwrap(),
            len: u64::from_le_bytes(*record.last_chunk().unwrap()),
        })
        .collect();
    assert_eq!(tokens.iter().map(|token| token.len).sum::<u64>(), len);
    tokens
}
