//! A client of the broker, in a process of its own or in that of the test.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::ptr;

use gasp::broker::{HostToken, redeem_token, use_broker};
use gasp::{Backing, Errno, MemoryObject, errno_name};
use gasp::{FrameAccess, frame_access};
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, mmap_anonymous};

use crate::messages::{self, REQUEST};

pub(crate) const PAGE: u64 = 4096;
/// The pages of a private mapping.
pub(crate) const PAGES: u64 = 32;
/// The bytes of the memory object.
pub(crate) const OBJECT: u64 = 4 << 20;
const LEN: usize = (PAGES * PAGE) as usize;

/// A token as text.
pub(crate) fn show(token: &HostToken) -> String {
    format!("{:032x}:{}", u128::from_be_bytes(token.token), token.len)
}

pub(crate) fn parse(text: &str) -> HostToken {
    let (token, len) = text.split_once(':').unwrap();
    let token = u128::from_str_radix(token, 16).unwrap().to_be_bytes();
    HostToken { token, len: len.parse().unwrap() }
}

/// A connection that does not use the library's client.
pub(crate) struct Raw(pub(crate) UnixStream);

impl Raw {
    pub(crate) fn connect(socket: &Path) -> Self {
        Self::try_connect(socket).unwrap()
    }

    /// `None` if the broker refuses.
    pub(crate) fn try_connect(socket: &Path) -> Option<Self> {
        let mut stream = UnixStream::connect(socket).unwrap();
        let mut greeting = [0];
        stream.read_exact(&mut greeting).unwrap();
        (greeting == [messages::TOKENS]).then_some(Self(stream))
    }

    pub(crate) fn ask_all(
        &mut self,
        requests: impl Iterator<Item = [u8; REQUEST]>,
    ) -> Vec<Result<Vec<u8>, Errno>> {
        let requests: Vec<_> = requests.collect();
        self.0.write_all(requests.as_flattened()).unwrap();
        requests.iter().map(|_| messages::answer(&mut self.0)).collect()
    }

    pub(crate) fn grant(&mut self, addr: u64, len: u64) -> Result<Vec<HostToken>, Errno> {
        let answer = self.ask_all(std::iter::once(messages::grant(addr, len))).remove(0);
        answer.map(|body| messages::tokens(&body, len))
    }

    pub(crate) fn release(&mut self, addr: u64, len: u64) {
        self.0.write_all(&messages::release(addr, len)).unwrap();
    }
}

/// Private memory, never unmapped.
pub(crate) struct Private(*mut u8);

impl Private {
    pub(crate) fn new() -> Self {
        let memory = Self::untouched(LEN);
        memory.touch(LEN);
        memory
    }

    fn untouched(len: usize) -> Self {
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice.
        let base = unsafe { mmap_anonymous(ptr::null_mut(), len, protection, MapFlags::PRIVATE) };
        Self(base.unwrap().cast())
    }

    pub(crate) fn addr(&self) -> u64 {
        self.0.addr() as u64
    }

    fn touch(&self, len: usize) {
        for at in (0..len).step_by(PAGE as usize) {
            let page = self.0.wrapping_add(at);
            // SAFETY: in the mapping, which nothing else uses.
            unsafe { page.write_volatile(1) };
        }
    }

    /// Replaces its pages with others, after the old ones have been used for other memory.
    pub(crate) fn replace(&self) {
        self.discard();
        let other = Self::untouched(8 << 20);
        other.touch(8 << 20);
        self.touch(LEN);
    }

    fn discard(&self) {
        // SAFETY: the mapping is this object's, and holds nothing that is needed.
        unsafe { madvise(self.0.cast(), LEN, Advice::LinuxDontNeed) }.unwrap();
    }
}

/// The first page of this program, privately mapped and in memory.
fn program(protection: ProtFlags) -> Private {
    let file = File::open("/proc/self/exe").unwrap();
    let (len, flags) = (PAGE as usize, MapFlags::PRIVATE);
    // SAFETY: a new mapping at an address of the kernel's choice.
    let base = unsafe { mmap(ptr::null_mut(), len, protection, flags, &file, 0) };
    read(Private(base.unwrap().cast()))
}

