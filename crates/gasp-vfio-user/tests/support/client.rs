//! A client that builds its messages from bytes, so that they can be wrong in any way.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use rustix::fs::{MemfdFlags, SealFlags};
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};

pub const VERSION: u16 = 1;
pub const DMA_MAP: u16 = 2;
pub const DMA_UNMAP: u16 = 3;
pub const GET_INFO: u16 = 4;
pub const GET_REGION_INFO: u16 = 5;
pub const GET_REGION_IO_FDS: u16 = 6;
pub const GET_IRQ_INFO: u16 = 7;
pub const SET_IRQS: u16 = 8;
pub const REGION_READ: u16 = 9;
pub const REGION_WRITE: u16 = 10;
pub const DMA_READ: u16 = 11;
pub const DMA_WRITE: u16 = 12;
pub const RESET: u16 = 13;
pub const WRITE_MULTI: u16 = 15;

/// Configuration space.
pub const CONFIG: u32 = 7;

/// The capabilities of a client unless a test chooses others: those of QEMU.
pub const HELLO: &str = r#"{"capabilities":{"max_msg_fds":16,"max_data_xfer_size":1048576,"max_dma_maps":65535,"pgsizes":4096,"write_multiple":true}}"#;

#[derive(Debug)]
pub struct Message {
    pub id: u16,
    pub command: u16,
    pub flags: u32,
    pub error: u32,
    pub payload: Vec<u8>,
    pub fds: Vec<OwnedFd>,
}

impl Message {
    pub fn u32(&self, at: usize) -> u32 {
        u32::from_ne_bytes(self.payload[at..at + 4].try_into().unwrap())
    }

    pub fn u64(&self, at: usize) -> u64 {
        u64::from_ne_bytes(self.payload[at..at + 8].try_into().unwrap())
    }
}

pub struct Client {
    pub stream: UnixStream,
    next: u16,
}

/// The bytes of fields of 4 and 8 bytes.
#[derive(Default, Clone)]
pub struct Bytes(pub Vec<u8>);

impl Bytes {
    pub fn u32(mut self, value: u32) -> Self {
        self.0.extend(value.to_ne_bytes());
        self
    }

    pub fn u64(mut self, value: u64) -> Self {
        self.0.extend(value.to_ne_bytes());
        self
    }

    pub fn bytes(mut self, value: &[u8]) -> Self {
        self.0.extend(value);
        self
    }
}

pub fn bytes() -> Bytes {
    Bytes::default()
}

pub fn map_bytes(flags: u32, offset: u64, addr: u64, size: u64) -> Vec<u8> {
    bytes().u32(32).u32(flags).u64(offset).u64(addr).u64(size).0
}

pub fn unmap_bytes(flags: u32, addr: u64, size: u64) -> Vec<u8> {
    bytes().u32(24).u32(flags).u64(addr).u64(size).0
}

pub fn irq_bytes(flags: u32, index: u32, start: u32, count: u32) -> Bytes {
    bytes().u32(20).u32(flags).u32(index).u32(start).u32(count)
}

impl Client {
    pub fn connect(path: &Path) -> Self {
        let stream = UnixStream::connect(path).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        Self { stream, next: 1 }
    }

    /// A client on an existing socket.
    pub fn over(socket: OwnedFd) -> Self {
        let stream = UnixStream::from(socket);
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        Self { stream, next: 1 }
    }

    pub fn hello(&mut self) {
        self.hello_with(HELLO).unwrap();
    }

    pub fn hello_with(&mut self, json: &str) -> Result<Message, Errno> {
        self.call(VERSION, &bytes().u32(0).bytes(json.as_bytes()).bytes(&[0]).0, &[])
    }

    /// Sends raw bytes.
    pub fn send_raw(&self, message: &[u8], fds: &[BorrowedFd<'_>]) {
        let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(253))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() {
            assert!(control.push(SendAncillaryMessage::ScmRights(fds)));
        }
        let iov = [IoSlice::new(message)];
        let sent = rustix::net::sendmsg(&self.stream, &iov, &mut control, SendFlags::NOSIGNAL);
        assert_eq!(sent, Ok(message.len()));
    }

    pub fn header(id: u16, command: u16, size: usize, flags: u32) -> Vec<u8> {
        let mut header = Vec::new();
        header.extend(id.to_ne_bytes());
        header.extend(command.to_ne_bytes());
        header.extend((size as u32).to_ne_bytes());
        header.extend(flags.to_ne_bytes());
        header.extend([0; 4]);
        header
    }

    /// Sends a command; returns its message ID.
    pub fn send(
        &mut self,
        command: u16,
        flags: u32,
        payload: &[u8],
        fds: &[BorrowedFd<'_>],
    ) -> u16 {
        let id = self.next;
        self.next = self.next.wrapping_add(1);
        let mut message = Self::header(id, command, 16 + payload.len(), flags);
        message.extend(payload);
        self.send_raw(&message, fds);
        id
    }

    /// Answers a command of the server.
    pub fn answer(&self, to: &Message, flags: u32, error: u32, payload: &[u8]) {
        let mut message = Self::header(to.id, to.command, 16 + payload.len(), flags | 1);
        message[12..16].copy_from_slice(&error.to_ne_bytes());
        message.extend(payload);
        self.send_raw(&message, &[]);
    }

    fn read_exact(&self, into: &mut [u8], fds: &mut Vec<OwnedFd>) -> Option<()> {
        let mut have = 0;
        while have < into.len() {
            let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(16))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let mut iov = [IoSliceMut::new(&mut into[have..])];
            let flags = RecvFlags::CMSG_CLOEXEC;
            match rustix::net::recvmsg(&self.stream, &mut iov, &mut control, flags) {
                Ok(got) if got.bytes == 0 => return None,
                Ok(got) => have += got.bytes,
                Err(Errno::CONNRESET) => return None,
                Err(errno) => panic!("no message: {errno}"),
            }
            for message in control.drain() {
                if let RecvAncillaryMessage::ScmRights(rights) = message {
                    fds.extend(rights);
                }
            }
        }
        Some(())
    }

