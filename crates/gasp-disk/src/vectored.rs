//! File I/O straight into and out of the guest's memory, without a copy in between.
#![allow(unsafe_code, reason = "passes the kernel pointers to the guest's memory")]

use core::ffi::c_int;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use libc::iovec;

use crate::data::{Data, Direction, Piece};

/// The maximum number of buffers of one call (IOV_MAX on Linux).
const BUFFERS_MAX: usize = 1024;

/// Moves all of `data`, which was mapped for this direction, between the guest and the file
/// at `offset`.
///
/// # Errors
/// The error of preadv(2) or pwritev(2): `EFAULT` if the guest's memory is no longer there;
/// [`io::ErrorKind::UnexpectedEof`] if the file ends before the data does. [`Data::moved`] is how
/// much was moved before.
///
/// # References
/// [preadv(2), pwritev(2)](https://man7.org/linux/man-pages/man2/preadv.2.html)
pub(crate) fn transfer(
    file: &File,
    offset: u64,
    data: &mut Data,
    direction: Direction,
) -> io::Result<()> {
    let mut moved = 0;
    let done = move_all(file, offset, data, direction, &mut moved);
    data.moved = if done.is_err() { moved } else { 0 };
    done
}

fn move_all(
    file: &File,
    offset: u64,
    data: &mut Data,
    direction: Direction,
    done: &mut u64,
) -> io::Result<()> {
    let mut buffers = Vec::with_capacity(data.pieces().len());
    data.pieces().iter_mut().try_for_each(|piece| gather(piece, direction, &mut buffers))?;
    let mut rest = &mut *buffers;
    let mut at = i64::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput)?;
    while !rest.is_empty() {
        let (fd, vector) = (file.as_raw_fd(), rest.as_ptr());
        // At most 1024, so it fits.
        let count = rest.len().min(BUFFERS_MAX) as c_int;
        let moved = match direction {
            // SAFETY: `vector` points to at least `count` buffers, those of `rest`. Each is valid
            // for writes of its length: `gather` created it from memory of a mapping for writing,
            // or from a copy's own, which `data`, borrowed for longer than this call, keeps; `skip`
            // only shortens it from the front. There are no Rust references to guest memory, and
            // the copy is borrowed exclusively.
            Direction::ToGuest => unsafe { libc::preadv(fd, vector, count, at) },
            // SAFETY: `vector` points to at least `count` buffers, those of `rest`. Each is valid
            // for reads of its length: `gather` created it from memory of a mapping for reading, or
            // from a copy's own, which `data`, borrowed for longer than this call, keeps; `skip`
            // only shortens it from the front. The guest may write them meanwhile: the kernel reads
            // them outside the abstract machine, so that is no data race.
            Direction::FromGuest => unsafe { libc::pwritev(fd, vector, count, at) },
        };
        match usize::try_from(moved) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(moved) => {
                at = at.saturating_add_unsigned(moved as u64);
                *done += moved as u64;
                let whole = skip(rest, moved);
                rest = rest.get_mut(whole..).unwrap_or_default();
            }
            Err(_) => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    }
    Ok(())
}

/// Adds the buffers of one piece.
fn gather(piece: &mut Piece, direction: Direction, buffers: &mut Vec<iovec>) -> io::Result<()> {
    let mut add = |base: *mut u8, len| {
        buffers.push(iovec { iov_base: base.cast(), iov_len: len });
        Ok(())
    };
    let denied = |_| io::Error::from(io::ErrorKind::PermissionDenied);
    match (piece, direction) {
        (Piece::Whole(mapping), Direction::ToGuest) => {
            add(mapping.as_mut_ptr().map_err(denied)?, mapping.len())
        }
        // The kernel only reads these.
        (Piece::Whole(mapping), Direction::FromGuest) => {
            add(mapping.as_ptr().cast_mut(), mapping.len())
        }
        (Piece::Scattered(scatter), Direction::ToGuest) => scatter
            .pieces()
            .try_for_each(|piece| add(piece.as_mut_ptr().map_err(denied)?, piece.len())),
        (Piece::Scattered(scatter), Direction::FromGuest) => {
            scatter.pieces().try_for_each(|piece| add(piece.as_ptr().cast_mut(), piece.len()))
        }
        (Piece::Copied(_, bytes), _) => add(bytes.as_mut_ptr(), bytes.len()),
    }
}

/// Takes `moved` bytes off the front of the buffers, and returns how many buffers are done.
fn skip(buffers: &mut [iovec], mut moved: usize) -> usize {
    for (index, buffer) in buffers.iter_mut().enumerate() {
        if moved < buffer.iov_len {
            buffer.iov_base = buffer.iov_base.wrapping_byte_add(moved);
            buffer.iov_len -= moved;
            return index;
        }
        moved -= buffer.iov_len;
    }
    buffers.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transfer_in_parts_goes_on_where_it_ended() {
        let base = core::ptr::without_provenance_mut(0x1000);
        let mut buffers = [iovec { iov_base: base, iov_len: 10 }; 3];
        assert_eq!(skip(&mut buffers, 0), 0);
        assert_eq!(skip(&mut buffers, 4), 0);
        assert_eq!((buffers[0].iov_base.addr(), buffers[0].iov_len), (0x1004, 6));
        assert_eq!(skip(&mut buffers, 6 + 3), 1);
        assert_eq!((buffers[1].iov_base.addr(), buffers[1].iov_len), (0x1003, 7));
        assert_eq!(skip(&mut buffers[1..], 7 + 10), 2);
    }
}