fn read(memory: Private) -> Private {
    // SAFETY: the memory was just mapped, readable.
    unsafe { memory.0.read_volatile() };
    memory
}

/// Tokens from the library, after a check that it discloses no address.
fn of_object(object: &MemoryObject) -> Result<String, Errno> {
    assert!(matches!(frame_access(), FrameAccess::Denied(_)));
    assert_eq!(object.host_run(0, 1).unwrap_err().errno(), Errno::PERM);
    assert!(object.host_extents().all(|extent| extent.addr.is_none()));
    let offset = PAGE + 8;
    let tokens = object.host_tokens(offset, OBJECT - offset).map_err(|error| error.errno())?;
    assert_eq!(object.host_tokens(OBJECT, 1).unwrap_err().errno(), Errno::INVAL);
    Ok(list(offset, &tokens))
}

fn list(addr: u64, tokens: &[HostToken]) -> String {
    let tokens = tokens.iter().map(show);
    std::iter::once(addr.to_string()).chain(tokens).collect::<Vec<_>>().join(" ")
}

/// Carries out commands from stdin, one per line, and prints the results.
#[expect(clippy::zombie_processes, reason = "one child outlives this process")]
pub(crate) fn run(socket: &Path) {
    let mut object = None;
    let mut memory = Private::new();
    let mut raw = None;
    let mut others = Vec::new();
    for line in std::io::stdin().lines() {
        let line = line.unwrap();
        let (what, token) = line.split_once(' ').unwrap_or((&line, ""));
        let mut grant = |memory: &Private, len| -> Result<Vec<HostToken>, Errno> {
            if raw.is_none() {
                raw = Raw::try_connect(socket);
            }
            raw.as_mut().map_or(Err(Errno::PERM), |raw: &mut Raw| raw.grant(memory.addr(), len))
        };
        let all = PAGES * PAGE;
        let said = match what {
            "object" => {
                let object = object.get_or_insert_with(|| {
                    let ram = MemoryObject::ram(OBJECT).prefer(&[Backing::Base]).create().unwrap();
                    assert_eq!(ram.host_tokens(0, 1).unwrap_err().errno(), Errno::NOENT);
                    use_broker(socket).unwrap();
                    ram
                });
                of_object(object)
            }
            "drop" => {
                object = None;
                Ok("done".into())
            }
            "private" | "again" => grant(&memory, all).map(|tokens| list(memory.addr(), &tokens)),
            "raw" => Ok(list(0, &Raw::connect(socket).grant(memory.addr(), all).unwrap())),
            "discard" => {
                memory.discard();
                Ok("done".into())
            }
            "touch" => {
                // Other memory takes the frames that were released.
                others.push(Private::untouched(8 << 20));
                others.iter().for_each(|other| other.touch(8 << 20));
                memory.touch(LEN);
                Ok("done".into())
            }
            "program" => {
                let program = program(ProtFlags::READ | ProtFlags::EXEC);
                grant(&program, PAGE).map(|_| String::new())
            }
            "data" => {
                let data = program(ProtFlags::READ | ProtFlags::WRITE);
                grant(&data, PAGE).map(|_| String::new())
            }
            "zeros" => {
                memory = read(Private::untouched(LEN));
                grant(&memory, PAGE).map(|_| String::new())
            }
            "redeem" => redeem_token(socket, parse(token))
                .map(|run| run.addr.0.to_string())
                .map_err(|error| error.errno()),
            "close" => {
                raw = None;
                Ok("done".into())
            }
            "crowd" => {
                let crowd: Vec<_> = (0..80).map_while(|_| Raw::try_connect(socket)).collect();
                Ok(crowd.len().to_string())
            }
            "linger" => {
                let stream = raw.take().unwrap().0;
                let mut sleep = Command::new("sleep");
                let stdin = Stdio::from(std::os::fd::OwnedFd::from(stream));
                sleep.arg("5").stdin(stdin).stdout(Stdio::null()).spawn().unwrap();
                println!("done");
                return;
            }
            other => panic!("{other}"),
        };
        println!("{}", said.unwrap_or_else(|errno| errno_name(errno).into()));
    }
}