    /// The next message; `None` if the server has closed the connection.
    pub fn receive(&self) -> Option<Message> {
        let mut fds = Vec::new();
        let mut header = [0; 16];
        self.read_exact(&mut header, &mut fds)?;
        let field = |at: usize| u32::from_ne_bytes(header[at..at + 4].try_into().unwrap());
        let mut payload = vec![0; field(4) as usize - 16];
        self.read_exact(&mut payload, &mut fds)?;
        let (id, command) = (field(0) as u16, (field(0) >> 16) as u16);
        Some(Message { id, command, flags: field(8), error: field(12), payload, fds })
    }

    /// Whether a message arrives within `time`.
    pub fn has_message(&self, within: Duration) -> bool {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let mut fds = [PollFd::new(&self.stream, PollFlags::IN)];
        poll(&mut fds, Some(&Timespec::try_from(within).unwrap())) == Ok(1)
    }

    /// Sends a command and receives its reply, which must be the next message.
    pub fn call(
        &mut self,
        command: u16,
        payload: &[u8],
        fds: &[BorrowedFd<'_>],
    ) -> Result<Message, Errno> {
        let id = self.send(command, 0, payload, fds);
        let reply = self.receive().expect("the connection ends");
        assert_eq!((reply.id, reply.command), (id, command));
        check(reply)
    }

    pub fn map(
        &mut self,
        flags: u32,
        offset: u64,
        addr: u64,
        size: u64,
        fd: &OwnedFd,
    ) -> Result<(), Errno> {
        self.call(DMA_MAP, &map_bytes(flags, offset, addr, size), &[fd.as_fd()]).map(drop)
    }

    pub fn unmap(&mut self, addr: u64, size: u64) -> Result<Message, Errno> {
        self.call(DMA_UNMAP, &unmap_bytes(0, addr, size), &[])
    }

    pub fn read(&mut self, region: u32, offset: u64, count: u32) -> Result<Vec<u8>, Errno> {
        let reply = self.call(REGION_READ, &bytes().u64(offset).u32(region).u32(count).0, &[])?;
        assert_eq!((reply.u64(0), reply.u32(8), reply.u32(12)), (offset, region, count));
        assert_eq!(reply.payload.len(), 16 + count as usize);
        Ok(reply.payload[16..].to_vec())
    }

    pub fn write(&mut self, region: u32, offset: u64, data: &[u8]) -> Result<(), Errno> {
        let head = bytes().u64(offset).u32(region).u32(data.len() as u32);
        let reply = self.call(REGION_WRITE, &head.bytes(data).0, &[])?;
        assert_eq!((reply.u64(0), reply.u32(8), reply.payload.len()), (offset, region, 16));
        Ok(())
    }

    pub fn read32(&mut self, region: u32, offset: u64) -> u32 {
        u32::from_ne_bytes(self.read(region, offset, 4).unwrap().try_into().unwrap())
    }

    pub fn read64(&mut self, region: u32, offset: u64) -> u64 {
        u64::from_ne_bytes(self.read(region, offset, 8).unwrap().try_into().unwrap())
    }

    /// Enables the device's transfers (bus mastering).
    pub fn make_master(&mut self) {
        self.write(CONFIG, 4, &[6, 0]).unwrap();
    }
}

/// The reply, or the errno in it.
pub fn check(reply: Message) -> Result<Message, Errno> {
    assert_eq!(reply.flags & 0xf, 1, "not a reply");
    match reply.flags & 0x20 {
        0 => Ok(reply),
        _ => {
            assert!(reply.payload.is_empty(), "an error has no payload");
            assert_ne!(reply.error, 0, "an error without a number");
            Err(Errno::from_raw_os_error(reply.error as i32))
        }
    }
}

/// A memory file as QEMU creates it: sealed against shrinking.
pub fn memfd(len: u64) -> OwnedFd {
    let fd = unsealed(len);
    rustix::fs::fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::GROW).unwrap();
    fd
}

/// A memory file that its owner can still truncate, and that anybody can seal against it.
pub fn unsealed(len: u64) -> OwnedFd {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let fd = rustix::fs::memfd_create("guest", flags).unwrap();
    rustix::fs::ftruncate(&fd, len).unwrap();
    fd
}

/// A memory file that its owner can truncate, and that nobody can seal.
pub fn unsealable(len: u64) -> OwnedFd {
    let fd = rustix::fs::memfd_create("guest", MemfdFlags::CLOEXEC).unwrap();
    rustix::fs::ftruncate(&fd, len).unwrap();
    fd
}

pub fn fill(fd: &OwnedFd, at: u64, data: &[u8]) {
    assert_eq!(rustix::io::pwrite(fd, data, at), Ok(data.len()));
}

pub fn contents(fd: &OwnedFd, at: u64, len: usize) -> Vec<u8> {
    let mut data = vec![0; len];
    assert_eq!(rustix::io::pread(fd, &mut data, at), Ok(len));
    data
}
